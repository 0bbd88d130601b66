//! The Tasks service.
