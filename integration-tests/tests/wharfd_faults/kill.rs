//! `kill -9` of the daemon, or of what it started, on entering each call that has an effect.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::call::{Call, Effect, Role};
use crate::check::{self, Progress};
use crate::gate::Verdict;
use crate::instance::{Instance, block_on, is_gone};
use crate::life::{self, STEPS, Step};
use crate::points;
use crate::subject::Subject;

/// How many points a run takes for each victim, unless all are asked for.
const SAMPLE: usize = 30;

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

/// Runs one life from nothing, with the daemon behind the gate, until it ends or a call fails because its victim is gone;
/// gives the number of steps that were acknowledged.
async fn first_part(instance: &mut Instance, subject: &Subject, role: Role) -> usize {
    if !instance.serves() {
        return 0;
    }
    let Ok(client) = instance.connect().await else {
        return 0;
    };
    let namespace = instance.namespace.clone();
    for (done, step) in STEPS.into_iter().enumerate() {
        match life::perform(&client, subject, &namespace, step, false).await {
            Ok(()) => {}
            Err(status) if is_gone(&status) => return done,
            // Of what the daemon started, it tells the end itself.
            Err(_) if role == Role::Other => return done,
            Err(status) => panic!("{step:?}: {status:?}\n{}", instance.log()),
        }
    }
    STEPS.len()
}

/// After the fault: a new daemon; everything is as promised; the life goes on from the step that the fault struck.
async fn second_part(
    instance: &mut Instance,
    subject: &Subject,
    role: Role,
    done: usize,
) -> Result<(), String> {
    if role == Role::Other && !instance.lives() {
        return Err("the daemon is gone with what it started".into());
    }
    instance.kill9();
    // A task ends with its shim.
    let progress = Progress {
        done,
        power: role == Role::Other,
    };
    let place = subject.scratch.join("place");
    instance.start()?;
    let client = instance.connect().await?;
    check::all(&client, subject, &place, progress).await?;
    instance.kill9();
    check::machine(instance, false)?;
    instance.start()?;
    let client = instance.connect().await?;
    let namespace = instance.namespace.clone();
    let mut from = done;
    if role == Role::Other && done >= Step::Create as usize && done <= Step::Delete as usize {
        life::end_task(&client)
            .await
            .map_err(|status| format!("end the task: {status:?}"))?;
        from = Step::Create as usize;
    }
    for (index, step) in STEPS.into_iter().enumerate().skip(from) {
        life::perform(&client, subject, &namespace, step, index == done)
            .await
            .map_err(|status| format!("the second try: {step:?}: {status:?}"))?;
    }
    check::nothing_is_left(&client).await?;
    instance.kill9();
    check::machine(instance, true)
}

/// One life that ends the victim at its `point`th call; `None`: at none. Gives the calls of the victim.
fn strike(subject: &Subject, name: &str, role: Role, point: Option<usize>) -> Result<Vec<String>, String> {
    let mut instance = fresh(subject, name);
    let calls = Arc::new(Mutex::new(Vec::new()));
    let count = AtomicUsize::new(0);
    let seen = Arc::clone(&calls);
    instance.start_behind(move |call| {
        if !is_victim(call, role) {
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
        let done = first_part(&mut instance, subject, role).await;
        if point.is_none() && done < STEPS.len() {
            return Err(format!("a life without a fault ends at {:?}", STEPS[done]));
        }
        second_part(&mut instance, subject, role, done)
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

fn at_each_point(role: Role) {
    let subject = Subject::new();
    let calls = strike(&subject, "none", role, None).unwrap_or_else(|error| panic!("{error}"));
    points::each(&format!("kill -9 of {role:?}"), calls.len(), SAMPLE, |point| {
        strike(&subject, &format!("k{point}"), role, Some(point)).map(drop)
    });
}

#[test]
fn what_the_daemon_started_can_be_killed_anywhere() {
    at_each_point(Role::Other);
}

#[test]
fn the_daemon_can_be_killed_anywhere() {
    at_each_point(Role::Daemon);
}
