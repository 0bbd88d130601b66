//! Sandboxes through the two services: records with masks and filters, and a pod whose containers share one shim, over a
//! crash of the daemon and of the shim.

use std::fs;
use std::time::Duration;

use integration_tests::{bundle, eventually};
use prost_types::Any;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};
use wharf_proto::any;
use wharf_proto::containerd::events::{SandboxCreate, SandboxExit, SandboxStart};
use wharf_proto::containerd::services::containers::v1::containers_client::ContainersClient;
use wharf_proto::containerd::services::containers::v1::{Container, CreateContainerRequest, container};
use wharf_proto::containerd::services::events::v1::SubscribeRequest;
use wharf_proto::containerd::services::events::v1::events_client::EventsClient;
use wharf_proto::containerd::services::sandbox::v1::controller_client::ControllerClient;
use wharf_proto::containerd::services::sandbox::v1::store_client::StoreClient;
use wharf_proto::containerd::services::sandbox::v1::*;
use wharf_proto::containerd::services::tasks::v1::tasks_client::TasksClient;
use wharf_proto::containerd::services::tasks::v1::{
    CreateTaskRequest, DeleteTaskRequest, StartRequest, WaitRequest,
};
use wharf_proto::containerd::types::{Sandbox, sandbox};

use crate::subject::{SOON, Subject};

const RUNTIME: &str = "io.containerd.runc.v2";

fn scoped<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let namespace = "default".parse().expect("a header");
    request.metadata_mut().insert("containerd-namespace", namespace);
    request
}

struct Pods {
    subject: Subject,
    channel: Channel,
    id: String,
}

impl Pods {
    fn new() -> Pods {
        let subject = Subject::wharfd(RUNTIME);
        let id = format!("{}-pod", subject.scratch.unique());
        let channel = Endpoint::try_from(format!("unix://{}", subject.socket.display()))
            .expect("an address")
            .connect_lazy();
        Pods { subject, channel, id }
    }

    fn store(&self) -> StoreClient<Channel> {
        StoreClient::new(self.channel.clone())
    }

    fn controller(&self) -> ControllerClient<Channel> {
        ControllerClient::new(self.channel.clone())
    }

    fn record(&self) -> Sandbox {
        Sandbox {
            sandbox_id: self.id.clone(),
            runtime: Some(sandbox::Runtime {
                name: RUNTIME.into(),
                options: None,
            }),
            spec: Some(Any {
                type_url: "types.containerd.io/opencontainers/runtime-spec/1/Spec".into(),
                value: b"{\"ociVersion\": \"1.0.2\"}".to_vec(),
            }),
            labels: [("app".to_owned(), "one".to_owned())].into(),
            sandboxer: "shim".into(),
            ..Sandbox::default()
        }
    }

    async fn create(&self) {
        let record = StoreCreateRequest {
            sandbox: Some(self.record()),
        };
        self.store().create(scoped(record)).await.expect("a record");
        let sandbox = ControllerCreateRequest {
            sandbox_id: self.id.clone(),
            sandbox: Some(self.record()),
            sandboxer: "shim".into(),
            ..ControllerCreateRequest::default()
        };
        self.controller()
            .create(scoped(sandbox))
            .await
            .expect("a sandbox");
    }

    async fn start(&self) -> ControllerStartResponse {
        let request = ControllerStartRequest {
            sandbox_id: self.id.clone(),
            sandboxer: "shim".into(),
        };
        let started = self.controller().start(scoped(request)).await;
        started.expect("it starts").into_inner()
    }

    async fn status(&self) -> ControllerStatusResponse {
        let request = ControllerStatusRequest {
            sandbox_id: self.id.clone(),
            sandboxer: "shim".into(),
            verbose: false,
        };
        let status = self.controller().status(scoped(request)).await;
        status.expect("a status").into_inner()
    }

    async fn shutdown(&self) -> Result<(), tonic::Status> {
        let request = ControllerShutdownRequest {
            sandbox_id: self.id.clone(),
            sandboxer: "shim".into(),
        };
        self.controller().shutdown(scoped(request)).await.map(drop)
    }

    /// Starts a container in the sandbox; its name.
    async fn container(&self, name: &str) -> String {
        self.container_of(name, &["/bin/sleep", "1000"]).await
    }

