//! Tasks as Debian's `ctr` drives them: the same assertions on containerd and on `wharfd`, with our shim and with runc's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use integration_tests::containerd::{Containerd, ctr};
use integration_tests::wharf::Wharfd;
use integration_tests::{Finished, Scratch, binaries, bundle, eventually, leftovers, run};

const SOON: Duration = Duration::from_secs(20);

/// A daemon under test, and the runtime that its containers are given.
struct Subject {
    scratch: Scratch,
    socket: PathBuf,
    runtime: String,
    root: String,
    /// Where the daemon keeps its bundles.
    bundles: PathBuf,
    wharfd: Option<Wharfd>,
    _containerd: Option<Containerd>,
}

impl Subject {
    fn containerd() -> Subject {
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

    fn wharfd(runtime: &str) -> Subject {
        let scratch = Scratch::new();
        let wharfd = Wharfd::start(&scratch);
        let bundles = wharfd.home().join("state/tasks");
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
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = ctr(&self.socket, self.namespace());
        command.args(arguments);
        command
    }

    fn namespace(&self) -> &str {
        self.scratch.unique()
    }

    fn ctr(&self, arguments: &[&str]) -> Finished {
        run(&mut self.command(arguments))
    }

    fn run(&self, flags: &[&str], id: &str, arguments: &[&str]) -> Finished {
        let mut command = self.command(&["run", "--runtime", &self.runtime]);
        command
            .args(flags)
            .args(["--rootfs", &self.root, id])
            .args(arguments);
        run(&mut command)
    }

    fn sleeper(&self, id: &str) -> i32 {
        self.run(&["--detach"], id, &["/bin/sleep", "1000"]).ok();
        self.pid(id).expect("a task that was just started")
    }

    /// The line of `ctr tasks ls`, in words.
    fn task(&self, id: &str) -> Option<Vec<String>> {
        let tasks = self.ctr(&["tasks", "ls"]).ok();
        tasks
            .lines()
            .map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
            .find(|words| words.first().is_some_and(|word| word == id))
    }

    fn pid(&self, id: &str) -> Option<i32> {
        self.task(id)?.get(1)?.parse().ok()
    }

    fn until(&self, id: &str, status: &str) {
        eventually(&format!("{id} is {status}"), SOON, || {
            self.task(id)?.get(2).filter(|word| *word == status).map(drop)
        });
    }

    fn events(&self) -> Events {
        let path = self.scratch.join("events");
        let file = fs::File::create(&path).expect("a file for events");
        let child = self
            .command(&["events"])
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(Stdio::null())
            .spawn()
            .expect("start ctr events");
        let events = Events { child, path };
        // `ctr` says nothing when it has subscribed: make events until one arrives.
        eventually("ctr events has subscribed", SOON, || {
            self.ctr(&["containers", "create", "--rootfs", &self.root, "canary"])
                .ok();
            self.ctr(&["containers", "delete", "canary"]).ok();
            (!events.lines().is_empty()).then_some(())
        });
        events
    }

    fn nothing_is_left(&self) {
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

/// `ctr events` in the background.
struct Events {
    child: Child,
    path: PathBuf,
}

impl Events {
    fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.path).expect("read the events");
        text.lines().map(str::to_owned).collect()
    }

    /// The topics of the events that name `id`, in their order.
    fn of(&self, id: &str) -> Vec<String> {
        self.lines()
            .iter()
            .filter(|line| line.contains(&format!("\"{id}\"")))
            .filter_map(|line| {
                line.split(' ')
                    .find(|word| word.starts_with("/tasks/"))
                    .map(str::to_owned)
            })
            .collect()
    }

    fn until(&self, id: &str, topic: &str) -> Vec<String> {
        eventually(&format!("{topic} of {id}"), SOON, || {
            let topics = self.of(id);
            topics.iter().any(|seen| seen == topic).then_some(topics)
        })
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        // It runs until it is told not to; only one that has ended refuses.
        drop(self.child.kill());
        self.child.wait().expect("wait for ctr events");
    }
}

fn parent(pid: i32) -> i32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the task's process");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:"))
        .expect("PPid");
    line.trim().parse().expect("a pid")
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kill -9");
}

