//! What is answered otherwise than by the peer, and why; and what newer containerds answer in services that 1.6 lacks.

use tonic::Code;

use crate::call::Outcome;

/// Where `wharfd` answers otherwise: beginning of the method, answer, reason, cases (or their beginnings, up to a colon). The
/// first line that fits counts.
type Line = (&'static str, Code, &'static str, &'static [&'static str]);

const DIFFERENCES: &[Line] = &[
    (
        "containerd.services.mounts.v1.Mounts/Activate",
        Code::InvalidArgument,
        "what has no name is found by nobody again; containerd looks at the type first",
        &["no name"],
    ),
    (
        "containerd.services.mounts.v1.Mounts/Update",
        Code::FailedPrecondition,
        "the namespace is asked for first, as by every other method",
        &["no namespace", "an empty namespace"],
    ),
    (
        "containerd.services.mounts.v1.Mounts/Update",
        Code::InvalidArgument,
        "the namespace is looked at first, as by every other method",
        &["a malformed namespace", "a long namespace"],
    ),
    (
        "containerd.services.mounts.v1.Mounts/List",
        Code::InvalidArgument,
        "containerd looks at no filter here",
        &[
            "filter: =",
            "filter: name==",
            "filter: name==\"",
            "filter: a b",
            "filter: name,,x",
            "filter: !",
        ],
    ),
    (
        "containerd.services.events.v1.Events/Subscribe",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
        &[
            "filter: =",
            "filter: name==",
            "filter: name==\"",
            "filter: a b",
            "filter: name,,x",
            "filter: !",
        ],
    ),
    (
        "containerd.services.sandbox.v1.Store/Create",
        Code::InvalidArgument,
        "labels are bounded everywhere",
        &["labels: "],
    ),
    (
        "containerd.services.sandbox.v1.Controller/Update",
        Code::FailedPrecondition,
        "the namespace is asked for first, as by every other method",
        &["no namespace", "an empty namespace"],
    ),
    (
        "containerd.services.streaming.v1.Streaming/Stream",
        Code::InvalidArgument,
        "a stream without its first message is told so",
        &["no message"],
    ),
    (
        "containerd.services.content.v1.Content/Write",
        Code::Ok,
        "a stream of no requests asks for nothing",
        &["no message"],
    ),
    (
        "",
        Code::Internal,
        "no client sends it: the answer is of the gRPC library",
        &["no message"],
    ),
    (
        "containerd.services.snapshots.v1.Snapshots/List",
        Code::FailedPrecondition,
        "containerd hands its error on without a code",
        &["no namespace", "an empty namespace"],
    ),
    (
        "containerd.services.snapshots.v1.Snapshots/List",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
        &[
            "a malformed namespace",
            "a long namespace",
            "filter: =",
            "filter: name==",
            "filter: name==\"",
            "filter: a b",
            "filter: name,,x",
            "filter: !",
        ],
    ),
    (
        "containerd.services.tasks.v1.Tasks/Metrics",
        Code::FailedPrecondition,
        "containerd hands its error on without a code",
        &["no namespace", "an empty namespace"],
    ),
    (
        "containerd.services.tasks.v1.Tasks/Metrics",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
        &[
            "a malformed namespace",
            "a long namespace",
            "filter: =",
            "filter: name==",
            "filter: name==\"",
            "filter: a b",
            "filter: name,,x",
            "filter: !",
        ],
    ),
    (
        "containerd.services.namespaces.v1.Namespaces/List",
        Code::InvalidArgument,
        "containerd takes no notice of the filter",
        &[
            "filter: =",
            "filter: name==",
            "filter: name==\"",
            "filter: a b",
            "filter: name,,x",
            "filter: !",
        ],
    ),
    (
        "containerd.services.tasks.v1.Tasks/List",
        Code::Ok,
        "both take no notice of the filter",
        &["filter: name~=("],
    ),
    (
        "",
        Code::InvalidArgument,
        "containerd takes a pattern that it cannot compile for one that matches nothing",
        &["filter: name~=("],
    ),
    (
        "containerd.services.content.v1.Content/Write",
        Code::InvalidArgument,
        "containerd takes no notice of the message",
        &["an unknown action"],
    ),
    (
        "containerd.services.content.v1.Content/Write",
        Code::InvalidArgument,
        "what is no digest is told before any byte is taken",
        &[
            "expected: no digest",
            "expected: a short one",
            "expected: of an unknown algorithm",
            "expected: in capitals",
            "expected: a path",
            "expected: of 10,000 characters",
        ],
    ),
    (
        "containerd.services.diff.v1.Diff/Apply",
        Code::InvalidArgument,
        "what is no digest is told so",
        &[
            "digest: no digest",
            "digest: a short one",
            "digest: of an unknown algorithm",
            "digest: in capitals",
            "digest: a path",
            "digest: of 10,000 characters",
            "digest: empty",
        ],
    ),
    (
        "containerd.services.diff.v1.Diff/Apply",
        Code::InvalidArgument,
        "containerd ends",
        &["nothing"],
    ),
    (
        "containerd.services.diff.v1.Diff/Apply",
        Code::Unimplemented,
        "containerd hands its error on without a code",
        &["a media type that is no layer's", "a mount of an unknown type"],
    ),
    (
        "containerd.services.diff.v1.Diff/Apply",
        Code::Unimplemented,
        "without mounts there is nothing that it could be applied to; containerd applies it to a directory that it removes",
        &["a layer that is none"],
    ),
    (
        "containerd.services.diff.v1.Diff/Apply",
        Code::Unimplemented,
        "the same",
        &["a layer that is not compressed"],
    ),
    (
        "containerd.services.diff.v1.Diff/Diff",
        Code::FailedPrecondition,
        "containerd mounts first",
        &["no namespace", "an empty namespace"],
    ),
    (
        "containerd.services.diff.v1.Diff/Diff",
        Code::InvalidArgument,
        "containerd mounts first",
        &["a malformed namespace", "a long namespace"],
    ),
    (
        "containerd.services.content.v1.Content/Write",
        Code::InvalidArgument,
        "it is told before any byte is taken",
        &["a negative total"],
    ),
    (
        "containerd.services.content.v1.Content/Write",
        Code::InvalidArgument,
        "containerd takes it for none",
        &["a negative offset"],
    ),
    (
        "containerd.services.events.v1.Events/Forward",
        Code::InvalidArgument,
        "containerd ends",
        &["nothing"],
    ),
    (
        "containerd.services.sandbox.v1.Store/",
        Code::InvalidArgument,
        "containerd ends",
        &["no sandbox"],
    ),
    (
        "containerd.services.sandbox.v1.Store/",
        Code::Ok,
        "containerd ends",
        &["no runtime"],
    ),
    (
        "containerd.services.leases.v1.Leases/Create",
        Code::InvalidArgument,
        "a lease would never end by a slip of the pen",
        &["an expiry that is no time"],
    ),
    (
        "containerd.services.leases.v1.Leases/Create",
        Code::InvalidArgument,
        "labels are bounded everywhere",
        &["labels: "],
    ),
    (
        "containerd.services.leases.v1.Leases/AddResource",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
        &["a snapshot of nobody"],
    ),
    (
        "containerd.services.leases.v1.Leases/",
        Code::InvalidArgument,
        "containerd takes it for one of no type",
        &["no resource"],
    ),
    (
        "containerd.services.namespaces.v1.Namespaces/Update",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
        &["labels: "],
    ),
    (
        "containerd.services.namespaces.v1.Namespaces/Update",
        Code::InvalidArgument,
        "containerd has nothing to do, and so finds nothing wrong",
        &[
            "no namespace",
            "name: empty",
            "name: malformed",
            "name: a space",
            "name: of 10,000 characters",
        ],
    ),
    (
        "containerd.services.snapshots.v1.Snapshots/Prepare",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
        &["no key"],
    ),
    (
        "containerd.services.snapshots.v1.Snapshots/View",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
        &["no key"],
    ),
    (
        "containerd.services.snapshots.v1.Snapshots/Commit",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
        &["no name"],
    ),
    (
        "containerd.services.tasks.v1.Tasks/Create",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
        &[
            "options that nobody knows",
            "output to nowhere",
            "output by an unknown scheme",
        ],
    ),
    (
        "containerd.services.tasks.v1.Tasks/Create",
        Code::NotFound,
        "containerd hands its error on without a code",
        &["a checkpoint that is not there"],
    ),
    (
        "containerd.services.tasks.v1.Tasks/Checkpoint",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
        &["options that nobody knows"],
    ),
    (
        "containerd.services.tasks.v1.Tasks/ResizePty",
        Code::InvalidArgument,
        "no terminal has so many cells",
        &["a size of 2^32-1"],
    ),
    (
        "containerd.services.tasks.v1.Tasks/Kill",
        Code::InvalidArgument,
        "signal 0 is none; whether a task is there is asked by Get",
        &["signal 0"],
    ),
    (
        "containerd.services.tasks.v1.Tasks/Kill",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
        &["signal 1000", "signal 2^32-1"],
    ),
    (
        "containerd.services.tasks.v1.Tasks/Exec",
        Code::InvalidArgument,
        "the shim ends",
        &["no process"],
    ),
    (
        "containerd.services.tasks.v1.Tasks/Exec",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
        &["a process that nobody knows", "a process that cannot be read"],
    ),
    (
        "containerd.services.tasks.v1.Tasks/Update",
        Code::InvalidArgument,
        "the shim ends",
        &["no resources"],
    ),
    (
        "containerd.services.tasks.v1.Tasks/Update",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
        &["resources that nobody knows", "resources that cannot be read"],
    ),
    (
        "containerd.services.sandbox.v1.Controller/Platform",
        Code::InvalidArgument,
        "containerd 2.3 does not implement it",
        &[
            "a malformed namespace",
            "a long namespace",
            "an unknown namespace",
            "id: ",
        ],
    ),
    (
        "containerd.services.sandbox.v1.Controller/Platform",
        Code::NotFound,
        "containerd 2.3 does not implement it",
        &["an unknown controller"],
    ),
    (
        "containerd.services.sandbox.v1.Controller/",
        Code::FailedPrecondition,
        "both are missing, the namespace and who controls the sandbox",
        &["no namespace", "an empty namespace"],
    ),
    (
        "containerd.services.introspection.v1.Introspection/PluginInfo",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
        &["options that nobody knows"],
    ),
    (
        "containerd.services.streaming.v1.Streaming/Stream",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
        &["a message that nobody knows"],
    ),
    (
        "containerd.services.streaming.v1.Streaming/Stream",
        Code::InvalidArgument,
        "nobody could name the stream",
        &["no id"],
    ),
    (
        "containerd.services.streaming.v1.Streaming/Stream",
        Code::FailedPrecondition,
        "a stream belongs to a namespace here",
        &["no namespace", "an empty namespace"],
    ),
    (
        "containerd.services.streaming.v1.Streaming/Stream",
        Code::InvalidArgument,
        "a stream belongs to a namespace here",
        &["a malformed namespace", "a long namespace"],
    ),
    (
        "containerd.services.transfer.v1.Transfer/Transfer",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
        &[
            "nothing",
            "no destination",
            "no source",
            "a source that cannot be read",
            "a malformed reference",
        ],
    ),
    (
        "containerd.services.transfer.v1.Transfer/Transfer",
        Code::Unimplemented,
        "containerd hands its error on without a code",
        &["a destination that nobody knows", "a source that nobody knows"],
    ),
    (
        "containerd.services.transfer.v1.Transfer/Transfer",
        Code::Unavailable,
        "containerd hands its error on without a code",
        &["a registry that is not there"],
    ),
];

