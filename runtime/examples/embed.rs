//! A multi-threaded tokio program that embeds the runtime: `embed BUNDLE [CONTAINERS] [TASKS]`, as root.
//!
//! While eight threads do nothing but take and release the allocator's, the C library's and the program's own locks, it runs
//! containers from several tasks at once, every third one with another process executed in it. Then it looks
//! for what must not be left: a deadlock (a container that does not finish in time), a zombie, a descriptor, a
//! mount, a control group, a state. It prints a summary, and exits with 1 when anything is left.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{WaitId, WaitIdOptions, waitid};
use tokio::task::JoinSet;
use wharf_runtime::{Container, ContainerId, CreateOptions, ExecOptions, Runtime, Signal, Stdio, spec};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Threads that hold locks at the moment of a clone.
const BUSY_THREADS: usize = 8;
/// One container may take this long; more is a deadlock.
const DEADLINE: Duration = Duration::from_secs(60);
/// Every n-th container lives until a process executed in it has ended.
const EXEC_EVERY: usize = 3;

#[tokio::main(flavor = "multi_thread", worker_threads = 4)]
async fn main() -> ExitCode {
    match embed().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("embed: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn embed() -> Result<bool, Failure> {
    let mut arguments = std::env::args().skip(1);
    let bundle = PathBuf::from(
        arguments
            .next()
            .ok_or("usage: embed BUNDLE [CONTAINERS] [TASKS]")?,
    );
    let containers: usize = arguments.next().map_or(Ok(1000), |count| count.parse())?;
    let tasks: usize = arguments.next().map_or(Ok(4), |count| count.parse())?;
    let root = tempfile::tempdir()?;
    let process = long_process(&bundle)?;
    let busy = Busy::start();
    // One round first, so that what the program itself opens once is open before it is counted.
    run_one(root.path(), &bundle, &process, "warm-up").await?;
    let before = Traces::take(root.path())?;
    let began = Instant::now();
    let failed = run_all(root.path(), &bundle, &process, containers, tasks).await;
    let elapsed = began.elapsed();
    let rounds = busy.stop();
    let left = Traces::take(root.path())?.beyond(&before);
    println!(
        "{containers} containers in {tasks} tasks: {:.1} s, {:.2} ms each; busy threads made {rounds} rounds",
        elapsed.as_secs_f64(),
        elapsed.as_secs_f64() * 1e3 / containers.max(1) as f64,
    );
    for problem in failed.iter().chain(&left).take(20) {
        println!("  {problem}");
    }
    println!("{} failed, {} left behind", failed.len(), left.len());
    Ok(failed.is_empty() && left.is_empty())
}

/// The bundle's process, as one to execute beside it.
fn long_process(bundle: &Path) -> Result<spec::oci::Process, Failure> {
    let spec = spec::load(bundle)?;
    spec.oci()
        .process
        .clone()
        .ok_or_else(|| "the bundle has no process".into())
}

async fn run_all(
    root: &Path,
    bundle: &Path,
    process: &spec::oci::Process,
    containers: usize,
    tasks: usize,
) -> Vec<String> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut running = JoinSet::new();
    for _ in 0..tasks {
        let (root, bundle) = (root.to_owned(), bundle.to_owned());
        let (process, next) = (process.clone(), Arc::clone(&next));
        running.spawn(async move {
            let mut failed = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= containers {
                    return failed;
                }
                let name = match number % EXEC_EVERY {
                    0 => format!("exec-{number}"),
                    _ => format!("plain-{number}"),
                };
                let run = run_one(&root, &bundle, &process, &name);
                match tokio::time::timeout(DEADLINE, run).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => failed.push(format!("{name}: {error}")),
                    Err(_) => failed.push(format!("{name}: not done in {} s", DEADLINE.as_secs())),
                }
            }
        });
    }
    running.join_all().await.concat()
}

