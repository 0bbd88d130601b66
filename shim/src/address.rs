//! The serving socket: its name, its making, its removal.
//!
//! A socket is `<directory>/<sha256 of "address/namespace/group">`, mode 0600, in a directory of mode 0700 that belongs to
//! our user; there are no abstract sockets. Making and removing happen under a lock on the directory, so two starts of
//! one group cannot both win, and a dead shim's socket is replaced by exactly one of them.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::{geteuid, umask};
use sha2::{Digest, Sha256};

/// Where sockets are made unless the caller says otherwise.
pub const DEFAULT_DIRECTORY: &str = "/run/containerd/s";

/// The longest path of a socket that the kernel takes with the NUL after it. The shims of containerd stop a byte before, but its
/// daemon and `ctr` do not: with the longest directory that they take, 42 bytes, the name is whole.
const LONGEST: usize = 107;
/// The fewest digits of a socket's name.
const SHORTEST_NAME: usize = 32;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// The directory leads to a path that the kernel does not take.
    #[error("socket path {} is longer than {LONGEST} bytes", .0.display())]
    TooLong(PathBuf),
    /// The directory is not ours alone.
    #[error("socket directory {} does not belong to this user alone", .0.display())]
    NotOurs(PathBuf),
    /// A system call failed.
    #[error("{operation} {}: {source}", path.display())]
    System {
        /// What was done.
        operation: &'static str,
        /// To what.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// The path of the socket for a group of containers.
pub fn socket_path(directory: &Path, daemon: &str, namespace: &str, group: &str) -> PathBuf {
    // Go's path joining: empty parts vanish, the rest is cleaned.
    let joined = [daemon, namespace, group]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("/");
    let digest = Sha256::digest(clean(&joined).as_bytes());
    let mut name: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    // Nobody else computes the name, and half a digest is still unique: a deep directory may have a shorter one.
    let room = LONGEST.saturating_sub(directory.as_os_str().len() + 1);
    name.truncate(room.max(SHORTEST_NAME));
    directory.join(name)
}

fn clean(path: &str) -> String {
    let mut out = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out.to_string_lossy().into_owned()
}

/// What [`bind`] came to.
pub enum Bound {
    /// The socket was made.
    New(UnixListener),
    /// A shim listens there already.
    Serving,
}

/// Makes the socket at `path` and its directory, or finds who listens there. Blocks while another start or end holds
/// the directory's lock.
///
/// # Errors
///
/// The directory is not ours, or the socket cannot be made.
pub fn bind(path: &Path) -> Result<Bound, AddressError> {
    if path.as_os_str().len() > LONGEST {
        return Err(AddressError::TooLong(path.to_owned()));
    }
    let _lock = lock(path)?;
    let failed = |operation, source| AddressError::System {
        operation,
        path: path.to_owned(),
        source,
    };
    match connected(path) {
        Ok(_) => return Ok(Bound::Serving),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|error| failed("remove stale socket", error))?;
        }
        Err(error) => return Err(failed("connect to", error)),
    }
    // The mode must be right from the first moment.
    let before = umask(Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path);
    umask(before);
    Ok(Bound::New(listener.map_err(|error| failed("listen on", error))?))
}

/// Removes the socket at `path`; one that is gone is no error.
///
/// # Errors
///
/// It stays.
pub fn remove(path: &Path) -> Result<(), AddressError> {
    let _lock = lock(path)?;
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(AddressError::System {
            operation: "remove socket",
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

/// Removes the socket at `path` if nobody listens there.
///
/// # Errors
///
/// It is stale and stays.
pub fn remove_stale(path: &Path) -> Result<(), AddressError> {
    match connected(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => remove(path),
        _ => Ok(()),
    }
}

/// A connection to whoever listens at `path`.
///
/// # Errors
///
/// Nobody does: `NotFound` without a socket, `ConnectionRefused` with a dead one.
pub fn connected(path: &Path) -> io::Result<UnixStream> {
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}

fn lock(path: &Path) -> Result<OwnedFd, AddressError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let failed = |operation, source| AddressError::System {
        operation,
        path: directory.to_owned(),
        source,
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error| failed("make directory", error))?;
    let about = fs::metadata(directory).map_err(|error| failed("look at", error))?;
    if about.uid() != geteuid().as_raw() || about.mode() & 0o022 != 0 {
        return Err(AddressError::NotOurs(directory.to_owned()));
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = open(directory, flags, Mode::empty()).map_err(|error| failed("open", error.into()))?;
    flock(&fd, FlockOperation::LockExclusive).map_err(|error| failed("lock", error.into()))?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn names_are_those_of_containerd() {
        let path = socket_path(
            Path::new("/s"),
            "/run/containerd/containerd.sock",
            "default",
            "c1",
        );
        // sha256sum of `/run/containerd/containerd.sock/default/c1`.
        let digest = Sha256::digest(b"/run/containerd/containerd.sock/default/c1");
        let name: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(path, Path::new("/s").join(name));
        assert_eq!(clean("/a//b/./c/../d/"), "/a/b/d");
    }

    #[test]
    fn a_deep_directory_shortens_the_name_up_to_a_bound() {
        let length = |directory: usize| {
            let directory = PathBuf::from(format!("/{}", "d".repeat(directory - 1)));
            socket_path(&directory, "a", "b", "c").as_os_str().len()
        };
        assert_eq!(length(41), 106);
        assert_eq!(length(42), 107);
        assert_eq!(length(43), 107);
        assert_eq!(length(74), 107);
        assert_eq!(length(75), 108);
    }

    #[test]
    fn one_shim_serves_a_group_and_a_dead_one_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let path = directory.path().join("s/one");
        let Bound::New(listener) = bind(&path).unwrap() else {
            panic!("nobody was listening");
        };
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(matches!(bind(&path).unwrap(), Bound::Serving));
        remove_stale(&path).unwrap();
        assert!(path.exists(), "a live socket was removed");
        drop(listener);
        assert!(matches!(bind(&path).unwrap(), Bound::New(_)));
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_directory_that_others_can_write_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(
            bind(&directory.path().join("one")),
            Err(AddressError::NotOurs(_))
        ));
    }
}
