//! The steps of the child half, and how a failed one is told to the parent.

use std::borrow::Cow;
use std::ffi::CStr;

use super::hook::Ending;
use crate::Error;
use crate::cgroup::Entrance;
use crate::plan::{Operation, Plan, ProcessPlan, Source};
use crate::sys::Errno;
use crate::sys::process::Ended;

/// What the child half does; the order of its life, roughly. The parent prints it with [`describe`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
#[allow(missing_docs)]
pub(crate) enum Step {
    OomScore,
    RaiseLimit,
    Usher,
    Hide,
    Cgroup,
    Affinity,
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
    Staging,
    Root,
    Operation,
    Device,
    Link,
    Cwd,
    Hook,
    Terminal,
    Console,
    Mask,
    ReadOnlyPath,
    ReadOnlyMount,
    ReadOnlyRoot,
    Hidden,
    Pivot,
    RootPropagation,
    NullStreams,
    Sysctl,
    Label,
    Rlimit,
    IoPriority,
    Scheduling,
    Personality,
    MemoryPolicy,
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
    Listener,
    Execute,
}

const STEPS: [Step; Step::Execute as usize + 1] = [
    Step::OomScore,
    Step::RaiseLimit,
    Step::Usher,
    Step::Hide,
    Step::Cgroup,
    Step::Affinity,
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
    Step::Staging,
    Step::Root,
    Step::Operation,
    Step::Device,
    Step::Link,
    Step::Cwd,
    Step::Hook,
    Step::Terminal,
    Step::Console,
    Step::Mask,
    Step::ReadOnlyPath,
    Step::ReadOnlyMount,
    Step::ReadOnlyRoot,
    Step::Hidden,
    Step::Pivot,
    Step::RootPropagation,
    Step::NullStreams,
    Step::Sysctl,
    Step::Label,
    Step::Rlimit,
    Step::IoPriority,
    Step::Scheduling,
    Step::Personality,
    Step::MemoryPolicy,
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
    Step::Listener,
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

/// The hooks that the child half runs, by kind.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Stage {
    CreateContainer,
    StartContainer,
    /// Not in the container: who asked for it knows which.
    Beside,
}

/// A hook in the container that failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct HookFailure {
    pub(crate) stage: Stage,
    /// Which of its kind.
    pub(crate) index: u16,
    pub(crate) ending: Ending,
}

impl HookFailure {
    fn encode(self) -> [u32; 3] {
        let stage = match self.stage {
            Stage::CreateContainer => 0,
            Stage::StartContainer => 1,
            Stage::Beside => 2,
        };
        let (how, number) = match self.ending {
            Ending::Ended(Ended::Exited(status)) => (0, status),
            Ending::Ended(Ended::Killed(signal)) => (1, signal),
            Ending::TimedOut => (2, 0),
        };
        [stage << 16 | u32::from(self.index), how, number.cast_unsigned()]
    }

    fn decode([place, how, number]: [u32; 3]) -> Option<Self> {
        let number = number.cast_signed();
        Some(Self {
            stage: match place >> 16 {
                0 => Stage::CreateContainer,
                1 => Stage::StartContainer,
                2 => Stage::Beside,
                _ => return None,
            },
            index: place as u16,
            ending: match how {
                0 => Ending::Ended(Ended::Exited(number)),
                1 => Ending::Ended(Ended::Killed(number)),
                2 => Ending::TimedOut,
                _ => return None,
            },
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
    /// The descriptor of that number listens to the filter's notices; the child waits for a packet.
    Listener(i32),
    /// A hook failed, and the packet carries what it wrote; the child is ending.
    Hook(HookFailure),
    /// From an usher: the packet carries the pidfd of the process it made, which has this pid.
    Born(u32),
    /// The child needs the source of the mount operation of that index, which it may not open; it waits for a packet
    /// with a descriptor. [`STAGING`] is the directory on which mounts are staged.
    Source(u32),
    /// The child waits at the gate.
    Ready,
    /// Nothing but `execve` (and what must directly precede it) is left.
    Executing,
}

/// No mount has this index.
pub(crate) const STAGING: u32 = u32::MAX;

/// The size of every packet.
pub(crate) const MESSAGE_BYTES: usize = 16;

impl Message {
    /// The packet: four native words, `kind`, `step` (or a pid), `index`, `errno`.
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
            Self::Listener(number) => [6, number.cast_unsigned(), 0, 0],
            Self::Hook(failure) => {
                let [place, how, number] = failure.encode();
                [7, place, how, number]
            }
            Self::Born(pid) => [8, pid, 0, 0],
            Self::Source(index) => [9, 0, index, 0],
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
            6 => Self::Listener(word(4).cast_signed()),
            7 => Self::Hook(HookFailure::decode([word(4), word(8), word(12)])?),
            8 => Self::Born(word(4)),
            9 => Self::Source(word(8)),
            _ => return None,
        })
    }
}

