//! From a ttrpc request to a method, for both versions of the service; their messages are the same on the wire.

use prost::Message;
use wharf_proto::containerd::task::v2;
use wharf_proto::ttrpc::Request;

use super::{Container, Process};
use crate::connection::Reply;
use crate::sandbox;
use crate::serve::Shim;
use crate::status::{Code, Refusal};

const SERVICES: [&str; 2] = ["containerd.task.v2.Task", "containerd.task.v3.Task"];

/// The answer of methods that have none.
pub fn empty() -> Vec<u8> {
    Vec::new()
}

fn decode<M: Message + Default>(request: &Request) -> Result<M, Refusal> {
    M::decode(request.payload.as_slice())
        .map_err(|error| Refusal::new(Code::InvalidArgument, format!("{}: {error}", request.method)))
}

impl Shim {
    /// Performs a call; its answer goes out now or when it is there.
    pub fn call(&mut self, reply: Reply, request: &Request) {
        match self.dispatch(reply, request) {
            Ok(None) => {}
            Ok(Some(answer)) => self.answer(reply, Ok(answer)),
            Err(refusal) => self.answer(reply, Err(refusal)),
        }
    }

    /// Answers a call.
    pub fn answer(&mut self, reply: Reply, answer: Result<Vec<u8>, Refusal>) {
        self.connections.answer(&self.reactor, &self.log, reply, answer);
    }

    /// The answer, when it is there at once.
    fn dispatch(&mut self, reply: Reply, request: &Request) -> Result<Option<Vec<u8>>, Refusal> {
        let is_sandbox = request.service == sandbox::SERVICE;
        if !is_sandbox && !SERVICES.contains(&request.service.as_str()) {
            let message = format!("service {} is not served", request.service);
            return Err(Refusal::new(Code::Unimplemented, message));
        }
        if self.stopping {
            return Err(Refusal::new(Code::Unavailable, "the shim is shutting down"));
        }
        if is_sandbox {
            return self.call_sandbox(reply, request);
        }
        let now = |answer: Result<Vec<u8>, Refusal>| answer.map(Some);
        let later = |accepted: Result<(), Refusal>| accepted.map(|()| None);
        match request.method.as_str() {
            "Create" => later(self.create(reply, decode(request)?)),
            "Start" => later(self.start(reply, &decode(request)?)),
            "Exec" => now(self.exec(decode(request)?)),
            "Delete" => later(self.delete(reply, &decode(request)?)),
            "Kill" => self.kill(reply, &decode(request)?),
            "Wait" => self.wait(reply, &decode(request)?),
            "Pause" => later(self.pause(reply, &decode::<v2::PauseRequest>(request)?.id)),
            "Resume" => later(self.resume(reply, &decode::<v2::ResumeRequest>(request)?.id)),
            "Pids" => later(self.pids(reply, &decode::<v2::PidsRequest>(request)?.id)),
            "State" => now(self.state(&decode(request)?)),
            "ResizePty" => now(self.resize(&decode(request)?)),
            "CloseIO" => now(self.close_io(&decode(request)?)),
            "Stats" => now(self.stats(&decode::<v2::StatsRequest>(request)?.id)),
            "Connect" => now(Ok(self.connect(&decode::<v2::ConnectRequest>(request)?.id))),
            "Shutdown" => {
                decode::<v2::ShutdownRequest>(request)?;
                now(Ok(self.shutdown()))
            }
            "Update" => later(self.update(reply, decode(request)?)),
            "Checkpoint" => later(self.checkpoint(reply, &decode(request)?)),
            other => Err(Refusal::new(
                Code::Unimplemented,
                format!("method {other} is not served"),
            )),
        }
    }

    /// A client is gone: nobody waits for its answers.
    pub fn forget_client(&mut self, connection: u32) {
        if let Some(sandbox) = &mut self.sandbox {
            sandbox.forget_client(connection);
        }
        for process in self.processes.values_mut() {
            process.waiters.retain(|reply| reply.connection != connection);
        }
    }

    /// The container `id`, once it is created.
    pub fn container(&mut self, id: &str) -> Result<&mut Container, Refusal> {
        self.containers
            .get_mut(id)
            .filter(|container| container.is_created)
            .ok_or_else(|| Refusal::new(Code::NotFound, "container not created"))
    }

    /// The process `exec_id` of container `id`, the first one when `exec_id` is empty: its key and itself.
    pub fn process(&mut self, id: &str, exec_id: &str) -> Result<(u32, &mut Process), Refusal> {
        let container = self.container(id)?;
        let key = if exec_id.is_empty() {
            Some(container.init)
        } else {
            container.execs.get(exec_id).copied()
        };
        key.and_then(|key| Some((key, self.processes.get_mut(&key)?)))
            .ok_or_else(|| Refusal::new(Code::NotFound, format!("process does not exist {exec_id}")))
    }
}
