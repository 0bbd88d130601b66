//! Mount options: words of `mounts[].options` to flags, propagation and data.
//!
//! The words are those of `mount(8)` and of the specification; every other word is for the file system. What they mean
//! together is what `mount(2)` makes of the flags, as runc's users know it: a bind mount with any word about its
//! flags has exactly those that were named, and one without keeps what its source has.

use std::ffi::{CStr, CString};

use super::Error;
use super::text::c_string;
use crate::sys::mount::Attributes;

/// The longest value `fsconfig(2)` takes, without its final zero.
const MAX_VALUE: usize = 255;
/// What `mount(2)` takes of all values together, with room for the flags' words.
const MAX_DATA: usize = 4000;

const NOSYMFOLLOW: u64 = 256;
/// The access time flags, of which the kernel keeps what is there when none is given.
const TIMES: u64 = libc::MS_NOATIME | libc::MS_NODIRATIME | libc::MS_RELATIME | libc::MS_STRICTATIME;

/// The options of one mount, sorted out.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Options {
    /// `MS_*` flags that were asked for.
    pub flags: u64,
    /// `MS_*` flags that were asked away.
    pub cleared: u64,
    /// For the mount and all below it (`rro`, …).
    pub recursive: Attributes,
    /// Propagation types in order, each with whether it holds for the whole tree.
    pub propagation: Vec<(u64, bool)>,
    /// `bind` or `rbind`: the latter is `Some(true)`.
    pub bind: Option<bool>,
    /// Change what is mounted at the target.
    pub remount: bool,
    /// `tmpcopyup`: begin with what the image has at the target.
    pub copy_up: bool,
    /// `idmap` or `ridmap`: the latter, for the whole tree, is `Some(true)`.
    pub id_map: Option<bool>,
    /// Words for the file system, in order.
    pub data: Vec<String>,
}

/// The parameters of a file system, as `fsconfig(2)` takes them.
pub(super) type Parameters = Vec<(CString, Option<CString>)>;

/// What remains possible for a bind mount in a user namespace, where flags of the host are locked.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Locked {
    /// What is set and cleared then: flags that are locked stay.
    pub kept: Attributes,
    /// Attributes that were asked away, and must not be among those that stay.
    pub denied: u64,
    /// The access time attributes that were asked for: they must be those that stay.
    pub atime: Option<u64>,
}

/// Words about `MS_*` flags: whether they set or clear it.
const FLAGS: [(&str, u64, bool); 32] = [
    ("async", libc::MS_SYNCHRONOUS, false),
    ("atime", libc::MS_NOATIME, false),
    ("defaults", 0, true),
    ("dev", libc::MS_NODEV, false),
    ("diratime", libc::MS_NODIRATIME, false),
    ("dirsync", libc::MS_DIRSYNC, true),
    ("exec", libc::MS_NOEXEC, false),
    ("iversion", libc::MS_I_VERSION, true),
    ("lazytime", libc::MS_LAZYTIME, true),
    ("loud", libc::MS_SILENT, false),
    ("mand", libc::MS_MANDLOCK, true),
    ("noatime", libc::MS_NOATIME, true),
    ("nodev", libc::MS_NODEV, true),
    ("nodiratime", libc::MS_NODIRATIME, true),
    ("noexec", libc::MS_NOEXEC, true),
    ("noiversion", libc::MS_I_VERSION, false),
    ("nolazytime", libc::MS_LAZYTIME, false),
    ("nomand", libc::MS_MANDLOCK, false),
    ("norelatime", libc::MS_RELATIME, false),
    ("nostrictatime", libc::MS_STRICTATIME, false),
    ("nosuid", libc::MS_NOSUID, true),
    ("nosymfollow", NOSYMFOLLOW, true),
    ("relatime", libc::MS_RELATIME, true),
    ("ro", libc::MS_RDONLY, true),
    ("rw", libc::MS_RDONLY, false),
    ("silent", libc::MS_SILENT, true),
    ("strictatime", libc::MS_STRICTATIME, true),
    ("suid", libc::MS_NOSUID, false),
    ("symfollow", NOSYMFOLLOW, false),
    ("sync", libc::MS_SYNCHRONOUS, true),
    // Known to mount(8), and nothing to the kernel.
    ("auto", 0, true),
    ("noauto", 0, true),
];

/// What a word for a whole tree sets and clears.
struct Word {
    name: &'static str,
    set: u64,
    clear: u64,
}

const fn word(name: &'static str, set: u64, clear: u64) -> Word {
    Word { name, set, clear }
}

const RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;
const NOSUID: u64 = libc::MOUNT_ATTR_NOSUID;
const NODEV: u64 = libc::MOUNT_ATTR_NODEV;
const NOEXEC: u64 = libc::MOUNT_ATTR_NOEXEC;
/// The field of the three access time modes: they exclude each other.
const ATIME: u64 = libc::MOUNT_ATTR__ATIME;

const RECURSIVE: [Word; 18] = [
    word("rro", RDONLY, 0),
    word("rrw", 0, RDONLY),
    word("rnosuid", NOSUID, 0),
    word("rsuid", 0, NOSUID),
    word("rnodev", NODEV, 0),
    word("rdev", 0, NODEV),
    word("rnoexec", NOEXEC, 0),
    word("rexec", 0, NOEXEC),
    word("rnoatime", libc::MOUNT_ATTR_NOATIME, ATIME),
    word("ratime", 0, ATIME),
    word("rrelatime", 0, ATIME),
    word("rnorelatime", 0, ATIME),
    word("rstrictatime", libc::MOUNT_ATTR_STRICTATIME, ATIME),
    word("rnostrictatime", 0, ATIME),
    word("rnodiratime", libc::MOUNT_ATTR_NODIRATIME, 0),
    word("rdiratime", 0, libc::MOUNT_ATTR_NODIRATIME),
    word("rnosymfollow", libc::MOUNT_ATTR_NOSYMFOLLOW, 0),
    word("rsymfollow", 0, libc::MOUNT_ATTR_NOSYMFOLLOW),
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

const OTHERS: [&str; 6] = ["bind", "rbind", "remount", "tmpcopyup", "idmap", "ridmap"];

/// Every word that is known by name, sorted; others are passed to the file system.
pub(crate) fn words() -> Vec<&'static str> {
    let flags = FLAGS.iter().map(|(name, ..)| *name);
    let recursive = RECURSIVE.iter().map(|word| word.name);
    let propagation = PROPAGATION.iter().map(|(name, ..)| *name);
    let mut words: Vec<&str> = flags.chain(recursive).chain(propagation).chain(OTHERS).collect();
    words.sort_unstable();
    words
}

/// Sorts out the options of a mount; `field` is its place in the document.
pub(super) fn parse(field: &str, words: &[String]) -> Result<Options, Error> {
    let mut options = Options::default();
    for text in words {
        if let Some((_, flag, set)) = FLAGS.iter().find(|(name, ..)| name == text) {
            let (to, from) = match set {
                true => (&mut options.flags, &mut options.cleared),
                false => (&mut options.cleared, &mut options.flags),
            };
            *to |= flag;
            *from &= !flag;
        } else if let Some((_, flag, tree)) = PROPAGATION.iter().find(|(name, ..)| name == text) {
            options.propagation.push((*flag, *tree));
        } else if let Some(word) = RECURSIVE.iter().find(|word| word.name == text) {
            apply(&mut options.recursive, word);
        } else {
            match text.as_str() {
                "bind" | "rbind" => options.bind = Some(text == "rbind" || options.bind == Some(true)),
                "remount" => options.remount = true,
                "tmpcopyup" => options.copy_up = true,
                "idmap" | "ridmap" => options.id_map = Some(text == "ridmap"),
                "" => {}
                _ if text.starts_with('=') => {
                    return Err(Error::field(field, format!("option {text:?} has no name")));
                }
                _ => options.data.push(text.clone()),
            }
        }
    }
    if options.data.iter().map(|word| word.len() + 1).sum::<usize>() > MAX_DATA {
        return Err(Error::field(
            field,
            format!("its options are longer than {MAX_DATA} bytes"),
        ));
    }
    Ok(options)
}

/// A later word wins over an earlier one, as with `mount(8)`.
fn apply(attributes: &mut Attributes, word: &Word) {
    attributes.set = attributes.set & !word.clear | word.set;
    attributes.clear = attributes.clear & !(word.set & !ATIME) | word.clear;
}

impl Options {
    /// The attributes of a new mount.
    pub(super) fn attributes(&self) -> u64 {
        plain(self.flags) | times(self.flags)
    }

