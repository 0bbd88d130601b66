//! The driver that runs a runc-compatible program, with runc's command line.
//!
//! The program's standard streams are the container's during `create` and `exec`, which is how runc hands them on; its
//! own words are read from its JSON log, of which only what was added counts. A job's result is known when the
//! program was reaped: nothing here waits. Should the shim die, the program is killed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, WaitStatus};
use serde::Deserialize;
use wharf_runtime::cgroup::{Cgroup, Layout};

use super::console::ConsoleSocket;
use super::{Driver, Dump, Job, Outcome, Saved, Settings, Step};
use crate::status::{Code, Refusal};
use crate::stdio::ChildStdio;
use crate::sys::prepare_child;

/// The state root of containerd's shim, whose containers these are to other tools.
const DEFAULT_ROOT: &str = "/run/containerd/runc";

/// The most that is read of a program's answer or log.
const LONGEST_ANSWER: u64 = 4 << 20;

/// See the module.
pub struct Binary {
    program: String,
    id: String,
    bundle: PathBuf,
    root: PathBuf,
    log: PathBuf,
    settings: Settings,
    cgroup: Option<Cgroup>,
    /// Whether its start is a thaw.
    is_restored: bool,
}

type Finish = Box<dyn FnOnce(WaitStatus) -> Result<Outcome, Refusal>>;

impl Binary {
    /// The driver for container `id` of `namespace`.
    pub fn new(settings: &Settings, id: &str, namespace: &str, bundle: &Path) -> Binary {
        let root = if settings.root.is_empty() {
            DEFAULT_ROOT
        } else {
            &settings.root
        };
        Binary {
            program: settings.binary.clone(),
            id: id.to_owned(),
            bundle: bundle.to_owned(),
            root: Path::new(root).join(namespace),
            log: bundle.join("log.json"),
            settings: settings.clone(),
            cgroup: None,
            is_restored: false,
        }
    }

    fn command(&self, operation: &str) -> Command {
        self.command_with_log(operation, &self.log)
    }

    fn command_with_log(&self, operation: &str, log: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.root);
        command.arg("--log").arg(log).args(["--log-format", "json"]);
        if self.settings.systemd_cgroup {
            command.arg("--systemd-cgroup");
        }
        command.arg(operation);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    /// What the program has logged as its last error since `offset`.
    fn last_error(log: &Path, offset: u64) -> Option<String> {
        let mut file = File::open(log).ok()?;
        file.seek(SeekFrom::Start(offset)).ok()?;
        let mut text = Vec::new();
        file.take(LONGEST_ANSWER).read_to_end(&mut text).ok()?;
        last_error_in(&text)
    }

    /// Runs `command`; `finish` reads the result once the program has succeeded.
    fn run(
        &self,
        operation: &'static str,
        command: Command,
        finish: impl FnOnce() -> Result<Outcome, Refusal> + 'static,
    ) -> Step {
        self.run_with_log(operation, command, self.log.clone(), finish)
    }

    /// The same for a command that logs to `log`.
    fn run_with_log(
        &self,
        operation: &'static str,
        mut command: Command,
        log: PathBuf,
        finish: impl FnOnce() -> Result<Outcome, Refusal> + 'static,
    ) -> Step {
        let offset = fs::metadata(&log).map_or(0, |about| about.len());
        let program = self.program.clone();
        let spawned = prepare_child(&mut command, Vec::new(), true).and_then(|()| command.spawn());
        let child = match spawned {
            Ok(child) => child,
            Err(error) => {
                return Step::Ready(Err(refusal(operation, &unstarted(&program, &error))));
            }
        };
        let finish: Finish = Box::new(move |status| {
            if status.exit_status() == Some(0) {
                return finish();
            }
            let cause =
                Binary::last_error(&log, offset).unwrap_or_else(|| match status.terminating_signal() {
                    Some(signal) => format!("ended by signal {signal}"),
                    None => format!("exit status {}", status.exit_status().unwrap_or(-1)),
                });
            Err(refusal(operation, &cause))
        });
        Step::Running(Job {
            pid: Pid::from_child(&child),
            finish,
        })
    }

    /// `create` and `exec`: with streams or a terminal, and a pid file.
    fn run_process(
        &self,
        operation: &'static str,
        name: &str,
        mut command: Command,
        stdio: ChildStdio,
        last: impl FnOnce(&mut Command),
        log: PathBuf,
    ) -> Step {
        let pid_file = self.bundle.join(format!("{name}.pid"));
        command.arg("--pid-file").arg(&pid_file);
        let mut console = None;
        match stdio {
            ChildStdio::Fds {
                stdin,
                stdout,
                stderr,
            } => {
                command.stdin(stdin).stdout(stdout).stderr(stderr);
            }
            ChildStdio::Terminal => match ConsoleSocket::listen(&self.bundle, name) {
                Ok(socket) => {
                    command.arg("--console-socket").arg(socket.path());
                    console = Some(socket);
                }
                Err(error) => return Step::Ready(Err(Refusal::system("make the console socket", error))),
            },
        }
        last(&mut command);
        self.run_with_log(operation, command, log, move || {
            let console = console
                .map(|socket| socket.receive())
                .transpose()
                .map_err(|error| Refusal::system("receive the terminal", error))?;
            let pid = read_pid(&pid_file)?;
            Ok(Outcome::Process { pid, console })
        })
    }
}

