//! A disk without space, and one that cannot write: injected at each call that can meet it, and real, on a small filesystem.
//!
//! A call that fails says why; what was acknowledged is there; the very daemon that met the fault, if it lives, does the
//! second try once the fault is over.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use integration_tests::{binaries, run};
use tonic::Status;

use crate::call::{Call, Effect, Role};
use crate::check::{self, Progress};
use crate::gate::Verdict;
use crate::instance::{Client, Instance, block_on, is_gone};
use crate::kill::fresh;
use crate::life::{self, CONTAINER, Life, Step};
use crate::points;
use crate::subject::Subject;

/// How many points a run takes for each kind of fault, unless all are asked for.
const SAMPLE: usize = 10;

/// A fault of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// From a call on, whatever needs space fails, until a call on the daemon failed.
    Full,
    /// One write fails.
    Write,
    /// One flush fails.
    Flush,
}

impl Fault {
    fn meets(self, call: &Call, role: Role) -> bool {
        let effect = match self {
            Self::Full | Self::Write => Effect::Grow,
            Self::Flush => Effect::Flush,
        };
        call.role == role && call.effect == effect
    }

    fn error(self) -> i32 {
        match self {
            Self::Full => libc::ENOSPC,
            Self::Write | Self::Flush => libc::EIO,
        }
    }

    /// Whether a call that failed says so.
    fn is_told(self, status: &Status) -> bool {
        let text = format!("{status:?}").to_lowercase();
        match self {
            Self::Full => text.contains("no space left") || text.contains("enospc"),
            Self::Write | Self::Flush => text.contains("input/output error") || text.contains("i/o error"),
        }
    }
}

/// One whole life in which calls may fail. `over` ends the fault.
async fn live(
    instance: &mut Instance,
    subject: &Subject,
    life: Life,
    told: impl Fn(&Status) -> bool,
    over: impl Fn(),
) -> Result<(), String> {
    // What comes after it listens can fail, too.
    if !instance.serves() || (instance.connect().await.is_err() && instance.has_ended()) {
        let log = instance.log();
        if log.contains("panicked") {
            return Err("the daemon panicked".into());
        }
        over();
        instance.kill9();
        instance.start()?;
    }
    let place = subject.scratch.join("place");
    let mut client = instance.connect().await?;
    for (done, step) in life.iter().copied().enumerate() {
        let first = life::perform(&client, subject, &instance.namespace, step, false).await;
        let Err(status) = first else { continue };
        over();
        let progress = Progress {
            life,
            done,
            power: false,
        };
        if !instance.lives() {
            if instance.log().contains("panicked") {
                return Err(format!("{step:?}: the daemon panicked"));
            }
            instance.start()?;
            client = instance.connect().await?;
        } else if is_gone(&status) || !told(&status) {
            return Err(format!("{step:?} does not tell the fault: {status:?}"));
        } else if step == Step::Pull {
            check::no_operation_holds_anything(&client).await?;
        }
        check::all(&client, subject, &place, progress)
            .await
            .map_err(|error| format!("{step:?} failed ({status:?}); then: {error}"))?;
        life::perform(&client, subject, &instance.namespace, step, true)
            .await
            .map_err(|second| format!("{step:?} failed ({status:?}); its second try: {second:?}"))?;
        // What the failure left in memory and what it left on the disk are the same.
        instance.kill9();
        instance.start()?;
        client = instance.connect().await?;
        let progress = Progress {
            life,
            done: done + 1,
            power: false,
        };
        check::all(&client, subject, &place, progress)
            .await
            .map_err(|error| {
                format!("{step:?} failed ({status:?}), its second try did not; after a kill: {error}")
            })?;
    }
    over();
    check::nothing_is_left(&client).await?;
    // What a failed removal left is the next daemon's to remove.
    instance.kill9();
    instance.start()?;
    instance.kill9();
    check::machine(instance, true)
}

