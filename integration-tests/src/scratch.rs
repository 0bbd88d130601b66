//! A test's own directory, which takes its mounts and cgroups with it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crate::leftovers;

/// A fresh directory below `/var/tmp` (a real filesystem, so that overlay works on it), removed on drop
/// with every mount below it and every cgroup that bears its name.
#[derive(Debug)]
pub struct Scratch {
    directory: Option<tempfile::TempDir>,
}

impl Scratch {
    /// Makes the directory.
    ///
    /// # Panics
    ///
    /// The test does not run as root, or the directory cannot be made.
    #[allow(
        clippy::new_without_default,
        reason = "making a directory is an act, not a default"
    )]
    pub fn new() -> Scratch {
        assert!(
            rustix::process::geteuid().is_root(),
            "this test needs root: run it with `cargo xtask test` as root"
        );
        let directory = tempfile::Builder::new()
            .prefix("wharf-test-")
            .tempdir_in("/var/tmp")
            .expect("scratch directory");
        Scratch {
            directory: Some(directory),
        }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.directory.as_ref().expect("held until drop").path()
    }

    /// A path below the directory; nothing is made.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path().join(name)
    }

    /// A directory below the directory, made with its parents.
    ///
    /// # Panics
    ///
    /// It cannot be made.
    pub fn directory(&self, name: impl AsRef<Path>) -> PathBuf {
        let path = self.join(name);
        fs::create_dir_all(&path).unwrap_or_else(|error| panic!("mkdir {}: {error}", path.display()));
        path
    }

    /// A directory below the directory with a tmpfs on it, as `/run` is on a booted system.
    ///
    /// # Panics
    ///
    /// It cannot be made or mounted.
    pub fn tmpfs(&self, name: impl AsRef<Path>) -> PathBuf {
        let path = self.directory(name);
        rustix::mount::mount(
            "tmpfs",
            &path,
            "tmpfs",
            rustix::mount::MountFlags::empty(),
            c"mode=711",
        )
        .unwrap_or_else(|error| panic!("mount a tmpfs on {}: {error}", path.display()));
        path
    }

    /// The last component, which no other test has: good as a part of ids.
    pub fn unique(&self) -> &str {
        self.path()
            .file_name()
            .and_then(OsStr::to_str)
            .expect("tempfile makes UTF-8 names")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        leftovers::remove_cgroups_named(self.unique());
        if std::thread::panicking() {
            leftovers::end_shims_of(self.path());
        }
        // Podman's clean-up may mount its storage once more while this runs: a second look is needed.
        for mount in (0..2).flat_map(|_| leftovers::mounts_below(self.path()).into_iter().rev()) {
            if let Err(error) = rustix::mount::unmount(&mount, rustix::mount::UnmountFlags::DETACH) {
                eprintln!("cannot unmount {}: {error}", mount.display());
            }
        }
        if let Some(directory) = self.directory.take() {
            if std::env::var_os("WHARF_KEEP_SCRATCH").is_some() {
                eprintln!("kept {}", directory.keep().display());
            } else if let Err(error) = directory.close() {
                eprintln!("cannot remove the scratch directory: {error}");
            }
        }
    }
}
