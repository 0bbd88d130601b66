//! Calls about whole containers and the shim: Pause, Resume, Pids, Stats, Update, Connect, Shutdown; OOM notices.

use prost::Message;
use wharf_proto::containerd::events::TaskOom;
use wharf_proto::containerd::task::v2::{ConnectResponse, StatsResponse, UpdateTaskRequest};

use super::call::empty;
use super::{Operation, Stage};
use crate::connection::Reply;
use crate::metrics;
use crate::serve::Shim;
use crate::status::{Code, Refusal};

impl Shim {
    /// Freezes a container.
    pub fn pause(&mut self, reply: Reply, id: &str) -> Result<(), Refusal> {
        self.expect_running(id, "pause")?;
        if self.container(id)?.is_paused {
            return Err(Refusal::new(Code::Unknown, "cannot pause a paused container"));
        }
        self.submit(id, Operation::Pause(reply))
    }

    /// Thaws a container.
    pub fn resume(&mut self, reply: Reply, id: &str) -> Result<(), Refusal> {
        self.expect_running(id, "resume")?;
        if !self.container(id)?.is_paused {
            return Err(Refusal::new(Code::Unknown, "cannot resume a running process"));
        }
        self.submit(id, Operation::Resume(reply))
    }

    fn expect_running(&mut self, id: &str, operation: &str) -> Result<(), Refusal> {
        let state = match self.process(id, "")?.1.stage {
            Stage::Running => return Ok(()),
            Stage::Waiting => "task in created state",
            Stage::Ending | Stage::Stopped => "stopped container",
        };
        Err(Refusal::new(
            Code::Unknown,
            format!("cannot {operation} a {state}"),
        ))
    }

    /// Lists a container's processes.
    pub fn pids(&mut self, reply: Reply, id: &str) -> Result<(), Refusal> {
        self.submit(id, Operation::Pids(reply))
    }

    /// What a container uses, in the form of the host's control groups.
    pub fn stats(&mut self, id: &str) -> Result<Vec<u8>, Refusal> {
        let cgroup = self
            .container(id)?
            .driver
            .cgroup()
            .ok_or_else(|| Refusal::new(Code::NotFound, "cgroup does not exist"))?;
        let stats = cgroup.stats().map_err(wharf_runtime::Error::from)?;
        let stats = Some(metrics::metrics(&stats, cgroup));
        Ok(StatsResponse { stats }.encode_to_vec())
    }

    /// Changes a container's limits.
    pub fn update(&mut self, reply: Reply, request: UpdateTaskRequest) -> Result<(), Refusal> {
        let stage = self.process(&request.id, "")?.1.stage;
        if matches!(stage, Stage::Ending | Stage::Stopped) {
            return Err(Refusal::new(Code::Unknown, "cannot update a stopped container"));
        }
        let resources = request.resources.map(|any| any.value).unwrap_or_default();
        self.submit(&request.id, Operation::Update { reply, resources })
    }

    /// Who serves.
    pub fn connect(&mut self, id: &str) -> Vec<u8> {
        let task_pid = self.process(id, "").map_or(0, |(_, process)| process.pid);
        let response = ConnectResponse {
            shim_pid: std::process::id(),
            task_pid: task_pid as u32,
            version: String::new(),
        };
        response.encode_to_vec()
    }

    /// Ends the shim, unless it still has containers or a sandbox. Its socket is gone when this is answered: the id may be used again at
    /// once.
    pub fn shutdown(&mut self) -> Vec<u8> {
        if self.is_unneeded() {
            self.leave_socket();
            self.stop();
        }
        empty()
    }

    /// The OOM notice of the container whose first process is `key` is ready.
    pub fn out_of_memory(&mut self, key: u32) {
        let found = self
            .containers
            .values_mut()
            .find(|container| container.init == key);
        let Some((container, watch)) = found.and_then(|container| {
            let watch = container.oom.as_mut()?;
            Some((container.id.clone(), watch.take()))
        }) else {
            return;
        };
        match watch {
            Ok(true) => self.publish(
                "/tasks/oom",
                &TaskOom {
                    container_id: container,
                },
            ),
            Ok(false) => {}
            Err(error) => {
                self.log.warn(&format!(
                    "container {container} has no OOM notices any more: {error}"
                ));
                self.end_oom_watch(&container);
            }
        }
    }

    /// Stops watching for the OOM killer.
    pub fn end_oom_watch(&mut self, id: &str) {
        if let Some(watch) = self
            .containers
            .get_mut(id)
            .and_then(|container| container.oom.take())
        {
            self.reactor.remove(&watch);
        }
    }
}