/// One container on the blocking pool: the library blocks.
async fn run_one(
    root: &Path,
    bundle: &Path,
    process: &spec::oci::Process,
    name: &str,
) -> Result<(), Failure> {
    let (root, bundle) = (root.to_owned(), bundle.to_owned());
    let (process, name) = (process.clone(), name.to_owned());
    tokio::task::spawn_blocking(move || {
        let id = ContainerId::new(format!("embed-{}-{name}", std::process::id()))?;
        let mut options = CreateOptions::new(id, bundle);
        options.stdio = null()?;
        let container = Runtime::new(root).create(options)?;
        let used = use_container(&container, name.starts_with("exec").then_some(process));
        container.delete(true)?;
        used
    })
    .await?
}

/// Starts it, executes `process` in it if there is one, and reaps everything.
fn use_container(container: &Container, process: Option<spec::oci::Process>) -> Result<(), Failure> {
    let init = container.pidfd().ok_or("no process")?;
    if let Some(process) = process {
        // In a created container: its first process cannot end meanwhile.
        let mut options = ExecOptions::new(process);
        options.stdio = null()?;
        let process = container.exec(options)?;
        wait(process.pidfd())?;
    }
    container.start()?;
    // A program that runs on is ended; one that has ended already is what is wanted.
    match container.kill(Signal::KILL) {
        Ok(()) | Err(wharf_runtime::Error::WrongStatus { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    wait(init)
}

fn wait(pidfd: BorrowedFd<'_>) -> Result<(), Failure> {
    waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED)?;
    Ok(())
}

fn null() -> Result<Stdio, Failure> {
    let null: OwnedFd = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?
        .into();
    Ok(Stdio::Fds {
        stdin: null.try_clone()?,
        stdout: null.as_fd().try_clone_to_owned()?,
        stderr: null,
    })
}

/// Threads that hold, at every moment, some lock that a child would inherit.
struct Busy {
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<u64>>,
}

impl Busy {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..BUSY_THREADS).map(|_| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                let mut rounds = 0;
                while !stop.load(Ordering::Relaxed) {
                    // The allocator's arenas, the environment's lock and the streams' locks.
                    let blocks: Vec<Vec<u8>> = (0..64).map(|size| vec![1; size * 97]).collect();
                    let set = std::env::var_os("PATH").is_some();
                    let locked = std::io::stderr().lock();
                    std::hint::black_box((&blocks, set));
                    drop(locked);
                    rounds += 1;
                    thread::yield_now();
                }
                rounds
            })
        });
        Self {
            threads: threads.collect(),
            stop,
        }
    }

    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or(0))
            .sum()
    }
}

/// Everything that a container could leave behind.
struct Traces(BTreeSet<String>);

impl Traces {
    fn take(root: &Path) -> Result<Self, Failure> {
        let mut found = BTreeSet::new();
        for entry in fs::read_dir("/proc/self/fd")? {
            let entry = entry?;
            // The directory that is being read is open only now.
            if let Ok(target) = fs::read_link(entry.path())
                && !target.ends_with("fd")
            {
                found.insert(format!(
                    "descriptor {} {}",
                    entry.file_name().display(),
                    target.display()
                ));
            }
        }
        for line in fs::read_to_string("/proc/self/mountinfo")?.lines() {
            found.insert(format!("mount {line}"));
        }
        for entry in fs::read_dir(root)? {
            found.insert(format!("state {}", entry?.file_name().display()));
        }
        let mark = format!("embed-{}-", std::process::id());
        collect_groups(Path::new("/sys/fs/cgroup"), &mark, &mut found);
        collect_children(&mut found)?;
        Ok(Self(found))
    }

    fn beyond(self, before: &Self) -> Vec<String> {
        self.0.difference(&before.0).cloned().collect()
    }
}

fn collect_groups(directory: &Path, mark: &str, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if entry.file_name().to_string_lossy().contains(mark) {
            found.insert(format!("cgroup {}", entry.path().display()));
        }
        collect_groups(&entry.path(), mark, found);
    }
}

/// Children of this process: running, or zombies that nobody reaped.
fn collect_children(found: &mut BTreeSet<String>) -> Result<(), Failure> {
    let me = std::process::id().to_string();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        let mut fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
        let (state, parent) = (fields.next(), fields.next());
        if parent == Some(&me) {
            let pid = entry.file_name();
            found.insert(format!("process {} ({})", pid.display(), state.unwrap_or("?")));
        }
    }
    Ok(())
}
