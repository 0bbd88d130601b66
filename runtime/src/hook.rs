//! Hooks: programs of the host that run at set points of a container's life.
//!
//! Each gets the container's state as JSON on its standard input, exactly the environment the configuration gives it, and
//! as long as the configuration allows. The first one that fails ends its list.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::process::wait_exit;
use crate::spec::oci;
use crate::sys::process::run_inside;
use crate::{Error, State};

/// The most of a hook's error output that is kept.
const MAX_OUTPUT_BYTES: usize = 4096;

/// How long a hook may run when the configuration does not say.
const NO_LIMIT: Duration = Duration::from_secs(u32::MAX as u64);

/// Where hooks run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place<'a> {
    /// In the namespaces of the runtime.
    Runtime,
    /// In those namespaces of the process that the bits name; the path is looked up there.
    Container(BorrowedFd<'a>, u64),
}

/// Those of the container's namespaces that a hook joins: one of pids would hold only its children, and one of time is
/// entered by executing.
pub(crate) fn namespaces(all: u64) -> u64 {
    all & !((libc::CLONE_NEWPID | libc::CLONE_NEWTIME) as u64)
}

/// Runs the hooks of one kind, in order.
pub(crate) fn run(
    kind: &'static str,
    hooks: &[oci::Hook],
    state: &State,
    place: Place<'_>,
) -> Result<(), Error> {
    for hook in hooks {
        run_one(hook, state, place).map_err(|problem| Error::Hook {
            kind,
            path: hook.path.clone(),
            problem,
        })?;
    }
    Ok(())
}

fn run_one(hook: &oci::Hook, state: &State, place: Place<'_>) -> Result<(), String> {
    if !hook.path.is_absolute() {
        return Err("the path must be absolute".into());
    }
    let limit = match hook.timeout {
        None => NO_LIMIT,
        Some(seconds) => match u64::try_from(seconds) {
            Ok(seconds @ 1..) => Duration::from_secs(seconds),
            _ => return Err(format!("a timeout of {seconds} s is none")),
        },
    };
    let input = input(state).map_err(|error| format!("prepare its input: {error}"))?;
    let mut output = output().map_err(|error| format!("prepare its output: {error}"))?;
    let mut command = Command::new(&hook.path);
    if let Some((name, arguments)) = hook.args.split_first() {
        command.arg0(name).args(arguments);
    }
    command.env_clear();
    for entry in &hook.env {
        let (name, value) = entry
            .split_once('=')
            .ok_or_else(|| format!("{entry:?} is not NAME=value"))?;
        command.env(name, value);
    }
    let stderr = output
        .try_clone()
        .map_err(|error| format!("prepare its output: {error}"))?;
    command.stdin(input).stdout(Stdio::null()).stderr(stderr);
    if let Place::Container(pidfd, kinds) = place {
        let pidfd = pidfd
            .try_clone_to_owned()
            .map_err(|error| format!("prepare its namespaces: {error}"))?;
        run_inside(&mut command, pidfd, kinds);
    }
    let child = command.spawn().map_err(|error| error.to_string())?;
    let status = wait(child, limit)?;
    if status.success() {
        return Ok(());
    }
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "ended".into(),
    };
    Err(match said(&mut output) {
        said if said.is_empty() => how,
        said => format!("{how}: {said}"),
    })
}

fn wait(mut child: Child, limit: Duration) -> Result<ExitStatus, String> {
    let in_time = pidfd(&child).and_then(|pidfd| {
        use std::os::fd::AsFd;
        wait_exit(pidfd.as_fd(), limit).map_err(|error| error.to_string())
    });
    if in_time != Ok(true) {
        child.kill().map_err(|error| format!("kill it: {error}"))?;
    }
    let status = child.wait().map_err(|error| format!("wait for it: {error}"))?;
    match in_time {
        Ok(true) => Ok(status),
        Ok(false) => Err(format!("did not end within {} s", limit.as_secs())),
        Err(problem) => Err(problem),
    }
}

fn pidfd(child: &Child) -> Result<OwnedFd, String> {
    let pid = Pid::from_raw(child.id().cast_signed()).ok_or("it has no pid")?;
    pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| format!("pidfd_open: {errno}"))
}

/// The state in memory: the hook may read it or not, nobody has to wait for it.
fn input(state: &State) -> Result<File, std::io::Error> {
    let mut file = File::from(memfd_create("state", MemfdFlags::CLOEXEC)?);
    file.write_all(&serde_json::to_vec(state)?)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

/// A place for error output that takes [`MAX_OUTPUT_BYTES`] and no more.
fn output() -> Result<File, std::io::Error> {
    let memory = memfd_create("output", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::ftruncate(&memory, MAX_OUTPUT_BYTES as u64)?;
    fcntl_add_seals(&memory, SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    Ok(File::from(memory))
}

fn said(output: &mut File) -> String {
    let mut bytes = Vec::new();
    let read = output
        .seek(SeekFrom::Start(0))
        .and_then(|_| output.read_to_end(&mut bytes));
    if read.is_err() {
        return String::new();
    }
    let text = String::from_utf8_lossy(&bytes);
    text.trim_end_matches('\0').trim().replace('\n', "; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Status;

    fn state() -> State {
        State {
            oci_version: "1.2.0".into(),
            id: "c".into(),
            pid: 1,
            status: Status::Creating,
            bundle: "/b".into(),
            rootfs: "/b/r".into(),
            created: String::new(),
            annotations: [("k".to_owned(), "v".to_owned())].into(),
            owner: String::new(),
        }
    }

    fn shell(script: &str, timeout: Option<i64>) -> Result<(), String> {
        let hook = oci::Hook {
            path: "/bin/sh".into(),
            args: vec!["sh".into(), "-c".into(), script.into()],
            env: vec!["A=b".into()],
            timeout,
        };
        run_one(&hook, &state(), Place::Runtime)
    }

    #[test]
    fn a_hook_gets_the_state_and_its_own_environment_only() {
        shell(
            "read -r line; case $line in *'\"status\":\"creating\"'*'\"k\":\"v\"'*) ;; *) exit 3;; esac",
            None,
        )
        .unwrap();
        shell("test \"$A\" = b && test -z \"$HOME\"", None).unwrap();
    }

    #[test]
    fn a_failure_says_what_the_hook_said() {
        assert_eq!(
            shell("echo one >&2; echo two >&2; exit 7", None).unwrap_err(),
            "exit status 7: one; two"
        );
        assert_eq!(shell("kill -9 $$", None).unwrap_err(), "killed by signal 9");
        let long = shell("head -c 100000 /dev/zero | tr '\\0' x >&2; exit 1", None).unwrap_err();
        assert!(long.len() <= MAX_OUTPUT_BYTES + 32);
    }

    #[test]
    fn a_hook_that_takes_too_long_is_killed() {
        assert_eq!(
            shell("exec sleep 100", Some(1)).unwrap_err(),
            "did not end within 1 s"
        );
        assert!(shell("true", Some(0)).is_err());
        assert!(shell("true", Some(-1)).is_err());
    }
}
