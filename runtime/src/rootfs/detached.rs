//! Mounts that are made apart from the container's tree, and attached to an open file when they are complete.
//!
//! The new mount API does that. Where the kernel has none of it, or only a part (`mount_setattr` came late), or where
//! its options do not fit (values past 255 bytes), the mount is made by `mount(2)` on a staging place: a tmpfs of this
//! process's own on an empty directory of the host, where no container and no image has ever had a hand. From there it
//! is moved to the target. Both ends are named by `/proc/self/fd`, on a procfs that was checked, so that no path is
//! looked up again.

use std::ffi::CStr;

use crate::lookup;
use crate::sys::fs::{self, Resolve};
use crate::sys::mount::{self, Attributes, Extent};
use crate::sys::{Errno, Fd};

/// What `mount(2)` reads of its data.
const MAX_DATA: usize = 4096;
/// The places of the staging tmpfs.
const DIRECTORY: &CStr = c"d";
const FILE: &CStr = c"f";
/// The directory of the staging directory that the tmpfs is mounted on.
pub(crate) const STAGE: &CStr = c"stage";

/// Makes mounts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Maker {
    /// The root of the staging tmpfs, where there is one.
    stage: Option<Fd>,
    /// The directory it is mounted in.
    staging: Option<Fd>,
}

/// The parameters of a new file system.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filesystem<'a> {
    pub(crate) kind: &'a CStr,
    pub(crate) parameters: &'a [(std::ffi::CString, Option<std::ffi::CString>)],
    /// `MOUNT_ATTR_*`.
    pub(crate) attributes: u64,
    /// A parameter `mode` that the given ones win over.
    pub(crate) mode: Option<u32>,
}

impl Maker {
    /// `staging` is a directory of the host with nothing but the empty directory [`STAGE`] in it, opened in this process's
    /// mount namespace.
    pub(crate) fn new(staging: Option<Fd>) -> Result<Self, Errno> {
        let Some(staging) = staging else {
            return Ok(Self { stage: None, staging });
        };
        let place = ProcPath::below(staging, STAGE)?;
        let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
        mount::mount(
            Some(c"tmpfs"),
            place.text()?,
            Some(c"tmpfs"),
            flags,
            Some(c"mode=700"),
        )?;
        // What is below a shared mount cannot be moved.
        mount::set_propagation(place.text()?, libc::MS_PRIVATE)?;
        let stage = fs::openat(staging, STAGE, libc::O_PATH | libc::O_DIRECTORY)?;
        fs::mkdirat(stage, DIRECTORY, 0o700)?;
        fs::mknodat(stage, FILE, libc::S_IFREG | 0o600, 0)?;
        Ok(Self {
            stage: Some(stage),
            staging: Some(staging),
        })
    }

    /// Takes the staging place away.
    pub(crate) fn finish(self) -> Result<(), Errno> {
        let (Some(staging), Some(stage)) = (self.staging, self.stage) else {
            return Ok(());
        };
        stage.close();
        mount::detach(ProcPath::below(staging, STAGE)?.text()?)?;
        staging.close();
        Ok(())
    }

    /// Takes the staging place away after a failure, if it is still there; its descriptors end with the process.
    pub(crate) fn abandon(self) {
        let place = self.staging.map(|staging| ProcPath::below(staging, STAGE));
        if let Some(Ok(place)) = place
            && let Ok(path) = place.text()
        {
            // The failure that led here is the one to tell.
            let undone = mount::detach(path);
            debug_assert!(undone.is_ok() || undone == Err(Errno::new(libc::EINVAL)));
        }
    }

    /// A copy of the mount at `path` (the descriptor's own for an empty path), symlinks followed.
    pub(crate) fn bind(self, directory: Fd, path: &CStr, extent: Extent) -> Result<Fd, Errno> {
        let Some(stage) = self.stage else {
            return mount::clone_tree(directory, path, extent);
        };
        if path.is_empty() {
            return bind_staged(stage, directory, extent);
        }
        let source = lookup::open(directory, path, libc::O_PATH, Resolve::Host)?;
        let bound = bind_staged(stage, source, extent);
        source.close();
        bound
    }

    /// A mount of a new file system.
    pub(crate) fn filesystem(self, filesystem: Filesystem<'_>) -> Result<Fd, Errno> {
        match self.stage {
            Some(stage) => mount_staged(stage, filesystem),
            None => make(filesystem),
        }
    }
}

