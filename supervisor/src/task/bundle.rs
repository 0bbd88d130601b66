//! A task's bundle: the directory that the shim works in.
//!
//! ```text
//! <state>/io.containerd.runtime.v2.task -> tasks
//!                                  where tools that look into containerd's bundles find these
//! <state>/tasks/                   0711
//!   <namespace>/                   0711
//!     <id>/                        0700, or 0710 for the group that root in the container is mapped to
//!       config.json                the container's OCI spec, byte for byte
//!       rootfs/                    where the shim mounts the root file system
//!       log                        FIFO: what the shim has to say
//!       shim-binary-path           the shim's executable, written before it is started
//!       bootstrap.json             how the shim is reached, written before the task is created, unless
//!       address                    does: written by a shim of ours before it is asked to create the task
//!       task.json                  {"pid":N}, written when the task was created
//!       exits/, …                  the shim's own
//!       published/<process id>     pid whose exit event went out, so that a restarted daemon does not repeat it
//!     .<id>/                       a bundle that is being removed
//! ```
//!
//! Nothing here is flushed to disk: the state directory dies with the boot, as do the tasks. A crash leaves a bundle
//! without `task.json`, whose task nobody was told of, or one under its hidden name; reconciliation removes both.
//!
//! All functions block. Those that make a few calls on small files in the state directory are called where they are needed: that
//! takes less time than waking another thread. The others run on the blocking pool.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode};
use serde::{Deserialize, Serialize};

use super::unmount;
use crate::error::{Error, Result};

/// The directories in a bundle of ours, with a small file for each process.
const DIRECTORIES: [&str; 2] = ["exits", "published"];

/// The directory in which our shim keeps the runtime's state, which goes with the container.
const RUNTIME: &str = "runtime";

/// How many files are removed at once.
const FEW: usize = 32;

/// How often a directory is removed to which somebody still writes, and the time between.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(5);

/// The longest file that is read back from a bundle. The shim writes some of them.
const MAX_FILE: u64 = 64 << 10;

/// The bundle of one task; it may or may not exist on disk.
#[derive(Clone, Debug)]
pub struct Bundle {
    path: PathBuf,
}

/// Gives the bundles below `state` the name that containerd's have, for tools that look into them.
///
/// # Errors
///
/// The link cannot be made.
pub fn make_known(state: &Path) -> Result<()> {
    let link = state.join("io.containerd.runtime.v2.task");
    match std::os::unix::fs::symlink("tasks", &link) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(Error::io(format!("link {}", link.display()), error))
        }
        _ => Ok(()),
    }
}

/// How the shim is reached, in the form that shims answer `start` with and containerd keeps.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Bootstrap {
    /// The version of the task service: 2 or 3.
    pub version: u32,
    /// The socket as an address: `unix:///path`.
    pub address: String,
    /// `ttrpc`, or `grpc`, which is refused.
    pub protocol: String,
}

#[derive(Serialize, Deserialize)]
struct Created {
    pid: u32,
}

/// The part of an OCI spec that decides who may enter the bundle.
#[derive(Deserialize)]
struct Spec {
    linux: Option<SpecLinux>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SpecLinux {
    gid_mappings: Option<Vec<IdMapping>>,
}

#[derive(Deserialize)]
struct IdMapping {
    #[serde(rename = "containerID")]
    container: u32,
    #[serde(rename = "hostID")]
    host: u32,
}

impl Bootstrap {
    /// Whether the shim takes further containers without being started again for each: from version 3 on.
    pub fn is_shared(&self) -> bool {
        self.version >= 3
    }
}

impl Bundle {
    /// The bundle of `id` in `namespace`, below `tasks`. Both names were validated.
    pub fn of(tasks: &Path, namespace: &str, id: &str) -> Self {
        Self {
            path: tasks.join(namespace).join(id),
        }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the directory with `spec` as its `config.json`. On failure nothing is left.
    ///
    /// # Errors
    ///
    /// `AlreadyExists`; `InvalidArgument` when the spec is not a JSON object; `Unknown` from the file system.
    pub fn create(&self, spec: &[u8]) -> Result<()> {
        let group = root_group(spec)?;
        self.make(0o700).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Error::already_exists(format!("bundle {}", self.path.display())),
            _ => self.failed("create", "", error),
        })?;
        self.fill(spec, group).inspect_err(|_| {
            if let Err(error) = fs::remove_dir_all(&self.path) {
                tracing::warn!(bundle = %self.path.display(), %error, "half-made bundle not removed");
            }
        })
    }

