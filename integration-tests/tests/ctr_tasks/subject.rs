//! A daemon under test and `ctr` on it; it leaves nothing, whatever becomes of the test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use integration_tests::containerd::{Containerd, ctr};
use integration_tests::wharf::Wharfd;
use integration_tests::{Finished, Scratch, bundle, eventually, leftovers, run};

pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A daemon under test, and the runtime that its containers are given.
pub(crate) struct Subject {
    pub(crate) scratch: Scratch,
    pub(crate) socket: PathBuf,
    pub(crate) runtime: String,
    pub(crate) root: String,
    /// Where the daemon keeps its bundles.
    pub(crate) bundles: PathBuf,
    pub(crate) wharfd: Option<Wharfd>,
    _containerd: Option<Containerd>,
}

impl Subject {
    pub(crate) fn containerd() -> Subject {
        let scratch = Scratch::new();
        let containerd = Containerd::start(&scratch);
        let bundles = scratch.join("containerd/state/io.containerd.runtime.v2.task");
        let mut subject = Subject::over(
            scratch,
            containerd.socket().to_owned(),
            "io.containerd.runc.v2",
            bundles,
        );
        subject._containerd = Some(containerd);
        subject
    }

    pub(crate) fn wharfd(runtime: &str) -> Subject {
        let scratch = Scratch::new();
        let wharfd = Wharfd::start(&scratch);
        // Found as those of containerd are; mounts are below the directory's own name.
        let state = wharfd.home().join("state");
        let directory = fs::read_link(state.join("io.containerd.runtime.v2.task"));
        let bundles = state.join(directory.expect("the name that tools know"));
        let mut subject = Subject::over(scratch, wharfd.socket(), runtime, bundles);
        subject.wharfd = Some(wharfd);
        subject
    }

    fn over(scratch: Scratch, socket: PathBuf, runtime: &str, bundles: PathBuf) -> Subject {
        let root = scratch.directory("root");
        bundle::busybox_root(&root);
        let root = root.to_str().expect("a UTF-8 path").to_owned();
        Subject {
            scratch,
            socket,
            runtime: runtime.to_owned(),
            root,
            bundles,
            wharfd: None,
            _containerd: None,
        }
    }

    /// `ctr` in a namespace of this test's own: it is part of the cgroups' names.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = ctr(&self.socket, self.namespace());
        command.args(arguments);
        command
    }

    pub(crate) fn namespace(&self) -> &str {
        self.scratch.unique()
    }

    pub(crate) fn ctr(&self, arguments: &[&str]) -> Finished {
        run(&mut self.command(arguments))
    }

    pub(crate) fn run(&self, flags: &[&str], id: &str, arguments: &[&str]) -> Finished {
        let mut command = self.command(&["run", "--runtime", &self.runtime]);
        command
            .args(flags)
            .args(["--rootfs", &self.root, id])
            .args(arguments);
        run(&mut command)
    }

    pub(crate) fn sleeper(&self, id: &str) -> i32 {
        self.run(&["--detach"], id, &["/bin/sleep", "1000"]).ok();
        self.pid(id).expect("a task that was just started")
    }

    /// The line of `ctr tasks ls`, in words.
    pub(crate) fn task(&self, id: &str) -> Option<Vec<String>> {
        let tasks = self.ctr(&["tasks", "ls"]).ok();
        tasks
            .lines()
            .map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
            .find(|words| words.first().is_some_and(|word| word == id))
    }

    pub(crate) fn pid(&self, id: &str) -> Option<i32> {
        self.task(id)?.get(1)?.parse().ok()
    }

    pub(crate) fn until(&self, id: &str, status: &str) {
        eventually(&format!("{id} is {status}"), SOON, || {
            self.task(id)?.get(2).filter(|word| *word == status).map(drop)
        });
    }

    pub(crate) fn nothing_is_left(&self) {
        let bundles = self.bundles.join(self.namespace());
        eventually("the bundles are gone", SOON, || {
            fs::read_dir(&bundles)
                .is_ok_and(|mut bundles| bundles.next().is_none())
                .then_some(())
        });
        assert_eq!(leftovers::mounts_below(&self.bundles), [] as [PathBuf; 0]);
        eventually("the shims are gone", SOON, || {
            leftovers::processes_with(&format!(" -namespace {} ", self.namespace()))
                .is_empty()
                .then_some(())
        });
    }
}

impl Drop for Subject {
    /// Ends what a failed test left running, and removes the namespace's cgroups, which runtimes leave empty.
    fn drop(&mut self) {
        let cgroups = leftovers::cgroups_named(self.namespace());
        for _ in 0..200 {
            if cgroups.iter().filter(|cgroup| !remove_cgroup(cgroup)).count() == 0 {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        eprintln!("cgroups of {} are still in use", self.namespace());
    }
}

/// Kills what is in `cgroup` and below and removes it; `false` while that takes its time.
fn remove_cgroup(cgroup: &Path) -> bool {
    let Ok(entries) = fs::read_dir(cgroup) else {
        return true;
    };
    let below = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let empty = below.filter(|entry| !remove_cgroup(&entry.path())).count() == 0;
    let processes = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    for pid in processes
        .lines()
        .filter_map(|line| line.parse().ok())
        .filter_map(rustix::process::Pid::from_raw)
    {
        // One that has ended in between is what is wanted.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    empty && fs::remove_dir(cgroup).is_ok()
}
