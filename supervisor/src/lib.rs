//! The supervisor of Wharf: containerd's gRPC API over content, snapshots, images, leases, tasks and events.
//!
//! A request enters through one of the services in `api`, which reads the namespace and lease of the call
//! (`namespace::Scope`), checks the arguments and calls exactly one store; the stores are synchronous and run on the
//! blocking pool, but for the little that creating and deleting a task reads and writes in memory. `daemon::Daemon` is the
//! one value that all services share.
//!
//! ```text
//! api/*  ──►  namespace::Scope + identifier, filter
//!   │
//!   ├─► content/   blobs by digest, resumable ingests     ─┐
//!   ├─► snapshot/  namespaced snapshots over snapshotters  ├─►  metadata/  one redb file
//!   ├─► image/ container/ sandbox/ lease/ (rows)          ─┘
//!   ├─► mount/    mounts that are not for a runtime to make    (rows of this boot)
//!   ├─► layer/ registry/ transfer/   image bytes in and out
//!   ├─► task/ sandbox/  shims                   (no metadata commit)
//!   └─► event/    the ordered log that every change is published to
//! ```
//!
//! `restart` is a client within: it starts and stops the tasks of containers whose labels ask for it.
//!
//! Around it is the process: `listen` (sockets, who may connect, TLS), `socket`, `upgrade` (a new daemon takes over from the one that
//! runs), `metrics`, `logging`, `notify` (systemd), and `process`, which puts them together.
//!
//! Architecture invariants:
//!
//! - What a response acknowledged survives kill -9; what is not tied to the boot (content, images, containers, leases,
//!   committed snapshots) survives power loss as well, unless the caller of a call about a container waives that. See
//!   `metadata` for the two kinds of commit.
//! - A blob is visible only when its digest was verified and its bytes are durable.
//! - Creating and starting a task commits no metadata and waits for no disk flush.
//! - No store knows tonic; no service opens a file. Errors become gRPC codes in one table, in `error`.
//! - Nothing here knows Docker's names, ports or restart policy; `restart` follows the labels of containerd's clients.

mod api;
mod boot;
mod config;
mod container;
mod content;
mod daemon;
mod digest;
mod error;
mod event;
mod filter;
mod fsck;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzed;
mod gc;
mod identifier;
mod image;
mod layer;
mod lease;
mod listen;
mod logging;
mod metadata;
mod metrics;
mod mount;
mod namespace;
mod notify;
mod opt;
mod process;
mod registry;
mod restart;
mod sandbox;
mod server;
mod snapshot;
mod socket;
mod sys;
mod task;
mod time;
// Its tests need no feature.
#[cfg(any(test, feature = "otlp"))]
#[cfg_attr(not(feature = "otlp"), allow(dead_code))]
mod trace;
mod transfer;
mod upgrade;

pub use config::{
    Config, File as ConfigFile, Grpc as GrpcConfig, Metrics as MetricsConfig, Opt as OptDirectory,
    Registry as RegistryConfig, Tcp as TcpConfig,
};
pub use error::{Error, Kind};
pub use fsck::{Fault, Item, Options as CheckOptions, Report, check};
pub use layer::{Processor as StreamProcessor, Processors as StreamProcessors};
pub use logging::start as start_logging;
pub use process::{Start, run, runtime};
pub use registry::{Referrer, list_referrers, list_tags};
pub use server::Supervisor;
pub use snapshot::{Proxy as ProxySnapshotter, Settings as SnapshotSettings};
pub use transfer::Settings as TransferSettings;
pub use upgrade::request_upgrade;
