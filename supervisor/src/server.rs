//! Opening an instance and serving it.

use std::{future::Future, sync::Arc};

use tokio::net::UnixListener;

use crate::{
    Config, api, content,
    daemon::Daemon,
    error::{Error, Result},
    event, metadata, snapshot,
};

/// An open instance: its stores are recovered and nothing is served yet.
pub struct Supervisor {
    daemon: Arc<Daemon>,
}

impl Supervisor {
    /// Opens the instance, recovering what a crash left. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// `Unavailable` when another process has the root open; `Unknown` from the disk.
    pub async fn open(config: Config) -> Result<Self> {
        let metadata = metadata::Store::open(&config.root)?;
        let events = Arc::new(event::Exchange::new());
        let content = content::Store::open(
            &config.root.join("content"),
            Arc::clone(&metadata),
            Arc::clone(&events),
        )?;
        let overlay = snapshot::overlay::Overlay::open(&config.root.join("snapshots/overlay"))?;
        let mut snapshotters = std::collections::BTreeMap::<String, Arc<dyn snapshot::Snapshotter>>::new();
        snapshotters.insert(snapshot::DEFAULT.to_owned(), Arc::new(overlay));
        let snapshots = snapshot::Store::open(Arc::clone(&metadata), Arc::clone(&events), snapshotters)?;
        let events = Arc::new(event::Exchange::new());
        let daemon = Daemon {
            config,
            metadata,
            content,
            snapshots,
            events,
            transfer: crate::transfer::Shared::default(),
        };
        Ok(Self {
            daemon: Arc::new(daemon),
        })
    }

    /// Serves the API on `listeners` until `shutdown` completes and the calls in progress are done.
    ///
    /// # Errors
    ///
    /// `Unknown` when a listener fails.
    pub async fn serve(
        self,
        listeners: Vec<UnixListener>,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<()> {
        let stop = tokio_util::sync::CancellationToken::new();
        let mut servers = tokio::task::JoinSet::new();
        for listener in listeners {
            let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
            let routes = api::routes(&self.daemon);
            servers.spawn(
                tonic::transport::Server::builder()
                    .add_routes(routes)
                    .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned()),
            );
        }
        let watcher = tokio::spawn(async move {
            shutdown.await;
            stop.cancel();
        });
        let mut outcome = Ok(());
        while let Some(joined) = servers.join_next().await {
            let served = joined
                .map_err(|error| Error::unknown("serve", error))
                .and_then(|served| served.map_err(|error| Error::unknown("serve", error)));
            outcome = outcome.and(served);
        }
        watcher.abort();
        outcome
    }
}
