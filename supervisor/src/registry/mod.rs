//! Registries: resolve, authorise and fetch, by the OCI distribution specification.
//!
//! ```text
//! Client ── resolve ──► descriptor        HEAD (GET where HEAD says too little)
//!   │  ──── manifest ──► bytes            at most 4 MiB, digest and size checked here
//!   │  ──── blob ──────► chunks, in order resumed by range; digest and size are checked by whoever writes them
//!   ├─ authorization: challenge → credentials → token, kept for this registry and repository only
//!   └─ http: TLS, redirects, time-outs, retries
//! ```
//!
//! The invariants:
//!
//! - Credentials and tokens go to the registry that was asked for and to the token service it names, to no host that a
//!   redirect or a manifest names. A token service on plain HTTP gets credentials only from a registry on plain HTTP.
//! - Plain HTTP is spoken with loopback addresses and where the caller asks for it, never as a fall-back.
//! - `urls` of foreign layers are not fetched.
//!
//! Pushing is not here yet; the Transfer service refuses it by name.

mod authorization;
mod blob;
mod challenge;
mod client;
mod http;
mod reference;
mod retry;

pub(crate) use authorization::{CredentialSource, Credentials, NoCredentials};
pub(crate) use client::{Client, MAX_MANIFEST, Options};
pub(crate) use reference::Reference;

#[cfg(test)]
mod tests;
