//! What must not work: known escapes from containers, each tried on ours with something to lose on the host.
//!
//! A test looks at what could be lost before and after, and makes sure that the attack was really made. Tests bear the
//! name of the CVE whose way they go, or of what it led to here.

mod affected_peer;
mod attack;
mod exhaustion;
mod identity;
mod names;
mod own_binary;
mod procfs;
mod rootfs;
mod seccomp;
mod trace;