/// Cases that end the peer, by a nil pointer, and so are not sent to it; `DIFFERENCES` tells what `wharfd` answers.
const DEADLY: &[(&str, &str)] = &[
    ("containerd.services.diff.v1.Diff/Apply", "nothing"),
    ("containerd.services.events.v1.Events/Forward", "nothing"),
    ("containerd.services.sandbox.v1.Store/Create", "no sandbox"),
    ("containerd.services.sandbox.v1.Store/Create", "no runtime"),
    ("containerd.services.sandbox.v1.Store/Update", "no sandbox"),
    ("containerd.services.tasks.v1.Tasks/Exec", "no process"),
    ("containerd.services.tasks.v1.Tasks/Update", "no resources"),
];

/// The beginnings of methods that Debian's containerd lacks.
const MISSING: [&str; 5] = [
    "containerd.services.introspection.v1.Introspection/PluginInfo",
    "containerd.services.mounts.v1.",
    "containerd.services.sandbox.v1.",
    "containerd.services.streaming.v1.",
    "containerd.services.transfer.v1.",
];

/// What containerd 2.3 answers there: method, case and answer, with tabs between them.
const NEWER: &str = include_str!("newer.txt");

/// The answer to `case`, if it is another than the peer's.
pub(crate) fn difference(method: &str, case: &str) -> Option<Outcome> {
    let is_case = |name: &&str| case == *name || name.ends_with(": ") && case.starts_with(name);
    let line = DIFFERENCES
        .iter()
        .find(|(of, _, _, cases)| method.starts_with(of) && cases.iter().any(is_case))?;
    Some(Outcome::Ended(line.1))
}

