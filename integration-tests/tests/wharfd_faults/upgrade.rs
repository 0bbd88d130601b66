//! `kill -9` of the old daemon or of the new one at each call of a live upgrade: somebody serves, nobody's container, wait or
//! exit status is lost, and the next upgrade goes through.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prost_types::Any;
use tokio::time::{Instant, sleep};
use tonic::{Code, Status};
use wharf_proto::any::RUNTIME_PROCESS_URL;
use wharf_proto::containerd::services::containers::v1::DeleteContainerRequest;
use wharf_proto::containerd::services::containers::v1::containers_client::ContainersClient;
use wharf_proto::containerd::services::tasks::v1::{
    CreateTaskRequest, DeleteProcessRequest, DeleteTaskRequest, ExecProcessRequest, GetRequest, KillRequest,
    StartRequest, WaitRequest,
};

use crate::call::{Call, Effect, Role};
use crate::check;
use crate::gate::Verdict;
use crate::instance::{Client, Instance, is_gone};
use crate::kill::fresh;
use crate::life::{EXEC, ID, tasks, traps};
use crate::subject::Subject;
use crate::{pod, points};

/// How many points a run takes for each victim, unless all are asked for.
const SAMPLE: usize = 5;
const SOON: Duration = Duration::from_secs(30);

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Old,
    New,
}

impl Victim {
    fn calls(self, call: &Call) -> bool {
        let is_old = call.role == Role::Daemon;
        call.effect != Effect::None && call.is_wharfd && is_old == (self == Self::Old)
    }
}

/// Waits as a client does that tries again when its connection ends.
async fn wait(mut client: Client, exec: &str) -> Result<u32, Status> {
    let deadline = Instant::now() + SOON;
    loop {
        let request = WaitRequest {
            container_id: ID.into(),
            exec_id: exec.into(),
        };
        let answer = tasks(&client).wait(client.scoped(request)).await;
        match answer {
            Ok(answer) => return Ok(answer.into_inner().exit_status),
            Err(status) if !is_interruption(&status) || Instant::now() > deadline => return Err(status),
            Err(_) => {}
        }
        client = reconnected(&client, deadline).await?;
    }
}

/// Whether a call may be done again, at whoever serves then.
fn is_interruption(status: &Status) -> bool {
    status.code() == Code::Unavailable || is_gone(status)
}

/// A new connection, once somebody serves.
async fn reconnected(client: &Client, deadline: Instant) -> Result<Client, Status> {
    loop {
        match client.again().await {
            Err(error) if Instant::now() > deadline => return Err(Status::unavailable(error)),
            Err(_) => sleep(Duration::from_millis(20)).await,
            Ok(client) => return Ok(client),
        }
    }
}

/// A container and a process executed in it, both running; gives their pids.
async fn set_up(client: &Client, subject: &Subject) -> Result<(u32, u32), Status> {
    pod::create_container(client, subject, &client.namespace, "").await?;
    let create = CreateTaskRequest {
        container_id: ID.into(),
        ..CreateTaskRequest::default()
    };
    tasks(client).create(client.scoped(create)).await?;
    let start = |exec: &str| StartRequest {
        container_id: ID.into(),
        exec_id: exec.into(),
    };
    let init = tasks(client).start(client.scoped(start(""))).await?;
    let mut process = subject.process();
    let script = "trap 'exit 7' TERM; while :; do sleep 0.05; done";
    process["args"] = serde_json::json!(["/bin/sh", "-c", script]);
    let exec = ExecProcessRequest {
        container_id: ID.into(),
        exec_id: EXEC.into(),
        spec: Some(Any {
            type_url: RUNTIME_PROCESS_URL.into(),
            value: process.to_string().into_bytes(),
        }),
        ..ExecProcessRequest::default()
    };
    tasks(client).exec(client.scoped(exec)).await?;
    let exec = tasks(client).start(client.scoped(start(EXEC))).await?;
    let (init, exec) = (init.into_inner().pid, exec.into_inner().pid);
    traps(init).await?;
    traps(exec).await?;
    Ok((init, exec))
}

/// The container is the same, and both processes end as they should.
async fn ends(client: &Client, init: u32) -> Result<(), Status> {
    let get = GetRequest {
        container_id: ID.into(),
        exec_id: String::new(),
    };
    let process = tasks(client).get(client.scoped(get)).await?.into_inner().process;
    let process = process.unwrap_or_default();
    if process.pid != init || process.status().as_str_name() != "RUNNING" {
        return Err(Status::data_loss(format!("the task {init} is {process:?}")));
    }
    let request = DeleteProcessRequest {
        container_id: ID.into(),
        exec_id: EXEC.into(),
    };
    let deleted = tasks(client).delete_process(client.scoped(request)).await?;
    let exec = deleted.into_inner().exit_status;
    let kill = KillRequest {
        container_id: ID.into(),
        signal: 15,
        ..KillRequest::default()
    };
    tasks(client).kill(client.scoped(kill)).await?;
    let waited = wait(client.clone(), "").await?;
    let request = DeleteTaskRequest {
        container_id: ID.into(),
    };
    let deleted = tasks(client).delete(client.scoped(request)).await?;
    match (exec, waited, deleted.into_inner().exit_status) {
        (7, 9, 9) => Ok(()),
        other => Err(Status::data_loss(format!("exit statuses {other:?}"))),
    }
}

