//! What is answered otherwise than by the peer, and why; and what newer containerds answer in services that 1.6 lacks.

use tonic::Code;

use crate::call::Outcome;

/// Where `wharfd` answers otherwise: beginning of the method, case (or its beginning, up to a colon), answer, reason. The
/// first line that fits counts.
type Line = (&'static str, &'static str, Code, &'static str);

const DIFFERENCES: &[Line] = &[
    (
        "containerd.services.events.v1.Events/Subscribe",
        "filter: =",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.events.v1.Events/Subscribe",
        "filter: name==",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.events.v1.Events/Subscribe",
        "filter: name==\"",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.events.v1.Events/Subscribe",
        "filter: a b",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.events.v1.Events/Subscribe",
        "filter: name,,x",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.events.v1.Events/Subscribe",
        "filter: !",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.sandbox.v1.Store/Create",
        "labels: ",
        Code::InvalidArgument,
        "labels are bounded everywhere",
    ),
    (
        "containerd.services.sandbox.v1.Controller/Update",
        "no namespace",
        Code::InvalidArgument,
        "both are missing, the namespace and who controls the sandbox",
    ),
    (
        "containerd.services.sandbox.v1.Controller/Update",
        "an empty namespace",
        Code::InvalidArgument,
        "both are missing, the namespace and who controls the sandbox",
    ),
    (
        "containerd.services.streaming.v1.Streaming/Stream",
        "no message",
        Code::InvalidArgument,
        "a stream without its first message is told so",
    ),
    (
        "containerd.services.content.v1.Content/Write",
        "no message",
        Code::Ok,
        "a stream of no requests asks for nothing",
    ),
    (
        "",
        "no message",
        Code::Internal,
        "no client sends it: the answer is of the gRPC library",
    ),
    (
        "containerd.services.snapshots.v1.Snapshots/List",
        "no namespace",
        Code::FailedPrecondition,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.snapshots.v1.Snapshots/List",
        "an empty namespace",
        Code::FailedPrecondition,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.snapshots.v1.Snapshots/List",
        "a malformed namespace",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.snapshots.v1.Snapshots/List",
        "a long namespace",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.tasks.v1.Tasks/Metrics",
        "no namespace",
        Code::FailedPrecondition,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.tasks.v1.Tasks/Metrics",
        "an empty namespace",
        Code::FailedPrecondition,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.tasks.v1.Tasks/Metrics",
        "a malformed namespace",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.tasks.v1.Tasks/Metrics",
        "a long namespace",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.snapshots.v1.Snapshots/List",
        "filter: =",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.snapshots.v1.Snapshots/List",
        "filter: name==",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.snapshots.v1.Snapshots/List",
        "filter: name==\"",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.snapshots.v1.Snapshots/List",
        "filter: a b",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.snapshots.v1.Snapshots/List",
        "filter: name,,x",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.snapshots.v1.Snapshots/List",
        "filter: !",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.tasks.v1.Tasks/Metrics",
        "filter: =",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.tasks.v1.Tasks/Metrics",
        "filter: name==",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.tasks.v1.Tasks/Metrics",
        "filter: name==\"",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.tasks.v1.Tasks/Metrics",
        "filter: a b",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.tasks.v1.Tasks/Metrics",
        "filter: name,,x",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.tasks.v1.Tasks/Metrics",
        "filter: !",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.namespaces.v1.Namespaces/List",
        "filter: =",
        Code::InvalidArgument,
        "containerd takes no notice of the filter",
    ),
    (
        "containerd.services.namespaces.v1.Namespaces/List",
        "filter: name==",
        Code::InvalidArgument,
        "containerd takes no notice of the filter",
    ),
    (
        "containerd.services.namespaces.v1.Namespaces/List",
        "filter: name==\"",
        Code::InvalidArgument,
        "containerd takes no notice of the filter",
    ),
    (
        "containerd.services.namespaces.v1.Namespaces/List",
        "filter: a b",
        Code::InvalidArgument,
        "containerd takes no notice of the filter",
    ),
    (
        "containerd.services.namespaces.v1.Namespaces/List",
        "filter: name,,x",
        Code::InvalidArgument,
        "containerd takes no notice of the filter",
    ),
    (
        "containerd.services.namespaces.v1.Namespaces/List",
        "filter: !",
        Code::InvalidArgument,
        "containerd takes no notice of the filter",
    ),
    (
        "containerd.services.tasks.v1.Tasks/List",
        "filter: name~=(",
        Code::Ok,
        "both take no notice of the filter",
    ),
    (
        "",
        "filter: name~=(",
        Code::InvalidArgument,
        "containerd takes a pattern that it cannot compile for one that matches nothing",
    ),
    (
        "containerd.services.content.v1.Content/Write",
        "an unknown action",
        Code::InvalidArgument,
        "containerd takes no notice of the message",
    ),
    (
        "containerd.services.content.v1.Content/Write",
        "expected: no digest",
        Code::InvalidArgument,
        "what is no digest is told before any byte is taken",
    ),
    (
        "containerd.services.diff.v1.Diff/Apply",
        "digest: no digest",
        Code::InvalidArgument,
        "what is no digest is told so",
    ),
    (
        "containerd.services.content.v1.Content/Write",
        "expected: a short one",
        Code::InvalidArgument,
        "what is no digest is told before any byte is taken",
    ),
    (
        "containerd.services.diff.v1.Diff/Apply",
        "digest: a short one",
        Code::InvalidArgument,
        "what is no digest is told so",
    ),
    (
        "containerd.services.content.v1.Content/Write",
        "expected: of an unknown algorithm",
        Code::InvalidArgument,
        "what is no digest is told before any byte is taken",
    ),
    (
        "containerd.services.diff.v1.Diff/Apply",
        "digest: of an unknown algorithm",
        Code::InvalidArgument,
        "what is no digest is told so",
    ),
    (
        "containerd.services.content.v1.Content/Write",
        "expected: in capitals",
        Code::InvalidArgument,
        "what is no digest is told before any byte is taken",
    ),
    (
        "containerd.services.diff.v1.Diff/Apply",
        "digest: in capitals",
        Code::InvalidArgument,
        "what is no digest is told so",
    ),
    (
        "containerd.services.content.v1.Content/Write",
        "expected: a path",
        Code::InvalidArgument,
        "what is no digest is told before any byte is taken",
    ),
    (
        "containerd.services.diff.v1.Diff/Apply",
        "digest: a path",
        Code::InvalidArgument,
        "what is no digest is told so",
    ),
    (
        "containerd.services.content.v1.Content/Write",
        "expected: of 10,000 characters",
        Code::InvalidArgument,
        "what is no digest is told before any byte is taken",
    ),
    (
        "containerd.services.diff.v1.Diff/Apply",
        "digest: of 10,000 characters",
        Code::InvalidArgument,
        "what is no digest is told so",
    ),
    (
        "containerd.services.diff.v1.Diff/Apply",
        "digest: empty",
        Code::InvalidArgument,
        "what is no digest is told so",
    ),
    (
        "containerd.services.diff.v1.Diff/Apply",
        "nothing",
        Code::InvalidArgument,
        "containerd ends",
    ),
    (
        "containerd.services.diff.v1.Diff/Apply",
        "a media type that is no layer's",
        Code::Unimplemented,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.diff.v1.Diff/Apply",
        "a layer that is none",
        Code::Unimplemented,
        "without mounts there is nothing that it could be applied to; containerd applies it to a directory that it removes",
    ),
    (
        "containerd.services.diff.v1.Diff/Apply",
        "a layer that is not compressed",
        Code::Unimplemented,
        "the same",
    ),
    (
        "containerd.services.diff.v1.Diff/Apply",
        "a mount of an unknown type",
        Code::Unimplemented,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.diff.v1.Diff/Diff",
        "no namespace",
        Code::FailedPrecondition,
        "containerd mounts first",
    ),
    (
        "containerd.services.diff.v1.Diff/Diff",
        "an empty namespace",
        Code::FailedPrecondition,
        "containerd mounts first",
    ),
    (
        "containerd.services.diff.v1.Diff/Diff",
        "a malformed namespace",
        Code::InvalidArgument,
        "containerd mounts first",
    ),
    (
        "containerd.services.diff.v1.Diff/Diff",
        "a long namespace",
        Code::InvalidArgument,
        "containerd mounts first",
    ),
    (
        "containerd.services.content.v1.Content/Write",
        "a negative total",
        Code::InvalidArgument,
        "it is told before any byte is taken",
    ),
    (
        "containerd.services.content.v1.Content/Write",
        "a negative offset",
        Code::InvalidArgument,
        "containerd takes it for none",
    ),
    (
        "containerd.services.events.v1.Events/Forward",
        "nothing",
        Code::InvalidArgument,
        "containerd ends",
    ),
    (
        "containerd.services.sandbox.v1.Store/",
        "no sandbox",
        Code::InvalidArgument,
        "containerd ends",
    ),
    (
        "containerd.services.sandbox.v1.Store/",
        "no runtime",
        Code::Ok,
        "containerd ends",
    ),
    (
        "containerd.services.leases.v1.Leases/Create",
        "an expiry that is no time",
        Code::InvalidArgument,
        "a lease would never end by a slip of the pen",
    ),
    (
        "containerd.services.leases.v1.Leases/Create",
        "labels: ",
        Code::InvalidArgument,
        "labels are bounded everywhere",
    ),
    (
        "containerd.services.leases.v1.Leases/AddResource",
        "a snapshot of nobody",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.leases.v1.Leases/",
        "no resource",
        Code::InvalidArgument,
        "containerd takes it for one of no type",
    ),
    (
        "containerd.services.namespaces.v1.Namespaces/Update",
        "labels: ",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.namespaces.v1.Namespaces/Update",
        "no namespace",
        Code::InvalidArgument,
        "containerd has nothing to do, and so finds nothing wrong",
    ),
    (
        "containerd.services.namespaces.v1.Namespaces/Update",
        "name: empty",
        Code::InvalidArgument,
        "containerd has nothing to do, and so finds nothing wrong",
    ),
    (
        "containerd.services.namespaces.v1.Namespaces/Update",
        "name: malformed",
        Code::InvalidArgument,
        "containerd has nothing to do, and so finds nothing wrong",
    ),
    (
        "containerd.services.namespaces.v1.Namespaces/Update",
        "name: a space",
        Code::InvalidArgument,
        "containerd has nothing to do, and so finds nothing wrong",
    ),
    (
        "containerd.services.namespaces.v1.Namespaces/Update",
        "name: of 10,000 characters",
        Code::InvalidArgument,
        "containerd has nothing to do, and so finds nothing wrong",
    ),
    (
        "containerd.services.snapshots.v1.Snapshots/Prepare",
        "no key",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.snapshots.v1.Snapshots/View",
        "no key",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.snapshots.v1.Snapshots/Commit",
        "no name",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.tasks.v1.Tasks/Create",
        "options that nobody knows",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.tasks.v1.Tasks/Create",
        "a checkpoint that is not there",
        Code::NotFound,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.tasks.v1.Tasks/Create",
        "output to nowhere",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.tasks.v1.Tasks/Create",
        "output by an unknown scheme",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.tasks.v1.Tasks/Start",
        "one that runs",
        Code::FailedPrecondition,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.tasks.v1.Tasks/Delete",
        "one that runs",
        Code::FailedPrecondition,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.tasks.v1.Tasks/Resume",
        "one that is not paused",
        Code::FailedPrecondition,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.tasks.v1.Tasks/Checkpoint",
        "options that nobody knows",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.tasks.v1.Tasks/ResizePty",
        "a size of 2^32-1",
        Code::InvalidArgument,
        "no terminal has so many cells",
    ),
    (
        "containerd.services.tasks.v1.Tasks/Kill",
        "signal 0",
        Code::InvalidArgument,
        "signal 0 is none; whether a task is there is asked by Get",
    ),
    (
        "containerd.services.tasks.v1.Tasks/Kill",
        "signal 1000",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.tasks.v1.Tasks/Kill",
        "signal 2^32-1",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.tasks.v1.Tasks/Exec",
        "no process",
        Code::InvalidArgument,
        "the shim ends",
    ),
    (
        "containerd.services.tasks.v1.Tasks/Exec",
        "a process that nobody knows",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.tasks.v1.Tasks/Exec",
        "a process that cannot be read",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.tasks.v1.Tasks/Update",
        "no resources",
        Code::InvalidArgument,
        "the shim ends",
    ),
    (
        "containerd.services.tasks.v1.Tasks/Update",
        "resources that nobody knows",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.tasks.v1.Tasks/Update",
        "resources that cannot be read",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.sandbox.v1.Controller/Platform",
        "a malformed namespace",
        Code::InvalidArgument,
        "containerd 2.3 does not implement it",
    ),
    (
        "containerd.services.sandbox.v1.Controller/Platform",
        "a long namespace",
        Code::InvalidArgument,
        "containerd 2.3 does not implement it",
    ),
    (
        "containerd.services.sandbox.v1.Controller/Platform",
        "an unknown controller",
        Code::NotFound,
        "containerd 2.3 does not implement it",
    ),
    (
        "containerd.services.sandbox.v1.Controller/Platform",
        "an unknown namespace",
        Code::InvalidArgument,
        "containerd 2.3 does not implement it",
    ),
    (
        "containerd.services.sandbox.v1.Controller/Platform",
        "id: ",
        Code::InvalidArgument,
        "containerd 2.3 does not implement it",
    ),
    (
        "containerd.services.sandbox.v1.Controller/",
        "no namespace",
        Code::FailedPrecondition,
        "both are missing, the namespace and who controls the sandbox",
    ),
    (
        "containerd.services.sandbox.v1.Controller/",
        "an empty namespace",
        Code::FailedPrecondition,
        "both are missing, the namespace and who controls the sandbox",
    ),
    (
        "containerd.services.introspection.v1.Introspection/PluginInfo",
        "options that nobody knows",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.streaming.v1.Streaming/Stream",
        "a message that nobody knows",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.streaming.v1.Streaming/Stream",
        "no id",
        Code::InvalidArgument,
        "nobody could name the stream",
    ),
    (
        "containerd.services.streaming.v1.Streaming/Stream",
        "no namespace",
        Code::FailedPrecondition,
        "a stream belongs to a namespace here",
    ),
    (
        "containerd.services.streaming.v1.Streaming/Stream",
        "an empty namespace",
        Code::FailedPrecondition,
        "a stream belongs to a namespace here",
    ),
    (
        "containerd.services.streaming.v1.Streaming/Stream",
        "a malformed namespace",
        Code::InvalidArgument,
        "a stream belongs to a namespace here",
    ),
    (
        "containerd.services.streaming.v1.Streaming/Stream",
        "a long namespace",
        Code::InvalidArgument,
        "a stream belongs to a namespace here",
    ),
    (
        "containerd.services.transfer.v1.Transfer/Transfer",
        "nothing",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.transfer.v1.Transfer/Transfer",
        "no destination",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.transfer.v1.Transfer/Transfer",
        "no source",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.transfer.v1.Transfer/Transfer",
        "a source that cannot be read",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.transfer.v1.Transfer/Transfer",
        "a malformed reference",
        Code::InvalidArgument,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.transfer.v1.Transfer/Transfer",
        "a destination that nobody knows",
        Code::Unimplemented,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.transfer.v1.Transfer/Transfer",
        "a source that nobody knows",
        Code::Unimplemented,
        "containerd hands its error on without a code",
    ),
    (
        "containerd.services.transfer.v1.Transfer/Transfer",
        "a registry that is not there",
        Code::Unavailable,
        "containerd hands its error on without a code",
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
const MISSING: [&str; 4] = [
    "containerd.services.introspection.v1.Introspection/PluginInfo",
    "containerd.services.sandbox.v1.",
    "containerd.services.streaming.v1.",
    "containerd.services.transfer.v1.",
];

/// What containerd 2.3 answers there: method, case and answer, with tabs between them.
const NEWER: &str = include_str!("newer.txt");

/// The answer to `case`, if it is another than the peer's.
pub(crate) fn difference(method: &str, case: &str) -> Option<Outcome> {
    let line = DIFFERENCES.iter().find(|(of, name, ..)| {
        let is_case = case == *name || name.ends_with(": ") && case.starts_with(name);
        is_case && method.starts_with(of)
    })?;
    Some(Outcome::Ended(line.2))
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
