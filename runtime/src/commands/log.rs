//! The log as callers read it: one line an entry, as text or JSON, with runc's field names.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::OnceLock;

use anyhow::{Context as _, bail};
use serde_json::json;

use super::Global;

/// Where entries go, and how they look.
pub(crate) struct Log {
    /// Nothing for standard error.
    file: Option<File>,
    format: Format,
    debug: bool,
}

impl Log {
    /// Text on standard error, for what goes wrong before the arguments are known.
    pub(crate) fn standard() -> Self {
        Self {
            file: None,
            format: Format::Text,
            debug: false,
        }
    }

    /// The log that the arguments ask for, which is this process's from here on. With `--debug` the library's steps are in it.
    pub(crate) fn open(global: &Global) -> anyhow::Result<&'static Self> {
        static LOG: OnceLock<Log> = OnceLock::new();
        let opened = Self::open_file(global)?;
        let log = LOG.get_or_init(|| opened);
        if log.debug {
            wharf_runtime::trace::listen(|message| {
                if let Some(log) = LOG.get() {
                    log.write("debug", &message.to_string());
                }
            });
        }
        Ok(log)
    }

    fn open_file(global: &Global) -> anyhow::Result<Self> {
        let format = match global.log_format.as_str() {
            "" | "text" => Format::Text,
            "json" => Format::Json,
            other => bail!("invalid log-format: {other}"),
        };
        let path = global.log.as_ref().filter(|path| !path.as_os_str().is_empty());
        let file = path
            .map(|path| {
                OpenOptions::new()
                    .append(true)
                    .create(true)
                    .mode(0o644)
                    .open(path)
                    .with_context(|| format!("open {}", path.display()))
            })
            .transpose()?;
        Ok(Self {
            file,
            format,
            debug: global.debug,
        })
    }

    pub(crate) fn warning(&self, message: &str) {
        self.write("warning", message);
    }

    pub(crate) fn warnings(&self, messages: &[String]) {
        messages.iter().for_each(|message| self.warning(message));
    }

    /// The last entry. Whoever has no eye on the log file finds the message on standard error.
    pub(crate) fn fatal(&self, message: &str) {
        self.write("error", message);
        if self.file.is_some() {
            say(message);
        }
    }

    /// As [`Self::fatal`], but standard error gets `line` as it is, whether the log is there or not: it is what the
    /// container's own program would have said.
    pub(crate) fn fatal_line(&self, message: &str, line: &str) {
        if self.file.is_some() {
            self.write("error", message);
        }
        say(line);
    }

    fn write(&self, level: &str, message: &str) {
        let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let line = match self.format {
            Format::Json => format!("{}\n", json!({"level": level, "msg": message, "time": time})),
            Format::Text => format!("time={time:?} level={level} msg={}\n", quoted(message)),
        };
        // When this fails there is nowhere left to say so; the exit code still tells.
        drop(match &self.file {
            Some(file) => {
                let mut file = file;
                file.write_all(line.as_bytes())
            }
            None => std::io::stderr().write_all(line.as_bytes()),
        });
    }
}

/// A line on standard error. When this fails there is nowhere left to say so; the exit code still tells.
fn say(line: &str) {
    drop(std::io::stderr().write_all(format!("{line}\n").as_bytes()));
}

/// How entries look.
#[derive(Clone, Copy, Debug)]
enum Format {
    /// `time="…" level=error msg="…"`
    Text,
    /// `{"level":"error","msg":"…","time":"…"}`
    Json,
}

/// In quotes unless every character is harmless in a `name=value` line.
fn quoted(message: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._/@^+".contains(&byte);
    if !message.is_empty() && message.bytes().all(plain) {
        message.to_owned()
    } else {
        format!("{message:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn values_with_blanks_are_quoted() {
        assert_eq!(quoted("plain-value_1.0/x"), "plain-value_1.0/x");
        assert_eq!(quoted("two words"), "\"two words\"");
        assert_eq!(quoted("say \"x\"\n"), r#""say \"x\"\n""#);
        assert_eq!(quoted(""), "\"\"");
    }
}
