//! criu's requests and answers, as messages of [`super::wire`]. The numbers are those of criu's `rpc.proto`.

use super::options::{CheckpointOptions, ManageCgroups, RestoreOptions, Settings};
use super::wire::{Fields, Malformed, Message, Value};
use crate::plan::External;

/// What criu is asked for, and what it says that an answer is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Dump = 1,
    Restore = 2,
    PreDump = 4,
    Notify = 6,
    FeatureCheck = 9,
    Version = 10,
}

impl Kind {
    const ALL: [Self; 6] = [
        Self::Dump,
        Self::Restore,
        Self::PreDump,
        Self::Notify,
        Self::FeatureCheck,
        Self::Version,
    ];

    /// As criu calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Dump => "DUMP",
            Self::Restore => "RESTORE",
            Self::PreDump => "PRE_DUMP",
            Self::Notify => "NOTIFY",
            Self::FeatureCheck => "FEATURE_CHECK",
            Self::Version => "VERSION",
        }
    }
}

/// What of criu and the kernel can be asked about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Feature {
    MemTrack = 1,
    LazyPages = 2,
}

impl Feature {
    /// As runc calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::MemTrack => "MemTrack",
            Self::LazyPages => "LazyPages",
        }
    }
}

/// A request, with options if it has some.
pub(super) fn request(kind: Kind, options: Option<&Message>) -> Message {
    let mut request = Message::default();
    request.number(1, kind as i64);
    if let Some(options) = options {
        request.message(2, options);
    }
    request
}

/// The answer to a notice: whether criu may go on.
pub(super) fn acknowledgement(good: bool) -> Message {
    let mut answer = request(Kind::Notify, None);
    answer.boolean(3, good);
    answer
}

/// The question whether there is a feature.
pub(super) fn feature_check(feature: Feature) -> Message {
    let mut features = Message::default();
    features.boolean(feature as u32, true);
    let mut question = request(Kind::FeatureCheck, None);
    question.message(5, &features);
    question
}

/// Something of the host that the container has.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Mapped {
    /// What the checkpoint calls it.
    pub(super) key: Vec<u8>,
    /// Where it is.
    pub(super) value: Vec<u8>,
}

impl Mapped {
    fn message(&self) -> Message {
        let mut message = Message::default();
        message.bytes(1, &self.key);
        message.bytes(2, &self.value);
        message
    }
}

/// What is known of the host and the container, for both ways.
#[derive(Clone, Copy, Debug)]
pub(super) struct Common<'a> {
    /// Descriptors of criu's.
    pub(super) images: i32,
    pub(super) work: Option<i32>,
    pub(super) log: &'a str,
    /// A configuration file of criu's, whose settings win over these.
    pub(super) configuration: Option<&'a str>,
    /// The root file system.
    pub(super) root: &'a [u8],
    pub(super) mounts: &'a [Mapped],
}

/// The container that is saved.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dumped<'a> {
    pub(super) pid: i32,
    /// Namespaces that are somebody else's: `net[4026531840]:extRootNetNS`.
    pub(super) external: &'a [String],
    pub(super) freezer: Option<&'a [u8]>,
    /// For criu before 3.15: a descriptor of its own.
    pub(super) status: Option<i32>,
}

/// The options of a checkpoint.
pub(super) fn dump_options(asked: &CheckpointOptions, common: &Common<'_>, dumped: &Dumped<'_>) -> Message {
    let mut options = common_options(&asked.settings, common);
    options.number(2, dumped.pid.into());
    options.boolean(3, asked.leave_running);
    options.boolean(18, asked.link_remap);
    options.boolean(46, asked.tcp_skip_in_flight);
    if let Some(parent) = &asked.parent {
        options.bytes(14, parent.as_os_str().as_encoded_bytes());
        options.boolean(15, true);
    }
    if let Some(server) = &asked.page_server {
        let mut message = Message::default();
        message.bytes(1, server.address.as_bytes());
        message.number(2, server.port.into());
        options.message(11, &message);
    }
    for external in dumped.external {
        options.bytes(37, external.as_bytes());
    }
    if let Some(freezer) = dumped.freezer {
        options.bytes(44, freezer);
    }
    if let Some(status) = dumped.status {
        options.number(49, status.into());
    }
    options
}

/// What a container gets that is restored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Restored<'a> {
    /// Controllers and the group that stands for the root of what was saved.
    pub(super) cgroups: &'a [(String, String)],
    /// Descriptors of criu's process in place of what was saved.
    pub(super) inherited: &'a [(String, i32)],
    /// Namespaces to join, by type and file.
    pub(super) join: &'a [(&'static str, Vec<u8>)],
}

