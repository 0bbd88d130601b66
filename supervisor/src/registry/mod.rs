//! Registries: resolve, authorise, fetch and push, by the OCI distribution specification.
//!
//! ```text
//! Client ── resolve ──► descriptor        HEAD (GET where HEAD says too little)
//!   │  ──── manifest ──► bytes            at most 4 MiB, digest and size checked here
//!   │  ──── blob ──────► chunks, in order resumed by range; digest and size are checked by whoever writes them
//!   │  ──── push ──────► blobs, then manifests  mounted, whole, or in pieces
//!   │  ──── tags, referrers             lists in pages, bounded
//!   └─ endpoint: one of the hosts that stand for the registry (hosts.toml), in order: retries, and
//!        authorization: challenge → credentials → token, kept for this host and repository only
//!        http: time-outs, redirects;  tls;  proxy
//! ```
//!
//! The invariants:
//!
//! - Credentials and tokens go to the registry that was asked for and to the token service it names, to no host that a
//!   redirect or a manifest names. A token service on plain HTTP gets credentials only from a registry on plain HTTP.
//! - Plain HTTP is spoken with loopback addresses and where the caller or a configuration asks for it, never as a
//!   fall-back.
//! - `urls` of foreign layers are fetched where the registry does not have the layer, by anybody's HTTP without credentials.

mod authorization;
mod blob;
mod catalog;
mod challenge;
mod client;
mod docker_config;
mod endpoint;
mod flow;
mod foreign;
#[cfg(any(test, fuzzing))]
pub mod fuzzed;
mod hosts;
mod http;
mod paging;
mod pieces;
mod proxy;
mod push;
mod reference;
mod request_log;
mod retry;
mod tls;

pub(crate) use authorization::{CredentialSource, Credentials, NoCredentials};
pub use catalog::{Referrer, list_referrers, list_tags};
pub(crate) use client::{Client, MAX_MANIFEST, Options};
pub(crate) use docker_config::DockerConfig;
pub(crate) use pieces::Pieces;
pub(crate) use push::{Content, Pushed};
pub(crate) use reference::Reference;
pub(crate) use request_log::RequestLog;

#[cfg(test)]
mod tests;