/// Runs a test on containerd, on wharfd with our shim, and on wharfd with Debian's shim.
macro_rules! on_each {
    ($($name:ident)*) => {
        mod containerd { $(#[test] fn $name() { super::$name(super::Subject::containerd()); })* }
        mod wharfd { $(#[test] fn $name() { super::$name(super::Subject::wharfd("io.containerd.runc.v2")); })* }
        mod wharfd_with_runcs_shim { $(#[test] fn $name() {
            let shim = super::binaries::peer("containerd-shim-runc-v2");
            super::$name(super::Subject::wharfd(shim.to_str().expect("a UTF-8 path")));
        })* }
    };
}

on_each! {
    output_and_exit_code_reach_the_client
    a_task_is_listed_paused_measured_killed_and_deleted
    errors_are_those_that_clients_know
    events_tell_the_life_of_a_task_in_order
    the_end_of_a_task_whose_shim_was_killed_is_told_once
    tasks_start_side_by_side
}

fn output_and_exit_code_reach_the_client(subject: Subject) {
    assert_eq!(
        subject.run(&["--rm"], "a", &["/bin/echo", "hello"]).ok(),
        "hello\n"
    );
    subject
        .run(&["--rm"], "a", &["/bin/sh", "-c", "exit 3"])
        .fails_with(3);
    subject.sleeper("b");
    let exec = |id: &str, arguments: &[&str]| {
        let mut all = vec!["tasks", "exec", "--exec-id", id, "b"];
        all.extend(arguments);
        subject.ctr(&all)
    };
    assert_eq!(exec("one", &["/bin/echo", "executed"]).ok(), "executed\n");
    exec("two", &["/bin/sh", "-c", "exit 9"]).fails_with(9);
    // An id is free again once its exec is over.
    assert_eq!(exec("one", &["/bin/echo", "again"]).ok(), "again\n");
    subject.ctr(&["tasks", "delete", "--force", "b"]).ok();
    subject.nothing_is_left();
}

fn a_task_is_listed_paused_measured_killed_and_deleted(subject: Subject) {
    let pid = subject.sleeper("a");
    subject.until("a", "RUNNING");
    let listed = subject.ctr(&["tasks", "ps", "a"]).ok();
    assert!(
        listed.lines().any(|line| line.starts_with(&pid.to_string())),
        "{listed}"
    );
    let metrics = subject.ctr(&["tasks", "metrics", "a"]).ok();
    assert!(metrics.contains("memory.usage_in_bytes"), "{metrics}");
    subject.ctr(&["tasks", "pause", "a"]).ok();
    subject.until("a", "PAUSED");
    subject.ctr(&["tasks", "resume", "a"]).ok();
    subject.until("a", "RUNNING");
    subject.ctr(&["tasks", "kill", "--signal", "KILL", "a"]).ok();
    subject.until("a", "STOPPED");
    let deleted = subject.ctr(&["tasks", "delete", "a"]);
    assert!(
        deleted.code == 0 && deleted.stderr.contains("exit with non-zero exit code 137"),
        "{deleted}"
    );
    assert_eq!(subject.task("a"), None);
    subject.ctr(&["containers", "delete", "a"]).ok();
    subject.nothing_is_left();
}

fn errors_are_those_that_clients_know(subject: Subject) {
    let refused = |arguments: &[&str], expected: &str| {
        let finished = subject.ctr(arguments);
        assert!(
            finished.code == 1 && finished.stderr.contains(expected),
            "expected {expected:?}: {finished}"
        );
    };
    let missing = format!(
        "container \"no\" in namespace \"{}\": not found",
        subject.namespace()
    );
    refused(&["tasks", "kill", "no"], &missing);
    refused(&["tasks", "exec", "--exec-id", "x", "no", "/bin/true"], &missing);
    refused(&["tasks", "pause", "no"], &missing);
    subject.sleeper("a");
    refused(&["tasks", "start", "a"], "ctr: task a: already exists");
    refused(
        &["tasks", "delete", "a"],
        "task must be stopped before deletion: running: failed precondition",
    );
    refused(&["tasks", "resume", "a"], "cannot resume a running process");
    refused(
        &["tasks", "exec", "--exec-id", "x", "a", "/bin/none"],
        "exec: \"/bin/none\": stat /bin/none: no such file or directory",
    );
    subject.ctr(&["tasks", "kill", "--signal", "KILL", "a"]).ok();
    subject.until("a", "STOPPED");
    refused(
        &["tasks", "kill", "a"],
        "ctr: process already finished: not found",
    );
    refused(
        &["tasks", "exec", "--exec-id", "x", "a", "/bin/true"],
        "cannot exec in a stopped state",
    );
    subject.ctr(&["tasks", "delete", "a"]).ok();
    refused(
        &["tasks", "delete", "a"],
        "ctr: no running task found: task a not found: not found",
    );

    let failed = subject.run(&["--rm"], "b", &["/bin/none"]);
    let expected = "exec: \"/bin/none\": stat /bin/none: no such file or directory";
    assert!(failed.code == 1 && failed.stderr.contains(expected), "{failed}");
    assert!(failed.stderr.contains("failed to create shim task: "), "{failed}");
    for (runtime, expected) in [
        (
            "io.containerd.none.v9",
            "failed to start shim: failed to resolve runtime path: runtime \"io.containerd.none.v9\" binary not \
             installed \"containerd-shim-none-v9\": file does not exist",
        ),
        (
            "none",
            "failed to start shim: failed to resolve runtime path: invalid runtime name none",
        ),
    ] {
        let arguments = [
            "run",
            "--rm",
            "--runtime",
            runtime,
            "--rootfs",
            &subject.root,
            "c",
            "/bin/true",
        ];
        refused(&arguments, expected);
    }
    subject.nothing_is_left();
}

fn events_tell_the_life_of_a_task_in_order(subject: Subject) {
    let events = subject.events();
    subject.sleeper("a");
    subject
        .ctr(&["tasks", "exec", "--exec-id", "one", "a", "/bin/true"])
        .ok();
    eventually("the exec's exit", SOON, || {
        (events
            .of("a")
            .iter()
            .filter(|topic| *topic == "/tasks/exit")
            .count()
            == 1)
            .then_some(())
    });
    subject.ctr(&["tasks", "pause", "a"]).ok();
    subject.ctr(&["tasks", "resume", "a"]).ok();
    subject.ctr(&["tasks", "kill", "--signal", "KILL", "a"]).ok();
    subject.until("a", "STOPPED");
    subject.ctr(&["tasks", "delete", "a"]).ok();
    events.until("a", "/tasks/delete");
    // What comes late comes after this.
    subject.run(&["--rm"], "b", &["/bin/true"]).ok();
    events.until("b", "/tasks/delete");
    assert_eq!(
        events.of("a"),
        [
            "/tasks/create",
            "/tasks/start",
            "/tasks/exec-added",
            "/tasks/exec-started",
            "/tasks/exit",
            "/tasks/paused",
            "/tasks/resumed",
            "/tasks/exit",
            "/tasks/delete",
        ]
    );
}

fn the_end_of_a_task_whose_shim_was_killed_is_told_once(subject: Subject) {
    let events = subject.events();
    let pid = subject.sleeper("a");
    kill(parent(pid));
    let topics = events.until("a", "/tasks/delete");
    assert_eq!(
        topics,
        ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]
    );
    let exit = events
        .lines()
        .into_iter()
        .find(|line| line.contains("/tasks/exit"))
        .expect("the exit");
    assert!(
        exit.contains(&format!("\"pid\":{pid}")) && exit.contains("\"exit_status\":137"),
        "{exit}"
    );
    eventually("the task is gone", SOON, || {
        subject.task("a").is_none().then_some(())
    });
    subject.nothing_is_left();
    // The id can be used again.
    subject.ctr(&["containers", "delete", "a"]).ok();
    subject.run(&["--rm"], "a", &["/bin/true"]).ok();
    assert_eq!(
        events
            .of("a")
            .iter()
            .filter(|topic| *topic == "/tasks/exit")
            .count(),
        2
    );
}

fn tasks_start_side_by_side(subject: Subject) {
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let subject = &subject;
            scope.spawn(move || {
                for round in 0..3 {
                    let (id, text) = (format!("w{worker}"), format!("{worker} {round}"));
                    let output = subject.run(&["--rm"], &id, &["/bin/echo", &text]).ok();
                    assert_eq!(output, format!("{text}\n"));
                }
            });
        }
    });
    subject.nothing_is_left();
}

