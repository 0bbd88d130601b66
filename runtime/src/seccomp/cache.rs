//! Compiled filters, kept from one container to the next.
//!
//! Engines give every container the same profile, and compiling it takes longer than all other planning. What is kept is a
//! file for each of [`SLOTS`] numbers, and a profile's number is its hash: so there are never more files than that.
//!
//! ```text
//! <directory>/            0700
//!   <slot>                0600; a filter
//!     magic               8 bytes
//!     checksum            u64, of everything behind it
//!     flags               u32, for seccomp(2)
//!     length of the key   u32
//!     key                 what was compiled, by what: the hash of the sources, the architecture, the profile's text
//!     instructions        8 bytes each, to the end
//!   .<slot>               one that is being written
//! ```
//!
//! Numbers are little-endian. A file is written under another name and renamed, and never flushed: it does not outlive
//! the boot where its directory is on a tmpfs. A crash leaves a `.` file, which the next writer overwrites.
//!
//! # What keeps a wrong filter out
//!
//! - The key is the profile as it stands in the configuration, the program that typed and compiled it (a hash of its sources) and
//!   the architecture, and it is compared and not only its hash: no two profiles share a filter, whoever wrote them.
//! - What is kept was typed and compiled without a complaint: a profile that has no filter here is looked into.
//! - A filter with a listener is not kept: more of its profile is needed than the filter. (Nor is such a profile looked for.)
//! - A file of another owner, one that others may write, a link, or one with a second name is not read.
//! - The checksum tells what a writer that was cut short, or two at once, have left.
//!
//! A file that cannot be used is as good as none: then the profile is compiled.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};

use super::{Instruction, MAX_INSTRUCTIONS, Program};

const MAGIC: &[u8; 8] = b"wharfbpf";
/// Magic, checksum, flags and length of the key.
const HEAD: usize = 24;
/// How many filters are kept.
const SLOTS: u64 = 16;
/// A profile that is longer is not kept. Docker's has 10 KiB, or 16 on many lines.
const MAX_PROFILE_BYTES: usize = 256 << 10;
const MAX_FILE_BYTES: u64 = (HEAD + 64 + MAX_PROFILE_BYTES + 8 * MAX_INSTRUCTIONS) as u64;

/// Where filters are kept; nowhere by default.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cache {
    directory: Option<PathBuf>,
}

impl Cache {
    /// A cache in `directory`, which is made by the first filter.
    pub fn at(directory: PathBuf) -> Self {
        Self {
            directory: Some(directory),
        }
    }

    /// The filter of a profile, which is given as it is written, if it is kept.
    pub fn load(&self, profile: &[u8]) -> Option<Program> {
        let directory = self.directory.as_deref().filter(|_| fits(profile))?;
        decode(&read(&directory.join(slot(profile)))?, profile)
    }

    /// Keeps the filter of a profile. It is of no consequence if that fails: the directory may be read-only, or full.
    pub fn store(&self, profile: &[u8], program: &Program) {
        if let Some(directory) = &self.directory
            && fits(profile)
            && !program.has_listener()
        {
            write(directory, &slot(profile), &encode(program, profile)).ok();
        }
    }
}

/// What a profile's text has before it in a key: the compiler, and what it compiles for.
const COMPILER: [&str; 2] = [env!("WHARF_SECCOMP_SOURCES"), std::env::consts::ARCH];

fn fits(profile: &[u8]) -> bool {
    profile.len() <= MAX_PROFILE_BYTES
}

fn slot(profile: &[u8]) -> String {
    (hash(profile) % SLOTS).to_string()
}

/// Finds what chance has changed, eight bytes at a time; no defence against intent, and none is needed of it.
fn hash(bytes: &[u8]) -> u64 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix =
        |hash: u64, word: [u8; 8]| (hash.rotate_left(23) ^ u64::from_le_bytes(word)).wrapping_mul(FACTOR);
    let (words, rest) = bytes.as_chunks::<8>();
    let hash = words
        .iter()
        .fold(bytes.len() as u64, |hash, word| mix(hash, *word));
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let hash = mix(hash, last);
    hash ^ hash >> 32
}

fn encode(program: &Program, profile: &[u8]) -> Vec<u8> {
    let key = [COMPILER[0].as_bytes(), COMPILER[1].as_bytes(), profile].concat();
    let mut body = Vec::with_capacity(HEAD + key.len() + 8 * program.instructions.len());
    body.extend(program.flags.to_le_bytes());
    body.extend((key.len() as u32).to_le_bytes());
    body.extend(key);
    for instruction in &program.instructions {
        body.extend(encode_instruction(instruction));
    }
    [MAGIC.as_slice(), &hash(&body).to_le_bytes(), &body].concat()
}

/// The filter in `file`, if it is that of `profile` and whole.
fn decode(file: &[u8], profile: &[u8]) -> Option<Program> {
    let (checksum, body) = file.strip_prefix(MAGIC)?.split_first_chunk()?;
    if u64::from_le_bytes(*checksum) != hash(body) {
        return None;
    }
    let (flags, body) = body.split_first_chunk()?;
    let (length, body) = body.split_first_chunk()?;
    let (kept, code) = body.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    let kept = COMPILER
        .iter()
        .try_fold(kept, |kept, part| kept.strip_prefix(part.as_bytes()))?;
    let (code, rest) = code.as_chunks::<8>();
    let fits = !code.is_empty() && code.len() <= MAX_INSTRUCTIONS && rest.is_empty();
    (kept == profile && fits).then(|| Program {
        instructions: code.iter().map(decode_instruction).collect(),
        flags: u32::from_le_bytes(*flags),
    })
}

