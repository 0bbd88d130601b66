//! A disk with a volatile cache: a file that this process serves over FUSE, a loop device on it, a filesystem on that.
//!
//! Every write and every flush is noted in order, so that the disk as it was after any of them can be made again: what a
//! flush covered, and of the rest whatever chance left.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use integration_tests::{Scratch, binaries, run};

/// The size of the disk.
const SIZE: u64 = 48 << 20;
/// Where the 1024 bytes of ext4's superblock are.
const SUPERBLOCK: u64 = 1024;
/// The most that one request writes.
const MAX_WRITE: usize = 128 << 10;

/// What happened to the disk.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// Bytes were written: to the cache.
    Write { offset: u64, data: Vec<u8> },
    /// All that was written before is on the disk.
    Flush,
    /// So many steps were acknowledged.
    Mark(usize),
}

#[derive(Default)]
struct Log {
    events: Vec<Event>,
    writes: usize,
    /// The write that fails, counted from 0.
    bad: Option<usize>,
}

/// The disk, mounted.
pub(crate) struct Device {
    log: Arc<Mutex<Log>>,
    base: PathBuf,
    fuse: PathBuf,
    device: String,
    pub(crate) mounted: PathBuf,
}

impl Device {
    /// A fresh one below `scratch/name`. Its write number `bad` fails.
    pub(crate) fn new(scratch: &Scratch, name: &str, bad: Option<usize>) -> Self {
        let home = scratch.directory(name);
        let base = home.join("base.img");
        File::create(&base)
            .and_then(|file| file.set_len(SIZE))
            .expect("make an image");
        run(Command::new(binaries::peer("mkfs.ext4"))
            .args(["-q", "-F", "-m", "0", "-J", "size=4", "-b", "4096"])
            .args(["-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard"])
            .arg(&base))
        .ok();
        let content = fs::read(&base).expect("read the image");
        let log = Arc::new(Mutex::new(Log::default()));
        let fuse = home.join("disk");
        File::create(&fuse).expect("make the mount point");
        serve(&fuse, content, Arc::clone(&log));
        let device = run(Command::new("losetup").args(["--find", "--show"]).arg(&fuse)).ok();
        let device = device.trim().to_owned();
        // One request is one write, as blocks are pages: of several, loop would take a failure after the first for success.
        let queue = device.replace("/dev/", "/sys/block/") + "/queue/max_sectors_kb";
        fs::write(&queue, (MAX_WRITE >> 10).to_string()).expect("limit the requests");
        let mounted = scratch.directory(format!("{name}/mounted"));
        run(Command::new("mount")
            .args(["-t", "ext4", "-o", "nodiscard"])
            .arg(&device)
            .arg(&mounted))
        .ok();
        {
            // Counted from here: the filesystem is there.
            let mut log = lock(&log);
            log.bad = bad.map(|bad| log.writes + bad);
        }
        Self {
            log,
            base,
            fuse,
            device,
            mounted,
        }
    }

    /// Notes that the first `done` steps were acknowledged.
    pub(crate) fn mark(&self, done: usize) {
        lock(&self.log).events.push(Event::Mark(done));
    }

    /// How often the disk was written to.
    pub(crate) fn writes(&self) -> usize {
        lock(&self.log).writes
    }

    /// What happened so far.
    pub(crate) fn record(&self) -> Record {
        Record {
            base: self.base.clone(),
            events: lock(&self.log).events.clone(),
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        lock(&self.log).bad = None;
        run(Command::new("umount").arg("--lazy").arg(&self.mounted));
        run(Command::new("losetup").arg("--detach").arg(&self.device));
        run(Command::new("umount").arg("--lazy").arg(&self.fuse));
    }
}

fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The history of a disk.
pub(crate) struct Record {
    base: PathBuf,
    pub(crate) events: Vec<Event>,
}

/// What becomes of what no flush covered.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Volatile {
    Lost,
    /// Of each sector chance decides.
    Some(u64),
    Kept,
}

