//! The tar reader: ustar, PAX and GNU members, with GNU's and PAX's long names and sparse files.
//!
//! Header layouts come from the `tar` crate; the iteration over members is here, as that crate's reads long names and
//! PAX headers of any size into memory and splits PAX records at newlines, so that a crafted record hides the size that
//! every other reader sees. Where archives contradict themselves this reader follows Go's `archive/tar`, whose reading
//! of a layer defines what the image's other users get: PAX over header, GNU long names over PAX, no data behind
//! links, devices and directories.
//!
//! Refuses wrong checksums, cut members, extension headers above 1 MiB, lying sparse maps and unknown member types.

use std::io::{self, BufRead, Read};

use tar::{GnuExtSparseHeader, GnuHeader, GnuSparseHeader, Header};

use super::entry::quoted;
pub(crate) use super::entry::{Entry, EntryKind};
use super::{
    number,
    pax::{self, Records, Timestamp},
    sparse::{self, Segment},
};
use crate::error::{Error, Result};

const BLOCK: usize = 512;
/// The most bytes of one PAX header or GNU long name, as in Go's reader.
const MAX_EXTENSION: u64 = 1024 * 1024;
/// The most extension headers in front of one member; honest writers need three.
const MAX_EXTENSIONS: usize = 16;

/// A reader of the members of one archive, in order.
pub(crate) struct Archive<R> {
    reader: R,
    /// Bytes of the present member's data that were not read yet.
    data: u64,
    /// Bytes from the end of that data to the next header.
    padding: u64,
    ended: bool,
}

/// What the extension headers before a member said.
#[derive(Default)]
struct Extensions {
    records: Option<Records>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl<R: BufRead> Archive<R> {
    /// Reads from `reader`, which stands at the first header.
    pub(crate) fn new(reader: R) -> Self {
        Self {
            reader,
            data: 0,
            padding: 0,
            ended: false,
        }
    }

    /// The next member; `None` at the end of the archive. Data of the present one that was not read is skipped. Blocks.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for a malformed archive; those of the reader.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>> {
        if self.ended {
            return Ok(None);
        }
        let mut extensions = Extensions::default();
        for _ in 0..=MAX_EXTENSIONS {
            self.skip()?;
            let Some(header) = self.header()? else {
                self.ended = true;
                return Ok(None);
            };
            let size = size_of(&header)?;
            match header.as_old().linkflag[0] {
                // Global PAX headers speak of the archive (git puts a commit there); layers do not use them.
                b'g' => {
                    self.extension(size)?;
                    extensions = Extensions::default();
                }
                b'x' => {
                    let data = self.extension(size)?;
                    extensions.records = Some(pax::parse(&data).map_err(malformed)?);
                }
                b'L' => extensions.long_name = Some(until_nul(&self.extension(size)?).to_vec()),
                b'K' => extensions.long_link = Some(until_nul(&self.extension(size)?).to_vec()),
                flag => return self.member(&header, flag, size, extensions).map(Some),
            }
        }
        Err(malformed("too many extension headers"))
    }

    /// The unread data of the present member, as far as it is buffered; empty at its end.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` when the archive ends within the data; those of the reader.
    pub(crate) fn data(&mut self) -> Result<&[u8]> {
        if self.data == 0 {
            return Ok(&[]);
        }
        let limit = usize::try_from(self.data).unwrap_or(usize::MAX);
        let buffer = self.reader.fill_buf().map_err(read_error)?;
        if buffer.is_empty() {
            return Err(malformed("ends within a member"));
        }
        Ok(&buffer[..buffer.len().min(limit)])
    }

    /// Marks `amount` bytes of [`Archive::data`] as read.
    pub(crate) fn consume(&mut self, amount: usize) {
        self.reader.consume(amount);
        self.data -= amount as u64;
    }

    /// The reader, which stands behind the end-of-archive marker once all members were read.
    pub(crate) fn into_inner(self) -> R {
        self.reader
    }

