//! The supervisor in this process: opened, served on its socket, ended.

use super::Client;
use crate::error::Error;
use std::path::PathBuf;
use std::time::Duration;

/// The supervisor in this process. Dropping it ends it; containers go on.
#[derive(Debug)]
pub struct Embedded {
    stop: tokio_util::sync::CancellationToken,
    served: tokio::task::JoinHandle<Result<(), wharf_supervisor::Error>>,
    address: PathBuf,
    routes: tonic::service::Routes,
}

impl Embedded {
    /// Opens the supervisor's stores and serves its API on the socket `address`, for this engine and for everyone else
    /// who speaks containerd's API.
    ///
    /// # Errors
    ///
    /// Another process has the root open, or the socket cannot be made.
    pub async fn start(root: PathBuf, state: PathBuf, address: PathBuf) -> Result<Self, Error> {
        let failed = |error: wharf_supervisor::Error| Error::system(format!("start the supervisor: {error}"));
        let config = wharf_supervisor::Config {
            root,
            state,
            address: address.clone(),
            ..Default::default()
        };
        config.validate().map_err(failed)?;
        let supervisor = wharf_supervisor::Supervisor::open(config).await.map_err(failed)?;
        let listener = wharf_supervisor::Supervisor::listen(&address)
            .await
            .map_err(failed)?;
        let routes = supervisor.routes();
        let stop = tokio_util::sync::CancellationToken::new();
        let served = tokio::spawn(supervisor.serve(vec![listener], stop.clone().cancelled_owned()));
        Ok(Self {
            stop,
            served,
            address,
            routes,
        })
    }

    /// A client of this supervisor that needs no connection. Waits at most `limit` until the supervisor serves, and its
    /// state is in order.
    ///
    /// # Errors
    ///
    /// It does not in time.
    pub async fn client(&self, limit: Duration) -> Result<Client, Error> {
        Client::new(&self.address).ready(limit).await?;
        Ok(Client::in_process(self.routes.clone()))
    }

    /// Completes when the supervisor ends, which it does by itself only when it fails.
    pub async fn ended(&mut self) -> Error {
        match (&mut self.served).await {
            Ok(Ok(())) => Error::system("the supervisor ended"),
            Ok(Err(error)) => Error::system(format!("the supervisor ended: {error}")),
            Err(error) => Error::system(format!("the supervisor ended: {error}")),
        }
    }

    /// Ends the supervisor and removes its socket.
    ///
    /// # Errors
    ///
    /// It had failed, or the socket cannot be removed.
    pub async fn stop(self) -> Result<(), Error> {
        self.stop.cancel();
        let served = match self.served.await {
            Ok(served) => served.map_err(|error| Error::system(format!("stop the supervisor: {error}"))),
            Err(error) => Err(Error::system(format!("stop the supervisor: {error}"))),
        };
        let removed = match std::fs::remove_file(&self.address) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove", &self.address, error))
            }
            _ => Ok(()),
        };
        served.and(removed)
    }
}
