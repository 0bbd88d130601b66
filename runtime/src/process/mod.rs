//! The parent's half of making a process: the clone, the conversation with the child half, the start gate.

mod conversation;
pub(crate) mod gate;
mod identity;
mod spawn;
mod streams;

pub(crate) use conversation::{Conversation, Heard};
pub(crate) use identity::{is_alive, open_pidfd, parent, reap, start_time, wait_exit};
pub(crate) use spawn::{Early, Groups, Request, Spawned, join_list, open_joins, spawn};
pub(crate) use streams::Streams;