/// What containerd's own daemon promises as well; here with `kill -9` at the worst moments.
mod restart {
    use super::*;

    fn on_both_shims(test: fn(Subject)) {
        test(Subject::wharfd("io.containerd.wharf.v2"));
        let shim = binaries::peer("containerd-shim-runc-v2");
        test(Subject::wharfd(shim.to_str().expect("a UTF-8 path")));
    }

    impl Subject {
        fn daemon(&mut self) -> &mut Wharfd {
            self.wharfd.as_mut().expect("wharfd is under test")
        }

        fn bundle(&self, id: &str) -> PathBuf {
            self.bundles.join(self.namespace()).join(id)
        }
    }

    #[test]
    fn a_running_task_is_taken_up_again() {
        on_both_shims(|mut subject| {
            let pid = subject.sleeper("a");
            for _ in 0..2 {
                subject.daemon().kill9();
                subject.daemon().restart();
                assert_eq!(subject.pid("a"), Some(pid));
                let executed = subject.ctr(&["tasks", "exec", "--exec-id", "x", "a", "/bin/echo", "again"]);
                assert_eq!(executed.ok(), "again\n");
            }
            subject.ctr(&["tasks", "kill", "--signal", "KILL", "a"]).ok();
            subject.until("a", "STOPPED");
            subject.ctr(&["tasks", "delete", "a"]).ok();
            subject.nothing_is_left();
        });
    }