fn make(filesystem: Filesystem<'_>) -> Result<Fd, Errno> {
    let context = mount::fsopen(filesystem.kind)?;
    if let Some(mode) = filesystem.mode {
        let mut text = Text::<16>::new();
        text.push_octal(mode)?;
        mount::fsconfig(context, c"mode", Some(text.text()?))?;
    }
    for (key, value) in filesystem.parameters {
        mount::fsconfig(context, key, value.as_deref())?;
    }
    mount::fsconfig_create(context)?;
    let tree = mount::fsmount(context, filesystem.attributes);
    context.close();
    tree
}

fn bind_staged(stage: Fd, source: Fd, extent: Extent) -> Result<Fd, Errno> {
    let spot = match fs::stat(source, c"")?.is_directory() {
        true => DIRECTORY,
        false => FILE,
    };
    let recursive = match extent {
        Extent::Tree => libc::MS_REC,
        Extent::Mount => 0,
    };
    let (from, to) = (ProcPath::of(source)?, ProcPath::below(stage, spot)?);
    mount::mount(
        Some(from.text()?),
        to.text()?,
        None,
        libc::MS_BIND | recursive,
        None,
    )?;
    fs::openat(stage, spot, libc::O_PATH | libc::O_NOFOLLOW)
}

fn mount_staged(stage: Fd, filesystem: Filesystem<'_>) -> Result<Fd, Errno> {
    let (source, flags, data) = legacy(filesystem)?;
    let place = ProcPath::below(stage, DIRECTORY)?;
    mount::mount(
        source,
        place.text()?,
        Some(filesystem.kind),
        flags,
        Some(data.text()?),
    )?;
    fs::openat(stage, DIRECTORY, libc::O_PATH | libc::O_NOFOLLOW)
}

/// Parameters as `mount(2)` takes them: source, flags, data.
fn legacy<'a>(filesystem: Filesystem<'a>) -> Result<(Option<&'a CStr>, u64, Text<MAX_DATA>), Errno> {
    const FLAGS: [(&CStr, u64); 6] = [
        (c"ro", libc::MS_RDONLY),
        (c"sync", libc::MS_SYNCHRONOUS),
        (c"dirsync", libc::MS_DIRSYNC),
        (c"mand", libc::MS_MANDLOCK),
        (c"lazytime", libc::MS_LAZYTIME),
        (c"iversion", libc::MS_I_VERSION),
    ];
    let mut source = None;
    let mut flags = flags_of(filesystem.attributes);
    let mut data = Text::new();
    if let Some(mode) = filesystem.mode {
        data.push(b"mode=")?;
        data.push_octal(mode)?;
    }
    for (key, value) in filesystem.parameters {
        let flag = FLAGS
            .iter()
            .find(|(name, _)| value.is_none() && *name == key.as_c_str());
        if let Some((_, flag)) = flag {
            flags |= flag;
        } else if let Some(value) = value.as_deref().filter(|_| key.as_c_str() == c"source") {
            source = Some(value);
        } else {
            if !data.is_empty() {
                data.push(b",")?;
            }
            data.push(key.to_bytes())?;
            if let Some(value) = value {
                // A label has commas of its own.
                let quote: &[u8] = if key.as_c_str() == c"context" { b"\"" } else { b"" };
                for part in [b"=", quote, value.to_bytes(), quote] {
                    data.push(part)?;
                }
            }
        }
    }
    Ok((source, flags, data))
}

/// Attaches a mount on an open file or directory.
pub(crate) fn attach(tree: Fd, target: Fd) -> Result<(), Errno> {
    match mount::attach(tree, target) {
        Err(errno) if errno.number() == libc::ENOSYS => {
            let (from, to) = (ProcPath::of(tree)?, ProcPath::of(target)?);
            mount::move_to(from.text()?, to.text()?)
        }
        answer => answer,
    }
}

/// Attaches a mount on an entry of an open directory, which nobody else can change.
pub(crate) fn attach_entry(tree: Fd, directory: Fd, name: &CStr) -> Result<(), Errno> {
    match mount::attach_at(tree, directory, name) {
        Err(errno) if errno.number() == libc::ENOSYS => {
            let target = fs::openat(directory, name, libc::O_PATH | libc::O_NOFOLLOW)?;
            let attached = attach(tree, target);
            target.close();
            attached
        }
        answer => answer,
    }
}

/// Gives the root of a mount a SELinux label.
pub(crate) fn set_label(tree: Fd, label: &CStr) -> Result<(), Errno> {
    fs::set_attribute(ProcPath::of(tree)?.text()?, c"security.selinux", label)
}

