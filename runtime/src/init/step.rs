//! The steps of the child half, and how a failed one is told to the parent.

use std::borrow::Cow;
use std::ffi::CStr;

use crate::cgroup::Entrance;
use crate::plan::{Operation, Plan, ProcessPlan, Source};
use crate::sys::Errno;

/// What the child half does; the order of its life, roughly. The parent prints it with [`describe`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
#[allow(missing_docs)]
pub(crate) enum Step {
    Hide,
    Cgroup,
    Signals,
    Streams,
    CloseDescriptors,
    Parent,
    Join,
    Unshare,
    TimeOffsets,
    BecomeRoot,
    Session,
    Keyring,
    Loopback,
    Hostname,
    Domainname,
    Propagation,
    Root,
    Operation,
    Device,
    Link,
    Cwd,
    Terminal,
    Console,
    Mask,
    ReadOnlyPath,
    ReadOnlyRoot,
    Pivot,
    RootPropagation,
    Sysctl,
    Label,
    Rlimit,
    IoPriority,
    Scheduling,
    Personality,
    StreamOwner,
    NoNewPrivileges,
    Bounding,
    Groups,
    Group,
    User,
    Capabilities,
    Ambient,
    Chdir,
    CwdInside,
    Find,
    Gate,
    Seccomp,
    Execute,
}

const STEPS: [Step; Step::Execute as usize + 1] = [
    Step::Hide,
    Step::Cgroup,
    Step::Signals,
    Step::Streams,
    Step::CloseDescriptors,
    Step::Parent,
    Step::Join,
    Step::Unshare,
    Step::TimeOffsets,
    Step::BecomeRoot,
    Step::Session,
    Step::Keyring,
    Step::Loopback,
    Step::Hostname,
    Step::Domainname,
    Step::Propagation,
    Step::Root,
    Step::Operation,
    Step::Device,
    Step::Link,
    Step::Cwd,
    Step::Terminal,
    Step::Console,
    Step::Mask,
    Step::ReadOnlyPath,
    Step::ReadOnlyRoot,
    Step::Pivot,
    Step::RootPropagation,
    Step::Sysctl,
    Step::Label,
    Step::Rlimit,
    Step::IoPriority,
    Step::Scheduling,
    Step::Personality,
    Step::StreamOwner,
    Step::NoNewPrivileges,
    Step::Bounding,
    Step::Groups,
    Step::Group,
    Step::User,
    Step::Capabilities,
    Step::Ambient,
    Step::Chdir,
    Step::CwdInside,
    Step::Find,
    Step::Gate,
    Step::Seccomp,
    Step::Execute,
];

/// A step that failed, on its `index`th object.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Failure {
    pub(crate) step: Step,
    pub(crate) index: u32,
    pub(crate) errno: Errno,
}

/// Names the step that an error belongs to.
pub(crate) trait At<T> {
    /// The error as a failure of `step`.
    fn at(self, step: Step) -> Result<T, Failure>;
    /// The error as a failure of `step` on its `index`th object.
    fn at_nth(self, step: Step, index: usize) -> Result<T, Failure>;
}

impl<T> At<T> for Result<T, Errno> {
    fn at(self, step: Step) -> Result<T, Failure> {
        self.at_nth(step, 0)
    }

    fn at_nth(self, step: Step, index: usize) -> Result<T, Failure> {
        self.map_err(|errno| Failure {
            step,
            index: index as u32,
            errno,
        })
    }
}

/// What the child tells the parent; one packet each.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Message {
    /// A step failed; the child is ending.
    Failed(Failure),
    /// The hooks before the change of root may run; the child waits for a packet.
    BeforePivot,
    /// The packet carries the terminal's master.
    Console,
    /// The child waits at the gate.
    Ready,
    /// Nothing but `execve` (and what must directly precede it) is left.
    Executing,
}

/// The size of every packet.
pub(crate) const MESSAGE_BYTES: usize = 16;

impl Message {
    /// The packet: four native words, `kind`, `step`, `index`, `errno`.
    pub(crate) fn encode(self) -> [u8; MESSAGE_BYTES] {
        let words = match self {
            Self::Failed(failure) => [
                1,
                failure.step as u32,
                failure.index,
                failure.errno.number().cast_unsigned(),
            ],
            Self::BeforePivot => [2, 0, 0, 0],
            Self::Console => [3, 0, 0, 0],
            Self::Ready => [4, 0, 0, 0],
            Self::Executing => [5, 0, 0, 0],
        };
        let mut packet = [0; MESSAGE_BYTES];
        for (place, word) in packet.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        packet
    }

