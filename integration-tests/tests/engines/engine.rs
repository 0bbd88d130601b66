//! What the engines have in common: the command line of docker.

use std::path::PathBuf;
use std::process::Command;

use integration_tests::{Finished, Scratch, binaries, bundle, image, leftovers, run};

/// The image that every case runs.
pub(crate) const IMAGE: &str = "localhost/busybox:latest";

/// An engine that understands docker's commands.
pub(crate) trait Engine: Sync {
    /// A command of the engine.
    fn command(&self) -> Command;

    /// Options that every `run` on this machine needs.
    fn limits(&self) -> Vec<&str> {
        Vec::new()
    }

    /// Runs a command to its end, with terminals' carriage returns left out.
    fn run(&self, arguments: &[&str]) -> Finished {
        let mut command = Command::new("timeout");
        let engine = self.command();
        command
            .arg("60")
            .arg(engine.get_program())
            .args(engine.get_args());
        let mut finished = run(command.args(arguments));
        finished.stdout = finished.stdout.replace('\r', "");
        finished
    }

    /// `run OPTIONS IMAGE sh -c SCRIPT`.
    fn script(&self, options: &[&str], script: &str) -> Finished {
        let limits = self.limits();
        let network: &[&str] = &["--network", "none"];
        let command: &[&str] = &[IMAGE, "/bin/sh", "-c", script];
        self.run(&[&["run"], &limits[..], network, options, command].concat())
    }

    /// Starts a container in the background that does `script`.
    fn start(&self, name: &str, options: &[&str], script: &str) {
        let options = [&["--detach", "--name", name], options].concat();
        self.script(&options, script).ok();
    }

    /// Makes the image.
    fn import(&self, scratch: &Scratch) {
        let root = scratch.directory("image");
        bundle::busybox_root(&root);
        for applet in ["cut", "tee", "tr"] {
            let link = root.join("bin").join(applet);
            std::os::unix::fs::symlink("busybox", link).expect("link an applet");
        }
        let archive = scratch.join("image.tar");
        image::archive(&root, &archive);
        let archive = archive.to_str().expect("a UTF-8 path");
        self.run(&["import", archive, IMAGE]).ok();
    }
}

/// The runtime that is tested: ours, if nothing else is asked for.
pub(crate) fn runtime() -> PathBuf {
    std::env::var_os("WHARF_ENGINES_RUNTIME").map_or_else(|| binaries::ours("wharf-runtime"), PathBuf::from)
}

/// What the containers of an engine hold that must be gone when they are.
#[derive(Debug, PartialEq)]
pub(crate) struct Holdings {
    mounts: Vec<PathBuf>,
    processes: Vec<String>,
}

impl Holdings {
    /// What is held below `scratch` now.
    pub(crate) fn of(scratch: &Scratch) -> Self {
        let mut mounts = leftovers::mounts_below(scratch.path());
        mounts.sort();
        let processes = leftovers::processes_with(scratch.unique());
        let mut processes: Vec<String> = processes
            .into_iter()
            .map(|(_, line)| line)
            .filter(|line| {
                ["shim", "conmon", "wharf-runtime", "runc "]
                    .iter()
                    .any(|name| line.contains(name))
            })
            // The daemon names the runtime.
            .filter(|line| !line.contains("dockerd "))
            .collect();
        processes.sort();
        Self { mounts, processes }
    }

    /// Whether nothing is held.
    pub(crate) fn is_empty(&self) -> bool {
        self.mounts.is_empty() && self.processes.is_empty()
    }
}
