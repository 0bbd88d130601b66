//! Delete: of a container, or of one process of it.
//!
//! A container is deleted when its first process has stopped; one that was created and never started is killed first. Output
//! that a client has not read yet, or has not come yet to read, is waited for, at most [`READING`],
//! so that a client that ends with the answer to its delete has it all.

use std::time::Duration;

use prost::Message;
use rustix::process::Signal;
use wharf_proto::containerd::events::TaskDelete;
use wharf_proto::containerd::task::v2::{DeleteRequest, DeleteResponse};

use super::{Operation, Process, Stage};
use crate::connection::Reply;
use crate::exit_record;
use crate::reactor::Alarm;
use crate::rootfs;
use crate::serve::Shim;
use crate::status::{Code, Refusal};

/// How long a delete waits for a client to read.
const READING: Duration = Duration::from_secs(10);

/// The same when the FIFO has taken all of it.
const LAST_READING: Duration = Duration::from_secs(5);

/// How long after its container a root file system ends, if it may: then the daemon's answer is with its client, and this process
/// at its own end as a rule.
const LATE: Duration = Duration::from_millis(20);

/// How long a logging program may take to end.
const LOGGING: Duration = Duration::from_secs(5);

impl Process {
    fn delete_response(&self) -> DeleteResponse {
        DeleteResponse {
            pid: self.pid as u32,
            exit_status: self.exit.as_ref().map_or(0, |exit| exit.status),
            exited_at: self.exit.as_ref().map(|exit| exit.at),
        }
    }
}

impl Shim {
    /// Deletes a process, and with the first one its container.
    pub fn delete(&mut self, reply: Reply, request: &DeleteRequest) -> Result<(), Refusal> {
        let (key, process) = self.process(&request.id, &request.exec_id)?;
        let stage = process.stage;
        let never_ran = process.pid == 0;
        let refused = |message: &str| Err(Refusal::new(Code::FailedPrecondition, message));
        let runs = || Err(Refusal::new(Code::Unknown, "cannot delete a running process"));
        if process.delete_when_settled.is_some() {
            return refused("the process is being deleted");
        }
        if stage == Stage::Running {
            return runs();
        }
        if !request.exec_id.is_empty() {
            let starts = |operation: &Operation| matches!(operation, Operation::Exec { key: other, .. } if *other == key);
            let container = self.container(&request.id)?;
            let is_starting = container.at_work().any(starts);
            return match stage {
                Stage::Waiting if never_ran && !is_starting => {
                    self.delete_settled(reply, key);
                    Ok(())
                }
                Stage::Stopped => {
                    self.delete_when_settled(reply, key);
                    Ok(())
                }
                _ => runs(),
            };
        }
        let container = self.container(&request.id)?;
        let deletes = |operation: &Operation| matches!(operation, Operation::Delete(_));
        let is_deleting =
            container.delete_at_exit.is_some() || container.at_work().chain(&container.queue).any(deletes);
        if is_deleting {
            return refused("the container is being deleted");
        }
        if stage == Stage::Stopped {
            self.delete_when_settled(reply, key);
            return Ok(());
        }
        container.delete_at_exit = Some(reply);
        if stage == Stage::Waiting {
            let operation = Operation::Kill {
                reply: None,
                signal: Signal::KILL.as_raw(),
                all: false,
            };
            return self.submit(&request.id, operation);
        }
        Ok(())
    }

    /// The first process of a container has stopped, and the container is to be deleted.
    pub fn delete_init(&mut self, reply: Reply, id: &str) {
        if let Some(key) = self.containers.get(id).map(|container| container.init) {
            self.delete_when_settled(reply, key);
        }
    }

    fn delete_when_settled(&mut self, reply: Reply, key: u32) {
        self.streams.release(&self.reactor, key);
        if self.streams.is_taken(key) {
            return self.delete_settled(reply, key);
        }
        if let Some(process) = self.processes.get_mut(&key) {
            process.delete_when_settled = Some(reply);
            let is_handed_on = self.streams.is_handed_on(key);
            let limit = if is_handed_on { LAST_READING } else { READING };
            self.reactor.set_alarm(Alarm::Delete(key), limit);
        }
    }

    /// A stream of the process has settled, and a delete may have waited for it.
    pub fn continue_delete(&mut self, key: u32) {
        if self.streams.is_taken(key) {
            self.delete_overdue(key);
        }
    }

