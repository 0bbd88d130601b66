//! One command's time and memory, and the table of many.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use integration_tests::Scratch;

/// Compiles a C program of the benches into `scratch`. Static, as ours are: a dynamic one takes twice the time to start.
pub(crate) fn compile(scratch: &Scratch, name: &str, source: &str) -> Result<PathBuf> {
    let text = scratch.join(format!("{name}.c"));
    fs::write(&text, source).with_context(|| format!("write {}", text.display()))?;
    let program = scratch.join(name);
    let output = Command::new("cc")
        .args(["-O2", "-static", "-Wall", "-o"])
        .args([&program, &text])
        .output()
        .context("run cc, which the benches need")?;
    if !output.status.success() {
        bail!("cc {name}.c: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(program)
}

/// Rounds that do not count, before those that do.
pub(crate) const WARM_UP: usize = 3;

/// The program that runs one command and measures it.
pub(crate) struct Driver {
    program: PathBuf,
    result: PathBuf,
}

impl Driver {
    pub(crate) fn new(scratch: &Scratch) -> Result<Driver> {
        Ok(Driver {
            program: compile(scratch, "measure", include_str!("measure.c"))?,
            result: scratch.join("measured"),
        })
    }

    /// Where the program is.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// Runs a command that must succeed; its peak memory is that of its largest process.
    fn measure(&self, command: &Command) -> Result<Sample> {
        let mut driven = Command::new(&self.program);
        driven
            .arg(&self.result)
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        if let Some(directory) = command.get_current_dir() {
            driven.current_dir(directory);
        }
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => driven.env(name, value),
                None => driven.env_remove(name),
            };
        }
        let output = driven
            .stderr(Stdio::piped())
            .output()
            .with_context(|| format!("start {command:?}"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("{command:?} ended with {}: {said}", output.status);
        }
        let text =
            fs::read_to_string(&self.result).with_context(|| format!("read {}", self.result.display()))?;
        sample(&text)
    }
}

/// What the program wrote.
pub(crate) fn sample(text: &str) -> Result<Sample> {
    let mut numbers = text.split_whitespace().map(str::parse::<u64>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(nanoseconds)), Some(Ok(peak_kib))) => Ok(Sample {
            time: Duration::from_nanos(nanoseconds),
            peak_kib,
        }),
        _ => bail!("{text:?} is no measurement"),
    }
}

/// A command that is measured again and again.
pub(crate) struct Candidate<'a> {
    /// The name in the table.
    pub(crate) name: String,
    /// Makes the command of a round; the number is the round's and makes ids unique.
    pub(crate) command: Box<dyn Fn(usize) -> Command + 'a>,
}

/// One run of a command.
pub(crate) struct Sample {
    time: Duration,
    peak_kib: u64,
}

/// Runs `rounds` rounds, each candidate once a round, and prints the table. The first candidate is ours; ratios are ours
/// divided by theirs.
pub(crate) fn compare(
    driver: &Driver,
    title: &str,
    candidates: &[Candidate<'_>],
    rounds: usize,
) -> Result<()> {
    let mut samples: Vec<Vec<Sample>> = candidates.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds + WARM_UP {
        for (candidate, samples) in candidates.iter().zip(&mut samples) {
            let command = (candidate.command)(round);
            let sample = driver.measure(&command).with_context(|| candidate.name.clone())?;
            if round >= WARM_UP {
                samples.push(sample);
            }
        }
    }
    let names: Vec<&str> = candidates.iter().map(|it| it.name.as_str()).collect();
    print(
        &format!("{title} ({rounds} rounds, interleaved; load {})", load()),
        &names,
        &samples,
    );
    Ok(())
}

/// The table of what was measured, one line a name; ratios are the first one's median divided by theirs.
pub(crate) fn print(title: &str, names: &[&str], samples: &[Vec<Sample>]) {
    println!("\n{title}");
    println!(
        "{:<34} {:>10} {:>10} {:>8} {:>10}",
        "", "median ms", "best ms", "ratio", "peak KiB"
    );
    let ours = median(samples.first().map_or(&[], Vec::as_slice));
    for (name, samples) in names.iter().zip(samples) {
        let middle = median(samples);
        let best = samples.iter().map(|sample| sample.time).min().unwrap_or_default();
        let peak = samples
            .iter()
            .map(|sample| sample.peak_kib)
            .max()
            .unwrap_or_default();
        println!(
            "{name:<34} {:>10.2} {:>10.2} {:>8.3} {:>10}",
            milliseconds(middle),
            milliseconds(best),
            ours.as_secs_f64() / middle.as_secs_f64(),
            peak
        );
    }
}

fn median(samples: &[Sample]) -> Duration {
    let mut times: Vec<Duration> = samples.iter().map(|sample| sample.time).collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// The machine's load, without which no figure means anything.
fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("unknown").to_string()
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