    fn member(&mut self, header: &Header, flag: u8, size: u64, extensions: Extensions) -> Result<Entry> {
        let records = extensions.records.unwrap_or_default();
        let name = extensions
            .long_name
            .or(records.path)
            .unwrap_or_else(|| header_name(header));
        let bad = |text: String| malformed(text).context(format!("entry {}", quoted(&name)));
        let kind = match flag {
            0 if name.ends_with(b"/") => EntryKind::Directory,
            0 | b'0' | b'S' => EntryKind::File,
            b'1' => EntryKind::HardLink,
            b'2' => EntryKind::Symlink,
            b'3' => EntryKind::CharacterDevice,
            b'4' => EntryKind::BlockDevice,
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            other => {
                return Err(bad(format!(
                    "member type {:?} is not supported",
                    char::from(other)
                )));
            }
        };
        let old = header.as_old();
        let field =
            |bytes: &[u8], what: &str| number::field(bytes).ok_or_else(|| bad(format!("malformed {what}")));
        let unsigned = |bytes: &[u8], what: &str| {
            u64::try_from(field(bytes, what)?).map_err(|_negative| bad(format!("negative {what}")))
        };
        let uid = records.uid.map_or_else(|| unsigned(&old.uid, "uid"), Ok)?;
        let gid = records.gid.map_or_else(|| unsigned(&old.gid, "gid"), Ok)?;
        let header_time = Timestamp {
            seconds: field(&old.mtime, "mtime")?,
            nanoseconds: 0,
        };
        let device = match (kind, header.as_ustar(), header.as_gnu()) {
            (EntryKind::CharacterDevice | EntryKind::BlockDevice, ustar, gnu) => {
                let (major, minor) = ustar
                    .map(|ustar| (&ustar.dev_major, &ustar.dev_minor))
                    .or_else(|| gnu.map(|gnu| (&gnu.dev_major, &gnu.dev_minor)))
                    .ok_or_else(|| bad("device without numbers".into()))?;
                (
                    unsigned(major, "device number")?,
                    unsigned(minor, "device number")?,
                )
            }
            _ => (0, 0),
        };
        let mode = (field(&old.mode, "mode")? & 0o7777) as u32;
        let link = extensions
            .long_link
            .or(records.link_path)
            .unwrap_or_else(|| until_nul(&old.linkname).to_vec());

        if kind == EntryKind::File {
            self.start_data(records.size.unwrap_or(size)).map_err(bad)?;
        }
        let mut entry = Entry {
            kind,
            link,
            mode,
            uid,
            gid,
            modified: records.modified.unwrap_or(header_time),
            accessed: records.accessed,
            size: self.data,
            device,
            xattrs: records.xattrs,
            segments: None,
            name,
        };
        let sparse = records.sparse;
        if flag == b'S' {
            let gnu = header
                .as_gnu()
                .ok_or_else(|| malformed("sparse member without a GNU header"))?;
            self.gnu_sparse(&mut entry, gnu)?;
        } else if kind == EntryKind::File && (sparse.major.is_some() || !sparse.map.is_empty()) {
            if let Some(name) = sparse.name {
                entry.name = name;
            }
            let real_size = sparse
                .real_size
                .ok_or_else(|| malformed("sparse file without a size"))?;
            let map = match (sparse.major, sparse.minor) {
                (Some(1), Some(0)) => self.sparse_1_0()?,
                (None | Some(0), _) => {
                    pax::segments(&sparse.map).ok_or_else(|| malformed("malformed sparse map"))?
                }
                (major, minor) => {
                    return Err(malformed(format!(
                        "sparse format {major:?}.{minor:?} is not supported"
                    )));
                }
            };
            self.set_sparse(&mut entry, map, real_size)?;
        }
        Ok(entry)
    }

    fn set_sparse(&mut self, entry: &mut Entry, map: Vec<Segment>, real_size: u64) -> Result<()> {
        let segments = sparse::check(map, real_size, self.data)
            .map_err(|text| malformed(text).context(format!("entry {}", quoted(&entry.name))))?;
        entry.segments = Some(segments);
        entry.size = real_size;
        Ok(())
    }

    /// The old GNU format: four segments in the header, more in blocks behind it that the size does not count.
    fn gnu_sparse(&mut self, entry: &mut Entry, gnu: &GnuHeader) -> Result<()> {
        let unsigned = |bytes: &[u8]| {
            number::field(bytes)
                .and_then(|value| u64::try_from(value).ok())
                .ok_or_else(|| malformed("malformed sparse map"))
        };
        let add = |map: &mut Vec<Segment>, headers: &[GnuSparseHeader]| -> Result<()> {
            for header in headers
                .iter()
                .take_while(|header| header.offset[0] != 0 && header.numbytes[0] != 0)
            {
                map.push(Segment {
                    offset: unsigned(&header.offset)?,
                    length: unsigned(&header.numbytes)?,
                });
            }
            if map.len() > sparse::MAX_SEGMENTS {
                return Err(malformed("sparse map is too long"));
            }
            Ok(())
        };
        let mut map = Vec::new();
        add(&mut map, &gnu.sparse)?;
        let mut more = gnu.isextended[0] != 0;
        while more {
            let mut block = GnuExtSparseHeader::new();
            self.read_exact(block.as_mut_bytes())?;
            let before = map.len();
            add(&mut map, &block.sparse)?;
            more = block.isextended[0] != 0;
            if more && map.len() == before {
                return Err(malformed("sparse map continues without segments"));
            }
        }
        let real_size = unsigned(&gnu.realsize)?;
        self.set_sparse(entry, map, real_size)
    }

