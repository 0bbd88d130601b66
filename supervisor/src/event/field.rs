//! The fields of an event that filters can name: `topic`, `namespace` and `event.FIELD`.
//!
//! As in containerd, only text fields count, an empty one is absent, and `io` and `runtime` are walked into; labels are
//! reached as `event.labels.KEY`, with the dots of the key as they are.

use prost::{Message, Name};
use prost_types::Any;
use wharf_proto::containerd::events as wire;
use wharf_proto::containerd::services::images::v1 as images;
use wharf_proto::containerd::types::Envelope;

use super::Entry;

use crate::filter::{self, Fields};
use crate::identifier::Labels;

impl Fields for Entry {
    fn field(&self, path: &[&str]) -> Option<String> {
        value(&self.envelope, path)
    }
}

fn value(envelope: &Envelope, path: &[&str]) -> Option<String> {
    match path {
        ["topic"] => text(&envelope.topic),
        ["namespace"] => text(&envelope.namespace),
        ["event", rest @ ..] => of_event(envelope.event.as_ref()?, rest),
        _ => None,
    }
}

fn text(value: &str) -> Option<String> {
    (!value.is_empty()).then(|| value.to_owned())
}

/// The value of `path` in the message that `event` carries.
fn of_event(event: &Any, path: &[&str]) -> Option<String> {
    let (&field, rest) = path.split_first()?;
    let id = |id: String| (field == "container_id").then_some(id);
    let name = event.type_url.rsplit('/').next().unwrap_or_default();
    let value = match name.trim_start_matches("containerd.events.") {
        "TaskCreate" => {
            let event: wire::TaskCreate = read(event)?;
            match field {
                "container_id" => Some(event.container_id),
                "bundle" => Some(event.bundle),
                "checkpoint" => Some(event.checkpoint),
                "io" => of_io(event.io?, rest),
                _ => None,
            }
        }
        "TaskStart" => id(read::<wire::TaskStart>(event)?.container_id),
        "TaskDelete" => {
            let event: wire::TaskDelete = read(event)?;
            pick(field, [("container_id", event.container_id), ("id", event.id)])
        }
        "TaskExit" => {
            let event: wire::TaskExit = read(event)?;
            pick(field, [("container_id", event.container_id), ("id", event.id)])
        }
        "TaskOOM" => id(read::<wire::TaskOom>(event)?.container_id),
        "TaskExecAdded" => {
            let event: wire::TaskExecAdded = read(event)?;
            pick(
                field,
                [("container_id", event.container_id), ("exec_id", event.exec_id)],
            )
        }
        "TaskExecStarted" => {
            let event: wire::TaskExecStarted = read(event)?;
            pick(
                field,
                [("container_id", event.container_id), ("exec_id", event.exec_id)],
            )
        }
        "TaskPaused" => id(read::<wire::TaskPaused>(event)?.container_id),
        "TaskResumed" => id(read::<wire::TaskResumed>(event)?.container_id),
        "TaskCheckpointed" => {
            let event: wire::TaskCheckpointed = read(event)?;
            pick(
                field,
                [
                    ("container_id", event.container_id),
                    ("checkpoint", event.checkpoint),
                ],
            )
        }
        "ContainerCreate" => {
            let event: wire::ContainerCreate = read(event)?;
            match (field, rest) {
                ("runtime", ["name"]) => Some(event.runtime?.name),
                _ => pick(field, [("id", event.id), ("image", event.image)]),
            }
        }
        "ContainerUpdate" => {
            let event: wire::ContainerUpdate = read(event)?;
            match field {
                "labels" => filter::label(&event.labels, rest),
                _ => pick(
                    field,
                    [
                        ("id", event.id),
                        ("image", event.image),
                        ("snapshot_key", event.snapshot_key),
                    ],
                ),
            }
        }
        "ContainerDelete" => pick(field, [("id", read::<wire::ContainerDelete>(event)?.id)]),
        "NamespaceCreate" => {
            let event: wire::NamespaceCreate = read(event)?;
            named(field, event.name, event.labels, rest)
        }
        "NamespaceUpdate" => {
            let event: wire::NamespaceUpdate = read(event)?;
            named(field, event.name, event.labels, rest)
        }
        "NamespaceDelete" => pick(field, [("name", read::<wire::NamespaceDelete>(event)?.name)]),
        "ContentCreate" => pick(field, [("digest", read::<wire::ContentCreate>(event)?.digest)]),
        "ContentDelete" => pick(field, [("digest", read::<wire::ContentDelete>(event)?.digest)]),
        "SnapshotPrepare" => {
            let event: wire::SnapshotPrepare = read(event)?;
            pick(
                field,
                [
                    ("key", event.key),
                    ("parent", event.parent),
                    ("snapshotter", event.snapshotter),
                ],
            )
        }
        "SnapshotCommit" => {
            let event: wire::SnapshotCommit = read(event)?;
            pick(
                field,
                [
                    ("key", event.key),
                    ("name", event.name),
                    ("snapshotter", event.snapshotter),
                ],
            )
        }
        "SnapshotRemove" => {
            let event: wire::SnapshotRemove = read(event)?;
            pick(field, [("key", event.key), ("snapshotter", event.snapshotter)])
        }
        "containerd.services.images.v1.ImageCreate" => {
            let event: images::ImageCreate = read(event)?;
            named(field, event.name, event.labels, rest)
        }
        "containerd.services.images.v1.ImageUpdate" => {
            let event: images::ImageUpdate = read(event)?;
            named(field, event.name, event.labels, rest)
        }
        "containerd.services.images.v1.ImageDelete" => {
            pick(field, [("name", read::<images::ImageDelete>(event)?.name)])
        }
        "SandboxCreate" => sandbox(field, read::<wire::SandboxCreate>(event)?.sandbox_id),
        "SandboxStart" => sandbox(field, read::<wire::SandboxStart>(event)?.sandbox_id),
        "SandboxExit" => sandbox(field, read::<wire::SandboxExit>(event)?.sandbox_id),
        _ => None,
    };
    value.filter(|value| !value.is_empty())
}

