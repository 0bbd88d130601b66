//! `kill -9` of the daemon, or of what it started, on entering each call that has an effect.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::call::{Call, Effect, Role};
use crate::check::{self, Progress};
use crate::gate::Verdict;
use crate::instance::{Client, Instance, block_on, is_gone};
use crate::life::{self, Life, Step};
use crate::subject::Subject;
use crate::{pod, points};

/// How many points a run takes for each victim, unless all are asked for.
const SAMPLE: usize = 18;

/// Who is killed.
fn is_victim(call: &Call, role: Role) -> bool {
    call.role == role && call.effect != Effect::None
}

/// A fresh instance in the subject's scratch directory.
pub(crate) fn fresh(subject: &Subject, name: &str) -> Instance {
    let home = subject.scratch.directory(name);
    let namespace = format!("{}-{name}", subject.scratch.unique());
    Instance::new(&home, &home.join("root"), &namespace)
}

/// Who is killed, in which life, and who goes on then.
#[derive(Clone, Copy, Debug)]
struct Plan {
    life: Life,
    role: Role,
    /// Whether a new daemon takes over from one that only lost what it had started.
    restarts: bool,
}

/// Runs one life from nothing, with the daemon behind the gate, until it ends or a call fails because its victim is gone;
/// gives the number of steps that were acknowledged.
async fn first_part(instance: &mut Instance, subject: &Subject, plan: Plan) -> usize {
    if !instance.serves() {
        return 0;
    }
    let Ok(client) = instance.connect().await else {
        return 0;
    };
    let namespace = instance.namespace.clone();
    for (done, step) in plan.life.iter().enumerate() {
        match life::perform(&client, subject, &namespace, *step, false).await {
            Ok(()) => {}
            Err(status) if is_gone(&status) => return done,
            // Of what the daemon started, it tells the end itself.
            Err(_) if plan.role == Role::Other => return done,
            Err(status) => panic!("{step:?}: {status:?}\n{}", instance.log()),
        }
    }
    plan.life.len()
}

/// After the fault: a new daemon, or the same; everything is as promised; the life goes on from the step that the fault
/// struck.
async fn second_part(
    instance: &mut Instance,
    subject: &Subject,
    plan: Plan,
    done: usize,
) -> Result<(), String> {
    if plan.role == Role::Other && !instance.lives() {
        return Err("the daemon is gone with what it started".into());
    }
    // A task ends with its shim.
    let progress = Progress {
        life: plan.life,
        done,
        power: plan.role == Role::Other,
    };
    let place = subject.scratch.join("place");
    if plan.restarts {
        instance.kill9();
        instance.start()?;
    }
    let client = instance.connect().await?;
    check::all(&client, subject, &place, progress).await?;
    let mut from = done;
    if plan.role == Role::Other {
        from = end_of_what_was_killed(&client, progress).await?;
    }
    if plan.restarts {
        instance.kill9();
        check::machine(instance, false)?;
        instance.start()?;
    }
    let client = instance.connect().await?;
    let namespace = instance.namespace.clone();
    for (index, step) in plan.life.iter().enumerate().skip(from) {
        // The container outlives the sandbox that is made again.
        let again = index == done || (index < done && *step == Step::CreatePodContainer);
        life::perform(&client, subject, &namespace, *step, again)
            .await
            .map_err(|status| format!("the second try: {step:?}: {status:?}"))?;
    }
    check::nothing_is_left(&client).await?;
    instance.kill9();
    check::machine(instance, true)
}

/// Makes an end of the task and the sandbox that may have lost their shim; gives the step to go on from.
async fn end_of_what_was_killed(client: &Client, progress: Progress) -> Result<usize, String> {
    let Progress { life, done, .. } = progress;
    let made = life
        .iter()
        .position(|step| matches!(step, Step::Create | Step::CreatePod));
    let gone = life
        .iter()
        .position(|step| matches!(step, Step::Delete | Step::ShutdownPod));
    let (Some(made), Some(mut gone)) = (made, gone) else {
        return Ok(done);
    };
    if progress.has(Step::ShutdownPod) {
        gone = life.len() - 2;
    }
    if !(made..=gone).contains(&done) {
        return Ok(done);
    }
    let ended = life::end_task(client)
        .await
        .map_err(|status| format!("end the task: {status:?}"))?;
    // It was told, so it is known, whoever is killed afterwards.
    if progress.acknowledged(Step::Wait) && ended.is_some_and(|status| status != 9) {
        return Err(format!("the exit status was 9, and is {ended:?}"));
    }
    if progress.has(Step::CreatePod) {
        pod::end(client)
            .await
            .map_err(|status| format!("end the sandbox: {status:?}"))?;
    }
    Ok(made)
}

