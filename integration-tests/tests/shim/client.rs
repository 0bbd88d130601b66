//! A daemon of the tests' own: starts a shim as containerd does, calls it by ttrpc, takes its events.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use integration_tests::{Scratch, binaries, bundle, run};
use prost::{Message, Name};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process};
use wharf_proto::any::{RUNTIME_PROCESS_URL, pack};
use wharf_proto::containerd::runc::v1::Options;
use wharf_proto::containerd::services::events::ttrpc::v1::ForwardRequest;
use wharf_proto::containerd::task::v2;
use wharf_proto::google::rpc::Status;
use wharf_proto::ttrpc::{Frame, Kind, Request, Response};

/// How long anything may take.
pub const LIMIT: Duration = Duration::from_secs(20);

/// Who creates the containers: a program by name, or the library when empty.
pub type Driver = &'static str;

/// A connection to a shim.
pub struct Client {
    socket: UnixStream,
    input: Vec<u8>,
    answers: BTreeMap<u32, Response>,
    next: u32,
}

impl Client {
    /// Connects to `unix://path`.
    pub fn connect(address: &str) -> Client {
        let path = address.strip_prefix("unix://").expect("a unix address");
        let socket = UnixStream::connect(path).expect("connect to the shim");
        socket.set_read_timeout(Some(LIMIT)).expect("set a time limit");
        Client {
            socket,
            input: Vec::new(),
            answers: BTreeMap::new(),
            next: 1,
        }
    }

    /// Sends a call and does not wait.
    pub fn send(&mut self, service: &str, method: &str, payload: Vec<u8>) -> u32 {
        let stream = self.next;
        self.next += 2;
        let request = Request {
            service: service.to_owned(),
            method: method.to_owned(),
            payload,
            ..Request::default()
        };
        let mut wire = Vec::new();
        Frame::new(Kind::Request, stream, &request)
            .encode(&mut wire)
            .expect("a frame");
        self.socket.write_all(&wire).expect("write to the shim");
        stream
    }

    /// Waits for the answer to a call.
    pub fn receive<M: Message + Default>(&mut self, stream: u32) -> Result<M, Status> {
        while !self.answers.contains_key(&stream) {
            let mut buffer = [0; 4096];
            let count = self.socket.read(&mut buffer).expect("an answer in time");
            assert!(count > 0, "the shim closed the connection");
            self.input.extend_from_slice(&buffer[..count]);
            while let Some(frame) = Frame::decode(&mut self.input).expect("frames") {
                let response = Response::decode(frame.payload.as_slice()).expect("a response");
                self.answers.insert(frame.stream, response);
            }
        }
        let response = self.answers.remove(&stream).expect("just seen");
        match response.status.filter(|status| status.code != 0) {
            Some(status) => Err(status),
            None => Ok(M::decode(response.payload.as_slice()).expect("the answer's message")),
        }
    }

    /// Whether the answer to a call is there now.
    pub fn has_answer(&mut self, stream: u32) -> bool {
        self.socket.set_nonblocking(true).expect("do not block");
        let mut buffer = [0; 4096];
        if let Ok(count) = self.socket.read(&mut buffer) {
            self.input.extend_from_slice(&buffer[..count]);
        }
        self.socket.set_nonblocking(false).expect("block again");
        while let Some(frame) = Frame::decode(&mut self.input).expect("frames") {
            let response = Response::decode(frame.payload.as_slice()).expect("a response");
            self.answers.insert(frame.stream, response);
        }
        self.answers.contains_key(&stream)
    }

    /// Calls and waits.
    pub fn call<M: Message + Default>(&mut self, method: &str, request: &impl Message) -> Result<M, Status> {
        let stream = self.send("containerd.task.v2.Task", method, request.encode_to_vec());
        self.receive(stream)
    }
}

/// Events with their topics, in order.
type Seen = Vec<(String, Vec<u8>)>;

/// The event service, as long as it lives.
pub struct Events {
    /// Where it listens.
    pub address: PathBuf,
    seen: Arc<Mutex<Seen>>,
}

impl Events {
    /// Listens below `directory`.
    pub fn listen(directory: &Path) -> Events {
        let address = directory.join("events.sock");
        let listener = UnixListener::bind(&address).expect("listen for events");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let shared = seen.clone();
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let shared = shared.clone();
                thread::spawn(move || take_events(socket, &shared));
            }
        });
        Events { address, seen }
    }

    /// The topics so far.
    pub fn topics(&self) -> Vec<String> {
        let seen = self.seen.lock().expect("the list of events");
        seen.iter().map(|(topic, _)| topic.clone()).collect()
    }

    /// The events of one topic.
    pub fn of<M: Message + Name + Default>(&self, topic: &str) -> Vec<M> {
        let seen = self.seen.lock().expect("the list of events");
        seen.iter()
            .filter(|(other, _)| other == topic)
            .map(|(_, value)| M::decode(value.as_slice()).expect("the event"))
            .collect()
    }
}

