//! Archives written member by member, also those that no honest writer makes.

/// An archive, member by member.
#[derive(Default)]
pub(crate) struct Tar(Vec<u8>);

impl Tar {
    fn member(
        mut self,
        name: &str,
        kind: tar::EntryType,
        link: &str,
        data: &[u8],
        device: (u32, u32),
    ) -> Self {
        if name.len() > 100 || link.len() > 100 {
            self = self.pax(name, link);
        }
        let mut header = tar::Header::new_ustar();
        let fill = |field: &mut [u8], text: &str| {
            let length = text.len().min(field.len());
            field[..length].copy_from_slice(&text.as_bytes()[..length]);
        };
        fill(&mut header.as_old_mut().name, name);
        fill(&mut header.as_old_mut().linkname, link);
        header.set_entry_type(kind);
        header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        header.set_size(data.len() as u64);
        header.set_device_major(device.0).unwrap();
        header.set_device_minor(device.1).unwrap();
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn pax(self, name: &str, link: &str) -> Self {
        let record = |key: &str, value: &str| {
            let body = key.len() + value.len() + 3;
            let mut length = body + 1;
            while length != body + length.to_string().len() {
                length = body + length.to_string().len();
            }
            format!("{length} {key}={value}\n")
        };
        let mut data = record("path", name);
        if !link.is_empty() {
            data.push_str(&record("linkpath", link));
        }
        self.member("pax", tar::EntryType::XHeader, "", data.as_bytes(), (0, 0))
    }

    pub(crate) fn file(self, name: &str, data: &[u8]) -> Self {
        self.member(name, tar::EntryType::Regular, "", data, (0, 0))
    }

    pub(crate) fn dir(self, name: &str) -> Self {
        self.member(name, tar::EntryType::Directory, "", b"", (0, 0))
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.member(name, tar::EntryType::Symlink, target, b"", (0, 0))
    }

    pub(crate) fn hard_link(self, name: &str, target: &str) -> Self {
        self.member(name, tar::EntryType::Link, target, b"", (0, 0))
    }

    pub(crate) fn node(self, name: &str, major: u32, minor: u32) -> Self {
        self.member(name, tar::EntryType::Char, "", b"", (major, minor))
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}