fn read<M: Message + Name + Default>(event: &Any) -> Option<M> {
    M::decode(event.value.as_slice()).ok()
}

fn pick<const N: usize>(field: &str, fields: [(&str, String); N]) -> Option<String> {
    fields
        .into_iter()
        .find_map(|(name, value)| (name == field).then_some(value))
}

fn sandbox(field: &str, id: String) -> Option<String> {
    pick(field, [("sandbox_id", id)])
}

fn named(field: &str, name: String, labels: Labels, rest: &[&str]) -> Option<String> {
    match field {
        "labels" => filter::label(&labels, rest),
        _ => pick(field, [("name", name)]),
    }
}

fn of_io(io: wire::TaskIo, path: &[&str]) -> Option<String> {
    match *path.first()? {
        "terminal" => Some(io.terminal.to_string()),
        field => pick(
            field,
            [("stdin", io.stdin), ("stdout", io.stdout), ("stderr", io.stderr)],
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wharf_proto::any::pack;

    fn field(envelope: &Envelope, path: &str) -> Option<String> {
        let path: Vec<&str> = path.split('.').collect();
        value(envelope, &path)
    }

    fn envelope(event: Any) -> Envelope {
        Envelope {
            timestamp: None,
            namespace: "ns".to_owned(),
            topic: "/tasks/create".to_owned(),
            event: Some(event),
        }
    }

    #[test]
    fn the_envelope_and_the_message_inside_can_be_named() {
        let event = envelope(pack(&wire::TaskCreate {
            container_id: "c".to_owned(),
            io: Some(wire::TaskIo {
                stdout: "/out".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        }));
        for (path, expected) in [
            ("topic", Some("/tasks/create")),
            ("namespace", Some("ns")),
            ("event.container_id", Some("c")),
            ("event.io.stdout", Some("/out")),
            ("event.io.stderr", None),
            ("event.io.terminal", Some("false")),
            ("event.bundle", None),
            ("event.pid", None),
            ("event", None),
            ("other", None),
        ] {
            assert_eq!(field(&event, path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn labels_keep_the_dots_of_their_keys() {
        let event = envelope(pack(&wire::NamespaceCreate {
            name: "n".to_owned(),
            labels: [("a.b".to_owned(), "v".to_owned())].into(),
        }));
        assert_eq!(field(&event, "event.labels.a.b").as_deref(), Some("v"));
        assert_eq!(field(&event, "event.labels.a"), None);
    }

    #[test]
    fn messages_of_other_types_and_broken_ones_have_no_fields() {
        let other = envelope(Any {
            type_url: "example.com/Other".to_owned(),
            value: vec![1, 2, 3],
        });
        assert_eq!(field(&other, "event.container_id"), None);
        let broken = envelope(Any {
            type_url: "containerd.events.TaskExit".to_owned(),
            value: vec![0xff],
        });
        assert_eq!(field(&broken, "event.container_id"), None);
    }
}
