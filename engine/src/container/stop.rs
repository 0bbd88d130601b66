//! Signals, stopping, freezing, and waiting.

use super::config::signal;
use super::record::Phase;
use super::store::{Container, Progress};
use crate::engine::Engine;
use crate::error::{Error, Kind, Result};
use std::sync::Arc;
use std::time::Duration;

/// Seconds between the stop signal and SIGKILL when nobody says otherwise.
const DEFAULT_TIMEOUT: i64 = 10;

/// What a waiting client waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// That it does not run: at once when it does not.
    NotRunning,
    /// That it ends once more.
    NextExit,
    /// That it is gone.
    Removed,
}

impl Engine {
    /// Sends a signal to a container's process. SIGKILL returns when the process has ended.
    ///
    /// # Errors
    ///
    /// It is not running.
    pub async fn kill_container(&self, container: &Container, number: u32) -> Result<()> {
        if !container.is_running() {
            let message = format!(
                "cannot kill container: {}: {}",
                container.id,
                container.not_running()
            );
            return Err(Error::conflict(message));
        }
        if number == signal::KILL {
            self.thaw(container).await?;
        }
        let mut progress = container.watch();
        let ends = progress.borrow_and_update().ends;
        match self.client.kill(&container.id, "", number, false).await {
            Ok(()) => {}
            Err(error) if error.is_not_found() => return Err(container.not_running()),
            Err(error) => return Err(error.into()),
        }
        self.publish(container, "kill", &[("signal", number.to_string())]);
        if number == signal::KILL {
            until(&mut progress, |progress| progress.ends > ends || progress.removed).await;
        }
        Ok(())
    }

    /// Sends the stop signal, waits, and kills.
    ///
    /// # Errors
    ///
    /// [`Kind::NotModified`] when it is not running.
    pub async fn stop_container(
        &self,
        container: &Container,
        signal: Option<u32>,
        timeout: Option<i64>,
    ) -> Result<()> {
        if !container.is_running() {
            return Err(Error::new(Kind::NotModified, "container already stopped"));
        }
        let (configured, seconds) =
            container.with_record(|record| (record.config.stop_signal.clone(), record.config.stop_timeout));
        let number = match signal {
            Some(number) => number,
            None if configured.is_empty() => signal::TERM,
            // The image's word: what is none is the default, as in Docker.
            None => signal::parse(&configured).unwrap_or(signal::TERM),
        };
        self.thaw(container).await?;
        let mut progress = container.watch();
        let ends = progress.borrow_and_update().ends;
        match self.client.kill(&container.id, "", number, false).await {
            Err(error) if !error.is_not_found() => return Err(error.into()),
            _ => {}
        }
        let ended = |progress: &Progress| progress.ends > ends || progress.removed;
        let patience = timeout.or(seconds).unwrap_or(DEFAULT_TIMEOUT);
        match u64::try_from(patience) {
            Ok(seconds) => {
                let limit = Duration::from_secs(seconds);
                if tokio::time::timeout(limit, until(&mut progress, ended))
                    .await
                    .is_err()
                {
                    self.kill_container(container, signal::KILL)
                        .await
                        .or_else(|error| match error.kind() {
                            Kind::Conflict => Ok(()),
                            _ => Err(error),
                        })?;
                    until(&mut progress, ended).await;
                }
            }
            // Negative: for ever.
            Err(_) => until(&mut progress, ended).await,
        }
        self.publish(container, "stop", &[]);
        Ok(())
    }

    /// Stops a container if it runs, and starts it.
    ///
    /// # Errors
    ///
    /// As those two.
    pub async fn restart_container(
        self: &Arc<Self>,
        container: &Arc<Container>,
        signal: Option<u32>,
        timeout: Option<i64>,
    ) -> Result<()> {
        if container.with_record(|record| record.host.auto_remove) && container.is_running() {
            return Err(Error::conflict(
                "cannot restart a container that is removed when it ends",
            ));
        }
        match self.stop_container(container, signal, timeout).await {
            Err(error) if error.kind() != Kind::NotModified => return Err(error),
            _ => {}
        }
        self.start_container(container).await?;
        self.publish(container, "restart", &[]);
        Ok(())
    }

    /// Freezes a container's processes.
    ///
    /// # Errors
    ///
    /// It is not running, or frozen already.
    pub async fn pause_container(&self, container: &Container) -> Result<()> {
        let _lifecycle = container.lifecycle.lock().await;
        match container.with_record(|record| record.state.phase) {
            Phase::Running => {}
            Phase::Paused => {
                return Err(Error::conflict(format!(
                    "container {} is already paused",
                    container.id
                )));
            }
            _ => return Err(container.not_running()),
        }
        self.client.pause(&container.id).await?;
        container.update(|record| record.state.phase = Phase::Paused)?;
        self.publish(container, "pause", &[]);
        Ok(())
    }

    /// Thaws a container's processes.
    ///
    /// # Errors
    ///
    /// It is not frozen.
    pub async fn unpause_container(&self, container: &Container) -> Result<()> {
        let _lifecycle = container.lifecycle.lock().await;
        if container.with_record(|record| record.state.phase) != Phase::Paused {
            return Err(Error::conflict(format!(
                "container {} is not paused",
                container.id
            )));
        }
        self.client.resume(&container.id).await?;
        container.update(|record| record.state.phase = Phase::Running)?;
        self.publish(container, "unpause", &[]);
        Ok(())
    }

    // A frozen process takes no signal.
    async fn thaw(&self, container: &Container) -> Result<()> {
        if container.with_record(|record| record.state.phase) == Phase::Paused {
            self.unpause_container(container).await?;
        }
        Ok(())
    }
}

/// Waits for a condition and returns the exit status. Begins to watch before it is first polled.
pub fn wait(container: &Container, condition: Condition) -> impl Future<Output = i64> + Send + 'static {
    let mut progress = container.watch();
    let ends = progress.borrow_and_update().ends;
    async move {
        let reached = |progress: &Progress| match condition {
            Condition::NotRunning => !progress.running || progress.ends > ends,
            Condition::NextExit => progress.ends > ends || progress.removed,
            Condition::Removed => progress.removed,
        };
        until(&mut progress, reached).await;
        progress.borrow().exit_code
    }
}

async fn until(progress: &mut tokio::sync::watch::Receiver<Progress>, reached: impl Fn(&Progress) -> bool) {
    // The sender lives in the container; when that is forgotten, there is nothing more to wait for.
    progress.wait_for(|progress| reached(progress)).await.ok();
}