impl Driver for Binary {
    fn create(&mut self, stdio: ChildStdio) -> Step {
        let mut command = self.command("create");
        command.arg("--bundle").arg(&self.bundle);
        if self.settings.no_pivot {
            command.arg("--no-pivot");
        }
        if self.settings.no_new_keyring {
            command.arg("--no-new-keyring");
        }
        let id = self.id.clone();
        self.run_process(
            "create",
            "init",
            command,
            stdio,
            |command| {
                command.arg(id);
            },
            self.log.clone(),
        )
    }

    fn restore(&mut self, saved: &Saved, stdio: ChildStdio) -> Step {
        let mut command = self.command("restore");
        command.arg("--bundle").arg(&self.bundle);
        command.arg("--image-path").arg(&saved.images);
        command.arg("--work-path").arg(&saved.work);
        command.args(["--detach", "--no-subreaper"]);
        if self.settings.no_pivot {
            command.arg("--no-pivot");
        }
        self.is_restored = true;
        let id = self.id.clone();
        let last = |command: &mut Command| {
            command.arg(id);
        };
        match self.run_process("restore", "init", command, stdio, last, self.log.clone()) {
            Step::Running(Job { pid, finish }) => Step::Running(Job {
                pid,
                finish: Box::new(move |status| {
                    let outcome = finish(status)?;
                    // Whoever creates the container has things to do before it is started.
                    if let Outcome::Process { pid, .. } = &outcome {
                        let cgroup = cgroup_of(*pid).ok_or_else(|| {
                            Refusal::new(Code::Unknown, "the restored container has no control group")
                        })?;
                        cgroup.freeze().map_err(wharf_runtime::Error::from)?;
                    }
                    Ok(outcome)
                }),
            }),
            ready => ready,
        }
    }

    fn checkpoint(&mut self, dump: &Dump) -> Step {
        let mut command = self.command("checkpoint");
        command.arg("--image-path").arg(&dump.images);
        command.arg("--work-path").arg(&dump.work);
        if let Some(parent) = &dump.parent {
            command.arg("--parent-path").arg(parent);
        }
        for (wanted, flag) in [
            (!dump.exit, "--leave-running"),
            (dump.open_tcp, "--tcp-established"),
            (dump.external_unix_sockets, "--ext-unix-sk"),
            (dump.terminal, "--shell-job"),
            (dump.file_locks, "--file-locks"),
        ] {
            if wanted {
                command.arg(flag);
            }
        }
        if !dump.cgroups_word.is_empty() {
            command.arg("--manage-cgroups-mode").arg(&dump.cgroups_word);
        }
        command.arg(&self.id);
        self.run("checkpoint", command, || Ok(Outcome::Done))
    }

    fn start(&mut self) -> Step {
        if self.is_restored {
            return self.resume();
        }
        let mut command = self.command("start");
        command.arg(&self.id);
        self.run("start", command, || Ok(Outcome::Done))
    }

    fn exec(&mut self, exec_id: &str, process: &[u8], stdio: ChildStdio) -> Step {
        let file = self.bundle.join(format!("{exec_id}-process.json"));
        if let Err(error) = fs::write(&file, process) {
            return Step::Ready(Err(Refusal::system("write the process to execute", error)));
        }
        // Its own: other programs may be at work beside it.
        let log = self.bundle.join(format!("{exec_id}-log.json"));
        let mut command = self.command_with_log("exec", &log);
        command.arg("--process").arg(&file).arg("--detach");
        let id = self.id.clone();
        let last = |command: &mut Command| {
            command.arg(id);
        };
        // They are inside the bundle, which goes as a whole in any case.
        let clean_up = move |log: &Path| {
            for file in [&file, log] {
                let _ = fs::remove_file(file);
            }
        };
        match self.run_process("exec", exec_id, command, stdio, last, log.clone()) {
            Step::Running(Job { pid, finish }) => Step::Running(Job {
                pid,
                finish: Box::new(move |status| {
                    let outcome = finish(status);
                    clean_up(&log);
                    outcome
                }),
            }),
            ready => {
                clean_up(&log);
                ready
            }
        }
    }

    fn kill(&mut self, signal: i32, all: bool) -> Step {
        let mut command = self.command("kill");
        if all {
            command.arg("--all");
        }
        command.arg(&self.id).arg(signal.to_string());
        self.run("kill", command, || Ok(Outcome::Done))
    }

    fn pause(&mut self) -> Step {
        let mut command = self.command("pause");
        command.arg(&self.id);
        self.run("pause", command, || Ok(Outcome::Done))
    }

