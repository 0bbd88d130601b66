//! The engines that are compared: ours, Docker's and Podman, each private and with the same image.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use integration_tests::daemon::Daemon;
use integration_tests::wharf::Wharf;
use integration_tests::{Scratch, binaries, image, run};

/// The image's name in the other engines.
const IMAGE: &str = "localhost/bench:latest";

/// An engine's command line.
pub(crate) struct Engine {
    /// Its name in the tables.
    pub(crate) name: &'static str,
    /// What it calls the image.
    image: String,
    /// What its `run` needs besides.
    run_options: &'static [&'static str],
    command: Box<dyn Fn() -> Command>,
}

impl Engine {
    /// The engine with `arguments`.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = (self.command)();
        command.args(arguments);
        command
    }

    /// `run OPTIONS… IMAGE PROGRAM…` in a network of its own that has no other end.
    pub(crate) fn run(&self, options: &[&str], program: &[&str]) -> Command {
        let mut command = self.command(&["run", "--network", "none"]);
        command
            .args(self.run_options)
            .args(options)
            .arg(&self.image)
            .args(program);
        command
    }
}

/// The engines that are installed, with their daemons; ours is the first.
pub(crate) struct Engines {
    /// The engines.
    pub(crate) list: Vec<Engine>,
    /// Our daemon.
    pub(crate) wharf: Wharf,
    _docker: Option<Daemon>,
}

impl Engines {
    /// Starts private daemons below `scratch` where an engine needs one, and gives each the image. Run-time state is on a
    /// tmpfs, where a booted system has it.
    pub(crate) fn start(scratch: &Scratch) -> Engines {
        let layout = image::busybox(&scratch.join("image"));
        scratch.tmpfs("wharf/state");
        scratch.tmpfs("docker/exec");
        scratch.tmpfs("podman/run");
        let wharf = Wharf::start(scratch);
        let ours = {
            let wharf = Wharf::at(wharf.home());
            Engine {
                name: "wharf",
                image: format!("oci:{}", layout.path().display()),
                run_options: &[],
                command: Box::new(move || wharf.command(&[])),
            }
        };
        run(&mut ours.run(&["--rm"], &["/bin/true"])).ok();
        let mut list = vec![ours];
        let archive = docker_archive(scratch, layout.path());
        let mut daemon = None;
        if let Some((running, docker)) = docker(scratch, &archive) {
            daemon = Some(running);
            list.push(docker);
        }
        list.extend(podman(scratch, &archive));
        Engines {
            list,
            wharf,
            _docker: daemon,
        }
    }
}

/// The image as `docker load` takes it.
fn docker_archive(scratch: &Scratch, layout: &Path) -> PathBuf {
    let archive = scratch.join("image.tar");
    run(Command::new(binaries::peer("skopeo"))
        .args(["--insecure-policy", "copy", "--quiet"])
        .arg(format!("oci:{}:latest", layout.display()))
        .arg(format!("docker-archive:{}:{IMAGE}", archive.display())))
    .ok();
    archive
}

fn docker(scratch: &Scratch, archive: &Path) -> Option<(Daemon, Engine)> {
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
    let base = move || {
        let mut command = Command::new(&client);
        command.args(["--host", &host]);
        command
    };
    let ready = || {
        base()
            .arg("version")
            .output()
            .is_ok_and(|output| output.status.success())
    };
    let daemon = Daemon::start(&mut command, &home.join("log"), ready);
    run(base().args(["load", "--quiet", "--input"]).arg(archive)).ok();
    let engine = Engine {
        name: "docker",
        image: IMAGE.to_owned(),
        run_options: &[],
        command: Box::new(base),
    };
    Some((daemon, engine))
}

fn podman(scratch: &Scratch, archive: &Path) -> Option<Engine> {
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
    Some(Engine {
        name: "podman",
        image: IMAGE.to_owned(),
        // Podman asks for its own limits, above what every machine allows.
        run_options: &["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"],
        command: Box::new(base),
    })
}
