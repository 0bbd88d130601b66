//! `kill -9` of the runtime, and of the process that becomes the container, at each of their steps.
//!
//! Whatever was cut short: `state.json` is complete or not there, `delete --force` removes what is left, and the name can be
//! used again. The steps are the system calls that change something outside of the process: one run under strace lists
//! them, then each has a run that strace ends with SIGKILL on entering that very call.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use integration_tests::{Scratch, binaries, bundle, eventually, leftovers, run};
use serde_json::Value;

/// Calls after which something is different for others. To end between two of them is to end at the second.
const EFFECTS: &str = "bind,chdir,chmod,chown,clone3,connect,dup3,execve,execveat,fchdir,fchmod,fchmodat,fchown,fchownat,\
    flock,fsmount,keyctl,kill,link,linkat,listen,mkdir,mkdirat,mknod,mknodat,mount,mount_setattr,move_mount,openat2,\
    pidfd_send_signal,pivot_root,poll,ppoll,prctl,recvfrom,recvmsg,rename,renameat,renameat2,rmdir,sendmsg,sendto,\
    sethostname,setns,setresgid,setresuid,setsid,socketpair,symlink,symlinkat,umount2,unlink,unlinkat,unshare,wait4,waitid,\
    write";

/// Whom strace follows, and so ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Victim {
    /// The command alone.
    Parent,
    /// Whichever process gets there first, the command or what it made.
    Any,
}

struct Fault {
    scratch: Scratch,
}

/// Reaps what the runtime leaves: the host's first process may take its time, and a pid namespace is not gone before.
fn reap_orphans() {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).expect("become a subreaper");
    std::thread::spawn(|| {
        loop {
            for pid in orphans() {
                // Whoever is no zombie yet is met again.
                let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::NOHANG);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    });
}

/// The children that this process did not start itself: it starts everything under `timeout`.
fn orphans() -> Vec<rustix::process::Pid> {
    let threads = fs::read_dir("/proc/self/task").expect("the threads").flatten();
    let children =
        threads.map(|thread| fs::read_to_string(thread.path().join("children")).unwrap_or_default());
    let pids: Vec<i32> = children
        .flat_map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|pid| pid.parse().ok())
        .collect();
    pids.into_iter()
        .filter(|pid| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            // Until its `execve` a child has the name of this program.
            !name.starts_with("timeout")
                && !name.starts_with("faults")
                && !name.starts_with("a_")
                && !name.starts_with("an_")
        })
        .filter_map(rustix::process::Pid::from_raw)
        .collect()
}

impl Fault {
    fn new() -> Self {
        let scratch = Scratch::new();
        bundle::bundle(&scratch.join("bundle"), &["/bin/sleep", "1000"], |spec| {
            spec["linux"]["resources"]["pids"] = serde_json::json!({"limit": 100});
            spec["linux"]["cgroupsPath"] = format!("/{}", scratch.unique()).into();
        });
        reap_orphans();
        Self { scratch }
    }

    fn id(&self) -> &str {
        self.scratch.unique()
    }

    fn root(&self) -> PathBuf {
        self.scratch.join("state")
    }

    /// The arguments of the runtime, its program first.
    fn arguments(&self, arguments: &[&str]) -> Vec<String> {
        let program = binaries::ours("wharf-runtime").display().to_string();
        let root = self.root().display().to_string();
        let bundle = self.scratch.join("bundle").display().to_string();
        let id = self.id();
        [program.as_str(), "--root", &root]
            .iter()
            .chain(arguments)
            .map(|argument| match *argument {
                "BUNDLE" => bundle.clone(),
                "ID" => id.to_owned(),
                other => other.to_owned(),
            })
            .collect()
    }

    /// Runs a command of the runtime with its streams nowhere; whether it succeeded.
    fn perform(&self, arguments: &[&str]) -> bool {
        let arguments = self.arguments(arguments);
        quiet(Command::new("timeout").arg("20").args(arguments))
    }

    /// Each call that `arguments` makes, as often as it makes it.
    fn steps(&self, arguments: &[&str], victim: Victim) -> Vec<(String, usize)> {
        let trace = self.scratch.join("trace");
        let mut strace = Command::new("timeout");
        // Not the parent of the command: it goes on as long as there is something to follow.
        strace.args([
            "20",
            "strace",
            "-D",
            "-qq",
            "-e",
            &format!("trace={EFFECTS}"),
            "-e",
            "signal=none",
        ]);
        if victim == Victim::Any {
            strace.args(["-ff"]);
        }
        strace.arg("-o").arg(&trace).args(self.arguments(arguments));
        assert!(quiet(&mut strace), "{arguments:?} fails under strace");
        self.clean();
        // One file a process: a step is counted for each of them.
        let mut most: BTreeMap<String, usize> = BTreeMap::new();
        for entry in fs::read_dir(self.scratch.path()).expect("scratch").flatten() {
            if !entry.file_name().to_string_lossy().starts_with("trace") {
                continue;
            }
            let mut counts: BTreeMap<String, usize> = BTreeMap::new();
            for line in fs::read_to_string(entry.path()).expect("trace").lines() {
                if let Some((call, _)) = line.split_once('(') {
                    *counts.entry(call.to_owned()).or_default() += 1;
                }
            }
            for (call, count) in counts {
                let most = most.entry(call).or_default();
                *most = count.max(*most);
            }
            fs::remove_file(entry.path()).expect("remove");
        }
        // What the process that becomes the container makes is in its own namespaces, and alike.
        let all = victim == Victim::Parent || std::env::var_os("WHARF_EVERY_STEP").is_some();
        most.into_iter()
            .flat_map(|(call, count)| (1..=count).map(move |nth| (call.clone(), nth, count)))
            .filter(|(_, nth, count)| all || *nth <= 2 || nth == count)
            .map(|(call, nth, _)| (call, nth))
            .collect()
    }