    /// Attributes of a bind mount, and what remains of them when some are locked. Empty: it keeps what its source has.
    pub(super) fn bind_attributes(&self) -> (Attributes, Option<Locked>) {
        if self.flags == 0 && self.cleared == 0 {
            return (Attributes::default(), None);
        }
        const CLEARABLE: u64 = RDONLY | NOSUID | NODEV | NOEXEC | libc::MOUNT_ATTR_NOSYMFOLLOW;
        const ALL_TIMES: u64 = ATIME | libc::MOUNT_ATTR_NODIRATIME;
        let set = plain(self.flags);
        let mut exact = Attributes::new(set, CLEARABLE & !set, 0);
        let mut locked = Locked {
            // This one is never locked.
            kept: Attributes::new(set, libc::MOUNT_ATTR_NOSYMFOLLOW & !set, 0),
            denied: plain(self.cleared) & !libc::MOUNT_ATTR_NOSYMFOLLOW | named_times(self.cleared),
            atime: None,
        };
        if self.flags & TIMES != 0 {
            let times = times(self.flags);
            exact.set |= times;
            exact.clear |= ALL_TIMES & !(times & libc::MOUNT_ATTR_NODIRATIME);
            locked.atime = Some(times);
        }
        (exact, Some(locked))
    }

    /// What the file system is given: flags of the superblock and the other words. Whether only `mount(2)` takes them so.
    pub(super) fn parameters(&self, field: &str) -> Result<(Parameters, bool), Error> {
        const SUPERBLOCK: [(u64, &CStr); 6] = [
            (libc::MS_RDONLY, c"ro"),
            (libc::MS_SYNCHRONOUS, c"sync"),
            (libc::MS_DIRSYNC, c"dirsync"),
            (libc::MS_MANDLOCK, c"mand"),
            (libc::MS_LAZYTIME, c"lazytime"),
            (libc::MS_I_VERSION, c"iversion"),
        ];
        // One string for all of them is split at commas by each file system in its own way.
        let legacy = self.flags & libc::MS_I_VERSION != 0
            || self.data.iter().any(|word| {
                let key = word.find('=').unwrap_or(word.len());
                word.contains([',', '"', '\\'])
                    || key > MAX_VALUE
                    || word.len().saturating_sub(key + 1) > MAX_VALUE
            });
        let mut parameters: Parameters = SUPERBLOCK
            .iter()
            .filter(|(flag, _)| self.flags & flag != 0)
            .map(|(_, word)| ((*word).to_owned(), None))
            .collect();
        for word in &self.data {
            let (key, value) = match word.split_once('=').filter(|_| !legacy) {
                Some((key, value)) => (key, Some(c_string(field, value)?)),
                None => (word.as_str(), None),
            };
            parameters.push((c_string(field, key)?, value));
        }
        Ok((parameters, legacy))
    }

    /// Whether a word of that name is for the file system.
    pub(super) fn names(&self, key: &str) -> bool {
        self.data
            .iter()
            .any(|word| word.strip_prefix(key).is_some_and(|rest| rest.starts_with('=')))
    }
}

/// `MS_*` flags that are attributes by themselves.
fn plain(flags: u64) -> u64 {
    [
        (libc::MS_RDONLY, RDONLY),
        (libc::MS_NOSUID, NOSUID),
        (libc::MS_NODEV, NODEV),
        (libc::MS_NOEXEC, NOEXEC),
        (NOSYMFOLLOW, libc::MOUNT_ATTR_NOSYMFOLLOW),
    ]
    .iter()
    .filter(|(flag, _)| flags & flag != 0)
    .fold(0, |attributes, (_, attribute)| attributes | attribute)
}

/// What the kernel makes of the access time flags: `strictatime` wins, and `relatime` is the default.
fn times(flags: u64) -> u64 {
    let mode = if flags & libc::MS_STRICTATIME != 0 {
        libc::MOUNT_ATTR_STRICTATIME
    } else if flags & libc::MS_NOATIME != 0 {
        libc::MOUNT_ATTR_NOATIME
    } else {
        0
    };
    match flags & libc::MS_NODIRATIME {
        0 => mode,
        _ => mode | libc::MOUNT_ATTR_NODIRATIME,
    }
}

