//! Covering paths and making paths read-only, in the child half.

use std::ffi::{CStr, CString};

use super::detached::{self, Filesystem, Maker};
use super::mount::Site;
use crate::init::{At, Failure, Step};
use crate::lookup;
use crate::sys::fs::{self, Resolve};
use crate::sys::mount::{Attributes, Extent};
use crate::sys::{Errno, Fd};

/// The parameters of a file system.
type Parameters = Vec<(CString, Option<CString>)>;

/// Covers each path that exists: a file with `/dev/null`, a directory with an empty read-only one.
///
/// What is taken for the null device is opened first and checked then: the container's `/dev/null` could be a link to
/// something else (CVE-2025-31133). Without a good one there it is the host's.
pub(crate) fn mask(site: Site, paths: &[CString], empty: &[Parameters]) -> Result<(), Failure> {
    // One file system is enough for all directories: nobody can write to it.
    let mut covers = Covers {
        empty: None,
        null: None,
    };
    for (index, path) in paths.iter().enumerate() {
        let Some(target) = open_if_there(site.root, path).at_nth(Step::Mask, index)? else {
            continue;
        };
        cover(site, target, &mut covers, empty).at_nth(Step::Mask, index)?;
        target.close();
    }
    for cover in [covers.empty, covers.null].into_iter().flatten() {
        cover.close();
    }
    Ok(())
}

/// What was put on the first directory, and the null device that was put on files.
struct Covers {
    empty: Option<Fd>,
    null: Option<Fd>,
}

/// The null device itself.
fn open_null(root: Fd, path: &CStr, resolve: Resolve) -> Result<Fd, Errno> {
    let null = lookup::open(root, path, libc::O_PATH, resolve)?;
    match fs::stat(null, c"") {
        Ok(stat) if stat.is_character(1, 3) => return Ok(null),
        _ => null.close(),
    }
    Err(Errno::new(libc::ENODEV))
}

fn cover(site: Site, target: Fd, covers: &mut Covers, parameters: &[Parameters]) -> Result<(), Errno> {
    if !fs::stat(target, c"")?.is_directory() {
        let null = match covers.null {
            Some(null) => null,
            None => match open_null(site.root, c"dev/null", Resolve::InRootNoSymlinks) {
                Ok(null) => null,
                Err(_) => open_null(Fd::CWD, c"/dev/null", Resolve::Host)?,
            },
        };
        covers.null = Some(null);
        let copy = site.maker.bind(null, c"", Extent::Mount)?;
        detached::attach(copy, target)?;
        copy.close();
        return Ok(());
    }
    if let Some(empty) = covers.empty {
        let copy = site.maker.bind(empty, c"", Extent::Mount)?;
        detached::attach(copy, target)?;
        copy.close();
        return Ok(());
    }
    let fresh = make_empty(site.maker, parameters)?;
    detached::attach(fresh, target)?;
    covers.empty = Some(fresh);
    Ok(())
}

/// An empty directory that nobody can write to. The last of the parameters that the kernel takes are used.
fn make_empty(maker: Maker, parameters: &[Parameters]) -> Result<Fd, Errno> {
    let mut answer = Err(Errno::new(libc::EINVAL));
    for parameters in parameters {
        answer = maker.filesystem(Filesystem {
            kind: c"tmpfs",
            parameters,
            attributes: libc::MOUNT_ATTR_RDONLY,
            mode: None,
        });
        match &answer {
            Err(errno) if errno.number() == libc::EINVAL => {}
            _ => return answer,
        }
    }
    answer
}

/// Binds each path that exists on itself, read-only with everything below.
pub(crate) fn read_only(site: Site, paths: &[CString]) -> Result<(), Failure> {
    for (index, path) in paths.iter().enumerate() {
        let Some(target) = open_if_there(site.root, path).at_nth(Step::ReadOnlyPath, index)? else {
            continue;
        };
        bind_read_only(site.maker, target).at_nth(Step::ReadOnlyPath, index)?;
        target.close();
    }
    Ok(())
}

fn bind_read_only(maker: Maker, target: Fd) -> Result<(), Errno> {
    let tree = maker.bind(target, c"", Extent::Tree)?;
    let tree = match detached::set_attributes(tree, &Attributes::READ_ONLY, Extent::Tree) {
        Err(errno) if errno.number() == libc::ENOSYS => {
            // One mount is all that can be made read-only: what is mounted below it is left out.
            detached::discard(tree)?;
            let alone = maker.bind(target, c"", Extent::Mount)?;
            detached::attach(alone, target)?;
            let result = detached::set_attributes(alone, &Attributes::READ_ONLY, Extent::Mount);
            alone.close();
            return result;
        }
        answer => answer.map(|()| tree)?,
    };
    detached::attach(tree, target)?;
    tree.close();
    Ok(())
}

/// A path that is not there needs no protection.
fn open_if_there(root: Fd, path: &CString) -> Result<Option<Fd>, Errno> {
    match lookup::open(root, path, libc::O_PATH, Resolve::InRoot) {
        Ok(target) => Ok(Some(target)),
        Err(errno) if errno.number() == libc::ENOENT || errno.number() == libc::ENOTDIR => Ok(None),
        Err(errno) => Err(errno),
    }
}
