//! The activations: rows, and the directories in which their mounts are.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    ActivationInfo, ActiveMount, Mount, attach,
    attach::Owner,
    format,
    plan::{Plan, Step, Transform},
    prepare,
};
use crate::{
    boot,
    error::{Error, Result},
    identifier::{self, Labels},
    metadata::{self, Activation, Commit, Key, LEASES, META, MOUNTS, Meta, Phase, Read as _},
    namespace::Scope,
    time,
};

/// The fact that keeps the last number in use.
const LAST: &str = "mount";
/// The most mounts of one activation, as containerd has it.
const MAX_MOUNTS: usize = 255;

/// The activations of one instance.
pub struct Mounts {
    metadata: Arc<metadata::Store>,
    directory: PathBuf,
    /// Where directories and files may be made.
    roots: Vec<PathBuf>,
    owner: Owner,
    boot: String,
    names: Names,
    /// Whether there can be an activation at all.
    is_used: AtomicBool,
}

impl Mounts {
    /// The activations whose mounts are in `directory`, which is made when the first is; `root` is the instance's. What an
    /// earlier daemon left is taken up by [`Mounts::recover`].
    ///
    /// # Errors
    ///
    /// `Unknown` when the boot's id cannot be read.
    pub fn new(metadata: Arc<metadata::Store>, directory: PathBuf, root: &Path, uuid: &str) -> Result<Self> {
        Ok(Self {
            metadata,
            roots: vec![root.to_owned(), directory.clone()],
            directory,
            owner: Owner::new(uuid),
            boot: boot::id()?,
            names: Names::default(),
            is_used: AtomicBool::new(false),
        })
    }

    /// Makes the mounts of `plan` under `name`. Blocks, also for another call about the same name.
    ///
    /// # Errors
    ///
    /// `AlreadyExists`; `InvalidArgument` for a bad name or label and too many mounts; `NotFound` for the scope's lease;
    /// those of the mounts. Nothing is left then.
    pub fn activate(&self, scope: &Scope, name: &str, plan: Plan, labels: Labels) -> Result<ActivationInfo> {
        if name.is_empty() {
            return Err(Error::invalid("mount name must not be empty"));
        }
        if plan.here.len() + plan.left.len() > MAX_MOUNTS {
            return Err(Error::invalid(format!("more than {MAX_MOUNTS} mounts")));
        }
        identifier::validate_labels(&labels)?;
        let key = Key::new(&[&scope.namespace, name])?;
        self.is_used.store(true, Ordering::Relaxed);
        let _turn = self.names.take(&scope.namespace, name);
        let (mut row, stale) = self.begin(scope, name, &key, labels)?;
        if let Some(stale) = stale
            && let Err(error) = attach::detach_all(&self.place(stale), &self.owner)
        {
            // The next collection tries again.
            tracing::warn!(name, %error, "mounts of an unfinished activation");
        }
        let outcome = self.make(row.number, plan).and_then(|(active, system)| {
            let info = row.info.get_or_insert_default();
            info.active = active;
            info.system = system;
            row.phase = Phase::Active.into();
            self.metadata
                .write(Commit::Lazy, |txn| txn.put(MOUNTS, &key, &row))
        });
        match outcome {
            Ok(()) => Ok(row.info.unwrap_or_default()),
            Err(error) => Err(match self.take_down(&key, row.number) {
                Ok(()) => error,
                Err(second) => error.context(format!("(not undone: {second})")),
            }),
        }
    }

    /// Takes the mounts of `name` down. Blocks. What stays busy is tried again by the next call and by each collection.
    ///
    /// # Errors
    ///
    /// `NotFound`; `Unknown` when a mount stays.
    pub fn deactivate(&self, scope: &Scope, name: &str) -> Result<()> {
        let key = Key::new(&[&scope.namespace, name])?;
        // Most names have nothing, and need no turn.
        self.metadata
            .read(|txn| txn.get(MOUNTS, &key))?
            .ok_or_else(|| missing(name))?;
        let _turn = self.names.take(&scope.namespace, name);
        let number = self.metadata.write(Commit::Lazy, |txn| {
            let mut row = txn.get(MOUNTS, &key)?.ok_or_else(|| missing(name))?;
            row.phase = Phase::Ending.into();
            txn.put(MOUNTS, &key, &row)?;
            Ok(row.number)
        })?;
        self.take_down(&key, number)
    }