/// One life with `fault` at the `point`th call that can meet it. Gives those calls.
fn strike(
    subject: &Subject,
    name: &str,
    (fault, role, life): (Fault, Role, Life),
    point: Option<usize>,
) -> Result<Vec<String>, String> {
    let mut instance = fresh(subject, name);
    let calls = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&calls);
    let over = Arc::new(AtomicBool::new(false));
    let is_over = Arc::clone(&over);
    let count = AtomicUsize::new(0);
    instance.start_behind(move |call| {
        if !fault.meets(call, role) || is_over.load(Ordering::Relaxed) {
            return Verdict::Go;
        }
        seen.lock().expect("the calls").push(call.to_string());
        let number = count.fetch_add(1, Ordering::Relaxed);
        let struck = match fault {
            Fault::Full => point.is_some_and(|point| number >= point),
            Fault::Write | Fault::Flush => point == Some(number),
        };
        if struck {
            Verdict::Fail(fault.error())
        } else {
            Verdict::Go
        }
    });
    let outcome = block_on(live(
        &mut instance,
        subject,
        life,
        |status| fault.is_told(status),
        || over.store(true, Ordering::Relaxed),
    ));
    let calls = calls.lock().expect("the calls").clone();
    let log = instance.log();
    drop(instance);
    let struck = point.and_then(|point| calls.get(point).cloned());
    outcome.map_err(|error| format!("{fault:?} at {point:?} ({struck:?}): {error}\n{log}"))?;
    fs::remove_dir_all(subject.scratch.join(name)).expect("remove the instance");
    Ok(calls)
}

fn at_each_point(what: &str, (fault, role, life): (Fault, Role, Life), at_most: usize) {
    let subject = Subject::new();
    let plan = (fault, role, life);
    let calls = strike(&subject, "none", plan, None).unwrap_or_else(|error| panic!("{error}"));
    points::each(what, calls.len(), at_most, |point| {
        strike(&subject, &format!("p{point}"), plan, Some(point)).map(drop)
    });
}

#[test]
fn the_disk_can_be_full_anywhere() {
    let plan = (Fault::Full, Role::Daemon, CONTAINER);
    at_each_point("ENOSPC for the daemon", plan, SAMPLE);
}

#[test]
fn any_write_can_fail() {
    let plan = (Fault::Write, Role::Daemon, CONTAINER);
    at_each_point("EIO of a write", plan, SAMPLE);
}

#[test]
fn any_flush_can_fail() {
    let plan = (Fault::Flush, Role::Daemon, CONTAINER);
    at_each_point("EIO of a flush", plan, SAMPLE);
}

#[test]
fn the_disk_can_be_full_for_what_the_daemon_started() {
    let plan = (Fault::Full, Role::Other, CONTAINER);
    at_each_point("ENOSPC for shims", plan, SAMPLE);
}

#[test]
fn the_disk_can_be_full_in_any_call_on_the_stores() {
    let plan = (Fault::Full, Role::Daemon, life::STORES);
    at_each_point("ENOSPC for the daemon, stores", plan, SAMPLE / 2);
}

#[test]
fn any_flush_can_fail_in_any_call_on_the_stores() {
    let plan = (Fault::Flush, Role::Daemon, life::STORES);
    at_each_point("EIO of a flush, stores", plan, SAMPLE / 2);
}

#[test]
fn the_disk_can_be_full_around_a_sandbox() {
    let plan = (Fault::Full, Role::Daemon, life::POD);
    at_each_point("ENOSPC for the daemon, sandbox", plan, SAMPLE / 4);
}

/// Lives up to `last`, where the first flush that `chosen` picks fails; gives that flush's file.
async fn flush_fails(
    subject: &Subject,
    instance: &mut Instance,
    chosen: fn(&Call) -> bool,
    last: Step,
) -> (Client, String) {
    let armed = Arc::new(AtomicBool::new(false));
    let is_armed = Arc::clone(&armed);
    let failed = Arc::new(Mutex::new(None));
    let file = Arc::clone(&failed);
    instance.start_behind(move |call| {
        let mut file = file.lock().expect("the file");
        if call.effect == Effect::Flush && file.is_none() && is_armed.load(Ordering::Relaxed) && chosen(call)
        {
            *file = Some(call.file.clone());
            return Verdict::Fail(libc::EIO);
        }
        Verdict::Go
    });
    assert!(instance.serves(), "{}", instance.log());
    let client = instance.connect().await.expect("a connection");
    for step in CONTAINER.iter().copied().take_while(|step| *step != last) {
        life::perform(&client, subject, &instance.namespace, step, false)
            .await
            .expect("a step before the fault");
    }
    armed.store(true, Ordering::Relaxed);
    let status = life::perform(&client, subject, &instance.namespace, last, false)
        .await
        .expect_err("a step that fails");
    assert!(Fault::Flush.is_told(&status), "{status:?}");
    let file = failed
        .lock()
        .expect("the file")
        .clone()
        .expect("a flush that failed");
    (client, file)
}

