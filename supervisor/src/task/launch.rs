//! Bringing up a shim for a bundle: what tasks and sandboxes have in common.

use std::path::{Path, PathBuf};

use prost_types::Any;
use wharf_proto::any;
use wharf_proto::containerd::runc::v1::Options;

use super::bundle::{Bootstrap, Bundle};
use super::fork_server::Forked;
use super::shim::Shim;
use super::spawn::Invocation;
use super::{Tasks, blocking, runtime_name, shim_log};
use crate::error::{Error, Result};

impl Tasks {
    /// Makes `bundle` with `spec` for a shim of `runtime`; gives the shim's executable. On failure nothing is left.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for a spec that is none; `Unknown` when there is no such shim.
    pub async fn furnish(&self, bundle: &Bundle, runtime: &str, spec: &[u8]) -> Result<PathBuf> {
        // Some calls into memory, for which no other thread is woken: a client waits.
        let executable = runtime_name::shim(runtime, self.own_shim.as_deref())
            .map_err(|error| error.context("failed to start shim: failed to resolve runtime path"))?;
        prepare(bundle, spec).await?;
        if let Err(error) = bundle.set_shim(&executable) {
            let removal = bundle.clone();
            return Err(match blocking(move || removal.remove()).await {
                Ok(()) => error,
                Err(undo) => error.context(format!("(not undone: {undo})")),
            });
        }
        Ok(executable)
    }

    /// Brings up the shim and connects to it: ours by a fork if that works, any other as containerd does.
    ///
    /// # Errors
    ///
    /// `Unknown`: it cannot be started. No shim is left then; the bundle is.
    pub async fn bring_up(
        &self,
        invocation: Invocation<'_>,
        runtime: &str,
        options: Option<&Any>,
    ) -> Result<Shim> {
        let (namespace, id) = (invocation.namespace, invocation.id);
        let failed = |error: Error| error.context("failed to start shim");
        let log = shim_log::open(invocation.bundle).map_err(failed)?;
        if runtime_name::is_own(runtime) && !needs_start(options) {
            match fork(self, invocation).await {
                Ok(shim) => {
                    shim_log::follow(log, namespace, id, &shim);
                    return Ok(shim);
                }
                // The long way words the error, if it is one of the bundle's.
                Err(error) => {
                    tracing::debug!(namespace, container_id = id, %error, "shim not forked");
                }
            }
        }
        let bootstrap = invocation.start(options).await.map_err(failed)?;
        let noted = {
            let (bundle, bootstrap) = (invocation.bundle.clone(), bootstrap.clone());
            blocking(move || bundle.set_bootstrap(&bootstrap)).await
        };
        let connected = match noted {
            Ok(()) => Shim::connect(&bootstrap).await,
            Err(error) => Err(error),
        };
        let error = match connected {
            Ok(Ok(shim)) => {
                shim_log::follow(log, namespace, id, &shim);
                return Ok(shim);
            }
            Ok(Err(error)) => Error::unknown("connect", error),
            Err(error) => error,
        };
        // A shim may be running that nobody can talk to.
        if let Err(cleanup) = invocation.delete().await {
            tracing::warn!(namespace, container_id = id, error = %cleanup, "clean-up after failed start");
        }
        Err(failed(error))
    }

    /// Takes down what a dead shim left of a bundle, and the bundle. What cannot be removed now is removed when the id is
    /// used again, or when the daemon starts.
    pub async fn clear(&self, namespace: &str, id: &str, bundle: &Bundle, executable: &Path) {
        if let Err(error) = self.invocation(namespace, id, bundle, executable).delete().await {
            tracing::warn!(namespace, container_id = id, %error, "shim delete failed");
        }
        self.remove_bundle(bundle).await;
    }
}

/// Whether the options are for the shim's `start`, which alone reads them.
fn needs_start(options: Option<&Any>) -> bool {
    let Some(options) = options else { return false };
    // What cannot be read is refused by the shim in its own words.
    !matches!(any::unpack::<Options>(options), Ok(Some(options)) if options.shim_cgroup.is_empty())
}

/// A shim forked for `invocation`, or the one of its group. The shim writes down in the bundle where it serves.
async fn fork(tasks: &Tasks, invocation: Invocation<'_>) -> Result<Shim> {
    match tasks.fork_server.fork(invocation).await? {
        Forked::New(address, connection) => Shim::over(address, connection),
        Forked::Group(address) => {
            let bootstrap = Bootstrap {
                version: 3,
                address,
                protocol: "ttrpc".to_owned(),
            };
            invocation.bundle.set_bootstrap(&bootstrap)?;
            Shim::connect(&bootstrap)
                .await?
                .map_err(|error| Error::unknown("connect", error))
        }
    }
}

/// Makes the bundle. One that nobody owns is what an earlier removal could not finish.
async fn prepare(bundle: &Bundle, spec: &[u8]) -> Result<()> {
    match bundle.create(spec) {
        Err(error) if error.is_already_exists() => {
            let removal = bundle.clone();
            blocking(move || removal.remove()).await?;
            bundle.create(spec)
        }
        done => done,
    }
}
