//! From the name of a runtime to the executable of its shim.
//!
//! `io.containerd.NAME.VERSION` is `containerd-shim-NAME-VERSION`, on `$PATH` or beside the daemon; an absolute path is
//! taken as it is. The names of runc's runtimes mean Wharf's own shim, which implements the same options.

use std::env;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};
use crate::opt::Opt;

/// The executable of Wharf's own shim.
const OWN: &str = "containerd-shim-wharf-v2";

/// The runtimes that Wharf's own shim serves.
const SERVED: [&str; 4] = [
    "io.containerd.wharf.v2",
    "io.containerd.runc.v2",
    "io.containerd.runc.v1",
    "io.containerd.runtime.v1.linux",
];

/// Whether `runtime` means Wharf's own shim.
pub fn is_own(runtime: &str) -> bool {
    SERVED.contains(&runtime)
}

/// Finds the shim of `runtime` among what clients have installed in `opt`, on the daemon's search path, and beside the daemon;
/// `own` replaces Wharf's. Blocks on the file system.
///
/// # Errors
///
/// `Unknown`, as containerd has it: not the name of a runtime, or there is no such executable.
pub fn shim(runtime: &str, own: Option<&Path>, opt: &Opt) -> Result<PathBuf> {
    if runtime.is_empty() {
        return Err(unusable("no runtime name".to_owned()));
    }
    if Path::new(runtime).is_absolute() {
        return if executable(Path::new(runtime)) {
            Ok(runtime.into())
        } else {
            Err(unusable(format!(
                "invalid custom binary path: {runtime} is not an executable"
            )))
        };
    }
    if is_own(runtime) {
        if let Some(own) = own {
            return Ok(own.to_owned());
        }
        // The daemon's own release first: an older shim on $PATH may lack what this daemon relies on.
        return search(OWN, beside().into_iter().chain(opt.path())).ok_or_else(|| missing(runtime, OWN));
    }
    let name = binary(runtime).ok_or_else(|| {
        unusable(format!(
            "invalid runtime name {runtime}, correct runtime name should be either format like \
             `io.containerd.runc.v2` or a full path to the binary"
        ))
    })?;
    search(&name, opt.path().into_iter().chain(beside())).ok_or_else(|| missing(runtime, &name))
}

fn unusable(what: String) -> Error {
    Error::new(Kind::Unknown, what)
}

fn missing(runtime: &str, name: &str) -> Error {
    unusable(format!(
        "runtime {runtime:?} binary not installed {name:?}: file does not exist"
    ))
}

/// The executable's name for a runtime's.
fn binary(runtime: &str) -> Option<String> {
    let mut parts = runtime.rsplit('.');
    let (version, name) = (parts.next()?, parts.next()?);
    let plain = |part: &str| !part.is_empty() && !part.contains('/');
    (plain(version) && plain(name) && !runtime.contains('/'))
        .then(|| format!("containerd-shim-{name}-{version}"))
}

fn search(name: &str, directories: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    directories
        // A relative entry would mean another file once the shim's working directory is the bundle.
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(name))
        .find(|path| executable(path))
}

fn beside() -> Option<PathBuf> {
    env::current_exe().ok()?.parent().map(Path::to_owned)
}

fn executable(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    #[test]
    fn runtime_names_become_executables() {
        for (runtime, expected) in [
            ("io.containerd.runsc.v1", Some("containerd-shim-runsc-v1")),
            ("a.b", Some("containerd-shim-a-b")),
            ("runc", None),
            ("a.", None),
            ("a./b.c", None),
            ("../x.y", None),
        ] {
            assert_eq!(binary(runtime).as_deref(), expected, "{runtime}");
        }
    }

    #[test]
    fn runcs_names_mean_our_shim_and_others_are_searched() {
        let own = Path::new("/x/shim");
        let opt = Opt::open(&Config {
            opt: crate::config::Opt::Disabled,
            ..Config::default()
        });
        let shim = |runtime: &str, own: Option<&Path>| shim(runtime, own, &opt);
        for runtime in SERVED {
            assert_eq!(shim(runtime, Some(own)).unwrap(), own);
        }
        assert!(shim("", Some(own)).is_err());
        assert!(shim("/nonexistent/shim", Some(own)).is_err());
        let error = shim("io.containerd.nonexistent.v9", Some(own))
            .unwrap_err()
            .to_string();
        assert!(error.contains("containerd-shim-nonexistent-v9"), "{error}");
        assert_eq!(shim("/bin/sh", None).unwrap(), Path::new("/bin/sh"));
    }
}
