//! Power loss: whatever the disk has when its power goes is enough.
//!
//! One life is recorded on a disk with a volatile cache; then the disk is made again as it was at a moment, less what no
//! flush covered, and a daemon of another boot finds there what was acknowledged before that moment.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use integration_tests::run;

use crate::call::{Call, Effect};
use crate::check::{self, Progress};
use crate::device::{Device, Event, Record, Volatile};
use crate::gate::Verdict;
use crate::instance::{Instance, block_on};
use crate::life::{self, CONTAINER, Life, STORES};
use crate::points;
use crate::subject::Subject;

/// How many moments a run takes, unless all are asked for.
const SAMPLE: usize = 14;
/// How many failing writes.
const FAILING: usize = 4;

/// Records a life on a disk whose write number `bad` fails, with the daemon behind the gate.
fn record(
    subject: &Subject,
    name: &str,
    life: Life,
    bad: Option<usize>,
    decide: impl FnMut(&Call) -> Verdict + Send + 'static,
) -> (Record, usize) {
    let device = Device::new(&subject.scratch, name, bad);
    let home = subject.scratch.directory(format!("{name}/home"));
    let namespace = format!("{}-{name}", subject.scratch.unique());
    let mut instance = Instance::new(&home, &device.mounted.join("root"), &namespace);
    let before = device.writes();
    instance.start_behind(decide);
    let lived: Result<(), String> = block_on(async {
        if !instance.serves() {
            return Err("the daemon does not come up".into());
        }
        let client = instance.connect().await?;
        for (done, step) in life.iter().copied().enumerate() {
            if let Err(first) = life::perform(&client, subject, &namespace, step, false).await {
                life::perform(&client, subject, &namespace, step, true)
                    .await
                    .map_err(|second| format!("{step:?}: {first:?}, then {second:?}"))?;
            }
            device.mark(done + 1);
        }
        Ok(())
    });
    if bad.is_none() {
        lived.unwrap_or_else(|error| panic!("{error}\n{}", instance.log()));
    }
    let writes = device.writes() - before;
    let record = device.record();
    drop(instance);
    (record, writes)
}

/// The filesystem of a disk that was cut off.
struct Found(PathBuf);

impl Found {
    fn mount(subject: &Subject, image: &std::path::Path) -> Result<Self, String> {
        let name = image.with_extension("mounted");
        let directory = subject.scratch.directory(name);
        let mounted = run(Command::new("mount")
            .args(["-t", "ext4", "-o", "loop,nodiscard"])
            .arg(image)
            .arg(&directory));
        if mounted.code == 0 {
            Ok(Self(directory))
        } else {
            Err(format!("{mounted}"))
        }
    }
}

impl Drop for Found {
    fn drop(&mut self) {
        run(Command::new("umount").arg("--lazy").arg(&self.0));
    }
}

/// What a daemon finds after a cut; `again`: it does a whole life.
fn find(
    subject: &Subject,
    (record, life): (&Record, Life),
    cut: usize,
    volatile: Volatile,
    again: bool,
) -> Result<(), String> {
    // Not one for all: what was mounted before may still be on its way out.
    let image = subject.scratch.join(format!("cut{cut}.img"));
    record.cut(&image, cut, volatile);
    let found = Found::mount(subject, &image)?;
    let name = format!("c{cut}");
    let home = subject.scratch.directory(&name);
    let namespace = format!("{}-power", subject.scratch.unique());
    // The rows are in the namespace of the life that was recorded.
    let mut instance = Instance::new(&home, &found.0.join("root"), &namespace)
        .in_another_boot("11111111-2222-3333-4444-555555555555");
    let done = record.done(cut);
    let outcome = block_on(async {
        instance.start()?;
        let client = instance.connect().await?;
        let place = subject.scratch.join("place");
        let progress = Progress {
            life,
            done,
            power: true,
        };
        check::all(&client, subject, &place, progress).await?;
        instance.kill9();
        check::machine(&instance, false)?;
        if !again {
            return Ok(());
        }
        instance.start()?;
        let client = instance.connect().await?;
        for step in life {
            life::perform(&client, subject, &namespace, *step, true)
                .await
                .map_err(|status| format!("the second try: {step:?}: {status:?}"))?;
        }
        check::nothing_is_left(&client).await?;
        instance.kill9();
        check::machine(&instance, true)
    });
    let log = instance.log();
    drop(instance);
    outcome.map_err(|error: String| {
        format!("power lost at {cut} ({volatile:?}), {done} steps acknowledged: {error}\n{log}")
    })?;
    drop(found);
    fs::remove_file(image).expect("remove the image");
    fs::remove_dir_all(home).expect("remove the instance");
    Ok(())
}

fn at_any_moment(what: &str, life: Life, at_most: usize) {
    let subject = Subject::new();
    let (record, _) = record(&subject, "power", life, None, |_| Verdict::Go);
    points::each(what, record.events.len(), at_most, |cut| {
        find(&subject, (&record, life), cut, Volatile::by_chance(cut), true)
    });
}

#[test]
fn the_power_can_go_at_any_moment() {
    at_any_moment("power loss", CONTAINER, SAMPLE);
}

#[test]
fn the_power_can_go_in_any_call_on_the_stores() {
    at_any_moment("power loss, stores", STORES, SAMPLE / 2);
}

/// The first loss that is found when the power goes after each acknowledgement.
fn first_loss(subject: &Subject, record: &Record) -> Option<String> {
    let marks = record
        .events
        .iter()
        .enumerate()
        .filter(|(_, event)| matches!(event, Event::Mark(_)));
    marks
        .map(|(number, _)| find(subject, (record, CONTAINER), number + 1, Volatile::Lost, false))
        .find_map(Result::err)
}

/// A write that fails is told once, and never tried again: what is acknowledged after that must not rest on it.
#[test]
fn the_power_goes_after_a_write_failed() {
    let subject = Subject::new();
    let (_, writes) = record(&subject, "power", CONTAINER, None, |_| Verdict::Go);
    points::each("power loss after a failed write", writes, FAILING, |bad| {
        fs::remove_dir_all(subject.scratch.join("power")).expect("remove the disk");
        let (record, _) = self::record(&subject, "power", CONTAINER, Some(bad), |_| Verdict::Go);
        first_loss(&subject, &record).map_or(Ok(()), Err)
    });
}

/// Takes out the flushes that `taken` picks, and expects that this is found.
fn is_found(taken: fn(&Call) -> bool) {
    let subject = Subject::new();
    let (record, _) = record(&subject, "power", CONTAINER, None, move |call| {
        if call.effect == Effect::Flush && taken(call) {
            Verdict::Skip
        } else {
            Verdict::Go
        }
    });
    let loss = first_loss(&subject, &record).expect("a loss that is found");
    eprintln!("{}", loss.lines().next().unwrap_or_default());
}

#[test]
fn a_flush_of_the_metadata_that_is_left_out_is_found() {
    is_found(|call| call.file.ends_with("/metadata.redb"));
}

#[test]
fn a_flush_of_content_that_is_left_out_is_found() {
    is_found(|call| call.file.contains("/content/ingest/"));
}

#[test]
fn a_flush_of_snapshots_that_is_left_out_is_found() {
    is_found(|call| call.name == "syncfs");
}
