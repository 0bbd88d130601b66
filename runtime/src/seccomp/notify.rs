//! Handing the listener of a filter to the agent that answers its notices.
//!
//! The protocol is that of the OCI runtime specification ("The Container Process State"): connect to `listenerPath`, send
//! one document with the descriptor beside the first byte, close. A path is a path: no abstract socket is meant by it.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use crate::spec::oci::LinuxSeccomp;
use serde_json::json;

use crate::{Error, State, handover};

/// Who listens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Agent {
    /// Its listening stream socket.
    pub path: PathBuf,
    /// Passed on as it is.
    pub metadata: String,
}

impl Agent {
    /// The agent that a profile names.
    pub(crate) fn of(profile: &LinuxSeccomp) -> Self {
        Self {
            path: profile.listener_path.clone(),
            metadata: profile.listener_metadata.clone(),
        }
    }

    /// Sends the listener of process `pid` of the container in `state`; this process's copy is closed. Blocks until the agent's
    /// socket has taken it, not until the agent has.
    pub(crate) fn send(&self, listener: OwnedFd, pid: i32, state: &State) -> Result<(), Error> {
        let mut container = json!({
            "ociVersion": state.oci_version,
            "id": state.id,
            "status": state.status,
            "pid": state.pid,
            "bundle": state.bundle,
        });
        if !state.annotations.is_empty() {
            container["annotations"] = json!(state.annotations);
        }
        let mut document = json!({
            "ociVersion": state.oci_version,
            "fds": ["seccompFd"],
            "pid": pid,
            "state": container,
        });
        if !self.metadata.is_empty() {
            document["metadata"] = json!(self.metadata);
        }
        let document = document.to_string();
        let path = self.path.display();
        let socket = handover::connect(&self.path).map_err(|cause| {
            let operation = "failed to connect with seccomp agent specified in the seccomp profile";
            Error::io(format!("{operation}: dial unix {path}"), cause)
        })?;
        handover::send(&socket, document.as_bytes(), &listener)
            .map_err(|cause| Error::io(format!("cannot send seccomp fd to {path}"), cause))
    }
}
