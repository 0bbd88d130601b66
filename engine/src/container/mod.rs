//! Containers: their configuration, records, life cycle, output and further processes.
//!
//! ```text
//! create ──► start ──► (exit noticed by the one task that waits for it) ──► remove
//!              │                    ▲
//!            exec, stop, kill ──────┘        reconcile: the same from what is found at the start of the daemon
//! ```
//!
//! One operation at a time changes a container ([`store::Container::lifecycle`]); no lock is held over containers, so
//! starts do not wait for each other.

pub mod config;
pub mod create;
pub mod exec;
pub mod log;
pub mod name;
pub mod network_files;
pub mod reconcile;
pub mod record;
pub mod remove;
pub mod runtime;
pub mod start;
pub mod stdio;
pub mod stop;
pub mod store;
pub mod throwaway;
