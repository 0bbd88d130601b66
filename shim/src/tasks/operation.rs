//! Running operations: one at a time for a container, the others in a queue; programs that execute processes run beside
//! them.

use prost::{Message, Name};
use rustix::process::{Pid, WaitStatus};
use wharf_proto::any::pack;
use wharf_proto::containerd::events::{
    TaskCheckpointed, TaskExecStarted, TaskPaused, TaskResumed, TaskStart,
};
use wharf_proto::containerd::runc::v1::ProcessDetails;
use wharf_proto::containerd::task::v2::{CreateTaskResponse, PidsResponse, StartResponse};
use wharf_proto::containerd::v1::types::ProcessInfo;

use super::call::empty;
use super::{MOST_EXECUTING, MOST_OPERATIONS, Operation, Stage};
use crate::driver::{Outcome, Step};
use crate::serve::Shim;
use crate::status::{Code, Refusal};
use crate::stdio::{self, Owner};

impl Shim {
    /// Publishes an event.
    pub fn publish<E: Message + Name>(&mut self, topic: &str, event: &E) {
        self.publisher.publish(&self.log, topic, event);
    }

    /// Runs `operation` for the container `id`, at once or when those before it are settled.
    ///
    /// # Errors
    ///
    /// There is no such container, or too many operations wait for it.
    pub fn submit(&mut self, id: &str, operation: Operation) -> Result<(), Refusal> {
        let container = self.container(id)?;
        if container.current.is_none() {
            self.perform(id, operation);
        } else if container.queue.len() < MOST_OPERATIONS {
            container.queue.push_back(operation);
        } else {
            return Err(Refusal::new(
                Code::ResourceExhausted,
                "too many calls wait for the container",
            ));
        }
        Ok(())
    }

    fn perform(&mut self, id: &str, mut operation: Operation) {
        let step = self
            .begin(id, &mut operation)
            .unwrap_or_else(|refusal| Step::Ready(Err(refusal)));
        self.take_step(id, operation, step);
    }

    /// Hands `operation` to the driver.
    fn begin(&mut self, id: &str, operation: &mut Operation) -> Result<Step, Refusal> {
        if let Operation::Exec { key, prepared, .. } = operation {
            return self.begin_exec(id, *key, prepared);
        }
        let driver = &mut self.container(id)?.driver;
        Ok(match operation {
            Operation::Start(_) => driver.start(),
            Operation::Kill { signal, all, .. } => driver.kill(*signal, *all),
            Operation::Pause(_) => driver.pause(),
            Operation::Resume(_) => driver.resume(),
            Operation::Checkpoint { dump, .. } => driver.checkpoint(dump),
            Operation::Pids(_) => driver.pids(),
            Operation::Update { resources, .. } => driver.update(resources),
            Operation::Delete(_) => driver.delete(false),
            Operation::Create { .. } | Operation::Exec { .. } => Step::Ready(Err(Refusal::new(
                Code::Unknown,
                "this operation does not begin here",
            ))),
        })
    }

    fn begin_exec(
        &mut self,
        id: &str,
        key: u32,
        kept: &mut Option<Box<stdio::Prepared>>,
    ) -> Result<Step, Refusal> {
        let (_, init) = self.process(id, "")?;
        if init.stage != Stage::Running {
            return Err(Refusal::new(
                Code::FailedPrecondition,
                format!("container {id} init process is not running"),
            ));
        }
        let io_owner = self.container(id)?.io_owner;
        let Some(process) = self.processes.get(&key) else {
            return Err(Refusal::new(Code::NotFound, "the process was deleted"));
        };
        let owner = Owner {
            container: id,
            namespace: &self.namespace,
            uid: io_owner.0,
            gid: io_owner.1,
        };
        let (child, prepared) = stdio::prepare(&process.names, &owner)?;
        *kept = Some(Box::new(prepared));
        let (exec_id, spec) = (process.exec_id.clone(), process.spec.clone());
        Ok(self.container(id)?.driver.exec(&exec_id, &spec, child))
    }

