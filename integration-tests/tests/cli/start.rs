//! The daemon that the first command starts, and the parts of the program that need none.

use std::fs;
use std::process::Command;

use integration_tests::leftovers::processes_with;
use integration_tests::wharf::Wharf;
use integration_tests::{Scratch, binaries, eventually, run};
use rustix::process::{Pid, Signal, kill_process};

use crate::instance::SOON;

/// The pids of the daemons that serve below `wharf`'s home.
fn daemons(wharf: &Wharf) -> Vec<i32> {
    let home = wharf.home().to_str().expect("a UTF-8 path").to_string();
    let mut pids: Vec<i32> = processes_with(&home)
        .into_iter()
        .filter(|(_, line)| line.contains(" daemon ") || line.ends_with(" daemon"))
        .map(|(pid, _)| pid)
        .collect();
    pids.sort_unstable();
    pids
}

/// Ends the daemons of an instance whose first command started them.
struct Ended<'a>(&'a Wharf);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        for pid in daemons(self.0) {
            // It may end by itself between the look and the signal.
            kill_process(Pid::from_raw(pid).expect("a pid"), Signal::TERM).ok();
        }
        eventually("the daemon ends", SOON, || {
            daemons(self.0).is_empty().then_some(())
        });
    }
}

#[test]
fn the_first_command_starts_a_daemon_and_two_first_commands_start_one() {
    let scratch = Scratch::new();
    let wharf = Wharf::unstarted(&scratch);
    let ended = Ended(&wharf);
    let mut first: Vec<_> = (0..4)
        .map(|_| {
            let mut command = wharf.command(&["ps"]);
            std::thread::spawn(move || run(&mut command))
        })
        .collect();
    let finished: Vec<_> = first
        .drain(..)
        .map(|thread| thread.join().expect("the command"))
        .collect();
    let notices: usize = finished
        .iter()
        .map(|one| one.stderr.matches("started a daemon").count())
        .sum();
    for one in finished {
        assert!(one.ok().starts_with("CONTAINER ID"));
    }
    assert_eq!(notices, 1, "one command starts it and says so");
    assert_eq!(daemons(&wharf).len(), 1);
    let again = wharf.run(&["ps"]);
    assert_eq!(again.stderr, "", "later commands say nothing of it");
    let log = fs::read_to_string(wharf.home().join("state/daemon.log")).expect("its log");
    drop(ended);
    assert!(!log.is_empty());
}

#[test]
fn a_daemon_that_cannot_start_says_why_in_the_command_that_started_it() {
    let scratch = Scratch::new();
    let wharf = Wharf::unstarted(&scratch);
    // A file where the daemon needs a directory.
    fs::write(wharf.home().join("root"), "in the way").expect("write");
    let error = wharf.run(&["ps"]).fails_with(1);
    let log = wharf.home().join("state/daemon.log");
    assert!(error.contains(log.to_str().expect("a UTF-8 path")), "{error}");
    assert!(
        error.contains(wharf.home().join("root").to_str().expect("a UTF-8 path")),
        "{error}"
    );
    assert_eq!(daemons(&wharf), Vec::<i32>::new());
}

#[test]
fn completions_and_manual_pages_need_no_daemon() {
    let scratch = Scratch::new();
    let wharf = || Command::new(binaries::ours("wharf"));
    let script = scratch.join("completion.bash");
    fs::write(&script, run(wharf().args(["completion", "bash"])).ok()).expect("write");
    let complete = format!(
        ". {}; COMP_WORDS=(wharf ru); COMP_CWORD=1; _wharf wharf ru wharf; echo \"${{COMPREPLY[@]}}\"",
        script.display()
    );
    assert_eq!(
        run(Command::new("bash").args(["--norc", "-c", &complete])).ok(),
        "run\n"
    );
    for shell in ["zsh", "fish"] {
        assert!(
            run(wharf().args(["completion", shell])).ok().contains("wharf"),
            "{shell}"
        );
    }
    let pages = scratch.directory("man");
    run(wharf().arg("man").arg(&pages)).ok();
    let page = fs::read_to_string(pages.join("wharf-run.1")).expect("the page of run");
    assert!(page.contains(".TH") && page.contains("\\-\\-memory"), "{page}");
    let help = run(wharf().args(["run", "--help"])).ok();
    assert!(
        help.contains("Examples:") && help.contains("--read-only"),
        "{help}"
    );
}
