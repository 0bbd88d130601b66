//! The Transfer service.
