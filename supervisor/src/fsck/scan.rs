//! Comparing what the rows say with what is on the disk.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Read as _},
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use super::{
    Options, bundles,
    report::{Fault, Item, Report, Row},
};
use crate::{
    Config,
    digest::{Digest, Hasher},
    error::{Error, Result},
    metadata::{self, CONTENT_USERS, INGESTS, Key, Read, SNAPSHOTS, Snapshot},
    snapshot,
};

/// What is known to lie directly in the root.
const KNOWN: [&str; 5] = [
    "content",
    "lock",
    "metadata.journal",
    "metadata.redb",
    "snapshots",
];
/// The directories of the snapshotters that keep their bytes here, and their names.
const SNAPSHOTTERS: [(&str, &str); 3] = [
    ("overlay", snapshot::DEFAULT),
    ("native", "native"),
    ("btrfs", "btrfs"),
];

/// Looks at everything.
pub(super) fn scan(config: &Config, metadata: &metadata::Store, options: Options) -> Result<Report> {
    let mut scan = Scan {
        root: &config.root,
        report: Report {
            root: config.root.display().to_string(),
            ..Report::default()
        },
    };
    scan.top()?;
    scan.blobs(metadata, options.verify)?;
    scan.ingests(metadata)?;
    scan.snapshots(metadata)?;
    bundles::scan(&config.state, metadata, &mut scan.report)?;
    Ok(scan.report)
}

struct Scan<'a> {
    root: &'a Path,
    report: Report,
}

impl Scan<'_> {
    fn shown(&self, path: &Path) -> String {
        path.strip_prefix(self.root).unwrap_or(path).display().to_string()
    }

    fn item(&mut self, kind: &'static str, path: &Path, size: u64, owner: String) {
        self.report.items.push(Item {
            kind,
            path: self.shown(path),
            size,
            owner,
        });
    }

    /// Something that belongs to nobody.
    fn orphan(&mut self, kind: &'static str, path: &Path, size: u64, repair: &'static str) {
        self.report.faults.push(Fault {
            kind,
            path: self.shown(path),
            size,
            problem: "it belongs to nobody".into(),
            repair,
            repaired: false,
            row: None,
        });
    }

    fn top(&mut self) -> Result<()> {
        for (name, path) in entries(self.root)? {
            if name.starts_with("metadata.") {
                let size = size_of(&path)?;
                self.item("metadata", &path, size, "the daemon".into());
            } else if name == "checkpoints" {
                for (_, path) in entries(&path)? {
                    let size = snapshot::disk_usage(&path)?;
                    self.item(
                        "checkpoint",
                        &path,
                        size,
                        "the daemon, which removes it at its start".into(),
                    );
                }
            } else if name == "opt" {
                for directory in ["bin", "lib"].map(|name| path.join(name)) {
                    if directory.is_dir() {
                        for (_, path) in entries(&directory)? {
                            let size = snapshot::disk_usage(&path)?;
                            self.item("program", &path, size, "the client that installed it".into());
                        }
                    }
                }
            } else if !KNOWN.contains(&name.as_str()) {
                // Whoever put it there may want it.
                let size = snapshot::disk_usage(&path)?;
                self.orphan("unknown", &path, size, "");
            }
        }
        Ok(())
    }

    fn blobs(&mut self, metadata: &metadata::Store, verify: bool) -> Result<()> {
        let mut users: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (key, ()) in metadata.read(|txn| txn.scan(CONTENT_USERS, &Key::prefix(&[])?))? {
            if let [digest, namespace] = key.parts()?[..] {
                users
                    .entry(digest.to_owned())
                    .or_default()
                    .push(namespace.to_owned());
            }
        }
        for algorithm in ["sha256", "sha512"] {
            for (name, path) in entries(&self.root.join("content/blobs").join(algorithm))? {
                let size = size_of(&path)?;
                let digest = format!("{algorithm}:{name}");
                let Some(namespaces) = users.remove(&digest) else {
                    self.orphan("blob", &path, size, "remove it");
                    continue;
                };
                if verify && !is_whole(&path, &digest)? {
                    for namespace in namespaces {
                        self.lost(
                            &path,
                            size,
                            &namespace,
                            &digest,
                            "its bytes are not those of its digest",
                        );
                    }
                    continue;
                }
                self.item("blob", &path, size, namespaces.join(", "));
            }
        }
        for (digest, namespaces) in users {
            let path = self.root.join("content/blobs").join(digest.replace(':', "/"));
            for namespace in namespaces {
                self.lost(&path, 0, &namespace, &digest, "its file is missing");
            }
        }
        Ok(())
    }

    fn lost(&mut self, path: &Path, size: u64, namespace: &str, digest: &str, what: &str) {
        let path = self.shown(path);
        self.report.faults.push(Fault {
            kind: "blob",
            path,
            size,
            problem: format!("{what} (namespace {namespace})"),
            repair: "forget the blob, so that it is fetched again",
            repaired: false,
            row: Some(Row::Blob(namespace.to_owned(), digest.to_owned())),
        });
    }

    fn ingests(&mut self, metadata: &metadata::Store) -> Result<()> {
        let mut owners = BTreeMap::new();
        for (key, row) in metadata.read(|txn| txn.scan(INGESTS, &Key::prefix(&[])?))? {
            if let [namespace, reference] = key.parts()?[..] {
                owners.insert(row.directory, format!("{namespace}: {reference}"));
            }
        }
        for (name, path) in entries(&self.root.join("content/ingest"))? {
            let size = snapshot::disk_usage(&path)?;
            match owners.get(&name) {
                Some(owner) => self.item("ingest", &path, size, owner.clone()),
                None => self.orphan("ingest", &path, size, "remove it"),
            }
        }
        Ok(())
    }

    fn snapshots(&mut self, metadata: &metadata::Store) -> Result<()> {
        let mut rows: BTreeMap<(String, String, String), Snapshot> = BTreeMap::new();
        for (key, row) in metadata.read(|txn| txn.scan(SNAPSHOTS, &Key::prefix(&[])?))? {
            if let [namespace, snapshotter, key] = key.parts()?[..] {
                rows.insert((namespace.into(), snapshotter.into(), key.into()), row);
            }
        }
        let directory = self.root.join("snapshots");
        for (name, path) in entries(&directory)? {
            if name != "proxy" && SNAPSHOTTERS.iter().all(|(directory, _)| *directory != name) {
                let size = snapshot::disk_usage(&path)?;
                self.orphan("unknown", &path, size, "");
            }
        }
        let mut missing = BTreeSet::new();
        for (directory_name, snapshotter) in SNAPSHOTTERS {
            let directory = directory.join(directory_name);
            let mut owners: BTreeMap<String, &(String, String, String)> = rows
                .iter()
                .filter(|((_, of, _), _)| of == snapshotter)
                .map(|(key, row)| (row.number.to_string(), key))
                .collect();
            for (name, path) in entries(&directory)? {
                let size = snapshot::disk_usage(&path)?;
                match owners.remove(&name) {
                    Some((namespace, snapshotter, key)) => {
                        self.item(
                            "snapshot",
                            &path,
                            size,
                            format!("{namespace}/{snapshotter}/{key}"),
                        );
                    }
                    None if name.strip_prefix('.').unwrap_or(&name) == snapshot::LOST => {
                        self.item("snapshot", &path, size, "the daemon: a flush failed".into());
                    }
                    None if name.parse::<u64>().is_ok() => self.orphan("snapshot", &path, size, "remove it"),
                    None => self.orphan("unknown", &path, size, ""),
                }
            }
            missing.extend(owners.into_values().cloned());
        }
        // What lies on a missing one cannot be mounted either.
        loop {
            let before = missing.len();
            for (key, row) in &rows {
                let parent = (key.0.clone(), key.1.clone(), row.parent.clone());
                if missing.contains(&parent) {
                    missing.insert(key.clone());
                }
            }
            if missing.len() == before {
                break;
            }
        }
        for (namespace, snapshotter, key) in missing.iter().cloned() {
            let path = format!("{namespace}/{snapshotter}/{key}");
            let at = (namespace, snapshotter, key);
            let row = &rows[&at];
            let below = (at.0.clone(), at.1.clone(), row.parent.clone());
            let alone = row.kind != i32::from(snapshot::Kind::Committed) && !missing.contains(&below);
            self.report.faults.push(Fault {
                kind: "snapshot",
                path,
                size: 0,
                problem: "its files, or those of one below it, are missing".into(),
                repair: if alone {
                    "make it again, without what was written to it"
                } else {
                    "forget the snapshot, so that it is made again"
                },
                repaired: false,
                row: (!alone).then_some(Row::Snapshot(at.0, at.1, at.2)),
            });
        }
        Ok(())
    }
}