    /// Takes a driver's answer: settles the operation, or remembers the program that is at it.
    pub fn take_step(&mut self, id: &str, operation: Operation, step: Step) {
        match step {
            Step::Ready(outcome) => {
                self.settle(id, operation, outcome);
                self.next(id);
            }
            Step::Running(job) => {
                let Some(container) = self.containers.get_mut(id) else {
                    return;
                };
                let is_exec = matches!(operation, Operation::Exec { .. });
                if is_exec && container.executing.len() < MOST_EXECUTING {
                    container.executing.push((job, operation));
                    self.next(id);
                } else {
                    container.current = Some((job, operation));
                }
            }
        }
    }

    /// The program `pid` of some container was reaped.
    pub fn job_ended(&mut self, pid: Pid, status: WaitStatus) {
        let id = self
            .containers
            .iter()
            .find(|(_, container)| container.works_on(pid))
            .map(|(id, _)| id.clone());
        let Some(id) = id else { return };
        let ended = self
            .containers
            .get_mut(&id)
            .and_then(|container| container.take_job(pid));
        if let Some((job, operation)) = ended {
            let outcome = (job.finish)(status);
            self.settle(&id, operation, outcome);
            self.next(&id);
        }
    }

    fn next(&mut self, id: &str) {
        let operation = self
            .containers
            .get_mut(id)
            .filter(|container| container.current.is_none())
            .and_then(|container| container.queue.pop_front());
        if let Some(operation) = operation {
            self.perform(id, operation);
        }
        let makes_process = |container: &super::Container| container.at_work().any(Operation::makes_process);
        if !self.early.is_empty() && !self.containers.values().any(makes_process) {
            // Nobody is left whose process they could be.
            self.early.clear();
        }
    }

    fn settle(&mut self, id: &str, operation: Operation, outcome: Result<Outcome, Refusal>) {
        match operation {
            Operation::Create {
                reply,
                prepared,
                rootfs,
                checkpoint,
            } => {
                let mut prepared = Some(*prepared);
                let answer = outcome.and_then(|outcome| {
                    let Outcome::Process { pid, console } = outcome else {
                        return Err(Refusal::new(Code::Unknown, "create made no process"));
                    };
                    let attached = match prepared.take() {
                        Some(prepared) => self.created(id, pid, prepared, console),
                        None => Ok(()),
                    };
                    if let (Err(_), Some(container)) = (&attached, self.containers.get_mut(id)) {
                        // Its program, if there is one, is reaped like any other child.
                        drop(container.driver.delete(true));
                    }
                    attached.map(|()| pid)
                });
                match answer {
                    Ok(pid) => {
                        self.tell_created(id, pid, rootfs, checkpoint);
                        self.answer(reply, Ok(CreateTaskResponse { pid: pid as u32 }.encode_to_vec()));
                        // Nobody can start it before this has been done.
                        self.watch_memory(id);
                        self.take_early(pid);
                    }
                    Err(refusal) => {
                        self.uncreate(id, &mut prepared);
                        self.answer(reply, Err(refusal));
                    }
                }
            }
            Operation::Start(reply) => self.started(id, reply, outcome.map(drop)),
            Operation::Exec { reply, key, prepared } => self.executed(id, reply, key, prepared, outcome),
            Operation::Kill { reply, .. } => match (reply, outcome) {
                (Some(reply), outcome) => self.answer(reply, outcome.map(|_| empty())),
                (None, Err(refusal)) if refusal.code != Code::NotFound => {
                    self.log.error(&format!("kill the processes of {id}: {refusal}"));
                }
                _ => {}
            },
            Operation::Pause(reply) => {
                if outcome.is_ok() {
                    self.set_paused(id, true);
                    self.publish(
                        "/tasks/paused",
                        &TaskPaused {
                            container_id: id.to_owned(),
                        },
                    );
                }
                self.answer(reply, outcome.map(|_| empty()));
            }
            Operation::Resume(reply) => {
                if outcome.is_ok() {
                    self.set_paused(id, false);
                    self.publish(
                        "/tasks/resumed",
                        &TaskResumed {
                            container_id: id.to_owned(),
                        },
                    );
                }
                self.answer(reply, outcome.map(|_| empty()));
            }
            Operation::Pids(reply) => {
                let answer = outcome.map(|outcome| self.list(id, outcome));
                self.answer(reply, answer);
            }
            Operation::Checkpoint { reply, dump } => {
                if outcome.is_ok() {
                    let event = TaskCheckpointed {
                        container_id: id.to_owned(),
                        checkpoint: dump.images.to_string_lossy().into_owned(),
                    };
                    self.publish("/tasks/checkpointed", &event);
                }
                self.answer(reply, outcome.map(|_| empty()));
            }
            Operation::Update { reply, .. } => self.answer(reply, outcome.map(|_| empty())),
            Operation::Delete(reply) => self.deleted(id, reply, outcome.map(drop)),
        }
    }

