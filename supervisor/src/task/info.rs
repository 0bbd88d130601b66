//! What a runtime says of itself: `containerd-shim-… -info`.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tokio::process::Command;
use wharf_proto::containerd::types::{RuntimeInfo, RuntimeRequest};

use super::{Tasks, blocking, runtime_name, spawn};
use crate::error::{Error, Kind, Result};

/// How long a shim may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The runtime that is meant when none is named.
const DEFAULT: &str = "io.containerd.runc.v2";

impl Tasks {
    /// Asks the shim of a runtime, given its options, what it is.
    ///
    /// # Errors
    ///
    /// `Unknown`: there is no such shim, it fails, takes longer than 30 s, or answers with something else.
    pub async fn runtime_info(&self, request: RuntimeRequest) -> Result<RuntimeInfo> {
        let runtime = match request.runtime_path.as_str() {
            "" => DEFAULT.to_owned(),
            named => named.to_owned(),
        };
        let (own, opt) = (self.own_shim.clone(), Arc::clone(&self.daemon.opt));
        let shim = blocking(move || runtime_name::shim(&runtime, own.as_deref(), &opt)).await;
        let shim = shim.map_err(|error| error.context("failed to resolve runtime path"))?;
        let failed = |error: Error| error.context(format!("{} -info", shim.display()));
        let mut command = Command::new(&shim);
        command
            .arg("-info")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        self.daemon.describe(&mut command);
        let mut child = command.spawn().map_err(|error| failed(Error::io("run", error)))?;
        let (Some(output), errors) = (child.stdout.take(), child.stderr.take()) else {
            return Err(failed(Error::new(Kind::Unknown, "no pipe")));
        };
        let input = request
            .options
            .map(|options| options.encode_to_vec())
            .unwrap_or_default();
        let (status, output, errors) =
            tokio::time::timeout(PATIENCE, spawn::finish(child, Some(input), output, errors))
                .await
                .map_err(|_| {
                    failed(Error::new(
                        Kind::Unknown,
                        format!("no answer within {PATIENCE:?}"),
                    ))
                })?
                .map_err(|error| failed(Error::io("run", error)))?;
        if !status.success() {
            let said = String::from_utf8_lossy(&errors);
            return Err(failed(Error::new(
                Kind::Unknown,
                format!("{}: {status}", said.trim()),
            )));
        }
        RuntimeInfo::decode(output.as_slice())
            .map_err(|error| failed(Error::unknown("decode its answer", error)))
    }
}
