//! Wire messages and services of Wharf, identical on the wire to those of containerd.
//!
//! `proto/` in this crate holds the definitions, one file a protobuf package; `cargo xtask proto` compiles them and the
//! result is committed in `src/generated`. The crate adds what the wire itself needs and nothing more: the framing of
//! ttrpc ([`ttrpc`]) and the `Any` convention of containerd ([`any`]).
//!
//! Architecture invariant: no policy, no sockets, no dependency on another crate of the workspace.

pub mod any;
pub mod ttrpc;

#[allow(missing_docs, clippy::all, clippy::pedantic, rustdoc::all)]
mod generated {
    include!("generated/mod.rs");
}

pub use generated::{containerd, google, grpc, io, runtimeoptions};
