//! `probe tree DIRECTORY`: every entry of a directory tree, one filesystem only, with all that an image records of it.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::{fs, str};

use serde_json::{Value, json};

/// Path → type, mode, owner, size, content hash, link target, device number, hard-link group, mtime, xattrs.
pub(crate) fn report(directory: &str) -> io::Result<Value> {
    let root = Path::new(directory);
    let device = fs::symlink_metadata(root)?.dev();
    let mut walk = Walk {
        root,
        device,
        entries: BTreeMap::new(),
        links: HashMap::new(),
    };
    walk.directory(root)?;
    Ok(json!(walk.entries))
}

struct Walk<'a> {
    root: &'a Path,
    device: u64,
    entries: BTreeMap<String, Value>,
    /// Inode → the first path that has it: the name of its hard-link group.
    links: HashMap<u64, String>,
}

impl Walk<'_> {
    fn directory(&mut self, directory: &Path) -> io::Result<()> {
        let mut names: Vec<_> = fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
        names.sort_by_key(std::fs::DirEntry::file_name);
        for entry in names {
            let path = entry.path();
            let metadata = fs::symlink_metadata(&path)?;
            if metadata.dev() != self.device {
                continue;
            }
            let name = path
                .strip_prefix(self.root)
                .unwrap_or(&path)
                .to_string_lossy()
                .into_owned();
            let entry = self.describe(&path, &name, &metadata)?;
            self.entries.insert(name, entry);
            if metadata.is_dir() {
                self.directory(&path)?;
            }
        }
        Ok(())
    }

    fn describe(&mut self, path: &Path, name: &str, metadata: &fs::Metadata) -> io::Result<Value> {
        let kind = metadata.file_type();
        let mut entry = json!({
            "mode": format!("{:o}", metadata.mode() & 0o7777),
            "owner": format!("{}:{}", metadata.uid(), metadata.gid()),
            "xattrs": xattrs(path)?,
        });
        let kind = if kind.is_file() {
            entry["size"] = metadata.size().into();
            entry["content"] = content(path)?.into();
            entry["mtime"] = metadata.mtime().into();
            "file"
        } else if kind.is_dir() {
            "directory"
        } else if kind.is_symlink() {
            entry["target"] = fs::read_link(path)?.to_string_lossy().into();
            "symlink"
        } else if kind.is_fifo() {
            "fifo"
        } else if kind.is_socket() {
            "socket"
        } else {
            entry["device"] = metadata.rdev().into();
            if kind.is_char_device() {
                "character device"
            } else {
                "block device"
            }
        };
        entry["type"] = kind.into();
        if metadata.nlink() > 1 && !metadata.is_dir() {
            let group = self
                .links
                .entry(metadata.ino())
                .or_insert_with(|| name.to_string());
            entry["link"] = group.clone().into();
        }
        Ok(entry)
    }
}

/// A hash of a file's content; equal contents give equal hashes on every run of this binary.
fn content(path: &Path) -> io::Result<String> {
    let mut file = fs::File::open(path)?;
    let mut hasher = DefaultHasher::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(format!("{:016x}", hasher.finish())),
            count => hasher.write(&buffer[..count]),
        }
    }
}

/// The extended attributes that an image carries: all but those that the overlay filesystem keeps for itself.
fn xattrs(path: &Path) -> io::Result<BTreeMap<String, String>> {
    let mut names = vec![0_u8; 1 << 16];
    let length = match rustix::fs::llistxattr(path, &mut names[..]) {
        Ok(length) => length,
        Err(rustix::io::Errno::NOTSUP) => 0,
        Err(error) => return Err(error.into()),
    };
    let mut found = BTreeMap::new();
    for name in names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let name = str::from_utf8(name).unwrap_or("not UTF-8").to_string();
        if name.starts_with("trusted.overlay.") {
            continue;
        }
        let mut value = vec![0_u8; 1 << 16];
        let size = rustix::fs::lgetxattr(path, &name, &mut value[..])?;
        let text: String = value[..size].iter().map(|byte| format!("{byte:02x}")).collect();
        found.insert(name, text);
    }
    Ok(found)
}