#[test]
fn bytes_whose_flush_failed_are_not_resumed() {
    let subject = Subject::new();
    let mut instance = fresh(&subject, "flush");
    let chosen = |call: &Call| call.file.contains("/content/ingest/");
    let (_, file) = block_on(flush_fails(&subject, &mut instance, chosen, Step::WriteBlob));
    assert_eq!(fs::metadata(&file).expect("the ingest").len(), 0);
}

#[test]
fn a_snapshot_whose_flush_failed_is_never_committed() {
    let subject = Subject::new();
    let mut instance = fresh(&subject, "flush");
    let chosen = |call: &Call| call.name == "syncfs";
    block_on(async {
        let step = Step::CommitLayer;
        let (client, _) = flush_fails(&subject, &mut instance, chosen, step).await;
        let refused = life::perform(&client, &subject, &instance.namespace, step, false)
            .await
            .expect_err("a snapshot that may have lost files");
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused:?}");
        // Made anew, it can be.
        life::perform(&client, &subject, &instance.namespace, step, true)
            .await
            .expect("a snapshot that was made after the fault");
    });
}

/// A filesystem of 48 MiB in a file.
struct Small(PathBuf);

impl Small {
    fn new(scratch: &integration_tests::Scratch) -> Self {
        let image = scratch.join("small.img");
        let file = File::create(&image).expect("make an image");
        file.set_len(48 << 20).expect("size the image");
        run(Command::new(binaries::peer("mkfs.ext4"))
            .args(["-q", "-F", "-m", "0"])
            .arg(&image))
        .ok();
        let directory = scratch.directory("small");
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(&image)
            .arg(&directory))
        .ok();
        Self(directory)
    }

    /// Leaves `free` bytes, about.
    fn fill(&self, free: u64) {
        let file = File::create(self.0.join("filler")).expect("make the filler");
        let available = rustix::fs::statvfs(&self.0).expect("statvfs");
        let bytes = (available.f_bavail * available.f_frsize).saturating_sub(free);
        let block = vec![1; 64 << 10];
        let mut offset = 0;
        while offset < bytes {
            let length = block.len().min((bytes - offset) as usize);
            if file.write_all_at(&block[..length], offset).is_err() {
                break;
            }
            offset += length as u64;
        }
    }

    fn free(&self) {
        let filler = self.0.join("filler");
        if filler.exists() {
            fs::remove_file(filler).expect("remove the filler");
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        run(Command::new("umount").arg("--lazy").arg(&self.0));
    }
}

fn on_a_small_disk(subject: &Subject, small: &Path, name: &str) -> Instance {
    let home = subject.scratch.directory(name);
    let namespace = format!("{}-{name}", subject.scratch.unique());
    Instance::new(&home, &small.join("root"), &namespace)
}

#[test]
fn a_disk_that_runs_full_earlier_or_later() {
    let subject = Subject::new();
    let small = Small::new(&subject.scratch);
    // From hardly a block to what a whole life takes, in steps of a fifth.
    let sizes: Vec<u64> = std::iter::successors(Some(8192u64), |size| Some(size + size / 5))
        .take_while(|size| *size < 9 << 20)
        .collect();
    points::each("a disk that is full", sizes.len(), 6, |point| {
        let size = sizes[point];
        let mut instance = on_a_small_disk(&subject, &small.0, &format!("s{size}"));
        fs::create_dir_all(&instance.root).expect("make the root");
        small.fill(size);
        instance.start_behind(|_| Verdict::Go);
        let told = |status: &Status| Fault::Full.is_told(status);
        let outcome = block_on(live(&mut instance, &subject, CONTAINER, told, || small.free()));
        let log = instance.log();
        drop(instance);
        small.free();
        fs::remove_dir_all(small.0.join("root")).expect("remove the root");
        outcome.map_err(|error| format!("{size} bytes free: {error}\n{log}"))
    });
}