    fn set_paused(&mut self, id: &str, is_paused: bool) {
        if let Some(container) = self.containers.get_mut(id) {
            container.is_paused = is_paused;
        }
    }

    fn started(&mut self, id: &str, reply: crate::connection::Reply, outcome: Result<(), Refusal>) {
        let Ok((_, process)) = self.process(id, "") else {
            return;
        };
        let pid = process.pid;
        let answer = outcome.map(|()| {
            process.stage = Stage::Running;
            StartResponse { pid: pid as u32 }.encode_to_vec()
        });
        if answer.is_ok() {
            let event = TaskStart {
                container_id: id.to_owned(),
                pid: pid as u32,
            };
            self.publish("/tasks/start", &event);
        }
        self.answer(reply, answer);
        self.take_early(pid);
    }

    fn executed(
        &mut self,
        id: &str,
        reply: crate::connection::Reply,
        key: u32,
        prepared: Option<Box<stdio::Prepared>>,
        outcome: Result<Outcome, Refusal>,
    ) {
        let mut made = None;
        let answer = outcome.and_then(|outcome| {
            let (Outcome::Process { pid, console }, Some(mut prepared)) = (outcome, prepared) else {
                return Err(Refusal::new(Code::Unknown, "exec made no process"));
            };
            if let Some(process) = self.processes.get_mut(&key) {
                process.stage = Stage::Running;
                process.spec = Vec::new();
            }
            let attached = self.attach(key, pid, &mut prepared, console);
            if attached.is_err() && !self.early.contains_key(&pid) {
                // It runs and nobody could talk to it.
                if let Some(pid) = Pid::from_raw(pid) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
            made = Some(pid);
            attached.map(|()| pid)
        });
        match answer {
            Ok(pid) => {
                let exec_id = self
                    .processes
                    .get(&key)
                    .map(|process| process.exec_id.clone())
                    .unwrap_or_default();
                let event = TaskExecStarted {
                    container_id: id.to_owned(),
                    exec_id,
                    pid: pid as u32,
                };
                self.publish("/tasks/exec-started", &event);
                self.answer(reply, Ok(StartResponse { pid: pid as u32 }.encode_to_vec()));
            }
            Err(refusal) => {
                self.streams.close_all(&self.reactor, key);
                self.answer(reply, Err(refusal));
            }
        }
        if let Some(pid) = made {
            self.take_early(pid);
            self.kill_latecomer(id);
        }
        // The container's first process may have ended meanwhile, and waits for this.
        self.try_finish_init(id);
    }

    fn list(&self, id: &str, outcome: Outcome) -> Vec<u8> {
        let Outcome::Pids(pids) = outcome else {
            return empty();
        };
        let execs = self.containers.get(id).map(|container| &container.execs);
        let exec_id = |pid: i32| {
            let process = execs?
                .values()
                .filter_map(|key| self.processes.get(key))
                .find(|process| process.pid == pid)?;
            Some(process.exec_id.clone())
        };
        let processes = pids
            .into_iter()
            .map(|pid| ProcessInfo {
                pid: pid as u32,
                info: exec_id(pid).map(|exec_id| pack(&ProcessDetails { exec_id })),
            })
            .collect();
        PidsResponse { processes }.encode_to_vec()
    }
}
