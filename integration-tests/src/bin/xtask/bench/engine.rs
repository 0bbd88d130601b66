//! `run --rm --network none IMAGE true` through whole engines: ours, Docker's and Podman.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use integration_tests::daemon::Daemon;
use integration_tests::wharf::Wharf;
use integration_tests::{Scratch, binaries, image, run};

use super::measure::{Candidate, Driver, compare};

/// The image's name in every engine.
const IMAGE: &str = "localhost/bench:latest";
/// What each engine runs.
const ARGUMENTS: [&str; 6] = ["run", "--rm", "--network", "none", IMAGE, "/bin/true"];

/// Starts private daemons where a peer needs one, gives each the same image, and compares.
pub(crate) fn compare_engines(rounds: usize) -> Result<()> {
    let scratch = &Scratch::new();
    let layout = image::busybox(&scratch.join("image"));
    let source = format!("oci:{}", layout.path().display());
    // Each engine's run-time state is on a tmpfs, where a booted system has it.
    scratch.tmpfs("wharf/state");
    scratch.tmpfs("docker/exec");
    scratch.tmpfs("podman/run");
    let wharf = Wharf::start(scratch);
    wharf
        .run(&["run", "--rm", "--network", "none", &source, "/bin/true"])
        .ok();
    let ours = {
        let home = wharf.home().to_path_buf();
        let wharf = Wharf::at(&home);
        Candidate {
            name: "wharf".into(),
            command: Box::new(move |_| {
                wharf.command(&["run", "--rm", "--network", "none", &source, "/bin/true"])
            }),
        }
    };
    let mut candidates = vec![ours];
    let archive = docker_archive(scratch, layout.path());
    let docker = Docker::start(scratch, &archive);
    if let Some(docker) = &docker {
        candidates.push(docker.candidate());
    }
    if let Some(candidate) = podman(scratch, &archive) {
        candidates.push(candidate);
    }
    compare(
        &Driver::new(scratch)?,
        "run --rm --network none … /bin/true",
        &candidates,
        rounds,
    )
}

/// The image as `docker load` takes it.
fn docker_archive(scratch: &Scratch, layout: &Path) -> PathBuf {
    let archive = scratch.join("image.tar");
    integration_tests::run(
        Command::new(binaries::peer("skopeo"))
            .args(["--insecure-policy", "copy", "--quiet"])
            .arg(format!("oci:{}:latest", layout.display()))
            .arg(format!("docker-archive:{}:{IMAGE}", archive.display())),
    )
    .ok();
    archive
}

/// A private dockerd.
struct Docker {
    client: PathBuf,
    host: String,
    _daemon: Daemon,
}

impl Docker {
    fn start(scratch: &Scratch, archive: &Path) -> Option<Docker> {
        let (Some(server), Some(client)) = (binaries::find("dockerd"), binaries::find("docker")) else {
            println!("docker is not installed: left out");
            return None;
        };
        let home = scratch.directory("docker");
        let host = format!("unix://{}", home.join("docker.sock").display());
        let mut command = Command::new(server);
        command
            .arg("--data-root")
            .arg(home.join("root"))
            .arg("--exec-root")
            .arg(home.join("exec"))
            .arg("--pidfile")
            .arg(home.join("pid"))
            .arg("--host")
            .arg(&host)
            .args(["--bridge", "none", "--iptables=false", "--ip6tables=false"]);
        let ready = || {
            Command::new(&client)
                .args(["--host", &host, "version"])
                .output()
                .is_ok_and(|output| output.status.success())
        };
        let daemon = Daemon::start(&mut command, &home.join("log"), ready);
        run(Command::new(&client)
            .args(["--host", &host, "load", "--quiet", "--input"])
            .arg(archive))
        .ok();
        Some(Docker {
            client,
            host,
            _daemon: daemon,
        })
    }

    fn candidate(&self) -> Candidate {
        let (client, host) = (self.client.clone(), self.host.clone());
        Candidate {
            name: "docker".into(),
            command: Box::new(move |_| {
                let mut command = Command::new(&client);
                command.args(["--host", &host]).args(ARGUMENTS);
                command
            }),
        }
    }
}

fn podman(scratch: &Scratch, archive: &Path) -> Option<Candidate> {
    let Some(program) = binaries::find("podman") else {
        println!("podman is not installed: left out");
        return None;
    };
    let home = scratch.directory("podman");
    fs::write(
        home.join("policy.json"),
        r#"{"default":[{"type":"insecureAcceptAnything"}]}"#,
    )
    .ok()?;
    let base = move || {
        let mut command = Command::new(&program);
        command
            .arg("--root")
            .arg(home.join("root"))
            .arg("--runroot")
            .arg(home.join("run"))
            .args([
                "--runtime",
                "runc",
                "--cgroup-manager",
                "cgroupfs",
                "--events-backend",
                "none",
            ]);
        command
    };
    let loaded = run(base().args(["load", "--quiet", "--input"]).arg(archive));
    if loaded.code != 0 {
        println!("podman cannot load the image: left out\n{loaded}");
        return None;
    }
    Some(Candidate {
        name: "podman".into(),
        command: Box::new(move |_| {
            let mut command = base();
            // Podman asks for its own limits, above what every machine allows.
            command
                .arg(ARGUMENTS[0])
                .args(["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]);
            command.args(&ARGUMENTS[1..]);
            command
        }),
    })
}
