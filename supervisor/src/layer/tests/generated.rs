//! Archives that chance puts together from hostile parts: none leads out, and a second parser reads the same from them.

use std::io::Read as _;

use proptest::{collection::vec, prelude::*};
use tar::EntryType;

use super::{archive::Tar, host::Host};
use crate::layer::{Archive, EntryKind};

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

/// Where links lead.
const LINKS: [&str; 9] = [
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

#[derive(Clone, Debug)]
struct Member {
    kind: u8,
    name: usize,
    link: usize,
    data: Vec<u8>,
}

fn members() -> impl Strategy<Value = Vec<Member>> {
    let member = (0u8..9, 0..NAMES.len(), 0..LINKS.len(), vec(any::<u8>(), 0..600)).prop_map(
        |(kind, name, link, data)| Member {
            kind,
            name,
            link,
            data,
        },
    );
    vec(member, 0..12)
}

fn archive(members: &[Member]) -> Vec<u8> {
    let mut tar = Tar::default();
    for member in members {
        let (name, link) = (NAMES[member.name], LINKS[member.link]);
        let size = member.data.len().to_string();
        tar = match member.kind {
            0 | 1 => tar.file(name, &member.data),
            2 => tar.dir(name),
            3 => tar.symlink(name, link),
            4 => tar.hard_link(name, link),
            5 => tar.member(name, EntryType::Fifo, "", b"", |_| {}),
            6 => tar.pax(&[("path", name.as_bytes())]),
            7 => tar.pax(&[
                ("linkpath", link.as_bytes()),
                ("SCHILY.xattr.user.x", &member.data),
            ]),
            // A header that says nothing of the size, and a record that does.
            _ => tar.pax(&[("size", size.as_bytes())]).member(
                name,
                EntryType::Regular,
                "",
                &member.data,
                |header| {
                    header.set_size(0);
                },
            ),
        };
    }
    tar.end()
}

/// Names and bytes of the files in `bytes`, as our parser reads them; `None` when it refuses.
fn ours(bytes: &[u8]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut archive = Archive::new(bytes);
    let mut files = Vec::new();
    while let Some(entry) = archive.next_entry().ok()? {
        let mut content = Vec::new();
        loop {
            let data = archive.data().ok()?;
            let length = data.len();
            if length == 0 {
                break;
            }
            content.extend_from_slice(data);
            archive.consume(length);
        }
        if entry.kind == EntryKind::File {
            files.push((entry.name, content));
        }
    }
    Some(files)
}

/// The same, as another parser reads them.
fn theirs(bytes: &[u8]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut archive = tar::Archive::new(bytes);
    let mut files = Vec::new();
    for entry in archive.entries().ok()? {
        let mut entry = entry.ok()?;
        let mut content = Vec::new();
        entry.read_to_end(&mut content).ok()?;
        if entry.header().entry_type() == EntryType::Regular {
            files.push((entry.path_bytes().into_owned(), content));
        }
    }
    Some(files)
}

proptest! {
    #[test]
    fn no_archive_leads_out(members in members(), upper in any::<bool>()) {
        let host = Host::new();
        let bytes = archive(&members);
        // Refused or not: the canary is looked at.
        drop(if upper { host.apply_upper(&bytes) } else { host.apply(&bytes) });
    }

    #[test]
    fn two_parsers_read_the_same(members in members(), damage in vec((any::<usize>(), any::<u8>()), 0..3)) {
        let mut bytes = archive(&members);
        for (position, byte) in damage {
            let position = position % bytes.len();
            bytes[position] = byte;
        }
        if let (Some(ours), Some(theirs)) = (ours(&bytes), theirs(&bytes)) {
            prop_assert_eq!(ours, theirs);
        }
    }
}