/// The error that a failed step is; arguments as for [`describe`].
pub(crate) fn error(
    failure: Failure,
    plan: Option<&Plan>,
    process: &ProcessPlan,
    entrances: &[Entrance],
) -> Error {
    match failure.step {
        Step::Execute => Error::Execute {
            program: program(process).into_owned(),
            errno: failure.errno,
        },
        _ => Error::Step {
            description: describe(failure, plan, process, entrances),
            errno: failure.errno,
        },
    }
}

/// What failed, for people: operation, object and cause. `plan` is there when the container itself was being made,
/// `entrances` as they were given to the child half.
fn describe(failure: Failure, plan: Option<&Plan>, process: &ProcessPlan, entrances: &[Entrance]) -> String {
    let index = failure.index as usize;
    let errno = failure.errno;
    let what: Cow<'static, str> = match failure.step {
        Step::Find => return not_found(process, errno),
        Step::CwdInside => return format!("{} is outside of the container", text(&process.cwd)),
        Step::Execute => format!("exec {}", program(process)).into(),
        Step::Chdir => format!("chdir to {}", text(&process.cwd)).into(),
        Step::Rlimit => match process.rlimits.get(index) {
            Some((resource, soft, hard)) => format!("set resource limit {resource} to {soft}:{hard}").into(),
            None => "set a resource limit".into(),
        },
        Step::Cgroup => match entrances.get(index) {
            Some(entrance) => format!("write \"0\" to {}", entrance.path().display()).into(),
            None => plain(failure.step).into(),
        },
        Step::Scheduling if errno.number() == libc::EPERM && process.some_cpus => {
            "process scheduler can't be used together with AllowedCPUs (linux.resources.cpu.cpus)".into()
        }
        // The only reason to refuse a number that is one.
        Step::User if errno.number() == libc::EINVAL => {
            format!("cannot setuid to unmapped uid {} in user namespace", process.uid).into()
        }
        Step::Group if errno.number() == libc::EINVAL => {
            format!("cannot setgid to unmapped gid {} in user namespace", process.gid).into()
        }
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
    match why(failure.step, index, errno, plan) {
        Some(why) => format!("{what}: {why}: {errno}"),
        None => format!("{what}: {errno}"),
    }
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
        Step::Operation => operation(rootfs.operations.get(index)?),
        Step::Device => format!("make device /{}", text(&rootfs.devices.get(index)?.target.path)),
        Step::Link => format!("link /{}", text(&rootfs.links.get(index)?.at.path)),
        Step::Cwd => format!("make directory /{}", text(&rootfs.cwd.as_ref()?.path)),
        Step::Mask => format!("mask /{}", text(rootfs.masked.get(index)?)),
        Step::ReadOnlyPath => format!("make /{} read-only", text(rootfs.read_only_paths.get(index)?)),
        Step::Hidden => format!("hide {}", text(rootfs.hidden.get(index)?)),
        Step::Sysctl => {
            let (path, value) = plan.sysctls.get(index)?;
            format!("write {} to /proc/{}", text(value), text(path))
        }
        _ => return None,
    };
    Some(text.into())
}

