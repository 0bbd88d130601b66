//! What `wharfd` acknowledged outlives `kill -9`, a full disk, failing flushes and power loss, wherever they strike.
//!
//! One whole life ([`life`]: pull, unpack, create, start, exec, exit, delete, collection of garbage) is run once to count its
//! points; then, once for each point, again from nothing with a fault there. After each fault [`check`] compares what is
//! there with what was acknowledged, `wharfd fsck` tells of leftovers, and the life goes on with a second try of the very
//! call that the fault struck.
//!
//! How many points a run takes is bounded for the gate, evenly spread; `WHARF_POINTS` takes more of them ([`points`]).

mod call;
mod check;
mod device;
mod disk;
mod fsck;
mod gate;
mod instance;
mod kill;
mod life;
mod pod;
mod points;
mod power;
mod store;
mod subject;
mod upgrade;
