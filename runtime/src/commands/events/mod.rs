//! `events`: what a container uses, now and then, and when it ran out of memory; a JSON object a line.

mod shape;

use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use wharf_runtime::{Container, Status};

use super::Environment;
use shape::Event;

#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// How often to print what is in use (1m30s, 500ms)
    #[arg(long, value_name = "TIME", default_value = "5s")]
    interval: String,
    /// Print what is in use once
    #[arg(long)]
    stats: bool,
    /// The container's name
    id: String,
}

pub(super) fn perform(environment: &Environment<'_>, arguments: &Arguments) -> anyhow::Result<()> {
    let container = environment.load(&arguments.id)?;
    let interval = duration(&arguments.interval)
        .with_context(|| format!("invalid value {:?} for flag -interval", arguments.interval))?;
    if interval.is_zero() {
        bail!("duration interval must be greater than 0");
    }
    if container.state()?.status == Status::Stopped {
        bail!("container with id {} is not running", container.id());
    }
    if arguments.stats {
        return print_stats(&container);
    }
    watch(environment, &container, interval)
}

/// Prints until the container's group is gone, or nobody is in it any more.
fn watch(environment: &Environment<'_>, container: &Container, interval: Duration) -> anyhow::Result<()> {
    let group = container.cgroup();
    let mut oom = group.oom_watch()?.context("memory controller missing")?;
    let population = group.population_watch()?;
    let mut next = Instant::now() + interval;
    loop {
        let left = next.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: left.as_secs().cast_signed(),
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut fds = vec![PollFd::from_borrowed_fd(oom.as_fd(), PollFlags::IN)];
        if let Some(population) = &population {
            fds.push(PollFd::from_borrowed_fd(population.as_fd(), PollFlags::PRI));
        }
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno).context("wait for events"),
        }
        drop(fds);
        if oom.take()? {
            print(&Event::oom(container.id().as_str()))?;
        }
        let over = population.as_ref().map_or_else(
            || !group.exists(),
            wharf_runtime::cgroup::PopulationWatch::is_over,
        );
        if over {
            return Ok(());
        }
        if Instant::now() >= next {
            next += interval;
            if let Err(error) = print_stats(container) {
                if !group.exists() {
                    return Ok(());
                }
                environment.log.warning(&format!("{error:#}"));
            }
        }
    }
}

fn print_stats(container: &Container) -> anyhow::Result<()> {
    let stats = container.stats()?;
    let shares = container.intel_rdt_stats()?;
    print(&Event::stats(container.id().as_str(), &stats, &shares))
}

fn print(event: &Event<'_>) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    std::io::stdout()
        .write_all(&line)
        .context("write to standard output")
}

/// `1h2m3.5s`, `300ms`; nothing for what is no time, or below zero.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut total = Duration::ZERO;
    loop {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let seconds = match &rest[..end] {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
        rest = &rest[end..];
        if rest.is_empty() {
            return Some(total);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, milliseconds) in [
            ("5s", 5000),
            ("100ms", 100),
            ("1m30s", 90_000),
            ("1.5h", 5_400_000),
            ("0", 0),
            ("1us", 0),
        ] {
            assert_eq!(
                duration(text).map(|time| time.as_millis()),
                Some(milliseconds),
                "{text}"
            );
        }
        for text in ["", "5", "s", "-1s", "1x", "1s2", "99999999999999999999h"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
