//! Platforms: which image of an index is meant.

use serde::{Deserialize, Serialize};
use wharf_proto::containerd::types;

/// An operating system and processor, in the names of the OCI (which are Go's).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Platform {
    /// `linux`.
    #[serde(default)]
    pub(crate) os: String,
    /// `amd64`, `arm64`, …
    #[serde(default)]
    pub(crate) architecture: String,
    /// `v7`, `v8`, … or empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) variant: String,
}

impl Platform {
    /// This host's.
    pub(crate) fn host() -> Self {
        Self {
            os: "linux".into(),
            architecture: std::env::consts::ARCH.into(),
            variant: String::new(),
        }
        .normalised()
    }

    /// The same under the names that images use.
    fn normalised(&self) -> Self {
        let architecture = self.architecture.to_lowercase();
        let variant = self.variant.to_lowercase();
        let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
            ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
            ("x86_64" | "x86-64", variant) => ("amd64", variant),
            ("i386" | "x86", _) => ("386", ""),
            ("aarch64" | "arm64", "" | "8" | "v8") => ("arm64", ""),
            ("aarch64", variant) => ("arm64", variant),
            ("armhf", _) => ("arm", "v7"),
            ("armel", _) => ("arm", "v6"),
            ("arm", "" | "7") => ("arm", "v7"),
            (architecture, variant) => (architecture, variant),
        };
        Self {
            os: self.os.to_lowercase(),
            architecture: architecture.into(),
            variant: variant.into(),
        }
    }

    /// Whether the two mean the same, under whatever names.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.normalised() == other.normalised()
    }

    /// Whether images for it are unpacked here: those of our operating system, as the layers of another processor can be
    /// unpacked as well as our own; when platforms are to be `checked`, only those that run here.
    pub(super) fn is_unpacked_here(&self, checked: bool) -> bool {
        let host = Self::host();
        match checked {
            true => host.score(self).is_some(),
            false => host.os == self.normalised().os,
        }
    }

    /// How well `image` runs where `self` is wanted: higher is better, `None` not at all.
    pub(super) fn score(&self, image: &Self) -> Option<u32> {
        let (wanted, image) = (self.normalised(), image.normalised());
        if wanted.os != image.os || wanted.architecture != image.architecture {
            return None;
        }
        if wanted.variant == image.variant {
            return Some(1000);
        }
        // `v7` runs what was built for `v6`; a newer variant than the wanted one may not run.
        let level = |variant: &str| match variant.strip_prefix('v') {
            Some(number) => number.parse::<u32>().ok(),
            None if variant.is_empty() => Some(0),
            None => None,
        };
        let (wanted, image) = (level(&wanted.variant)?, level(&image.variant)?);
        (image < wanted).then_some(image)
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

/// What a message calls several.
pub(super) fn list(platforms: &[Platform]) -> String {
    let platforms: Vec<String> = platforms.iter().map(ToString::to_string).collect();
    platforms.join(", ")
}

impl From<types::Platform> for Platform {
    fn from(wire: types::Platform) -> Self {
        Self {
            os: wire.os,
            architecture: wire.architecture,
            variant: wire.variant,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        let mut parts = text.split('/').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        Platform {
            os: next(),
            architecture: next(),
            variant: next(),
        }
    }

    #[test]
    fn the_nearest_older_variant_is_the_best() {
        let score = |wanted: &str, image: &str| platform(wanted).score(&platform(image));
        assert_eq!(score("linux/amd64", "linux/amd64"), Some(1000));
        assert_eq!(score("linux/amd64", "linux/x86_64/v1"), Some(1000));
        assert_eq!(score("linux/amd64", "linux/amd64/v3"), None);
        assert_eq!(score("linux/amd64", "linux/arm64"), None);
        assert_eq!(score("linux/amd64", "unknown/unknown"), None);
        assert_eq!(score("linux/arm64/v8", "linux/arm64"), Some(1000));
        assert!(score("linux/arm/v7", "linux/arm/v6") > score("linux/arm/v7", "linux/arm/v5"));
        assert_eq!(score("linux/arm/v6", "linux/arm/v7"), None);
    }

    #[test]
    fn another_processors_image_is_unpacked_unless_platforms_are_checked() {
        let host = Platform::host();
        let other = platform("linux/s390x");
        assert!(host.is_unpacked_here(false) && host.is_unpacked_here(true));
        assert!(other.is_unpacked_here(false) && !other.is_unpacked_here(true));
        assert!(!platform("windows/amd64").is_unpacked_here(false));
    }
}
