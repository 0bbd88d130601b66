//! The OCI runtimes: `run` and `exec` of `/bin/true`, what a filter costs, many creations, sizes.
//!
//! Beside them stands a C program that makes the system calls of such a container and nothing else: what cannot be undercut.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use integration_tests::{Scratch, binaries, bundle, run};

use super::measure::{Candidate, Driver, compare, compile};
use super::{parallel, seccomp};

/// The peers, by the name of their program.
pub(crate) const PEERS: [&str; 3] = ["runc", "crun", "youki"];

/// The name of the C program in the tables.
pub(crate) const FLOOR: &str = "the system calls alone, in C";

/// A runtime with a state root of its own.
#[derive(Clone)]
pub(crate) struct Runtime {
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    root: PathBuf,
    prefix: String,
}

impl Runtime {
    fn new(scratch: &Scratch, name: &str, program: PathBuf) -> Runtime {
        Runtime {
            name: name.to_string(),
            program,
            root: scratch.join(format!("state/{}", name.replace('/', "_"))),
            prefix: scratch.unique().to_string(),
        }
    }

    /// The command with these arguments.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.root).args(arguments);
        command
    }

    /// A container's id that no other has.
    pub(crate) fn id(&self, name: &str) -> String {
        let safe = self.name.replace(|it: char| !it.is_ascii_alphanumeric(), "-");
        format!("{}-{safe}-{name}", self.prefix)
    }

    fn run_in(&self, bundle: &Path) -> Candidate<'static> {
        self.run_as(&self.name, bundle, |_| {})
    }

    /// `run` of a bundle, with something done before each round that is not measured.
    pub(crate) fn run_as(
        &self,
        name: &str,
        bundle: &Path,
        before: impl Fn(usize) + 'static,
    ) -> Candidate<'static> {
        let (runtime, bundle) = (self.clone(), bundle.display().to_string());
        Candidate {
            name: name.to_string(),
            command: Box::new(move |round| {
                before(round);
                runtime.command(&["run", "--bundle", &bundle, &runtime.id(&round.to_string())])
            }),
        }
    }

    fn works(&self, bundle: &Path) -> bool {
        run(&mut (self.run_in(bundle).command)(usize::MAX)).code == 0
    }
}

/// Compares ours with the peers that are installed, and with the runcs at `more`.
pub(crate) fn compare_runtimes(rounds: usize, more: &[PathBuf]) -> Result<()> {
    let scratch = &Scratch::new();
    let driver = Driver::new(scratch)?;
    let directory = scratch.join("bundle");
    bundle::bundle(&directory, &["/bin/true"], |_| {});
    // Where a booted system has it.
    scratch.tmpfs("state");
    let ours = Runtime::new(scratch, "wharf-runtime", binaries::ours("wharf-runtime"));
    let peers = peers(scratch, &directory, more);
    let every = || std::iter::once(&ours).chain(&peers);

    sizes(every());
    let mut candidates = vec![ours.run_in(&directory), floor(scratch, &directory)?];
    candidates.extend(peers.iter().map(|peer| peer.run_in(&directory)));
    compare(&driver, "run /bin/true from a bundle", &candidates, rounds)?;
    drop(candidates);
    executed(scratch, &driver, every(), rounds)?;
    seccomp::compare_filters(scratch, &driver, &ours, &directory, rounds)?;
    parallel::compare_creations(every(), &directory)
}

fn peers(scratch: &Scratch, bundle: &Path, more: &[PathBuf]) -> Vec<Runtime> {
    let installed = PEERS.iter().filter_map(|name| match binaries::find(name) {
        Some(program) => Some(Runtime::new(scratch, name, program)),
        None => {
            println!("{name} is not installed: left out");
            None
        }
    });
    let given = more
        .iter()
        .map(|path| Runtime::new(scratch, &path.display().to_string(), path.clone()));
    let (working, others): (Vec<_>, Vec<_>) = installed.chain(given).partition(|peer| peer.works(bundle));
    for peer in others {
        println!("{} cannot run a container on this machine: left out", peer.name);
    }
    working
}

fn sizes<'a>(runtimes: impl Iterator<Item = &'a Runtime>) {
    println!("\nsize of the program");
    for runtime in runtimes {
        let bytes = fs::metadata(&runtime.program).map_or(0, |about| about.len());
        println!("{:<34} {:>10} KiB", runtime.name, bytes / 1024);
    }
}

/// The C program, with the groups that a runtime would make.
fn floor(scratch: &Scratch, bundle: &Path) -> Result<Candidate<'static>> {
    let program = compile(scratch, "floor", include_str!("floor.c"))?;
    let (rootfs, groups) = (bundle.join("rootfs"), groups()?);
    // Where those of the others are.
    let states = scratch.directory("state/floor");
    let prefix = scratch.unique().to_string();
    Ok(Candidate {
        name: FLOOR.into(),
        command: Box::new(move |round| {
            let mut command = Command::new(&program);
            command
                .arg(&rootfs)
                .arg(&states)
                .arg(format!("{prefix}-floor-{round}"))
                .args(&groups)
                .args(["--", "/bin/true"]);
            command
        }),
    })
}

/// The directories below which this process would make groups: its own, in each mounted hierarchy.
fn groups() -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("read the mounts")?;
    let own = fs::read_to_string("/proc/self/cgroup").context("read the own groups")?;
    let mut groups = Vec::new();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let is_its = |mount: &&str| {
            let (about, kind) = mount.split_once(" - ").unwrap_or_default();
            let at = about.split(' ').nth(4).unwrap_or_default();
            let options = kind.rsplit(' ').next().unwrap_or_default();
            let named = controllers
                .split(',')
                .all(|name| options.split(',').any(|it| it == name));
            at.starts_with("/sys/fs/cgroup")
                && match controllers {
                    "" => kind.starts_with("cgroup2 "),
                    _ => kind.starts_with("cgroup ") && named,
                }
        };
        if let Some(mount) = mounts.lines().find(is_its) {
            let at = mount.split(' ').nth(4).unwrap_or_default();
            groups.push(Path::new(at).join(path.trim_start_matches('/')));
        }
    }
    Ok(groups)
}

/// `exec` of `/bin/true` in a container that waits.
fn executed<'a>(
    scratch: &Scratch,
    driver: &Driver,
    runtimes: impl Iterator<Item = &'a Runtime>,
    rounds: usize,
) -> Result<()> {
    let directory = scratch.join("waiting");
    bundle::bundle(&directory, &["/bin/sleep", "1000000"], |_| {});
    let waiting: Vec<(Runtime, String)> = runtimes.map(|it| (it.clone(), it.id("waiting"))).collect();
    let mut candidates = Vec::new();
    for (runtime, id) in &waiting {
        let path = directory.display().to_string();
        let mut start = runtime.command(&["run", "--detach", "--bundle", &path, id]);
        // Nobody reads what the container could write: a pipe would be held open by it.
        start
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null());
        start.stderr(std::process::Stdio::null()).status()?;
        let (runtime, id) = (runtime.clone(), id.clone());
        candidates.push(Candidate {
            name: runtime.name.clone(),
            command: Box::new(move |_| runtime.command(&["exec", &id, "/bin/true"])),
        });
    }
    let compared = compare(driver, "exec /bin/true in a container", &candidates, rounds);
    for (runtime, id) in &waiting {
        run(&mut runtime.command(&["delete", "--force", id]));
    }
    compared
}
