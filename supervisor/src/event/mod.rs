//! The event log: what changed, in one order, for whoever wants to know.
//!
//! Every change in content, images, snapshots, containers and tasks is appended to one [`Exchange`] with a sequence
//! number. Subscribers read it from where they like, filtered. It lives in memory and is bounded: a subscriber that
//! falls behind the oldest kept entry is told how much it missed, and asks the stores for the state it missed.
//!
//! Architecture invariant: events are hints. Nothing in the supervisor learns a state from them alone, and publishing
//! waits for nobody.

pub mod check;
mod exchange;
mod field;

pub use exchange::{Entry, Exchange, Start, Subscription};
