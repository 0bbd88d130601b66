//! The Events service.
