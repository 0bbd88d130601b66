//! Our reader of archives beside another one, that of the `tar` crate: what both take, both read alike.
//!
//! Known differences, behind which nothing is compared, as the two may see other members there:
//!
//! - That crate splits PAX records at newlines, lets the first record of a key count and knows no empty values, which take
//!   a value back. Ours follows the lengths, the last record counts (as in Go's reader).
//! - That crate knows PAX's sparse files not at all, and of GNU's goes on behind a segment that is empty.
//! - That crate takes a long name with what follows its first NUL.
//! - Headers of old archives (no `ustar`) introduce extensions for us, members for that crate.
//! - Blank numbers are none to that crate, zero for us.
//! - Links, directories and devices have no data for us, whatever their size says; that crate skips it.
//! - Where one refuses the archive, it does: the members before that are compared.

use std::io::Read as _;

use tar::{EntryType, GnuExtSparseHeader, GnuHeader, GnuSparseHeader, Header};

use crate::layer::{Archive, Entry, EntryKind, fuzzed::generate};

/// Files that are read whole, holes and all, to be compared: larger ones end the comparison.
const LONGEST: u64 = 1 << 20;

/// Reads the archive that `data` makes with both. Panics when they read something else.
pub fn compare(data: &[u8]) {
    // No archive is extracted here: the place does not matter.
    compare_archive(&generate::archive(data, "/outside".as_ref()));
}

/// Reads `archive` with both. Panics when they read something else.
pub(in crate::layer) fn compare_archive(archive: &[u8]) {
    let mut ours = Archive::new(archive);
    let mut their_archive = tar::Archive::new(archive);
    let Ok(mut theirs) = their_archive.entries() else {
        return;
    };
    let mut end = 0;
    loop {
        let mut their = match theirs.next() {
            Some(Ok(their)) => Some(their),
            Some(Err(_refused)) => return,
            None => None,
        };
        if let Some(their) = &mut their {
            let known = KnownDifference::before(archive, end, their);
            end = end_of(archive, their);
            if known.is_some() {
                return;
            }
            if their.header().entry_type() == EntryType::XGlobalHeader {
                continue;
            }
        }
        let our = match ours.next_entry() {
            Ok(our) => our,
            Err(_refused) => return,
        };
        let (our, mut their) = match (our, their) {
            (None, None) => return,
            (Some(our), Some(their)) => (our, their),
            (our, their) => panic!(
                "one archive ends where the other goes on: {our:?}, {:?}",
                their.map(|their| their.path_bytes().into_owned())
            ),
        };
        compare_headers(&our, &mut their);
        if our.kind != EntryKind::File {
            continue;
        }
        let their_size = their.size();
        if our.size > LONGEST || their_size > LONGEST {
            return;
        }
        let Some(our_content) = content(&mut ours, &our) else {
            return;
        };
        let mut their_content = Vec::new();
        if their.read_to_end(&mut their_content).is_err() {
            return;
        }
        assert!(our_content == their_content, "content of {our:?}");
    }
}

type Their<'a> = tar::Entry<'a, &'a [u8]>;

fn compare_headers(our: &Entry, their: &mut Their<'_>) {
    assert_eq!(our.name, &*their.path_bytes());
    let is_directory = their.header().entry_type() == EntryType::Regular && our.name.ends_with(b"/");
    let kind = match their.header().entry_type() {
        _ if is_directory && their.header().as_bytes()[156] == 0 => EntryKind::Directory,
        EntryType::Regular | EntryType::GNUSparse => EntryKind::File,
        EntryType::Link => EntryKind::HardLink,
        EntryType::Symlink => EntryKind::Symlink,
        EntryType::Char => EntryKind::CharacterDevice,
        EntryType::Block => EntryKind::BlockDevice,
        EntryType::Directory => EntryKind::Directory,
        EntryType::Fifo => EntryKind::Fifo,
        other => panic!("{:?} is {other:?} to the other reader", our.kind),
    };
    assert_eq!(our.kind, kind, "{our:?}");
    if matches!(kind, EntryKind::HardLink | EntryKind::Symlink) {
        assert_eq!(our.link, &*their.link_name_bytes().unwrap_or_default(), "{our:?}");
    }
    let header = their.header();
    if let Ok(mode) = header.mode() {
        assert_eq!(our.mode, mode & 0o7777, "{our:?}");
    }
    if let (Ok(uid), Ok(gid)) = (header.uid(), header.gid()) {
        assert_eq!((our.uid, our.gid), (uid, gid), "{our:?}");
    }
    let mut time = header.mtime().ok();
    let mut xattrs = Vec::new();
    for record in their
        .pax_extensions()
        .ok()
        .flatten()
        .into_iter()
        .flatten()
        .flatten()
    {
        if record.key_bytes() == b"mtime" {
            time = None;
        }
        if let Some(name) = record.key_bytes().strip_prefix(b"SCHILY.xattr.") {
            xattrs.push((name.to_vec(), record.value_bytes().to_vec()));
        }
    }
    if let Some(time) = time {
        assert_eq!(our.modified.seconds.cast_unsigned(), time, "{our:?}");
    }
    assert_eq!(our.xattrs, xattrs, "{our:?}");
}

