//! From the mounts of a snapshot to the directory that a layer is applied to, without mounting anything.
//!
//! An overlay's layer is written straight into its upper directory and a bind's into its source, so that nothing is
//! attached to any mount table and nothing is left behind when the process is killed.
//!
//! Refuses read-only mounts, overlays without an upper directory, and other kinds of mounts by name.

use rustix::{
    fd::OwnedFd,
    fs::{self, Mode, OFlags},
};
use wharf_proto::containerd::types::Mount;

use super::apply::Target;
use crate::error::{Error, Result};

/// A directory that is ready for a layer.
pub(crate) struct Prepared {
    /// The target to hand to [`apply`](super::apply()).
    pub(crate) target: Target,
    /// The written directory once more, for making it durable.
    pub(crate) directory: OwnedFd,
}

/// Opens what `mounts` describe.
///
/// # Errors
///
/// `InvalidArgument` or `Unimplemented` for mounts that a layer cannot be applied to; `Unknown` from opening them.
pub(crate) fn prepare(mounts: &[Mount]) -> Result<Prepared> {
    let [mount] = mounts else {
        return Err(Error::unimplemented(format!(
            "applying a layer to {} stacked mounts",
            mounts.len()
        )));
    };
    let has = |flag: &str| mount.options.iter().any(|option| option == flag);
    match mount.r#type.as_str() {
        "bind" | "rbind" => bind(mount),
        // containerd's snapshotters say a bind as a mount of no type with the option.
        "" | "none" if has("bind") || has("rbind") => bind(mount),
        "overlay" => {
            let value = |key: &str| {
                mount
                    .options
                    .iter()
                    .rev()
                    .find_map(|option| option.strip_prefix(key))
            };
            let upper = value("upperdir=")
                .ok_or_else(|| Error::invalid("the overlay to apply a layer to has no upper directory"))?;
            let lowers = split_lowers(value("lowerdir=").unwrap_or_default());
            let lowers = lowers.iter().map(|lower| open(lower)).collect::<Result<_>>()?;
            Ok(Prepared {
                target: Target::Upper {
                    upper: open(upper)?,
                    lowers,
                },
                directory: open(upper)?,
            })
        }
        other => Err(Error::unimplemented(format!(
            "applying a layer to a mount of type {other:?}"
        ))),
    }
}

/// Opens what `mounts` of a snapshot without parent describe, for a layer whose parents come later: its whiteouts are
/// kept.
///
/// # Errors
///
/// As [`prepare`].
pub(crate) fn prepare_apart(mounts: &[Mount]) -> Result<Target> {
    match prepare(mounts)?.target {
        Target::Complete(upper) => Ok(Target::Upper {
            upper,
            lowers: Vec::new(),
        }),
        upper @ Target::Upper { .. } => Ok(upper),
    }
}

fn bind(mount: &Mount) -> Result<Prepared> {
    if mount.options.iter().any(|option| option == "ro") {
        return Err(Error::invalid("the mount to apply a layer to is read-only"));
    }
    Ok(Prepared {
        target: Target::Complete(open(&mount.source)?),
        directory: open(&mount.source)?,
    })
}

fn open(path: &str) -> Result<OwnedFd> {
    if !path.starts_with('/') {
        return Err(Error::invalid(format!(
            "directory {path:?} of a mount is not absolute"
        )));
    }
    fs::open(
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|error| Error::io(format!("open {path}"), error))
}

/// overlayfs separates lower directories with colons and takes `\:` for a colon in a name.
fn split_lowers(option: &str) -> Vec<String> {
    let mut lowers = vec![String::new()];
    let mut characters = option.chars();
    while let Some(character) = characters.next() {
        let last = lowers.last_mut().expect("starts with one");
        match character {
            ':' => lowers.push(String::new()),
            '\\' => last.extend(characters.next()),
            other => last.push(other),
        }
    }
    lowers.retain(|lower| !lower.is_empty());
    lowers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lowers_are_split_as_overlayfs_splits_them() {
        assert_eq!(split_lowers("/a:/b\\:c::/d"), ["/a", "/b:c", "/d"]);
        assert!(split_lowers("").is_empty());
    }

    #[test]
    fn only_writable_mounts_of_known_kinds_are_taken() {
        let mount = |kind: &str, options: &[&str]| Mount {
            r#type: kind.into(),
            source: "/".into(),
            target: String::new(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
        };
        assert!(prepare(&[mount("bind", &["rbind", "ro"])]).is_err());
        assert!(prepare(&[mount("overlay", &["lowerdir=/"])]).is_err());
        assert!(prepare(&[mount("erofs", &[])]).is_err());
        assert!(prepare(&[]).is_err());
    }
}
