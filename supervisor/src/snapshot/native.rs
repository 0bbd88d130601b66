//! The native snapshotter: every snapshot a whole tree, copied from its parent's; file systems that can share blocks do.
//!
//! ```text
//! <root>/snapshots/native/<number>/fs        the tree, mode 0755 or its parent's
//! <root>/snapshots/native/<number>/copied    the boot in which it was copied; goes when the copy is on the disk
//! ```
//!
//! Preparing waits for no disk, so a copy is flushed a moment later, behind the caller's back. Power loss before that leaves
//! a tree of which parts may be missing, and the note of another boot, by which it is known: it is copied again.
//!
//! A view on a parent is that parent's tree, read-only, and copies nothing. Refuses to be rebased: a tree that was made on
//! nothing is not one on top of another.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{self, Sender},
    },
    time::Duration,
};

use super::{
    About, Kind, Made, Mount, Snapshotter, Stack, Usage, copy, flush::Filesystem, overlay::make_dir, usage,
};
use crate::{
    boot,
    error::{Error, Result},
};

/// The note that a copy is not known to be on the disk.
const COPIED: &str = "copied";
/// How long copies are collected that are flushed together.
const FLUSH_DELAY: Duration = Duration::from_secs(1);

/// The native snapshotter of one instance.
#[derive(Debug)]
pub struct Native {
    root: PathBuf,
    filesystem: Arc<Filesystem>,
    boot: String,
    /// Takes the copies that are to be flushed; the thread behind it ends with this.
    copies: Sender<u64>,
}

impl Native {
    /// Opens the snapshotter below `root`, creating it.
    ///
    /// # Errors
    ///
    /// `Unknown` from the disk.
    pub fn open(root: &Path) -> Result<Self> {
        open_root(root)?;
        let filesystem = Arc::new(Filesystem::open(root)?);
        let (copies, taken) = mpsc::channel();
        let (flushed, place) = (Arc::clone(&filesystem), root.to_owned());
        std::thread::Builder::new()
            .name("native-flush".into())
            .spawn(move || flush_copies(&place, &flushed, &taken))
            .map_err(|source| Error::io("start the flusher of copies", source))?;
        Ok(Self {
            filesystem,
            root: root.to_owned(),
            boot: boot::id()?,
            copies,
        })
    }

    /// Has the copy `number` flushed soon.
    fn flush_later(&self, number: u64) {
        // The thread lives as long as this sender.
        let _ = self.copies.send(number);
    }

    fn directory(&self, number: u64) -> PathBuf {
        self.root.join(number.to_string())
    }

    fn tree(&self, number: u64) -> PathBuf {
        self.directory(number).join("fs")
    }

    fn make(&self, stack: Stack<'_>) -> Result<()> {
        let directory = self.directory(stack.number);
        let tree = self.tree(stack.number);
        let failed = |source| Error::io(format!("create snapshot {}", directory.display()), source);
        make_dir(&directory, 0o700).map_err(failed)?;
        match (stack.parents.first(), stack.kind) {
            (Some(_), Kind::View) => Ok(()),
            (None, _) => make_dir(&tree, 0o755).map_err(failed),
            (Some(parent), _) => {
                // Before the tree: file systems that write a directory's entries later keep their order.
                fs::write(directory.join(COPIED), &self.boot).map_err(failed)?;
                make_dir(&tree, 0o700).map_err(failed)?;
                copy::tree(&self.tree(*parent), &tree)?;
                self.flush_later(stack.number);
                Ok(())
            }
        }
    }
}

impl Snapshotter for Native {
    fn create(&self, stack: Stack<'_>) -> Result<Made> {
        self.filesystem.forget(stack.number);
        match self.make(stack) {
            Ok(()) => Ok(Made::Fresh),
            Err(error) => Err(match self.remove(stack.number) {
                Ok(()) => error,
                Err(second) => error.context(second),
            }),
        }
    }

    fn restore(&self, stack: Stack<'_>) -> Result<()> {
        let there = match (stack.kind, stack.parents) {
            (Kind::View, [_, ..]) => self.directory(stack.number).is_dir(),
            _ => self.tree(stack.number).is_dir(),
        };
        let note = self.directory(stack.number).join(COPIED);
        let is_whole = match fs::read_to_string(&note) {
            // A daemon of this boot was killed before the copy was flushed.
            Ok(boot) if boot == self.boot => {
                self.flush_later(stack.number);
                true
            }
            Ok(_) => false,
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => return Err(Error::io(format!("read {}", note.display()), error)),
        };
        if there && is_whole {
            return Ok(());
        }
        if there {
            tracing::warn!(
                number = stack.number,
                "snapshot was cut off by power loss: made again"
            );
        }
        self.remove(stack.number)?;
        self.create(stack).map(drop)
    }

    // The trees are whole: a layer is filled on a copy of its parent.
    fn keeps_layers_apart(&self) -> bool {
        false
    }

    fn mounts(&self, stack: Stack<'_>) -> Result<Vec<Mount>> {
        let (source, mode) = match (stack.kind, stack.parents) {
            (Kind::Active, _) => (stack.number, "rw"),
            (_, [parent, ..]) => (*parent, "ro"),
            (_, []) => (stack.number, "ro"),
        };
        Ok(vec![bind(&self.tree(source), mode)])
    }

