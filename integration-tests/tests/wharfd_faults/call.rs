//! The calls that are looked at: whose they are, what kind of effect they have.

use std::path::Path;

use crate::gate::descriptor;

/// Their numbers and names.
pub(crate) const NUMBERS: &[(i64, &str)] = &[
    (libc::SYS_fsync, "fsync"),
    (libc::SYS_fdatasync, "fdatasync"),
    (libc::SYS_syncfs, "syncfs"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rename, "rename"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_link, "link"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_unlink, "unlink"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rmdir, "rmdir"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mkdir, "mkdir"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_symlink, "symlink"),
    (libc::SYS_renameat, "renameat"),
    (libc::SYS_renameat2, "renameat2"),
    (libc::SYS_linkat, "linkat"),
    (libc::SYS_unlinkat, "unlinkat"),
    (libc::SYS_mkdirat, "mkdirat"),
    (libc::SYS_symlinkat, "symlinkat"),
    (libc::SYS_mount, "mount"),
    (libc::SYS_move_mount, "move_mount"),
    (libc::SYS_umount2, "umount2"),
    (libc::SYS_ftruncate, "ftruncate"),
    (libc::SYS_fallocate, "fallocate"),
    (libc::SYS_pwrite64, "pwrite64"),
    (libc::SYS_write, "write"),
    (libc::SYS_writev, "writev"),
    (libc::SYS_sendto, "sendto"),
    (libc::SYS_sendmsg, "sendmsg"),
    (libc::SYS_connect, "connect"),
    (libc::SYS_execve, "execve"),
];

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Bytes go to a file or a name to a directory: it can fail for want of space.
    Grow,
    /// Names or bytes go.
    Shrink,
    /// What was written before becomes durable.
    Flush,
    /// The tree of mounts, an answer, a call on a shim.
    Outside,
    /// Nothing that anybody else sees: a wake-up, a line of the log.
    None,
}

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The daemon itself.
    Daemon,
    /// What it started: the fork server, a shim, the process that becomes a container.
    Other,
}

/// One call that is about to be done.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) role: Role,
    /// The process that calls.
    pub(crate) process: i32,
    /// Whether that one is a `wharfd`.
    pub(crate) is_wharfd: bool,
    pub(crate) name: &'static str,
    pub(crate) effect: Effect,
    /// The file of those that have one.
    pub(crate) file: String,
}

impl Call {
    pub(crate) fn new(thread: i32, daemon: i32, number: i32, arguments: [u64; 6]) -> Self {
        let role = if Path::new(&format!("/proc/{daemon}/task/{thread}")).exists() {
            Role::Daemon
        } else {
            Role::Other
        };
        let name = NUMBERS
            .iter()
            .find(|(known, _)| *known == i64::from(number))
            .map_or("unknown", |(_, name)| name);
        let takes_descriptor = matches!(
            name,
            "fsync"
                | "fdatasync"
                | "syncfs"
                | "ftruncate"
                | "fallocate"
                | "pwrite64"
                | "write"
                | "writev"
                | "sendto"
                | "sendmsg"
        );
        let process = if role == Role::Daemon { daemon } else { thread };
        let file = if takes_descriptor {
            descriptor(process, arguments[0])
        } else {
            String::new()
        };
        let is_wharfd = role == Role::Daemon
            || std::fs::read_link(format!("/proc/{process}/exe")).is_ok_and(|exe| exe.ends_with("wharfd"));
        let effect = match name {
            "fsync" | "fdatasync" | "syncfs" => Effect::Flush,
            "unlink" | "unlinkat" | "rmdir" => Effect::Shrink,
            "ftruncate" => Effect::Shrink,
            "write" | "writev" | "sendto" | "sendmsg" if arguments[0] <= 2 => Effect::None,
            "write" | "writev" | "sendto" | "sendmsg" if file.starts_with("socket:") => Effect::Outside,
            "write" | "writev" if file.starts_with('/') => Effect::Grow,
            "write" | "writev" | "sendto" | "sendmsg" => Effect::None,
            // Of a container's own programs nobody knows how many there are.
            "execve" if !is_wharfd => Effect::None,
            "mount" | "move_mount" | "umount2" | "connect" | "execve" => Effect::Outside,
            _ => Effect::Grow,
        };
        Self {
            role,
            process,
            is_wharfd,
            name,
            effect,
            file,
        }
    }
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.name, self.file)
    }
}