    /// PAX format 1.0: the map stands in front of the data as decimal lines, padded to a block.
    fn sparse_1_0(&mut self) -> Result<Vec<Segment>> {
        let mut taken = 0u64;
        let mut line = || -> Result<u64> {
            let mut digits = Vec::new();
            loop {
                let byte = *self
                    .data()?
                    .first()
                    .ok_or_else(|| malformed("sparse map is cut"))?;
                self.consume(1);
                taken += 1;
                if byte == b'\n' {
                    return number::decimal(&digits).ok_or_else(|| malformed("malformed sparse map"));
                }
                if digits.len() > 20 {
                    return Err(malformed("malformed sparse map"));
                }
                digits.push(byte);
            }
        };
        let count = line()?;
        if count > sparse::MAX_SEGMENTS as u64 {
            return Err(malformed("sparse map is too long"));
        }
        let mut map = Vec::new();
        for _ in 0..count {
            map.push(Segment {
                offset: line()?,
                length: line()?,
            });
        }
        let mut pad = taken.next_multiple_of(BLOCK as u64) - taken;
        while pad > 0 {
            let available = (self.data()?.len() as u64).min(pad);
            if available == 0 {
                return Err(malformed("sparse map is cut"));
            }
            self.consume(available as usize);
            pad -= available;
        }
        Ok(map)
    }

    /// Reads the whole data of an extension header.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > MAX_EXTENSION {
            return Err(malformed(format!(
                "extension header of {size} bytes, at most {MAX_EXTENSION} are accepted"
            )));
        }
        self.start_data(size).map_err(malformed)?;
        let mut data = vec![0; size as usize];
        self.read_exact(&mut data)?;
        self.data = 0;
        Ok(data)
    }

    fn start_data(&mut self, size: u64) -> Result<(), String> {
        let padded = size
            .checked_next_multiple_of(BLOCK as u64)
            .filter(|padded| i64::try_from(*padded).is_ok())
            .ok_or_else(|| format!("size {size} is out of range"))?;
        self.data = size;
        self.padding = padded - size;
        Ok(())
    }

    /// Moves to the next header.
    fn skip(&mut self) -> Result<()> {
        loop {
            let available = self.data()?.len();
            if available == 0 {
                break;
            }
            self.consume(available);
        }
        let mut padding = usize::try_from(std::mem::take(&mut self.padding)).unwrap_or(BLOCK);
        while padding > 0 {
            let available = self.reader.fill_buf().map_err(read_error)?.len().min(padding);
            if available == 0 {
                // Some writers (`umoci insert`) end with the data of the last member.
                break;
            }
            self.reader.consume(available);
            padding -= available;
        }
        Ok(())
    }

    /// The next header block; `None` at the end of the archive, which is two zero blocks or the end of the stream.
    fn header(&mut self) -> Result<Option<Header>> {
        let mut header = Header::new_old();
        if !self.read_block(header.as_mut_bytes())? {
            return Ok(None);
        }
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            let mut second = [0; BLOCK];
            return match self.read_block(&mut second)? {
                true if second.iter().any(|byte| *byte != 0) => Err(malformed("data behind a zero block")),
                _ => Ok(None),
            };
        }
        let expected = number::field(&header.as_old().cksum);
        let bytes = header.as_bytes();
        let outside = || bytes[..148].iter().chain(&bytes[156..]);
        // Old writers summed signed characters.
        let unsigned = 8 * 0x20 + outside().map(|byte| i64::from(*byte)).sum::<i64>();
        let signed = 8 * 0x20 + outside().map(|byte| i64::from(byte.cast_signed())).sum::<i64>();
        if expected != Some(unsigned) && expected != Some(signed) {
            return Err(malformed("wrong checksum of a header"));
        }
        Ok(Some(header))
    }

    /// Reads one block; `false` when the stream ends before its first byte.
    fn read_block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool> {
        if self.reader.fill_buf().map_err(read_error)?.is_empty() {
            return Ok(false);
        }
        self.read_exact(block)?;
        Ok(true)
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> Result<()> {
        Read::read_exact(&mut self.reader, buffer).map_err(read_error)
    }
}

fn size_of(header: &Header) -> Result<u64> {
    number::field(&header.as_old().size)
        .and_then(|size| u64::try_from(size).ok())
        .ok_or_else(|| malformed("malformed size of a member"))
}

/// The name in the header itself: with the prefix in ustar, without it in GNU's and old headers.
fn header_name(header: &Header) -> Vec<u8> {
    let name = until_nul(&header.as_old().name);
    match header.as_ustar().map(|ustar| until_nul(&ustar.prefix)) {
        Some(prefix) if !prefix.is_empty() => [prefix, b"/", name].concat(),
        _ => name.to_vec(),
    }
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len())]
}

fn malformed(text: impl std::fmt::Display) -> Error {
    Error::invalid(format!("malformed archive: {text}"))
}

fn read_error(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => malformed("it is cut short"),
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
            Error::invalid("read archive").caused_by(error)
        }
        _ => Error::io("read archive", error),
    }
}
