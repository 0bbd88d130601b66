//! Create: from a bundle to a container whose first process waits.
//!
//! Steps, each undone when a later one fails: the options → the settings' file → the mounts → the streams → the driver.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use wharf_proto::containerd::events::{TaskCreate, TaskIo};
use wharf_proto::containerd::runc::v1::Options;
use wharf_proto::containerd::task::v2::CreateTaskRequest;

use super::options::options;
use super::{Container, Operation, Process, Stage};
use crate::connection::Reply;
use crate::driver::{Saved, Settings};
use crate::reactor::{Interest, Token};
use crate::rootfs;
use crate::serve::Shim;
use crate::status::{Code, Refusal};
use crate::stdio::{self, Names, Owner, Prepared};

impl Process {
    /// A process that is not there yet.
    pub fn new(container: &str, exec_id: &str, names: Names, spec: Vec<u8>) -> Process {
        Process {
            container: container.to_owned(),
            exec_id: exec_id.to_owned(),
            names,
            pid: 0,
            stage: Stage::Waiting,
            exit: None,
            drain_is_over: false,
            console: None,
            size: None,
            input_keeper: None,
            input_closed: false,
            logger: None,
            waiters: Vec::new(),
            delete_when_settled: None,
            spec,
        }
    }
}

/// Whether the container's processes can outlive its first one: they do not when it has a new pid namespace.
fn shares_pids(bundle: &Path) -> Result<bool, Refusal> {
    #[derive(Deserialize)]
    struct Config {
        linux: Option<Linux>,
    }
    #[derive(Deserialize)]
    struct Linux {
        #[serde(default)]
        namespaces: Option<Vec<Namespace>>,
    }
    #[derive(Deserialize)]
    struct Namespace {
        r#type: String,
        #[serde(default)]
        path: Option<String>,
    }
    let path = bundle.join("config.json");
    let wrong = |cause: &dyn std::fmt::Display| {
        Refusal::new(Code::InvalidArgument, format!("read {}: {cause}", path.display()))
    };
    let bytes = fs::read(&path).map_err(|error| wrong(&error))?;
    let config: Config = serde_json::from_slice(&bytes).map_err(|error| wrong(&error))?;
    let namespaces = config
        .linux
        .and_then(|linux| linux.namespaces)
        .unwrap_or_default();
    Ok(!namespaces.iter().any(|namespace| {
        namespace.r#type == "pid" && namespace.path.as_deref().unwrap_or_default().is_empty()
    }))
}

/// The checkpoint that the container is to be made from, if it is.
fn saved(request: &CreateTaskRequest, options: &Options, bundle: &Path) -> Result<Option<Saved>, Refusal> {
    let images = match request.checkpoint.as_str() {
        // The request's own word counts, as with containerd's shim.
        "" => return Ok(None),
        path => PathBuf::from(path),
    };
    let work = match options.criu_work_path.as_str() {
        "" => bundle.join("criu-work"),
        path => PathBuf::from(path),
    };
    for (name, path) in [("checkpoint", &images), ("CriuWorkPath", &work)] {
        if !path.is_absolute() {
            let message = format!("{name} {:?} is not an absolute path", path.display());
            return Err(Refusal::new(Code::InvalidArgument, message));
        }
    }
    Ok(Some(Saved { images, work }))
}

impl Shim {
    /// Begins to create a container.
    ///
    /// # Errors
    ///
    /// A step before the driver's failed; nothing is left.
    pub fn create(&mut self, reply: Reply, request: CreateTaskRequest) -> Result<(), Refusal> {
        if self.containers.contains_key(&request.id) {
            return Err(Refusal::new(
                Code::AlreadyExists,
                format!("container {} exists already", request.id),
            ));
        }
        if !request.parent_checkpoint.is_empty() {
            return Err(Refusal::new(
                Code::Unimplemented,
                "parents of a checkpoint are found by the checkpoint: parent_checkpoint is not supported",
            ));
        }
        let bundle = PathBuf::from(&request.bundle);
        if !bundle.is_absolute() {
            let message = format!("bundle {:?} is not an absolute path", request.bundle);
            return Err(Refusal::new(Code::InvalidArgument, message));
        }
        let options = options(&request)?;
        let saved = saved(&request, &options, &bundle)?;
        let settings = Settings::from_options(&options);
        let driver = settings.driver(&request.id, &self.namespace, &bundle, self.layout.take())?;
        let shares_pids = shares_pids(&bundle)?;
        settings
            .save(&bundle)
            .map_err(|error| Refusal::system("write the container's settings", error))?;
        let names = Names {
            terminal: request.terminal,
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
        };
        let owner = Owner {
            container: &request.id,
            namespace: &self.namespace,
            uid: options.io_uid,
            gid: options.io_gid,
        };
        let key = self.last_key.wrapping_add(1);
        let root = bundle.join("rootfs");
        rootfs::mount_all(&request.rootfs, &root)?;
        let (child, prepared) = match stdio::prepare(&names, &owner) {
            Ok(streams) => streams,
            Err(refusal) => {
                self.undo_mounts(&root);
                return Err(refusal);
            }
        };
        self.last_key = key;
        self.processes
            .insert(key, Process::new(&request.id, "", names, Vec::new()));
        let mut container = Container {
            id: request.id.clone(),
            bundle,
            driver,
            init: key,
            execs: BTreeMap::new(),
            is_created: false,
            is_paused: false,
            shares_pids,
            root_may_end_late: rootfs::may_end_late(&request.rootfs),
            current: None,
            queue: VecDeque::new(),
            delete_at_exit: None,
            oom: None,
            io_owner: (options.io_uid, options.io_gid),
        };
        let step = match &saved {
            Some(saved) => container.driver.restore(saved, child),
            None => container.driver.create(child),
        };
        self.containers.insert(request.id.clone(), container);
        let operation = Operation::Create {
            reply,
            prepared: Box::new(prepared),
            rootfs: request.rootfs,
            checkpoint: request.checkpoint,
        };
        self.take_step(&request.id, operation, step);
        Ok(())
    }