    /// The activation `name`. Blocks.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub fn info(&self, scope: &Scope, name: &str) -> Result<ActivationInfo> {
        let key = Key::new(&[&scope.namespace, name])?;
        let row = self.metadata.read(|txn| txn.get(MOUNTS, &key))?;
        row.and_then(|row| row.info).ok_or_else(|| missing(name))
    }

    /// All activations of the namespace, by name. Blocks.
    ///
    /// # Errors
    ///
    /// `Unknown` from the metadata.
    pub fn list(&self, scope: &Scope) -> Result<Vec<ActivationInfo>> {
        let prefix = Key::prefix(&[&scope.namespace])?;
        let rows = self.metadata.read(|txn| txn.scan(MOUNTS, &prefix))?;
        Ok(rows.into_iter().filter_map(|(_, row)| row.info).collect())
    }

    /// Forgets the activations of another boot and those that a daemon left half done, and sweeps. To be called before
    /// anything is activated. Blocks.
    ///
    /// # Errors
    ///
    /// `Unknown` from the metadata or the disk.
    pub fn recover(&self) -> Result<()> {
        self.metadata.write(Commit::Lazy, |txn| {
            for (key, row) in txn.scan(MOUNTS, &Key::prefix(&[])?)? {
                if row.boot != self.boot || row.phase() != Phase::Active {
                    txn.delete(MOUNTS, &key)?;
                }
            }
            Ok(())
        })?;
        self.sweep()
    }

    /// Takes down what no row names. Blocks. What stays busy is logged and left for the next time.
    ///
    /// # Errors
    ///
    /// `Unknown` from the metadata or the disk.
    pub fn sweep(&self) -> Result<()> {
        // In this order: of what is made meanwhile there was a row before there was a directory.
        let made = self.numbers()?;
        if made.is_empty() {
            return Ok(());
        }
        self.is_used.store(true, Ordering::Relaxed);
        let rows = self.metadata.read(|txn| txn.scan(MOUNTS, &Key::prefix(&[])?))?;
        let kept: BTreeSet<u64> = rows.iter().map(|(_, row)| row.number).collect();
        for number in made.difference(&kept) {
            let place = self.place(*number);
            if let Err(error) = attach::detach_all(&place, &self.owner) {
                tracing::warn!(place = %place.display(), %error, "take down mounts that are garbage");
            }
        }
        Ok(())
    }

    /// Whether there can be an activation: without any there is nothing to ask the metadata for.
    pub fn is_used(&self) -> bool {
        self.is_used.load(Ordering::Relaxed)
    }

    fn place(&self, number: u64) -> PathBuf {
        self.directory.join(number.to_string())
    }

    fn numbers(&self) -> Result<BTreeSet<u64>> {
        let failed = |source| Error::io(format!("list {}", self.directory.display()), source);
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            entries => entries.map_err(failed)?,
        };
        let mut numbers = BTreeSet::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            numbers.extend(name.to_str().and_then(|name| name.parse::<u64>().ok()));
        }
        Ok(numbers)
    }

    /// Writes the row of an activation that begins. Of an unfinished one of the same name also its number.
    fn begin(
        &self,
        scope: &Scope,
        name: &str,
        key: &Key,
        labels: Labels,
    ) -> Result<(Activation, Option<u64>)> {
        self.metadata.write(Commit::Lazy, |txn| {
            let stale = match txn.get(MOUNTS, key)? {
                Some(row) if row.phase() == Phase::Active => {
                    return Err(Error::already_exists(format!("mount {name:?}")));
                }
                other => other.map(|row| row.number),
            };
            if let Some(lease) = &scope.lease
                && txn.get(LEASES, &Key::new(&[&scope.namespace, lease])?)?.is_none()
            {
                return Err(Error::not_found(format!("lease {lease:?}")));
            }
            let last = Key::new(&[LAST])?;
            let number = txn.get(META, &last)?.map_or(0, |meta| meta.number) + 1;
            let meta = Meta {
                number,
                ..Meta::default()
            };
            txn.put(META, &last, &meta)?;
            let row = Activation {
                number,
                phase: Phase::Pending.into(),
                boot: self.boot.clone(),
                lease: scope.lease.clone().unwrap_or_default(),
                info: Some(ActivationInfo {
                    name: name.to_owned(),
                    labels,
                    ..ActivationInfo::default()
                }),
            };
            txn.put(MOUNTS, key, &row)?;
            Ok((row, stale))
        })
    }

    /// Makes what `plan` says; returns what is mounted and what is left for the caller.
    fn make(&self, number: u64, plan: Plan) -> Result<(Vec<ActiveMount>, Vec<Mount>)> {
        let place = self.place(number);
        let create = |path: &Path, recursive| {
            let mut builder = fs::DirBuilder::new();
            let made = builder.mode(0o700).recursive(recursive).create(path);
            made.map_err(|source| Error::io(format!("create {}", path.display()), source))
        };
        create(&self.directory, true)?;
        create(&place, false)?;
        let mut made: Vec<ActiveMount> = Vec::new();
        for (index, step) in plan.here.into_iter().enumerate() {
            let mount = self.transformed(step, &made)?;
            let point = place.join(index.to_string());
            attach::attach(&mount, &point, &self.owner)?;
            made.push(ActiveMount {
                mount: Some(mount),
                mounted_at: Some(time::now()),
                mount_point: point.display().to_string(),
                ..ActiveMount::default()
            });
        }
        // Only the first has transformations: all before the last one that has any are made here.
        let left = plan.left.into_iter().map(|step| self.transformed(step, &made));
        let mut system = left.collect::<Result<Vec<Mount>>>()?;
        if plan.is_temporary
            && let Some(last) = made.last()
        {
            system.push(Mount {
                r#type: "bind".to_owned(),
                source: last.mount_point.clone(),
                options: vec!["rbind".to_owned()],
                ..Mount::default()
            });
        }
        Ok((made, system))
    }

    fn transformed(&self, step: Step, made: &[ActiveMount]) -> Result<Mount> {
        let mut mount = step.mount;
        for transform in step.transforms {
            match transform {
                Transform::Format => format::fill(&mut mount, made)?,
                Transform::Mkdir => prepare::directories(&mut mount, &self.roots)?,
                Transform::Mkfs => prepare::filesystem(&mut mount, &self.roots)?,
            }
        }
        Ok(mount)
    }

    /// Takes down what was made under `number`, and then the row.
    fn take_down(&self, key: &Key, number: u64) -> Result<()> {
        attach::detach_all(&self.place(number), &self.owner)?;
        self.metadata
            .write(Commit::Lazy, |txn| txn.delete(MOUNTS, key).map(drop))
    }
}

fn missing(name: &str) -> Error {
    Error::not_found(format!("mount {name:?}"))
}

/// The names of which somebody makes or takes down mounts: one at a time.
#[derive(Default)]
struct Names {
    taken: Mutex<BTreeSet<(String, String)>>,
    given_back: Condvar,
}

/// The turn for one name, until dropped.
struct Turn<'a> {
    names: &'a Names,
    name: (String, String),
}

impl Names {
    /// Waits until nobody else has the name.
    fn take(&self, namespace: &str, name: &str) -> Turn<'_> {
        let name = (namespace.to_owned(), name.to_owned());
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        while taken.contains(&name) {
            taken = self
                .given_back
                .wait(taken)
                .unwrap_or_else(PoisonError::into_inner);
        }
        taken.insert(name.clone());
        drop(taken);
        Turn { names: self, name }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut taken = self.names.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.remove(&self.name);
        drop(taken);
        self.names.given_back.notify_all();
    }
}
