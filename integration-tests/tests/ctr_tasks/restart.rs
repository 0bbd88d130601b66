//! What containerd's own daemon promises as well; here with `kill -9` at the worst moments.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use integration_tests::wharf::Wharfd;
use integration_tests::{binaries, eventually};

use crate::process::{kill, parent, running};
use crate::subject::{SOON, Subject};

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
            // The daemon serves while it still takes down what a shim had begun.
            eventually(&format!("{id} is there or not, with its bundle"), SOON, || {
                (subject.task(&id).is_some() == subject.bundle(&id).exists()).then_some(())
            });
            if subject.task(&id).is_some() {
                subject.ctr(&["tasks", "delete", "--force", &id]).ok();
            }
        }
        subject.nothing_is_left();
    });
}

/// The process that the shims of `daemon` are forked from, once there is one.
fn fork_server(daemon: i32) -> Option<i32> {
    let processes = fs::read_dir("/proc").expect("list the processes");
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .find(|pid| {
            let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            command.ends_with("\0fork-server\0") && running(*pid) && parent(*pid) == daemon
        })
}

#[test]
fn shims_need_the_process_that_they_were_forked_from_no_more() {
    let mut subject = Subject::wharfd("io.containerd.wharf.v2");
    let first = subject.sleeper("a");
    let daemon = subject.daemon().daemon.as_ref().expect("a daemon").pid();
    let server = fork_server(daemon).expect("a fork server");
    let shim = parent(first);
    assert_eq!(parent(shim), server);
    let command = fs::read_to_string(format!("/proc/{shim}/cmdline")).expect("a command line");
    let named = format!("\0-namespace\0{}\0-id\0a\0", subject.namespace());
    assert!(command.contains(&named), "{command:?}");
    kill(server);
    let second = subject.sleeper("b");
    assert!(running(first) && running(second));
    let executed = subject.ctr(&["tasks", "exec", "--exec-id", "x", "a", "/bin/echo", "still"]);
    assert_eq!(executed.ok(), "still\n");
    subject.sleeper("c");
    let other = fork_server(daemon).expect("another fork server");
    assert_ne!(other, server);
    for id in ["a", "b", "c"] {
        subject.ctr(&["tasks", "kill", "--signal", "KILL", id]).ok();
        subject.until(id, "STOPPED");
        subject.ctr(&["tasks", "delete", id]).ok();
    }
    subject.nothing_is_left();
    subject.daemon().kill9();
    eventually("the fork server ends with its daemon", SOON, || {
        (!running(other)).then_some(())
    });
    subject.daemon().restart();
}