impl Volatile {
    /// The same for the same moment.
    pub(crate) fn by_chance(moment: usize) -> Self {
        match next(&mut (moment as u64)) % 4 {
            0 => Self::Lost,
            1 => Self::Kept,
            _ => Self::Some(moment as u64),
        }
    }
}

impl Record {
    /// How many steps were acknowledged before event number `cut`.
    pub(crate) fn done(&self, cut: usize) -> usize {
        let marks = self.events[..cut].iter().rev();
        marks
            .filter_map(|event| match event {
                Event::Mark(done) => Some(*done),
                _ => None,
            })
            .next()
            .unwrap_or(0)
    }

    /// Makes `image` the disk as it is found after its power went before event number `cut`.
    pub(crate) fn cut(&self, image: &Path, cut: usize, volatile: Volatile) {
        run(Command::new("cp")
            .arg("--sparse=always")
            .arg(&self.base)
            .arg(image))
        .ok();
        let file = File::options().write(true).open(image).expect("open the image");
        let flushed = self.events[..cut]
            .iter()
            .rposition(|event| matches!(event, Event::Flush))
            .unwrap_or(0);
        let mut chance = match volatile {
            Volatile::Some(seed) => seed,
            _ => 0,
        };
        let mut kept = false;
        for (number, event) in self.events[..cut].iter().enumerate() {
            let Event::Write { offset, data } = event else {
                continue;
            };
            let write = |at: usize, piece: &[u8]| {
                file.write_all_at(piece, offset + at as u64)
                    .expect("write the image");
            };
            if number < flushed || matches!(volatile, Volatile::Kept) {
                write(0, data);
                continue;
            }
            if matches!(volatile, Volatile::Lost) {
                continue;
            }
            for (sector, piece) in data.chunks(512).enumerate() {
                // The superblock is the filesystem's own affair, which it leaves to the disk to write as one.
                let is_torn_off = offset + sector as u64 * 512 == SUPERBLOCK + 512;
                if !is_torn_off {
                    kept = next(&mut chance).is_multiple_of(2);
                }
                if kept {
                    write(sector * 512, piece);
                }
            }
        }
    }
}

/// A number that looks like chance (splitmix64).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut word = *state;
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// Mounts a filesystem that is one file on the file `path`, and serves it in a thread until it is unmounted.
fn serve(path: &Path, content: Vec<u8>, log: Arc<Mutex<Log>>) {
    let fuse = File::options()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .expect("open /dev/fuse");
    let options = format!(
        "fd={},rootmode=100600,user_id=0,group_id=0,allow_other,max_read={MAX_WRITE}",
        fuse.as_raw_fd()
    );
    let options = std::ffi::CString::new(options).expect("no zero byte");
    rustix::mount::mount(
        "wharf-test",
        path,
        "fuse.wharf-test",
        rustix::mount::MountFlags::NODEV,
        options.as_c_str(),
    )
    .expect("mount the disk");
    std::thread::spawn(move || Server { content, log }.run(fuse));
}

struct Server {
    content: Vec<u8>,
    log: Arc<Mutex<Log>>,
}

/// Numbers of `enum fuse_opcode`.
mod operation {
    pub(super) const FORGET: u32 = 2;
    pub(super) const GETATTR: u32 = 3;
    pub(super) const SETATTR: u32 = 4;
    pub(super) const OPEN: u32 = 14;
    pub(super) const READ: u32 = 15;
    pub(super) const WRITE: u32 = 16;
    pub(super) const RELEASE: u32 = 18;
    pub(super) const FSYNC: u32 = 20;
    pub(super) const FLUSH: u32 = 25;
    pub(super) const INIT: u32 = 26;
    pub(super) const INTERRUPT: u32 = 36;
    pub(super) const BATCH_FORGET: u32 = 42;
    pub(super) const FALLOCATE: u32 = 43;
}

