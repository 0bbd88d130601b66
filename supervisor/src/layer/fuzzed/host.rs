//! Where layers are applied to: a target, and a canary beside it that no layer may touch.

use std::{
    fs::{self, File},
    os::{
        fd::OwnedFd,
        unix::fs::{MetadataExt, PermissionsExt},
    },
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{
    error::Result,
    layer::{
        Limits, apply,
        apply::{Applied, Target},
    },
};

/// A host directory with a canary and a target beside it.
pub(in crate::layer) struct Host {
    directory: PathBuf,
}

impl Drop for Host {
    fn drop(&mut self) {
        // What is left of a failed test is in nobody's way.
        drop(fs::remove_dir_all(&self.directory));
    }
}

impl Host {
    pub(in crate::layer) fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("wharf-layer-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir(&directory).unwrap();
        fs::create_dir(directory.join("target")).unwrap();
        fs::create_dir(directory.join("outside")).unwrap();
        fs::write(directory.join("outside/canary"), "untouched").unwrap();
        fs::set_permissions(
            directory.join("outside/canary"),
            fs::Permissions::from_mode(0o640),
        )
        .unwrap();
        Self { directory }
    }

    pub(in crate::layer) fn target(&self) -> PathBuf {
        self.directory.join("target")
    }

    pub(in crate::layer) fn outside(&self) -> PathBuf {
        self.directory.join("outside")
    }

    #[cfg(test)]
    pub(in crate::layer) fn apply(&self, archive: &[u8]) -> Result<Applied> {
        self.apply_within(archive, false, Limits::default())
    }

    #[cfg(test)]
    pub(in crate::layer) fn apply_upper(&self, archive: &[u8]) -> Result<Applied> {
        self.apply_within(archive, true, Limits::default())
    }

    /// Applies `archive` to the complete tree, or as the upper directory over what is outside.
    pub(in crate::layer) fn apply_within(
        &self,
        archive: &[u8],
        upper: bool,
        limits: Limits,
    ) -> Result<Applied> {
        let open = |path: PathBuf| OwnedFd::from(File::open(path).unwrap());
        let target = match upper {
            true => Target::Upper {
                upper: open(self.target()),
                lowers: vec![open(self.outside())],
            },
            false => Target::Complete(open(self.target())),
        };
        let outcome = apply(archive, archive.len() as u64, target, limits);
        self.check_canary();
        outcome
    }

    fn check_canary(&self) {
        let names: Vec<_> = fs::read_dir(self.outside())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["canary"], "something was created or removed outside");
        assert_eq!(
            fs::read_to_string(self.outside().join("canary")).unwrap(),
            "untouched"
        );
        let metadata = fs::metadata(self.outside().join("canary")).unwrap();
        assert_eq!((metadata.mode() & 0o7777, metadata.nlink()), (0o640, 1));
        let mut beside: Vec<_> = fs::read_dir(&self.directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        beside.sort();
        assert_eq!(beside, ["outside", "target"]);
    }
}
