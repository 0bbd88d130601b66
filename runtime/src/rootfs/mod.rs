//! Building a root file system, in the child half.
//!
//! The root file system is hostile: every path in it is opened beneath its root descriptor, mounts are made detached and
//! attached to the descriptor that was checked, never to a path.

mod copy;
mod detached;
mod device;
mod mask;
mod mount;
mod mountpoint;
mod pivot;
mod place;

pub(crate) use detached::{Maker, STAGE, attach, set_attributes};
pub(crate) use device::{make_device, make_link};
pub(crate) use mask::{mask, read_only};
pub(crate) use mount::{Site, ask_for, attach_root, perform};
pub(crate) use mountpoint::make_mountpoint;
pub(crate) use pivot::{Way, change_root, hide_whole, isolate_parent};
pub(crate) use place::Parents;