/// The entries of a directory, sorted; none when there is no directory.
pub(super) fn entries(directory: &Path) -> Result<Vec<(String, PathBuf)>> {
    let failed = |source| Error::io(format!("list {}", directory.display()), source);
    let listed = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.map_err(failed)?,
    };
    let mut entries = Vec::new();
    for entry in listed {
        let path = entry.map_err(failed)?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        entries.push((name, path));
    }
    entries.sort();
    Ok(entries)
}

fn size_of(path: &Path) -> Result<u64> {
    fs::symlink_metadata(path)
        .map(|metadata| metadata.blocks() * 512)
        .map_err(|source| Error::io(format!("stat {}", path.display()), source))
}

fn is_whole(path: &Path, digest: &str) -> Result<bool> {
    let expected: Digest = digest.parse()?;
    let failed = |source| Error::io(format!("read {}", path.display()), source);
    let mut file = fs::File::open(path).map_err(failed)?;
    let mut hasher = Hasher::new(expected.algorithm());
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => return Ok(hasher.finish() == expected),
            length => hasher.update(&buffer[..length]),
        }
    }
}

/// Takes away the mounts that were found to belong to nobody.
pub(super) fn unmount_orphans(config: &Config, faults: &[Fault]) -> Result<()> {
    for fault in faults.iter().filter(|fault| fault.kind == "mount") {
        let path = config.state.join(&fault.path);
        match rustix::mount::unmount(
            path.as_os_str().as_bytes(),
            rustix::mount::UnmountFlags::DETACH | rustix::mount::UnmountFlags::NOFOLLOW,
        ) {
            // Gone with the bundle it was in.
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(Error::io(format!("unmount {}", path.display()), error)),
        }
    }
    Ok(())
}
