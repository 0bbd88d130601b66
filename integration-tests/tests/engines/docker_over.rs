//! Debian's dockerd over `wharfd`, and, as the control, over Debian's containerd: it cannot tell them apart, also when
//! one of the three (it, the daemon below it, a shim) is killed.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use integration_tests::containerd::Containerd;
use integration_tests::dockerd::Dockerd;
use integration_tests::wharf::Wharfd;
use integration_tests::{Scratch, eventually, leftovers};

use crate::engine::{Engine, Holdings, IMAGE};
use crate::life;

const SOON: Duration = Duration::from_secs(20);

/// Who serves containerd's API.
enum Supervisor {
    Containerd(Option<Containerd>),
    Wharfd(Wharfd),
}

/// A dockerd and the daemon below it.
struct Stack {
    docker: Dockerd,
    supervisor: Supervisor,
    before: Holdings,
    scratch: Scratch,
}

impl Engine for Stack {
    fn command(&self) -> Command {
        self.docker.docker()
    }
}

impl Stack {
    fn containerd() -> Stack {
        let scratch = Scratch::new();
        let containerd = Containerd::start(&scratch);
        let socket = containerd.socket().to_owned();
        Stack::over(scratch, &socket, Supervisor::Containerd(Some(containerd)))
    }

    fn wharfd() -> Stack {
        let scratch = Scratch::new();
        let wharfd = Wharfd::start(&scratch);
        let socket = wharfd.socket();
        Stack::over(scratch, &socket, Supervisor::Wharfd(wharfd))
    }

    fn over(scratch: Scratch, socket: &Path, supervisor: Supervisor) -> Stack {
        let docker = Dockerd::over(&scratch, socket);
        let stack = Stack {
            docker,
            supervisor,
            before: Holdings::of(&scratch),
            scratch,
        };
        stack.import(&stack.scratch);
        stack
    }

    /// Ends the daemon below with SIGKILL, and does something before there is another.
    fn without_supervisor(&mut self, meanwhile: impl FnOnce(&Stack)) {
        match &mut self.supervisor {
            Supervisor::Containerd(daemon) => daemon.take().expect("it runs").daemon.kill9(),
            Supervisor::Wharfd(daemon) => daemon.kill9(),
        }
        meanwhile(self);
        match &mut self.supervisor {
            Supervisor::Containerd(daemon) => *daemon = Some(Containerd::start(&self.scratch)),
            Supervisor::Wharfd(daemon) => daemon.restart(),
        }
    }

    /// Starts a container that counts into a file of the host, as long as it lives, and ends with 3 when told so.
    fn counting(&self, name: &str) -> PathBuf {
        let out = self.scratch.directory(format!("out-{name}"));
        let volume = format!("{}:/out", out.display());
        self.start(
            name,
            &["--volume", &volume],
            "trap 'echo bye; exit 3' TERM; n=0; while :; do n=$((n+1)); echo $n | tee /out/n; sleep 0.05; done",
        );
        let file = out.join("n");
        eventually("it counts", SOON, || count(&file));
        file
    }

    fn inspect(&self, name: &str, format: &str) -> String {
        let ended = self.run(&["inspect", "--format", format, name]);
        ended.ok().trim().to_owned()
    }

    fn pid(&self, name: &str) -> i32 {
        self.inspect(name, "{{.State.Pid}}").parse().expect("a pid")
    }

    fn until(&self, name: &str, status: &str) {
        eventually(&format!("{name}: {status}"), SOON, || {
            (self.inspect(name, "{{.State.Status}} {{.State.ExitCode}}") == status).then_some(())
        });
    }

    /// What `exec` says, once dockerd has found the daemon below it again.
    fn says(&self, name: &str, word: &str) {
        eventually("exec works", SOON, || {
            let said = self.run(&["exec", name, "/bin/echo", word]);
            (said.code == 0 && said.stdout == format!("{word}\n")).then_some(())
        });
    }

