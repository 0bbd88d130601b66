//! Hooks on the runtime's side: programs of the host that run at set points of a container's life, in the namespaces of
//! the runtime. Those in the container are the child half's.
//!
//! Each gets the container's state as JSON on its standard input, the environment that the configuration gives it (the
//! runtime's own if it gives none, as runc), and as long as the configuration allows. The first one that fails ends its list.
//!
//! A hook is none of the caller's children: it raises no `SIGCHLD`, no wait of the caller's collects it, and its exit status is
//! known also where `SIGCHLD` is ignored.

use std::borrow::Cow;
use std::ffi::CString;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::init::{Ending, HookFailure, Message, Stage, run_beside};
use crate::plan::{Hook, HookState, compile_hook};
use crate::process::{Conversation, Heard};
use crate::spec::oci;
use crate::sys::process::{self, Ended, Notice};
use crate::sys::strings::Strings;
use crate::sys::{Fd, fd};
use crate::{Errno, Error, State, kernel};

/// The most of a hook's output that is told.
const MAX_SAID_BYTES: u64 = 4096;

/// Runs the hooks of one kind, in order.
pub(crate) fn run(kind: &'static str, hooks: &[oci::Hook], state: &State) -> Result<(), Error> {
    for (index, hook) in hooks.iter().enumerate() {
        run_one(kind, index, hook, state).map_err(|problem| Error::Hook {
            kind,
            index,
            path: hook.path.clone(),
            problem,
        })?;
    }
    Ok(())
}

/// Runs the hook that is the `index`th of its kind; answers what is wrong.
pub(crate) fn run_one(kind: &str, index: usize, hook: &oci::Hook, state: &State) -> Result<(), String> {
    let plan = compile_hook(&format!("hooks.{kind}[{index}]"), hook).map_err(|error| error.to_string())?;
    let own_environment;
    let environment = match &plan.environment {
        Some(environment) => environment,
        None => {
            own_environment = Strings::new(environment_of_this_process());
            &own_environment
        }
    };
    let told = HookState {
        oci_version: &state.oci_version,
        id: &state.id,
        status: state.status,
        pid: (state.pid != 0).then_some(state.pid),
        bundle: &state.bundle,
        annotations: &state.annotations,
    };
    let told = serde_json::to_vec(&told).map_err(|error| format!("prepare its input: {error}"))?;
    run_beside_this_process(&plan, environment, &told, hook.timeout)
}

fn run_beside_this_process(
    hook: &Hook,
    environment: &Strings,
    state: &[u8],
    timeout: Option<i64>,
) -> Result<(), String> {
    let failed = |what: &str, errno: Errno| format!("{what}: {errno}");
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|errno| failed("make a socket pair", errno.into()))?;
    let theirs = fd::above_streams(theirs).map_err(|errno| failed("duplicate a descriptor", errno))?;
    let reporter = Fd::of(&theirs);
    let proc = match kernel::is_old() {
        true => Some(kernel::open_proc().map_err(|error| error.to_string())?),
        false => None,
    };
    let host = proc.as_ref().map(Fd::of);
    let body = || run_beside(hook, environment, &[state], host, reporter);
    // SAFETY: `run_beside` makes raw calls on memory prepared before, resets the signals first, and never returns.
    #[allow(unsafe_code)]
    let child = unsafe {
        match host {
            None => process::clone_child(0, None, Notice::Nothing, body),
            Some(_) => process::clone_child_old(0, Notice::Nothing, body),
        }
    };
    let child = child.map_err(|errno| failed("clone3", errno))?;
    drop(theirs);
    let heard = Conversation::new(&ours, &child.pidfd).listen();
    let ended = process::wait(Fd::of(&child.pidfd)).map_err(|errno| failed("wait for it", errno))?;
    match heard.map_err(|error| error.to_string())? {
        Heard::Closed if ended == Ended::Exited(0) => Ok(()),
        Heard::Hook(failure, output) => problem(failure.ending, timeout, output.into()).map_or(Ok(()), Err),
        Heard::Message(Message::Failed(failure)) => Err(failed("run it", failure.errno)),
        _ => Err("nothing was heard of it".into()),
    }
}

/// The error that the child half's report is.
pub(crate) fn failed(failure: HookFailure, hooks: &oci::Hooks, output: File) -> Error {
    let (kind, hooks): (_, &[oci::Hook]) = match failure.stage {
        Stage::CreateContainer => ("createContainer", &hooks.create_container),
        Stage::StartContainer => ("startContainer", &hooks.start_container),
        Stage::Beside => ("unknown", &[]),
    };
    let index = usize::from(failure.index);
    let hook = hooks.get(index);
    Error::Hook {
        kind,
        index,
        path: hook.map_or_else(PathBuf::new, |hook| hook.path.clone()),
        problem: problem(failure.ending, hook.and_then(|hook| hook.timeout), output)
            .unwrap_or_else(|| "failed".into()),
    }
}