    async fn container_of(&self, name: &str, command: &[&str]) -> String {
        let id = format!("{}-{name}", self.subject.scratch.unique());
        let directory = self.subject.scratch.join(format!("bundle-{name}"));
        bundle::bundle(&directory, command, |spec| {
            spec["root"]["path"] = json!(self.subject.root);
            spec["linux"]["cgroupsPath"] = json!(format!("/{id}"));
        });
        let spec = fs::read(directory.join("config.json")).expect("the spec");
        let container = Container {
            id: id.clone(),
            runtime: Some(container::Runtime {
                name: RUNTIME.into(),
                options: None,
            }),
            spec: Some(Any {
                type_url: "types.containerd.io/opencontainers/runtime-spec/1/Spec".into(),
                value: spec,
            }),
            sandbox: self.id.clone(),
            ..Container::default()
        };
        let request = CreateContainerRequest {
            container: Some(container),
        };
        let mut containers = ContainersClient::new(self.channel.clone());
        containers.create(scoped(request)).await.expect("a container");
        let mut tasks = TasksClient::new(self.channel.clone());
        let create = CreateTaskRequest {
            container_id: id.clone(),
            ..CreateTaskRequest::default()
        };
        tasks.create(scoped(create)).await.expect("a task");
        let start = StartRequest {
            container_id: id.clone(),
            exec_id: String::new(),
        };
        tasks.start(scoped(start)).await.expect("it starts");
        id
    }

    async fn subject_pid(&self, id: &str) -> u32 {
        let mut tasks = TasksClient::new(self.channel.clone());
        let get = wharf_proto::containerd::services::tasks::v1::GetRequest {
            container_id: id.to_owned(),
            exec_id: String::new(),
        };
        let process = tasks.get(scoped(get)).await.expect("a task").into_inner().process;
        process.expect("a process").pid
    }

    /// How the container ended, once it has, and its task is deleted.
    async fn end_of(&self, id: &str) -> u32 {
        let mut tasks = TasksClient::new(self.channel.clone());
        let wait = WaitRequest {
            container_id: id.to_owned(),
            exec_id: String::new(),
        };
        let ended = tokio::time::timeout(SOON, tasks.wait(scoped(wait))).await;
        let status = ended.expect("it ends").expect("an exit").into_inner().exit_status;
        let delete = DeleteTaskRequest {
            container_id: id.to_owned(),
        };
        tasks.delete(scoped(delete)).await.expect("it is deleted");
        status
    }