    fn remove(&self, names: &[&str]) {
        if !names.is_empty() {
            self.run(&[&["rm", "--force"], names].concat()).ok();
        }
        assert_eq!(self.run(&["ps", "--all", "--quiet"]).ok(), "");
        eventually("nothing is left", SOON, || {
            (Holdings::of(&self.scratch) == self.before).then_some(())
        });
        let groups = leftovers::cgroups_named(self.scratch.unique());
        let below = groups.iter().flat_map(fs::read_dir).flatten().flatten();
        let left: Vec<_> = below
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

impl Drop for Stack {
    /// Ends the shims that a failed test left: they outlive their daemons.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for (pid, line) in leftovers::processes_with(self.scratch.unique()) {
            if line.contains("shim") {
                kill(pid);
            }
        }
    }
}

fn count(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// It counts on, from wherever it is.
fn goes_on(file: &Path) {
    let from = eventually("a number", SOON, || count(file));
    eventually("it counts on", SOON, || {
        count(file).filter(|now| *now >= from + 3)
    });
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    // One that has ended meanwhile is what is wanted.
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

fn parent(pid: i32) -> i32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process");
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    line.expect("PPid").trim().parse().expect("a pid")
}

fn gone(pid: i32) -> bool {
    // One that nobody has reaped has ended all the same.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.map_or(true, |stat| stat.contains(") Z "))
}

/// Runs a test over each daemon.
macro_rules! on_each {
    ($($name:ident)*) => {
        mod over_containerd { $(#[test] fn $name() { super::$name(super::Stack::containerd()); })* }
        mod over_wharfd { $(#[test] fn $name() { super::$name(super::Stack::wharfd()); })* }
    };
}

on_each! {
    a_container_lives_as_docker_says
    dockerd_may_be_killed
    the_daemon_below_may_be_killed
    a_shim_may_be_killed
}

fn a_container_lives_as_docker_says(stack: Stack) {
    life::whole(&stack);
    streams(&stack);
    limits(&stack);
    stack.remove(&[]);
}

/// Standard input to its end, both outputs apart, and an attached client that comes later.
fn streams(stack: &Stack) {
    let mut child = stack
        .command()
        .args(["run", "--rm", "--interactive", "--network", "none", IMAGE])
        .args(["/bin/sh", "-c", "wc -c; echo error >&2; exit 4"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start docker");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(&vec![b'x'; 3_000_000]).expect("write");
    drop(stdin);
    let output = child.wait_with_output().expect("wait for docker");
    assert_eq!(
        (output.status.code(), &*output.stdout, &*output.stderr),
        (Some(4), &b"3000000\n"[..], &b"error\n"[..])
    );
    stack.start(
        "attached",
        &[],
        "while [ ! -e /go ]; do sleep 0.05; done; seq 1 1000; exit 6",
    );
    let attached = stack
        .command()
        .args(["attach", "--no-stdin", "attached"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start docker");
    let waiting = stack
        .command()
        .args(["wait", "attached"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("start docker");
    stack.run(&["exec", "attached", "/bin/touch", "/go"]).ok();
    let output = attached.wait_with_output().expect("wait for docker");
    let waited = waiting.wait_with_output().expect("wait for docker");
    assert_eq!(waited.stdout, b"6\n");
    let last = String::from_utf8_lossy(&output.stdout)
        .lines()
        .last()
        .map(str::to_owned);
    // Attached only after it was over, it says so and no more.
    assert!(last.is_none() || last.as_deref() == Some("1000"), "{last:?}");
    let logged = stack.run(&["logs", "attached"]).ok();
    assert_eq!(logged.lines().count(), 1000);
    stack.run(&["rm", "attached"]).ok();
}

/// A container that takes more memory than it may is killed, and docker knows why.
fn limits(stack: &Stack) {
    let greedy = "x=aaaaaaaa; while :; do x=$x$x; done";
    let options = ["--name", "greedy", "--memory", "16m", "--memory-swap", "16m"];
    stack.script(&options, greedy).fails_with(137);
    assert_eq!(
        stack.inspect("greedy", "{{.State.OOMKilled}} {{.State.ExitCode}}"),
        "true 137"
    );
    stack.run(&["rm", "greedy"]).ok();
    // Of one that lives on, the notice alone says so.
    let patient = "(x=aaaaaaaa; while :; do x=$x$x; done); echo survived; sleep 1000";
    let options = ["--memory", "16m", "--memory-swap", "16m"];
    stack.start("patient", &options, patient);
    let events = ["events", "--since", "1", "--until", "0s", "--filter", "event=oom"];
    eventually("docker was told of it", SOON, || {
        let told = stack
            .run(&[&events[..], &["--filter", "container=patient"]].concat())
            .ok();
        told.contains("container oom").then_some(())
    });
    assert_eq!(stack.inspect("patient", "{{.State.Status}}"), "running");
    stack.run(&["rm", "--force", "patient"]).ok();
}

fn dockerd_may_be_killed(mut stack: Stack) {
    let file = stack.counting("goes-on");
    let pid = stack.pid("goes-on");
    stack.start("ends", &[], "while [ ! -e /go ]; do sleep 0.05; done; exit 5");
    stack.start("killed", &[], "sleep 1000");
    let killed = stack.pid("killed");
    let root = format!("/proc/{}/root", stack.pid("ends"));
    stack.run(&["pause", "killed"]).ok();
    stack.run(&["unpause", "killed"]).ok();
    stack.docker.kill9();
    goes_on(&file);
    let ends = PathBuf::from(root);
    fs::write(ends.join("go"), "").expect("tell it to end");
    eventually("it has ended", SOON, || {
        (!ends.join("bin").exists()).then_some(())
    });
    kill(killed);
    eventually("it has ended", SOON, || gone(killed).then_some(()));
    stack.docker.restart();
    stack.until("ends", "exited 5");
    stack.until("killed", "exited 137");
    assert_eq!(stack.pid("goes-on"), pid);
    stack.says("goes-on", "again");
    goes_on(&file);
    // What it said in between is not lost: its numbers have no gap.
    let logged = stack.run(&["logs", "goes-on"]).ok();
    for (line, number) in logged.lines().zip(1..) {
        assert_eq!(line, number.to_string());
    }
    stack.run(&["start", "ends"]).ok();
    stack.until("ends", "exited 5");
    stack.run(&["stop", "goes-on"]).ok();
    stack.until("goes-on", "exited 3");
    assert!(stack.run(&["logs", "goes-on"]).ok().ends_with("bye\n"));
    stack.remove(&["goes-on", "ends", "killed"]);
}

fn the_daemon_below_may_be_killed(mut stack: Stack) {
    let file = stack.counting("goes-on");
    let pid = stack.pid("goes-on");
    let mut execs = Vec::new();
    // Some end while nobody is there, some between the restart and dockerd's return, some after it.
    for tenths in [2, 5, 10, 15, 20, 30, 40] {
        let script = format!("sleep {}.{}; echo through; exit 8", tenths / 10, tenths % 10);
        let mut exec = stack.command();
        exec.args(["exec", "goes-on", "/bin/sh", "-c", &script]);
        execs.push(exec.stdout(Stdio::piped()).spawn().expect("start docker"));
    }
    stack.start("ends", &[], "sleep 1000");
    let ends = stack.pid("ends");
    stack.says("goes-on", "before");
    stack.without_supervisor(|_| {
        goes_on(&file);
        kill(ends);
        eventually("it has ended", SOON, || gone(ends).then_some(()));
    });
    stack.says("goes-on", "after");
    assert_eq!(stack.pid("goes-on"), pid);
    // Over containerd, dockerd may never hear of what ended before it was back, and waits on.
    if matches!(stack.supervisor, Supervisor::Wharfd(_)) {
        stack.until("ends", "exited 137");
        stack.run(&["start", "ends"]).ok();
        stack.says("ends", "anew");
        for exec in &mut execs {
            eventually("the exec has ended", SOON, || {
                exec.try_wait().expect("wait for docker")
            });
        }
    }
    for mut exec in execs {
        drop(exec.kill());
        exec.wait().expect("wait for docker");
    }
    stack.run(&["stop", "goes-on"]).ok();
    stack.until("goes-on", "exited 3");
    stack.run(&["start", "goes-on"]).ok();
    goes_on(&file);
    stack.remove(&["goes-on", "ends"]);
}

fn a_shim_may_be_killed(stack: Stack) {
    let file = stack.counting("orphan");
    stack.start("other", &[], "sleep 1000");
    let pid = stack.pid("orphan");
    kill(parent(pid));
    stack.until("orphan", "exited 137");
    eventually("its processes are gone", SOON, || gone(pid).then_some(()));
    stack.says("other", "untouched");
    fs::remove_file(&file).expect("remove the count");
    stack.run(&["start", "orphan"]).ok();
    goes_on(&file);
    stack.remove(&["orphan", "other"]);
}
