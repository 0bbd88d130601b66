//! Debian's containerd, with our runtime under its shim, with our shim, and, as the control, with its own parts.
//!
//! What a container says is read from a file that it writes: with containerd's own shim, `ctr` on a busy machine sometimes
//! ends before it has opened the FIFO that holds a short output. Ours waits for it, so there the output is asserted too.

mod faults;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use integration_tests::containerd::{Containerd, ctr};
use integration_tests::{Finished, Scratch, binaries, bundle, eventually, leftovers, run};

use crate::engine::Holdings;

const SOON: Duration = Duration::from_secs(20);

/// The mount that shows a container its own cgroups.
const CGROUPS: &str = "type=cgroup,src=cgroup,dst=/sys/fs/cgroup,options=ro";

/// Which parts of containerd are replaced.
#[derive(Clone, Copy, PartialEq)]
enum Parts {
    None,
    Runtime,
    Shim,
}

/// A containerd, and who makes its containers.
struct Subject {
    containerd: Option<Containerd>,
    scratch: Scratch,
    parts: Parts,
    root: String,
    out: PathBuf,
    files: AtomicUsize,
    operations: AtomicUsize,
}

impl Subject {
    fn new(parts: Parts) -> Subject {
        let scratch = Scratch::new();
        let containerd = Containerd::start(&scratch);
        let root = scratch.directory("root");
        bundle::busybox_root(&root);
        let out = scratch.directory("out");
        use std::os::unix::fs::PermissionsExt;
        // Containers of other users write there.
        fs::set_permissions(&out, fs::Permissions::from_mode(0o777)).expect("chmod");
        fs::create_dir(root.join("out")).expect("mkdir");
        Subject {
            containerd: Some(containerd),
            parts,
            root: root.to_str().expect("a UTF-8 path").to_owned(),
            out,
            files: AtomicUsize::new(0),
            operations: AtomicUsize::new(0),
            scratch,
        }
    }

    /// `ctr` in a namespace of this test's own: it is a part of the cgroups' names.
    fn command(&self) -> Command {
        let containerd = self.containerd.as_ref().expect("containerd runs");
        let mut command = Command::new("timeout");
        let ctr = ctr(containerd.socket(), self.scratch.unique());
        // In the foreground: in a process group of its own `ctr` would be stopped when it sets up its terminal.
        command
            .args(["--foreground", "--kill-after=5", "60"])
            .arg(ctr.get_program())
            .args(ctr.get_args());
        command
    }

    fn ctr(&self, arguments: &[&str]) -> Finished {
        self.operations.fetch_add(1, Ordering::Relaxed);
        run(self.command().args(arguments))
    }

    /// What the options of `ctr run` need here: the runtime, and where the container writes.
    fn options(&self) -> Vec<String> {
        let ours = binaries::ours("wharf-runtime");
        let runtime: &[&str] = match self.parts {
            Parts::None => &["--runtime", "io.containerd.runc.v2"],
            Parts::Runtime => &[
                "--runtime",
                "io.containerd.runc.v2",
                "--runc-binary",
                ours.to_str().expect("a UTF-8 path"),
            ],
            Parts::Shim => &["--runtime", "io.containerd.wharf.v2"],
        };
        let mount = format!("type=bind,src={},dst=/out,options=rbind:rw", self.out.display());
        let common = ["--mount", &mount];
        runtime
            .iter()
            .chain(&common)
            .map(|word| (*word).to_owned())
            .collect()
    }