/// The options of a restore.
pub(super) fn restore_options(
    asked: &RestoreOptions,
    common: &Common<'_>,
    restored: &Restored<'_>,
) -> Message {
    let mut options = common_options(&asked.settings, common);
    options.boolean(6, true);
    // A child of this process's, not of criu's.
    options.boolean(26, true);
    for (controller, path) in restored.cgroups {
        let mut message = Message::default();
        message.bytes(1, controller.as_bytes());
        message.bytes(2, path.as_bytes());
        options.message(25, &message);
    }
    for (key, number) in restored.inherited {
        let mut message = Message::default();
        message.bytes(1, key.as_bytes());
        message.number(2, (*number).into());
        options.message(27, &message);
    }
    for (kind, file) in restored.join {
        let mut message = Message::default();
        message.bytes(1, kind.as_bytes());
        message.bytes(2, file);
        options.message(39, &message);
    }
    if let Some(profile) = &asked.lsm_profile {
        options.bytes(53, profile.as_bytes());
    }
    if let Some(context) = &asked.lsm_mount_context {
        options.bytes(63, context.as_bytes());
    }
    options
}

fn common_options(settings: &Settings, common: &Common<'_>) -> Message {
    /// Everything but what is for whoever develops criu.
    const LOG_LEVEL: i64 = 4;
    let mut options = Message::default();
    options.number(1, common.images.into());
    if let Some(work) = common.work {
        options.number(17, work.into());
    }
    options.number(9, LOG_LEVEL);
    options.bytes(10, common.log.as_bytes());
    options.bytes(13, common.root);
    options.boolean(4, settings.external_unix_sockets);
    options.boolean(5, settings.tcp_established);
    options.boolean(7, settings.shell_job);
    options.boolean(8, settings.file_locks);
    options.boolean(12, true);
    options.boolean(16, settings.auto_dedup);
    for mount in common.mounts {
        options.message(23, &mount.message());
    }
    options.boolean(24, true);
    options.number(
        34,
        match settings.manage_cgroups {
            ManageCgroups::Ignore => 0,
            ManageCgroups::Soft => 3,
            ManageCgroups::Full => 4,
            ManageCgroups::Strict => 5,
            ManageCgroups::Default => 6,
        },
    );
    // The network is whoever's who made it.
    options.number(38, libc::CLONE_NEWNET.into());
    options.boolean(48, settings.lazy_pages);
    options.boolean(50, true);
    if let Some(file) = common.configuration {
        options.bytes(51, file.as_bytes());
    }
    options
}

/// How criu is told of a mount when it saves: the key is the place.
pub(super) fn dumped_mount(external: &External) -> Mapped {
    let place = external.place.as_os_str().as_encoded_bytes().to_vec();
    Mapped {
        key: place.clone(),
        value: place,
    }
}

/// How criu is told of a mount when it restores.
pub(super) fn restored_mount(external: &External) -> Mapped {
    Mapped {
        key: external.place.as_os_str().as_encoded_bytes().to_vec(),
        value: external.source.as_os_str().as_encoded_bytes().to_vec(),
    }
}

/// What criu says.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Answer {
    /// Nothing: of a kind that was not asked for.
    pub(super) kind: Option<Kind>,
    pub(super) success: bool,
    pub(super) notice: Option<Notice>,
    pub(super) errno: i32,
    /// criu's own words about a failure.
    pub(super) said: String,
    pub(super) mem_track: Option<bool>,
    pub(super) lazy_pages: Option<bool>,
    /// 3.17.1 is 31701.
    pub(super) version: Option<i32>,
}

/// A point that criu has reached.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Notice {
    pub(super) script: String,
    pub(super) pid: Option<i32>,
}

/// Reads an answer. Fields that are not known are passed over: there will be more of them.
pub(super) fn answer(message: &[u8]) -> Result<Answer, Malformed> {
    let mut answer = Answer::default();
    for field in Fields::of(message) {
        match field? {
            (1, Value::Number(kind)) => {
                answer.kind = Kind::ALL.into_iter().find(|known| *known as u64 == kind);
            }
            (2, value) => answer.success = value.boolean().ok_or(Malformed)?,
            (5, value) => answer.notice = Some(notice(value.message().ok_or(Malformed)?)?),
            (7, value) => answer.errno = value.int().ok_or(Malformed)?,
            (8, value) => {
                for feature in Fields::of(value.message().ok_or(Malformed)?) {
                    match feature? {
                        (1, value) => answer.mem_track = value.boolean(),
                        (2, value) => answer.lazy_pages = value.boolean(),
                        _ => {}
                    }
                }
            }
            (9, value) => answer.said = value.text().ok_or(Malformed)?,
            (10, value) => answer.version = Some(version(value.message().ok_or(Malformed)?)?),
            _ => {}
        }
    }
    Ok(answer)
}

