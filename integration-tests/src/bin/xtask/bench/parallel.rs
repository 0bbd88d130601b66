//! A hundred creations, one after the other and all at once: whether they wait for each other.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::runtime::Runtime;

const COUNT: usize = 100;

/// Creates and deletes with each runtime.
pub(crate) fn compare_creations<'a>(
    runtimes: impl Iterator<Item = &'a Runtime>,
    bundle: &Path,
) -> Result<()> {
    println!("\n{COUNT} × create");
    println!("{:<34} {:>14} {:>14}", "", "in sequence ms", "at once ms");
    for runtime in runtimes {
        let sequence = created(runtime, bundle, "sequence", 1)?;
        let at_once = created(runtime, bundle, "at-once", COUNT)?;
        println!(
            "{:<34} {:>14.0} {:>14.0}",
            runtime.name,
            sequence.as_secs_f64() * 1e3,
            at_once.as_secs_f64() * 1e3
        );
    }
    Ok(())
}

/// The time that the creations take, with so many at a time; they are deleted after that.
fn created(runtime: &Runtime, bundle: &Path, name: &str, at_a_time: usize) -> Result<Duration> {
    let bundle = bundle.display().to_string();
    let ids: Vec<String> = (0..COUNT)
        .map(|number| runtime.id(&format!("{name}-{number}")))
        .collect();
    let begin = Instant::now();
    let mut failed = 0;
    for some in ids.chunks(at_a_time) {
        let start = |id: &String| {
            let mut command = runtime.command(&["create", "--bundle", &bundle, id]);
            // The container keeps these streams: pipes would never end.
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
        };
        let started: Vec<Child> = some.iter().map(start).collect::<Result<_, _>>()?;
        for mut child in started {
            failed += usize::from(!child.wait()?.success());
        }
    }
    let time = begin.elapsed();
    for id in &ids {
        integration_tests::run(&mut runtime.command(&["delete", "--force", id]));
    }
    if failed > 0 {
        bail!("{failed} of {COUNT} creations by {} failed", runtime.name);
    }
    Ok(time)
}
