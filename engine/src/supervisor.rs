//! The engine's only door to the supervisor: containerd's gRPC API.
//!
//! Any containerd works. The daemon's own supervisor, embedded in this process, gets the same calls without a socket
//! between. The rest of the engine sees [`Client`] and the types named here. Refuses: policy; every method of the
//! client is one call.
//!
//! Architecture invariant: only here, in this file and those below it, is the gRPC client opened ([`Client::new`]) or the
//! supervisor embedded ([`Embedded::start`]); the channel itself never leaves.

mod call;
mod connection;
mod containers;
mod content;
mod embedded;
mod events;
mod images;
mod processes;
mod snapshots;
mod tasks;
mod transfer;

pub use call::{CallError, CallResult};
pub use connection::{Client, NAMESPACE};
pub use content::MAX_DOCUMENT;
pub use embedded::Embedded;
pub use processes::{Exit, StdioUris};
pub use tasks::TaskState;
pub use transfer::{ProgressEvent, RegistryAuth, Source};

pub use wharf_proto::containerd::services::containers::v1::Container as ContainerRow;
pub use wharf_proto::containerd::services::images::v1::Image as ImageRow;
pub use wharf_proto::containerd::types::{Descriptor, Mount, Platform};
pub use wharf_proto::containerd::v1::types::Status as TaskStatus;