    #[test]
    fn an_exit_while_no_daemon_ran_is_told_once_with_its_own_time() {
        on_both_shims(|mut subject| {
            let pid = subject.sleeper("a");
            subject.daemon().kill9();
            kill(pid);
            eventually("the process is gone", SOON, || (!running(pid)).then_some(()));
            subject.daemon().restart();
            subject.until("a", "STOPPED");
            let events = subject.events();
            events.until("a", "/tasks/exit");
            let deleted = subject.ctr(&["tasks", "delete", "a"]);
            assert!(deleted.stderr.contains("exit code 137"), "{deleted}");
            assert_eq!(
                events.until("a", "/tasks/delete"),
                ["/tasks/exit", "/tasks/delete"]
            );
            drop(events);
            // A third daemon has nothing to tell.
            subject.daemon().kill9();
            subject.daemon().restart();
            assert_eq!(subject.events().of("a"), [] as [&str; 0]);
            subject.nothing_is_left();
        });
    }

    #[test]
    fn a_shim_that_died_while_no_daemon_ran_is_cleaned_up_after() {
        on_both_shims(|mut subject| {
            let pid = subject.sleeper("a");
            subject.daemon().kill9();
            kill(parent(pid));
            subject.daemon().restart();
            assert_eq!(subject.task("a"), None);
            eventually("the container is gone", SOON, || (!running(pid)).then_some(()));
            let events = subject.events();
            assert_eq!(
                events.until("a", "/tasks/delete"),
                ["/tasks/exit", "/tasks/delete"]
            );
            subject.nothing_is_left();
            subject.ctr(&["containers", "delete", "a"]).ok();
            subject.run(&["--rm"], "a", &["/bin/true"]).ok();
        });
    }

    #[test]
    fn what_a_killed_creation_left_is_swept() {
        on_both_shims(|mut subject| {
            subject.run(&["--rm"], "a", &["/bin/true"]).ok();
            // A bundle without a shim, as after a kill between the two, and a removal that was cut short.
            let half = subject.bundle("half");
            fs::create_dir_all(half.join("rootfs")).expect("make a bundle");
            fs::create_dir_all(subject.bundle(".gone").join("rootfs")).expect("make a bundle");
            for delay in 0..6 {
                let mut client = subject
                    .command(&[
                        "run",
                        "--detach",
                        "--runtime",
                        &subject.runtime.clone(),
                        "--rootfs",
                        &subject.root.clone(),
                    ])
                    .args([&format!("k{delay}"), "/bin/sleep", "1000"])
                    .stderr(Stdio::null())
                    .spawn()
                    .expect("start ctr");
                // Where in the creation this hits is up to chance, and all of it must be safe.
                std::thread::sleep(Duration::from_millis(20 * delay));
                subject.daemon().kill9();
                client.wait().expect("wait for ctr");
                subject.daemon().restart();
            }
            assert!(!half.exists());
            // What was created is there, and all else is not.
            for delay in 0..6 {
                let id = format!("k{delay}");
                assert_eq!(subject.task(&id).is_some(), subject.bundle(&id).exists(), "{id}");
                if subject.task(&id).is_some() {
                    subject.ctr(&["tasks", "delete", "--force", &id]).ok();
                }
            }
            subject.nothing_is_left();
        });
    }

    fn running(pid: i32) -> bool {
        let Ok(stat) = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")) else {
            return false;
        };
        // A process that nobody reaps has ended all the same.
        let state = stat.rsplit(')').next().unwrap_or_default().trim_start();
        !state.starts_with('Z')
    }
}
