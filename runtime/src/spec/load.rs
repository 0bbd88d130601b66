//! From bytes to a typed configuration.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::locate::{typed, typed_settled};
use super::read::read;
use super::{Error, normalize, oci, validate, validate_process};
use crate::seccomp::later;

/// The configuration's name in a bundle.
pub const CONFIG_FILE: &str = "config.json";

/// The largest configuration that is read. Docker's with a full seccomp profile has about 40 KiB.
pub const MAX_CONFIG_BYTES: u64 = 16 << 20;

/// A configuration that was read and typed.
#[derive(Clone, Debug)]
pub struct Spec {
    original: Arc<Vec<u8>>,
    oci: oci::Spec,
    warnings: Vec<String>,
    /// Where in the document the profile of the system call filter stands, if that may be looked into later.
    profile: Option<Range<usize>>,
}

impl Spec {
    /// The document as it was read, byte for byte.
    #[must_use]
    pub fn original(&self) -> &[u8] {
        &self.original
    }

    /// The same for those who keep it.
    pub(crate) fn kept_original(&self) -> Arc<Vec<u8>> {
        self.original.clone()
    }

    /// The typed document. Of one that a [`crate::Runtime`] has loaded, `linux.seccomp` is there and empty if its profile is
    /// looked into later: when the container's process is being made, which needs its filter last.
    #[must_use]
    pub fn oci(&self) -> &oci::Spec {
        &self.oci
    }

    /// The text of a profile that may be looked into later. It is JSON, and not an empty profile.
    pub(crate) fn later_profile(&self) -> Option<&str> {
        let text = self.original.get(self.profile.clone()?)?;
        str::from_utf8(text).ok()
    }

    /// Types that profile.
    ///
    /// # Errors
    ///
    /// A field is not usable.
    pub(crate) fn type_profile(&self) -> Result<oci::LinuxSeccomp, Error> {
        let text = self.later_profile().unwrap_or_default();
        read(text.as_bytes(), None).or_else(|_| {
            // With what is around it: a complaint names the field in the document.
            let whole: oci::Spec = typed_settled(&self.original, "")?;
            let profile = whole.linux.and_then(|linux| linux.seccomp);
            profile.ok_or_else(|| Error::field("linux.seccomp", "is not there"))
        })
    }

    /// What was ignored, one sentence each, for the caller to log.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

/// Reads and checks `config.json` in `bundle`. Blocks on file reads only.
///
/// # Errors
///
/// The file cannot be read, is too large, is not JSON, or a field is not usable.
pub fn load(bundle: &Path) -> Result<Spec, Error> {
    load_with(bundle, parse)
}

/// As [`load`], but that a profile that may be looked into later is not looked into yet.
pub(crate) fn load_but_profile(bundle: &Path) -> Result<Spec, Error> {
    load_with(bundle, parse_but_profile)
}

fn load_with(bundle: &Path, parse: impl FnOnce(Vec<u8>) -> Result<Spec, Error>) -> Result<Spec, Error> {
    let path = bundle.join(CONFIG_FILE);
    match parse(read_bounded(&path)?) {
        Err(Error::Syntax(source)) => Err(Error::NotJson { path, source }),
        parsed => parsed,
    }
}

/// Types and checks a document that is already in memory.
///
/// # Errors
///
/// As [`load`], but for reading.
pub fn parse(original: Vec<u8>) -> Result<Spec, Error> {
    parse_with(original, false)
}

/// As [`load_but_profile`], of a document in memory.
pub(crate) fn parse_but_profile(original: Vec<u8>) -> Result<Spec, Error> {
    parse_with(original, true)
}

fn parse_with(original: Vec<u8>, leaves_profile: bool) -> Result<Spec, Error> {
    let mut profile = None;
    let as_it_is = read(
        &original,
        Some(&mut |at: Range<usize>| {
            let text = original.get(at.clone()).map(str::from_utf8);
            profile = Some(at).filter(|_| matches!(text, Some(Ok(text)) if later::may_come_later(text)));
            leaves_profile && profile.is_some()
        }),
    );
    let mut oci: oci::Spec = match as_it_is {
        Ok(oci) => oci,
        Err(_) => {
            // Typed is another text then.
            profile = None;
            typed_settled(&original, "")?
        }
    };
    let warnings = normalize::spec(&mut oci, profile.is_some());
    validate(&oci)?;
    Ok(Spec {
        original: Arc::new(original),
        oci,
        warnings,
        profile,
    })
}

/// Types and checks a `process` object, as `exec --process` takes it; answers the warnings beside it.
///
/// # Errors
///
/// As [`parse`].
pub fn parse_process(document: &[u8]) -> Result<(oci::Process, Vec<String>), Error> {
    let mut process = typed(document, "process")?;
    let warnings = normalize::process(&mut process);
    validate_process(&process, "process")?;
    Ok((process, warnings))
}

/// Types a `resources` object, as `update` takes it.
///
/// # Errors
///
/// It is not JSON, or a field is not usable.
pub fn parse_resources(document: &[u8]) -> Result<oci::LinuxResources, Error> {
    typed(document, "linux.resources")
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, Error> {
    let io = |operation| {
        move |source| Error::Io {
            operation,
            path: PathBuf::from(path),
            source,
        }
    };
    // A FIFO would keep everybody waiting who only wants to know what is in the bundle.
    let opened = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::NotFound {
                path: path.to_owned(),
            });
        }
        Err(error) => return Err(io("open")(error)),
    };
    let metadata = file.metadata().map_err(io("stat"))?;
    if !metadata.is_file() {
        return Err(io("open")(io::Error::other("no regular file")));
    }
    let length = metadata.len();
    // One more than there is: the read that finds the end needs a place too.
    let mut bytes = Vec::with_capacity(length.min(MAX_CONFIG_BYTES) as usize + 1);
    file.take(MAX_CONFIG_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(io("read"))?;
    if bytes.len() as u64 > MAX_CONFIG_BYTES {
        return Err(Error::TooLarge {
            path: path.to_owned(),
            limit: MAX_CONFIG_BYTES,
        });
    }
    Ok(bytes)
}
