//! One command's time and memory, and the table of many.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A command that is measured again and again.
pub(crate) struct Candidate<'a> {
    /// The name in the table.
    pub(crate) name: String,
    /// Makes the command of a round; the number is the round's and makes ids unique.
    pub(crate) command: Box<dyn Fn(usize) -> Command + 'a>,
}

struct Sample {
    time: Duration,
    peak_kib: i64,
}

/// Runs `rounds` rounds, each candidate once a round, and prints the table. The first candidate is ours; ratios are ours
/// divided by theirs.
pub(crate) fn compare(title: &str, candidates: &[Candidate<'_>], rounds: usize) -> Result<()> {
    const WARM_UP: usize = 3;
    let mut samples: Vec<Vec<Sample>> = candidates.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds + WARM_UP {
        for (candidate, samples) in candidates.iter().zip(&mut samples) {
            let sample = measure((candidate.command)(round)).with_context(|| candidate.name.clone())?;
            if round >= WARM_UP {
                samples.push(sample);
            }
        }
    }
    println!("\n{title} ({rounds} rounds, interleaved)");
    println!(
        "{:<34} {:>10} {:>10} {:>8} {:>10}",
        "", "median ms", "best ms", "ratio", "peak KiB"
    );
    let ours = median(samples.first().map_or(&[], Vec::as_slice));
    for (candidate, samples) in candidates.iter().zip(&samples) {
        let middle = median(samples);
        let best = samples.iter().map(|sample| sample.time).min().unwrap_or_default();
        let peak = samples
            .iter()
            .map(|sample| sample.peak_kib)
            .max()
            .unwrap_or_default();
        println!(
            "{:<34} {:>10.2} {:>10.2} {:>8.3} {:>10}",
            candidate.name,
            milliseconds(middle),
            milliseconds(best),
            ours.as_secs_f64() / middle.as_secs_f64(),
            peak
        );
    }
    Ok(())
}

/// Runs a command that must succeed; its peak memory is that of its largest waited-for process.
fn measure(mut command: Command) -> Result<Sample> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let begin = Instant::now();
    let mut child = command.spawn().with_context(|| format!("start {command:?}"))?;
    let (status, usage) = wait4(child.id() as i32)?;
    let time = begin.elapsed();
    if !status.success() {
        let mut said = String::new();
        if let Some(mut stderr) = child.stderr.take() {
            std::io::Read::read_to_string(&mut stderr, &mut said)?;
        }
        bail!("{command:?} ended with {status}: {said}");
    }
    Ok(Sample {
        time,
        peak_kib: usage.ru_maxrss,
    })
}

#[allow(
    unsafe_code,
    reason = "wait4 is the only way to one child's resource usage, and no safe wrapper has it"
)]
fn wait4(pid: i32) -> Result<(ExitStatus, libc::rusage)> {
    let mut status = 0;
    // SAFETY: an all-zero rusage is a value of that plain C struct.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live locals of the types that wait4 writes.
    let waited = unsafe { libc::wait4(pid, &mut status, 0, &mut usage) };
    if waited != pid {
        bail!("wait for {pid}: {}", std::io::Error::last_os_error());
    }
    Ok((ExitStatus::from_raw(status), usage))
}

fn median(samples: &[Sample]) -> Duration {
    let mut times: Vec<Duration> = samples.iter().map(|sample| sample.time).collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
