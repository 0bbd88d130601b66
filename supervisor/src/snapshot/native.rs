//! The native snapshotter: every snapshot a whole tree, copied from its parent's; file systems that can share blocks do.
//!
//! ```text
//! <root>/snapshots/native/<number>/fs    the tree, mode 0755 or its parent's
//! ```
//!
//! A view on a parent is that parent's tree, read-only, and copies nothing. Refuses to be rebased: a tree that was made on
//! nothing is not one on top of another.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use super::{
    About, Kind, Made, Mount, Snapshotter, Stack, Usage, copy, flush::Filesystem, overlay::make_dir, usage,
};
use crate::error::{Error, Result};

/// The native snapshotter of one instance.
#[derive(Debug)]
pub struct Native {
    root: PathBuf,
    filesystem: Filesystem,
}

impl Native {
    /// Opens the snapshotter below `root`, creating it.
    ///
    /// # Errors
    ///
    /// `Unknown` from the disk.
    pub fn open(root: &Path) -> Result<Self> {
        open_root(root)?;
        Ok(Self {
            filesystem: Filesystem::open(root)?,
            root: root.to_owned(),
        })
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
                make_dir(&tree, 0o700).map_err(failed)?;
                copy::tree(&self.tree(*parent), &tree)
            }
        }
    }
}

impl Snapshotter for Native {
    fn create(&self, stack: Stack<'_>) -> Result<Made> {
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
        if there {
            return Ok(());
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
        self.usage(stack)
    }

    fn usage(&self, stack: Stack<'_>) -> Result<Usage> {
        let tree = self.tree(stack.number);
        usage::of(&tree).map_err(|source| Error::io(format!("measure {}", tree.display()), source))
    }

    fn remove(&self, number: u64) -> Result<()> {
        remove_tree(&self.directory(number))
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
