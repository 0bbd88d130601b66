//! The sandbox service: a pod as a thing of its own, before its first container and after its last.
//!
//! A sandbox here is the shim itself, which serves all containers of the pod and stays while none is there. It has no
//! root filesystem and runs no process: what a pod shares (namespaces, control groups) its containers' specs name.
//!
//! A sandbox that is stopped with a time-out ends when its containers have, which are sent SIGTERM, and at the latest after
//! that time, by SIGKILL; without one at once.
//!
//! Refused by name: root filesystems of sandboxes, and metrics, of which there are none but the containers'.

use std::time::Duration;

use prost::Message;
use prost_types::Timestamp;
use rustix::process::Signal;
use wharf_proto::containerd::runtime::sandbox::v1 as api;
use wharf_proto::containerd::types::Platform;
use wharf_proto::ttrpc::Request;

use crate::clock;
use crate::connection::Reply;
use crate::reactor::Alarm;
use crate::serve::Shim;
use crate::status::{Code, Refusal};
use crate::tasks::{Operation, Stage};

/// The service's name on the wire.
pub const SERVICE: &str = "containerd.runtime.sandbox.v1.Sandbox";

/// The states, in the words of Kubernetes' CRI, which is what reads them.
const READY: &str = "SANDBOX_READY";
const NOT_READY: &str = "SANDBOX_NOTREADY";

/// The sandbox of this shim.
pub struct Sandbox {
    id: String,
    created_at: Timestamp,
    started: bool,
    exited_at: Option<Timestamp>,
    /// Who waits for its end.
    waiters: Vec<Reply>,
    /// Who asked for it, and waits for the containers to end.
    stops: Vec<Reply>,
}

fn decode<M: Message + Default>(request: &Request) -> Result<M, Refusal> {
    M::decode(request.payload.as_slice())
        .map_err(|error| Refusal::new(Code::InvalidArgument, format!("{}: {error}", request.method)))
}

impl Shim {
    /// Performs a call of the sandbox service; `None`: its answer comes later.
    ///
    /// # Errors
    ///
    /// Those of the method; `Unimplemented` for one that is not served.
    pub fn call_sandbox(&mut self, reply: Reply, request: &Request) -> Result<Option<Vec<u8>>, Refusal> {
        match request.method.as_str() {
            "CreateSandbox" => {
                self.create_sandbox(decode(request)?)?;
                Ok(Some(api::CreateSandboxResponse {}.encode_to_vec()))
            }
            "StartSandbox" => {
                let sandbox = self.sandbox(&decode::<api::StartSandboxRequest>(request)?.sandbox_id)?;
                if sandbox.started {
                    let message = format!("sandbox {} was started already", sandbox.id);
                    return Err(Refusal::new(Code::FailedPrecondition, message));
                }
                sandbox.started = true;
                let answer = api::StartSandboxResponse {
                    pid: std::process::id(),
                    created_at: Some(sandbox.created_at),
                    spec: None,
                };
                Ok(Some(answer.encode_to_vec()))
            }
            "Platform" => {
                self.sandbox(&decode::<api::PlatformRequest>(request)?.sandbox_id)?;
                let platform = Some(Platform {
                    os: "linux".to_owned(),
                    architecture: architecture().to_owned(),
                    ..Platform::default()
                });
                Ok(Some(api::PlatformResponse { platform }.encode_to_vec()))
            }
            "PingSandbox" => {
                self.sandbox(&decode::<api::PingRequest>(request)?.sandbox_id)?;
                Ok(Some(api::PingResponse {}.encode_to_vec()))
            }
            "SandboxStatus" => {
                let sandbox = self.sandbox(&decode::<api::SandboxStatusRequest>(request)?.sandbox_id)?;
                Ok(Some(sandbox.status().encode_to_vec()))
            }
            "WaitSandbox" => {
                let sandbox = self.sandbox(&decode::<api::WaitSandboxRequest>(request)?.sandbox_id)?;
                match sandbox.exited_at {
                    Some(at) => Ok(Some(exit(at))),
                    None => {
                        sandbox.waiters.push(reply);
                        Ok(None)
                    }
                }
            }
            "StopSandbox" => {
                let request: api::StopSandboxRequest = decode(request)?;
                self.sandbox(&request.sandbox_id)?.stops.push(reply);
                self.stop_sandbox(request.timeout_secs);
                Ok(None)
            }
            "ShutdownSandbox" => {
                self.sandbox(&decode::<api::ShutdownSandboxRequest>(request)?.sandbox_id)?;
                self.shut_sandbox_down()?;
                Ok(Some(api::ShutdownSandboxResponse {}.encode_to_vec()))
            }
            other => Err(Refusal::new(
                Code::Unimplemented,
                format!("method {other} of {SERVICE} is not served"),
            )),
        }
    }

