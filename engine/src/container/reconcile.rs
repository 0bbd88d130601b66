//! Coming back: what the daemon finds when it starts.
//!
//! Records tell which containers there are, tasks which of them live. A container that ended meanwhile gets its exit
//! status and time from its task; one whose task is gone is marked as lost. What was half created or half removed is
//! removed. All of it before the first request is served.

use super::record::{Phase, Record};
use super::remove::remove_tree;
use super::store::Container;
use super::throwaway;
use crate::engine::{Engine, SNAPSHOTTER, blocking};
use crate::error::{Error, Result};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

impl Engine {
    /// Loads every container and brings it in line with its task.
    ///
    /// # Errors
    ///
    /// The directory or the supervisor cannot be read. One broken record does not keep the daemon from starting: it is
    /// logged and left where it is.
    pub async fn reconcile(self: &Arc<Self>) -> Result<()> {
        let rows: BTreeSet<String> = self.client.container_ids().await?.into_iter().collect();
        let mut known = BTreeSet::new();
        let (of_boot, lasting) = (self.state.join("containers"), self.root.join("containers"));
        for (directory, id) in ids_in(&of_boot)?
            .into_iter()
            .map(|id| (&of_boot, id))
            .chain(ids_in(&lasting)?.into_iter().map(|id| (&lasting, id)))
        {
            let place = directory.join(&id);
            match Record::load(&place) {
                Ok(Some(record)) if record.id == id => {
                    let container = Arc::new(Container::new(record, &self.root, &self.state));
                    if rows.contains(&id) {
                        known.insert(id);
                        self.adopt(&container).await?;
                    } else {
                        self.remove_parts(&container).await?;
                    }
                }
                // The log of a container of this boot; or what is left of one that is gone.
                Ok(None) if *directory == lasting && !known.contains(&id) => remove_tree(&place)?,
                // The files of this boot of a container that lasts: swept below, if it is not known.
                Ok(None) => {}
                Ok(Some(_)) => tracing::error!(container_id = id, "record of another container"),
                Err(error) => {
                    known.insert(id.clone());
                    tracing::error!(container_id = id, %error, "record cannot be read");
                }
            }
        }
        for id in rows.difference(&known).filter(|id| is_id(id)) {
            tracing::info!(container_id = id, "removing what is left of a creation");
            self.client.delete_task(id).await?;
            self.client.delete_container(id, false).await?;
        }
        for key in self.client.snapshot_keys(SNAPSHOTTER).await? {
            if is_id(&key) && !known.contains(&key) {
                self.client.remove_snapshot(SNAPSHOTTER, &key).await?;
            }
        }
        self.sweep_state(&known).await
    }

    async fn adopt(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        let name = container.with_record(|record| record.name.clone());
        self.containers.reserve(&name, &container.id)?;
        self.containers.insert(Arc::clone(container));
        let phase = container.with_record(|record| record.state.phase);
        match self.client.task(&container.id).await? {
            Some(task) if task.exit.is_some() => self.ended(container, task.exit).await,
            Some(task) if task.status == crate::supervisor::TaskStatus::Created => {
                // Its start was cut short, and nobody waits for it.
                self.client
                    .kill(&container.id, "", super::config::signal::KILL, true)
                    .await
                    .ok();
                self.client.delete_task(&container.id).await?;
            }
            Some(task) => {
                let paused = task.status == crate::supervisor::TaskStatus::Paused;
                container.update(|record| {
                    record.state.phase = if paused { Phase::Paused } else { Phase::Running };
                    record.state.pid = task.pid;
                    record.state.started.get_or_insert_with(jiff::Timestamp::now);
                })?;
                container.announce(|progress| progress.running = true);
                self.resume_stdio(container)?;
                self.watch_exit(container);
            }
            None if matches!(phase, Phase::Running | Phase::Paused) => self.ended(container, None).await,
            None => {}
        }
        Ok(())
    }

    fn resume_stdio(&self, container: &Container) -> Result<()> {
        let (terminal, stdin) = container.with_record(|record| (record.config.tty, record.config.open_stdin));
        container.stdio.resume(&container.run_directory, terminal, stdin)
    }

    async fn sweep_state(&self, known: &BTreeSet<String>) -> Result<()> {
        for id in ids_in(&self.state.join("containers"))? {
            if !known.contains(&id) {
                remove_tree(&self.state.join("containers").join(id))?;
            }
        }
        for id in ids_in(&self.state.join("throwaway"))? {
            if !known.contains(&id) {
                let state = self.state.clone();
                blocking(move || throwaway::remove(&state, &id)).await?;
            }
        }
        Ok(())
    }
}

fn ids_in(directory: &Path) -> Result<Vec<String>> {
    let failed = |error| Error::io("list", directory, error);
    let mut ids = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        if is_id(&name) {
            ids.push(name);
        }
    }
    ids.sort();
    Ok(ids)
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
