//! The harness of the tests that cross a seam: real daemons, real clients, a real registry, a real second kernel.
//!
//! A test owns a [`Scratch`] directory; whatever it starts keeps its state below it, so several tests run side by
//! side and [`leftovers`] can tell whose mount, cgroup or process was left behind. Daemons are guards: dropping one ends
//! that process, by pid. Nothing here sleeps and hopes: [`eventually()`] polls a condition until a deadline.
//!
//! Architecture invariants: nothing here is faked (no recorded calls, no stand-in for the kernel), and nothing here
//! skips: where root or a peer is missing, the test fails and says what to install.

pub mod binaries;
pub mod bundle;
pub mod containerd;
pub mod daemon;
pub mod dockerd;
pub mod eventually;
pub mod guest;
pub mod image;
pub mod leftovers;
pub mod output;
pub mod pair;
pub mod registry;
pub mod scratch;
pub mod wharf;

pub use eventually::eventually;
pub use output::{Finished, run};
pub use scratch::Scratch;
