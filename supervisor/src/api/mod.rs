//! The gRPC services, one file each: decode, check, call one store, encode.
//!
//! A service holds an `Arc<Daemon>` and nothing else; [`routes`] lists them all. Stores block, so a call runs on the
//! blocking pool ([`Daemon::blocking`]).

mod containers;
mod content;
mod diff;
mod events;
mod health;
mod images;
mod introspection;
mod leases;
mod mounts;
mod namespaces;
mod sandboxes;
mod snapshots;
mod streaming;
mod tasks;
mod transfer;
mod version;
mod write;

pub use version::{REVISION, VERSION};

use std::sync::Arc;

use prost_types::FieldMask;
use tonic::service::{Routes, RoutesBuilder};
use wharf_proto::{
    containerd::services::{
        containers::v1::containers_server::ContainersServer,
        content::v1::content_server::ContentServer,
        diff::v1::diff_server::DiffServer,
        events::v1::events_server::EventsServer,
        images::v1::images_server::ImagesServer,
        introspection::v1::introspection_server::IntrospectionServer,
        leases::v1::leases_server::LeasesServer,
        mounts::v1::mounts_server::MountsServer,
        namespaces::v1::namespaces_server::NamespacesServer,
        sandbox::v1::{controller_server::ControllerServer, store_server::StoreServer},
        snapshots::v1::snapshots_server::SnapshotsServer,
        streaming::v1::streaming_server::StreamingServer,
        tasks::v1::tasks_server::TasksServer,
        transfer::v1::transfer_server::TransferServer,
        version::v1::version_server::VersionServer,
    },
    grpc::health::v1::health_server::HealthServer,
};

use crate::{
    daemon::Daemon,
    error::{Error, Result},
    identifier::Labels,
};

/// A response stream.
type Stream<T> = futures_util::stream::BoxStream<'static, std::result::Result<T, tonic::Status>>;

/// Adds a service with the daemon's message limits.
macro_rules! add {
    ($builder:ident, $limits:ident, $server:ident, $service:expr) => {
        $builder.add_service(
            $server::new($service)
                .max_decoding_message_size($limits.receive)
                .max_encoding_message_size($limits.send),
        )
    };
}

/// All services over one daemon.
pub fn routes(daemon: &Arc<Daemon>) -> Routes {
    let mut builder = RoutesBuilder::default();
    let limits = daemon.messages;
    let daemon = || Arc::clone(daemon);
    add!(
        builder,
        limits,
        ContainersServer,
        containers::Containers(daemon())
    );
    add!(builder, limits, ContentServer, content::Content(daemon()));
    add!(builder, limits, DiffServer, diff::Diff(daemon()));
    add!(builder, limits, HealthServer, health::Health(daemon()));
    add!(builder, limits, ImagesServer, images::Images(daemon()));
    add!(
        builder,
        limits,
        IntrospectionServer,
        introspection::Introspection(daemon())
    );
    add!(builder, limits, LeasesServer, leases::Leases(daemon()));
    add!(builder, limits, MountsServer, mounts::Mounts(daemon()));
    add!(
        builder,
        limits,
        NamespacesServer,
        namespaces::Namespaces(daemon())
    );
    add!(builder, limits, StoreServer, sandboxes::Store(daemon()));
    add!(builder, limits, ControllerServer, sandboxes::Controller(daemon()));
    add!(builder, limits, SnapshotsServer, snapshots::Snapshots(daemon()));
    add!(builder, limits, StreamingServer, streaming::Streaming(daemon()));
    add!(builder, limits, TransferServer, transfer::Transfer(daemon()));
    add!(builder, limits, VersionServer, version::Version);
    add!(builder, limits, EventsServer, events::Service(daemon()));
    add!(builder, limits, TasksServer, tasks::Service(daemon()));
    builder.routes()
}

/// The tasks service, for what acts as a client would.
pub fn tasks(daemon: &Arc<Daemon>) -> tasks::Service {
    tasks::Service(Arc::clone(daemon))
}

/// A stream of what is already there.
fn stream<T: Send + 'static>(items: Vec<T>) -> Stream<T> {
    Box::pin(tokio_stream::iter(items.into_iter().map(Ok)))
}

/// The field `name` of a request, which must be there.
fn required<T>(field: Option<T>, name: &str) -> Result<T> {
    field.ok_or_else(|| Error::invalid(format!("{name} must be set")))
}

/// The paths of an update mask; empty: all mutable fields.
fn paths(mask: Option<FieldMask>) -> Vec<String> {
    mask.map(|mask| mask.paths).unwrap_or_default()
}

/// Applies an update of which only labels can change. `what` names the object in errors.
fn mask_labels(labels: &mut Labels, new: &Labels, paths: &[String], what: &str) -> Result<()> {
    if paths.is_empty() {
        labels.clone_from(new);
    }
    for path in paths {
        if !mask_label(labels, new, path) {
            return Err(Error::invalid(format!("cannot update {path:?} field on {what}")));
        }
    }
    Ok(())
}

/// Applies `labels` or `labels.<key>`; says whether `path` was one of them.
fn mask_label(labels: &mut Labels, new: &Labels, path: &str) -> bool {
    if path == "labels" {
        labels.clone_from(new);
        return true;
    }
    let Some(key) = path.strip_prefix("labels.") else {
        return false;
    };
    match new.get(key) {
        Some(value) => labels.insert(key.to_owned(), value.clone()),
        None => labels.remove(key),
    };
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_changes_what_it_names_and_nothing_else() {
        let old = || Labels::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())]);
        let new = Labels::from([("a".to_owned(), "9".to_owned()), ("c".to_owned(), "3".to_owned())]);
        let apply = |paths: &[&str]| {
            let mut labels = old();
            let paths: Vec<_> = paths.iter().map(|path| (*path).to_owned()).collect();
            mask_labels(&mut labels, &new, &paths, "it")
                .map(|()| labels.into_iter().map(|(k, v)| k + &v).collect::<Vec<_>>())
        };
        assert_eq!(apply(&[]).unwrap(), ["a9", "c3"]);
        assert_eq!(apply(&["labels"]).unwrap(), ["a9", "c3"]);
        assert_eq!(apply(&["labels.a"]).unwrap(), ["a9", "b2"]);
        assert_eq!(apply(&["labels.b"]).unwrap(), ["a1"]);
        assert!(apply(&["size"]).is_err());
    }
}