/// Gives up a mount that was made and is not attached.
pub(crate) fn discard(tree: Fd) -> Result<(), Errno> {
    // Unless it was staged it is attached to nothing, and goes with its descriptor.
    let result = match mount::detach(ProcPath::of(tree)?.text()?) {
        Err(errno) if errno.number() == libc::EINVAL => Ok(()),
        answer => answer,
    };
    tree.close();
    result
}

/// Changes the attributes of the mount whose root is open. Without `mount_setattr` (before 5.12) those of whole trees
/// cannot be changed.
pub(crate) fn set_attributes(tree: Fd, attributes: &Attributes, extent: Extent) -> Result<(), Errno> {
    let missing = match mount::set_attributes(tree, attributes, extent) {
        Err(errno) if errno.number() == libc::ENOSYS => errno,
        answer => return answer,
    };
    if attributes.propagation != 0 {
        let recursive = match extent {
            Extent::Tree => libc::MS_REC,
            Extent::Mount => 0,
        };
        let place = ProcPath::of(tree)?;
        mount::set_propagation(place.text()?, attributes.propagation | recursive)?;
    }
    if attributes.set == 0 && attributes.clear == 0 {
        return Ok(());
    }
    if extent == Extent::Tree {
        return Err(missing);
    }
    let bits = current(tree)? & !attributes.clear | attributes.set;
    let flags = libc::MS_REMOUNT | libc::MS_BIND | flags_of(bits) | atime_flag(bits);
    mount::mount(None, ProcPath::of(tree)?.text()?, None, flags, None)
}

/// The attributes (`MOUNT_ATTR_*`) of the mount an open file was reached through.
pub(crate) fn current(file: Fd) -> Result<u64, Errno> {
    const NOSYMFOLLOW: u64 = 0x2000;
    // musl has no name for it.
    const RELATIME: u64 = 0x1000;
    const FLAGS: [(u64, u64); 7] = [
        (libc::ST_RDONLY, libc::MOUNT_ATTR_RDONLY),
        (libc::ST_NOSUID, libc::MOUNT_ATTR_NOSUID),
        (libc::ST_NODEV, libc::MOUNT_ATTR_NODEV),
        (libc::ST_NOEXEC, libc::MOUNT_ATTR_NOEXEC),
        (libc::ST_NOATIME, libc::MOUNT_ATTR_NOATIME),
        (libc::ST_NODIRATIME, libc::MOUNT_ATTR_NODIRATIME),
        (NOSYMFOLLOW, libc::MOUNT_ATTR_NOSYMFOLLOW),
    ];
    let flags = fs::mount_flags(file)?;
    let mut attributes = FLAGS
        .iter()
        .filter(|(flag, _)| flags & flag != 0)
        .fold(0, |attributes, (_, attribute)| attributes | attribute);
    // Neither of the two others: there is no flag for it.
    if flags & (libc::ST_NOATIME | RELATIME) == 0 {
        attributes |= libc::MOUNT_ATTR_STRICTATIME;
    }
    Ok(attributes)
}

/// Attributes as flags of `mount(2)`.
fn flags_of(attributes: u64) -> u64 {
    const NOSYMFOLLOW: u64 = 256;
    const FLAGS: [(u64, u64); 8] = [
        (libc::MOUNT_ATTR_RDONLY, libc::MS_RDONLY),
        (libc::MOUNT_ATTR_NOSUID, libc::MS_NOSUID),
        (libc::MOUNT_ATTR_NODEV, libc::MS_NODEV),
        (libc::MOUNT_ATTR_NOEXEC, libc::MS_NOEXEC),
        (libc::MOUNT_ATTR_NODIRATIME, libc::MS_NODIRATIME),
        (libc::MOUNT_ATTR_NOATIME, libc::MS_NOATIME),
        (libc::MOUNT_ATTR_STRICTATIME, libc::MS_STRICTATIME),
        (libc::MOUNT_ATTR_NOSYMFOLLOW, NOSYMFOLLOW),
    ];
    FLAGS
        .iter()
        .filter(|(attribute, _)| attributes & attribute != 0)
        .fold(0, |flags, (_, flag)| flags | flag)
}

/// A remount without any access time flag keeps what is there: the default has to be said.
fn atime_flag(attributes: u64) -> u64 {
    match attributes & libc::MOUNT_ATTR__ATIME {
        0 => libc::MS_RELATIME,
        _ => 0,
    }
}