fn take_events(mut socket: UnixStream, seen: &Mutex<Seen>) {
    let mut input = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count) = socket.read(&mut buffer) {
        if count == 0 {
            return;
        }
        input.extend_from_slice(&buffer[..count]);
        while let Some(frame) = Frame::decode(&mut input).expect("frames") {
            let request = Request::decode(frame.payload.as_slice()).expect("a request");
            assert_eq!(
                (request.service.as_str(), request.method.as_str()),
                ("containerd.services.events.ttrpc.v1.Events", "Forward")
            );
            let envelope = ForwardRequest::decode(request.payload.as_slice())
                .expect("an event")
                .envelope
                .expect("an envelope");
            assert_eq!(envelope.namespace, "tests");
            let event = envelope.event.expect("an event in the envelope");
            seen.lock()
                .expect("the list of events")
                .push((envelope.topic, event.value));
            let mut wire = Vec::new();
            Frame::new(Kind::Response, frame.stream, &Response::default())
                .encode(&mut wire)
                .expect("a frame");
            socket.write_all(&wire).expect("answer the shim");
        }
    }
}

/// A started shim, and the one container that the tests make in it.
pub struct Shim {
    /// The container.
    pub id: String,
    /// Its bundle.
    pub bundle: PathBuf,
    /// What `start` printed.
    pub address: String,
    /// A connection.
    pub client: Client,
    driver: Driver,
    sockets: PathBuf,
}

/// The command line of the shim for a bundle.
pub fn command(bundle: &Path, id: &str, sockets: &Path, action: &str) -> Command {
    let mut command = Command::new(binaries::ours("containerd-shim-wharf-v2"));
    command
        .args([
            "-namespace",
            "tests",
            "-address",
            "/run/tests.sock",
            "-publish-binary",
            "/bin/true",
            "-id",
            id,
            action,
        ])
        .env("WHARF_SHIM_SOCKET_DIR", sockets)
        .env_remove("MAX_SHIM_VERSION")
        .env_remove("TTRPC_ADDRESS")
        .stdin(Stdio::null())
        .current_dir(bundle);
    command
}

/// Makes a bundle that runs `arguments`.
pub fn make_bundle(
    scratch: &Scratch,
    name: &str,
    arguments: &[&str],
    edit: impl FnOnce(&mut serde_json::Value),
) -> PathBuf {
    let directory = scratch.directory(name);
    bundle::busybox_root(&directory.join("rootfs"));
    run(Command::new(binaries::peer("runc"))
        .arg("spec")
        .current_dir(&directory))
    .ok();
    bundle::configure(&directory, arguments, |spec| {
        spec["linux"]["cgroupsPath"] = format!("/{}-{name}", scratch.unique()).into();
        spec["root"]["readonly"] = false.into();
        edit(spec);
    });
    directory
}

impl Shim {
    /// Makes a bundle that runs `arguments` and starts a shim for it.
    pub fn start(scratch: &Scratch, driver: Driver, arguments: &[&str]) -> Shim {
        Shim::start_with(scratch, driver, arguments, |_| {}, |_| {})
    }

    /// The same, with changes to the configuration and to the shim's command.
    pub fn start_with(
        scratch: &Scratch,
        driver: Driver,
        arguments: &[&str],
        edit: impl FnOnce(&mut serde_json::Value),
        adjust: impl FnOnce(&mut Command),
    ) -> Shim {
        let bundle = make_bundle(scratch, "c1", arguments, edit);
        let id = format!("{}-c1", scratch.unique());
        let sockets = scratch.join("s");
        let mut start = command(&bundle, &id, &sockets, "start");
        adjust(&mut start);
        let output = start.output().expect("run the shim");
        let address = String::from_utf8(output.stdout).expect("an address");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(output.stderr, b"", "start must not print on standard error");
        let client = Client::connect(&address);
        Shim {
            id,
            bundle,
            address,
            client,
            driver,
            sockets,
        }
    }

    /// The request that creates the container, with output nowhere.
    pub fn create_request(&self) -> v2::CreateTaskRequest {
        let options = Options {
            binary_name: self.driver.to_owned(),
            root: self.bundle.join("states").to_string_lossy().into_owned(),
            ..Options::default()
        };
        v2::CreateTaskRequest {
            id: self.id.clone(),
            bundle: self.bundle.to_string_lossy().into_owned(),
            options: Some(pack(&options)),
            ..v2::CreateTaskRequest::default()
        }
    }

    /// Creates and starts the container; its pid.
    pub fn run(&mut self, request: &v2::CreateTaskRequest) -> u32 {
        let created: v2::CreateTaskResponse = self.call("Create", request).expect("Create");
        let started: v2::StartResponse = self.call("Start", &self.start_request("")).expect("Start");
        assert_eq!(created.pid, started.pid);
        started.pid
    }