    fn run_with(&self, options: &[&str], id: &str, program: &[&str]) -> Finished {
        let own = self.options();
        let mut all: Vec<&str> = vec!["run"];
        all.extend(own.iter().map(String::as_str));
        all.extend(options);
        all.extend(["--rootfs", &self.root, id]);
        all.extend(program);
        if !options.contains(&"--tty") {
            return self.ctr(&all);
        }
        // `ctr` wants a terminal of its own to give one.
        self.operations.fetch_add(1, Ordering::Relaxed);
        let command = self.command();
        let words = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|word| word.to_string_lossy().into_owned())
            .chain(all.iter().map(|word| (*word).to_owned()));
        let quoted: Vec<String> = words
            .map(|word| format!("'{}'", word.replace('\'', "'\\''")))
            .collect();
        let line = quoted.join(" ");
        run(Command::new(binaries::peer("script")).args(["-qec", &line, "/dev/null"]))
    }

    /// A file that a container can write: its name there, and here.
    fn file(&self) -> (String, PathBuf) {
        let name = format!("f{}", self.files.fetch_add(1, Ordering::Relaxed));
        (format!("/out/{name}"), self.out.join(name))
    }

    /// Runs `script` in a container of its own; how that ended, and what the script said.
    fn script(&self, options: &[&str], script: &str) -> (Finished, String) {
        let (inside, outside) = self.file();
        let script = format!("{{ {script}\n}} >{inside} 2>&1");
        let id = format!("s{}", self.files.fetch_add(1, Ordering::Relaxed));
        let ended = self.run_with(&[&["--rm"], options].concat(), &id, &["/bin/sh", "-c", &script]);
        (ended, fs::read_to_string(outside).unwrap_or_default())
    }

    /// Executes `script` in the container `id`; what it said.
    fn exec(&self, options: &[&str], id: &str, script: &str) -> (Finished, String) {
        let (inside, outside) = self.file();
        let exec_id = format!("e{}", self.files.fetch_add(1, Ordering::Relaxed));
        let script = format!("{{ {script}\n}} >{inside} 2>&1");
        let start: &[&str] = &["tasks", "exec", "--exec-id", &exec_id];
        let ended = self.ctr(&[start, options, &[id, "/bin/sh", "-c", &script]].concat());
        (ended, fs::read_to_string(outside).unwrap_or_default())
    }

    fn sleeper(&self, options: &[&str], id: &str) {
        let script = "trap 'echo heard >>/out/heard' USR1; while :; do sleep 0.1; done";
        self.run_with(&[&["--detach"], options].concat(), id, &["/bin/sh", "-c", script])
            .ok();
    }

    /// Pid and status of a task.
    fn task(&self, id: &str) -> Option<(String, String)> {
        let tasks = self.ctr(&["tasks", "ls"]).ok();
        let words = tasks
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>());
        words
            .filter(|words| words.first() == Some(&id))
            .map(|words| (words[1].to_owned(), words[2].to_owned()))
            .next()
    }

    fn until(&self, id: &str, status: &str) {
        eventually(&format!("{id} is {status}"), SOON, || {
            self.task(id).filter(|(_, now)| now == status).map(drop)
        });
    }

    fn end(&self, id: &str) {
        self.ctr(&["tasks", "kill", "--signal", "KILL", id]).ok();
        self.until(id, "STOPPED");
        self.ctr(&["tasks", "delete", id]).ok();
    }

    fn nothing_is_left(&self) {
        eventually("nothing is left", SOON, || {
            let holdings = Holdings::of(&self.scratch);
            let mounts = leftovers::mounts_below(self.scratch.path());
            let states = fs::read_dir(format!("/run/containerd/runc/{}", self.scratch.unique()));
            let of_states = states.map(Iterator::count).unwrap_or_default();
            // The namespace's own cgroup stays, as with any runtime; nothing is below it.
            let groups = leftovers::cgroups_named(self.scratch.unique());
            let below = groups.iter().flat_map(fs::read_dir).flatten().flatten();
            let of_containers = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            (holdings.is_empty() && mounts.is_empty() && of_states == 0 && of_containers.count() == 0)
                .then_some(())
        });
    }
}

/// Options, a script, and what it says.
type Case<'a> = (&'a [&'a str], &'a str, &'a [&'a str]);

