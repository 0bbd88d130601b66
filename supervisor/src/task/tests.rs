//! The life of tasks over a shim made of a script and a socket: what needs no container, and no root.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use prost::Message;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use wharf_proto::containerd::task::v2 as api;
use wharf_proto::containerd::v1::types::Status as State;
use wharf_proto::google::rpc::Status;
use wharf_proto::ttrpc::{Frame, Kind, Request, Response};

use super::*;
use crate::event::Start;
use crate::filter::Filters;

const PID: u32 = 4321;

/// The machine of one test: a state directory, and a shim that answers as it is told.
struct Machine {
    _directory: tempfile::TempDir,
    config: Config,
    shim: Arc<FakeShim>,
}

/// A ttrpc server that remembers what it was asked.
#[derive(Default)]
struct FakeShim {
    path: PathBuf,
    calls: Mutex<Vec<String>>,
    /// Answers other than an empty success.
    answers: Mutex<HashMap<&'static str, Result<Vec<u8>, i32>>>,
    /// `Wait` is answered once this is set.
    exited: watch::Sender<Option<u32>>,
    killed: Mutex<CancellationToken>,
}

impl Machine {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in\n*delete) echo deleted >>{deleted} ;;\n*) echo unix://{socket} ;;\nesac\n",
            deleted = at("deleted").display(),
            socket = at("shim.sock").display(),
        );
        fs::write(at("shim"), script).unwrap();
        fs::set_permissions(at("shim"), fs::Permissions::from_mode(0o755)).unwrap();
        let config = Config {
            root: at("root"),
            state: at("state"),
            address: at("d.sock"),
            shim: Some(at("shim")),
            ..Config::default()
        };
        let shim = Arc::new(FakeShim {
            path: at("shim.sock"),
            ..Default::default()
        });
        Machine {
            _directory: directory,
            config,
            shim,
        }
    }

    /// A daemon that has taken up what there is.
    async fn daemon(&self) -> (Arc<Tasks>, Arc<Exchange>) {
        let events = Arc::new(Exchange::new());
        let tasks = Tasks::new(
            &self.config,
            Arc::clone(&events),
            Arc::new(Opt::open(&self.config)),
        )
        .unwrap();
        tasks.reconcile().await.unwrap();
        (tasks, events)
    }

    fn bundle(&self) -> bundle::Bundle {
        bundle::Bundle::of(&self.config.state.join("tasks"), "ns", "c")
    }

    /// How often the shim's `delete` was run.
    fn deletes(&self) -> usize {
        let path = self.config.state.with_file_name("deleted");
        fs::read_to_string(path).unwrap_or_default().lines().count()
    }

    fn nothing_is_left(&self) -> bool {
        fs::read_dir(self.config.state.join("tasks/ns")).is_ok_and(|mut bundles| bundles.next().is_none())
    }
}

