//! Where layers are applied to: a target, and a canary beside it that no layer may touch.

use std::{
    fs::{self, File},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::PathBuf,
};

use crate::{
    Kind,
    error::{Error, Result},
    layer::{
        Limits, apply,
        apply::{Applied, Target},
    },
};

/// A host directory with a canary and a target beside it.
pub(super) struct Host {
    directory: tempfile::TempDir,
}

impl Host {
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("target")).unwrap();
        fs::create_dir(directory.path().join("outside")).unwrap();
        fs::write(directory.path().join("outside/canary"), "untouched").unwrap();
        fs::set_permissions(
            directory.path().join("outside/canary"),
            fs::Permissions::from_mode(0o640),
        )
        .unwrap();
        Self { directory }
    }

    pub(super) fn target(&self) -> PathBuf {
        self.directory.path().join("target")
    }

    pub(super) fn outside(&self) -> PathBuf {
        self.directory.path().join("outside")
    }

    pub(super) fn apply(&self, archive: &[u8]) -> Result<Applied> {
        let target = Target::Complete(File::open(self.target()).unwrap().into());
        let outcome = apply(archive, archive.len() as u64, target, Limits::default());
        self.check_canary();
        outcome
    }

    pub(super) fn apply_upper(&self, archive: &[u8]) -> Result<Applied> {
        let target = Target::Upper {
            upper: File::open(self.target()).unwrap().into(),
            lowers: vec![File::open(self.outside()).unwrap().into()],
        };
        let outcome = apply(archive, archive.len() as u64, target, Limits::default());
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
        let mut beside: Vec<_> = fs::read_dir(self.directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        beside.sort();
        assert_eq!(beside, ["outside", "target"]);
    }
}

/// The error of a layer that had to be refused, which names `entry`.
pub(super) fn refused(outcome: Result<Applied>, entry: &str) -> Error {
    let error = outcome.expect_err("the layer was accepted");
    assert_eq!(error.kind(), Kind::InvalidArgument, "{error}");
    assert!(
        error.to_string().contains(entry),
        "{error} does not name {entry:?}"
    );
    error
}
