//! The gRPC services, one file each: decode, check, call one store, encode.
//!
//! A service holds an `Arc<Daemon>` and nothing else. Its `new(Arc<Daemon>)` is listed in [`routes`].

mod diff;
mod events;
mod streaming;
mod tasks;
mod transfer;

use std::sync::Arc;

use tonic::service::{Routes, RoutesBuilder};

use crate::daemon::Daemon;

/// The largest message that is taken or sent, in bytes: containerd's 16 MiB.
pub const MAX_MESSAGE: usize = 16 << 20;

/// All services over one daemon.
pub fn routes(daemon: &Arc<Daemon>) -> Routes {
    let mut routes = RoutesBuilder::default();
    routes.add_service(events::service(Arc::clone(daemon)));
    routes.add_service(tasks::service(Arc::clone(daemon)));
    routes.routes()
}
