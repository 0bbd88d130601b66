//! A `wharfd` under test with a namespace and a root filesystem of its own; it leaves nothing, whatever becomes of the test.

use std::time::Duration;

use integration_tests::containerd::ctr;
use integration_tests::wharf::Wharfd;
use integration_tests::{Finished, Scratch, bundle, leftovers, run};

pub(crate) const SOON: Duration = Duration::from_secs(30);

/// A daemon under test.
pub(crate) struct Subject {
    pub(crate) wharfd: Wharfd,
    pub(crate) root: String,
    pub(crate) scratch: Scratch,
}

impl Subject {
    pub(crate) fn unstarted() -> Subject {
        let scratch = Scratch::new();
        let wharfd = Wharfd::unstarted(&scratch);
        let root = scratch.directory("root");
        bundle::busybox_root(&root);
        Subject {
            wharfd,
            root: root.to_str().expect("a UTF-8 path").to_owned(),
            scratch,
        }
    }

    pub(crate) fn start() -> Subject {
        let mut subject = Subject::unstarted();
        subject.wharfd.restart();
        subject
    }

    pub(crate) fn configured(text: &str) -> Subject {
        let mut subject = Subject::unstarted();
        subject.configure(text);
        subject.wharfd.restart();
        subject
    }

    pub(crate) fn configure(&self, text: &str) {
        std::fs::write(self.wharfd.home().join("wharfd.toml"), text).expect("write the configuration");
    }

    pub(crate) fn namespace(&self) -> &str {
        self.scratch.unique()
    }

    pub(crate) fn ctr(&self, arguments: &[&str]) -> Finished {
        run(ctr(&self.wharfd.socket(), self.namespace()).args(arguments))
    }

    /// Starts a container in the background.
    pub(crate) fn detached(&self, id: &str, command: &[&str]) -> i32 {
        let options = [
            "run",
            "--detach",
            "--runtime",
            "io.containerd.wharf.v2",
            "--rootfs",
        ];
        self.ctr(&[&options[..], &[self.root.as_str(), id], command].concat())
            .ok();
        self.pid(id).expect("a task that was just started")
    }

    pub(crate) fn pid(&self, id: &str) -> Option<i32> {
        let tasks = self.ctr(&["tasks", "ls"]).ok();
        let mut lines = tasks
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>());
        lines
            .find(|words| words.first() == Some(&id))?
            .get(1)?
            .parse()
            .ok()
    }

    pub(crate) fn serves(&self) -> bool {
        // ctr itself would try for ten seconds.
        if std::os::unix::net::UnixStream::connect(self.wharfd.socket()).is_err() {
            return false;
        }
        let version = ctr(&self.wharfd.socket(), "default").arg("version").output();
        version.is_ok_and(|output| output.status.success())
    }

    pub(crate) fn daemon_pid(&self) -> i32 {
        self.wharfd.daemon.as_ref().expect("a running daemon").pid()
    }
}

impl Drop for Subject {
    /// Ends what a test left running, and removes the namespace's cgroups, which runtimes leave empty.
    fn drop(&mut self) {
        if self.serves() {
            let tasks = self.ctr(&["tasks", "ls", "--quiet"]);
            for id in tasks.stdout.split_whitespace() {
                self.ctr(&["tasks", "delete", "--force", id]);
                self.ctr(&["containers", "delete", id]);
            }
        }
        let mut cgroups = leftovers::cgroups_named(self.namespace());
        for _ in 0..200 {
            cgroups.retain(|cgroup| std::fs::remove_dir(cgroup).is_err() && cgroup.exists());
            if cgroups.is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        eprintln!("cgroups of {} are still in use", self.namespace());
    }
}
