//! Command lines as programs write them, taken without the parser of all others.
//!
//! That one is built anew each time the program starts, of descriptions, and takes longer than all other planning of a
//! container. What is taken here is plain: flags in full, or with one letter; a value behind its flag or behind `=`, not empty and
//! without a dash before it; text. Whatever else there is, and whatever is wrong, is left to the parser, which takes what is
//! taken here in the same way: the tests compare them.

use std::ffi::OsString;
use std::slice;

use super::{Arguments, Command, Global, Rootless, create, delete, exec, kill, run, start, state};

/// The words of a command line, from left to right.
pub(super) struct Words<'a> {
    rest: slice::Iter<'a, OsString>,
    /// What was behind `=` and belongs to the flag before it.
    attached: Option<&'a str>,
}

pub(super) enum Word<'a> {
    /// With its dashes.
    Flag(&'a str),
    Other(&'a str),
}

impl<'a> Words<'a> {
    /// The next word; nothing if it is not plain. The outer nothing is the end.
    pub(super) fn next(&mut self) -> Option<Option<Word<'a>>> {
        if self.attached.is_some() {
            return Some(None);
        }
        let word = self.rest.next()?.to_str().filter(|word| !word.is_empty());
        Some(word.map(|word| match word.split_once('=') {
            Some((name, value)) if name.starts_with("--") => {
                self.attached = Some(value);
                Word::Flag(name)
            }
            _ if word.starts_with('-') => Word::Flag(word),
            _ => Word::Other(word),
        }))
    }

    /// The value of the flag that came last, if it is plain.
    pub(super) fn value(&mut self) -> Option<&'a str> {
        let value = match self.attached.take() {
            Some(value) => value,
            None => self.rest.next()?.to_str()?,
        };
        (!value.is_empty() && !value.starts_with('-')).then_some(value)
    }

    /// A number, likewise.
    pub(super) fn number(&mut self) -> Option<u32> {
        let value = self.value()?;
        let digits = value.bytes().all(|byte| byte.is_ascii_digit());
        value.parse().ok().filter(|_| digits)
    }

    /// All that is left, whatever it looks like.
    pub(super) fn rest(&mut self) -> impl Iterator<Item = &'a OsString> {
        std::mem::take(&mut self.rest)
    }

    /// One word that is no flag, and nothing else.
    pub(super) fn only(&mut self) -> Option<String> {
        let Word::Other(word) = self.next()?? else {
            return None;
        };
        self.next().is_none().then(|| word.to_owned())
    }
}