    /// A delete does not wait any longer.
    pub fn delete_overdue(&mut self, key: u32) {
        let waiting = self
            .processes
            .get_mut(&key)
            .and_then(|process| process.delete_when_settled.take());
        if let Some(reply) = waiting {
            self.reactor.cancel_alarm(Alarm::Delete(key));
            self.delete_settled(reply, key);
        }
    }

    fn delete_settled(&mut self, reply: Reply, key: u32) {
        let Some(process) = self.processes.get(&key) else {
            return;
        };
        let id = process.container.clone();
        if process.exec_id.is_empty() {
            if let Err(refusal) = self.submit(&id, Operation::Delete(reply)) {
                self.answer(reply, Err(refusal));
            }
            return;
        }
        let exec_id = process.exec_id.clone();
        let response = process.delete_response();
        if let Some(container) = self.containers.get_mut(&id) {
            container.execs.remove(&exec_id);
            if let Err(error) = exit_record::remove(&container.bundle, &exec_id) {
                self.log
                    .warn(&format!("remove the exit record of {id} {exec_id}: {error}"));
            }
        }
        self.forget(key);
        self.answer(reply, Ok(response.encode_to_vec()));
    }

    /// The driver has removed a container, or could not.
    pub fn deleted(&mut self, id: &str, reply: Reply, outcome: Result<(), Refusal>) {
        let Some(container) = self.containers.get(id) else {
            return;
        };
        let (rootfs, may_end_late) = (container.bundle.join("rootfs"), container.root_may_end_late);
        let outcome = match outcome {
            // The runtime has forgotten it already; what is ours is still to be removed.
            Err(refusal) if refusal.code == Code::NotFound => Ok(()),
            outcome => outcome,
        };
        let outcome = outcome.and_then(|()| {
            if may_end_late && let Ok(root) = rootfs::detach(&rootfs) {
                if self.roots.is_empty() {
                    self.reactor.set_alarm(Alarm::Roots, LATE);
                }
                self.roots.push(root);
            }
            // Whatever else is there, and what could not be detached.
            rootfs::unmount_all(&rootfs)
                .map_err(|error| Refusal::system(format!("unmount {}", rootfs.display()), error))
        });
        if let Err(refusal) = outcome {
            return self.answer(reply, Err(refusal));
        }
        self.end_oom_watch(id);
        let Some(container) = self.containers.remove(id) else {
            return;
        };
        let response = self
            .processes
            .get(&container.init)
            .map(Process::delete_response)
            .unwrap_or_default();
        for key in container.execs.values().chain([&container.init]) {
            self.forget(*key);
        }
        for operation in container.queue {
            if let Some(reply) = operation.reply() {
                self.answer(reply, Err(Refusal::new(Code::NotFound, "container not created")));
            }
        }
        let event = TaskDelete {
            container_id: id.to_owned(),
            pid: response.pid,
            exit_status: response.exit_status,
            exited_at: response.exited_at,
            id: String::new(),
        };
        self.publish("/tasks/delete", &event);
        if self.is_forked() && self.is_unneeded() {
            // With this answer the id is free: its next shim is to find nobody there.
            self.leave_socket();
        }
        self.answer(reply, Ok(response.encode_to_vec()));
    }

    /// Drops a process and everything that belongs to it; only its logging program may stay until it has ended.
    fn forget(&mut self, key: u32) {
        self.streams.close_all(&self.reactor, key);
        self.reactor.cancel_alarm(Alarm::Drain(key));
        self.reactor.cancel_alarm(Alarm::Delete(key));
        let Some(mut process) = self.processes.remove(&key) else {
            return;
        };
        for reply in std::mem::take(&mut process.waiters) {
            self.answer(
                reply,
                Err(Refusal::new(Code::NotFound, "the process was deleted")),
            );
        }
        if let Some(logger) = &process.logger {
            logger.signal(Signal::TERM);
            self.reactor.set_alarm(Alarm::Logger(key), LOGGING);
            process.console = None;
            process.input_keeper = None;
            // A key that no container names: found again only by its program's pid.
            process.pid = 0;
            process.exit = None;
            process.stage = Stage::Stopped;
            self.processes.insert(key, process);
        }
    }
}