const CASES: &[Case<'static>] = &[
    (
        &[],
        "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status; echo $$; touch /x && echo written",
        &["NoNewPrivs:\t1", "Seccomp:\t0", "1", "written"],
    ),
    (
        &["--allow-new-privs", "--seccomp"],
        "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status",
        &["NoNewPrivs:\t0", "Seccomp:\t2"],
    ),
    (
        &["--memory-limit", "67108864", "--cpus", "0.5", "--mount", CGROUPS],
        "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us 2>/dev/null || \
         { cat memory.max; cut -d' ' -f1 cpu.max; }",
        &["67108864", "50000"],
    ),
    (
        &[
            "--cpu-quota",
            "20000",
            "--cpu-period",
            "50000",
            "--mount",
            CGROUPS,
        ],
        "cd /sys/fs/cgroup; cat cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us 2>/dev/null || tr ' ' '\\n' <cpu.max",
        &["20000", "50000"],
    ),
    (
        &["--device", "/dev/loop-control"],
        "stat -c %t:%T /dev/loop-control; (: </dev/loop-control) && echo opened; [ -e /dev/kmsg ] || echo none",
        &["a:ed", "opened", "none"],
    ),
    (
        &["--cap-add", "CAP_SYS_TIME", "--cap-drop", "CAP_CHOWN"],
        "grep -E '^(CapEff|CapBnd):' /proc/self/status | \
         while read name mask; do echo $name $((0x$mask >> 25 & 1)) $((0x$mask & 1)); done",
        &["CapEff: 1 0", "CapBnd: 1 0"],
    ),
    (
        &["--privileged"],
        "mount -t tmpfs none /tmp && echo mounted; : >>/proc/sys/kernel/domainname && echo writable; [ -c /dev/kmsg ] && echo kmsg; \
         [ -w /sys/fs ] && echo sys",
        &["mounted", "writable", "kmsg", "sys"],
    ),
    (
        &["--read-only"],
        "touch /x; touch /dev/shm/x && echo shm",
        &["touch: /x: Read-only file system", "shm"],
    ),
    (
        &["--env", "A=b c", "--cwd", "/home/user"],
        "echo \"$A\"; pwd",
        &["b c", "/home/user"],
    ),
    (
        &[
            "--mount",
            "type=tmpfs,src=tmpfs,dst=/dev/t,options=size=1m:mode=700:noexec",
        ],
        "cd /dev/t; stat -c %a .; df -k . | tail -1 | { read a size b; echo $size; }; echo >x; chmod 755 x; ./x",
        &["700", "1024", "/bin/sh: ./x: Permission denied"],
    ),
    (
        &["--no-pivot"],
        "ls -d /bin /var; cd ..; pwd; ls -d /../bin",
        &["/bin", "/var", "/", "/../bin"],
    ),
    (
        &["--uidmap", "0:100000:1000", "--gidmap", "0:200000:1000"],
        // A root file system of one's own is not mapped by `ctr`: what is, is who owns the streams.
        "id -u; echo done",
        &["0", "done"],
    ),
];

