//! Mount options: words of `mounts[].options` to flags, propagation and data.
//!
//! Refused by name: what asks for a change that would silently not happen (`idmap`, `tmpcopyup`, `remount`, …).

use std::ffi::{CStr, CString};

use super::Error;
use super::text::c_string;
use crate::sys::mount::Attributes;

/// The longest value `fsconfig(2)` takes, without its final zero.
const MAX_VALUE: usize = 255;

/// The options of one mount, sorted out.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Options {
    /// For the mount itself.
    pub attributes: Attributes,
    /// For the mount and all below it (`rro`, …).
    pub recursive: Attributes,
    /// Propagation types in order, each with whether it holds for the whole tree.
    pub propagation: Vec<(u64, bool)>,
    /// `bind` or `rbind`: the latter is `Some(true)`.
    pub bind: Option<bool>,
    /// Words for the superblock (`ro`, `sync`, …) and for the file system, in order.
    pub data: Vec<(CString, Option<CString>)>,
}

/// What a word sets and clears among the mount attributes.
struct Word {
    name: &'static str,
    set: u64,
    clear: u64,
    /// The flag's word for the superblock, where there is one.
    superblock: Option<&'static CStr>,
}

const fn word(name: &'static str, set: u64, clear: u64, superblock: Option<&'static CStr>) -> Word {
    Word {
        name,
        set,
        clear,
        superblock,
    }
}

const RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;
const NOSUID: u64 = libc::MOUNT_ATTR_NOSUID;
const NODEV: u64 = libc::MOUNT_ATTR_NODEV;
const NOEXEC: u64 = libc::MOUNT_ATTR_NOEXEC;
/// The field of the three access time modes: they exclude each other.
const ATIME: u64 = libc::MOUNT_ATTR__ATIME;
const NOATIME: u64 = libc::MOUNT_ATTR_NOATIME;
const STRICTATIME: u64 = libc::MOUNT_ATTR_STRICTATIME;
const NODIRATIME: u64 = libc::MOUNT_ATTR_NODIRATIME;
const NOSYMFOLLOW: u64 = libc::MOUNT_ATTR_NOSYMFOLLOW;

/// Every word that is about the mount; all but the superblock's have an `r…` form for the whole tree.
const WORDS: [Word; 18] = [
    word("ro", RDONLY, 0, Some(c"ro")),
    word("rw", 0, RDONLY, None),
    word("nosuid", NOSUID, 0, None),
    word("suid", 0, NOSUID, None),
    word("nodev", NODEV, 0, None),
    word("dev", 0, NODEV, None),
    word("noexec", NOEXEC, 0, None),
    word("exec", 0, NOEXEC, None),
    word("noatime", NOATIME, ATIME, None),
    word("atime", 0, ATIME, None),
    word("relatime", 0, ATIME, None),
    word("norelatime", 0, ATIME, None),
    word("strictatime", STRICTATIME, ATIME, None),
    word("nostrictatime", 0, ATIME, None),
    word("nodiratime", NODIRATIME, 0, None),
    word("diratime", 0, NODIRATIME, None),
    word("nosymfollow", NOSYMFOLLOW, 0, None),
    word("symfollow", 0, NOSYMFOLLOW, None),
];

/// Flags of the superblock only.
const SUPERBLOCK: [(&str, Option<&CStr>); 9] = [
    ("sync", Some(c"sync")),
    ("async", None),
    ("dirsync", Some(c"dirsync")),
    ("lazytime", Some(c"lazytime")),
    ("nolazytime", None),
    ("mand", Some(c"mand")),
    ("nomand", None),
    ("defaults", None),
    ("silent", None),
];

const PROPAGATION: [(&str, u64, bool); 8] = [
    ("private", libc::MS_PRIVATE, false),
    ("rprivate", libc::MS_PRIVATE, true),
    ("shared", libc::MS_SHARED, false),
    ("rshared", libc::MS_SHARED, true),
    ("slave", libc::MS_SLAVE, false),
    ("rslave", libc::MS_SLAVE, true),
    ("unbindable", libc::MS_UNBINDABLE, false),
    ("runbindable", libc::MS_UNBINDABLE, true),
];

const REFUSED: [&str; 7] = [
    "remount",
    "idmap",
    "ridmap",
    "tmpcopyup",
    "copy-symlink",
    "loud",
    "iversion",
];