/// All of the member's file, holes as zeros; `None` when the archive is cut.
fn content(ours: &mut Archive<&[u8]>, entry: &Entry) -> Option<Vec<u8>> {
    let mut stored = Vec::new();
    loop {
        let data = ours.data().ok()?;
        let length = data.len();
        if length == 0 {
            break;
        }
        stored.extend_from_slice(data);
        ours.consume(length);
    }
    let Some(segments) = &entry.segments else {
        return Some(stored);
    };
    let mut whole = vec![0; entry.size as usize];
    let mut rest = &stored[..];
    for segment in segments {
        let (data, behind) = rest.split_at(segment.length as usize);
        whole[segment.offset as usize..][..data.len()].copy_from_slice(data);
        rest = behind;
    }
    Some(whole)
}

/// Where the data of a member ends, with its padding.
fn end_of(archive: &[u8], their: &Their<'_>) -> usize {
    let start = their.raw_file_position() as usize;
    let header = their.header();
    match header
        .as_gnu()
        .filter(|_| header.entry_type() == EntryType::GNUSparse)
    {
        Some(gnu) => {
            let (blocks, _) = sparse_blocks(archive, start, gnu);
            start + 512 * blocks + header.entry_size().unwrap_or(0).next_multiple_of(512) as usize
        }
        None => start + their.size().next_multiple_of(512) as usize,
    }
}

/// How many blocks of a sparse file's map are behind its header, and whether one of its segments comes after an empty one.
fn sparse_blocks(archive: &[u8], start: usize, gnu: &GnuHeader) -> (usize, bool) {
    let has_gap = |segments: &[GnuSparseHeader]| {
        let first = segments.iter().position(GnuSparseHeader::is_empty);
        first.is_some_and(|first| segments[first..].iter().any(|segment| !segment.is_empty()))
    };
    let (mut blocks, mut gap) = (0, has_gap(&gnu.sparse));
    let mut more = gnu.is_extended();
    while let Some(block) = archive
        .get(start + 512 * blocks..start + 512 * (blocks + 1))
        .filter(|_| more)
    {
        let mut extension = GnuExtSparseHeader::new();
        extension.as_mut_bytes().copy_from_slice(block);
        gap |= has_gap(&extension.sparse);
        more = extension.is_extended();
        blocks += 1;
    }
    (blocks, gap)
}

/// One of the module's list.
#[derive(Debug)]
enum KnownDifference {
    Pax,
    Sparse,
    LongName,
    OldHeader,
    Data,
}

impl KnownDifference {
    /// What is known of a member whose extension headers begin at `start`.
    fn before(archive: &[u8], start: usize, their: &Their<'_>) -> Option<Self> {
        let header = their.header();
        if let Some(known) = Self::in_member(archive, header, their) {
            return Some(known);
        }
        let mut extensions = archive.get(start..their.raw_header_position() as usize)?;
        let is_sparse = header.entry_type() == EntryType::GNUSparse;
        while let Some((block, rest)) = extensions.split_at_checked(512) {
            let size = Header::from_byte_slice(block).entry_size().ok()? as usize;
            let data = rest.get(..size)?;
            match block[156] {
                b'x' if !is_plain(data) => return Some(Self::Pax),
                // Its size may be in the records, where it is not looked for.
                b'x' if is_sparse => return Some(Self::Sparse),
                b'L' | b'K' if data.iter().rev().skip(1).any(|byte| *byte == 0) => {
                    return Some(Self::LongName);
                }
                _ => {}
            }
            extensions = rest.get(size.next_multiple_of(512)..)?;
        }
        None
    }

    fn in_member(archive: &[u8], header: &Header, their: &Their<'_>) -> Option<Self> {
        let has_no_data = matches!(header.as_bytes()[156], b'1'..=b'6')
            || header.as_bytes()[156] == 0 && their.path_bytes().ends_with(b"/");
        match header.as_bytes()[156] {
            b'x' | b'L' | b'K' => Some(Self::OldHeader),
            b'S' => {
                let (_, gap) = sparse_blocks(archive, their.raw_file_position() as usize, header.as_gnu()?);
                gap.then_some(Self::Sparse)
            }
            _ if has_no_data && their.size() != 0 => Some(Self::Data),
            _ => None,
        }
    }
}

/// Whether these PAX records mean the same to everybody.
fn is_plain(data: &[u8]) -> bool {
    let mut keys = Vec::new();
    let mut length = 0;
    for record in data.split_inclusive(|byte| *byte == b'\n') {
        let Some(space) = record.iter().position(|byte| *byte == b' ') else {
            return false;
        };
        let said = std::str::from_utf8(&record[..space])
            .ok()
            .and_then(|text| text.parse().ok());
        let Some(equals) = record.iter().position(|byte| *byte == b'=') else {
            return false;
        };
        if said != Some(record.len()) || equals < space || equals + 2 == record.len() {
            return false;
        }
        let key = &record[space + 1..equals];
        if keys.contains(&key) || key.starts_with(b"GNU.sparse.") {
            return false;
        }
        keys.push(key);
        length += record.len();
    }
    length == data.len()
}
