//! Sandboxes: pods that exist beside their containers.
//!
//! ```text
//! api/sandboxes ─┬► record       rows: what a client says a sandbox is
//!                └► Controller ──► task's launch ──► shim (ttrpc, the sandbox service)
//! api/tasks ──────► Controller::endpoint: the shim in which a sandbox's containers are made
//! ```
//!
//! Records and running sandboxes know nothing of each other, as in containerd: the client makes one after the other.
//!
//! Architecture invariants:
//!
//! - A running sandbox's bundle is owned by an entry of the controller's table, or by its reconciliation.
//! - The end of a sandbox is published once.
//! - There is one controller, `shim`: others are refused by name.

mod controller;
mod record;

pub use controller::{Controller, Create};
pub use record::{create, delete, get, list, update};
