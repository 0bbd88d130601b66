//! Calls about single processes: Start, Exec, Kill, ResizePty, CloseIO, Wait, State.

use prost::Message;
use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::{Winsize, tcsetwinsize};
use wharf_proto::containerd::events::TaskExecAdded;
use wharf_proto::containerd::task::v2::{
    CloseIoRequest, ExecProcessRequest, KillRequest, ResizePtyRequest, StartRequest, StateRequest,
    StateResponse, WaitRequest, WaitResponse,
};
use wharf_proto::containerd::v1::types::Status;

use super::call::empty;
use super::{MOST_EXECS, Operation, Process, Stage};
use crate::connection::Reply;
use crate::serve::Shim;
use crate::status::{Code, Refusal};
use crate::stdio::Names;

/// The longest exec id, as containerd has it.
const LONGEST_ID: usize = 76;

/// Exec ids name files in the bundle: only words of letters and digits, joined by single `.`, `_` or `-`.
fn check_exec_id(id: &str) -> Result<(), Refusal> {
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if id.len() <= LONGEST_ID && id.split(['.', '_', '-']).all(is_word) {
        return Ok(());
    }
    let shown: String = id.chars().take(LONGEST_ID).collect();
    Err(Refusal::new(
        Code::InvalidArgument,
        format!("exec id {shown:?} is not valid"),
    ))
}

fn wrong_stage(message: impl Into<String>) -> Refusal {
    Refusal::new(Code::Unknown, message)
}

impl Shim {
    /// Starts a container's first process, or executes an added one.
    pub fn start(&mut self, reply: Reply, request: &StartRequest) -> Result<(), Refusal> {
        let (key, process) = self.process(&request.id, &request.exec_id)?;
        let exists = process.pid != 0;
        match process.stage {
            Stage::Waiting => {}
            Stage::Running => return Err(wrong_stage("cannot start a running process")),
            Stage::Ending | Stage::Stopped => return Err(wrong_stage("cannot start a stopped process")),
        }
        if request.exec_id.is_empty() {
            return self.submit(&request.id, Operation::Start(reply));
        }
        let starts =
            |operation: &Operation| matches!(operation, Operation::Exec { key: other, .. } if *other == key);
        let container = self.container(&request.id)?;
        let is_paused = container.is_paused;
        let is_starting = container.at_work().chain(&container.queue).any(starts);
        if exists || is_starting {
            return Err(wrong_stage("cannot start a running process"));
        }
        if is_paused {
            return Err(wrong_stage("cannot exec in a paused state"));
        }
        let operation = Operation::Exec {
            reply,
            key,
            prepared: None,
        };
        self.submit(&request.id, operation)
    }

