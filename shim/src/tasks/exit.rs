//! Exits: from a reaped child to a recorded and told exit.
//!
//! A process that was reaped is `Ending` until its output is out (or [`DRAIN`] has passed: a background child that holds
//! the pipe open does not count, a client that does not read is waited for that long) and, for a container's first
//! process, until the exits of the container's other processes are told. Then, in this order: the exit record, the event,
//! the answers to those who wait.

use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitStatus, waitid};
use wharf_proto::containerd::events::TaskExit;

use super::{Operation, Stage};
use crate::clock;
use crate::exit_record::{self, Exit};
use crate::reactor::Alarm;
use crate::serve::Shim;

/// How long a client that does not read delays the exit of its process.
const DRAIN: Duration = Duration::from_secs(2);

/// The same for a terminal, whose end only its last user brings.
const TERMINAL_DRAIN: Duration = Duration::from_millis(250);

/// Unknown children that are remembered while a program is at work, one of which may be its process.
const MOST_EARLY: usize = 4096;

fn exit_of(status: WaitStatus) -> Exit {
    let signal = status.terminating_signal();
    let code = status.exit_status().unwrap_or(255);
    Exit {
        status: signal.map_or(code, |signal| 128 + signal) as u32,
        signal,
        at: clock::now(),
    }
}

/// Whether `pid` is a child that runs, or has not been reaped.
fn is_child(pid: i32) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    let pid = Pid::from_raw(pid);
    pid.is_some_and(|pid| !matches!(waitid(WaitId::Pid(pid), options), Err(Errno::CHILD)))
}

impl Shim {
    /// A child, of ours or adopted, was reaped.
    pub fn reaped(&mut self, pid: Pid, status: WaitStatus) {
        if self.is_at_work(pid) {
            return self.job_ended(pid, status);
        }
        let raw = pid.as_raw_nonzero().get();
        let logger =
            |process: &&mut super::Process| process.logger.as_ref().is_some_and(|logger| logger.pid() == pid);
        if let Some(process) = self.processes.values_mut().find(logger) {
            process.logger = None;
            return;
        }
        let found = self
            .processes
            .iter()
            .find(|(_, process)| process.pid == raw && process.exit.is_none())
            .map(|(key, process)| (*key, process.container.clone(), process.exec_id.is_empty()));
        match found {
            Some((key, container, is_init)) => {
                let is_starting = self
                    .containers
                    .get(&container)
                    .and_then(|container| container.current.as_ref())
                    .is_some_and(|(_, operation)| matches!(operation, Operation::Start(_)));
                if is_init && is_starting {
                    // The start is to be told first.
                    self.early.insert(raw, status);
                } else {
                    self.begin_exit(key, status);
                }
            }
            None => {
                let mut containers = self.containers.values();
                let is_expected =
                    containers.any(|container| container.at_work().any(Operation::makes_process));
                if is_expected {
                    if self.early.len() >= MOST_EARLY {
                        self.early.pop_first();
                    }
                    self.early.insert(raw, status);
                }
            }
        }
    }

    /// A process has become known as `pid`, and may have ended before.
    pub fn take_early(&mut self, pid: i32) {
        let Some(status) = self.early.remove(&pid) else {
            return;
        };
        if is_child(pid) {
            // It was another one, whose number this process has now.
            return;
        }
        let key = self
            .processes
            .iter()
            .find(|(_, process)| process.pid == pid && process.exit.is_none())
            .map(|(key, _)| *key);
        if let Some(key) = key {
            self.begin_exit(key, status);
        }
    }

    fn begin_exit(&mut self, key: u32, status: WaitStatus) {
        let Some(process) = self.processes.get_mut(&key) else {
            return;
        };
        process.exit = Some(exit_of(status));
        process.stage = Stage::Ending;
        process.input_keeper = None;
        let (id, is_init) = (process.container.clone(), process.exec_id.is_empty());
        let drain = if process.names.terminal {
            TERMINAL_DRAIN
        } else {
            DRAIN
        };
        if is_init {
            // A notice may have come with the exit that it explains; it is told first.
            self.out_of_memory(key);
            self.end_oom_watch(&id);
            if self
                .containers
                .get(&id)
                .is_some_and(|container| container.shares_pids)
            {
                self.kill_others(&id);
            }
        }
        self.streams.expect_end(&self.reactor, key);
        self.reactor.set_alarm(Alarm::Drain(key), drain);
        self.try_finish(key);
        if is_init {
            self.sandbox_settled();
        }
    }