    fn create_sandbox(&mut self, request: api::CreateSandboxRequest) -> Result<(), Refusal> {
        if request.sandbox_id.is_empty() {
            return Err(Refusal::new(
                Code::InvalidArgument,
                "the sandbox's id cannot be empty",
            ));
        }
        if let Some(present) = &self.sandbox {
            let message = format!("the shim serves sandbox {} already", present.id);
            return Err(Refusal::new(Code::AlreadyExists, message));
        }
        if !request.rootfs.is_empty() {
            return Err(Refusal::new(
                Code::Unimplemented,
                "root filesystems of sandboxes are not supported",
            ));
        }
        self.sandbox = Some(Sandbox {
            id: request.sandbox_id,
            created_at: clock::now(),
            started: false,
            exited_at: None,
            waiters: Vec::new(),
            stops: Vec::new(),
        });
        Ok(())
    }

    fn sandbox(&mut self, id: &str) -> Result<&mut Sandbox, Refusal> {
        self.sandbox
            .as_mut()
            .filter(|sandbox| sandbox.id == id)
            .ok_or_else(|| Refusal::new(Code::NotFound, format!("sandbox {id} does not exist")))
    }

    /// Asks what runs in the sandbox to end, and ends the sandbox once it has, or after `timeout_secs`.
    fn stop_sandbox(&mut self, timeout_secs: u32) {
        let running = self.running();
        if timeout_secs == 0 || running.is_empty() {
            return self.end_sandbox();
        }
        self.signal(&running, Signal::TERM, false);
        let grace = Duration::from_secs(timeout_secs.into());
        self.reactor.set_alarm(Alarm::Sandbox, grace);
    }

    /// A container has ended: the sandbox does, if it was the last one that was waited for.
    pub fn sandbox_settled(&mut self) {
        let is_awaited = self
            .sandbox
            .as_ref()
            .is_some_and(|sandbox| !sandbox.stops.is_empty());
        if is_awaited && self.running().is_empty() {
            self.end_sandbox();
        }
    }

    /// The containers that run.
    fn running(&self) -> Vec<String> {
        self.containers
            .values()
            .filter(|container| container.is_created)
            .filter(|container| {
                let init = self.processes.get(&container.init);
                init.is_some_and(|init| matches!(init.stage, Stage::Waiting | Stage::Running))
            })
            .map(|container| container.id.clone())
            .collect()
    }

    fn signal(&mut self, containers: &[String], signal: Signal, all: bool) {
        for id in containers {
            let kill = Operation::Kill {
                reply: None,
                signal: signal.as_raw(),
                all,
            };
            if let Err(refusal) = self.submit(id, kill) {
                self.log
                    .error(&format!("stop container {id} of the sandbox: {refusal}"));
            }
        }
    }

    /// Ends the sandbox, and what still runs in it: its containers are then stopped, and still there.
    pub fn end_sandbox(&mut self) {
        self.reactor.cancel_alarm(Alarm::Sandbox);
        let running = self.running();
        self.signal(&running, Signal::KILL, true);
        let Some(sandbox) = &mut self.sandbox else { return };
        let at = *sandbox.exited_at.get_or_insert_with(clock::now);
        let waiters = std::mem::take(&mut sandbox.waiters);
        let stops = std::mem::take(&mut sandbox.stops);
        for reply in waiters {
            self.answer(reply, Ok(exit(at)));
        }
        for reply in stops {
            self.answer(reply, Ok(api::StopSandboxResponse {}.encode_to_vec()));
        }
    }

    /// Ends the shim with its sandbox, unless it still has containers.
    fn shut_sandbox_down(&mut self) -> Result<(), Refusal> {
        if !self.containers.is_empty() {
            let ids: Vec<&str> = self.containers.keys().map(String::as_str).collect();
            let message = format!("the sandbox still has containers: {}", ids.join(", "));
            return Err(Refusal::new(Code::FailedPrecondition, message));
        }
        self.end_sandbox();
        self.sandbox = None;
        self.shutdown();
        Ok(())
    }
}

impl Sandbox {
    fn status(&self) -> api::SandboxStatusResponse {
        let is_ready = self.started && self.exited_at.is_none();
        api::SandboxStatusResponse {
            sandbox_id: self.id.clone(),
            pid: std::process::id(),
            state: if is_ready { READY } else { NOT_READY }.to_owned(),
            created_at: Some(self.created_at),
            exited_at: self.exited_at,
            ..api::SandboxStatusResponse::default()
        }
    }

    /// A client is gone: nobody waits for its answers.
    pub fn forget_client(&mut self, connection: u32) {
        self.waiters.retain(|reply| reply.connection != connection);
        self.stops.retain(|reply| reply.connection != connection);
    }
}

/// A sandbox has no process that could fail.
fn exit(at: Timestamp) -> Vec<u8> {
    let answer = api::WaitSandboxResponse {
        exit_status: 0,
        exited_at: Some(at),
    };
    answer.encode_to_vec()
}

/// The host's, in the words of images.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
