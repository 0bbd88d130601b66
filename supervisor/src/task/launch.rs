//! Bringing up a shim for a bundle: what tasks and sandboxes have in common.

use std::path::{Path, PathBuf};
use std::pin::pin;

use prost_types::Any;
use wharf_proto::any;
use wharf_proto::containerd::runc::v1::Options;

use super::bundle::{Bootstrap, Bundle};
use super::create::Creation;
use super::fork_server::Said;
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
        let executable = runtime_name::shim(runtime, self.own_shim.as_deref(), &self.daemon.opt)
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
        let (shim, _) = self.launch(invocation, runtime, options, None).await?;
        Ok(shim)
    }

    /// As [`Tasks::bring_up`] for the shim of a task, and creates that; the second half of the answer tells what came of it. A
    /// shim that is forked is asked before it serves.
    ///
    /// # Errors
    ///
    /// As [`Tasks::bring_up`].
    pub(super) async fn bring_up_and_create(
        &self,
        invocation: Invocation<'_>,
        runtime: &str,
        creation: &Creation,
    ) -> Result<(Shim, Result<u32>)> {
        let options = creation.request.options.as_ref();
        match self.launch(invocation, runtime, options, Some(creation)).await? {
            (shim, Some(created)) => Ok((shim, created)),
            (shim, None) => {
                let created = creation.ask(&shim).await;
                Ok((shim, created))
            }
        }
    }

    async fn launch(
        &self,
        invocation: Invocation<'_>,
        runtime: &str,
        options: Option<&Any>,
        creation: Option<&Creation>,
    ) -> Result<(Shim, Option<Result<u32>>)> {
        let (namespace, id) = (invocation.namespace, invocation.id);
        let failed = |error: Error| error.context("failed to start shim");
        if runtime_name::is_own(runtime) && !needs_start(options) {
            match self.fork(invocation, creation).await {
                Ok(forked) => return Ok(forked),
                // The long way words the error, if it is one of the bundle's.
                Err(error) => {
                    tracing::debug!(namespace, container_id = id, %error, "shim not forked");
                }
            }
        }
        let log = shim_log::open(invocation.bundle).map_err(failed)?;
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
                return Ok((shim, None));
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

    /// A shim forked for `invocation`, or the one of its group; and what came of the creation, if it was asked already. The shim
    /// writes down in the bundle where it serves.
    async fn fork(
        &self,
        invocation: Invocation<'_>,
        creation: Option<&Creation>,
    ) -> Result<(Shim, Option<Result<u32>>)> {
        let (namespace, id) = (invocation.namespace, invocation.id);
        let log = shim_log::open(invocation.bundle)?;
        let (newborn, connection) = self.fork_server.fork(invocation)?;
        let shim = Shim::over(connection)?;
        shim_log::follow(log, namespace, id, &shim);
        let report = self.fork_server.hear(newborn);
        let (said, created) = match creation {
            None => (report.await, None),
            Some(creation) => ask_early(&shim, creation, report).await,
        };
        match said? {
            Said::New(address) => Ok((shim.serves_at(address), created)),
            Said::Group(address) => {
                let bootstrap = Bootstrap {
                    version: 3,
                    address,
                    protocol: "ttrpc".to_owned(),
                };
                invocation.bundle.set_bootstrap(&bootstrap)?;
                let shim = Shim::connect(&bootstrap)
                    .await?
                    .map_err(|error| Error::unknown("connect", error))?;
                shim_log::follow(shim_log::open(invocation.bundle)?, namespace, id, &shim);
                Ok((shim, None))
            }
        }
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

/// Asks a shim that is not there yet, which reads the request when it serves; it says that before it answers. If it does not
/// come to serve, nobody has read it.
async fn ask_early(
    shim: &Shim,
    creation: &Creation,
    report: impl Future<Output = Result<Said>>,
) -> (Result<Said>, Option<Result<u32>>) {
    let (mut asked, mut report) = (pin!(creation.ask(shim)), pin!(report));
    let said = tokio::select! {
        biased;
        created = &mut asked => return (report.await, Some(created)),
        said = &mut report => said,
    };
    match said {
        Ok(Said::New(_)) => (said, Some(asked.await)),
        _ => (said, None),
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
