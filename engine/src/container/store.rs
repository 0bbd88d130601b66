//! The containers of the daemon in memory: by id, by name, by the first digits of an id.
//!
//! A name belongs to one container from before anything else of it exists until after everything else is gone.

use super::exec::Exec;
use super::record::{Phase, Record};
use super::stdio::Stdio;
use crate::error::{Error, Result};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// What waiting clients look at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Whether the process lives.
    pub running: bool,
    /// How often it has ended since the daemon came up; a failed start counts.
    pub ends: u64,
    /// The exit status of the last run.
    pub exit_code: i64,
    /// Whether the container is gone.
    pub removed: bool,
}

/// A container.
#[derive(Debug)]
pub struct Container {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Where its record and generated files are.
    pub directory: PathBuf,
    /// Where its log is, on disk.
    pub log_directory: PathBuf,
    /// Its directory of this boot.
    pub run_directory: PathBuf,
    /// Its output and input.
    pub stdio: Stdio,
    /// Held while it is started, stopped or removed: one such operation at a time.
    pub lifecycle: tokio::sync::Mutex<()>,
    record: Mutex<Record>,
    progress: watch::Sender<Progress>,
    execs: Mutex<BTreeMap<String, Arc<Exec>>>,
}

impl Container {
    /// A container with this record, whose directories are below `root` and `state`. One that is removed when it ends dies
    /// with the boot: only its log, which may become long, is on disk, if it ever writes to it.
    pub fn new(record: Record, root: &std::path::Path, state: &std::path::Path) -> Self {
        let progress = Progress {
            running: matches!(record.state.phase, Phase::Running | Phase::Paused),
            exit_code: record.state.exit_code,
            ..Default::default()
        };
        let log_directory = root.join("containers").join(&record.id);
        let run_directory = state.join("containers").join(&record.id);
        Self {
            id: record.id.clone(),
            directory: if record.dies_with_boot() {
                run_directory.clone()
            } else {
                log_directory.clone()
            },
            log_directory,
            run_directory,
            stdio: Stdio::default(),
            lifecycle: tokio::sync::Mutex::default(),
            record: Mutex::new(record),
            progress: watch::Sender::new(progress),
            execs: Mutex::default(),
        }
    }

    /// A copy of the record.
    pub fn record(&self) -> Record {
        lock(&self.record).clone()
    }

    /// Looks at the record without copying it.
    pub fn with_record<T>(&self, look: impl FnOnce(&Record) -> T) -> T {
        look(&lock(&self.record))
    }

    /// Changes the record in memory and on disk.
    ///
    /// # Errors
    ///
    /// The disk is full or broken; the record in memory is changed all the same: it is the truth of this moment.
    pub fn update(&self, change: impl FnOnce(&mut Record)) -> Result<()> {
        let mut record = lock(&self.record);
        change(&mut record);
        record.save(&self.directory)
    }

    /// Tells those who wait.
    pub fn announce(&self, change: impl FnOnce(&mut Progress)) {
        self.progress.send_modify(change);
    }