fn cases(subject: &Subject) {
    let mut wrong = Vec::new();
    let mut holds = |options: &[&str], script: &str, says: &[&str]| {
        for terminal in [&[] as &[&str], &["--tty"]] {
            let script = format!("[ -t 0 ] && echo terminal; {script}");
            let (ended, said) = subject.script(&[terminal, options].concat(), &script);
            let expected = terminal.iter().map(|_| "terminal").chain(says.iter().copied());
            if said.lines().ne(expected) {
                wrong.push(format!("{options:?} {terminal:?}: {said:?}: {ended}"));
            }
        }
    };
    for (options, script, says) in CASES {
        holds(options, script, says);
    }
    let profile = subject.scratch.join("profile.json");
    let rules = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}"#;
    fs::write(&profile, rules).expect("write");
    let profile = profile.to_str().expect("a UTF-8 path");
    holds(
        &["--seccomp", "--seccomp-profile", profile],
        "mkdir /tmp/x; grep ^Seccomp: /proc/self/status",
        &[
            "mkdir: can't create directory '/tmp/x': Operation not permitted",
            "Seccomp:\t2",
        ],
    );
    let here = |name: &str| {
        let link = fs::read_link(format!("/proc/self/ns/{name}")).expect("a namespace");
        link.to_string_lossy().into_owned()
    };
    holds(&["--net-host"], "readlink /proc/self/ns/net", &[&here("net")]);
    let uts = format!("uts:/proc/{}/ns/uts", std::process::id());
    holds(
        &["--with-ns", &uts],
        "readlink /proc/self/ns/uts",
        &[&here("uts")],
    );
    let cgroup = format!("/{}/chosen", subject.scratch.unique());
    holds(
        &["--cgroup", &cgroup],
        "while IFS=: read a b path; do echo $path; done </proc/self/cgroup | grep -cv chosen",
        &["0"],
    );
    let volume = subject.scratch.directory("volume");
    fs::write(volume.join("file"), "content\n").expect("write");
    let mount = format!("type=bind,src={},dst=/home,options=rbind:ro", volume.display());
    holds(
        &["--mount", &mount],
        "cat /home/file; touch /home/x",
        &["content", "touch: /home/x: Read-only file system"],
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// One task through everything that `ctr` can ask for, and a restart of containerd in its middle.
fn life(subject: &mut Subject) {
    for code in [0, 7] {
        let (ended, said) = subject.script(&[], &format!("echo out; exit {code}"));
        ended.fails_with(code);
        assert_eq!(said, "out\n");
    }
    for (program, words) in [
        ("/nonexistent", "no such file or directory"),
        ("/etc/passwd", "permission denied"),
        ("/etc", "exec: \"/etc\": permission denied"),
    ] {
        let failed = subject.run_with(&["--rm"], "no", &[program]);
        assert!(failed.code != 0 && failed.stderr.contains(words), "{failed}");
        assert_eq!(subject.task("no"), None);
    }
    let pid_file = subject.scratch.join("pid");
    subject.sleeper(
        &[
            "--memory-limit",
            "67108864",
            "--pid-file",
            pid_file.to_str().expect("a UTF-8 path"),
        ],
        "life",
    );
    let (pid, status) = subject.task("life").expect("a task");
    assert_eq!(
        (fs::read_to_string(pid_file).expect("the pid"), status.as_str()),
        (pid.clone(), "RUNNING")
    );
    let (ended, said) = subject.exec(&[], "life", "cat /proc/1/comm; exit 9");
    ended.fails_with(9);
    assert_eq!(said, "sh\n");
    let identity = subject.exec(&["--user", "1000", "--cwd", "/tmp"], "life", "id -u; pwd");
    assert_eq!(identity.1, "1000\n/tmp\n");
    subject.exec(&[], "life", "kill -KILL $$").0.fails_with(137);
    let missing = subject.ctr(&["tasks", "exec", "--exec-id", "none", "life", "/nonexistent"]);
    assert!(
        missing.code != 0 && missing.stderr.contains("/nonexistent: no such file"),
        "{missing}"
    );
    if subject.parts == Parts::Shim {
        for round in 0..5 {
            let exec_id = format!("spoken{round}");
            let spoken = subject.ctr(&[
                "tasks",
                "exec",
                "--exec-id",
                &exec_id,
                "life",
                "/bin/echo",
                "word",
            ]);
            assert_eq!(spoken.ok(), "word\n");
        }
    }
    subject.ctr(&["tasks", "pause", "life"]).ok();
    subject.until("life", "PAUSED");
    assert_ne!(subject.exec(&[], "life", "true").0.code, 0);
    subject.ctr(&["tasks", "resume", "life"]).ok();
    subject.until("life", "RUNNING");
    let metrics = subject.ctr(&["tasks", "metrics", "life"]).ok();
    for (name, value) in [
        ("memory.limit_in_bytes", Some("67108864")),
        ("pids.current", None),
    ] {
        let line = metrics.lines().find(|line| line.starts_with(name));
        let said = line.and_then(|line| line.split_whitespace().nth(1));
        assert!(
            said.is_some() && value.is_none_or(|value| said == Some(value)),
            "{name}: {metrics}"
        );
    }
    let processes = subject.ctr(&["tasks", "ps", "life"]).ok();
    assert!(
        processes.lines().any(|line| line.starts_with(&pid)),
        "{processes}"
    );

    // Killed, as in a crash; the container is not to notice.
    subject.containerd.take().expect("containerd runs").daemon.kill9();
    subject.containerd = Some(Containerd::start(&subject.scratch));
    assert_eq!(subject.task("life"), Some((pid, "RUNNING".to_owned())));
    assert_eq!(subject.exec(&[], "life", "echo again").1, "again\n");
    subject.ctr(&["tasks", "kill", "--signal", "USR1", "life"]).ok();
    let heard = subject.out.join("heard");
    eventually("the signal is heard", SOON, || heard.exists().then_some(()));
    let refused = subject.ctr(&["tasks", "delete", "life"]);
    assert!(
        refused.code != 0 && refused.stderr.contains("must be stopped"),
        "{refused}"
    );
    subject.end("life");
    // The same container once more.
    subject.ctr(&["tasks", "start", "--detach", "life"]).ok();
    subject.until("life", "RUNNING");
    subject
        .ctr(&["tasks", "kill", "--all", "--signal", "KILL", "life"])
        .ok();
    subject.until("life", "STOPPED");
    let deleted = subject.ctr(&["tasks", "delete", "life"]);
    assert!(deleted.stderr.contains("exit code 137"), "{deleted}");
    subject.ctr(&["containers", "delete", "life"]).ok();
    subject.nothing_is_left();
}

/// Many operations at once, on one container that all share and one of each worker's own.
fn crowd(subject: &Subject) {
    const WORKERS: usize = 6;
    subject.operations.store(0, Ordering::Relaxed);
    subject.sleeper(&[], "shared");
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            scope.spawn(move || {
                let id = format!("w{worker}");
                let id = id.as_str();
                subject.sleeper(&["--memory-limit", "33554432"], id);
                for round in 0..4 {
                    let word = format!("{id} {round}");
                    let (ended, said) = subject.exec(&[], id, &format!("echo {word}; exit {round}"));
                    ended.fails_with(round);
                    assert_eq!(said, format!("{word}\n"));
                    subject.ctr(&["tasks", "pause", id]).ok();
                    subject.ctr(&["tasks", "resume", id]).ok();
                    subject.ctr(&["tasks", "metrics", id]).ok();
                    subject.ctr(&["tasks", "ps", "shared"]).ok();
                    subject.ctr(&["tasks", "kill", "--signal", "WINCH", id]).ok();
                    assert_eq!(
                        subject.exec(&[], "shared", &format!("echo {word}")).1,
                        format!("{word}\n")
                    );
                }
                // Ended while something is executed in it.
                std::thread::scope(|scope| {
                    let busy = scope.spawn(|| subject.exec(&[], id, "while :; do /bin/true; done").0);
                    subject.exec(&[], id, "true").0.ok();
                    subject.end(id);
                    assert_ne!(busy.join().expect("a worker").code, 0);
                });
                subject.ctr(&["tasks", "start", "--detach", id]).ok();
                subject.end(id);
                subject.ctr(&["containers", "delete", id]).ok();
            });
        }
    });
    subject.end("shared");
    subject.ctr(&["containers", "delete", "shared"]).ok();
    let operations = subject.operations.load(Ordering::Relaxed);
    eprintln!("{operations} operations");
    assert!(operations >= 200, "{operations} operations");
    subject.nothing_is_left();
}

#[test]
fn containerd_runs_its_containers_with_our_runtime_under_its_own_shim() {
    whole(Parts::Runtime);
}

#[test]
fn containerd_runs_its_containers_with_our_shim() {
    whole(Parts::Shim);
}

/// The reference: what is asserted of ours is true of the peer's own parts.
#[test]
fn containerd_runs_its_containers_with_its_own_parts() {
    let mut subject = Subject::new(Parts::None);
    cases(&subject);
    life(&mut subject);
}

fn whole(parts: Parts) {
    let mut subject = Subject::new(parts);
    cases(&subject);
    life(&mut subject);
    crowd(&subject);
}