    fn undo_mounts(&mut self, root: &Path) {
        if let Err(error) = rootfs::unmount_all(root) {
            self.log.error(&format!("unmount {}: {error}", root.display()));
        }
    }

    /// The driver has made the container's first process.
    pub fn created(
        &mut self,
        id: &str,
        pid: i32,
        mut prepared: Prepared,
        console: Option<std::os::fd::OwnedFd>,
    ) -> Result<(), Refusal> {
        let Some(container) = self.containers.get_mut(id) else {
            return Ok(());
        };
        let key = container.init;
        container.driver.created(pid);
        container.is_created = true;
        self.attach(key, pid, &mut prepared, console)
    }

    /// Listens to what the kernel says of a container's memory, from before the container is started.
    pub fn watch_memory(&mut self, id: &str) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        let key = container.init;
        container.oom = container
            .driver
            .cgroup()
            .and_then(|cgroup| match cgroup.oom_watch() {
                Ok(watch) => watch,
                Err(error) => {
                    self.log
                        .warn(&format!("container {id} has no OOM notices: {error}"));
                    None
                }
            });
        if let Some(watch) = &container.oom
            && let Err(error) = self.reactor.add(watch, Token::Oom(key), Interest::Read)
        {
            self.log
                .warn(&format!("container {id} has no OOM notices: {error}"));
        }
    }

    /// Gives a new process its pid, its terminal and its streams. Nothing was copied before: what a runtime that fails writes where
    /// the process's output was to go is told in the answer, and not the client's to read.
    pub fn attach(
        &mut self,
        key: u32,
        pid: i32,
        prepared: &mut Prepared,
        console: Option<std::os::fd::OwnedFd>,
    ) -> Result<(), Refusal> {
        let Some(process) = self.processes.get_mut(&key) else {
            return Ok(());
        };
        process.pid = pid;
        prepared
            .start(&self.reactor, &mut self.streams, key)
            .map_err(|error| Refusal::system("watch the process's streams", error))?;
        process.logger = prepared.logger.take();
        process.input_keeper = prepared.input_keeper.take().filter(|_| !process.input_closed);
        if let Some(master) = console {
            if let Some(size) = process.size.take() {
                rustix::termios::tcsetwinsize(&master, size)
                    .map_err(|error| Refusal::system("set the terminal's size", error))?;
            }
            prepared
                .start_console(&self.reactor, &mut self.streams, key, &master)
                .map_err(|error| Refusal::system("watch the terminal", error))?;
            process.console = Some(master);
        } else if process.names.terminal {
            return Err(Refusal::new(Code::Unknown, "the runtime sent no terminal"));
        }
        Ok(())
    }

    /// Takes back what a failed creation had made here.
    pub fn uncreate(&mut self, id: &str, prepared: &mut Option<Prepared>) {
        let Some(container) = self.containers.remove(id) else {
            return;
        };
        if let Some(watch) = &container.oom {
            self.reactor.remove(watch);
        }
        self.streams.close_all(&self.reactor, container.init);
        let logger = self
            .processes
            .remove(&container.init)
            .and_then(|process| process.logger)
            .or_else(|| prepared.as_mut().and_then(|prepared| prepared.logger.take()));
        if let Some(logger) = logger {
            logger.signal(rustix::process::Signal::TERM);
        }
        self.undo_mounts(&container.bundle.join("rootfs"));
        for operation in container.queue {
            if let Some(reply) = operation.reply() {
                self.answer(reply, Err(Refusal::new(Code::NotFound, "container not created")));
            }
        }
    }

    /// Tells that a container was created.
    pub fn tell_created(
        &mut self,
        id: &str,
        pid: i32,
        rootfs: Vec<wharf_proto::containerd::types::Mount>,
        checkpoint: String,
    ) {
        let Some(container) = self.containers.get(id) else {
            return;
        };
        let names = self
            .processes
            .get(&container.init)
            .map(|process| process.names.clone())
            .unwrap_or_default();
        let event = TaskCreate {
            container_id: id.to_owned(),
            bundle: container.bundle.to_string_lossy().into_owned(),
            rootfs,
            io: Some(TaskIo {
                stdin: names.stdin,
                stdout: names.stdout,
                stderr: names.stderr,
                terminal: names.terminal,
            }),
            checkpoint,
            pid: pid as u32,
        };
        self.publish("/tasks/create", &event);
    }
}