impl FakeShim {
    fn serve(self: &Arc<Self>) {
        drop(fs::remove_file(&self.path));
        let listener = UnixListener::bind(&self.path).unwrap();
        let killed = CancellationToken::new();
        *self.killed.lock().unwrap() = killed.clone();
        let shim = Arc::clone(self);
        tokio::spawn(async move {
            let accepting = async {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let (shim, killed) = (Arc::clone(&shim), killed.clone());
                    tokio::spawn(async move {
                        tokio::select! {
                            () = shim.converse(stream, killed.clone()) => {}
                            () = killed.cancelled() => {}
                        }
                    });
                }
            };
            tokio::select! {
                () = accepting => {}
                () = killed.cancelled() => {}
            }
        });
    }

    /// Ends all connections; with `dead` nobody listens any more.
    fn hang_up(self: &Arc<Self>, dead: bool) {
        self.killed.lock().unwrap().cancel();
        if dead {
            fs::remove_file(&self.path).unwrap();
        } else {
            self.serve();
        }
    }

    fn answer(&self, method: &'static str, answer: Result<Vec<u8>, i32>) {
        self.answers.lock().unwrap().insert(method, answer);
    }

    fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    async fn converse(self: Arc<Self>, stream: UnixStream, killed: CancellationToken) {
        let (mut read, write) = stream.into_split();
        let write = Arc::new(tokio::sync::Mutex::new(write));
        let mut buffer = Vec::new();
        while let Ok(Some(frame)) = ttrpc::next_frame(&mut read, &mut buffer).await {
            let request = Request::decode(frame.payload.as_slice()).unwrap();
            self.calls.lock().unwrap().push(request.method.clone());
            let (shim, write, killed) = (Arc::clone(&self), Arc::clone(&write), killed.clone());
            tokio::spawn(async move {
                let response = tokio::select! {
                    response = shim.respond(&request.method) => response,
                    // Letting go of the stream is what ends the connection.
                    () = killed.cancelled() => return,
                };
                let mut bytes = Vec::new();
                Frame::new(Kind::Response, frame.stream, &response)
                    .encode(&mut bytes)
                    .unwrap();
                // A client that hung up wants no answer.
                drop(write.lock().await.write_all(&bytes).await);
            });
        }
    }

    async fn respond(&self, method: &str) -> Response {
        let answer = self.answers.lock().unwrap().get(method).cloned();
        let payload = match (answer, method) {
            (Some(Ok(payload)), _) => payload,
            (Some(Err(code)), _) => {
                let status = Status {
                    code,
                    message: format!("{method} refused"),
                    details: Vec::new(),
                };
                return Response {
                    status: Some(status),
                    payload: Vec::new(),
                };
            }
            (None, "Create") => api::CreateTaskResponse { pid: PID }.encode_to_vec(),
            (None, "Wait") => {
                let mut exited = self.exited.subscribe();
                let exit_status = exited.wait_for(Option::is_some).await.unwrap().unwrap();
                api::WaitResponse {
                    exit_status,
                    exited_at: Some(time(7)),
                }
                .encode_to_vec()
            }
            (None, "State") => state(State::Running),
            (None, _) => Vec::new(),
        };
        Response {
            status: None,
            payload,
        }
    }
}

fn time(seconds: i64) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds, nanos: 0 }
}

fn state(status: State) -> Vec<u8> {
    api::StateResponse {
        id: "c".to_owned(),
        pid: PID,
        status: status as i32,
        exit_status: 5,
        exited_at: Some(time(7)),
        ..Default::default()
    }
    .encode_to_vec()
}

fn create() -> Create {
    Create {
        id: "c".to_owned(),
        runtime: "io.containerd.wharf.v2".to_owned(),
        spec: b"{}".to_vec(),
        ..Default::default()
    }
}

fn exit_event(status: u32) -> Envelope {
    Envelope {
        timestamp: Some(time(7)),
        namespace: "ns".to_owned(),
        topic: EXIT.to_owned(),
        event: Some(any::pack(&TaskExit {
            container_id: "c".to_owned(),
            id: "c".to_owned(),
            pid: PID,
            exit_status: status,
            exited_at: Some(time(7)),
        })),
    }
}

/// The exits published so far, as (status, time), and how many deletes.
async fn told(events: &Arc<Exchange>) -> (Vec<(u32, i64)>, usize) {
    let everything = Filters::parse::<&str>(&[]).unwrap();
    let mut subscription = events.subscribe(everything, Start::After(0));
    let (mut exits, mut deletes) = (Vec::new(), 0);
    while let Ok(Ok(Some(entry))) = tokio::time::timeout(Duration::from_millis(20), subscription.next()).await
    {
        match entry.envelope.topic.as_str() {
            EXIT => {
                let exit: TaskExit = any::unpack(entry.envelope.event.as_ref().unwrap())
                    .unwrap()
                    .unwrap();
                exits.push((exit.exit_status, exit.exited_at.unwrap().seconds));
            }
            "/tasks/delete" => deletes += 1,
            _ => {}
        }
    }
    (exits, deletes)
}

async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..500 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within 5 s: {what}");
}