fn notice(message: &[u8]) -> Result<Notice, Malformed> {
    let mut notice = Notice::default();
    for field in Fields::of(message) {
        match field? {
            (1, value) => notice.script = value.text().ok_or(Malformed)?,
            (2, value) => notice.pid = value.int(),
            _ => {}
        }
    }
    Ok(notice)
}

/// As one number. What was built from a git tree is counted as the next minor release, whose features it has.
fn version(message: &[u8]) -> Result<i32, Malformed> {
    let (mut major, mut minor, mut sublevel, mut git) = (0, 0, 0, false);
    for field in Fields::of(message) {
        let (number, value) = field?;
        let part = |value: Value<'_>| {
            value
                .int()
                .filter(|part| (0..100).contains(part))
                .ok_or(Malformed)
        };
        match number {
            1 => major = part(value)?,
            2 => minor = part(value)?,
            3 => git = true,
            4 => sublevel = part(value)?,
            _ => {}
        }
    }
    Ok(match git {
        true => major * 10_000 + (minor + 1) * 100,
        false => major * 10_000 + minor * 100 + sublevel,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ContainerId;
    use crate::checkpoint::PageServer;

    /// Every field with its number, in order of the numbers.
    fn fields(message: &Message) -> Vec<(u32, String)> {
        let mut fields: Vec<_> = Fields::of(message.encoded())
            .map(Result::unwrap)
            .map(|(number, value)| match value {
                Value::Bytes(bytes) => (number, bytes.escape_ascii().to_string()),
                value => (number, value.int().unwrap().to_string()),
            })
            .collect();
        fields.sort_by_key(|(number, _)| *number);
        fields
    }

    fn find(fields: &[(u32, String)], number: u32) -> Vec<&str> {
        let of = fields.iter().filter(|(field, _)| *field == number);
        of.map(|(_, value)| value.as_str()).collect()
    }

    fn common<'a>(mounts: &'a [Mapped]) -> Common<'a> {
        Common {
            images: 7,
            work: None,
            log: "x.log",
            configuration: Some("/etc/criu/runc.conf"),
            root: b"/b/rootfs",
            mounts,
        }
    }

    #[test]
    fn every_option_of_a_checkpoint_has_its_field() {
        let dumped = Dumped {
            pid: 42,
            external: &["net[1]:extRootNetNS".to_owned()],
            freezer: Some(b"/f"),
            status: Some(9),
        };
        let plain = fields(&dump_options(
            &CheckpointOptions::default(),
            &common(&[]),
            &Dumped {
                external: &[],
                freezer: None,
                status: None,
                ..dumped
            },
        ));
        let expected = [
            (1, "7"),
            (2, "42"),
            (3, "0"),
            (4, "0"),
            (5, "0"),
            (7, "0"),
            (8, "0"),
            (9, "4"),
            (10, "x.log"),
            (12, "1"),
            (13, "/b/rootfs"),
            (16, "0"),
            (18, "0"),
            (24, "1"),
            (34, "6"),
            (38, "1073741824"),
            (46, "0"),
            (48, "0"),
            (50, "1"),
            (51, "/etc/criu/runc.conf"),
        ];
        assert_eq!(plain, expected.map(|(number, value)| (number, value.to_owned())));
        let everything = CheckpointOptions {
            settings: Settings {
                tcp_established: true,
                external_unix_sockets: true,
                shell_job: true,
                file_locks: true,
                manage_cgroups: ManageCgroups::Ignore,
                auto_dedup: true,
                lazy_pages: true,
                ..Settings::default()
            },
            parent: Some("../before".into()),
            leave_running: true,
            tcp_skip_in_flight: true,
            link_remap: true,
            page_server: Some(PageServer {
                address: "::1".into(),
                port: 7,
            }),
            ..CheckpointOptions::default()
        };
        let mount = Mapped {
            key: b"/a".to_vec(),
            value: b"/a".to_vec(),
        };
        let all = fields(&dump_options(&everything, &common(&[mount]), &dumped));
        for number in [3, 4, 5, 7, 8, 15, 16, 18, 46, 48] {
            assert_eq!(find(&all, number), ["1"], "{number}");
        }
        assert_eq!(find(&all, 11), ["\\n\\x03::1\\x10\\x07"]);
        assert_eq!(find(&all, 14), ["../before"]);
        assert_eq!(find(&all, 23), ["\\n\\x02/a\\x12\\x02/a"]);
        assert_eq!(find(&all, 34), ["0"]);
        assert_eq!(find(&all, 37), ["net[1]:extRootNetNS"]);
        assert_eq!(find(&all, 44), ["/f"]);
        assert_eq!(find(&all, 49), ["9"]);
    }

    #[test]
    fn every_option_of_a_restore_has_its_field() {
        let mut asked = RestoreOptions::new(ContainerId::new("c").unwrap(), "/b", "/i");
        asked.lsm_profile = Some("apparmor:p".into());
        asked.lsm_mount_context = Some("c".into());
        let restored = Restored {
            cgroups: &[("pids".into(), "/g".into())],
            inherited: &[("pipe:[5]".into(), 1)],
            join: &[("ipc", b"/n".to_vec())],
        };
        let common = Common {
            work: Some(8),
            configuration: None,
            ..common(&[])
        };
        let all = fields(&restore_options(&asked, &common, &restored));
        assert_eq!(find(&all, 6), ["1"]);
        assert_eq!(find(&all, 17), ["8"]);
        assert_eq!(find(&all, 25), ["\\n\\x04pids\\x12\\x02/g"]);
        assert_eq!(find(&all, 26), ["1"]);
        assert_eq!(find(&all, 27), ["\\n\\x08pipe:[5]\\x10\\x01"]);
        assert_eq!(find(&all, 39), ["\\n\\x03ipc\\x12\\x02/n"]);
        assert!(find(&all, 51).is_empty());
        assert_eq!(find(&all, 53), ["apparmor:p"]);
        assert_eq!(find(&all, 63), ["c"]);
        assert!(find(&all, 2).is_empty());
    }

    #[test]
    fn requests_carry_their_kind() {
        assert_eq!(request(Kind::Version, None).encoded(), [8, 10]);
        assert_eq!(acknowledgement(true).encoded(), [8, 6, 0x18, 1]);
        assert_eq!(acknowledgement(false).encoded(), [8, 6, 0x18, 0]);
        assert_eq!(
            feature_check(Feature::LazyPages).encoded(),
            [8, 9, 0x2a, 2, 0x10, 1]
        );
    }

    #[test]
    fn answers_are_read() {
        let mut inner = Message::default();
        inner.bytes(1, b"post-restore");
        inner.number(2, 77);
        let mut message = request(Kind::Notify, None);
        message.boolean(2, true);
        message.message(5, &inner);
        message.number(99, 1);
        let read = answer(message.encoded()).unwrap();
        assert_eq!(read.kind, Some(Kind::Notify));
        assert!(read.success);
        let notice = read.notice.unwrap();
        assert_eq!((notice.script.as_str(), notice.pid), ("post-restore", Some(77)));

        let mut message = request(Kind::Dump, None);
        message.boolean(2, false);
        message.number(7, -52);
        message.bytes(9, b"no\nway");
        let read = answer(message.encoded()).unwrap();
        assert_eq!(
            (read.errno, read.said.as_str(), read.success),
            (-52, "no way", false)
        );

        let mut features = Message::default();
        features.boolean(1, false);
        features.boolean(2, true);
        let mut message = Message::default();
        message.number(1, 4711);
        message.message(8, &features);
        let read = answer(message.encoded()).unwrap();
        assert_eq!(
            (read.kind, read.mem_track, read.lazy_pages),
            (None, Some(false), Some(true))
        );
    }

    #[test]
    fn a_version_is_one_number() {
        let of = |parts: &[(u32, i64)], git: bool| {
            let mut inner = Message::default();
            parts
                .iter()
                .for_each(|(field, value)| inner.number(*field, *value));
            if git {
                inner.bytes(3, b"v4.2-22-g2cf8f13ca");
            }
            let mut message = request(Kind::Version, None);
            message.message(10, &inner);
            answer(message.encoded()).map(|answer| answer.version)
        };
        assert_eq!(of(&[(1, 3), (2, 17), (4, 1)], false), Ok(Some(31_701)));
        assert_eq!(of(&[(1, 4), (2, 2)], true), Ok(Some(40_300)));
        assert_eq!(of(&[(1, 4_000_000)], false), Err(Malformed));
        assert_eq!(of(&[(1, -4)], false), Err(Malformed));
    }
}