    /// Lets somebody wait.
    pub fn watch(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Whether its process lives.
    pub fn is_running(&self) -> bool {
        self.with_record(|record| matches!(record.state.phase, Phase::Running | Phase::Paused))
    }

    /// The log that the shim writes.
    pub fn log_path(&self) -> PathBuf {
        self.log_directory.join(format!("{}-json.log", self.id))
    }

    /// Its execs.
    pub fn execs(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Exec>>> {
        lock(&self.execs)
    }

    /// The error for an operation that needs a running container.
    pub fn not_running(&self) -> Error {
        Error::conflict(format!("container {} is not running", self.id))
    }
}

/// All containers.
#[derive(Debug, Default)]
pub struct Containers {
    index: Mutex<Index>,
}

#[derive(Debug, Default)]
struct Index {
    by_id: BTreeMap<String, Arc<Container>>,
    names: HashMap<String, String>,
}

impl Containers {
    /// Takes a name for the container `id`.
    ///
    /// # Errors
    ///
    /// Another container has it.
    pub fn reserve(&self, name: &str, id: &str) -> Result<()> {
        let mut index = lock(&self.index);
        if let Some(owner) = index.names.get(name) {
            return Err(Error::conflict(format!(
                "Conflict. The container name \"/{name}\" is already in use by container \"{owner}\". You have to remove (or rename) that container to be able to reuse that name."
            )));
        }
        index.names.insert(name.to_owned(), id.to_owned());
        Ok(())
    }

    /// Gives a name back.
    pub fn release(&self, name: &str) {
        lock(&self.index).names.remove(name);
    }

    /// Adds a container whose name is reserved.
    pub fn insert(&self, container: Arc<Container>) {
        lock(&self.index).by_id.insert(container.id.clone(), container);
    }

    /// Forgets a container and its name.
    pub fn remove(&self, container: &Container) {
        let mut index = lock(&self.index);
        index.by_id.remove(&container.id);
        index.names.retain(|_, id| *id != container.id);
    }

    /// Gives a container another name.
    ///
    /// # Errors
    ///
    /// Another container has it, or the record cannot be written; the old name stays then.
    pub fn rename(&self, container: &Container, name: &str) -> Result<()> {
        self.reserve(name, &container.id)?;
        let old = container.with_record(|record| record.name.clone());
        if let Err(error) = container.update(|record| name.clone_into(&mut record.name)) {
            container.update(|record| record.name.clone_from(&old)).ok();
            self.release(name);
            return Err(error);
        }
        self.release(&old);
        Ok(())
    }

    /// Finds a container by id, name, or the first digits of an id, in this order.
    ///
    /// # Errors
    ///
    /// There is none, or several begin with these digits.
    pub fn find(&self, text: &str) -> Result<Arc<Container>> {
        let index = lock(&self.index);
        if let Some(container) = index.by_id.get(text) {
            return Ok(Arc::clone(container));
        }
        let name = text.strip_prefix('/').unwrap_or(text);
        if let Some(container) = index.names.get(name).and_then(|id| index.by_id.get(id)) {
            return Ok(Arc::clone(container));
        }
        let mut fitting = index
            .by_id
            .range(text.to_owned()..)
            .take_while(|(id, _)| !text.is_empty() && id.starts_with(text));
        match (fitting.next(), fitting.next()) {
            (Some((_, container)), None) => Ok(Arc::clone(container)),
            (Some(_), Some(_)) => Err(Error::invalid(format!(
                "multiple IDs found with provided prefix: {text}"
            ))),
            (None, _) => Err(Error::not_found(format!("No such container: {text}"))),
        }
    }

    /// All containers, newest first.
    pub fn all(&self) -> Vec<Arc<Container>> {
        let mut all: Vec<_> = lock(&self.index).by_id.values().cloned().collect();
        all.sort_by_key(|container| std::cmp::Reverse(container.with_record(|record| record.created)));
        all
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::record::RootfsSource;
    use std::path::Path;

    fn add(containers: &Containers, id: &str, name: &str) {
        containers.reserve(name, id).unwrap();
        let source = RootfsSource::Directory { path: "/".into() };
        let record = Record::new(id.to_owned(), name.to_owned(), String::new(), source);
        containers.insert(Arc::new(Container::new(record, Path::new("/r"), Path::new("/s"))));
    }

    #[test]
    fn containers_are_found_as_in_docker() {
        let containers = Containers::default();
        add(&containers, "aabb", "web");
        add(&containers, "aacc", "aab");
        let id = |text: &str| containers.find(text).map(|container| container.id.clone()).ok();
        assert_eq!(id("aabb").as_deref(), Some("aabb"));
        assert_eq!(id("/web").as_deref(), Some("aabb"));
        assert_eq!(id("aab").as_deref(), Some("aacc"), "a name comes before a prefix");
        assert_eq!(id("aabb").as_deref(), Some("aabb"));
        assert!(id("aa").is_none() && id("").is_none() && id("b").is_none());
        assert!(containers.reserve("web", "dd").is_err());
        let web = containers.find("web").unwrap();
        containers.remove(&web);
        containers.reserve("web", "dd").unwrap();
    }
}