/// `/proc/self/fd/N`, and a name below it.
pub(crate) struct ProcPath(Text<64>);

impl ProcPath {
    /// The open file itself. Only as long as the root is the host's: its procfs is looked at once more.
    pub(crate) fn of(file: Fd) -> Result<Self, Errno> {
        let proc = fs::openat(Fd::CWD, c"/proc", libc::O_PATH | libc::O_DIRECTORY)?;
        let magic = fs::filesystem(proc);
        proc.close();
        if magic? != libc::PROC_SUPER_MAGIC {
            return Err(Errno::new(libc::EXDEV));
        }
        let mut text = Text::new();
        text.push(b"/proc/self/fd/")?;
        text.push_decimal(file.number().cast_unsigned())?;
        Ok(Self(text))
    }

    fn below(directory: Fd, name: &CStr) -> Result<Self, Errno> {
        let mut path = Self::of(directory)?;
        path.0.push(b"/")?;
        path.0.push(name.to_bytes())?;
        Ok(path)
    }

    pub(crate) fn text(&self) -> Result<&CStr, Errno> {
        self.0.text()
    }
}

/// Text of at most `N - 1` bytes, put together without memory of its own.
struct Text<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Text<N> {
    fn new() -> Self {
        Self {
            bytes: [0; N],
            length: 0,
        }
    }

    fn is_empty(&self) -> bool {
        self.length == 0
    }

    fn push(&mut self, text: &[u8]) -> Result<(), Errno> {
        let end = self.length + text.len();
        // The last byte stays zero.
        let place = self
            .bytes
            .get_mut(self.length..end)
            .filter(|_| end < N)
            .ok_or(Errno::new(libc::E2BIG))?;
        place.copy_from_slice(text);
        self.length = end;
        Ok(())
    }

    fn push_decimal(&mut self, number: u32) -> Result<(), Errno> {
        self.push_number(number, 10)
    }

    fn push_octal(&mut self, number: u32) -> Result<(), Errno> {
        self.push(b"0")?;
        self.push_number(number, 8)
    }

    fn push_number(&mut self, number: u32, base: u32) -> Result<(), Errno> {
        let mut power = 1;
        while number / power >= base {
            power *= base;
        }
        while power > 0 {
            let digit = number / power % base;
            self.push(&[b'0' + digit as u8])?;
            power /= base;
        }
        Ok(())
    }

    fn text(&self) -> Result<&CStr, Errno> {
        CStr::from_bytes_until_nul(&self.bytes).map_err(|_| Errno::new(libc::EINVAL))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_the_kernel_reads_them() {
        for number in [0, 7, 8, 10, 493, 4095, u32::MAX] {
            let mut decimal = Text::<64>::new();
            decimal.push_decimal(number).unwrap();
            assert_eq!(decimal.text().unwrap().to_str().unwrap(), number.to_string());
            let mut octal = Text::<64>::new();
            octal.push_octal(number).unwrap();
            assert_eq!(octal.text().unwrap().to_str().unwrap(), format!("0{number:o}"));
        }
        let mut small = Text::<4>::new();
        assert!(small.push(b"abcd").is_err());
        assert!(small.push(b"abc").is_ok());
        assert!(small.push(b"d").is_err());
    }

    #[test]
    fn parameters_become_source_flags_and_data() {
        let parameters = [
            (c"source".to_owned(), Some(c"none".to_owned())),
            (c"ro".to_owned(), None),
            (c"size".to_owned(), Some(c"1m".to_owned())),
            (c"newinstance".to_owned(), None),
            (c"context".to_owned(), Some(c"a:b:c1,c2".to_owned())),
        ];
        let (source, flags, data) = legacy(Filesystem {
            kind: c"tmpfs",
            parameters: &parameters,
            attributes: libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOATIME,
            mode: Some(0o750),
        })
        .unwrap();
        assert_eq!(source, Some(c"none"));
        assert_eq!(flags, libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NOATIME);
        assert_eq!(
            data.text().unwrap(),
            c"mode=0750,size=1m,newinstance,context=\"a:b:c1,c2\""
        );
    }

    #[test]
    fn the_attributes_of_this_process_s_root_are_read() {
        let root = fs::openat(Fd::CWD, c"/", libc::O_PATH).unwrap();
        let attributes = current(root).unwrap();
        root.close();
        assert_eq!(attributes & libc::MOUNT_ATTR_NOEXEC, 0);
    }
}
