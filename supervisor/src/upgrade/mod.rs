//! Live upgrade: a new daemon takes the sockets, and then the stores, from the one that runs.
//!
//! ```text
//!  the new one                              the old one
//!  take-over {protocol}                ──►  (control.sock in the state directory: mode 0600, peer of the same user)
//!                                      ◄──  offer {root, sockets} + the listening sockets
//!  accept                              ──►  accepts no more connections, ends what waits with Unavailable,
//!                                           gives calls in progress five seconds, then executes itself anew as a
//!                                           stand-by: nothing is open any more but the sockets and this connection
//!                                      ◄──  yours + the events that nobody has heard yet
//!  opens the stores, reconciles, serves
//!  serving {pid}                       ──►  tells systemd, exits
//! ```
//!
//! Clients that connect meanwhile wait in the sockets' queues: the sockets are never closed.
//!
//! Architecture invariants:
//!
//! - The root's lock says whose the stores are; no message does. Whoever finds the other side dead takes the lock and
//!   serves: the stand-by when its successor dies before it has said `serving`, the new daemon when the old one dies at any
//!   moment.
//! - The old daemon gives up its stores by `execve`, as kill -9 would: nothing it holds can linger, and a store that
//!   survives the one survives the other.
//! - A successor that will not do (another root, an unknown protocol) is found out before anything was given up.

mod channel;
mod control;
mod events;
mod standby;
mod successor;

use std::{collections::BTreeMap, ffi::OsString, os::fd::OwnedFd, path::PathBuf};

pub use control::Control;
pub use standby::{Outcome, Standby};
pub use successor::{Predecessor, request_upgrade, take_over};

/// The version of the conversation. Another one is refused.
const PROTOCOL: u32 = 1;
/// The most sockets that are handed over.
const MAX_SOCKETS: usize = 16;
/// The flag that makes a daemon the successor of the one that runs.
const TAKE_OVER_FLAG: &str = "--takeover";
/// The flag that a stand-by is started with; its value is in the same argument.
const STANDBY_FLAG: &str = "--standby=";

/// Listening sockets by the name of what they listen on: `unix:/run/wharf/wharfd.sock`, `tcp:127.0.0.1:1338`.
pub type Sockets = BTreeMap<String, OwnedFd>;

/// The arguments this process was started with, without those that speak of a hand-over.
fn own_arguments() -> Vec<OsString> {
    lasting(std::env::args_os().skip(1))
}

fn lasting(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    arguments
        .filter(|argument| argument != TAKE_OVER_FLAG)
        .filter(|argument| !argument.as_encoded_bytes().starts_with(STANDBY_FLAG.as_bytes()))
        .collect()
}

/// Where the control socket is in a state directory.
pub fn address(state: &std::path::Path) -> PathBuf {
    state.join("control.sock")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hand_over_is_not_repeated_by_who_comes_after() {
        let given = ["--root", "/r", "--takeover", "--standby={}", "-l", "debug"];
        assert_eq!(
            lasting(given.iter().map(OsString::from)),
            ["--root", "/r", "-l", "debug"]
        );
    }
}
