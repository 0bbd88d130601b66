//! containerd and its shims when one of them is killed, and what only notices tell: an out-of-memory kill, new limits.
//!
//! What is asserted of our shim is asserted of Debian's first.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Stdio};

use integration_tests::containerd::Containerd;
use integration_tests::{eventually, leftovers};
use prost_types::Any;
use tonic::Request;
use tonic::transport::Endpoint;
use wharf_proto::containerd::services::tasks::v1::UpdateTaskRequest;
use wharf_proto::containerd::services::tasks::v1::tasks_client::TasksClient;

use super::{Parts, SOON, Subject};

/// The name of the resources of the OCI specification on the wire.
const RESOURCES_URL: &str = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";

/// `ctr events`, until it is dropped.
struct Events {
    child: Child,
    file: PathBuf,
}

impl Events {
    fn of(subject: &Subject) -> Events {
        let (_, file) = subject.file();
        let child = subject
            .command()
            .arg("events")
            .stdin(Stdio::null())
            .stdout(fs::File::create(&file).expect("a file for events"))
            .stderr(Stdio::null())
            .spawn()
            .expect("start ctr events");
        let events = Events { child, file };
        // It says nothing when it has subscribed: make events until one arrives.
        eventually("ctr events has subscribed", SOON, || {
            subject
                .ctr(&["containers", "create", "--rootfs", &subject.root, "canary"])
                .ok();
            subject.ctr(&["containers", "delete", "canary"]).ok();
            (!events.text().is_empty()).then_some(())
        });
        events
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.file).expect("read the events")
    }

    /// Waits for the event `topic` of the container `id`; its line.
    fn until(&self, topic: &str, id: &str) -> String {
        let id = format!("\"{id}\"");
        eventually(&format!("{topic} of {id}"), SOON, || {
            let text = self.text();
            let mut lines = text.lines();
            lines
                .find(|line| line.contains(&format!(" {topic} ")) && line.contains(&id))
                .map(str::to_owned)
        })
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        // `timeout` passes a polite signal on. One that has ended meanwhile is what is wanted.
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id() as i32) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        self.child.wait().expect("wait for ctr events");
    }
}

fn parent(pid: i32) -> i32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the task's process");
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    line.expect("PPid").trim().parse().expect("a pid")
}

fn running(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kill -9");
}

impl Subject {
    fn pid(&self, id: &str) -> i32 {
        let (pid, _) = self.task(id).expect("a task");
        pid.parse().expect("a pid")
    }

    fn detached(&self, options: &[&str], id: &str, script: &str) {
        let options = [&["--detach"], options].concat();
        self.run_with(&options, id, &["/bin/sh", "-c", script]).ok();
    }
}

/// New limits by `Update`, which `ctr` has no command for.
fn update(subject: &Subject) {
    subject.sleeper(&["--memory-limit", "67108864"], "limits");
    let socket = subject.containerd.as_ref().expect("containerd runs").socket();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let request = |resources: &str| {
        let mut request = Request::new(UpdateTaskRequest {
            container_id: "limits".to_owned(),
            resources: Some(Any {
                type_url: RESOURCES_URL.to_owned(),
                value: resources.as_bytes().to_vec(),
            }),
            ..UpdateTaskRequest::default()
        });
        let namespace = subject.scratch.unique().parse().expect("a name is ASCII");
        request.metadata_mut().insert("containerd-namespace", namespace);
        request
    };
    runtime.block_on(async {
        let channel = Endpoint::try_from(format!("unix://{}", socket.display()))
            .expect("an address")
            .connect()
            .await
            .expect("connect");
        let mut tasks = TasksClient::new(channel);
        let resources = r#"{"memory":{"limit":134217728},"cpu":{"shares":512},"pids":{"limit":77}}"#;
        tasks.update(request(resources)).await.expect("updated");
        tasks.update(request("{")).await.expect_err("this is no JSON");
    });
    let metrics = subject.ctr(&["tasks", "metrics", "limits"]).ok();
    for (name, value) in [("memory.limit_in_bytes", "134217728"), ("pids.limit", "77")] {
        let line = metrics.lines().find(|line| line.starts_with(name));
        let said = line.and_then(|line| line.split_whitespace().nth(1));
        assert_eq!(said, Some(value), "{metrics}");
    }
    subject.end("limits");
    subject.ctr(&["containers", "delete", "limits"]).ok();
}