impl Server {
    fn run(mut self, mut fuse: File) {
        // The header, that of a write, and the data.
        let mut request = vec![0; MAX_WRITE + 4096];
        loop {
            let length = match fuse.read(&mut request) {
                Ok(length) => length,
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return,
                // Interrupted, or a request that its process took back.
                Err(_) => continue,
            };
            let (head, body) = request[..length].split_at(40);
            let operation = word(head, 4);
            if [operation::FORGET, operation::BATCH_FORGET, operation::INTERRUPT].contains(&operation) {
                continue;
            }
            let (error, payload) = match self.answer(operation, body) {
                Ok(payload) => (0, payload),
                Err(error) => (-error, Vec::new()),
            };
            let mut answer = Vec::with_capacity(16 + payload.len());
            answer.extend_from_slice(&(16 + payload.len() as u32).to_le_bytes());
            answer.extend_from_slice(&error.to_le_bytes());
            answer.extend_from_slice(&head[8..16]);
            answer.extend_from_slice(&payload);
            // The request may have been taken back.
            drop(fuse.write(&answer));
        }
    }

    fn answer(&mut self, operation: u32, body: &[u8]) -> Result<Vec<u8>, i32> {
        match operation {
            operation::INIT => Ok(init(body)),
            operation::GETATTR | operation::SETATTR => Ok(self.attributes()),
            operation::OPEN => Ok(vec![0; 16]),
            operation::READ => {
                let (offset, size) = (long(body, 8) as usize, word(body, 16) as usize);
                let end = (offset + size).min(self.content.len());
                Ok(self.content[offset.min(end)..end].to_vec())
            }
            operation::WRITE => self.write(long(body, 8), &body[40..]),
            operation::FSYNC => {
                lock(&self.log).events.push(Event::Flush);
                Ok(Vec::new())
            }
            operation::FLUSH | operation::RELEASE => Ok(Vec::new()),
            operation::FALLOCATE => Err(libc::EOPNOTSUPP),
            _ => Err(libc::ENOSYS),
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<Vec<u8>, i32> {
        let mut log = lock(&self.log);
        let number = log.writes;
        log.writes += 1;
        if log.bad == Some(number) {
            return Err(libc::EIO);
        }
        let start = offset as usize;
        let place = self
            .content
            .get_mut(start..start + data.len())
            .ok_or(libc::ENOSPC)?;
        place.copy_from_slice(data);
        log.events.push(Event::Write {
            offset,
            data: data.to_vec(),
        });
        let mut answer = (data.len() as u32).to_le_bytes().to_vec();
        answer.extend_from_slice(&[0; 4]);
        Ok(answer)
    }

    /// `struct fuse_attr_out`.
    fn attributes(&self) -> Vec<u8> {
        let mut out = vec![0; 104];
        let size = self.content.len() as u64;
        put(&mut out, 16, &1u64.to_le_bytes());
        put(&mut out, 24, &size.to_le_bytes());
        put(&mut out, 32, &(size / 512).to_le_bytes());
        put(&mut out, 76, &(libc::S_IFREG | 0o600).to_le_bytes());
        put(&mut out, 80, &1u32.to_le_bytes());
        put(&mut out, 96, &4096u32.to_le_bytes());
        out
    }
}

/// `struct fuse_init_out`: the kernel's version, big writes.
fn init(body: &[u8]) -> Vec<u8> {
    const BIG_WRITES: u32 = 1 << 5;
    const MAX_PAGES: u32 = 1 << 22;
    let mut out = vec![0; 64];
    put(&mut out, 0, &7u32.to_le_bytes());
    put(&mut out, 4, &word(body, 4).min(31).to_le_bytes());
    put(&mut out, 8, &word(body, 8).to_le_bytes());
    put(&mut out, 12, &(BIG_WRITES | MAX_PAGES).to_le_bytes());
    put(&mut out, 16, &16u16.to_le_bytes());
    put(&mut out, 18, &12u16.to_le_bytes());
    put(&mut out, 20, &(MAX_WRITE as u32).to_le_bytes());
    put(&mut out, 24, &1u32.to_le_bytes());
    put(&mut out, 28, &((MAX_WRITE / 4096) as u16).to_le_bytes());
    out
}

fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
