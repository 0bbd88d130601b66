//! Under which names an image is stored, by containerd's rules for its `ImageStore` destination.

use std::collections::BTreeMap;

use super::{
    Unpack,
    descriptor::{Descriptor, IMAGE_NAME, REF_NAME},
    platform::Platform,
};
use crate::{
    daemon::Daemon,
    error::Result,
    identifier::Labels,
    image::{self, Image},
    lease,
    namespace::Scope,
};

/// The label that has an image kept by another.
const KEPT_BY_IMAGE: &str = "containerd.io/gc.bref.image";

/// A further name, or a rule to make one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Name {
    /// The name, or its beginning.
    pub(crate) name: String,
    /// Whether tag or digest are to be added.
    pub(crate) is_prefix: bool,
    /// Whether a full name in the archive may lie outside the prefix.
    pub(crate) allow_overwrite: bool,
    /// Whether the image is also, or if it has no name only, stored as `name@digest`.
    pub(crate) add_digest: bool,
    /// Whether a named image is not stored by digest as well.
    pub(crate) skip_named_digest: bool,
}

/// Where images go, and what of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Destination {
    /// The name of the target; empty to take names from the archive only.
    pub(crate) name: String,
    /// Labels of the records.
    pub(crate) labels: BTreeMap<String, String>,
    /// Platforms that are wanted; empty for all.
    pub(crate) platforms: Vec<Platform>,
    /// How many entries of an index are wanted; 0 for all that fit.
    pub(crate) manifest_limit: usize,
    /// Whether manifests and configurations of all platforms are wanted.
    pub(crate) all_metadata: bool,
    /// Further names.
    pub(crate) names: Vec<Name>,
    /// What is unpacked.
    pub(crate) unpacks: Vec<Unpack>,
}

impl Destination {
    /// The names of the target itself: those that were asked for.
    pub(super) fn target_names(&self, target: &Descriptor) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        if !self.name.is_empty() {
            names.push(self.name.clone());
        }
        for further in &self.names {
            match (further.is_prefix, further.add_digest) {
                (_, true) => names.push(format!("{}@{}", further.name, target.digest)),
                (true, false) => {}
                (false, false) => names.push(further.name.clone()),
            }
        }
        names
    }

    /// The names of an image in an archive: those that its annotations and the rules give.
    pub(super) fn entry_names(&self, entry: &Descriptor) -> Vec<String> {
        let annotated = entry
            .annotation(IMAGE_NAME)
            .or_else(|| entry.annotation(REF_NAME));
        let mut names = Vec::new();
        for rule in self.names.iter().filter(|name| name.is_prefix) {
            let name = annotated.and_then(|annotated| rule.translate(annotated));
            let named = name.is_some();
            names.extend(name);
            if rule.add_digest && !(named && rule.skip_named_digest) {
                names.push(format!("{}@{}", rule.name, entry.digest));
            }
        }
        names
    }

    /// The labels of the image `name`. Where the destination has a name, further ones go with it: they have expired already, and
    /// are kept by that one.
    fn labels(&self, name: &str, now: jiff::Timestamp) -> Labels {
        let mut labels = self.labels.clone();
        if !self.name.is_empty() && name != self.name {
            labels.insert(KEPT_BY_IMAGE.to_owned(), self.name.clone());
            // To the second, as containerd writes it.
            let now = jiff::Timestamp::from_second(now.as_second()).unwrap_or(now);
            labels.insert(lease::EXPIRE.to_owned(), now.to_string());
        }
        labels
    }

    /// Writes the records of `target` under `names`. Blocks; durable.
    pub(super) fn store(
        &self,
        daemon: &Daemon,
        scope: &Scope,
        target: &Descriptor,
        names: &[String],
    ) -> Result<Vec<Image>> {
        let now = jiff::Timestamp::now();
        names
            .iter()
            .map(|name| {
                let record = Image {
                    name: name.clone(),
                    labels: self.labels(name, now),
                    target: Some(target.to_wire()),
                    ..Image::default()
                };
                image::put(daemon, scope, record)
            })
            .collect()
    }
}

impl Name {
    /// The full name that `annotated` stands for, if the rule lets it.
    fn translate(&self, annotated: &str) -> Option<String> {
        let full = annotated.contains(['/', ':', '@']);
        if !full {
            return (!self.name.is_empty()).then(|| format!("{}:{annotated}", self.name));
        }
        let inside = annotated
            .strip_prefix(self.name.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', ':', '@']));
        (self.allow_overwrite || inside).then(|| annotated.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(annotation: Option<&str>) -> Descriptor {
        Descriptor {
            digest: "sha256:d".into(),
            annotations: annotation.map(|name| [(REF_NAME.to_owned(), name.to_owned())].into()),
            ..Descriptor::default()
        }
    }

    #[test]
    fn archives_name_their_images_within_the_rules() {
        let rule = Name {
            name: "host/app".into(),
            is_prefix: true,
            ..Name::default()
        };
        let names = |rule: &Name, annotation: Option<&str>| {
            Destination {
                names: vec![rule.clone()],
                ..Destination::default()
            }
            .entry_names(&entry(annotation))
        };
        assert_eq!(names(&rule, Some("v1")), ["host/app:v1"]);
        assert_eq!(names(&rule, Some("host/app:v2")), ["host/app:v2"]);
        assert!(names(&rule, Some("host/application:v2")).is_empty());
        assert!(names(&rule, None).is_empty());
        let overwrite = Name {
            allow_overwrite: true,
            ..rule.clone()
        };
        assert_eq!(names(&overwrite, Some("other/x:1")), ["other/x:1"]);
        let digest = Name {
            add_digest: true,
            skip_named_digest: true,
            ..rule
        };
        assert_eq!(names(&digest, None), ["host/app@sha256:d"]);
        assert_eq!(names(&digest, Some("v1")), ["host/app:v1"]);
    }

    #[test]
    fn the_target_has_the_names_that_were_asked_for() {
        let destination = Destination {
            name: "a".into(),
            names: vec![
                Name {
                    name: "b".into(),
                    ..Name::default()
                },
                Name {
                    name: "c".into(),
                    is_prefix: true,
                    ..Name::default()
                },
                Name {
                    name: "d".into(),
                    add_digest: true,
                    is_prefix: true,
                    ..Name::default()
                },
            ],
            ..Destination::default()
        };
        assert_eq!(destination.target_names(&entry(None)), ["a", "b", "d@sha256:d"]);
        let now = "2026-01-02T03:04:05.6Z".parse().unwrap();
        assert!(destination.labels("a", now).is_empty());
        let further: Vec<_> = destination.labels("b", now).into_iter().collect();
        let expected = [
            (KEPT_BY_IMAGE, "a"),
            ("containerd.io/gc.expire", "2026-01-02T03:04:05Z"),
        ];
        assert_eq!(
            further,
            expected.map(|(key, value)| (key.to_owned(), value.to_owned()))
        );
        assert!(Destination::default().labels("b", now).is_empty());
    }
}
