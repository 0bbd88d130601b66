//! A daemon with one image, and commands on it.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use integration_tests::wharf::Wharf;
use integration_tests::{Finished, Scratch, eventually, image};

/// How long anything may take that should be immediate.
pub const SOON: Duration = Duration::from_secs(20);

/// A running daemon and the busybox image. Its containers are removed with it.
pub struct Instance {
    pub wharf: Wharf,
    pub image: String,
    pub scratch: Scratch,
}

impl Instance {
    pub fn start() -> Instance {
        let scratch = Scratch::new();
        let wharf = Wharf::start(&scratch);
        let layout = image::busybox(&scratch.join("image"));
        let image = format!("oci:{}", layout.path().display());
        Instance {
            wharf,
            image,
            scratch,
        }
    }

    /// The arguments of `wharf run --network none OPTIONS IMAGE COMMAND`.
    pub fn run_arguments<'a>(&'a self, options: &[&'a str], command: &[&'a str]) -> Vec<&'a str> {
        [&["run", "--network", "none"], options, &[&self.image], command].concat()
    }

    /// `wharf run --rm --network none OPTIONS IMAGE COMMAND`.
    pub fn run(&self, options: &[&str], command: &[&str]) -> Finished {
        self.wharf
            .run(&self.run_arguments(&[&["--rm"], options].concat(), command))
    }

    /// `wharf run -d --name NAME --network none OPTIONS IMAGE COMMAND`; gives the id.
    pub fn detached(&self, name: &str, options: &[&str], command: &[&str]) -> String {
        let options = [&["-d", "--name", name], options].concat();
        let id = self.wharf.run(&self.run_arguments(&options, command)).ok();
        id.trim_end().to_string()
    }

    /// One field of a container, by a template.
    pub fn inspect(&self, container: &str, template: &str) -> String {
        self.wharf
            .run(&["inspect", "-f", template, container])
            .ok()
            .trim_end()
            .to_string()
    }

    /// Waits until the container's log holds `text`.
    pub fn logged(&self, container: &str, text: &str) {
        eventually(&format!("{container} writes {text:?}"), SOON, || {
            self.wharf
                .run(&["logs", container])
                .ok()
                .contains(text)
                .then_some(())
        });
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if self.wharf.daemon.is_none() {
            return;
        }
        // Whatever a failed test has left: its own failure is the one to report.
        let ids = self.wharf.run(&["ps", "-aq"]).stdout;
        let ids: Vec<&str> = ids.lines().collect();
        if !ids.is_empty() {
            self.wharf.run(&[&["rm", "-f"], ids.as_slice()].concat());
        }
    }
}

/// Runs `command` with `input` on its stdin, written while its output is read.
pub fn run_with_input(command: &mut Command, input: Vec<u8>) -> Finished {
    let text = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {text}: {error}"));
    let mut stdin = child.stdin.take().expect("a pipe");
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("wait for the command");
    writer
        .join()
        .expect("the writer")
        .expect("the command reads all of its stdin");
    Finished {
        command: text,
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
