//! The command line: Go's flag syntax, as containerd writes it.
//!
//! Owns the words before and after the action. Refuses unknown flags, a flag without its value and a second action by
//! name; nothing is parsed and ignored except `-publish-binary`, which the protocol itself has superseded.

use std::ffi::OsString;
use std::path::PathBuf;

/// What the shim was asked to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// No action word.
    #[default]
    None,
    /// `start`: start the serving process and print its address.
    Start,
    /// `delete`: remove what a container left behind.
    Delete,
    /// `serve`: serve the listener on descriptor 0; used by `start` alone.
    Serve,
    /// `fork-server`: fork a shim for each message on descriptor 0; used by a daemon of ours alone.
    ForkServer,
}

/// The checked command line.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// The action word.
    pub action: Action,
    /// `-namespace`: the containerd namespace of the container.
    pub namespace: String,
    /// `-id`: the container.
    pub id: String,
    /// `-address`: the daemon's gRPC socket; only its text is used, to name our socket.
    pub address: String,
    /// `-bundle`: the bundle of a `delete`, or of a shim that is forked, when it is not the working directory.
    pub bundle: Option<PathBuf>,
    /// `-debug`: log more.
    pub debug: bool,
    /// `-info`: print what this shim is.
    pub info: bool,
    /// `-v`, `-version`: print the version.
    pub version: bool,
}

/// Why a command line was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FlagError {
    /// No such flag.
    #[error("flag provided but not defined: -{0}")]
    Unknown(String),
    /// The flag needs a value.
    #[error("flag needs an argument: -{0}")]
    NoValue(String),
    /// The flag's value is not true or false.
    #[error("invalid boolean value {1:?} for -{0}")]
    NotBoolean(String, String),
    /// No such action.
    #[error("unknown action {0:?}: expected start or delete")]
    Action(String),
    /// The argument is not UTF-8.
    #[error("argument {0:?} is not UTF-8")]
    NotText(OsString),
}

impl Flags {
    /// Reads the arguments that follow the program's name.
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Flags, FlagError> {
        let mut flags = Flags::default();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let argument = argument.into_string().map_err(FlagError::NotText)?;
            let Some(flag) = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-')) else {
                flags.set_action(&argument)?;
                continue;
            };
            let (name, inline) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            match name {
                "debug" => flags.debug = boolean(name, inline)?,
                "info" => flags.info = boolean(name, inline)?,
                "v" | "version" => flags.version = boolean(name, inline)?,
                "namespace" | "id" | "address" | "bundle" | "publish-binary" => {
                    let value = match inline {
                        Some(value) => value,
                        None => arguments
                            .next()
                            .ok_or_else(|| FlagError::NoValue(name.to_owned()))?
                            .into_string()
                            .map_err(FlagError::NotText)?,
                    };
                    match name {
                        "namespace" => flags.namespace = value,
                        "id" => flags.id = value,
                        "address" => flags.address = value,
                        "bundle" => flags.bundle = Some(value.into()),
                        _ => {}
                    }
                }
                _ => return Err(FlagError::Unknown(name.to_owned())),
            }
        }
        Ok(flags)
    }

    fn set_action(&mut self, word: &str) -> Result<(), FlagError> {
        self.action = match word {
            "start" if self.action == Action::None => Action::Start,
            "delete" if self.action == Action::None => Action::Delete,
            "serve" if self.action == Action::None => Action::Serve,
            "fork-server" if self.action == Action::None => Action::ForkServer,
            _ => return Err(FlagError::Action(word.to_owned())),
        };
        Ok(())
    }
}

fn boolean(name: &str, value: Option<String>) -> Result<bool, FlagError> {
    match value.as_deref() {
        None | Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(other) => Err(FlagError::NotBoolean(name.to_owned(), other.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Flags, FlagError> {
        Flags::parse(line.split(' ').map(OsString::from))
    }

    #[test]
    fn the_lines_containerd_writes_are_understood() {
        let flags =
            parse("-namespace ns -address /c.sock -publish-binary /usr/bin/containerd -id c1 -debug start")
                .unwrap();
        assert_eq!(
            (
                flags.namespace.as_str(),
                flags.id.as_str(),
                flags.address.as_str()
            ),
            ("ns", "c1", "/c.sock")
        );
        assert_eq!((flags.action, flags.debug), (Action::Start, true));
        let flags = parse("-namespace=ns --id=c1 -bundle /b delete").unwrap();
        assert_eq!((flags.action, flags.bundle), (Action::Delete, Some("/b".into())));
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        assert_eq!(parse("-what start"), Err(FlagError::Unknown("what".into())));
        assert_eq!(parse("-id"), Err(FlagError::NoValue("id".into())));
        assert_eq!(
            parse("-id x start delete"),
            Err(FlagError::Action("delete".into()))
        );
        assert_eq!(
            parse("-debug=maybe"),
            Err(FlagError::NotBoolean("debug".into(), "maybe".into()))
        );
    }
}
