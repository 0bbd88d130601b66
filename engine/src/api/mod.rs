//! The Docker Engine REST API: its JSON shapes, the framing of its streams, and its server.
//!
//! Owns everything that is Docker's wire format. Refuses: decisions about containers and images, which the rest of the
//! engine makes in its own types.

pub mod client;
pub mod refuse;
pub mod server;
pub mod stdcopy;
pub mod types;
