//! How a command fails: what is printed, what the user can do next, and the exit code.
//!
//! Owns the mapping from causes to exit codes, in one place. Refuses to print: that is done once, where the command ends.

use std::io;

use super::quantity::QuantityError;
use super::template::TemplateError;
use crate::api::client::ClientError;

/// The exit code of a failed command, unless it says otherwise.
pub(crate) const FAILED: u8 = 1;
/// The daemon or the command line failed, not the container (`run`), or the flags are wrong.
pub(crate) const NOT_STARTED: u8 = 125;
/// The command in the container was found but could not be executed.
pub(crate) const NOT_EXECUTABLE: u8 = 126;
/// The command in the container was not found.
pub(crate) const NOT_FOUND: u8 = 127;
/// The reader of our output went away: what a shell reports of a program that SIGPIPE killed.
pub(crate) const READER_GONE: u8 = 128 + 13;

/// The end of a command that did not do what it was asked for.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) code: u8,
    /// One line; empty when everything has been said already.
    pub(crate) message: String,
    /// What to do next, one line.
    pub(crate) hint: Option<String>,
}

/// The exit code of a command that ran to its end, or why it did not.
pub(crate) type Outcome = Result<u8, Failure>;

impl Failure {
    /// A failure with exit code 1.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            code: FAILED,
            message: message.into(),
            hint: None,
        }
    }

    /// A failure whose message has been printed already.
    pub(crate) fn silent(code: u8) -> Self {
        Self {
            code,
            message: String::new(),
            hint: None,
        }
    }

    /// Adds what to do next, unless there is better advice already.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint.get_or_insert(hint.into());
        self
    }

    /// Sets the exit code.
    pub(crate) fn code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// The failure of the command line or the daemon, not of the container: 125.
    pub(crate) fn code_of_client(self) -> Self {
        if self.code == READER_GONE {
            self
        } else {
            self.code(NOT_STARTED)
        }
    }

    /// The failure of `run`: 127 and 126 when the container's own command could not be executed, 125 otherwise.
    pub(crate) fn of_start(self) -> Self {
        let code = start_exit_code(&self.message);
        self.code(code)
    }
}

/// The API has no field for it: every Docker client reads the class of a failed start from the daemon's words.
pub(crate) fn start_exit_code(message: &str) -> u8 {
    let message = message.to_ascii_lowercase();
    let says = |texts: &[&str]| texts.iter().any(|text| message.contains(text));
    if says(&["executable file not found", "no such file or directory"]) {
        NOT_FOUND
    } else if says(&[
        "permission denied",
        "not a directory",
        "is a directory",
        "exec format error",
    ]) {
        NOT_EXECUTABLE
    } else {
        NOT_STARTED
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match &error {
            ClientError::Api { message, .. } if message.starts_with("No such ") => {
                let failure = Self::new(format!("Error: {message}"));
                let what = message.trim_start_matches("No such ");
                if what.starts_with("container") {
                    failure.hint("`wharf ps -a` lists all containers")
                } else if what.starts_with("image") {
                    failure.hint("`wharf images` lists the images that are here, `wharf pull` fetches one")
                } else {
                    failure
                }
            }
            ClientError::Api { message, .. } => Self::new(format!("Error response from daemon: {message}")),
            ClientError::Connect { source, socket } => {
                let failure = Self::new(format!("Cannot connect to the daemon: {error}"));
                if source.kind() == io::ErrorKind::PermissionDenied {
                    failure
                        .hint("the socket belongs to root: run this command as root, for example with sudo")
                } else {
                    failure.hint(format!(
                        "start it with `wharf --host {} daemon`",
                        socket.display()
                    ))
                }
            }
            _ => Self::new(format!("Error while talking to the daemon: {error}")),
        }
    }
}

impl From<io::Error> for Failure {
    /// Of writing to our own output: everything else is turned into a failure where it happens, with its object.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::silent(READER_GONE)
        } else {
            Self::new(format!("Error: write the output: {error}"))
        }
    }
}

impl From<TemplateError> for Failure {
    fn from(error: TemplateError) -> Self {
        Self::new(format!("Error: --format: {error}"))
    }
}

impl From<QuantityError> for Failure {
    fn from(error: QuantityError) -> Self {
        Self::new(format!("Error: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_of_a_failed_start_tells_missing_from_not_executable() {
        for (message, code) in [
            ("exec: \"x\": executable file not found in $PATH", 127),
            ("stat /nope: no such file or directory", 127),
            ("exec /etc: permission denied", 126),
            ("exec /x: Exec format error", 126),
            ("cgroup limit refused", 125),
        ] {
            assert_eq!(Failure::new(message).of_start().code, code, "{message}");
        }
    }
}
