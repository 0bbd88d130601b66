//! Archives written member by member, also those that no honest writer makes.

use tar::{EntryType, Header};

/// Builds archives, also those that no honest writer makes.
#[derive(Default)]
pub(in crate::layer) struct Tar {
    bytes: Vec<u8>,
}

impl Tar {
    pub(in crate::layer) fn member(
        mut self,
        name: &str,
        kind: EntryType,
        link: &str,
        data: &[u8],
        adjust: impl Fn(&mut Header),
    ) -> Self {
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(rustix::process::getuid().as_raw().into());
        header.set_gid(rustix::process::getgid().as_raw().into());
        header.set_mtime(1_000_000_000);
        header.set_size(data.len() as u64);
        adjust(&mut header);
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    pub(in crate::layer) fn file(self, name: &str, data: &[u8]) -> Self {
        self.member(name, EntryType::Regular, "", data, |_| {})
    }

    pub(in crate::layer) fn dir(self, name: &str) -> Self {
        self.member(name, EntryType::Directory, "", b"", |header| {
            header.set_mode(0o755);
        })
    }

    pub(in crate::layer) fn symlink(self, name: &str, target: &str) -> Self {
        self.member(name, EntryType::Symlink, target, b"", |_| {})
    }

    pub(in crate::layer) fn hard_link(self, name: &str, target: &str) -> Self {
        self.member(name, EntryType::Link, target, b"", |_| {})
    }

    /// A PAX header for the member that follows.
    pub(in crate::layer) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let body = key.len() + value.len() + 3;
            let mut length = body + 1;
            while length != body + length.to_string().len() {
                length = body + length.to_string().len();
            }
            data.extend(format!("{length} {key}=").bytes());
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.member("pax", EntryType::XHeader, "", &data, |_| {})
    }

    pub(in crate::layer) fn end(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&[0; 1024]);
        self.bytes
    }
}