    /// Reads a packet; nothing when it is none.
    pub(crate) fn decode(packet: &[u8]) -> Option<Self> {
        let packet: &[u8; MESSAGE_BYTES] = packet.try_into().ok()?;
        let word =
            |at: usize| u32::from_ne_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]]);
        Some(match word(0) {
            1 => Self::Failed(Failure {
                step: *STEPS.get(word(4) as usize)?,
                index: word(8),
                errno: Errno::new(word(12).cast_signed()),
            }),
            2 => Self::BeforePivot,
            3 => Self::Console,
            4 => Self::Ready,
            5 => Self::Executing,
            _ => return None,
        })
    }
}

/// What failed, for people: operation, object and cause. `plan` is there when the container itself was being made,
/// `entrances` as they were given to the child half.
pub(crate) fn describe(
    failure: Failure,
    plan: Option<&Plan>,
    process: &ProcessPlan,
    entrances: &[Entrance],
) -> String {
    let index = failure.index as usize;
    let errno = failure.errno;
    let what: Cow<'static, str> = match failure.step {
        Step::Find => return not_found(process, errno),
        Step::CwdInside => return format!("{} is outside of the container", text(&process.cwd)),
        Step::Execute => return format!("exec {}: {errno}", program(process)),
        Step::Chdir => format!("chdir to {}", text(&process.cwd)).into(),
        Step::Rlimit => match process.rlimits.get(index) {
            Some((resource, soft, hard)) => format!("set resource limit {resource} to {soft}:{hard}").into(),
            None => "set a resource limit".into(),
        },
        Step::Cgroup => match entrances.get(index) {
            Some(entrance) => format!("write \"0\" to {}", entrance.path().display()).into(),
            None => plain(failure.step).into(),
        },
        Step::User => format!("set user {}", process.uid).into(),
        Step::Group => format!("set group {}", process.gid).into(),
        Step::Label => match &process.label {
            Some(label) => format!("set the label {}", text(&label.value)).into(),
            None => "set the label".into(),
        },
        step => plan
            .and_then(|plan| of_container(step, index, plan))
            .unwrap_or_else(|| plain(step).into()),
    };
    format!("{what}: {errno}")
}

/// The steps that have an object in the container's plan.
fn of_container(step: Step, index: usize, plan: &Plan) -> Option<Cow<'static, str>> {
    let rootfs = &plan.rootfs;
    let text = match step {
        Step::Join => {
            let join = plan.namespaces.join.get(index)?;
            let name = crate::plan::namespace_name(join.kind);
            format!("join the {name} namespace {}", join.path.display())
        }
        Step::Root => format!("open the root file system (root.path) {}", text(&rootfs.path)),
        Step::Operation => match rootfs.operations.get(index)? {
            Operation::Mount(mount) => {
                let from = match &mount.source {
                    Source::New { kind, .. } => text(kind),
                    Source::Bind { path, .. } => text(path),
                };
                format!("mount {from} on /{}", text(&mount.target.path))
            }
            Operation::Link { at, .. } => format!("link /{}", text(&at.path)),
            Operation::Attributes { at, .. } => format!("make /{} read-only", text(&at.path)),
        },
        Step::Device => format!("make device /{}", text(&rootfs.devices.get(index)?.target.path)),
        Step::Link => format!("link /{}", text(&rootfs.links.get(index)?.at.path)),
        Step::Cwd => format!("make directory /{}", text(&rootfs.cwd.as_ref()?.path)),
        Step::Mask => format!("mask /{}", text(rootfs.masked.get(index)?)),
        Step::ReadOnlyPath => format!("make /{} read-only", text(rootfs.read_only_paths.get(index)?)),
        Step::Sysctl => {
            let (path, value) = plan.sysctls.get(index)?;
            format!("write {} to /proc/{}", text(value), text(path))
        }
        _ => return None,
    };
    Some(text.into())
}

