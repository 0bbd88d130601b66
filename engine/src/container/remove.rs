//! Removing a container: process, row, snapshot, mounts, files, name, in this order.
//!
//! The row goes before the record, so a removal that is cut short is recognised at the next start and finished.

use super::config::signal;
use super::record::{Phase, Record, RootfsSource};
use super::store::Container;
use super::throwaway;
use crate::engine::{Engine, blocking};
use crate::error::{Error, Kind, Result};
use std::path::Path;

impl Engine {
    /// Removes a container; with `force` also one that runs, by SIGKILL.
    ///
    /// # Errors
    ///
    /// It runs and `force` is not given; or something cannot be removed: it is `dead` then, and can be removed again.
    pub async fn remove_container(&self, container: &Container, force: bool) -> Result<()> {
        if container.is_running() {
            if !force {
                let name = container.with_record(|record| record.name.clone());
                return Err(Error::conflict(format!(
                    "cannot remove container \"/{name}\": container is running: stop the container before removing or force remove"
                )));
            }
            match self.kill_container(container, signal::KILL).await {
                // It ended by itself meanwhile.
                Err(error) if error.kind() != Kind::Conflict => return Err(error),
                _ => {}
            }
        }
        let _lifecycle = container.lifecycle.lock().await;
        if container.watch().borrow().removed {
            return Ok(());
        }
        if container.is_running() {
            return Err(Error::conflict(format!(
                "container {} was started meanwhile",
                container.id
            )));
        }
        if let Err(error) = self.remove_parts(container).await {
            // The directory may be gone; what is remembered in memory is what counts until the next start.
            container.update(|record| record.state.phase = Phase::Dead).ok();
            return Err(error);
        }
        self.containers.remove(container);
        container.stdio.finish().await;
        container.announce(|progress| progress.removed = true);
        self.publish(container, "destroy", &[]);
        Ok(())
    }

    /// Removes everything of a container but its place in memory. What is gone already is fine.
    ///
    /// # Errors
    ///
    /// A part that cannot be removed.
    pub async fn remove_parts(&self, container: &Container) -> Result<()> {
        let dies_with_boot = container.with_record(Record::dies_with_boot);
        self.client
            .delete_container(&container.id, dies_with_boot)
            .await?;
        match container.with_record(|record| record.rootfs.clone()) {
            RootfsSource::Snapshot { snapshotter } => {
                self.client.remove_snapshot(&snapshotter, &container.id).await?;
            }
            RootfsSource::Directory { .. } => {
                let (state, id) = (self.state.clone(), container.id.clone());
                blocking(move || throwaway::remove(&state, &id)).await?;
            }
        }
        remove_tree(&container.log_directory)?;
        remove_tree(&container.run_directory)
    }
}

/// Removes a directory and everything in it; one that is gone is fine.
///
/// # Errors
///
/// Something in it cannot be removed.
pub fn remove_tree(directory: &Path) -> Result<()> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", directory, error))
        }
        _ => Ok(()),
    }
}
