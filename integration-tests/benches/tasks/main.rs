//! `cargo xtask bench tasks`: what containerd's clients wait for, on `wharfd` and on containerd, called through gRPC.
//!
//! One client, one connection and the same specification for all; the daemons are asked in turn, so that what disturbs the
//! machine disturbs all of them. Nothing here is a test: figures are printed, not judged.

mod figure;
mod memory;
mod subject;

use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use integration_tests::containerd::Containerd;
use integration_tests::wharf::Wharfd;
use integration_tests::{Scratch, binaries};

use figure::{Figures, load};
use subject::{Kind, Network, Subject};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Cycles in the measurement of throughput, and how many of them at a time.
const CYCLES: usize = 400;
const ABREAST: usize = 8;
/// What a busy host holds.
const RUNNING: usize = 200;
const STOPPED: usize = 1000;
/// How many run while the memory of a shim is read.
const FLEET: usize = 50;
/// How much is written into the content store.
const INGEST: usize = 256 << 20;
/// And how often.
const INGESTS: usize = 7;

/// What `--only` takes, beside the memory of an idle daemon, which is always told.
const PARTS: [&str; 5] = ["cycles", "throughput", "exec", "busy", "ingest"];

struct Arguments {
    rounds: usize,
    /// Without peers: to be looked at by a profiler.
    alone: bool,
    /// The parts that are measured; all if none is named.
    parts: Vec<String>,
    /// Directories with another `containerd` and its shim.
    others: Vec<PathBuf>,
}

impl Arguments {
    fn parse() -> Result<Self> {
        let mut parsed = Self {
            rounds: 50,
            alone: false,
            parts: Vec::new(),
            others: Vec::new(),
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                // Cargo says so to every bench.
                "--bench" => {}
                "--alone" => parsed.alone = true,
                "--only" => {
                    let part = words.next().ok_or("--only PART")?;
                    if !PARTS.contains(&part.as_str()) {
                        return Err(format!("--only takes one of {PARTS:?}, not {part:?}").into());
                    }
                    parsed.parts.push(part);
                }
                "--rounds" => parsed.rounds = words.next().ok_or("--rounds N")?.parse()?,
                "--containerd" => parsed
                    .others
                    .push(words.next().ok_or("--containerd DIRECTORY")?.into()),
                other => return Err(format!("unknown argument {other:?}").into()),
            }
        }
        Ok(parsed)
    }

    fn wants(&self, part: &str) -> bool {
        self.parts.is_empty() || self.parts.iter().any(|wanted| wanted == part)
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse()?;
    if let Some(directory) = std::env::var_os("WHARF_PROGRAMS") {
        binaries::use_directory(directory.into());
    }
    // One thread: a client's own hand-overs between processors are none of a daemon's.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(compare(&arguments))
}

async fn compare(arguments: &Arguments) -> Result<()> {
    let scratch = Scratch::new();
    let mut subjects = start(&scratch, arguments).await?;
    println!("load {}, {} rounds", load(), arguments.rounds);

    println!("\nmemory of the daemon, PSS in KiB");
    for subject in &subjects {
        println!("{:<24} {:>8} idle", subject.name, memory::pss(subject.pid)?);
    }

    if arguments.wants("cycles") {
        cycles(&mut subjects, arguments.rounds, "idle host").await?;
    }
    if arguments.wants("throughput") {
        throughput(&mut subjects).await?;
    }
    if arguments.wants("exec") {
        executions(&mut subjects, arguments.rounds).await?;
    }
    if arguments.wants("busy") {
        busy(&mut subjects, arguments.rounds).await?;
    }
    if arguments.wants("ingest") {
        ingest(&mut subjects).await?;
    }
    Ok(())
}

/// The cycles again among containers: first those that do not run, which are the daemon's burden alone, then with those that do,
/// whose mounts, groups and processes are the kernel's as well.
async fn busy(subjects: &mut [Subject], rounds: usize) -> Result<()> {
    for subject in subjects.iter_mut() {
        subject.populate(0, STOPPED, FLEET).await?;
    }
    cycles(subjects, rounds, &format!("{STOPPED} stopped")).await?;
    for subject in subjects.iter_mut() {
        subject.populate(RUNNING, 0, FLEET).await?;
    }
    cycles(subjects, rounds, &format!("{STOPPED} stopped, {RUNNING} running")).await?;
    for subject in subjects.iter() {
        println!(
            "{:<24} {:>8} KiB PSS with {RUNNING} running",
            subject.name,
            memory::pss(subject.pid)?
        );
    }
    for subject in subjects.iter_mut() {
        subject.clear().await?;
    }
    Ok(())
}

