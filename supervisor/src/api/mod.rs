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
mod namespaces;
mod sandboxes;
mod snapshots;
mod streaming;
mod tasks;
mod transfer;
mod version;
mod write;

use std::sync::Arc;

use prost_types::FieldMask;
use tonic::service::{Routes, RoutesBuilder};
use wharf_proto::{
    containerd::services::{
        containers::v1::containers_server::ContainersServer,
        content::v1::content_server::ContentServer,
        diff::v1::diff_server::DiffServer,
        images::v1::images_server::ImagesServer,
        introspection::v1::introspection_server::IntrospectionServer,
        leases::v1::leases_server::LeasesServer,
        namespaces::v1::namespaces_server::NamespacesServer,
        sandbox::v1::{controller_server::ControllerServer, store_server::StoreServer},
        snapshots::v1::snapshots_server::SnapshotsServer,
        streaming::v1::streaming_server::StreamingServer,
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

/// The largest message that is taken or sent, in bytes: containerd's 16 MiB.
pub const MAX_MESSAGE: usize = 16 << 20;

/// A response stream.
type Stream<T> = futures_util::stream::BoxStream<'static, std::result::Result<T, tonic::Status>>;

/// Adds a service with containerd's message limits.
macro_rules! add {
    ($builder:ident, $server:ident, $service:expr) => {
        $builder.add_service(
            $server::new($service)
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(MAX_MESSAGE),
        )
    };
}

/// All services over one daemon.
pub fn routes(daemon: &Arc<Daemon>) -> Routes {
    let mut builder = RoutesBuilder::default();
    let daemon = || Arc::clone(daemon);
    add!(builder, ContainersServer, containers::Containers(daemon()));
    add!(builder, ContentServer, content::Content(daemon()));
    add!(builder, DiffServer, diff::Diff(daemon()));
    add!(builder, HealthServer, health::Health(daemon()));
    add!(builder, ImagesServer, images::Images(daemon()));
    add!(
        builder,
        IntrospectionServer,
        introspection::Introspection(daemon())
    );
    add!(builder, LeasesServer, leases::Leases(daemon()));
    add!(builder, NamespacesServer, namespaces::Namespaces(daemon()));
    add!(builder, StoreServer, sandboxes::Store(daemon()));
    add!(builder, ControllerServer, sandboxes::Controller(daemon()));
    add!(builder, SnapshotsServer, snapshots::Snapshots(daemon()));
    add!(builder, StreamingServer, streaming::Streaming(daemon()));
    add!(builder, TransferServer, transfer::Transfer(daemon()));
    add!(builder, VersionServer, version::Version);
    builder.add_service(events::service(daemon()));
    builder.add_service(tasks::service(daemon()));
    builder.routes()
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
