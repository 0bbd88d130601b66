//! Pulling and unpacking an image of four layers from a registry on loopback: ours, containerd's `ctr` and Docker's client.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use integration_tests::containerd::Containerd;
use integration_tests::daemon::Daemon;
use integration_tests::image::{Compression, Layout};
use integration_tests::registry::Registry;
use integration_tests::wharf::Wharf;
use integration_tests::{Scratch, binaries, eventually, run};
use serde_json::json;

use super::measure::{Candidate, Driver, compare};

const LAYERS: u64 = 4;
const FILES: u64 = 1500;
/// The mean size of a file: all of them are 450 MB, and by gzip about 170 MB.
const FILE: u64 = 75_000;

/// Compares the pulls. Before each one the image is removed with all of its content, and the disk is quiet.
pub(crate) fn compare_pulls(rounds: usize) -> Result<()> {
    let scratch = Scratch::new();
    let registry = Registry::start(&scratch);
    let layout = make_image(&scratch)?;
    let reference = registry.push(layout.path(), "latest", "bench/app:1");
    scratch.tmpfs("wharf/state");
    scratch.tmpfs("containerd/state");
    scratch.tmpfs("docker/exec");
    let wharf = Wharf::start(&scratch);
    let containerd = installed(&["containerd", "ctr"]).then(|| Containerd::start(&scratch));
    let docker = installed(&["dockerd", "docker"]).then(|| Docker::start(&scratch));
    let mut candidates = vec![Candidate {
        name: "wharf".into(),
        command: Box::new(|_| {
            // In the first round there is none.
            run(&mut wharf.command(&["rmi", &reference]));
            eventually("the image's blobs are gone", Duration::from_secs(60), || {
                (!holds_large(&wharf.home().join("root/supervisor/content"))).then_some(())
            });
            quiet();
            wharf.command(&["pull", &reference])
        }),
    }];
    if let Some(containerd) = &containerd {
        candidates.push(Candidate {
            name: "containerd (ctr images pull)".into(),
            command: Box::new(|_| {
                run(containerd.ctr().args(["images", "rm", "--sync", &reference]));
                quiet();
                let mut command = containerd.ctr();
                command.args(["images", "pull", "--plain-http", &reference]);
                command
            }),
        });
    }
    if let Some(docker) = &docker {
        candidates.push(Candidate {
            name: "docker".into(),
            command: Box::new(|_| {
                run(docker.client().args(["rmi", &reference]));
                quiet();
                let mut command = docker.client();
                command.args(["pull", &reference]);
                command
            }),
        });
    }
    compare(
        &Driver::new(&scratch)?,
        "pull and unpack four layers, 450 MB, by gzip 170 MB",
        &candidates,
        rounds,
    )
}

fn installed(programs: &[&str]) -> bool {
    let missing = programs.iter().find(|name| binaries::find(name).is_none());
    if let Some(missing) = missing {
        println!("{missing} is not installed: left out");
    }
    missing.is_none()
}

/// Nobody pays for what another one wrote.
fn quiet() {
    rustix::fs::sync();
}

/// Whether a file of a layer's size is left below `directory`.
fn holds_large(directory: &Path) -> bool {
    let Ok(entries) = fs::read_dir(directory) else {
        return false;
    };
    entries.flatten().any(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => holds_large(&entry.path()),
        Ok(metadata) => metadata.is_file() && metadata.len() > 10 * FILE,
        Err(_) => false,
    })
}

/// Docker in the network of this machine, where the registry is, without a network for containers.
struct Docker {
    host: String,
    _daemon: Daemon,
}

impl Docker {
    fn start(scratch: &Scratch) -> Docker {
        let home = scratch.directory("docker");
        let host = format!("unix://{}", home.join("docker.sock").display());
        let mut command = Command::new(binaries::peer("dockerd"));
        command.arg("--data-root").arg(home.join("root"));
        command.arg("--exec-root").arg(home.join("exec"));
        command.arg("--pidfile").arg(home.join("pid"));
        command.args(["--host", &host, "--bridge", "none"]);
        command.args(["--iptables=false", "--ip6tables=false"]);
        let ready = || {
            let version = client(&host).arg("version").output();
            version.is_ok_and(|output| output.status.success())
        };
        let daemon = Daemon::start(&mut command, &home.join("log"), ready);
        Docker {
            host,
            _daemon: daemon,
        }
    }

    fn client(&self) -> Command {
        client(&self.host)
    }
}

fn client(host: &str) -> Command {
    let mut command = Command::new(binaries::peer("docker"));
    command.args(["--host", host]);
    command
}

/// The same image on every machine: files of words, which compress about as programs do.
fn make_image(scratch: &Scratch) -> Result<Layout> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let words: Vec<[u8; 8]> = (0..2048).map(|_| random.next().to_le_bytes()).collect();
    let mut layout = Layout::new(&scratch.join("image"));
    for layer in 0..LAYERS {
        let tree: PathBuf = scratch.directory(format!("tree/{layer}"));
        for number in 0..FILES {
            let directory = tree.join(format!("layer{layer}/{}", number / 50));
            fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
            let size = FILE / 2 + random.next() % FILE;
            let mut bytes = Vec::with_capacity(size as usize + 8);
            while (bytes.len() as u64) < size {
                bytes.extend_from_slice(&words[random.next() as usize % words.len()]);
            }
            let file = directory.join(format!("file{number}"));
            fs::write(&file, bytes).with_context(|| format!("write {}", file.display()))?;
        }
        layout.layer_of(&tree, Compression::Gzip);
        fs::remove_dir_all(&tree).context("remove a layer's tree")?;
    }
    layout.tag("latest", &json!({}));
    Ok(layout)
}

/// Marsaglia's xorshift: the same numbers everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
