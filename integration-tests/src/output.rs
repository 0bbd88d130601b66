//! Running a command to its end, and what it said.

use std::process::{Command, Stdio};

/// A command that ended.
#[derive(Debug)]
pub struct Finished {
    /// The command as it was run, for messages.
    pub command: String,
    /// The exit code; 128 plus the number of the signal that ended it.
    pub code: i32,
    /// Standard output, lossily as UTF-8.
    pub stdout: String,
    /// Standard error, lossily as UTF-8.
    pub stderr: String,
}

/// Runs `command` with no standard input and collects what it prints.
///
/// # Panics
///
/// The program cannot be started.
pub fn run(command: &mut Command) -> Finished {
    use std::os::unix::process::ExitStatusExt;
    let text = format!("{command:?}");
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("cannot start {text}: {error}"));
    Finished {
        command: text,
        code: output
            .status
            .code()
            .unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0)),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Finished {
    /// The standard output, when the command succeeded.
    ///
    /// # Panics
    ///
    /// It failed; the message carries all that it said.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.code == 0, "{self}");
        self.stdout
    }

    /// The standard error, when the command ended with `code`.
    ///
    /// # Panics
    ///
    /// It ended otherwise.
    #[track_caller]
    pub fn fails_with(self, code: i32) -> String {
        assert!(self.code == code, "expected exit code {code}: {self}");
        self.stderr
    }

    /// The one line of standard error of a command that failed: what a user sees of bad input.
    ///
    /// # Panics
    ///
    /// The command succeeded, or said nothing, or said more than one line.
    #[track_caller]
    pub fn one_line_error(self) -> String {
        assert!(self.code != 0, "expected a failure: {self}");
        let lines: Vec<&str> = self
            .stderr
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect();
        assert!(lines.len() == 1, "expected one line on stderr: {self}");
        lines[0].to_string()
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} ended with {}\n--- stdout\n{}\n--- stderr\n{}",
            self.command, self.code, self.stdout, self.stderr
        )
    }
}
