//! The headers of a tar archive: ustar, with a PAX header before it where ustar's fields do not suffice.

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Body {
    /// A file of so many bytes, which follow.
    File(u64),
    /// Another name of an earlier entry.
    HardLink(Vec<u8>),
    /// A symbolic link.
    Symlink(Vec<u8>),
    /// A character device, major and minor.
    Character(u32, u32),
    /// A block device, major and minor.
    Block(u32, u32),
    /// A directory.
    Directory,
    /// A FIFO.
    Fifo,
}

/// An entry of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header<'a> {
    /// The name; a directory's ends with a slash.
    pub(crate) name: &'a [u8],
    /// Permissions, without the type.
    pub(crate) mode: u32,
    /// The owner.
    pub(crate) uid: u32,
    /// The group.
    pub(crate) gid: u32,
    /// Seconds since 1970.
    pub(crate) time: i64,
    /// What it is.
    pub(crate) body: Body,
    /// Extended attributes.
    pub(crate) attributes: &'a [(Vec<u8>, Vec<u8>)],
}

/// The size of a block.
pub(crate) const BLOCK: usize = 512;
/// The largest number of seven octal digits: ids and device numbers.
const MAX_ID: u32 = 0o7_777_777;
/// The largest number of eleven octal digits: sizes and times.
const MAX_LONG: u64 = 0o77_777_777_777;

impl Header<'_> {
    /// All blocks of the header. `None`: an attribute has a name that PAX cannot tell.
    pub(crate) fn encode(&self) -> Option<Vec<u8>> {
        let (link, size) = match &self.body {
            Body::HardLink(target) | Body::Symlink(target) => (target.as_slice(), 0),
            Body::File(size) => (&b""[..], *size),
            _ => (&b""[..], 0),
        };
        let records = self.records(link, size)?;
        let mut blocks = Vec::with_capacity(BLOCK);
        if !records.is_empty() {
            let mut name = b"PaxHeaders.0/".to_vec();
            let own = self.name.strip_suffix(b"/").unwrap_or(self.name);
            name.extend_from_slice(own.rsplit(|byte| *byte == b'/').next().unwrap_or_default());
            let extended = Header {
                name: &name,
                mode: 0,
                uid: 0,
                gid: 0,
                time: 0,
                body: Body::File(records.len() as u64),
                attributes: &[],
            };
            extended.block(b'x', b"", records.len() as u64, &mut blocks);
            blocks.extend_from_slice(&records);
            blocks.resize(blocks.len().next_multiple_of(BLOCK), 0);
        }
        let kind = match &self.body {
            Body::File(_) => b'0',
            Body::HardLink(_) => b'1',
            Body::Symlink(_) => b'2',
            Body::Character(..) => b'3',
            Body::Block(..) => b'4',
            Body::Directory => b'5',
            Body::Fifo => b'6',
        };
        self.block(kind, link, size, &mut blocks);
        Some(blocks)
    }

    /// The PAX records for what does not fit into the fields, in a fixed order.
    fn records(&self, link: &[u8], size: u64) -> Option<Vec<u8>> {
        let mut records = Vec::new();
        let fits = |text: &[u8]| text.len() <= 100 && text.is_ascii();
        if !fits(self.name) {
            record(&mut records, b"path", self.name);
        }
        if !fits(link) {
            record(&mut records, b"linkpath", link);
        }
        if size > MAX_LONG {
            record(&mut records, b"size", size.to_string().as_bytes());
        }
        for (key, id) in [(b"uid", self.uid), (b"gid", self.gid)] {
            if id > MAX_ID {
                record(&mut records, key, id.to_string().as_bytes());
            }
        }
        if u64::try_from(self.time).map_or(true, |time| time > MAX_LONG) {
            record(&mut records, b"mtime", self.time.to_string().as_bytes());
        }
        for (name, value) in self.attributes {
            if name.contains(&b'=') {
                return None;
            }
            record(&mut records, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
        }
        Some(records)
    }

    fn block(&self, kind: u8, link: &[u8], size: u64, into: &mut Vec<u8>) {
        let mut block = [0_u8; BLOCK];
        text(&mut block[..100], self.name);
        octal(&mut block[100..108], u64::from(self.mode));
        octal(&mut block[108..116], u64::from(self.uid.min(MAX_ID)));
        octal(&mut block[116..124], u64::from(self.gid.min(MAX_ID)));
        octal(&mut block[124..136], size.min(MAX_LONG));
        octal(
            &mut block[136..148],
            u64::try_from(self.time).unwrap_or(0).min(MAX_LONG),
        );
        // The sum counts itself as spaces.
        block[148..156].fill(b' ');
        block[156] = kind;
        text(&mut block[157..257], link);
        block[257..265].copy_from_slice(b"ustar\x0000");
        // Linux's numbers of twelve and twenty bits fit. What is no device has zeros, as GNU tar and Go write them.
        let (major, minor) = match self.body {
            Body::Character(major, minor) | Body::Block(major, minor) => (major, minor),
            _ => (0, 0),
        };
        octal(&mut block[329..337], u64::from(major));
        octal(&mut block[337..345], u64::from(minor));
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        octal(&mut block[148..155], sum);
        into.extend_from_slice(&block);
    }
}

fn text(field: &mut [u8], value: &[u8]) {
    let length = value.len().min(field.len());
    field[..length].copy_from_slice(&value[..length]);
}

/// Octal digits and a NUL.
fn octal(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    let text = format!("{value:0digits$o}");
    field[..digits].copy_from_slice(text.as_bytes());
    field[digits] = 0;
}

/// `<length> <key>=<value>\n`, the length with its own digits.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(length.to_string().as_bytes());
    for part in [b" ", key, b"=", value, b"\n"] {
        records.extend_from_slice(part);
    }
}