/// Every word that is known by name, sorted; others are passed to the file system.
pub(crate) fn words() -> Vec<String> {
    let plain = WORDS.iter().map(|word| word.name.to_owned());
    let recursive = WORDS.iter().map(|word| format!("r{}", word.name));
    let superblock = SUPERBLOCK.iter().map(|(name, _)| (*name).to_owned());
    let propagation = PROPAGATION.iter().map(|(name, ..)| (*name).to_owned());
    let bind = ["bind", "rbind"].map(str::to_owned);
    let mut words: Vec<String> = plain
        .chain(recursive)
        .chain(superblock)
        .chain(propagation)
        .chain(bind)
        .collect();
    words.sort_unstable();
    words
}

/// Sorts out the options of a mount; `field` is its place in the document.
pub(super) fn parse(field: &str, words: &[String]) -> Result<Options, Error> {
    let mut options = Options::default();
    for text in words {
        let recursive = text
            .strip_prefix('r')
            .and_then(|rest| WORDS.iter().find(|word| word.name == rest));
        if let Some(word) = WORDS.iter().find(|word| word.name == text) {
            apply(&mut options.attributes, word);
            if let Some(name) = word.superblock {
                options.data.push((name.to_owned(), None));
            }
            if text == "rw" {
                options.data.retain(|(name, _)| name.as_c_str() != c"ro");
            }
        } else if let Some((_, name)) = SUPERBLOCK.iter().find(|(name, _)| name == text) {
            options.data.extend(name.map(|name| (name.to_owned(), None)));
        } else if let Some((_, flag, tree)) = PROPAGATION.iter().find(|(name, ..)| name == text) {
            options.propagation.push((*flag, *tree));
        } else if text == "bind" || text == "rbind" {
            options.bind = Some(text == "rbind" || options.bind == Some(true));
        } else if let Some(word) = recursive {
            apply(&mut options.recursive, word);
        } else if REFUSED.contains(&text.as_str()) {
            return Err(Error::Unsupported(format!("mount option {text} ({field})")));
        } else {
            options.data.push(data(field, text)?);
        }
    }
    Ok(options)
}

/// A later word wins over an earlier one, as with `mount(8)`.
fn apply(attributes: &mut Attributes, word: &Word) {
    attributes.set = attributes.set & !word.clear | word.set;
    attributes.clear = attributes.clear & !(word.set & !ATIME) | word.clear;
}

fn data(field: &str, text: &str) -> Result<(CString, Option<CString>), Error> {
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (text, None),
    };
    if key.is_empty() || key.len() > MAX_VALUE || value.is_some_and(|value| value.len() > MAX_VALUE) {
        return Err(Error::field(
            field,
            format!("an option must have a name and at most {MAX_VALUE} bytes"),
        ));
    }
    let value = value.map(|value| c_string(field, value)).transpose()?;
    Ok((c_string(field, key)?, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Options {
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        parse("mounts[0]", &words).unwrap()
    }

    #[test]
    fn the_later_word_wins() {
        assert_eq!(parsed(&["ro", "rw"]).attributes, Attributes::new(0, RDONLY, 0));
        assert!(parsed(&["ro", "rw"]).data.is_empty());
        assert_eq!(parsed(&["rw", "ro"]).attributes, Attributes::new(RDONLY, 0, 0));
        assert_eq!(
            parsed(&["noatime", "strictatime"]).attributes,
            Attributes::new(STRICTATIME, ATIME, 0)
        );
    }

    #[test]
    fn words_go_where_they_belong() {
        let options = parsed(&["rbind", "rro", "rslave", "mode=755", "newinstance", "sync"]);
        assert_eq!(options.bind, Some(true));
        assert_eq!(options.recursive, Attributes::new(RDONLY, 0, 0));
        assert_eq!(options.propagation, [(libc::MS_SLAVE, true)]);
        assert_eq!(
            options.data,
            [
                (c"mode".to_owned(), Some(c"755".to_owned())),
                (c"newinstance".to_owned(), None),
                (c"sync".to_owned(), None),
            ]
        );
        // A word of the file system that starts with r is not a recursive flag.
        assert_eq!(parsed(&["rootcontext=x"]).recursive, Attributes::default());
    }

    #[test]
    fn what_would_silently_not_happen_is_refused() {
        for word in REFUSED {
            assert!(parse("mounts[0]", &[word.to_owned()]).is_err(), "{word}");
        }
        assert!(parse("mounts[0]", &["x".repeat(300)]).is_err());
        assert!(parse("mounts[0]", &["=x".to_owned()]).is_err());
    }
}
