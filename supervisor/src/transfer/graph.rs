//! From a target to its images: documents fetched and read, platforms chosen.

use super::{
    descriptor::{Descriptor, Kind},
    document::Document,
    fetch::Fetcher,
    platform::{self, Platform},
};
use crate::error::{Error, Result};

/// Indexes within indexes.
pub(super) const MAX_DEPTH: usize = 4;
/// Images of one target, all platforms and nested indexes together.
pub(super) const MAX_IMAGES: usize = 1000;

/// One image: its manifest was read and is in the store, its config and layers need not be.
#[derive(Debug, Clone)]
pub(super) struct Image {
    pub(super) manifest: Descriptor,
    pub(super) config: Descriptor,
    /// None when nobody wants more of it than its metadata.
    pub(super) layers: Vec<Descriptor>,
    /// Whether it is for a platform that was asked for.
    pub(super) is_wanted: bool,
}

/// Reads `target` and all indexes below it; of each index only what fits `platforms` best, or everything when none are
/// given, and no more than `limit` entries unless that is 0. With `all_metadata` also what does not fit, without layers.
/// The target's progress is told as a part of `name`.
///
/// An index of which nothing fits is an image all the same, as it is for containerd: its clients ask again, for another
/// platform. It is refused where a number of images was asked for, and so is an archive of which nothing fits.
pub(super) async fn images(
    fetcher: &Fetcher,
    (name, target): (&str, &Descriptor),
    platforms: &[Platform],
    limit: usize,
    all_metadata: bool,
) -> Result<Vec<Image>> {
    let mut images = Vec::new();
    let mut is_empty = true;
    let mut pending = vec![(target.clone(), name.to_owned(), 0, true)];
    while let Some((descriptor, parent, depth, is_wanted)) = pending.pop() {
        if depth > MAX_DEPTH {
            return Err(Error::invalid(format!(
                "{}: indexes are nested too deeply",
                descriptor.digest
            )));
        }
        if !matches!(descriptor.kind(), Kind::Index | Kind::Manifest) {
            return Err(Error::invalid(format!(
                "{}: media type {:?} is not an image",
                descriptor.digest, descriptor.media_type
            )));
        }
        let mut fitting = Vec::new();
        let chosen = |document| match document {
            Document::Index(entries) => {
                let mut rest = entries.clone();
                let mut chosen = match is_wanted {
                    true => choose(entries, platforms),
                    false => Vec::new(),
                };
                fitting.clone_from(&chosen);
                if all_metadata {
                    rest.retain(|entry| !chosen.contains(entry));
                    chosen.append(&mut rest);
                }
                if limit > 0 {
                    if chosen.is_empty() {
                        return Err(Error::not_found(no_match(&descriptor, platforms)));
                    }
                    chosen.truncate(limit);
                }
                Ok(Document::Index(chosen))
            }
            manifest @ Document::Manifest { .. } => Ok(manifest),
        };
        let document = match fetcher.document(&descriptor, &parent, chosen).await {
            // An archive need not have what was not asked for when it was made.
            Err(error) if !is_wanted && fetcher.is_local() && error.is_not_found() => continue,
            document => document?,
        };
        match document {
            Document::Index(entries) => {
                is_empty &= entries.is_empty();
                let parent = descriptor.reference();
                pending.extend(entries.into_iter().rev().map(|entry| {
                    let is_wanted = fitting.contains(&entry);
                    (entry, parent.clone(), depth + 1, is_wanted)
                }));
            }
            Document::Manifest { config, layers } => {
                is_empty = false;
                images.push(Image {
                    manifest: descriptor,
                    config,
                    layers: if is_wanted { layers } else { Vec::new() },
                    is_wanted,
                });
            }
        }
        if images.len() + pending.len() > MAX_IMAGES {
            return Err(Error::invalid(format!(
                "{}: more than {MAX_IMAGES} images",
                target.digest
            )));
        }
    }
    if is_empty && fetcher.is_local() {
        return Err(Error::not_found(no_match(target, platforms)));
    }
    Ok(images)
}

/// What is said of an `index` that has nothing for `platforms`.
pub(super) fn no_match(index: &Descriptor, platforms: &[Platform]) -> String {
    format!(
        "no match for platform {} in index {}",
        platform::list(platforms),
        index.digest
    )
}

/// The entries of an index that are wanted.
pub(super) fn choose(entries: Vec<Descriptor>, platforms: &[Platform]) -> Vec<Descriptor> {
    if platforms.is_empty() {
        return entries;
    }
    let mut chosen: Vec<Descriptor> = Vec::new();
    for wanted in platforms {
        // Of equals the first one is meant. An entry that does not say runs anywhere, if nothing better does; indexes
        // in archives list images of several names, which all are wanted.
        let score = |entry: &Descriptor| match &entry.platform {
            Some(platform) => wanted.score(platform).map(|score| score + 1),
            None => Some(0),
        };
        let Some(best) = entries.iter().filter_map(score).max() else {
            continue;
        };
        let named = |entry: &Descriptor| {
            [super::descriptor::IMAGE_NAME, super::descriptor::REF_NAME]
                .iter()
                .any(|name| entry.annotation(name).is_some())
        };
        let mut fitting = entries.iter().filter(|entry| score(entry) == Some(best));
        let first = fitting.next().into_iter();
        for entry in first.chain(fitting.filter(|entry| named(entry) || entry.platform.is_none())) {
            if !chosen.contains(entry) {
                chosen.push(entry.clone());
            }
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(digest: &str, platform: Option<(&str, &str)>, name: Option<&str>) -> Descriptor {
        Descriptor {
            digest: digest.into(),
            platform: platform.map(|(architecture, variant)| Platform {
                os: "linux".into(),
                architecture: architecture.into(),
                variant: variant.into(),
            }),
            annotations: name
                .map(|name| [(super::super::descriptor::REF_NAME.to_owned(), name.to_owned())].into()),
            ..Descriptor::default()
        }
    }

    #[test]
    fn the_wanted_platform_is_chosen() {
        let host = [Platform {
            os: "linux".into(),
            architecture: "amd64".into(),
            variant: String::new(),
        }];
        let choose = |entries: Vec<Descriptor>, platforms: &[Platform]| {
            let chosen = choose(entries, platforms).into_iter();
            chosen.map(|entry| entry.digest).collect::<Vec<_>>()
        };
        let multi = vec![
            entry("arm", Some(("arm64", "")), None),
            entry("v3", Some(("amd64", "v3")), None),
            entry("first", Some(("amd64", "")), None),
            entry("second", Some(("amd64", "")), None),
        ];
        assert_eq!(choose(multi.clone(), &host), ["first"]);
        assert_eq!(choose(multi, &[]).len(), 4);
        assert!(choose(vec![entry("arm", Some(("arm64", "")), None)], &host).is_empty());
        // The layouts of tools that write no platform, and archives of several images.
        assert_eq!(
            choose(
                vec![entry("one", None, Some("a")), entry("two", None, Some("b"))],
                &host
            )
            .len(),
            2
        );
        let named = vec![
            entry("one", Some(("amd64", "")), Some("a")),
            entry("two", Some(("amd64", "")), Some("b")),
        ];
        assert_eq!(choose(named, &host), ["one", "two"]);
    }
}