    fn bundles(&self) -> Vec<String> {
        let directory = self.subject.bundles.with_file_name("sandboxes").join("default");
        let Ok(entries) = fs::read_dir(directory) else {
            return Vec::new();
        };
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        names.map(|name| name.to_string_lossy().into_owned()).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_have_masks_and_filters() {
    let pods = Pods::new();
    let mut store = pods.store();
    let record = StoreCreateRequest {
        sandbox: Some(pods.record()),
    };
    let created = store.create(scoped(record.clone())).await.unwrap().into_inner();
    assert!(created.sandbox.unwrap().created_at.is_some());
    assert_eq!(
        store.create(scoped(record)).await.unwrap_err().code(),
        Code::AlreadyExists
    );
    let mut changed = pods.record();
    changed.labels = [("app", "two"), ("tier", "web")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
    changed.extensions.insert("note".into(), Any::default());
    let update = |fields: &[&str]| StoreUpdateRequest {
        sandbox: Some(changed.clone()),
        fields: fields.iter().map(|field| (*field).to_owned()).collect(),
    };
    let one = store.update(scoped(update(&["labels.tier"]))).await.unwrap();
    let labels = one.into_inner().sandbox.unwrap().labels;
    assert_eq!((labels["app"].as_str(), labels["tier"].as_str()), ("one", "web"));
    let refused = store.update(scoped(update(&["sandboxer"]))).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let all = store.update(scoped(update(&[]))).await.unwrap();
    assert!(all.into_inner().sandbox.unwrap().extensions.contains_key("note"));

    for (filter, count) in [("labels.app==two", 1), ("labels.app==one", 0), ("id~=pod", 1)] {
        let request = StoreListRequest {
            filters: vec![filter.to_owned()],
        };
        let list = store.list(scoped(request)).await.unwrap().into_inner().list;
        assert_eq!(list.len(), count, "{filter}");
    }
    for bad in ["", "a/b"] {
        let request = StoreCreateRequest {
            sandbox: Some(Sandbox {
                sandbox_id: bad.into(),
                ..pods.record()
            }),
        };
        let refused = store.create(scoped(request)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
    let delete = StoreDeleteRequest {
        sandbox_id: pods.id.clone(),
    };
    store.delete(scoped(delete.clone())).await.unwrap();
    assert_eq!(
        store.delete(scoped(delete)).await.unwrap_err().code(),
        Code::NotFound
    );
    for (sandboxer, code) in [("", Code::InvalidArgument), ("podsandbox", Code::NotFound)] {
        let request = ControllerCreateRequest {
            sandbox_id: pods.id.clone(),
            sandboxer: sandboxer.into(),
            ..ControllerCreateRequest::default()
        };
        let refused = pods.controller().create(scoped(request)).await.unwrap_err();
        assert_eq!(refused.code(), code);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_one_shim_and_outlives_the_daemon() {
    let mut pods = Pods::new();
    let subscribe = SubscribeRequest {
        filters: vec!["topic~=/sandboxes/".into()],
    };
    let mut events = EventsClient::new(pods.channel.clone())
        .subscribe(scoped(subscribe))
        .await
        .unwrap()
        .into_inner();
    pods.create().await;
    assert_eq!(pods.status().await.state, "SANDBOX_NOTREADY");
    let started = pods.start().await;
    assert_eq!(pods.status().await.state, "SANDBOX_READY");
    assert!(
        started.address.starts_with("ttrpc+unix:///"),
        "{}",
        started.address
    );

    let one = pods.container("one").await;
    let two = pods.container("two").await;
    let shim_of = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
        let parent = stat.rsplit_once(')').expect("a name").1.split_whitespace().nth(1);
        parent.expect("a parent").parse::<u32>().expect("a number")
    };
    let pid_of = |id: &str| {
        let file = pods.subject.bundles.join("default").join(id).join("task.json");
        let task: serde_json::Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        task["pid"].as_u64().unwrap() as u32
    };
    assert_eq!(shim_of(pid_of(&one)), started.pid);
    assert_eq!(shim_of(pid_of(&two)), started.pid);

    let refused = pods.shutdown().await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains(&one), "{}", refused.message());

    let mut topics = Vec::new();
    for _ in 0..2 {
        let next = tokio::time::timeout(SOON, events.message()).await;
        let event = next.unwrap().unwrap().unwrap();
        topics.push(event.topic.clone());
        let event = event.event.unwrap();
        let created = any::unpack::<SandboxCreate>(&event)
            .unwrap()
            .map(|event| event.sandbox_id);
        let begun = any::unpack::<SandboxStart>(&event)
            .unwrap()
            .map(|event| event.sandbox_id);
        assert_eq!(created.or(begun).as_ref(), Some(&pods.id));
    }
    assert_eq!(topics, ["/sandboxes/create", "/sandboxes/start"]);

    let wharfd = pods.subject.wharfd.as_mut().unwrap();
    wharfd.kill9();
    wharfd.restart();
    pods.channel = Endpoint::try_from(format!("unix://{}", pods.subject.socket.display()))
        .unwrap()
        .connect_lazy();
    let again = pods.status().await;
    assert_eq!((again.pid, again.state.as_str()), (started.pid, "SANDBOX_READY"));

    // Ending the pod ends what runs in it.
    let wait = ControllerWaitRequest {
        sandbox_id: pods.id.clone(),
        sandboxer: "shim".into(),
    };
    let mut controller = pods.controller();
    let waiting = tokio::spawn(async move { controller.wait(scoped(wait)).await });
    let stop = ControllerStopRequest {
        sandbox_id: pods.id.clone(),
        timeout_secs: 1,
        sandboxer: "shim".into(),
    };
    pods.controller().stop(scoped(stop)).await.unwrap();
    assert_eq!(pods.end_of(&one).await, 137);
    assert_eq!(pods.end_of(&two).await, 137);
    let ended = tokio::time::timeout(SOON, waiting).await.unwrap().unwrap();
    assert!(ended.unwrap().into_inner().exited_at.is_some());
    pods.shutdown().await.unwrap();
    assert!(pods.bundles().is_empty());
    eventually("the shim is gone", SOON, || {
        (!fs::exists(format!("/proc/{}/exe", started.pid)).unwrap_or(true)
            || fs::read_link(format!("/proc/{}/exe", started.pid)).is_err())
        .then_some(())
    });
    assert_eq!(pods.shutdown().await.unwrap_err().code(), Code::NotFound);
    // As containerd says it of one that is not there.
    let gone = pods.status().await;
    assert!(gone.state.is_empty() && gone.exited_at.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_shim_ends_its_pod_once() {
    let pods = Pods::new();
    pods.create().await;
    let started = pods.start().await;
    let id = pods.container("one").await;
    let subscribe = SubscribeRequest {
        filters: vec!["topic==/sandboxes/exit".into()],
    };
    let mut events = EventsClient::new(pods.channel.clone())
        .subscribe(scoped(subscribe))
        .await
        .unwrap()
        .into_inner();
    let shim = Pid::from_raw(started.pid as i32).unwrap();
    kill_process(shim, Signal::KILL).unwrap();
    let event = tokio::time::timeout(SOON, events.message()).await.unwrap();
    let exit: SandboxExit = any::unpack(&event.unwrap().unwrap().event.unwrap())
        .unwrap()
        .unwrap();
    assert_eq!((exit.sandbox_id, exit.exit_status), (pods.id.clone(), 255));
    eventually("nothing is left of the pod", SOON, || {
        let task = pods.subject.bundles.join("default").join(&id);
        (pods.bundles().is_empty() && !task.exists()).then_some(())
    });
    let more = tokio::time::timeout(Duration::from_millis(200), events.message()).await;
    assert!(more.is_err(), "told once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_leaves_containers_their_time() {
    let pods = Pods::new();
    pods.create().await;
    pods.start().await;
    let trap = "trap 'sleep 1; exit 7' TERM; while :; do sleep 0.1; done";
    let polite = pods.container_of("polite", &["/bin/sh", "-c", trap]).await;
    // Until it has its handler, a signal would do nothing.
    let pid = pods.subject_pid(&polite).await;
    eventually("the handler is there", SOON, || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:\t"))?;
        let caught = u64::from_str_radix(caught, 16).ok()?;
        (caught & 1 << (libc::SIGTERM - 1) != 0).then_some(())
    });
    let stop = ControllerStopRequest {
        sandbox_id: pods.id.clone(),
        timeout_secs: 60,
        sandboxer: "shim".into(),
    };
    let asked = std::time::Instant::now();
    pods.controller().stop(scoped(stop)).await.unwrap();
    let took = asked.elapsed();
    assert!(took > Duration::from_millis(900) && took < SOON, "{took:?}");
    assert_eq!(pods.status().await.state, "SANDBOX_NOTREADY");
    assert_eq!(pods.end_of(&polite).await, 7);
    pods.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_sandbox_takes_changes_of_its_record() {
    let pods = Pods::new();
    let update = |fields: &[&str], sandbox: Option<Sandbox>| {
        let request = ControllerUpdateRequest {
            sandbox_id: pods.id.clone(),
            sandboxer: "shim".into(),
            sandbox,
            fields: fields.iter().map(|field| (*field).to_owned()).collect(),
        };
        let mut controller = pods.controller();
        async move {
            let answer = controller.update(scoped(request)).await;
            answer.map_or_else(|error| error.code(), |_| Code::Ok)
        }
    };
    let record = || Some(pods.record());
    assert_eq!(update(&["labels"], record()).await, Code::NotFound);
    pods.create().await;
    assert_eq!(
        update(&["extensions", "labels.app", "spec"], record()).await,
        Code::Ok
    );
    assert_eq!(update(&[], record()).await, Code::Ok);
    assert_eq!(update(&["labels"], None).await, Code::Unknown);
    assert_eq!(update(&["created_at"], record()).await, Code::InvalidArgument);
    assert_eq!(update(&["runtime"], record()).await, Code::FailedPrecondition);
    assert_eq!(pods.status().await.sandbox_id, pods.id, "it goes on");
    pods.shutdown().await.unwrap();
}