/// Whether the peer must not be sent it.
pub(crate) fn is_deadly(method: &str, case: &str) -> bool {
    DEADLY.contains(&(method, case))
}

/// Whether only newer containerds have the method.
pub(crate) fn is_newer(method: &str) -> bool {
    MISSING.iter().any(|beginning| method.starts_with(beginning))
}

/// What a newer containerd answers.
pub(crate) fn newer(method: &str, case: &str) -> Option<Outcome> {
    let answer = NEWER.lines().find_map(|line| {
        let rest = line.strip_prefix(method)?.strip_prefix('\t')?;
        rest.strip_prefix(case)?.strip_prefix('\t')
    })?;
    Some(match answer {
        "Open" => Outcome::Open,
        "Ended(Ok)" => Outcome::Ended(Code::Ok),
        "Ended(Unknown)" => Outcome::Ended(Code::Unknown),
        "Ended(InvalidArgument)" => Outcome::Ended(Code::InvalidArgument),
        "Ended(FailedPrecondition)" => Outcome::Ended(Code::FailedPrecondition),
        "Ended(NotFound)" => Outcome::Ended(Code::NotFound),
        "Ended(AlreadyExists)" => Outcome::Ended(Code::AlreadyExists),
        "Ended(Unimplemented)" => Outcome::Ended(Code::Unimplemented),
        "Ended(Internal)" => Outcome::Ended(Code::Internal),
        other => panic!("{method} with {case}: {other:?} is no answer"),
    })
}