fn out_of_memory(subject: &Subject) {
    let events = Events::of(subject);
    let greedy = "(x=aaaaaaaa; while :; do x=$x$x; done); echo survived >/out/survived; sleep 1000";
    subject.detached(&["--memory-limit", "16777216"], "greedy", greedy);
    let survived = subject.out.join("survived");
    eventually("it lives on", SOON, || survived.exists().then_some(()));
    events.until("/tasks/oom", "greedy");
    subject.end("greedy");
    subject.ctr(&["containers", "delete", "greedy"]).ok();
}

/// containerd is killed while one task goes on and another ends.
fn restart(subject: &mut Subject) {
    let until = |name: &str| format!("until [ -e /out/{name} ]; do sleep 0.05; done");
    let log = subject.scratch.join("ends.log");
    let log_uri = format!("file://{}", log.display());
    let script = format!("echo before; {}; echo last words; exit 5", until("end"));
    subject.detached(&["--log-uri", &log_uri], "ends", &script);
    let script = format!("{}; echo after; {}; exit 6", until("go"), until("heard"));
    subject.detached(&[], "goes-on", &script);
    let (ends, goes_on) = (subject.pid("ends"), subject.pid("goes-on"));
    subject.containerd.take().expect("containerd runs").daemon.kill9();
    fs::write(subject.out.join("end"), "").expect("tell it to end");
    eventually("it has ended", SOON, || (!running(ends)).then_some(()));
    subject.containerd = Some(Containerd::start(&subject.scratch));
    subject.until("ends", "STOPPED");
    assert_eq!(
        fs::read_to_string(&log).expect("its output"),
        "before\nlast words\n"
    );
    let deleted = subject.ctr(&["tasks", "delete", "ends"]);
    assert!(deleted.stderr.contains("exit code 5"), "{deleted}");
    assert_eq!(subject.pid("goes-on"), goes_on);
    // A client that comes only now gets what is said from now on, and the exit.
    let mut attached = subject
        .command()
        .args(["tasks", "attach", "goes-on"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start ctr");
    fs::write(subject.out.join("go"), "").expect("tell it to go on");
    let mut said = String::new();
    let output = attached.stdout.as_mut().expect("a pipe");
    BufReader::new(output)
        .read_line(&mut said)
        .expect("read from ctr");
    assert_eq!(said, "after\n");
    // Only now may it end: a client that hears of the end first does not read on.
    fs::write(subject.out.join("heard"), "").expect("tell it to end");
    assert_eq!(attached.wait().expect("wait for ctr").code(), Some(6));
    eventually("it is gone", SOON, || {
        subject.task("goes-on").is_none().then_some(())
    });
    for id in ["ends", "goes-on"] {
        subject.ctr(&["containers", "delete", id]).ok();
    }
}

/// A shim is killed: containerd has its executable clean up, and tells of the end.
fn crash(subject: &Subject) {
    let events = Events::of(subject);
    subject.sleeper(&[], "orphan");
    let pid = subject.pid("orphan");
    kill(parent(pid));
    let exit = events.until("/tasks/exit", "orphan");
    assert!(
        exit.contains("\"exit_status\":137") && exit.contains(&format!("\"pid\":{pid}")),
        "{exit}"
    );
    events.until("/tasks/delete", "orphan");
    eventually("its processes are gone", SOON, || (!running(pid)).then_some(()));
    eventually("the task is gone", SOON, || {
        subject.task("orphan").is_none().then_some(())
    });
    let state = subject.scratch.join("containerd/state");
    eventually("its mounts are gone", SOON, || {
        leftovers::mounts_below(&state).is_empty().then_some(())
    });
    // Killed before it has started anything, too: the same id works at once.
    subject.ctr(&["containers", "delete", "orphan"]).ok();
    subject.sleeper(&[], "orphan");
    subject.end("orphan");
    subject.ctr(&["containers", "delete", "orphan"]).ok();
}

fn whole(parts: Parts) {
    let mut subject = Subject::new(parts);
    update(&subject);
    out_of_memory(&subject);
    restart(&mut subject);
    crash(&subject);
    subject.nothing_is_left();
}

#[test]
fn containerd_and_its_own_shim_survive_each_other() {
    whole(Parts::None);
}

#[test]
fn containerd_and_our_shim_survive_each_other() {
    whole(Parts::Shim);
}
