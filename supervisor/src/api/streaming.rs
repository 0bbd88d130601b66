//! The Streaming service.