    /// Runs `arguments` and ends them at a step.
    fn cut_short(&self, arguments: &[&str], victim: Victim, (call, nth): &(String, usize)) {
        let mut strace = Command::new("timeout");
        strace.args(["20", "strace", "-D", "-qq", "-o", "/dev/null"]);
        if victim == Victim::Any {
            strace.args(["-f", "--seccomp-bpf"]);
        }
        strace.args(["-e", &format!("trace={call}")]);
        strace.args(["-e", &format!("inject={call}:signal=KILL:when={nth}")]);
        quiet(strace.args(self.arguments(arguments)));
    }

    /// What was cut short can be removed, and nothing is left of it.
    fn clean(&self) {
        let state = self.root().join(self.id()).join("state.json");
        if let Ok(text) = fs::read(&state) {
            let record: Value = serde_json::from_slice(&text).expect("state.json is complete");
            assert_eq!(record["id"], self.id());
        }
        let finished = run(Command::new("timeout")
            .arg("20")
            .args(self.arguments(&["delete", "--force", "ID"])));
        assert!(finished.code == 0 && finished.stderr.is_empty(), "{finished}");
        self.nothing_is_left();
    }

    fn nothing_is_left(&self) {
        let entries = fs::read_dir(self.root()).into_iter().flatten().flatten();
        let states: Vec<_> = entries.map(|entry| entry.file_name()).collect();
        assert!(states.is_empty(), "states: {states:?}");
        let cgroups = leftovers::cgroups_named(self.id());
        assert!(cgroups.is_empty(), "cgroups: {cgroups:?}");
        let mounts = leftovers::mounts_below(self.scratch.path());
        assert!(mounts.is_empty(), "mounts: {mounts:?}");
        // Who was killed may still be on its way out; whose strace it was, too.
        eventually("the processes end", Duration::from_secs(10), || {
            leftovers::processes_with(self.id()).is_empty().then_some(())
        });
    }

    /// Cuts the command short at each of its steps, with `prepare` before and a whole life of the same name after.
    fn at_each_step(&self, prepare: &[&[&str]], arguments: &[&str], victim: Victim) {
        let prepare = || {
            for command in prepare {
                assert!(self.perform(command), "{command:?}");
            }
        };
        prepare();
        let steps = self.steps(arguments, victim);
        assert!(steps.len() > 5, "{steps:?}");
        for step in &steps {
            prepare();
            let cut = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                self.cut_short(arguments, victim, step);
                self.clean();
                assert!(
                    self.perform(&["create", "--bundle", "BUNDLE", "ID"]),
                    "a second create"
                );
                assert!(self.perform(&["start", "ID"]), "a second start");
                assert!(self.perform(&["delete", "--force", "ID"]), "a second delete");
                self.nothing_is_left();
            }));
            assert!(cut.is_ok(), "{arguments:?} of {victim:?} cut short at {step:?}");
        }
    }
}

fn quiet(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("run a command")
        .success()
}

const CREATE: &[&str] = &["create", "--bundle", "BUNDLE", "ID"];
const START: &[&str] = &["start", "ID"];
const RUN: &[&str] = &["run", "--detach", "--bundle", "BUNDLE", "ID"];

#[test]
fn a_create_that_is_killed_can_be_removed() {
    Fault::new().at_each_step(&[], CREATE, Victim::Parent);
}

#[test]
fn a_create_whose_process_is_killed_can_be_removed() {
    Fault::new().at_each_step(&[], CREATE, Victim::Any);
}

#[test]
fn a_start_that_is_killed_can_be_removed() {
    Fault::new().at_each_step(&[CREATE], START, Victim::Parent);
}

#[test]
fn an_exec_that_is_killed_can_be_removed() {
    let fault = Fault::new();
    let exec = &["exec", "--detach", "ID", "/bin/sleep", "1000"];
    fault.at_each_step(&[RUN], exec, Victim::Parent);
    fault.at_each_step(&[RUN], exec, Victim::Any);
}

#[test]
fn a_delete_that_is_killed_can_be_done_again() {
    Fault::new().at_each_step(&[RUN], &["delete", "--force", "ID"], Victim::Parent);
}

/// One name, and many who create and delete it at the same time: whoever wins, nothing of a loser stays.
#[test]
fn one_name_that_many_create_and_delete_at_once() {
    let fault = Fault::new();
    let created: usize = std::thread::scope(|scope| {
        let loops: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let lives = (0..40).filter(|_| {
                        let created = fault.perform(RUN);
                        fault.perform(&["delete", "--force", "ID"]);
                        created
                    });
                    lives.count()
                })
            })
            .collect();
        loops.into_iter().map(|life| life.join().expect("a thread")).sum()
    });
    assert!(created >= 40, "{created} were created");
    fault.clean();
}
