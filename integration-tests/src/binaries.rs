//! Where the programs are: ours beside the test's own executable, the peers on `PATH`.

use std::env;
use std::path::PathBuf;
use std::sync::OnceLock;

/// Set by programs that want others than the ones beside them.
static CHOSEN: OnceLock<PathBuf> = OnceLock::new();

/// Another build of the runtime than the one beside the others.
static RUNTIME: OnceLock<PathBuf> = OnceLock::new();

/// Makes [`ours`] answer `program` for the runtime from now on. Only the first call counts.
pub fn use_runtime(program: PathBuf) {
    RUNTIME.get_or_init(|| program);
}

/// Makes [`ours`] look in `directory` from now on: the benches use the release programs. Only the first call counts.
pub fn use_directory(directory: PathBuf) {
    CHOSEN.get_or_init(|| directory);
}

/// The path of one of the workspace's programs, built with the same profile as the test.
///
/// # Panics
///
/// It has not been built; `cargo xtask test` builds it first.
pub fn ours(name: &str) -> PathBuf {
    // Another build of the runtime, with `old-kernel` for one, passes the same tests.
    if let Some(runtime) = env::var_os("WHARF_RUNTIME").filter(|_| name == "wharf-runtime") {
        return runtime.into();
    }
    if let Some(runtime) = RUNTIME.get().filter(|_| name == "wharf-runtime") {
        return runtime.clone();
    }
    // The probe is a part of the tests, not of what is measured.
    let directory = if name == "probe" { beside() } else { directory() };
    let path = directory.join(name);
    assert!(
        path.exists(),
        "{} is not built; run `cargo xtask test`, which builds it",
        path.display()
    );
    path
}

/// The directory that holds the workspace's programs.
///
/// # Panics
///
/// The test's own executable cannot be found.
pub fn directory() -> PathBuf {
    if let Some(chosen) = CHOSEN.get() {
        return chosen.clone();
    }
    beside()
}

fn beside() -> PathBuf {
    let executable = env::current_exe().expect("the path of the running test");
    let directory = executable.parent().expect("an executable lies in a directory");
    // Tests lie in `deps/`, one below the programs; the programs of this crate lie beside the others.
    if directory.ends_with("deps") {
        directory.parent().expect("deps/ has a parent").into()
    } else {
        directory.into()
    }
}

/// The path of a peer from the distribution's packages.
///
/// # Panics
///
/// It is not installed.
pub fn peer(name: &str) -> PathBuf {
    find(name)
        .unwrap_or_else(|| panic!("{name} is not installed; `cargo xtask test --install` installs the peers"))
}

/// The path of a program on `PATH` or in the system's directories, if it is there.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    // Debian's own before anything that a machine carries in /usr/local.
    ["/usr/bin", "/usr/sbin", "/bin", "/sbin"]
        .into_iter()
        .map(PathBuf::from)
        .chain(env::split_paths(&path))
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}