/// Of several ingests the one in the middle: what the disk does besides is not ours.
async fn ingest(subjects: &mut [Subject]) -> Result<()> {
    for subject in subjects {
        let mut times = Vec::new();
        for _ in 0..INGESTS {
            times.push(subject.ingest(INGEST).await?);
        }
        times.sort_by_key(|(whole, hash)| whole.saturating_sub(*hash));
        let (whole, hash) = times[INGESTS / 2];
        let rate = |time: Duration| INGEST as f64 / time.as_secs_f64() / 1e9;
        println!(
            "{:<24} ingest {:.2} GB/s, {:.2} without the {:.0} ms of SHA-256",
            subject.name,
            rate(whole),
            rate(whole.saturating_sub(hash)),
            hash.as_secs_f64() * 1000.0
        );
    }
    Ok(())
}

/// Ours first: ratios are ours divided by theirs.
async fn start(scratch: &Scratch, arguments: &Arguments) -> Result<Vec<Subject>> {
    // Where daemons keep what dies with the boot there is no disk.
    scratch.tmpfs("wharfd/state");
    let wharfd = Wharfd::start(scratch);
    let socket = wharfd.socket();
    let mut subjects = vec![Subject::new("wharfd", scratch, &socket, Kind::Ours(wharfd)).await?];
    if arguments.alone {
        return Ok(subjects);
    }
    if binaries::find("containerd").is_some() {
        scratch.tmpfs("containerd/state");
        let containerd = Containerd::start(scratch);
        let socket = containerd.socket().to_path_buf();
        subjects.push(Subject::new("containerd", scratch, &socket, Kind::Peer(containerd)).await?);
    }
    for (number, directory) in arguments.others.iter().enumerate() {
        let name = format!("containerd-{}", number + 2);
        scratch.tmpfs(format!("{name}/state"));
        let containerd =
            Containerd::start_program(&scratch.join(&name), &directory.join("containerd"), directory);
        let socket = containerd.socket().to_path_buf();
        subjects.push(Subject::new(&name, scratch, &socket, Kind::Peer(containerd)).await?);
    }
    Ok(subjects)
}

/// Create, start, wait and delete a task, and the same with all that belongs to a container; with a network of the
/// container's own and with the host's.
async fn cycles(subjects: &mut [Subject], rounds: usize, host: &str) -> Result<()> {
    let on_host = format!("{host}, host's network");
    for (network, host) in [(Network::Host, on_host.as_str()), (Network::Own, host)] {
        cycles_with(network, subjects, rounds, host).await?;
    }
    Ok(())
}

async fn cycles_with(network: Network, subjects: &mut [Subject], rounds: usize, host: &str) -> Result<()> {
    let mut tasks = Figures::new(
        format!("{host}: task create, start, wait, delete"),
        subjects.len(),
    );
    let mut whole = Figures::new(format!("{host}: with its snapshot and container"), subjects.len());
    for _ in 0..rounds + 3 {
        for (number, subject) in subjects.iter_mut().enumerate() {
            let begin = Instant::now();
            let time = subject.cycle(network).await?;
            tasks.add(number, time);
            whole.add(number, begin.elapsed());
        }
    }
    tasks.print(subjects);
    whole.print(subjects);
    Ok(())
}

async fn throughput(subjects: &mut [Subject]) -> Result<()> {
    println!("\n{CYCLES} of these cycles, {ABREAST} at a time");
    for (network, named) in [
        (Network::Host, "host's network"),
        (Network::Own, "network of its own"),
    ] {
        throughput_with(network, named, subjects).await?;
    }
    Ok(())
}

async fn throughput_with(network: Network, named: &str, subjects: &mut [Subject]) -> Result<()> {
    for subject in subjects {
        let begin = Instant::now();
        let mut under_way = tokio::task::JoinSet::new();
        for _ in 0..CYCLES {
            if under_way.len() == ABREAST {
                under_way.join_next().await.ok_or("no task")???;
            }
            let mut own = subject.again();
            under_way.spawn(async move {
                own.cycle(network)
                    .await
                    .map(drop)
                    .map_err(|error| error.to_string())
            });
        }
        while let Some(ended) = under_way.join_next().await {
            ended??;
        }
        let rate = CYCLES as f64 / begin.elapsed().as_secs_f64();
        println!("{:<24} {rate:>8.1} a second, {named}", subject.name);
    }
    Ok(())
}

async fn executions(subjects: &mut [Subject], rounds: usize) -> Result<()> {
    for subject in subjects.iter_mut() {
        subject.run_detached("target").await?;
    }
    let mut figures = Figures::new("exec, start, wait, delete of true".into(), subjects.len());
    for _ in 0..rounds + 3 {
        for (number, subject) in subjects.iter_mut().enumerate() {
            figures.add(number, subject.execute("target").await?);
        }
    }
    figures.print(subjects);
    for subject in subjects.iter_mut() {
        subject.remove("target").await?;
    }
    Ok(())
}