    /// Calls the task service.
    pub fn call<M: Message + Default>(&mut self, method: &str, request: &impl Message) -> Result<M, Status> {
        self.client.call(method, request)
    }

    /// For Start.
    pub fn start_request(&self, exec_id: &str) -> v2::StartRequest {
        v2::StartRequest {
            id: self.id.clone(),
            exec_id: exec_id.to_owned(),
        }
    }

    /// Waits for a process's exit: its status.
    pub fn wait(&mut self, exec_id: &str) -> u32 {
        let request = v2::WaitRequest {
            id: self.id.clone(),
            exec_id: exec_id.to_owned(),
        };
        let exit: v2::WaitResponse = self.call("Wait", &request).expect("Wait");
        assert!(exit.exited_at.is_some());
        exit.exit_status
    }

    /// Signals a process.
    pub fn kill(&mut self, exec_id: &str, signal: u32) -> Result<(), Status> {
        let request = v2::KillRequest {
            id: self.id.clone(),
            exec_id: exec_id.to_owned(),
            signal,
            all: false,
        };
        self.call("Kill", &request)
    }

    /// Deletes a process.
    pub fn delete(&mut self, exec_id: &str) -> Result<v2::DeleteResponse, Status> {
        let request = v2::DeleteRequest {
            id: self.id.clone(),
            exec_id: exec_id.to_owned(),
        };
        self.call("Delete", &request)
    }

    /// The state of a process.
    pub fn state(&mut self, exec_id: &str) -> Result<v2::StateResponse, Status> {
        let request = v2::StateRequest {
            id: self.id.clone(),
            exec_id: exec_id.to_owned(),
        };
        self.call("State", &request)
    }

    /// The request that adds a process which runs `arguments`.
    pub fn exec_request(&self, exec_id: &str, arguments: &[&str]) -> v2::ExecProcessRequest {
        let config = fs::read(self.bundle.join("config.json")).expect("read config.json");
        let config: serde_json::Value = serde_json::from_slice(&config).expect("JSON");
        let mut process = config["process"].clone();
        process["args"] = arguments.into();
        v2::ExecProcessRequest {
            id: self.id.clone(),
            exec_id: exec_id.to_owned(),
            spec: Some(prost_types::Any {
                type_url: RUNTIME_PROCESS_URL.to_owned(),
                value: serde_json::to_vec(&process).expect("JSON"),
            }),
            ..v2::ExecProcessRequest::default()
        }
    }

    /// Adds and starts a process.
    pub fn exec(&mut self, request: &v2::ExecProcessRequest) -> u32 {
        self.call::<()>("Exec", request).expect("Exec");
        let started: v2::StartResponse = self
            .call("Start", &self.start_request(&request.exec_id))
            .expect("Start");
        started.pid
    }

    /// The serving process, as the bundle names it.
    pub fn pid(&self) -> Pid {
        let text = fs::read_to_string(self.bundle.join("shim.pid")).expect("shim.pid");
        Pid::from_raw(text.parse().expect("a pid")).expect("a pid")
    }

    /// Whether the serving process is there.
    pub fn is_alive(&self) -> bool {
        is_running(self.pid())
    }

    /// Runs the shim's `delete` command.
    pub fn delete_command(&self) -> v2::DeleteResponse {
        let output = command(&self.bundle, &self.id, &self.sockets, "delete")
            .arg("-bundle")
            .arg(&self.bundle)
            .output()
            .expect("run delete");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        v2::DeleteResponse::decode(output.stdout.as_slice()).expect("a DeleteResponse")
    }
}

/// Whether `pid` is a process that has not ended.
pub fn is_running(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    let state = stat
        .rsplit(')')
        .next()
        .and_then(|rest| rest.trim().chars().next());
    state.is_some_and(|state| state != 'Z' && state != 'X')
}

impl Drop for Shim {
    fn drop(&mut self) {
        if self.is_alive() {
            // Gone is what is wanted.
            let _ = kill_process(self.pid(), Signal::KILL);
        }
        if self.bundle.exists() {
            let _ = command(&self.bundle, &self.id, &self.sockets, "delete")
                .arg("-bundle")
                .arg(&self.bundle)
                .output();
        }
    }
}

/// Makes a FIFO.
pub fn make_fifo(path: &Path) -> String {
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("make a FIFO");
    path.to_string_lossy().into_owned()
}

/// Opens a FIFO as a client that reads it.
pub fn open_reader(path: &str) -> File {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .expect("open a FIFO for reading")
}

/// Reads a FIFO to its end, in the background.
pub fn read_all(path: &str) -> thread::JoinHandle<String> {
    let path = path.to_owned();
    thread::spawn(move || {
        let mut text = Vec::new();
        File::open(path)
            .expect("open a FIFO")
            .read_to_end(&mut text)
            .expect("read a FIFO");
        String::from_utf8_lossy(&text).into_owned()
    })
}
