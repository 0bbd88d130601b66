//! Tasks as Debian's `ctr` drives them: the same assertions on containerd and on `wharfd`, with our shim and with runc's.

mod events;
mod life;
mod mounts;
mod process;
mod restart;
mod sandbox;
mod subject;