#[tokio::test]
async fn a_task_lives_from_create_to_delete_and_leaves_nothing() {
    let machine = Machine::new();
    machine.shim.serve();
    let (tasks, _) = machine.daemon().await;
    assert_eq!(tasks.create("ns", create()).await.unwrap(), PID);
    assert_eq!(
        tasks.create("ns", create()).await.unwrap_err().to_string(),
        "task c: already exists"
    );
    assert_eq!(tasks.list("ns").len(), 1);
    assert!(tasks.get("other", "c").unwrap_err().is_not_found());
    let task = tasks.get("ns", "c").unwrap();
    let waiting = tokio::spawn(async move { task.wait().await });
    machine.shim.exited.send_replace(Some(3));
    assert_eq!(waiting.await.unwrap().unwrap().status, 3);
    tasks.delete("ns", "c").await.unwrap();
    assert!(tasks.get("ns", "c").unwrap_err().is_not_found());
    eventually("the bundle is gone", || machine.nothing_is_left()).await;
    assert_eq!(machine.deletes(), 0, "a living shim deletes its task itself");
    assert!(
        machine
            .shim
            .calls()
            .ends_with(&["Delete".to_owned(), "Shutdown".to_owned()])
    );
}

#[tokio::test]
async fn a_refused_creation_is_undone_and_its_id_is_free() {
    let machine = Machine::new();
    machine.shim.serve();
    machine
        .shim
        .answer("Create", Err(tonic::Code::InvalidArgument as i32));
    let (tasks, _) = machine.daemon().await;
    let error = tasks.create("ns", create()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "failed to create shim task: Create refused: invalid argument"
    );
    eventually("the bundle is gone", || machine.nothing_is_left()).await;
    assert_eq!(machine.shim.calls(), ["Create", "Delete", "Shutdown"]);
    machine.shim.answers.lock().unwrap().clear();
    tasks.create("ns", create()).await.unwrap();
}

#[tokio::test]
async fn a_shim_that_does_not_start_says_why_and_leaves_nothing() {
    let machine = Machine::new();
    let shim = machine.config.shim.clone().unwrap();
    fs::write(&shim, "#!/bin/sh\necho no such luck >&2\nexit 7\n").unwrap();
    let (tasks, _) = machine.daemon().await;
    let error = tasks.create("ns", create()).await.unwrap_err().to_string();
    assert_eq!(
        error,
        "failed to start shim: start failed: no such luck: exit status: 7"
    );
    eventually("the bundle is gone", || machine.nothing_is_left()).await;
    // An address where nobody listens is found out as well.
    fs::write(&shim, "#!/bin/sh\necho unix:///nonexistent/socket\n").unwrap();
    let error = tasks.create("ns", create()).await.unwrap_err().to_string();
    assert!(
        error.starts_with("failed to start shim: connect: connect to /nonexistent/socket"),
        "{error}"
    );
    eventually("the bundle is gone", || machine.nothing_is_left()).await;
}

#[tokio::test]
async fn a_client_that_hangs_up_leaves_no_task() {
    let machine = Machine::new();
    // Listens, and never answers.
    let _listener = UnixListener::bind(&machine.shim.path).unwrap();
    let (tasks, _) = machine.daemon().await;
    let creating = tokio::time::timeout(Duration::from_millis(300), tasks.create("ns", create()));
    assert!(creating.await.is_err());
    drop(_listener);
    eventually("the bundle is gone", || machine.nothing_is_left()).await;
    eventually("the id is free", || tasks.table().is_empty()).await;
}

