//! Metrics for Prometheus: `GET /v1/metrics`, with containerd's names and labels.
//!
//! ```text
//! scrape ─► server ─┬► containers   each task's shim is asked, side by side, two seconds at most
//!                   ├► calls        what was counted of the API's calls
//!                   └► process      /proc/self
//! ```
//!
//! Off unless an address is configured: calls are not counted then. Nothing is collected between scrapes but the counters
//! of calls. Served over plain HTTP without a word of who asks: the address should be one of loopback or of a network that
//! may know.

mod calls;
mod cgroup_v1;
mod cgroup_v2;
mod containers;
mod process;
mod server;
mod text;

pub use calls::{Calls, Counting};
pub use server::serve;

/// Adds families of one sample each: name, meaning, value.
macro_rules! ones {
    ($families:ident, $container:ident, $($name:literal, $help:literal, $value:expr;)*) => {
        $($families.one($container, concat!("container_", $name), $help, $value);)*
    };
}

pub(super) use ones;