async fn upgrade(
    instance: &mut Instance,
    subject: &Subject,
    armed: &AtomicBool,
    must_succeed: bool,
) -> Result<(), String> {
    let client = instance.connect().await?;
    let failed = |what: &'static str| move |status: Status| format!("{what}: {status:?}");
    let (init, exec) = set_up(&client, subject).await.map_err(failed("set up"))?;
    let waits = [
        tokio::spawn(wait(client.clone(), EXEC)),
        tokio::spawn(wait(client.clone(), "")),
    ];
    // Its end comes while the daemons are about it.
    let exec = rustix::process::Pid::from_raw(exec as i32).ok_or("no pid")?;
    rustix::process::kill_process(exec, rustix::process::Signal::TERM).map_err(|error| error.to_string())?;
    armed.store(true, Ordering::Relaxed);
    let finished = tokio::task::block_in_place(|| instance.run(&["upgrade"]));
    armed.store(false, Ordering::Relaxed);
    if must_succeed && finished.code != 0 {
        return Err(format!("an upgrade without a fault: {finished}"));
    }
    // Before there was a new one, the old one was all there was, and its unit starts it again.
    if tokio::task::block_in_place(|| instance.is_deserted()) {
        tokio::task::block_in_place(|| instance.start())?;
    }
    let deadline = Instant::now() + SOON;
    let client = reconnected(&client, deadline)
        .await
        .map_err(failed("nobody serves"))?;
    let [executed, whole] = waits;
    let executed = executed
        .await
        .map_err(|error| error.to_string())?
        .map_err(failed("wait for the exec"))?;
    if executed != 7 {
        return Err(format!("the exec ended with {executed}"));
    }
    // Whoever is about to leave does so now, or never.
    let again = tokio::task::block_in_place(|| instance.run(&["upgrade"]));
    if again.code != 0 {
        return Err(format!("the next upgrade: {again}, after {finished}"));
    }
    let client = reconnected(&client, deadline)
        .await
        .map_err(failed("nobody serves after the next upgrade"))?;
    ends(&client, init).await.map_err(failed("the end"))?;
    match whole.await.map_err(|error| error.to_string())? {
        Ok(9) => {}
        other => return Err(format!("the container ended with {other:?}")),
    }
    ContainersClient::new(client.channel.clone())
        .delete(client.scoped(DeleteContainerRequest { id: ID.into() }))
        .await
        .map(drop)
        .map_err(failed("delete the container"))
}

/// One upgrade that ends the victim at its `point`th call; `None`: at none. Gives the calls of the victim.
fn strike(
    subject: &Subject,
    name: &str,
    victim: Victim,
    point: Option<usize>,
) -> Result<Vec<String>, String> {
    let mut instance = fresh(subject, name);
    let calls = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&calls);
    let armed = Arc::new(AtomicBool::new(false));
    let is_armed = Arc::clone(&armed);
    let count = AtomicUsize::new(0);
    instance.start_behind(move |call| {
        if !is_armed.load(Ordering::Relaxed) || !victim.calls(call) {
            return Verdict::Go;
        }
        seen.lock().expect("the calls").push(call.to_string());
        if Some(count.fetch_add(1, Ordering::Relaxed)) == point {
            Verdict::Kill
        } else {
            Verdict::Go
        }
    });
    if !instance.serves() {
        return Err("the daemon does not come up".into());
    }
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(upgrade(&mut instance, subject, &armed, point.is_none()));
    instance.kill_all();
    let outcome = outcome.and_then(|()| check::machine(&instance, true));
    let calls = calls.lock().expect("the calls").clone();
    let log = instance.log();
    drop(instance);
    let struck = point.and_then(|point| calls.get(point).cloned());
    outcome.map_err(|error| format!("{victim:?} killed at {point:?} ({struck:?}): {error}\n{log}"))?;
    std::fs::remove_dir_all(subject.scratch.join(name)).expect("remove the instance");
    Ok(calls)
}

fn at_each_point(what: &str, victim: Victim) {
    let subject = Subject::new();
    let calls = strike(&subject, "none", victim, None).unwrap_or_else(|error| panic!("{error}"));
    points::each(what, calls.len(), SAMPLE, |point| {
        strike(&subject, &format!("u{point}"), victim, Some(point)).map(drop)
    });
}

#[test]
fn the_old_daemon_can_be_killed_anywhere_in_an_upgrade() {
    at_each_point("kill -9 of the old daemon in an upgrade", Victim::Old);
}

#[test]
fn the_new_daemon_can_be_killed_anywhere_in_an_upgrade() {
    at_each_point("kill -9 of the new daemon in an upgrade", Victim::New);
}