    /// Makes the directory, and its namespace's if this is the first one in it.
    fn make(&self, mode: u32) -> io::Result<()> {
        let create = || DirBuilder::new().mode(mode).create(&self.path);
        match (create(), self.path.parent()) {
            (Err(error), Some(namespace)) if error.kind() == io::ErrorKind::NotFound => {
                DirBuilder::new().recursive(true).mode(0o711).create(namespace)?;
                create()
            }
            (made, _) => made,
        }
    }

    fn fill(&self, spec: &[u8], group: Option<u32>) -> Result<()> {
        if let Some(group) = group {
            // Root in a user namespace must reach its rootfs through this directory; nobody else may.
            std::os::unix::fs::chown(&self.path, None, Some(group))
                .map_err(|error| self.failed("change the group of", "", error))?;
            fs::set_permissions(&self.path, std::os::unix::fs::PermissionsExt::from_mode(0o710))
                .map_err(|error| self.failed("change the mode of", "", error))?;
        }
        DirBuilder::new()
            .mode(0o711)
            .create(self.path.join("rootfs"))
            .map_err(|error| self.failed("create", "rootfs", error))?;
        // Nobody reads it before all is there.
        self.write_in_place("config.json", 0o644, spec)?;
        rustix::fs::mknodat(CWD, self.path.join("log"), FileType::Fifo, Mode::from(0o700), 0)
            .map_err(|error| self.failed("create fifo", "log", error.into()))
    }

    /// Remembers the shim's executable.
    ///
    /// # Errors
    ///
    /// `Unknown` from the file system.
    pub fn set_shim(&self, executable: &Path) -> Result<()> {
        use std::os::unix::ffi::OsStrExt as _;
        self.write("shim-binary-path", 0o600, executable.as_os_str().as_bytes())
    }

    /// The shim's executable; `None` when it was never started.
    ///
    /// # Errors
    ///
    /// `Unknown` from the file system.
    pub fn shim(&self) -> Result<Option<PathBuf>> {
        use std::os::unix::ffi::OsStringExt as _;
        let path = self.read("shim-binary-path")?;
        Ok(path.map(|path| std::ffi::OsString::from_vec(path).into()))
    }

    /// Remembers how the shim is reached.
    ///
    /// # Errors
    ///
    /// `Unknown` from the file system.
    pub fn set_bootstrap(&self, bootstrap: &Bootstrap) -> Result<()> {
        self.write_json("bootstrap.json", bootstrap)
    }

    /// How the shim is reached: what the daemon wrote down, else what the shim did; `None` when no shim got that far.
    ///
    /// # Errors
    ///
    /// `Unknown` from the file system, or `bootstrap.json` is not one.
    pub fn bootstrap(&self) -> Result<Option<Bootstrap>> {
        if let Some(bootstrap) = self.read_json("bootstrap.json")? {
            return Ok(Some(bootstrap));
        }
        let address = self
            .read("address")?
            .and_then(|address| String::from_utf8(address).ok());
        Ok(address
            .filter(|address| !address.is_empty())
            .map(|address| Bootstrap {
                version: 2,
                address,
                protocol: "ttrpc".to_owned(),
            }))
    }

    /// Remembers that the shim is that of a sandbox, and not the task's own.
    ///
    /// # Errors
    ///
    /// `Unknown` from the file system.
    pub fn set_sandboxed(&self) -> Result<()> {
        self.write("sandbox", 0o600, b"")
    }