    fn resume(&mut self) -> Step {
        let mut command = self.command("resume");
        command.arg(&self.id);
        self.run("resume", command, || Ok(Outcome::Done))
    }

    fn pids(&mut self) -> Step {
        let files = memory_file("pids").and_then(|answer| Ok((answer.try_clone()?, answer)));
        let (output, mut answer) = match files {
            Ok(files) => files,
            Err(error) => return Step::Ready(Err(Refusal::system("make a memory file", error))),
        };
        let mut command = self.command("ps");
        command.args(["--format", "json"]).arg(&self.id).stdout(output);
        self.run("ps", command, move || {
            let mut text = Vec::new();
            let wrong = |error: &dyn std::fmt::Display| Refusal::system("read the list of processes", error);
            answer.seek(SeekFrom::Start(0)).map_err(|error| wrong(&error))?;
            answer
                .take(LONGEST_ANSWER)
                .read_to_end(&mut text)
                .map_err(|error| wrong(&error))?;
            // A container without processes is `null` to runc.
            let pids: Option<Vec<i32>> = serde_json::from_slice(&text).map_err(|error| wrong(&error))?;
            Ok(Outcome::Pids(pids.unwrap_or_default()))
        })
    }

    fn update(&mut self, resources: &[u8]) -> Step {
        let file = memory_file("resources").and_then(|mut file| {
            file.write_all(resources)?;
            file.seek(SeekFrom::Start(0))?;
            Ok(file)
        });
        let file = match file {
            Ok(file) => file,
            Err(error) => return Step::Ready(Err(Refusal::system("write the resources", error))),
        };
        let mut command = self.command("update");
        command.args(["--resources", "-"]).arg(&self.id).stdin(file);
        self.run("update", command, || Ok(Outcome::Done))
    }

    fn delete(&mut self, force: bool) -> Step {
        let mut command = self.command("delete");
        if force {
            command.arg("--force");
        }
        command.arg(&self.id);
        self.run("delete", command, || Ok(Outcome::Done))
    }

    fn created(&mut self, pid: i32) {
        // Without it the container has no statistics and no OOM notices, and runs all the same.
        self.cgroup = cgroup_of(pid);
    }

    fn cgroup(&self) -> Option<&Cgroup> {
        self.cgroup.as_ref()
    }
}

/// The last error among the lines of a program's log; what is no line ends them.
pub fn last_error_in(text: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Line {
        #[serde(default)]
        level: String,
        #[serde(default)]
        msg: String,
    }
    serde_json::Deserializer::from_slice(text)
        .into_iter::<Line>()
        .map_while(Result::ok)
        .filter(|line| line.level == "error" || line.level == "fatal")
        .last()
        .map(|line| line.msg.trim().to_owned())
}

/// The control groups of process `pid`.
fn cgroup_of(pid: i32) -> Option<Cgroup> {
    let layout = Layout::detect().ok()?;
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let mut paths = BTreeMap::new();
    for line in text.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?.trim_start_matches('/'));
        for controller in controllers.split(',') {
            if let Some(hierarchy) = layout.hierarchy(controller) {
                paths.insert(controller.to_owned(), hierarchy.mount.join(path));
            }
        }
    }
    Cgroup::from_paths(paths).ok()
}

fn memory_file(name: &str) -> io::Result<File> {
    Ok(memfd_create(name, MemfdFlags::CLOEXEC)?.into())
}

/// The pid in a file that a runtime wrote.
pub fn read_pid(path: &Path) -> Result<i32, Refusal> {
    let wrong = |cause: &dyn std::fmt::Display| Refusal::system(format!("read {}", path.display()), cause);
    let text = fs::read_to_string(path).map_err(|error| wrong(&error))?;
    text.trim().parse().map_err(|error| wrong(&error))
}

/// Why `program` could not be run, in the words of Go's `exec`: users and scripts know them from containerd's shim.
fn unstarted(program: &str, error: &io::Error) -> String {
    let missing = error.kind() == io::ErrorKind::NotFound;
    if missing && !program.contains('/') {
        return format!("exec: {program:?}: executable file not found in $PATH");
    }
    let cause = match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    };
    format!("fork/exec {program}: {cause}")
}

/// What a program's words mean. runc has no codes: these are the words that containerd knows, too.
fn refusal(operation: &str, cause: &str) -> Refusal {
    let gone = [
        "process already finished",
        "container not running",
        "no such process",
    ];
    let lower = cause.to_lowercase();
    if operation == "kill" && gone.iter().any(|word| lower.contains(word)) {
        return Refusal::new(Code::NotFound, "process already finished");
    }
    let code = if lower.contains("does not exist") {
        Code::NotFound
    } else if lower.contains("already exists") || lower.contains("already in use") {
        Code::AlreadyExists
    } else {
        Code::Unknown
    };
    Refusal::new(code, format!("OCI runtime {operation} failed: {cause}"))
}
