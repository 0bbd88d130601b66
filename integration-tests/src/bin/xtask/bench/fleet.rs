//! Fifty containers: started one after the other and eight at a time, executed into, looked at, removed.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use integration_tests::Scratch;
use integration_tests::daemon::Daemon;

use super::measure::{Candidate, Driver, compare};
use super::peers::{Engine, Engines};

/// How many containers.
const FLEET: usize = 50;
/// How many commands at a time.
const ABREAST: usize = 8;
/// What runs in each.
const PROGRAM: [&str; 2] = ["/bin/sleep", "1000"];

/// Compares the engines with a fleet of containers.
pub(crate) fn compare_fleets(rounds: usize) -> Result<()> {
    let scratch = Scratch::new();
    let engines = Engines::start(&scratch);
    executions(&Driver::new(&scratch)?, &engines, rounds)?;
    println!("\n{FLEET} containers, in seconds");
    println!(
        "{:<34} {:>10} {:>10} {:>10} {:>12}",
        "", "one by one", "8 abreast", "rm -f", "shim PSS KiB"
    );
    for engine in &engines.list {
        let one_by_one = start(engine, 1)?;
        let pss = match engine.name {
            "wharf" => shims_pss(engines.wharf.daemon.as_ref().map_or(0, Daemon::pid))?.to_string(),
            _ => String::new(),
        };
        let removed = remove(engine)?;
        let abreast = start(engine, ABREAST)?;
        remove(engine)?;
        println!(
            "{:<34} {:>10.2} {:>10.2} {:>10.2} {:>12}",
            engine.name,
            one_by_one.as_secs_f64(),
            abreast.as_secs_f64(),
            removed.as_secs_f64(),
            pss
        );
    }
    Ok(())
}

fn executions(driver: &Driver, engines: &Engines, rounds: usize) -> Result<()> {
    for engine in &engines.list {
        end(engine.run(&["-d", "--name", "target"], &PROGRAM))?;
    }
    let candidates: Vec<Candidate<'_>> = engines
        .list
        .iter()
        .map(|engine| Candidate {
            name: engine.name.into(),
            command: Box::new(|_| engine.command(&["exec", "target", "/bin/true"])),
        })
        .collect();
    compare(driver, "exec … /bin/true", &candidates, rounds)?;
    for engine in &engines.list {
        end(engine.command(&["rm", "-f", "target"]))?;
    }
    Ok(())
}

/// Starts the fleet with so many commands at a time.
fn start(engine: &Engine, abreast: usize) -> Result<Duration> {
    let begin = Instant::now();
    let mut under_way: Vec<Child> = Vec::new();
    for number in 0..FLEET {
        if under_way.len() == abreast {
            finish(under_way.remove(0))?;
        }
        let name = format!("fleet{number}");
        under_way.push(spawn(engine.run(&["-d", "--name", &name], &PROGRAM))?);
    }
    for child in under_way {
        finish(child)?;
    }
    Ok(begin.elapsed())
}

/// Removes the fleet with one command.
fn remove(engine: &Engine) -> Result<Duration> {
    let names: Vec<String> = (0..FLEET).map(|number| format!("fleet{number}")).collect();
    let mut command = engine.command(&["rm", "-f"]);
    command.args(names);
    let begin = Instant::now();
    end(command)?;
    Ok(begin.elapsed())
}

fn spawn(mut command: Command) -> Result<Child> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit());
    command.spawn().with_context(|| format!("start {command:?}"))
}

fn finish(mut child: Child) -> Result<()> {
    let status = child.wait()?;
    if !status.success() {
        bail!("a command of the fleet ended with {status}");
    }
    Ok(())
}

fn end(command: Command) -> Result<()> {
    finish(spawn(command)?)
}

/// The proportional set size of an average shim that was started below the process `daemon`, in KiB.
fn shims_pss(daemon: i32) -> Result<u64> {
    let mut sizes = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let read = |name: &str| fs::read_to_string(path.join(name)).unwrap_or_default();
        if read("comm").trim() != "containerd-shim" || !is_below(&read("stat"), daemon) {
            continue;
        }
        let rollup = read("smaps_rollup");
        let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        let kib = pss.and_then(|pss| pss.split_whitespace().next()?.parse::<u64>().ok());
        sizes.extend(kib);
    }
    if sizes.is_empty() {
        bail!("no shim runs");
    }
    Ok(sizes.iter().sum::<u64>() / sizes.len() as u64)
}

/// Whether the process with this `/proc/PID/stat` descends from `ancestor`.
fn is_below(stat: &str, ancestor: i32) -> bool {
    let mut stat = stat.to_owned();
    // Bounded: the chain of parents ends at 0.
    loop {
        let parent = stat
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse::<i32>().ok());
        match parent {
            Some(parent) if parent == ancestor => return true,
            None | Some(0) => return false,
            Some(parent) => stat = fs::read_to_string(format!("/proc/{parent}/stat")).unwrap_or_default(),
        }
    }
}