    /// Whether the shim is that of a sandbox.
    pub fn is_sandboxed(&self) -> bool {
        self.path.join("sandbox").exists()
    }

    /// Remembers that the task was created, with its init process.
    ///
    /// # Errors
    ///
    /// `Unknown` from the file system.
    pub fn set_created(&self, pid: u32) -> Result<()> {
        self.write_json("task.json", &Created { pid })
    }

    /// The init process of the task; `None` when it was never created.
    ///
    /// # Errors
    ///
    /// `Unknown` from the file system, or `task.json` is not one.
    pub fn created(&self) -> Result<Option<u32>> {
        Ok(self.read_json::<Created>("task.json")?.map(|created| created.pid))
    }

    /// Remembers that the exit of a process was published.
    ///
    /// # Errors
    ///
    /// `Unknown` from the file system: when the bundle is gone, for one.
    pub fn set_published(&self, process: &str, pid: u32) -> Result<()> {
        match DirBuilder::new().mode(0o700).create(self.path.join("published")) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(self.failed("create", "published", error));
            }
            _ => {}
        }
        // An empty one says nothing, as none does.
        self.write_in_place(&format!("published/{process}"), 0o600, pid.to_string().as_bytes())
    }

    /// Forgets that the exit of a process was published. Done already is no error.
    ///
    /// # Errors
    ///
    /// `Unknown` from the file system.
    pub fn unset_published(&self, process: &str) -> Result<()> {
        let name = format!("published/{process}");
        match fs::remove_file(self.path.join(&name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.failed("remove", &name, error)),
            _ => Ok(()),
        }
    }

    /// The pid with which the exit of a process was published.
    pub fn published(&self, process: &str) -> Option<u32> {
        let pid = self.read(&format!("published/{process}")).ok()??;
        std::str::from_utf8(&pid).ok()?.parse().ok()
    }

    /// Unmounts what is left below the bundle and removes it. Done already is no error.
    ///
    /// # Errors
    ///
    /// `Unknown`: something is still mounted or in use. The bundle is then all there and can be removed later.
    pub fn remove(&self) -> Result<()> {
        let rootfs = self.path.join("rootfs");
        match fs::remove_dir(&rootfs) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // Busy: a mount point. Not empty: files of the container itself, or of a file system mounted there, which must
            // not be taken for ours.
            Err(_) => {
                unmount::below(&rootfs)?;
                remove_tree(&rootfs)?;
            }
        }
        let hidden = self.hidden();
        // One rename takes the bundle out of sight; a crash in the removal leaves only what the next start sweeps.
        remove_tree(&hidden)?;
        match fs::rename(&self.path, &hidden) {
            Ok(()) => remove_tree(&hidden),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(self.failed("rename", "", error)),
        }
    }

    /// Removes the bundle if a few calls do it: nothing is mounted there, and nothing is in it but what a daemon and a shim of
    /// ours write. `false`: it takes [`Bundle::remove`], which goes on from wherever this stopped, and tells what is wrong.
    pub fn remove_if_small(&self) -> bool {
        self.remove_small().unwrap_or(false)
    }

    fn remove_small(&self) -> io::Result<bool> {
        match fs::remove_dir(self.path.join("rootfs")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Ok(false),
            _ => {}
        }
        let hidden = self.hidden();
        fs::rename(&self.path, &hidden)?;
        for entry in fs::read_dir(&hidden)?.take(FEW) {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                fs::remove_file(entry.path())?;
            } else if DIRECTORIES.iter().any(|&name| entry.file_name() == name) {
                fs::remove_dir_all(entry.path())?;
            } else if entry.file_name() == RUNTIME {
                fs::remove_dir(entry.path())?;
            } else {
                return Ok(false);
            }
        }
        fs::remove_dir(&hidden).map(|()| true)
    }

    /// Where a bundle goes that is being removed.
    fn hidden(&self) -> PathBuf {
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(self.path.file_name().unwrap_or_default());
        self.path.with_file_name(hidden)
    }

    /// Reads a small file of the bundle; `None` when there is none.
    ///
    /// # Errors
    ///
    /// `Unknown`: the file system fails, or the file is longer than any that belongs here.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        use std::io::Read as _;
        let path = self.path.join(name);
        // The shim's files are not ours to trust: neither a FIFO nor a symlink may stop or divert the daemon.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&path);
        let file = match file {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed("open", name, error)),
        };
        let mut content = Vec::new();
        file.take(MAX_FILE + 1)
            .read_to_end(&mut content)
            .map_err(|error| self.failed("read", name, error))?;
        if content.len() as u64 > MAX_FILE {
            let error = io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("longer than {MAX_FILE} bytes"),
            );
            return Err(self.failed("read", name, error));
        }
        Ok(Some(content))
    }

    /// Reads a small JSON file of the bundle; `None` when there is none.
    ///
    /// # Errors
    ///
    /// As [`Bundle::read`], or the file is not the JSON that is expected.
    pub fn read_json<T: for<'a> Deserialize<'a>>(&self, name: &str) -> Result<Option<T>> {
        let Some(content) = self.read(name)? else {
            return Ok(None);
        };
        serde_json::from_slice(&content)
            .map(Some)
            .map_err(|error| Error::unknown(format!("parse {}", self.path.join(name).display()), error))
    }

    fn write_json<T: Serialize>(&self, name: &str, value: &T) -> Result<()> {
        let content =
            serde_json::to_vec(value).map_err(|error| Error::unknown(format!("encode {name}"), error))?;
        self.write(name, 0o600, &content)
    }

    /// Writes a file so that it is seen whole or not at all.
    fn write(&self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        let path = self.path.join(name);
        let temporary = path.with_extension("partial");
        write_file(&temporary, mode, content)
            .and_then(|()| fs::rename(&temporary, &path))
            .map_err(|error| self.failed("write", name, error))
    }

    /// Writes a file of which a part does no harm.
    fn write_in_place(&self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        write_file(&self.path.join(name), mode, content).map_err(|error| self.failed("write", name, error))
    }

    fn failed(&self, operation: &str, name: &str, error: io::Error) -> Error {
        let path = match name {
            "" => self.path.clone(),
            name => self.path.join(name),
        };
        Error::io(format!("{operation} {}", path.display()), error)
    }
}