fn operation(operation: &Operation) -> String {
    match operation {
        Operation::Mount(mount) => {
            let from = match &mount.source {
                Source::New { kind, .. } => text(kind),
                Source::Bind { path, .. } => text(path),
            };
            format!("mount {from} on /{}", text(&mount.target.path))
        }
        Operation::Link { at, .. } => format!("link /{}", text(&at.path)),
        Operation::Remount { at, .. } => format!("remount /{}", text(&at.path)),
    }
}

/// Why a mount failed, where the errno alone does not tell.
fn why(step: Step, index: usize, errno: Errno, plan: Option<&Plan>) -> Option<String> {
    if step == Step::Root && errno.number() == libc::ELOOP {
        return Some("invalid rootfs: not an absolute path, or a symlink".into());
    }
    let Some(Operation::Mount(mount)) = plan
        .filter(|_| step == Step::Operation)
        .and_then(|plan| plan.rootfs.operations.get(index))
    else {
        return None;
    };
    let strange = [libc::ELOOP, libc::ENOTDIR].contains(&errno.number());
    match &mount.source {
        Source::New { kind, .. } if strange && !mount.follow_links => Some(format!(
            "filesystem {:?} must be mounted on ordinary directory",
            text(kind)
        )),
        _ if errno.number() == libc::EBUSY => Some("the target is the root itself, or busy".into()),
        _ => None,
    }
}

/// The steps without an object.
fn plain(step: Step) -> &'static str {
    match step {
        Step::OomScore => "write /proc/self/oom_score_adj",
        Step::RaiseLimit => "raise a resource limit",
        Step::Usher => "make a process in the joined namespaces",
        Step::Hide => "clear the dumpable flag",
        Step::Cgroup => "enter a control group",
        Step::Affinity => "set the CPU affinity",
        Step::Signals => "reset signals",
        Step::Streams => "set up the standard streams",
        Step::CloseDescriptors => "close descriptors",
        Step::Parent => "wait for the runtime",
        Step::Join => "join the container's namespaces",
        Step::Unshare => "make a namespace",
        Step::TimeOffsets => "write /proc/self/timens_offsets",
        Step::BecomeRoot => "become root of the user namespace",
        Step::Session => "setsid",
        Step::Keyring => "join a session keyring",
        Step::Loopback => "bring lo up",
        Step::Hostname => "set the host name",
        Step::Domainname => "set the domain name",
        Step::Propagation => "set the propagation of /",
        Step::Staging => "make a place to stage mounts",
        Step::Root => "open the root file system",
        Step::Operation => "mount",
        Step::Device => "make a device",
        Step::Link => "make a link",
        Step::Cwd => "make the working directory",
        Step::Hook => "run a hook",
        Step::Terminal => "make a terminal",
        Step::Console => "mount the terminal on /dev/console",
        Step::Mask => "mask a path",
        Step::ReadOnlyPath => "make a path read-only",
        Step::ReadOnlyMount => "make a mount read-only",
        Step::Hidden => "hide a file system of the host",
        Step::ReadOnlyRoot => "make the root file system read-only",
        Step::Pivot => "pivot_root",
        Step::RootPropagation => "set the propagation of the root file system",
        Step::NullStreams => "open the container's /dev/null for its streams",
        Step::Sysctl => "write a sysctl",
        Step::Label => "set the label",
        Step::Rlimit => "set a resource limit",
        Step::IoPriority => "set the I/O priority",
        Step::Scheduling => "set the scheduling policy",
        Step::Personality => "set the execution domain",
        Step::MemoryPolicy => "set the memory policy",
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
        Step::Listener => "hand over the seccomp listener",
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

    fn hook(stage: Stage, ending: Ending) -> Message {
        Message::Hook(HookFailure {
            stage,
            index: 300,
            ending,
        })
    }

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
            Message::Source(3),
            Message::Console,
            Message::Born(4711),
            Message::Ready,
            Message::Executing,
            Message::Listener(7),
            hook(Stage::CreateContainer, Ending::Ended(Ended::Exited(7))),
            hook(Stage::StartContainer, Ending::Ended(Ended::Killed(9))),
            hook(Stage::Beside, Ending::TimedOut),
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
