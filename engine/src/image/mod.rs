//! Images: names, what an image says, pull, import, list, removal.
//!
//! The rows and blobs are the supervisor's; layer bytes never pass through here, but for archives of the caller's own.

pub mod import;
pub mod pull;
pub mod reference;
pub mod store;
