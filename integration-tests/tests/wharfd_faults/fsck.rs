//! `kill -9` of `wharfd fsck` at each of its calls: what it did until then does no harm, and the next one repairs the rest.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use integration_tests::leftovers;

use crate::call::{Effect, Role};
use crate::check;
use crate::gate::{self, Verdict};
use crate::instance::{Instance, block_on};
use crate::kill::fresh;
use crate::life::{self, CONTAINER, Step};
use crate::points;
use crate::subject::Subject;

/// How many points a run takes, unless all are asked for.
const SAMPLE: usize = 5;

/// The first regular file below `directory` whose path contains `part`.
fn any_file(directory: PathBuf, part: &str) -> Option<PathBuf> {
    let mut pending = vec![directory];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).ok()?.flatten() {
            let path = entry.path();
            if path.is_dir() {
                pending.push(path);
            } else if path.is_file() && path.to_string_lossy().contains(part) {
                return Some(path);
            }
        }
    }
    None
}

/// A daemon that was killed while a container ran, the container's shim, too; a blob that is gone, and one that nobody has.
fn damage(instance: &mut Instance, subject: &Subject) -> Result<(), String> {
    instance.start()?;
    block_on(async {
        let client = instance.connect().await?;
        for step in CONTAINER.iter().take_while(|step| **step != Step::Exec) {
            life::perform(&client, subject, &instance.namespace, *step, false)
                .await
                .map_err(|status| format!("{step:?}: {status:?}"))?;
        }
        Ok::<_, String>(())
    })?;
    instance.kill9();
    for (pid, _) in leftovers::processes_with(&format!(" -namespace {} ", instance.namespace)) {
        gate::kill(pid);
    }
    let blobs = instance.root.join("content/blobs");
    let hex = life::blob_digest().replace("sha256:", "");
    let blob = any_file(blobs.clone(), &hex).ok_or("the blob's file is not found")?;
    fs::rename(&blob, blob.with_file_name("0".repeat(64))).map_err(|error| error.to_string())
}

fn strike(subject: &Subject, name: &str, point: Option<usize>) -> Result<Vec<String>, String> {
    let mut instance = fresh(subject, name);
    damage(&mut instance, subject)?;
    let calls = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&calls);
    let count = AtomicUsize::new(0);
    let mut command: Command = instance.command(&["fsck", "--format", "json"]);
    let log = instance.home.join("fsck");
    let mut child = gate::spawn(&mut command, &log, move |call| {
        if call.role != Role::Daemon || call.effect == Effect::None {
            return Verdict::Go;
        }
        seen.lock().expect("the calls").push(call.to_string());
        if Some(count.fetch_add(1, Ordering::Relaxed)) == point {
            Verdict::Kill
        } else {
            Verdict::Go
        }
    });
    let ended = child.wait().expect("wait for fsck");
    let said = fs::read_to_string(&log).unwrap_or_default();
    let calls = calls.lock().expect("the calls").clone();
    let struck = point.and_then(|point| calls.get(point).cloned());
    let outcome = if point.is_none() && ended.code() != Some(1) {
        Err(format!("fsck ended with {ended}: {said}"))
    } else {
        repaired(&mut instance, subject)
    };
    let log = instance.log();
    drop(instance);
    outcome.map_err(|error| format!("killed at {point:?} ({struck:?}): {error}\n{said}\n{log}"))?;
    fs::remove_dir_all(subject.scratch.join(name)).expect("remove the instance");
    Ok(calls)
}

/// The next repair leaves nothing wrong; what was not damaged is there, and the whole life can be lived again.
fn repaired(instance: &mut Instance, subject: &Subject) -> Result<(), String> {
    let next = instance.run(&["fsck"]);
    if next.code != 0 && next.code != 1 {
        return Err(format!("the next fsck: {next}"));
    }
    check::machine(instance, false)?;
    instance.start()?;
    block_on(async {
        let client = instance.connect().await?;
        let top = check::chain(&client, subject)
            .await
            .map_err(|status| format!("the image: {status:?}"))?;
        check::stat(&client, &top)
            .await
            .map_err(|status| format!("the image's snapshot: {status:?}"))?;
        life::end_task(&client)
            .await
            .map_err(|status| format!("end the task: {status:?}"))?;
        for step in CONTAINER {
            life::perform(&client, subject, &instance.namespace, *step, true)
                .await
                .map_err(|status| format!("again: {step:?}: {status:?}"))?;
        }
        check::nothing_is_left(&client).await
    })?;
    instance.kill9();
    check::machine(instance, true)
}

#[test]
fn a_repair_can_be_killed_anywhere() {
    let subject = Subject::new();
    let calls = strike(&subject, "none", None).unwrap_or_else(|error| panic!("{error}"));
    points::each("kill -9 of a repair", calls.len(), SAMPLE, |point| {
        strike(&subject, &format!("f{point}"), Some(point)).map(drop)
    });
}