/// The arguments, if they are plain and of a command that programs give.
pub(super) fn parse(arguments: &[OsString]) -> Option<Arguments> {
    let mut rest = arguments.iter();
    rest.next()?;
    let mut words = Words { rest, attached: None };
    let mut global = Global {
        debug: false,
        log: None,
        log_format: "text".to_owned(),
        root: None,
        criu: "criu".into(),
        systemd_cgroup: false,
        rootless: Rootless::Auto,
        version: None,
    };
    let name = loop {
        match words.next()?? {
            Word::Flag("--debug") => global.debug = true,
            Word::Flag("--log") => global.log = Some(words.value()?.into()),
            Word::Flag("--log-format") => global.log_format = words.value()?.to_owned(),
            Word::Flag("--root") => global.root = Some(words.value()?.into()),
            Word::Flag("--systemd-cgroup") => global.systemd_cgroup = true,
            Word::Flag(_) => return None,
            Word::Other(name) => break name,
        }
    };
    let command = match name {
        "create" => Command::Create(create::Arguments::plain(&mut words)?),
        "run" => Command::Run(run::Arguments::plain(&mut words)?),
        "exec" => Command::Exec(exec::Arguments::plain(&mut words)?),
        "start" => Command::Start(start::Arguments::plain(&mut words)?),
        "state" => Command::State(state::Arguments::plain(&mut words)?),
        "kill" => Command::Kill(kill::Arguments::plain(&mut words)?),
        "delete" => Command::Delete(delete::Arguments::plain(&mut words)?),
        _ => return None,
    };
    Some(Arguments { global, command })
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, FromArgMatches as _};
    use proptest::prelude::*;

    use super::*;

    fn parsed(arguments: &[OsString]) -> Option<Arguments> {
        let command = Arguments::command().args_override_self(true);
        let matches = command.try_get_matches_from(arguments).ok()?;
        Arguments::from_arg_matches(&matches).ok()
    }

    fn words(line: &[&str]) -> Vec<OsString> {
        ["runc"].iter().chain(line).map(OsString::from).collect()
    }

    #[test]
    fn what_engines_write_is_plain() {
        for line in [
            "--root /r --log /l --log-format json create --bundle /b --pid-file /p c",
            "--root /r --log=/l --log-format=json --systemd-cgroup create --bundle /b --pid-file /p --console-socket /s c",
            "--root /r create --bundle /b --pid-file /p --no-pivot --no-new-keyring --preserve-fds 2 c",
            "run -b /b c",
            "run c --detach --keep --no-subreaper --pidfd-socket /s",
            "--root /r --log /l --log-format json exec --process /p --detach --pid-file /f --console-socket /s c",
            "exec -t -u 1:2 -e A=b --env C=d --cwd / c sh -c true -- -x",
            "--root /r start c",
            "--root /r state c",
            "--root /r kill c 9",
            "--root /r kill --all c KILL",
            "--debug kill c",
            "--root /r delete --force c",
            "delete c",
        ] {
            let words = words(&line.split(' ').collect::<Vec<_>>());
            let plain = parse(&words).unwrap_or_else(|| panic!("{line}"));
            assert_eq!(format!("{plain:?}"), format!("{:?}", parsed(&words).unwrap()));
        }
    }

    #[test]
    fn what_is_not_plain_is_left() {
        for line in [
            "",
            "run",
            "run a b",
            "run -b",
            "run -b  c",
            "run -b -x c",
            "run -b/b c",
            "run --detach=true c",
            "run --preserve-fds x c",
            "run --help",
            "--root= run c",
            "--root",
            "--version",
            "list",
            "frobnicate",
            "start -- c",
            "exec",
            "state c d",
            "kill c 9 9",
        ] {
            assert!(
                parse(&words(&line.split(' ').collect::<Vec<_>>())).is_none(),
                "{line}"
            );
        }
        let mut text = words(&["state", "c"]);
        text[2] = std::os::unix::ffi::OsStringExt::from_vec(vec![0xff]);
        assert!(parse(&text).is_none());
    }

    fn word() -> impl Strategy<Value = String> {
        const WORDS: &[&str] = &[
            "create",
            "run",
            "exec",
            "start",
            "state",
            "kill",
            "delete",
            "list",
            "help",
            "--root",
            "--log",
            "--log-format",
            "--debug",
            "--systemd-cgroup",
            "--rootless",
            "--criu",
            "-b",
            "--bundle",
            "--console-socket",
            "--pidfd-socket",
            "--pid-file",
            "--no-pivot",
            "--no-new-keyring",
            "--preserve-fds",
            "-d",
            "--detach",
            "--keep",
            "--no-subreaper",
            "--cwd",
            "-e",
            "--env",
            "-t",
            "--tty",
            "-u",
            "--user",
            "-p",
            "--process",
            "--process-label",
            "--apparmor",
            "--no-new-privs",
            "-c",
            "--cap",
            "--cgroup",
            "--ignore-paused",
            "-g",
            "--additional-gids",
            "-a",
            "--all",
            "-f",
            "--force",
            "--",
            "-",
            "",
            "-dt",
            "-bx",
            "-h",
            "--help",
            "-v",
            "--versio",
        ];
        const VALUES: &[&str] = &[
            "c",
            "/p",
            "7",
            "-1",
            "+1",
            "007",
            "4294967296",
            "",
            "A=b",
            "=",
            "ä",
            "auto",
            "true",
        ];
        prop_oneof![
            4 => prop::sample::select(WORDS).prop_map(str::to_owned),
            4 => prop::sample::select(VALUES).prop_map(str::to_owned),
            1 => (prop::sample::select(WORDS), prop::sample::select(VALUES)).prop_map(|(flag, value)| format!("{flag}={value}")),
        ]
    }

    /// A command, most often with something before it and what it needs.
    fn line() -> impl Strategy<Value = Vec<String>> {
        const COMMANDS: &[&str] = &["create", "run", "exec", "start", "state", "kill", "delete"];
        let some = || prop::collection::vec(word(), 0..4);
        let head = prop_oneof![
            Just(Vec::new()),
            Just(vec!["--root".to_owned(), "/r".to_owned()]),
            some()
        ];
        (
            head,
            prop::sample::select(COMMANDS),
            some(),
            prop::bool::weighted(0.7),
            some(),
        )
            .prop_map(|(mut line, command, before, named, after)| {
                line.push(command.to_owned());
                line.extend(before);
                line.extend(named.then(|| "c".to_owned()));
                line.extend(after);
                line
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 3000.max(ProptestConfig::default().cases), failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_taken_is_what_the_parser_takes(line in line()) {
            let line: Vec<&str> = line.iter().map(String::as_str).collect();
            let words = words(&line);
            if let Some(plain) = parse(&words) {
                let parsed = parsed(&words);
                prop_assert_eq!(Some(format!("{plain:?}")), parsed.map(|parsed| format!("{parsed:?}")));
            }
        }
    }
}
