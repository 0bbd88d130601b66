//! What `wharf-runtime` makes of a process: its hooks, attributes, descriptors, signals, and what programs around it are told.

mod attributes;
mod hooks;
mod library;
mod manager;
mod signals;
mod words;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use integration_tests::{Finished, Scratch, binaries, bundle, eventually, run};
use serde_json::Value;

/// `wharf-runtime` with a bundle and a state root of the test's own.
struct Case {
    scratch: Scratch,
    program: PathBuf,
}

impl Case {
    fn new(arguments: &[&str], edit: impl FnOnce(&mut Value)) -> Case {
        let scratch = Scratch::new();
        bundle::bundle(&scratch.join("bundle"), arguments, |spec| {
            // What a process inside finds out it writes down.
            spec["root"]["readonly"] = false.into();
            edit(spec);
        });
        Case {
            scratch,
            program: binaries::ours("wharf-runtime"),
        }
    }

    fn id(&self) -> &str {
        self.scratch.unique()
    }

    fn bundle(&self) -> PathBuf {
        self.scratch.join("bundle")
    }

    fn rootfs(&self, path: &str) -> PathBuf {
        self.bundle().join("rootfs").join(path)
    }

    fn root(&self) -> PathBuf {
        self.scratch.join("state")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(self.root()).args(arguments);
        command.current_dir(self.bundle());
        command
    }

    fn run(&self, arguments: &[&str]) -> Finished {
        run(&mut self.command(arguments))
    }

    /// As [`Self::run`], by a shell: `$runtime` is the program with its root.
    fn shell(&self, script: &str) -> Finished {
        let runtime = format!("{} --root {}", self.program.display(), self.root().display());
        run(Command::new("sh")
            .args(["-c", script])
            .env("runtime", runtime)
            .env("id", self.id())
            .current_dir(self.bundle()))
    }

    /// A command that leaves processes behind: they get a file for their output, or the test would wait for them.
    fn detached(&self, arguments: &[&str]) {
        let path = self.scratch.join("output");
        let output = fs::File::create(&path).expect("the output file");
        let mut command = self.command(arguments);
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("dup"))
            .stderr(output);
        let status = command.status().expect("start the runtime");
        let said = fs::read_to_string(&path).unwrap_or_default();
        assert!(status.success(), "{command:?} ended with {status}: {said}");
    }

    fn state(&self) -> Value {
        serde_json::from_str(&self.run(&["state", self.id()]).ok()).expect("state prints JSON")
    }

    fn await_status(&self, status: &str) {
        eventually(status, Duration::from_secs(10), || {
            (self.state()["status"] == status).then_some(())
        });
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        // Whatever the test left running.
        drop(self.run(&["delete", "--force", self.id()]));
    }
}

/// The value of a field of a `/proc/PID/status` text.
fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {status}")).trim()
}

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
}
