//! The Diff service.
