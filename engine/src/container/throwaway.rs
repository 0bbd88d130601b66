//! A directory of the host as a root filesystem: read-only below, with a layer on top that is thrown away.
//!
//! The upper layer is a file system in memory, mounted at `<state>/throwaway/<id>`: it can lie over any directory, the
//! host's own root included, and what is written is charged to the container. An overlay shows the one file system that
//! the directory is on and nothing that is mounted below it. Refuses to write to the directory.

use crate::error::{Error, Result};
use crate::supervisor::Mount;
use rustix::mount::{MountFlags, UnmountFlags};
use std::path::{Path, PathBuf};

fn place(state: &Path, id: &str) -> PathBuf {
    state.join("throwaway").join(id)
}

/// Makes the upper layer unless it is there, and returns what to mount. Blocks shortly.
///
/// # Errors
///
/// `directory` is none, has a name that an overlay cannot take, or the memory cannot be mounted.
pub fn prepare(state: &Path, id: &str, directory: &Path) -> Result<Vec<Mount>> {
    let text = directory
        .to_str()
        .filter(|text| !text.contains([':', ',', '\\', '"']));
    let lower = text.ok_or_else(|| {
        Error::invalid(format!(
            "rootfs: {} has a character that an overlay cannot take",
            directory.display()
        ))
    })?;
    if !directory.is_dir() {
        return Err(Error::invalid(format!(
            "rootfs: {} is not a directory",
            directory.display()
        )));
    }
    let place = place(state, id);
    let (upper, work) = (place.join("upper"), place.join("work"));
    if !upper.is_dir() {
        std::fs::create_dir_all(&place).map_err(|error| Error::io("create", &place, error))?;
        rustix::mount::mount(
            "wharf",
            &place,
            "tmpfs",
            MountFlags::NOSUID | MountFlags::NODEV,
            c"mode=700",
        )
        .map_err(|error| Error::io("mount tmpfs on", &place, error))?;
        if let Err(error) = std::fs::create_dir(&work)
            .and_then(|()| std::fs::create_dir(&upper))
            .and_then(|()| like(directory, &upper))
        {
            remove(state, id)?;
            return Err(Error::io("create", &upper, error));
        }
    }
    let option = |name: &str, path: &Path| format!("{name}={}", path.display());
    Ok(vec![Mount {
        r#type: "overlay".to_owned(),
        source: "overlay".to_owned(),
        options: vec![
            format!("lowerdir={lower}"),
            option("upperdir", &upper),
            option("workdir", &work),
        ],
        ..Default::default()
    }])
}

// The upper directory is the root that is seen.
fn like(directory: &Path, upper: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let stat = std::fs::metadata(directory)?;
    std::os::unix::fs::chown(upper, Some(stat.uid()), Some(stat.gid()))?;
    std::fs::set_permissions(upper, stat.permissions())
}

/// Throws the upper layer away; one that is gone is fine. Blocks shortly.
///
/// # Errors
///
/// It is still in use.
pub fn remove(state: &Path, id: &str) -> Result<()> {
    let place = place(state, id);
    match rustix::mount::unmount(&place, UnmountFlags::NOFOLLOW) {
        // INVAL: nothing is mounted there.
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(Error::io("unmount", &place, error)),
    }
    match std::fs::remove_dir(&place) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", &place, error)),
        _ => Ok(()),
    }
}