/// Access time flags one by one. `relatime` is no attribute: it is the absence of the others.
fn named_times(flags: u64) -> u64 {
    [
        (libc::MS_NOATIME, libc::MOUNT_ATTR_NOATIME),
        (libc::MS_NODIRATIME, libc::MOUNT_ATTR_NODIRATIME),
        (libc::MS_STRICTATIME, libc::MOUNT_ATTR_STRICTATIME),
    ]
    .iter()
    .filter(|(flag, _)| flags & flag != 0)
    .fold(0, |attributes, (_, attribute)| attributes | attribute)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Options {
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        parse("mounts[0]", &words).unwrap()
    }

    const NOATIME: u64 = libc::MOUNT_ATTR_NOATIME;
    const STRICTATIME: u64 = libc::MOUNT_ATTR_STRICTATIME;
    const NODIRATIME: u64 = libc::MOUNT_ATTR_NODIRATIME;

    #[test]
    fn the_later_word_wins() {
        assert_eq!(parsed(&["ro", "rw"]).attributes(), 0);
        assert!(parsed(&["ro", "rw"]).parameters("f").unwrap().0.is_empty());
        assert_eq!(parsed(&["rw", "ro"]).attributes(), RDONLY);
        assert_eq!(parsed(&["noatime", "strictatime"]).attributes(), STRICTATIME);
        assert_eq!(
            parsed(&["noatime", "nodiratime"]).attributes(),
            NOATIME | NODIRATIME
        );
        assert_eq!(
            parsed(&["rnoatime", "rstrictatime"]).recursive,
            Attributes::new(STRICTATIME, ATIME, 0)
        );
    }

    #[test]
    fn words_go_where_they_belong() {
        let options = parsed(&[
            "rbind",
            "rro",
            "rslave",
            "mode=755",
            "newinstance",
            "sync",
            "ridmap",
        ]);
        assert_eq!(options.bind, Some(true));
        assert_eq!(options.id_map, Some(true));
        assert_eq!(options.recursive, Attributes::new(RDONLY, 0, 0));
        assert_eq!(options.propagation, [(libc::MS_SLAVE, true)]);
        assert_eq!(
            options.parameters("f").unwrap(),
            (
                vec![
                    (c"sync".to_owned(), None),
                    (c"mode".to_owned(), Some(c"755".to_owned())),
                    (c"newinstance".to_owned(), None),
                ],
                false
            )
        );
        assert!(options.names("mode") && !options.names("newinstance"));
        // A word of the file system that starts with r is not a recursive flag.
        assert_eq!(parsed(&["rootcontext=x"]).recursive, Attributes::default());
    }

    #[test]
    fn what_fsconfig_does_not_take_is_for_the_old_call() {
        let long = format!("lowerdir={}", "x".repeat(300));
        for words in [
            &["mode=755,size=1m"][..],
            &["iversion"],
            &[long.as_str()],
            &["upperdir=/a\\,b"],
        ] {
            let (parameters, legacy) = parsed(words).parameters("f").unwrap();
            assert!(legacy, "{words:?}");
            assert_eq!(parameters.len(), 1);
            assert_eq!(parameters[0].0.to_str().unwrap(), words[0]);
        }
        assert!(parse("mounts[0]", &["x".repeat(5000)]).is_err());
        assert!(parse("mounts[0]", &["=x".to_owned()]).is_err());
    }

    #[test]
    fn a_bind_mount_has_exactly_what_was_named() {
        const ALL: u64 = RDONLY | NOSUID | NODEV | NOEXEC | libc::MOUNT_ATTR_NOSYMFOLLOW;
        assert_eq!(
            parsed(&["bind", "rprivate"]).bind_attributes(),
            (Attributes::default(), None)
        );
        let (exact, locked) = parsed(&["bind", "ro", "dev"]).bind_attributes();
        assert_eq!(exact, Attributes::new(RDONLY, ALL & !RDONLY, 0));
        let locked = locked.unwrap();
        assert_eq!(
            locked.kept,
            Attributes::new(RDONLY, libc::MOUNT_ATTR_NOSYMFOLLOW, 0)
        );
        assert_eq!((locked.denied, locked.atime), (NODEV, None));
        // A word that only clears one clears the others too.
        let (exact, _) = parsed(&["bind", "suid"]).bind_attributes();
        assert_eq!(exact, Attributes::new(0, ALL, 0));
        // Access times stay unless one of them is named.
        for (word, set, clear) in [
            ("relatime", 0, ATIME | NODIRATIME),
            ("noatime", NOATIME, ATIME | NODIRATIME),
            ("strictatime", STRICTATIME, ATIME | NODIRATIME),
            ("nodiratime", NODIRATIME, ATIME),
            ("atime", 0, 0),
            ("norelatime", 0, 0),
        ] {
            let (exact, locked) = parsed(&["bind", word]).bind_attributes();
            assert_eq!(exact, Attributes::new(set, ALL | clear, 0), "{word}");
            assert_eq!(locked.unwrap().atime, (clear != 0).then_some(set), "{word}");
        }
        assert_eq!(
            parsed(&["bind", "atime"]).bind_attributes().1.unwrap().denied,
            NOATIME
        );
    }
}
