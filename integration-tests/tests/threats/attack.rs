//! A runtime, a hostile bundle, and what could be lost.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use integration_tests::{Finished, Scratch, binaries, bundle, eventually, run};
use serde_json::{Value, json};

/// One test's runtime with a state root, a bundle, and a directory of the host that no container may reach.
pub(crate) struct Attack {
    /// Goes last, with all that the test left.
    pub(crate) scratch: Scratch,
    /// The runtime's program.
    pub(crate) program: PathBuf,
    canary: BTreeMap<PathBuf, String>,
}

impl Attack {
    /// A bundle with a small Linux and a canary.
    pub(crate) fn new() -> Self {
        let scratch = Scratch::new();
        bundle::bundle(&scratch.join("bundle"), &["/bin/true"], |_| {});
        fs::create_dir(scratch.join("canary")).expect("mkdir");
        fs::write(scratch.join("canary/secret"), "of the host").expect("write");
        let mut attack = Self {
            scratch,
            program: binaries::ours("wharf-runtime"),
            canary: BTreeMap::new(),
        };
        attack.canary = attack.losses();
        attack
    }

    /// A path in the root file system.
    pub(crate) fn rootfs(&self, path: &str) -> PathBuf {
        self.scratch.join("bundle/rootfs").join(path)
    }

    /// The directory that no container may reach.
    pub(crate) fn canary(&self) -> PathBuf {
        self.scratch.join("canary")
    }

    /// The container's name, as good as any.
    pub(crate) fn id(&self) -> &str {
        self.scratch.unique()
    }

    /// Rewrites `config.json` from the default one.
    pub(crate) fn configure(&self, arguments: &[&str], edit: impl FnOnce(&mut Value)) {
        let directory = self.scratch.join("bundle");
        fs::remove_file(directory.join("config.json")).expect("remove config.json");
        bundle::configure(&directory, arguments, edit);
    }

    /// A command of the runtime.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        // Whatever hangs fails, instead of holding up every other test.
        let mut command = Command::new("timeout");
        command.args(["--kill-after=1", "20"]);
        command.arg(&self.program);
        command
            .arg("--root")
            .arg(self.scratch.join("state"))
            .args(arguments);
        command
    }

    /// Runs the container to its end.
    pub(crate) fn run(&self) -> Finished {
        let mut command = self.command(&["run", "--bundle"]);
        let finished = run(command.arg(self.scratch.join("bundle")).arg(self.id()));
        assert!(
            finished.code != 124 && finished.code != 137,
            "it hangs: {finished}"
        );
        finished
    }

    /// Starts the container; what it says goes to the file `output` of the bundle.
    pub(crate) fn start(&self) {
        let output = fs::File::create(self.output()).expect("output");
        let mut command = self.command(&["run", "--detach", "--bundle"]);
        command.arg(self.scratch.join("bundle")).arg(self.id());
        let status = command
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("dup"))
            .stderr(output)
            .status()
            .expect("start the runtime");
        assert!(status.success(), "{}", self.said());
    }

    /// Executes in the running container.
    pub(crate) fn exec(&self, flags: &[&str], arguments: &[&str]) -> Finished {
        let mut command = self.command(&["exec"]);
        let finished = run(command.args(flags).arg(self.id()).args(arguments));
        assert!(
            finished.code != 124 && finished.code != 137,
            "it hangs: {finished}"
        );
        finished
    }

    /// Kills and removes the container.
    pub(crate) fn delete(&self) {
        run(&mut self.command(&["delete", "--force", self.id()])).ok();
    }

    /// What the started container said so far.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(self.output()).unwrap_or_default()
    }

    /// Waits until the started container said `text`.
    pub(crate) fn says(&self, text: &str) {
        let limit = Duration::from_secs(10);
        eventually(&format!("the container says {text:?}"), limit, || {
            self.said().contains(text).then_some(())
        });
    }

    fn output(&self) -> PathBuf {
        self.scratch.join("bundle/output")
    }

    /// Nothing of the host has changed.
    #[track_caller]
    pub(crate) fn lost_nothing(&self, what: &str) {
        assert_eq!(self.losses(), self.canary, "{what}");
    }

    /// Every entry of the canary, and the host's own nodes that runtimes were made to replace.
    fn losses(&self) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        let nodes = [
            "null", "zero", "full", "random", "urandom", "tty", "ptmx", "fd", "console", "pts",
        ];
        for node in nodes {
            note(&Path::new("/dev").join(node), &mut found);
        }
        note(&self.canary(), &mut found);
        for entry in fs::read_dir(self.canary()).expect("canary") {
            note(&entry.expect("entry").path(), &mut found);
        }
        found
    }
}

fn note(path: &Path, found: &mut BTreeMap<PathBuf, String>) {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return;
    };
    let text = format!(
        "{:o} {}:{} inode {} device {}",
        metadata.mode(),
        metadata.uid(),
        metadata.gid(),
        metadata.ino(),
        metadata.rdev()
    );
    let content = match metadata.is_file() {
        true => fs::read_to_string(path).unwrap_or_default(),
        false => String::new(),
    };
    found.insert(path.into(), format!("{text} {content}"));
}

/// Leaves out the mount at `destination`.
pub(crate) fn without_mount(spec: &mut Value, destination: &str) {
    let mounts = spec["mounts"].as_array_mut().expect("mounts");
    let before = mounts.len();
    mounts.retain(|mount| mount["destination"] != destination);
    assert!(mounts.len() < before, "there is no mount at {destination}");
}

/// Adds a mount at the end.
pub(crate) fn mount(spec: &mut Value, kind: &str, source: &str, destination: &str, options: &[&str]) {
    let mount = json!({"type": kind, "source": source, "destination": destination, "options": options});
    spec["mounts"].as_array_mut().expect("mounts").push(mount);
}

/// Gives the process one more capability, inheritable excepted.
pub(crate) fn grant(spec: &mut Value, capability: &str) {
    for set in ["bounding", "effective", "permitted"] {
        let set = spec["process"]["capabilities"][set].as_array_mut();
        set.expect("a capability set").push(capability.into());
    }
}