pub(crate) fn environment_of_this_process() -> Vec<CString> {
    let entries = std::env::vars_os().map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        CString::new(name.into_vec())
    });
    // The kernel's strings end at the first zero byte: there is none with one inside.
    entries.filter_map(Result::ok).collect()
}

/// What is wrong about a hook that ended so, with what it said; nothing for one that did its work.
fn problem(ending: Ending, timeout: Option<i64>, output: File) -> Option<String> {
    let how = match ending {
        Ending::GOOD => return None,
        Ending::Ended(Ended::Exited(code)) => format!("exit status {code}"),
        Ending::Ended(Ended::Killed(signal)) => format!("signal: {}", signal_words(signal)),
        Ending::TimedOut => format!("did not end within {} s", timeout.unwrap_or(0)),
    };
    Some(match said(output) {
        said if said.is_empty() => how,
        said => format!("{how}: {said}"),
    })
}

/// The beginning of what a hook wrote, on one line: a program of the container may have written it.
fn said(mut output: File) -> String {
    let mut bytes = Vec::new();
    let read = output
        .seek(SeekFrom::Start(0))
        .and_then(|_| output.take(MAX_SAID_BYTES).read_to_end(&mut bytes));
    if read.is_err() {
        return String::new();
    }
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let text = String::from_utf8_lossy(bytes.get(..end).unwrap_or_default());
    let lines: Vec<&str> = text.trim().lines().collect();
    lines.join("; ").replace(char::is_control, " ")
}

/// What ended a hook, as runc's users know it.
fn signal_words(signal: i32) -> Cow<'static, str> {
    Cow::Borrowed(match signal {
        libc::SIGHUP => "hangup",
        libc::SIGINT => "interrupt",
        libc::SIGQUIT => "quit",
        libc::SIGILL => "illegal instruction",
        libc::SIGTRAP => "trace/breakpoint trap",
        libc::SIGABRT => "aborted",
        libc::SIGBUS => "bus error",
        libc::SIGFPE => "floating point exception",
        libc::SIGKILL => "killed",
        libc::SIGSEGV => "segmentation fault",
        libc::SIGPIPE => "broken pipe",
        libc::SIGALRM => "alarm clock",
        libc::SIGTERM => "terminated",
        libc::SIGSYS => "bad system call",
        other => return format!("signal {other}").into(),
    })
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

    fn shell_with(script: &str, timeout: Option<i64>, env: &[&str]) -> Result<(), String> {
        let hook = oci::Hook {
            path: "/bin/sh".into(),
            args: vec!["sh".into(), "-c".into(), script.into()],
            env: env.iter().map(ToString::to_string).collect(),
            timeout,
        };
        run_one("prestart", 0, &hook, &state())
    }

    fn shell(script: &str, timeout: Option<i64>) -> Result<(), String> {
        shell_with(script, timeout, &["A=b"])
    }

    #[test]
    fn a_hook_gets_the_state_and_its_own_environment_only() {
        let expected = r#"{"ociVersion":"1.2.0","id":"c","status":"creating","pid":1,"bundle":"/b","annotations":{"k":"v"}}"#;
        shell(&format!("test \"$(cat)\" = '{expected}'"), None).unwrap();
        shell("test \"$A\" = b && test -z \"$HOME\"", None).unwrap();
    }

    #[test]
    fn a_hook_without_an_environment_has_that_of_the_runtime() {
        let home = std::env::var("HOME").unwrap_or_default();
        shell_with(&format!("test \"$HOME\" = '{home}'"), None, &[]).unwrap();
    }

    #[test]
    fn a_failure_says_what_the_hook_said() {
        assert_eq!(
            shell("echo one >&2; echo two; exit 7", None).unwrap_err(),
            "exit status 7: one; two"
        );
        assert_eq!(shell("kill -9 $$", None).unwrap_err(), "signal: killed");
        let long = shell("head -c 100000 /dev/zero | tr '\\0' x >&2; exit 1", None).unwrap_err();
        assert!(long.len() as u64 <= MAX_SAID_BYTES + 32);
        let hook = oci::Hook {
            path: "/nonexistent/hook".into(),
            ..oci::Hook::default()
        };
        let missing = run_one("prestart", 0, &hook, &state()).unwrap_err();
        assert_eq!(missing, "exit status 127: exec: ENOENT");
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

    #[test]
    fn a_hook_holds_nothing_but_its_three_streams() {
        let held = File::open("/").unwrap();
        let number = Fd::of(&held).number();
        // Not close-on-exec, as a careless caller's.
        rustix::io::fcntl_setfd(&held, rustix::io::FdFlags::empty()).unwrap();
        shell(&format!("! test -e /proc/self/fd/{number}"), None).unwrap();
    }
}