fn write_file(path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)?
        .write_all(content)
}

fn remove_tree(path: &Path) -> Result<()> {
    let mut tries = 1..TRIES;
    loop {
        match fs::remove_dir_all(path) {
            // A shim that is just ending wrote to it.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && tries.next().is_some() => {
                std::thread::sleep(PAUSE);
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io(format!("remove {}", path.display()), error));
            }
            _ => return Ok(()),
        }
    }
}

/// The host's gid of root in the container when `spec` maps it to another one.
fn root_group(spec: &[u8]) -> Result<Option<u32>> {
    let spec: Spec = serde_json::from_slice(spec)
        .map_err(|error| Error::invalid("container spec is not valid JSON").caused_by(error))?;
    let mappings = spec
        .linux
        .and_then(|linux| linux.gid_mappings)
        .unwrap_or_default();
    let root = mappings.iter().find(|mapping| mapping.container == 0);
    Ok(root.map(|mapping| mapping.host).filter(|&host| host != 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};

    fn bundle() -> (tempfile::TempDir, Bundle) {
        let dir = tempfile::tempdir().unwrap();
        let bundle = Bundle::of(dir.path(), "ns", "c");
        (dir, bundle)
    }

    #[test]
    fn a_bundle_holds_the_spec_and_what_a_restart_needs() {
        let (_dir, bundle) = bundle();
        bundle.create(b"{\"a\": 1}").unwrap();
        assert_eq!(
            fs::read(bundle.path().join("config.json")).unwrap(),
            b"{\"a\": 1}"
        );
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(bundle.path()), 0o700);
        assert!(
            fs::metadata(bundle.path().join("log"))
                .unwrap()
                .file_type()
                .is_fifo()
        );

        assert_eq!(bundle.bootstrap().unwrap(), None);
        fs::write(bundle.path().join("address"), "unix:///s").unwrap();
        assert_eq!(bundle.bootstrap().unwrap().unwrap().address, "unix:///s");
        let bootstrap = Bootstrap {
            version: 3,
            address: "unix:///t".to_owned(),
            protocol: "ttrpc".to_owned(),
        };
        bundle.set_bootstrap(&bootstrap).unwrap();
        assert_eq!(bundle.bootstrap().unwrap().unwrap(), bootstrap);

        assert_eq!(bundle.created().unwrap(), None);
        bundle.set_created(7).unwrap();
        assert_eq!(bundle.created().unwrap(), Some(7));
        bundle.set_published("c", 7).unwrap();
        assert_eq!((bundle.published("c"), bundle.published("x")), (Some(7), None));
        bundle.unset_published("c").unwrap();
        bundle.unset_published("c").unwrap();
        assert_eq!(bundle.published("c"), None);
        assert!(bundle.create(b"{}").unwrap_err().is_already_exists());
    }

    #[test]
    fn a_spec_that_is_not_json_leaves_nothing() {
        let (_dir, bundle) = bundle();
        assert!(bundle.create(b"not json").is_err());
        assert!(!bundle.path().exists());
    }

    #[test]
    fn removal_is_complete_and_can_be_repeated() {
        let (_dir, bundle) = bundle();
        bundle.create(b"{}").unwrap();
        fs::create_dir_all(bundle.path().join("rootfs/dev")).unwrap();
        bundle.remove().unwrap();
        assert_eq!(fs::read_dir(bundle.path().parent().unwrap()).unwrap().count(), 0);
        bundle.remove().unwrap();
    }

    #[test]
    fn what_is_not_of_a_few_files_is_left_to_the_whole_removal() {
        let (_dir, bundle) = bundle();
        let namespace = bundle.path().parent().unwrap().to_owned();
        let entries = || fs::read_dir(&namespace).unwrap().count();
        let fill = || {
            bundle.create(b"{}").unwrap();
            bundle.set_created(7).unwrap();
            bundle.set_published("c", 7).unwrap();
            fs::create_dir(bundle.path().join("exits")).unwrap();
        };
        fill();
        assert!(bundle.remove_if_small());
        assert_eq!(entries(), 0);
        assert!(!bundle.remove_if_small());
        bundle.remove().unwrap();

        for deep in ["rootfs/dev", "checkpoint/images"] {
            fill();
            fs::create_dir_all(bundle.path().join(deep)).unwrap();
            assert!(!bundle.remove_if_small(), "{deep}");
            bundle.remove().unwrap();
            assert_eq!(entries(), 0, "{deep}");
        }
        fill();
        for number in 0..FEW {
            fs::write(bundle.path().join(number.to_string()), b"").unwrap();
        }
        assert!(!bundle.remove_if_small());
        bundle.remove().unwrap();
        assert_eq!(entries(), 0);
    }

    #[test]
    fn the_group_of_a_mapped_root_is_found() {
        let mapped = br#"{"linux":{"gidMappings":[{"containerID":5,"hostID":1,"size":1},{"containerID":0,"hostID":9,"size":1}]}}"#;
        assert_eq!(root_group(mapped).unwrap(), Some(9));
        assert_eq!(root_group(b"{}").unwrap(), None);
    }

    #[test]
    fn files_of_the_shim_cannot_divert_or_block_the_daemon() {
        let (_dir, bundle) = bundle();
        bundle.create(b"{}").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", bundle.path().join("address")).unwrap();
        assert!(bundle.bootstrap().is_err());
        fs::write(bundle.path().join("task.json"), vec![b' '; MAX_FILE as usize + 1]).unwrap();
        assert!(bundle.created().is_err());
    }
}
