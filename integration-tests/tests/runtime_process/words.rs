//! What the command line prints: the words, numbers and files that programs look for.

use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixListener;

use crate::Case;

#[test]
fn called_as_runc_it_says_so() {
    let case = Case::new(&["/bin/true"], |_| {});
    let link = case.scratch.join("runc");
    std::os::unix::fs::symlink(&case.program, &link).expect("link");
    let run = |arguments: &[&str]| integration_tests::run(std::process::Command::new(&link).args(arguments));
    let version = run(&["--version"]).ok();
    let lines: Vec<&str> = version.lines().collect();
    assert!(lines[0].starts_with("runc version "), "{version}");
    assert!(lines[1].starts_with("commit: "), "{version}");
    assert_eq!(lines[2], "spec: 1.3.0");
    let help = run(&["--help"]).ok();
    assert!(
        help.starts_with("NAME:\n   runc - Open Container Initiative runtime\n"),
        "{help}"
    );
    let error = run(&["run", "--bundle", "/nonexistent", "c"]).one_line_error();
    assert!(error.contains("runc run failed: "), "{error}");
}

#[test]
fn a_wrong_command_line_is_answered_as_runc_answers_it() {
    let case = Case::new(&["/bin/true"], |_| {});
    fs::create_dir(case.root()).expect("make the state root");
    for (arguments, code, words) in [
        (&["nonsense", "-h"][..], 3, "No help topic for 'nonsense'"),
        (&["create"], 1, "\\\"create\\\" requires exactly 1 argument(s)"),
        (
            &["start", "a", "b"],
            1,
            "\\\"start\\\" requires exactly 1 argument(s)",
        ),
        (&["list", "x"], 1, "\\\"list\\\" requires exactly 0 argument(s)"),
        (
            &["list", "--nonsense"],
            1,
            "flag provided but not defined: -nonsense",
        ),
        (&["list", "--format", "xml"], 1, "invalid format option"),
        (&["--log-format", "xml", "list"], 1, "invalid log-format: xml"),
        (&["state", "nobody"], 1, "container does not exist"),
        (
            &["exec", "nobody", "true"],
            255,
            "exec failed: container does not exist",
        ),
    ] {
        let finished = case.run(arguments);
        assert_eq!(finished.code, code, "{finished}");
        assert!(finished.stderr.contains(words), "{finished}");
    }
}

#[test]
fn a_program_that_the_kernel_does_not_execute_is_told_as_it_would_tell_itself() {
    let case = Case::new(&["/broken"], |_| {});
    fs::write(case.rootfs("broken"), "#!/nonexistent interpreter\n").expect("write");
    fs::set_permissions(
        case.rootfs("broken"),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .expect("chmod");
    let finished = case.run(&["run", case.id()]);
    assert_eq!(finished.stderr, "exec /broken: no such file or directory\n");
    assert_eq!(finished.code, 255);
    let log = case.scratch.join("log");
    let mut logged = case.command(&["--log"]);
    logged.arg(&log).args(["--log-format", "json", "run", case.id()]);
    integration_tests::run(&mut logged).fails_with(255);
    let entry: serde_json::Value = serde_json::from_str(&crate::read(&log)).expect("JSON");
    assert_eq!(entry["level"], "error");
    let message = entry["msg"].as_str().expect("a message");
    assert!(
        message.ends_with("run failed: exec /broken: no such file or directory"),
        "{message}"
    );
}

#[test]
fn a_broken_container_does_not_hide_the_others_from_a_list() {
    let case = Case::new(&["/bin/sleep", "1000"], |_| {});
    case.detached(&["create", case.id()]);
    let broken = case.root().join("broken");
    fs::create_dir(&broken).expect("mkdir");
    fs::write(broken.join("state.json"), "{").expect("write");
    let finished = case.run(&["list", "--quiet"]);
    assert_eq!(finished.stdout, format!("{}\n", case.id()), "{finished}");
    assert!(finished.stderr.contains("load container broken: "), "{finished}");
}

#[test]
fn a_pidfd_socket_receives_the_process_that_was_made() {
    let case = Case::new(&["/bin/sleep", "1000"], |_| {});
    let path = case.scratch.join("pidfd.sock");
    let listener = UnixListener::bind(&path).expect("bind");
    let path = path.to_str().expect("UTF-8");
    case.detached(&["create", "--pidfd-socket", path, case.id()]);
    let (name, pidfd) = receive(&listener);
    assert_eq!(name, "standard");
    assert_eq!(pid_of(&pidfd), case.state()["pid"].as_i64());
    case.run(&["start", case.id()]).ok();
    let pid_file = case.scratch.join("exec-pid");
    case.detached(&[
        "exec",
        "--detach",
        "--pidfd-socket",
        path,
        "--pid-file",
        pid_file.to_str().expect("UTF-8"),
        case.id(),
        "/bin/sleep",
        "1000",
    ]);
    let (name, pidfd) = receive(&listener);
    assert_eq!(name, "setns");
    assert_eq!(pid_of(&pidfd), crate::read(&pid_file).parse().ok());
}

fn receive(listener: &UnixListener) -> (String, OwnedFd) {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let (stream, _) = listener.accept().expect("a connection");
    let mut bytes = [0; 64];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [std::io::IoSliceMut::new(&mut bytes)];
    let received = recvmsg(
        stream.as_fd(),
        &mut parts,
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    );
    let length = received.expect("a message").bytes;
    let passed = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    (
        String::from_utf8_lossy(&bytes[..length]).into_owned(),
        passed.expect("a descriptor"),
    )
}

fn pid_of(pidfd: &OwnedFd) -> Option<i64> {
    use std::os::fd::AsRawFd as _;
    let info = crate::read(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()));
    crate::field(&info, "Pid").parse().ok()
}

#[test]
fn debug_messages_tell_the_way_of_a_container() {
    let case = Case::new(&["/bin/true"], |_| {});
    let finished = case.run(&["--debug", "run", case.id()]);
    assert_eq!(finished.code, 0, "{finished}");
    let mut from = 0;
    for step in [
        "nsexec container setup: new namespaces mnt",
        "child process in init()",
        "init: closing the pipe to signal completion",
        "init: about to exec",
    ] {
        let at = finished.stderr[from..].find(step);
        from += at.unwrap_or_else(|| panic!("{step} is not told in its place: {finished}"));
    }
    assert_eq!(case.run(&["run", case.id()]).stderr, "");
}
