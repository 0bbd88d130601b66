//! Tasks: of no container, of one that has none, and of one that runs.

use prost::Message;
use prost_types::Any;
use wharf_proto::containerd::services::tasks::v1 as tasks;
use wharf_proto::containerd::types::{Descriptor, Mount};

use crate::case::{Method, NOWHERE, stranger};

/// A container whose task runs.
pub(crate) const LIVE: &str = "live";

/// The cases of a request that names a container, and what else it says.
fn of<M: Message>(name: &str, make: impl Fn(&str) -> M) -> Method {
    Method::new(&format!("containerd.services.tasks.v1.Tasks/{name}"))
        .namespaces(make("unheard-of"))
        .ids("container", |id| make(&id))
        .send("a container without a task", make("box"))
}

/// The same, and a process of the container.
fn process<M: Message>(name: &str, make: impl Fn(&str, &str) -> M) -> Method {
    of(name, |id| make(id, "")).ids("process", |process| {
        make(LIVE, if process.is_empty() { "x y" } else { &process })
    })
}

fn spec(value: &[u8]) -> Any {
    Any {
        type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".into(),
        value: value.to_vec(),
    }
}

pub(crate) fn tasks() -> Vec<Method> {
    let create = |id: &str| tasks::CreateTaskRequest {
        container_id: id.into(),
        ..tasks::CreateTaskRequest::default()
    };
    let exec = |id: &str, exec_id: &str, spec| tasks::ExecProcessRequest {
        container_id: id.into(),
        exec_id: exec_id.into(),
        spec,
        ..tasks::ExecProcessRequest::default()
    };
    let kill = |id: &str, exec_id: &str, signal| tasks::KillRequest {
        container_id: id.into(),
        exec_id: exec_id.into(),
        signal,
        all: false,
    };
    let update = |id: &str, resources| tasks::UpdateTaskRequest {
        container_id: id.into(),
        resources,
        ..tasks::UpdateTaskRequest::default()
    };
    let checkpoint = |id: &str, options| tasks::CheckpointTaskRequest {
        container_id: id.into(),
        options,
        ..tasks::CheckpointTaskRequest::default()
    };
    let process_spec = spec(br#"{"args":["/bin/true"],"cwd":"/","user":{}}"#);
    vec![
        Method::new("containerd.services.tasks.v1.Tasks/Create")
            .namespaces(create("unheard-of"))
            .ids("container", |id| create(&id))
            .send("one that is there", create(LIVE))
            .send(
                "options that nobody knows",
                tasks::CreateTaskRequest {
                    options: Some(stranger()),
                    ..create("box")
                },
            )
            .send(
                "a checkpoint that is not there",
                tasks::CreateTaskRequest {
                    checkpoint: Some(Descriptor {
                        media_type: "application/vnd.containerd.container.criu.checkpoint.criu.tar".into(),
                        digest: NOWHERE.into(),
                        size: 1,
                        ..Descriptor::default()
                    }),
                    ..create("box")
                },
            )
            .send(
                "a root that is not there",
                tasks::CreateTaskRequest {
                    rootfs: vec![Mount {
                        r#type: "bind".into(),
                        source: "/nonexistent/root".into(),
                        options: vec!["rbind".into()],
                        ..Mount::default()
                    }],
                    ..create("box")
                },
            )
            .send(
                "output to nowhere",
                tasks::CreateTaskRequest {
                    stdout: "/nonexistent/fifo".into(),
                    ..create("box")
                },
            )
            .send(
                "output by an unknown scheme",
                tasks::CreateTaskRequest {
                    stdout: "unheard-of:///x".into(),
                    ..create("box")
                },
            ),
        process("Start", |id, exec_id| tasks::StartRequest {
            container_id: id.into(),
            exec_id: exec_id.into(),
        })
        .send(
            "one that runs",
            tasks::StartRequest {
                container_id: LIVE.into(),
                ..tasks::StartRequest::default()
            },
        ),
        of("Delete", |id| tasks::DeleteTaskRequest {
            container_id: id.into(),
        })
        .send(
            "one that runs",
            tasks::DeleteTaskRequest {
                container_id: LIVE.into(),
            },
        ),
        process("DeleteProcess", |id, exec_id| tasks::DeleteProcessRequest {
            container_id: id.into(),
            exec_id: exec_id.into(),
        }),
        process("Get", |id, exec_id| tasks::GetRequest {
            container_id: id.into(),
            exec_id: exec_id.into(),
        }),
        Method::new("containerd.services.tasks.v1.Tasks/List")
            .namespaces(tasks::ListTasksRequest::default())
            .filters(|filter| tasks::ListTasksRequest { filter }),
        process("Kill", |id, exec_id| kill(id, exec_id, 15))
            .send("signal 0", kill(LIVE, "", 0))
            .send("signal 1000", kill(LIVE, "", 1000))
            .send("signal 2^32-1", kill(LIVE, "", u32::MAX)),
        Method::new("containerd.services.tasks.v1.Tasks/Exec")
            .namespaces(exec("unheard-of", "e", Some(process_spec.clone())))
            .ids("container", |id| exec(&id, "e", Some(process_spec.clone())))
            .send(
                "a container without a task",
                exec("box", "e", Some(process_spec.clone())),
            )
            .send("no id", exec(LIVE, "", Some(process_spec.clone())))
            .send("a malformed id", exec(LIVE, "a/../b", Some(process_spec.clone())))
            .send("a long id", exec(LIVE, &"e".repeat(10_000), Some(process_spec)))
            .send("no process", exec(LIVE, "e-1", None))
            .send("a process that nobody knows", exec(LIVE, "e-2", Some(stranger())))
            .send(
                "a process that cannot be read",
                exec(LIVE, "e-3", Some(spec(b"{"))),
            ),
        process("ResizePty", |id, exec_id| tasks::ResizePtyRequest {
            container_id: id.into(),
            exec_id: exec_id.into(),
            width: 1,
            height: 1,
        })
        .send(
            "one without a terminal",
            tasks::ResizePtyRequest {
                container_id: LIVE.into(),
                width: 80,
                height: 24,
                ..tasks::ResizePtyRequest::default()
            },
        )
        .send(
            "a size of 2^32-1",
            tasks::ResizePtyRequest {
                container_id: LIVE.into(),
                width: u32::MAX,
                height: u32::MAX,
                ..tasks::ResizePtyRequest::default()
            },
        ),
        process("CloseIO", |id, exec_id| tasks::CloseIoRequest {
            container_id: id.into(),
            exec_id: exec_id.into(),
            stdin: true,
        }),
        of("Pause", |id| tasks::PauseTaskRequest {
            container_id: id.into(),
        }),
        of("Resume", |id| tasks::ResumeTaskRequest {
            container_id: id.into(),
        })
        .send(
            "one that is not paused",
            tasks::ResumeTaskRequest {
                container_id: LIVE.into(),
            },
        ),
        of("ListPids", |id| tasks::ListPidsRequest {
            container_id: id.into(),
        }),
        of("Checkpoint", |id| checkpoint(id, None))
            .send("options that nobody knows", checkpoint(LIVE, Some(stranger()))),
        of("Update", |id| update(id, None))
            .send("no resources", update(LIVE, None))
            .send("resources that nobody knows", update(LIVE, Some(stranger())))
            .send(
                "resources that cannot be read",
                update(
                    LIVE,
                    Some(Any {
                        type_url: "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources".into(),
                        value: b"{".to_vec(),
                    }),
                ),
            ),
        Method::new("containerd.services.tasks.v1.Tasks/Metrics")
            .namespaces(tasks::MetricsRequest::default())
            .filters(|filter| tasks::MetricsRequest {
                filters: vec![filter],
            }),
        process("Wait", |id, exec_id| tasks::WaitRequest {
            container_id: id.into(),
            exec_id: exec_id.into(),
        }),
    ]
}