    /// Adds a process to a container, to be started later.
    pub fn exec(&mut self, request: ExecProcessRequest) -> Result<Vec<u8>, Refusal> {
        check_exec_id(&request.exec_id)?;
        let (_, init) = self.process(&request.id, "")?;
        match init.stage {
            // An end that waits for other processes is not told yet: for the client it runs. The start is refused then.
            Stage::Running | Stage::Ending => {}
            Stage::Waiting => return Err(wrong_stage("cannot exec in a created state")),
            Stage::Stopped => return Err(wrong_stage("cannot exec in a stopped state")),
        }
        let container = self.container(&request.id)?;
        if container.is_paused {
            return Err(wrong_stage("cannot exec in a paused state"));
        }
        if container.execs.contains_key(&request.exec_id) {
            return Err(Refusal::new(
                Code::AlreadyExists,
                format!("id {}", request.exec_id),
            ));
        }
        if container.execs.len() >= MOST_EXECS {
            return Err(Refusal::new(
                Code::ResourceExhausted,
                "the container has too many processes",
            ));
        }
        let spec = request.spec.map(|any| any.value).unwrap_or_default();
        let invalid = |message: String| Refusal::new(Code::InvalidArgument, message);
        let mut process: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&spec).map_err(|error| invalid(format!("process to execute: {error}")))?;
        // The request, not the document, says whether there is a terminal.
        process.insert("terminal".to_owned(), request.terminal.into());
        let spec = serde_json::to_vec(&process).map_err(|error| invalid(error.to_string()))?;
        let names = Names {
            terminal: request.terminal,
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
        };
        let key = self.new_key();
        let container = self.container(&request.id)?;
        container.execs.insert(request.exec_id.clone(), key);
        self.processes
            .insert(key, Process::new(&request.id, &request.exec_id, names, spec));
        let event = TaskExecAdded {
            container_id: request.id,
            exec_id: request.exec_id,
        };
        self.publish("/tasks/exec-added", &event);
        Ok(empty())
    }

    /// Signals a process, or all of a container.
    pub fn kill(&mut self, reply: Reply, request: &KillRequest) -> Result<Option<Vec<u8>>, Refusal> {
        let (_, process) = self.process(&request.id, &request.exec_id)?;
        let finished = || Refusal::new(Code::NotFound, "process already finished");
        if request.exec_id.is_empty() {
            if matches!(process.stage, Stage::Ending | Stage::Stopped) {
                return Err(finished());
            }
            let operation = Operation::Kill {
                reply: Some(reply),
                signal: request.signal as i32,
                all: request.all,
            };
            return self.submit(&request.id, operation).map(|()| None);
        }
        match process.stage {
            Stage::Waiting => return Err(Refusal::new(Code::FailedPrecondition, "process not created")),
            Stage::Ending | Stage::Stopped => return Err(finished()),
            Stage::Running => {}
        }
        let signal = Signal::from_named_raw(request.signal as i32)
            .ok_or_else(|| Refusal::new(Code::InvalidArgument, format!("no signal {}", request.signal)))?;
        // Our child, and not reaped: the pid cannot be another's.
        let pid = Pid::from_raw(process.pid).ok_or_else(finished)?;
        kill_process(pid, signal).map_err(|error| Refusal::system("signal the process", error))?;
        Ok(Some(empty()))
    }

    /// Sets the size of a process's terminal, now or when there is one.
    pub fn resize(&mut self, request: &ResizePtyRequest) -> Result<Vec<u8>, Refusal> {
        let (_, process) = self.process(&request.id, &request.exec_id)?;
        let size = |value: u32| {
            u16::try_from(value)
                .map_err(|_| Refusal::new(Code::InvalidArgument, format!("no terminal has {value} cells")))
        };
        let size = Winsize {
            ws_col: size(request.width)?,
            ws_row: size(request.height)?,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        match (&process.console, process.stage) {
            (_, Stage::Ending | Stage::Stopped) => {
                return Err(wrong_stage("cannot resize a stopped container"));
            }
            (Some(master), _) => {
                tcsetwinsize(master, size)
                    .map_err(|error| Refusal::system("set the terminal's size", error))?;
            }
            (None, Stage::Waiting) if process.names.terminal => process.size = Some(size),
            // As containerd: without a terminal there is nothing to do.
            (None, _) => {}
        }
        Ok(empty())
    }

    /// Lets a process see the end of its input, once what is on its way has arrived.
    pub fn close_io(&mut self, request: &CloseIoRequest) -> Result<Vec<u8>, Refusal> {
        let (_, process) = self.process(&request.id, &request.exec_id)?;
        if request.stdin {
            process.input_keeper = None;
            process.input_closed = true;
        }
        Ok(empty())
    }

    /// Answers a process's exit, now or when it is there.
    pub fn wait(&mut self, reply: Reply, request: &WaitRequest) -> Result<Option<Vec<u8>>, Refusal> {
        let (_, process) = self.process(&request.id, &request.exec_id)?;
        if process.stage == Stage::Stopped {
            return Ok(Some(process.wait_response()));
        }
        process.waiters.push(reply);
        Ok(None)
    }

    /// What a process is now.
    pub fn state(&mut self, request: &StateRequest) -> Result<Vec<u8>, Refusal> {
        let container = self.container(&request.id)?;
        let (is_paused, bundle) = (
            container.is_paused,
            container.bundle.to_string_lossy().into_owned(),
        );
        let (_, process) = self.process(&request.id, &request.exec_id)?;
        let status = match process.stage {
            Stage::Waiting => Status::Created,
            Stage::Running if is_paused && request.exec_id.is_empty() => Status::Paused,
            Stage::Running | Stage::Ending => Status::Running,
            Stage::Stopped => Status::Stopped,
        };
        let exit = process.exit.as_ref().filter(|_| process.stage == Stage::Stopped);
        let id = if request.exec_id.is_empty() {
            &request.id
        } else {
            &request.exec_id
        };
        let response = StateResponse {
            id: id.clone(),
            bundle,
            pid: process.pid as u32,
            status: status.into(),
            stdin: process.names.stdin.clone(),
            stdout: process.names.stdout.clone(),
            stderr: process.names.stderr.clone(),
            terminal: process.names.terminal,
            exit_status: exit.map_or(0, |exit| exit.status),
            exited_at: exit.map(|exit| exit.at),
            exec_id: request.exec_id.clone(),
        };
        Ok(response.encode_to_vec())
    }
}

impl Process {
    /// The answer to those who wait for its exit.
    pub fn wait_response(&self) -> Vec<u8> {
        let response = WaitResponse {
            exit_status: self.exit.as_ref().map_or(0, |exit| exit.status),
            exited_at: self.exit.as_ref().map(|exit| exit.at),
        };
        response.encode_to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exec_ids_cannot_leave_the_bundle() {
        for id in ["a", "exec-1", "a.b_c-d", &"x".repeat(76)] {
            check_exec_id(id).unwrap();
        }
        for id in [
            "",
            "..",
            "../a",
            "a/b",
            "-a",
            "a--b",
            "_init",
            "a b",
            &"x".repeat(77),
        ] {
            assert_eq!(check_exec_id(id).unwrap_err().code, Code::InvalidArgument, "{id}");
        }
    }
}