    fn seal(&self, stack: Stack<'_>, rebased: bool) -> Result<Usage> {
        if rebased {
            return Err(cannot_rebase("native"));
        }
        self.filesystem.flush(stack.number, || self.numbers())?;
        let note = self.directory(stack.number).join(COPIED);
        match fs::remove_file(&note) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io(format!("remove {}", note.display()), error));
            }
            _ => {}
        }
        self.usage(stack)
    }

    fn usage(&self, stack: Stack<'_>) -> Result<Usage> {
        let tree = self.tree(stack.number);
        usage::of(&tree).map_err(|source| Error::io(format!("measure {}", tree.display()), source))
    }

    fn remove(&self, number: u64) -> Result<()> {
        remove_tree(&self.directory(number))?;
        self.filesystem.forget(number);
        Ok(())
    }

    fn numbers(&self) -> Result<BTreeSet<u64>> {
        numbers(&self.root)
    }

    fn about(&self) -> About {
        About {
            exports: [("root".to_owned(), self.root.display().to_string())].into(),
            ..About::default()
        }
    }
}

/// Flushes copies, and removes the notes that they are not, until the snapshotter is gone.
fn flush_copies(root: &Path, filesystem: &Filesystem, copies: &mpsc::Receiver<u64>) {
    while let Ok(first) = copies.recv() {
        std::thread::sleep(FLUSH_DELAY);
        let together: Vec<u64> = std::iter::once(first).chain(copies.try_iter()).collect();
        // One whose files could not be written keeps its note.
        let last = together.iter().copied().max().unwrap_or(first);
        if let Err(error) = filesystem.flush(last, || numbers(root)) {
            tracing::error!(root = %root.display(), %error, "flush copied snapshots");
            continue;
        }
        for number in together {
            let directory = root.join(number.to_string());
            let removed = fs::remove_file(directory.join(COPIED))
                .and_then(|()| File::open(&directory))
                .and_then(|directory| directory.sync_all());
            match removed {
                // Removed meanwhile, or committed, which flushes as well.
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(directory = %directory.display(), %error, "note of a copied snapshot");
                }
                _ => {}
            }
        }
    }
}

/// Removes what is kept of a snapshot; nothing there is no error.
pub(super) fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", path.display()), error))
        }
        _ => Ok(()),
    }
}

/// Creates the directory of a snapshotter.
pub(super) fn open_root(root: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(root)
        .map_err(|source| Error::io(format!("create {}", root.display()), source))
}

/// The entries of a snapshotter's directory that are numbers.
pub(super) fn numbers(root: &Path) -> Result<BTreeSet<u64>> {
    let failed = |source| Error::io(format!("list {}", root.display()), source);
    let mut numbers = BTreeSet::new();
    for entry in fs::read_dir(root).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        numbers.extend(name.to_string_lossy().parse::<u64>());
    }
    Ok(numbers)
}

/// A bind mount of `source`.
pub(super) fn bind(source: &Path, mode: &str) -> Mount {
    Mount {
        r#type: "bind".into(),
        source: source.to_string_lossy().into_owned(),
        options: vec![mode.into(), "rbind".into()],
        ..Mount::default()
    }
}

/// What a snapshotter of whole trees says to a rebase.
pub(super) fn cannot_rebase(name: &str) -> Error {
    Error::unimplemented(format!(
        "committing a snapshot of {name} on another parent than it was made on"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identifier::Labels;

    fn stack<'a>(number: u64, parents: &'a [u64], labels: &'a Labels) -> Stack<'a> {
        Stack {
            number,
            parents,
            kind: Kind::Active,
            namespace: "a",
            labels,
        }
    }

    #[test]
    fn a_copy_that_power_loss_cut_off_is_made_again_and_no_other() {
        let root = tempfile::tempdir().unwrap();
        let labels = Labels::new();
        let native = Native::open(root.path()).unwrap();
        native.create(stack(1, &[], &labels)).unwrap();
        fs::write(native.tree(1).join("file"), "whole").unwrap();
        native.seal(stack(1, &[], &labels), false).unwrap();
        // Cut off: another boot finds the note of the one before, whole or not.
        for (number, note) in [(2, "another"), (3, "")] {
            fs::create_dir_all(native.tree(number)).unwrap();
            fs::write(native.tree(number).join("file"), "").unwrap();
            fs::write(native.directory(number).join(COPIED), note).unwrap();
            native.restore(stack(number, &[1], &labels)).unwrap();
            assert_eq!(
                fs::read_to_string(native.tree(number).join("file")).unwrap(),
                "whole"
            );
        }
        // A kill alone takes nothing.
        let copy = stack(4, &[1], &labels);
        native.create(copy).unwrap();
        let (note, file) = (native.directory(4).join(COPIED), native.tree(4).join("file"));
        fs::write(&file, "changed").unwrap();
        native.restore(copy).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "changed");
        // Flushed, it is what it is, in every boot.
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while note.exists() {
            assert!(std::time::Instant::now() < deadline, "it is never flushed");
            std::thread::sleep(Duration::from_millis(20));
        }
        native.restore(copy).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "changed");
    }

    #[test]
    fn a_committed_copy_needs_no_note() {
        let root = tempfile::tempdir().unwrap();
        let labels = Labels::new();
        let native = Native::open(root.path()).unwrap();
        native.create(stack(1, &[], &labels)).unwrap();
        native.create(stack(2, &[1], &labels)).unwrap();
        native.seal(stack(2, &[1], &labels), false).unwrap();
        assert!(!native.directory(2).join(COPIED).exists());
    }
}