pub(super) fn encode_instruction(&Instruction { code, jt, jf, k }: &Instruction) -> [u8; 8] {
    let ([c0, c1], [k0, k1, k2, k3]) = (code.to_le_bytes(), k.to_le_bytes());
    [c0, c1, jt, jf, k0, k1, k2, k3]
}

pub(super) fn decode_instruction(&[c0, c1, jt, jf, k0, k1, k2, k3]: &[u8; 8]) -> Instruction {
    Instruction {
        code: u16::from_le_bytes([c0, c1]),
        jt,
        jf,
        k: u32::from_le_bytes([k0, k1, k2, k3]),
    }
}

/// The bytes of a file that only this user can have written.
fn read(path: &Path) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(openat(CWD, path, flags, Mode::empty()).ok()?);
    let about = file.metadata().ok()?;
    let own = about.is_file()
        && about.uid() == rustix::process::geteuid().as_raw()
        && about.mode() & 0o077 == 0
        && about.nlink() == 1;
    if !own || about.len() > MAX_FILE_BYTES {
        return None;
    }
    let mut bytes = Vec::with_capacity(about.len() as usize + 1);
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn write(directory: &Path, slot: &str, bytes: &[u8]) -> io::Result<()> {
    match std::fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = openat(CWD, directory, flags, Mode::empty())?;
    let new = format!(".{slot}");
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(&directory, &new, flags, Mode::RUSR | Mode::WUSR)?);
    file.write_all(bytes)?;
    rustix::fs::renameat(&directory, &new, &directory, slot)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;
    use crate::spec::oci::LinuxSeccomp;

    fn profile(call: &str) -> Vec<u8> {
        let text = r#"{
            "defaultAction": "SCMP_ACT_ERRNO",
            "architectures": ["SCMP_ARCH_X86"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "syscalls": [{"names": ["CALL", "write"], "action": "SCMP_ACT_ALLOW"}]
        }"#;
        text.replace("CALL", call).into_bytes()
    }

    fn compile(profile: &[u8]) -> Program {
        let profile: LinuxSeccomp = serde_json::from_slice(profile).unwrap();
        crate::seccomp::compile(&profile).unwrap()
    }

    /// A cache that keeps one filter, and that filter's file.
    fn kept(directory: &Path) -> (Cache, PathBuf) {
        let cache = Cache::at(directory.join("filters"));
        cache.store(&profile("read"), &compile(&profile("read")));
        let files: Vec<_> = fs::read_dir(directory.join("filters")).unwrap().collect();
        assert_eq!(files.len(), 1);
        (cache, files[0].as_ref().unwrap().path())
    }

    #[test]
    fn what_is_kept_is_what_was_compiled() {
        let directory = tempfile::tempdir().unwrap();
        let (cache, file) = kept(directory.path());
        let compiled = compile(&profile("read"));
        assert_eq!(cache.load(&profile("read")), Some(compiled));
        assert_eq!(cache.load(&profile("open")), None);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
        assert_eq!(Cache::default().load(&profile("read")), None);
    }

    #[test]
    fn another_profile_is_not_answered_for_though_it_has_the_same_place() {
        let directory = tempfile::tempdir().unwrap();
        let (cache, file) = kept(directory.path());
        let mut met = 0;
        for number in 0..200 {
            let other = profile(&format!("call{number}"));
            assert_eq!(cache.load(&other), None);
            met += usize::from(Some(slot(&other).as_str()) == file.file_name().unwrap().to_str());
        }
        assert!(met > 0, "none of many profiles has the place of another");
    }

    #[test]
    fn no_more_than_so_many_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let (cache, file) = kept(directory.path());
        let program = compile(&profile("read"));
        for number in 0..200 {
            cache.store(&profile(&format!("call{number}")), &program);
        }
        assert_eq!(
            fs::read_dir(file.parent().unwrap()).unwrap().count() as u64,
            SLOTS
        );
    }

    #[test]
    fn a_changed_file_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let (cache, file) = kept(directory.path());
        let whole = fs::read(&file).unwrap();
        for at in (0..whole.len()).step_by(7) {
            let mut changed = whole.clone();
            changed[at] ^= 0x10;
            fs::write(&file, changed).unwrap();
            assert_eq!(cache.load(&profile("read")), None, "byte {at}");
            fs::write(&file, &whole[..at]).unwrap();
            assert_eq!(cache.load(&profile("read")), None, "{at} bytes");
        }
        fs::write(&file, &whole).unwrap();
        assert!(cache.load(&profile("read")).is_some());
    }

    #[test]
    fn a_file_that_others_could_have_written_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let (cache, file) = kept(directory.path());
        for mode in [0o620, 0o602, 0o640, 0o604] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(cache.load(&profile("read")), None, "mode {mode:o}");
        }
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(cache.load(&profile("read")).is_some());
        fs::hard_link(&file, directory.path().join("second name")).unwrap();
        assert_eq!(cache.load(&profile("read")), None);
        fs::remove_file(&file).unwrap();
        symlink(directory.path().join("second name"), &file).unwrap();
        assert_eq!(cache.load(&profile("read")), None);
    }

    #[test]
    fn a_filter_with_a_listener_is_not_kept() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::at(directory.path().join("filters"));
        let text = r#"{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent",
            "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}"#;
        cache.store(text.as_bytes(), &compile(text.as_bytes()));
        assert_eq!(cache.load(text.as_bytes()), None);
    }

    #[test]
    fn a_place_that_cannot_be_written_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::at(directory.path().join("not/there"));
        cache.store(&profile("read"), &compile(&profile("read")));
        assert_eq!(cache.load(&profile("read")), None);
    }
}
