//! Tasks: shims and their supervision.