    /// Kills what is left of a container whose first process has ended.
    fn kill_others(&mut self, id: &str) {
        let operation = Operation::Kill {
            reply: None,
            signal: Signal::KILL.as_raw(),
            all: true,
        };
        if let Err(refusal) = self.submit(id, operation) {
            self.log.error(&format!("kill the processes of {id}: {refusal}"));
        }
    }

    /// A process was executed in the container, whose first one may have ended meanwhile: it was not killed with the others then.
    pub fn kill_latecomer(&mut self, id: &str) {
        let ending = self.containers.get(id).is_some_and(|container| {
            let init = self.processes.get(&container.init);
            container.shares_pids && init.is_some_and(|init| matches!(init.stage, Stage::Ending))
        });
        if ending {
            self.kill_others(id);
        }
    }

    /// A stream of the process has ended or given out all it had.
    pub fn output_settled(&mut self, key: u32) {
        self.try_finish(key);
        self.continue_delete(key);
    }

    /// Looks for clients that came to read after their process had ended.
    pub fn ask_readers(&mut self) {
        self.streams.ask_readers();
        let deleted =
            |(key, process): (&u32, &super::Process)| process.delete_when_settled.as_ref().map(|_| *key);
        let keys: Vec<u32> = self.processes.iter().filter_map(deleted).collect();
        for key in keys {
            self.continue_delete(key);
        }
    }

    /// The client had its time to read.
    pub fn drain_over(&mut self, key: u32) {
        if let Some(process) = self.processes.get_mut(&key) {
            process.drain_is_over = true;
        }
        self.try_finish(key);
    }

    /// The container's first process may be waiting for one of the others.
    pub fn try_finish_init(&mut self, id: &str) {
        if let Some(key) = self.containers.get(id).map(|container| container.init) {
            self.try_finish(key);
        }
    }

    fn try_finish(&mut self, key: u32) {
        let Some(process) = self.processes.get(&key) else {
            return;
        };
        if process.stage != Stage::Ending || !(process.drain_is_over || self.streams.is_settled(key)) {
            return;
        }
        let id = process.container.clone();
        let is_init = process.exec_id.is_empty();
        if is_init && self.others_run(&id) {
            return;
        }
        self.reactor.cancel_alarm(Alarm::Drain(key));
        let Some(container) = self.containers.get_mut(&id) else {
            return;
        };
        let Some(process) = self.processes.get_mut(&key) else {
            return;
        };
        let Some(exit) = process.exit.clone() else { return };
        process.stage = Stage::Stopped;
        if process.console.take().is_some() && self.streams.is_handed_on(key) {
            // A background process that still has the terminal loses it, as it does with containerd's shim.
            self.streams.end_all(&self.reactor, key);
        }
        if is_init {
            container.is_paused = false;
        }
        if let Err(error) = exit_record::write(&container.bundle, &process.exec_id, process.pid, &exit) {
            // Those who wait must not wait forever; after a crash, this exit is unknown.
            self.log
                .error(&format!("record the exit of {id} {}: {error}", process.exec_id));
        }
        let event = TaskExit {
            container_id: id.clone(),
            id: if is_init {
                id.clone()
            } else {
                process.exec_id.clone()
            },
            pid: process.pid as u32,
            exit_status: exit.status,
            exited_at: Some(exit.at),
        };
        let waiters = std::mem::take(&mut process.waiters);
        let response = process.wait_response();
        self.publish("/tasks/exit", &event);
        for reply in waiters {
            self.answer(reply, Ok(response.clone()));
        }
        if is_init {
            let waiting = self
                .containers
                .get_mut(&id)
                .and_then(|container| container.delete_at_exit.take());
            if let Some(reply) = waiting {
                self.delete_init(reply, &id);
            }
        } else {
            self.try_finish_init(&id);
        }
    }

    /// Whether a process other than the first one runs, or is being executed.
    fn others_run(&self, id: &str) -> bool {
        self.containers.get(id).is_some_and(|container| {
            container
                .at_work()
                .any(|operation| matches!(operation, Operation::Exec { .. }))
                || container.execs.values().any(|key| {
                    self.processes
                        .get(key)
                        .is_some_and(|process| matches!(process.stage, Stage::Running | Stage::Ending))
                })
        })
    }
}