#[tokio::test]
async fn the_exit_of_a_dead_shims_task_is_told_once() {
    let machine = Machine::new();
    machine.shim.serve();
    let (tasks, events) = machine.daemon().await;
    tasks.create("ns", create()).await.unwrap();
    let task = tasks.get("ns", "c").unwrap();
    fs::create_dir(machine.bundle().path().join("exits")).unwrap();
    let record = format!(r#"{{"pid":{PID},"exit_status":9,"exited_at":"1970-01-01T00:00:08Z"}}"#);
    fs::write(machine.bundle().path().join("exits/init.json"), record).unwrap();
    machine.shim.hang_up(true);
    // Who waited for the task, or deletes it, gets its end and no error.
    assert_eq!(task.wait().await.unwrap().status, 9);
    assert!(tasks.get("ns", "c").is_err() || tasks.delete("ns", "c").await.is_ok());
    eventually("the task is gone", || tasks.get("ns", "c").is_err()).await;
    assert_eq!(machine.deletes(), 1);
    eventually("the bundle is gone", || machine.nothing_is_left()).await;
    tasks.forward(exit_event(9)).unwrap();
    assert_eq!(told(&events).await, (vec![(9, 8)], 1));
}

#[tokio::test]
async fn a_lost_connection_to_a_living_shim_is_made_again() {
    let machine = Machine::new();
    machine.shim.serve();
    let (tasks, events) = machine.daemon().await;
    tasks.create("ns", create()).await.unwrap();
    let task = tasks.get("ns", "c").unwrap();
    let first = task.shim();
    machine.shim.hang_up(false);
    eventually("the task is reattached", || !Arc::ptr_eq(&first, &task.shim())).await;
    machine.shim.exited.send_replace(Some(0));
    assert_eq!(task.wait().await.unwrap().status, 0);
    assert_eq!(machine.deletes(), 0);
    assert_eq!(told(&events).await.1, 0);
}

#[tokio::test]
async fn an_exit_whose_event_is_lost_is_published_by_the_daemon() {
    let machine = Machine::new();
    machine.shim.serve();
    let (tasks, events) = machine.daemon().await;
    tasks.create("ns", create()).await.unwrap();
    machine.shim.exited.send_replace(Some(3));
    let task = tasks.get("ns", "c").unwrap();
    tokio::time::timeout(Duration::from_secs(10), tasks.ledger.wait(&task.end()))
        .await
        .unwrap();
    // The shim tries again after all.
    tasks.forward(exit_event(3)).unwrap();
    assert_eq!(told(&events).await.0, [(3, 7)]);
}

#[tokio::test]
async fn a_new_daemon_takes_up_a_running_task() {
    let machine = Machine::new();
    machine.shim.serve();
    let (before, _) = machine.daemon().await;
    before.create("ns", create()).await.unwrap();
    let (after, events) = machine.daemon().await;
    let task = after.get("ns", "c").unwrap();
    assert_eq!(task.pid, PID);
    machine.shim.exited.send_replace(Some(4));
    assert_eq!(task.wait().await.unwrap().status, 4);
    after.forward(exit_event(4)).unwrap();
    assert_eq!(told(&events).await.0, [(4, 7)]);
}

#[tokio::test]
async fn an_exit_during_the_daemons_absence_is_told_once_with_its_own_time() {
    let machine = Machine::new();
    machine.shim.serve();
    let (before, _) = machine.daemon().await;
    before.create("ns", create()).await.unwrap();
    machine.shim.answer("State", Ok(state(State::Stopped)));
    let (after, events) = machine.daemon().await;
    assert_eq!(after.get("ns", "c").unwrap().wait().await.unwrap().status, 5);
    after.forward(exit_event(5)).unwrap();
    assert_eq!(told(&events).await.0, [(5, 7)]);
    let marked = || machine.bundle().published("c") == Some(PID);
    eventually("the exit is marked", marked).await;
    let (_third, events) = machine.daemon().await;
    assert_eq!(told(&events).await.0, []);
}

#[tokio::test]
async fn what_a_crash_left_half_made_is_removed_and_not_told_of() {
    let machine = Machine::new();
    let bundle = machine.bundle();
    // Before the shim was started.
    bundle.create(b"{}").unwrap();
    let (_, events) = machine.daemon().await;
    eventually("the bundle is gone", || machine.nothing_is_left()).await;
    // The shim was started and is gone, the task was not created.
    bundle.create(b"{}").unwrap();
    bundle.set_shim(machine.config.shim.as_ref().unwrap()).unwrap();
    let (_, more) = machine.daemon().await;
    eventually("the bundle is gone", || machine.nothing_is_left()).await;
    assert_eq!(machine.deletes(), 1);
    // The shim lives and knows no task; and a removal was interrupted.
    machine.shim.serve();
    machine.shim.answer("State", Err(tonic::Code::NotFound as i32));
    bundle.create(b"{}").unwrap();
    bundle.set_shim(machine.config.shim.as_ref().unwrap()).unwrap();
    fs::write(
        bundle.path().join("address"),
        format!("unix://{}", machine.shim.path.display()),
    )
    .unwrap();
    fs::create_dir_all(bundle.path().with_file_name(".gone/rootfs")).unwrap();
    let (tasks, last) = machine.daemon().await;
    eventually("the bundle is gone", || machine.nothing_is_left()).await;
    assert!(tasks.list("ns").is_empty());
    assert!(machine.shim.calls().contains(&"Shutdown".to_owned()));
    for events in [events, more, last] {
        assert_eq!(told(&events).await, (vec![], 0));
    }
}

#[tokio::test]
async fn the_end_of_a_task_whose_shim_died_meanwhile_is_told() {
    let machine = Machine::new();
    machine.shim.serve();
    let (before, _) = machine.daemon().await;
    before.create("ns", create()).await.unwrap();
    // The first daemon's own monitor must not clean up before the second one looks.
    before.get("ns", "c").unwrap().retire();
    machine.shim.hang_up(true);
    let (after, events) = machine.daemon().await;
    assert!(after.get("ns", "c").unwrap_err().is_not_found());
    let (exits, deletes) = told(&events).await;
    // The script's `delete` has nothing to say: nobody knows how the task ended.
    assert_eq!((exits.len(), exits[0].0, deletes), (1, 255, 1));
    eventually("the bundle is gone", || machine.nothing_is_left()).await;
}

#[tokio::test]
async fn many_waits_for_one_exec_are_one_question_to_the_shim() {
    let machine = Machine::new();
    machine.shim.serve();
    let (tasks, _) = machine.daemon().await;
    tasks.create("ns", create()).await.unwrap();
    let task = tasks.get("ns", "c").unwrap();
    for _ in 0..10 {
        let waiting = tokio::time::timeout(Duration::from_millis(5), task.wait_exec("e"));
        assert!(waiting.await.is_err());
    }
    let waits = machine.shim.calls().iter().filter(|call| *call == "Wait").count();
    assert_eq!(waits, 2, "one for the task, one for the exec");
    let deleted = tokio::spawn({
        let task = Arc::clone(&task);
        async move { task.wait_exec("e").await }
    });
    tokio::task::yield_now().await;
    task.exec_deleted("e");
    assert!(deleted.await.unwrap().unwrap_err().is_not_found());
}

#[tokio::test]
async fn of_a_directory_that_others_use_only_our_own_sockets_are_looked_at() {
    let mut machine = Machine::new();
    let shared = machine.config.state.join("shared");
    fs::create_dir_all(machine.config.state.join("tasks/default/c1")).unwrap();
    fs::create_dir_all(&shared).unwrap();
    let socket = |name: &str| {
        let path = shared.join(name);
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        path
    };
    machine.config.shim_sockets = Some(shared.clone());
    machine.config.address = "/run/d.sock".into();
    // sha256sum of `/run/d.sock/default/c1`.
    let left = socket("5f30a913cc829ab290a1e9aad86561e7854c76144e3f2d00d7cefa992903868d");
    let strange = socket("somebody-elses");
    machine.daemon().await;
    assert!(!left.exists() && strange.exists());
    // A directory of our own is swept.
    machine.config.shim_sockets = None;
    fs::create_dir_all(machine.config.state.join("s")).unwrap();
    let own = machine.config.state.join("s/any");
    drop(std::os::unix::net::UnixListener::bind(&own).unwrap());
    machine.daemon().await;
    assert!(!own.exists());
}
