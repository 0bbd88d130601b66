//! Layers: compressed tar streams, applied to a directory or computed from two.
//!
//! ```text
//! blob ──► compression (gzip, zstd, plain) ──► DiffID ──► archive (tar, PAX, GNU, sparse) ──► apply (on dirfds)
//!          └────────── one thread ──────────┘  bounded    └───────────── the caller's thread ─────────────┘
//! ```
//!
//! Everything that a layer says is hostile input. The invariants:
//!
//! - No path of a layer is ever given to the kernel as such: parents are resolved inside the target's root
//!   (`openat2(RESOLVE_IN_ROOT)` or the walk in [`tree`]), the last component is never followed.
//! - Memory is bounded whatever the archive says: see [`Limits`](apply::Limits).
//! - A failed apply leaves a partial tree in the target, which the caller removes: it must not have been published.
//!
//! What is not understood here can be made so by external programs ([`processor`]). Computing a layer from two trees is in
//! [`diff`].

mod apply;
mod archive;
mod compression;
mod copy_up;
pub(crate) mod diff;
mod entry;
#[cfg(any(test, fuzzing))]
pub mod fuzzed;
mod lookahead;
mod metadata;
mod mounts;
mod number;
mod path;
mod pax;
mod pipeline;
mod processor;
mod sparse;
mod tree;
mod zstd;

pub(crate) use apply::{Implied, Limits, Target, apply, settle};
pub(crate) use archive::{Archive, Entry, EntryKind};
pub(crate) use compression::{Decompressor, is_layer};
pub(crate) use mounts::{prepare, prepare_apart};
pub(crate) use processor::Payloads;
pub use processor::{Processor, Processors};

#[cfg(test)]
mod tests;
