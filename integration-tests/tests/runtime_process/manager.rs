//! What passes between a service manager and a container: sockets that are open already, and that it is ready.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use integration_tests::eventually;

use crate::Case;

/// Sends a datagram as `systemd-notify` does; the probe's root file system has nothing that can.
const NOTIFY: &str = "/bin/probe notify";

#[test]
fn sockets_of_a_service_manager_are_passed_and_counted() {
    let script = "echo $LISTEN_FDS $LISTEN_PID $LISTEN_FDNAMES; readlink /proc/self/fd/3; readlink /proc/self/fd/4; \
                  test -e /proc/self/fd/5 || echo no more";
    let case = Case::new(&["/bin/sh", "-c", script], |_| {});
    let finished = case.shell(
        "exec 3</etc/hostname 4</etc/passwd 5</etc/group; \
         LISTEN_FDS=1 LISTEN_FDNAMES=web LISTEN_PID=$$ exec $runtime run --preserve-fds 1 $id",
    );
    let lines: Vec<&str> = finished.stdout.lines().collect();
    assert_eq!(
        lines,
        ["1 1 web", "/etc/hostname", "/etc/passwd", "no more"],
        "{finished}"
    );
    // Meant for somebody else.
    let finished = case.shell("exec 3</etc/hostname; LISTEN_FDS=1 LISTEN_PID=1 exec $runtime run $id");
    assert!(finished.stdout.starts_with('\n'), "{finished}");
}

/// The service manager's socket, and what it hears, the barrier's descriptor released as it goes.
struct Manager {
    socket: UnixDatagram,
    path: std::path::PathBuf,
}

impl Manager {
    fn new(case: &Case) -> Manager {
        let path = case.scratch.join("manager.sock");
        let socket = UnixDatagram::bind(&path).expect("bind");
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("set a timeout");
        Manager { socket, path }
    }

    /// The next message; a descriptor beside it is closed, since a plain receive drops it.
    fn hear(&self) -> String {
        let mut bytes = [0; 512];
        let length = self.socket.recv(&mut bytes).expect("a message");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }
}

fn ready_case() -> Case {
    let script = format!("{NOTIFY} STATUS=starting; {NOTIFY} READY=1; exec sleep 1000");
    Case::new(&["/bin/sh", "-c", &script], |_| {})
}

#[test]
fn a_detached_container_is_the_services_main_process_when_it_is_ready() {
    let case = ready_case();
    let manager = Manager::new(&case);
    let mut run = case.command(&["run", "--detach", case.id()]);
    run.env("NOTIFY_SOCKET", &manager.path)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null());
    let mut run = run.spawn().expect("start the runtime");
    assert_eq!(manager.hear(), "READY=1\n");
    let main = manager.hear();
    assert_eq!(manager.hear(), "BARRIER=1");
    assert!(run.wait().expect("wait").success());
    assert_eq!(main, format!("MAINPID={}\n", case.state()["pid"]));
}

#[test]
fn start_waits_until_a_created_container_is_ready() {
    let case = ready_case();
    let manager = Manager::new(&case);
    let mut create = case.command(&["create", case.id()]);
    create
        .env("NOTIFY_SOCKET", &manager.path)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null());
    assert!(create.status().expect("start the runtime").success());
    let mut start = case.command(&["start", case.id()]);
    let mut start = start
        .env("NOTIFY_SOCKET", &manager.path)
        .spawn()
        .expect("start the runtime");
    assert_eq!(manager.hear(), "READY=1\n");
    assert_eq!(manager.hear(), format!("MAINPID={}\n", case.state()["pid"]));
    assert_eq!(manager.hear(), "BARRIER=1");
    assert!(start.wait().expect("wait").success());
}

#[test]
fn a_container_that_ends_before_it_is_ready_is_not_waited_for() {
    let case = Case::new(&["/bin/true"], |_| {});
    let manager = Manager::new(&case);
    let mut run = case.command(&["run", "--detach", case.id()]);
    run.env("NOTIFY_SOCKET", &manager.path);
    integration_tests::run(&mut run).ok();
    eventually("stopped", Duration::from_secs(10), || {
        (case.state()["status"] == "stopped").then_some(())
    });
}

#[test]
fn in_the_foreground_the_runtime_is_the_main_process() {
    let script = format!("{NOTIFY} READY=1; while ! test -e /tmp/end; do sleep 0.05; done");
    let case = Case::new(&["/bin/sh", "-c", &script], |_| {});
    let manager = Manager::new(&case);
    let mut run = case.command(&["run", case.id()]);
    let mut run = run
        .env("NOTIFY_SOCKET", &manager.path)
        .spawn()
        .expect("start the runtime");
    assert_eq!(manager.hear(), "READY=1\n");
    assert_eq!(manager.hear(), format!("MAINPID={}\n", run.id()));
    fs::write(case.rootfs("tmp/end"), "").expect("write");
    assert!(run.wait().expect("wait").success());
}