/// The steps without an object.
fn plain(step: Step) -> &'static str {
    match step {
        Step::Hide => "clear the dumpable flag",
        Step::Cgroup => "enter a control group",
        Step::Signals => "reset signals",
        Step::Streams => "set up the standard streams",
        Step::CloseDescriptors => "close descriptors",
        Step::Parent => "wait for the runtime",
        Step::Join => "join the container's namespaces",
        Step::Unshare => "make a cgroup or time namespace",
        Step::TimeOffsets => "write /proc/self/timens_offsets",
        Step::BecomeRoot => "become root of the user namespace",
        Step::Session => "setsid",
        Step::Keyring => "join a session keyring",
        Step::Loopback => "bring lo up",
        Step::Hostname => "set the host name",
        Step::Domainname => "set the domain name",
        Step::Propagation => "set the propagation of /",
        Step::Root => "open the root file system",
        Step::Operation => "mount",
        Step::Device => "make a device",
        Step::Link => "make a link",
        Step::Cwd => "make the working directory",
        Step::Terminal => "make a terminal",
        Step::Console => "mount the terminal on /dev/console",
        Step::Mask => "mask a path",
        Step::ReadOnlyPath => "make a path read-only",
        Step::ReadOnlyRoot => "make the root file system read-only",
        Step::Pivot => "pivot_root",
        Step::RootPropagation => "set the propagation of the root file system",
        Step::Sysctl => "write a sysctl",
        Step::Label => "set the label",
        Step::Rlimit => "set a resource limit",
        Step::IoPriority => "set the I/O priority",
        Step::Scheduling => "set the scheduling policy",
        Step::Personality => "set the execution domain",
        Step::StreamOwner => "give the standard streams to the user",
        Step::NoNewPrivileges => "set no_new_privs",
        Step::Bounding => "limit the bounding set",
        Step::Groups => "set the supplementary groups",
        Step::Group => "set the group",
        Step::User => "set the user",
        Step::Capabilities => "set the capabilities",
        Step::Ambient => "set the ambient capabilities",
        Step::Chdir => "chdir",
        Step::CwdInside => "check the working directory",
        Step::Find => "find the program",
        Step::Gate => "wait for start",
        Step::Seccomp => "load the seccomp filter",
        Step::Execute => "exec",
    }
}

fn not_found(process: &ProcessPlan, errno: Errno) -> String {
    let program = program(process);
    match errno.number() {
        libc::ENOENT if !program.contains('/') => {
            format!("exec: {program:?}: executable file not found in $PATH")
        }
        libc::ENOENT => format!("exec: {program:?}: stat {program}: no such file or directory"),
        libc::EACCES => format!("exec: {program:?}: permission denied"),
        _ => format!("exec: {program:?}: {errno}"),
    }
}

fn program(process: &ProcessPlan) -> Cow<'_, str> {
    let first = process.arguments.as_slice().first();
    first.map_or(Cow::Borrowed(""), |program| program.to_string_lossy())
}

fn text(text: &CStr) -> Cow<'_, str> {
    text.to_string_lossy()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_survives_the_wire() {
        for (index, step) in STEPS.into_iter().enumerate() {
            assert_eq!(step as usize, index);
            let failure = Failure {
                step,
                index: 7,
                errno: Errno::new(libc::EPERM),
            };
            let message = Message::Failed(failure);
            assert_eq!(Message::decode(&message.encode()), Some(message));
        }
        for message in [
            Message::BeforePivot,
            Message::Console,
            Message::Ready,
            Message::Executing,
        ] {
            assert_eq!(Message::decode(&message.encode()), Some(message));
        }
        assert_eq!(Message::decode(&[0; MESSAGE_BYTES]), None);
        assert_eq!(Message::decode(&[0; 3]), None);
    }

    #[test]
    fn a_group_that_cannot_be_entered_is_named() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("tasks"), "").unwrap();
        let opened = std::fs::File::open(directory.path()).unwrap();
        let entrance = Entrance::open(std::os::fd::AsFd::as_fd(&opened), directory.path()).unwrap();
        let process = crate::spec::oci::Process {
            args: vec!["sh".into()],
            cwd: "/".into(),
            ..Default::default()
        };
        let process = Plan::process_for_messages(&process).unwrap();
        let failure = Failure {
            step: Step::Cgroup,
            index: 0,
            errno: Errno::new(libc::ENOSPC),
        };
        let tasks = directory.path().join("tasks");
        assert_eq!(
            describe(failure, None, &process, &[entrance]),
            format!("write \"0\" to {}: {}", tasks.display(), failure.errno)
        );
    }
}
