//! Archives from any bytes: the bytes themselves, or members that they choose from names and links that lead somewhere.

use std::path::Path;

use tar::{EntryType, Header};

use super::archive::Tar;

/// Names that lead somewhere, out, through what came before, or that stand for the lack of something.
const NAMES: [&str; 22] = [
    "a",
    "a/b",
    "a/b/c",
    "b",
    "l",
    "l/x",
    "l/canary",
    "h",
    "h/x",
    "../x",
    "../outside/canary",
    "/abs",
    "a/../b",
    ".",
    "./a/",
    "..",
    ".wh.a",
    ".wh.l",
    ".wh...",
    "a/.wh.b",
    ".wh..wh..opq",
    "l/.wh.canary",
];

/// Where links lead; the empty one stands for the whole path of what is outside.
const LINKS: [&str; 10] = [
    "",
    "../outside",
    "../outside/canary",
    "..",
    ".",
    "a",
    "a/b",
    "l",
    "l/canary",
    "/",
];

/// The archive that `data` makes: its first byte says how. `outside` is a place that no archive may lead to.
pub(in crate::layer) fn archive(data: &[u8], outside: &Path) -> Vec<u8> {
    let Some((choice, rest)) = data.split_first() else {
        return Vec::new();
    };
    match choice % 3 {
        0 => rest.to_vec(),
        1 => mended(rest.to_vec()),
        _ => members(rest, outside),
    }
}

/// `archive` with right checksums where there are headers: wrong ones would hide the rest.
pub(in crate::layer) fn mended(mut archive: Vec<u8>) -> Vec<u8> {
    for block in archive.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            let mut header = Header::new_old();
            header.as_mut_bytes().copy_from_slice(block);
            header.set_cksum();
            block.copy_from_slice(header.as_bytes());
        }
    }
    archive
}

/// Takes bytes off the front of `data`; zeros when there are none left.
struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or_default()
    }

    fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn of<'c>(&mut self, from: &'c [&'c str]) -> &'c str {
        from[usize::from(self.byte()) % from.len()]
    }
}

fn members(data: &[u8], outside: &Path) -> Vec<u8> {
    let outside = outside.to_string_lossy();
    let mut choices = Choices(data);
    let mut tar = Tar::default();
    while !choices.0.is_empty() {
        let (kind, name) = (choices.byte(), choices.of(&NAMES));
        let link = match choices.of(&LINKS) {
            "" => &*outside,
            link => link,
        };
        let length = usize::from(choices.byte()) * 3;
        let content = choices.bytes(length);
        let size = content.len().to_string();
        tar = match kind % 16 {
            0 | 1 => tar.file(name, content),
            2 => tar.dir(name),
            3 => tar.symlink(name, link),
            4 => tar.hard_link(name, link),
            5 => tar.member(name, EntryType::Fifo, "", b"", |_| {}),
            6 => tar.pax(&[("path", name.as_bytes())]),
            7 => tar.pax(&[("linkpath", link.as_bytes()), ("SCHILY.xattr.user.x", content)]),
            // A header that says nothing of the size, and a record that does.
            8 => tar.pax(&[("size", size.as_bytes())]).member(
                name,
                EntryType::Regular,
                "",
                content,
                |header| {
                    header.set_size(0);
                },
            ),
            9 => tar.member("long", EntryType::GNULongName, "", name.as_bytes(), |_| {}),
            10 => tar.member("long", EntryType::GNULongLink, "", link.as_bytes(), |_| {}),
            11 => tar
                .pax(&[("GNU.sparse.size", b"5000"), ("GNU.sparse.map", content)])
                .file(name, content),
            12 => tar
                .pax(&[
                    ("GNU.sparse.major", b"1"),
                    ("GNU.sparse.minor", b"0"),
                    ("GNU.sparse.realsize", b"9000"),
                    ("GNU.sparse.name", name.as_bytes()),
                ])
                .file("sparse", content),
            13 => tar.pax(&[("mtime", content), ("uid", link.as_bytes())]),
            14 => tar.member(name, EntryType::Char, "", b"", |header| {
                header.set_mode(u32::from_le_bytes([content.len() as u8, 0x0f, 0, 0]));
            }),
            // A member of any kind whose data is another archive's.
            _ => tar.member(
                name,
                EntryType::new(content.first().copied().unwrap_or_default()),
                "",
                content,
                |_| {},
            ),
        };
    }
    tar.end()
}