/// One life that ends the victim at its `point`th call; `None`: at none. Gives the calls of the victim.
fn strike(subject: &Subject, name: &str, plan: Plan, point: Option<usize>) -> Result<Vec<String>, String> {
    let mut instance = fresh(subject, name);
    let calls = Arc::new(Mutex::new(Vec::new()));
    let count = AtomicUsize::new(0);
    let seen = Arc::clone(&calls);
    instance.start_behind(move |call| {
        if !is_victim(call, plan.role) {
            return Verdict::Go;
        }
        seen.lock().expect("the calls").push(call.to_string());
        let number = count.fetch_add(1, Ordering::Relaxed);
        if Some(number) == point {
            Verdict::Kill
        } else {
            Verdict::Go
        }
    });
    let outcome = block_on(async {
        let done = first_part(&mut instance, subject, plan).await;
        if point.is_none() && done < plan.life.len() {
            return Err(format!("a life without a fault ends at {:?}", plan.life[done]));
        }
        second_part(&mut instance, subject, plan, done)
            .await
            .map_err(|error| format!("after {done} steps: {error}"))
    });
    let calls = calls.lock().expect("the calls").clone();
    let log = instance.log();
    drop(instance);
    let struck = point.and_then(|point| calls.get(point).cloned());
    outcome.map_err(|error| format!("killed at {point:?} ({struck:?}): {error}\n{log}"))?;
    std::fs::remove_dir_all(subject.scratch.join(name)).expect("remove the instance");
    Ok(calls)
}

fn at_each_point(what: &str, plan: Plan, at_most: usize) {
    let subject = Subject::new();
    let calls = strike(&subject, "none", plan, None).unwrap_or_else(|error| panic!("{error}"));
    points::each(what, calls.len(), at_most, |point| {
        strike(&subject, &format!("k{point}"), plan, Some(point)).map(drop)
    });
}

fn daemon(life: Life) -> Plan {
    Plan {
        life,
        role: Role::Daemon,
        restarts: true,
    }
}

fn others(life: Life, restarts: bool) -> Plan {
    Plan {
        life,
        role: Role::Other,
        restarts,
    }
}

#[test]
fn what_the_daemon_started_can_be_killed_anywhere() {
    let plan = others(life::CONTAINER, true);
    at_each_point("kill -9 of shims, then of the daemon", plan, SAMPLE / 3);
}

#[test]
fn the_daemon_goes_on_when_what_it_started_is_killed_anywhere() {
    let plan = others(life::CONTAINER, false);
    at_each_point("kill -9 of shims", plan, SAMPLE / 3);
}

#[test]
fn the_daemon_can_be_killed_anywhere() {
    at_each_point("kill -9 of the daemon", daemon(life::CONTAINER), SAMPLE);
}

#[test]
fn the_daemon_can_be_killed_in_any_call_on_the_stores() {
    let plan = daemon(life::STORES);
    at_each_point("kill -9 of the daemon, stores", plan, SAMPLE / 2);
}

#[test]
fn the_daemon_can_be_killed_while_a_lease_ends() {
    let plan = daemon(life::EXPIRY);
    at_each_point("kill -9 of the daemon, a lease that ends", plan, 2);
}

#[test]
fn the_daemon_can_be_killed_around_a_sandbox() {
    at_each_point("kill -9 of the daemon, sandbox", daemon(life::POD), SAMPLE / 4);
}

#[test]
fn the_shim_of_a_sandbox_can_be_killed_anywhere() {
    let plan = others(life::POD, false);
    at_each_point("kill -9 of shims, sandbox", plan, SAMPLE / 4);
}
