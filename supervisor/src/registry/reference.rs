//! Full image references: `host[:port]/repository[:tag][@digest]`.
//!
//! Refuses names without a registry host: completing short names is a client's business.

use std::{fmt, net::IpAddr, str::FromStr};

use crate::{
    digest::Digest,
    error::{Error, Result},
};

/// The longest repository name, with its host: what registries accept.
const MAX_NAME: usize = 255;
/// The longest tag.
const MAX_TAG: usize = 128;

/// A reference to an image in a registry. Every part is safe in a URL as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    host: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// `host[:port]` as written.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// `host[:port]` to connect to: Docker Hub's name is not that of its registry.
    pub(crate) fn endpoint(&self) -> &str {
        match self.host.as_str() {
            "docker.io" | "index.docker.io" => "registry-1.docker.io",
            host => host,
        }
    }

    /// The repository's path in the registry.
    pub(crate) fn repository(&self) -> &str {
        &self.repository
    }

    /// The digest, when there is one: it then decides what is meant.
    pub(crate) fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What stands behind `/manifests/`: the digest, the tag, or `latest`.
    pub(crate) fn object(&self) -> &str {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.as_str(),
            (None, Some(tag)) => tag,
            (None, None) => "latest",
        }
    }

    /// Whether the host is this machine by a name or address that no resolver can turn elsewhere.
    pub(crate) fn is_loopback(&self) -> bool {
        let host = match self.host.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => self.host.split(':').next().unwrap_or_default(),
        };
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = |reason: &str| Error::invalid(format!("invalid reference {:?}: {reason}", shown(text)));
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse()?)),
            None => (text, None),
        };
        let (host, rest) = rest
            .split_once('/')
            .ok_or_else(|| invalid("the registry host is missing"))?;
        let (repository, tag) = match rest.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (rest, None),
        };
        if !is_host(host) {
            return Err(invalid("malformed registry host"));
        }
        if host.len() + 1 + repository.len() > MAX_NAME {
            return Err(invalid("the repository name is longer than 255 characters"));
        }
        if !repository.split('/').all(is_component) {
            return Err(invalid("malformed repository name"));
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(invalid("malformed tag"));
        }
        Ok(Self {
            host: host.to_owned(),
            repository: repository.to_owned(),
            tag: tag.map(str::to_owned),
            digest,
        })
    }
}

fn shown(text: &str) -> String {
    text.chars().take(200).collect()
}

/// A name with a dot or port, `localhost`, or a bracketed IPv6 address, each with an optional port.
fn is_host(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if address.parse::<std::net::Ipv6Addr>().is_ok() => {
                return port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
            }
            _ => return false,
        },
        None => match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        },
    };
    let label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    (name == "localhost" || name.contains('.') || port.is_some())
        && name.split('.').all(label)
        && port.is_none_or(is_port)
}

fn is_port(port: &str) -> bool {
    port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port != 0)
}

/// Runs of lower-case letters and digits, joined by `.`, `_`, `__` or any number of `-`.
fn is_component(component: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    if !bytes.first().is_some_and(|byte| alphanumeric(*byte))
        || !bytes.last().is_some_and(|byte| alphanumeric(*byte))
    {
        return false;
    }
    component
        .split(|character: char| character.is_ascii_lowercase() || character.is_ascii_digit())
        .all(|separator| {
            matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-')
        })
}

pub(super) fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= MAX_TAG
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn full_references_are_taken_apart() {
        let reference: Reference = format!("127.0.0.1:5000/a/b-c__d:v1.0@{DIGEST}").parse().unwrap();
        assert_eq!(reference.host(), "127.0.0.1:5000");
        assert_eq!(reference.repository(), "a/b-c__d");
        assert_eq!(reference.object(), DIGEST);
        assert_eq!(
            reference.to_string(),
            format!("127.0.0.1:5000/a/b-c__d:v1.0@{DIGEST}")
        );
        let hub: Reference = "docker.io/library/busybox".parse().unwrap();
        assert_eq!((hub.endpoint(), hub.object()), ("registry-1.docker.io", "latest"));
    }

    #[test]
    fn only_this_machine_is_loopback() {
        let loopback = |text: &str| format!("{text}/a").parse::<Reference>().unwrap().is_loopback();
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1",
            "127.1.2.3:80",
            "[::1]:5000",
        ] {
            assert!(loopback(host), "{host}");
        }
        for host in [
            "example.org",
            "127.0.0.1.example.org",
            "128.0.0.1",
            "localhost.example.org",
            "[fe80::1]",
        ] {
            assert!(!loopback(host), "{host}");
        }
    }

    #[test]
    fn malformed_references_are_refused() {
        let long = format!("localhost/{}", "a".repeat(300));
        for bad in [
            "",
            "busybox",
            "library/busybox",
            "localhost/",
            "localhost//a",
            "localhost/A",
            "localhost/a/../b",
            "localhost/a:",
            "localhost/a:-x",
            "localhost/a?x",
            "localhost/a@sha256:00",
            "localhost:0/a",
            "localhost:99999/a",
            "user@localhost/a",
            "-a.b/c",
            "a..b/c",
            "[::1/a",
            "localhost/a___b",
            "localhost/a.-b",
            &long,
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad:?} was accepted");
        }
    }
}
