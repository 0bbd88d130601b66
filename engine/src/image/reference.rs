//! Image names as people write them, and what they stand for.
//!
//! `alpine` is `docker.io/library/alpine:latest`; the first part is a registry only if it has a dot, a colon or is
//! `localhost`. The grammar is that of Docker's distribution references.

use crate::error::{Error, Result};
use std::fmt;
use std::net::IpAddr;

const DEFAULT_REGISTRY: &str = "docker.io";
const MAX_NAME: usize = 255;

/// A parsed name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    path: String,
    tag: Option<String>,
    digest: Option<String>,
}

impl Reference {
    /// Parses a name. Without tag and digest, the tag is `latest`.
    ///
    /// # Errors
    ///
    /// It is not a name by the grammar.
    pub fn parse(text: &str) -> Result<Self> {
        let invalid = |why: &str| Error::invalid(format!("invalid reference format: {why}: {text:?}"));
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        if digest.is_some_and(|digest| !is_digest(digest)) {
            return Err(invalid("not a sha256 digest"));
        }
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(invalid("not a tag"));
        }
        let (registry, path) = match name.split_once('/') {
            Some((first, path)) if first.contains(['.', ':']) || first == "localhost" => {
                (first, path.to_owned())
            }
            _ => (DEFAULT_REGISTRY, name.to_owned()),
        };
        let registry = if registry == "index.docker.io" {
            DEFAULT_REGISTRY
        } else {
            registry
        };
        let path = if registry == DEFAULT_REGISTRY && !path.contains('/') {
            format!("library/{path}")
        } else {
            path
        };
        if !is_registry(registry) {
            return Err(invalid("not a registry"));
        }
        if path.chars().any(|letter| letter.is_ascii_uppercase()) {
            return Err(Error::invalid(format!(
                "invalid reference format: repository name ({path}) must be lowercase"
            )));
        }
        if registry.len() + path.len() >= MAX_NAME || !path.split('/').all(is_component) {
            return Err(invalid("not a repository"));
        }
        let tag = match (tag, digest) {
            (None, None) => Some("latest"),
            (tag, _) => tag,
        };
        Ok(Self {
            registry: registry.to_owned(),
            path,
            tag: tag.map(str::to_owned),
            digest: digest.map(str::to_owned),
        })
    }

    /// The same name with this tag or digest in place of its own.
    ///
    /// # Errors
    ///
    /// It is neither a tag nor a digest.
    pub fn with(&self, tag_or_digest: &str) -> Result<Self> {
        let mut other = self.clone();
        if is_digest(tag_or_digest) {
            (other.tag, other.digest) = (None, Some(tag_or_digest.to_owned()));
        } else if is_tag(tag_or_digest) {
            (other.tag, other.digest) = (Some(tag_or_digest.to_owned()), None);
        } else {
            return Err(Error::invalid(format!("invalid tag format: {tag_or_digest:?}")));
        }
        Ok(other)
    }

    /// The name without tag and digest, short: `alpine`, `localhost:5000/a/b`.
    pub fn familiar_name(&self) -> String {
        if self.registry == DEFAULT_REGISTRY {
            self.path
                .strip_prefix("library/")
                .unwrap_or(&self.path)
                .to_owned()
        } else {
            format!("{}/{}", self.registry, self.path)
        }
    }

    /// The name as people write it: `alpine:latest`.
    pub fn familiar(&self) -> String {
        self.suffixed(self.familiar_name())
    }

    /// The registry, with its port.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository within the registry: `library/alpine`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag, if it has one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if it has one.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// Whether the registry is this host itself, and so is spoken to without TLS.
    pub fn is_local(&self) -> bool {
        let host = self
            .registry
            .rsplit_once(':')
            .map_or(self.registry.as_str(), |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    fn suffixed(&self, mut name: String) -> String {
        if let Some(tag) = &self.tag {
            name.push(':');
            name.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            name.push('@');
            name.push_str(digest);
        }
        name
    }
}

/// The full name, as the image store keeps it.
impl fmt::Display for Reference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.suffixed(format!("{}/{}", self.registry, self.path)))
    }
}

/// Whether `text` is a sha256 digest.
pub fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64
            && hex
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    })
}

fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=128).contains(&tag.len())
        && word(tag.as_bytes()[0])
        && tag.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-')
}

fn is_registry(registry: &str) -> bool {
    let (host, port) = match registry.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (registry, None),
    };
    let ipv6 = host.starts_with('[')
        && host.ends_with(']')
        && host[1..host.len() - 1]
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || byte == b':');
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    (ipv6 || host.split('.').all(label)) && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

// Words of letters and digits, joined by one dot, one or two underscores, or any number of dashes.
fn is_component(component: &str) -> bool {
    let mut separator = String::new();
    let mut words = 0;
    for letter in component.chars() {
        match letter {
            'a'..='z' | '0'..='9' => {
                if !separator.is_empty() && words == 0 {
                    return false;
                }
                if !(matches!(separator.as_str(), "" | "." | "_" | "__")
                    || separator.bytes().all(|byte| byte == b'-'))
                {
                    return false;
                }
                separator.clear();
                words += 1;
            }
            '.' | '_' | '-' => separator.push(letter),
            _ => return false,
        }
    }
    words > 0 && separator.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn short_names_are_completed() {
        for (text, full, familiar) in [
            ("alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("a/b:1", "docker.io/a/b:1", "a/b:1"),
            (
                "index.docker.io/alpine",
                "docker.io/library/alpine:latest",
                "alpine:latest",
            ),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            (
                "127.0.0.1:5000/x/y:t",
                "127.0.0.1:5000/x/y:t",
                "127.0.0.1:5000/x/y:t",
            ),
            ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
            (
                "r.example:80/a__b-c--d.e",
                "r.example:80/a__b-c--d.e:latest",
                "r.example:80/a__b-c--d.e:latest",
            ),
        ] {
            let reference = Reference::parse(text).unwrap();
            assert_eq!(
                (reference.to_string().as_str(), reference.familiar().as_str()),
                (full, familiar),
                "{text}"
            );
        }
        let pinned = Reference::parse(&format!("a@{DIGEST}")).unwrap();
        assert_eq!(pinned.to_string(), format!("docker.io/library/a@{DIGEST}"));
        let both = Reference::parse(&format!("a:1@{DIGEST}")).unwrap();
        assert_eq!(both.to_string(), format!("docker.io/library/a:1@{DIGEST}"));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in [
            "",
            ":",
            "A",
            "a:",
            "a:-",
            "a@sha256:1",
            "-a",
            "a/",
            "/a",
            "a//b",
            "a..b",
            "a___b",
            "a b",
            "x.y:99999/a",
            "a.-b",
        ] {
            assert!(Reference::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_this_host_is_local() {
        for (name, local) in [
            ("localhost:1/a", true),
            ("127.3.2.1/a", true),
            ("[::1]:5/a", true),
            ("10.0.0.1/a", false),
            ("a", false),
        ] {
            assert_eq!(Reference::parse(name).unwrap().is_local(), local, "{name}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_the_full_name_is_stable(text in "\\PC{0,40}") {
            if let Ok(reference) = Reference::parse(&text) {
                let again = Reference::parse(&reference.to_string()).unwrap();
                prop_assert_eq!(&again, &reference);
                prop_assert_eq!(Reference::parse(&reference.familiar()).unwrap(), reference);
            }
        }
    }
}
