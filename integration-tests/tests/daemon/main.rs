//! `wharfd` as a daemon: replaced while it serves, told of by systemd, measured, and reached from other machines.

mod client;
mod control;
mod hand_over;
mod metrics;
mod restart;
mod subject;
mod systemd;
mod tls;
mod upgrade;
