//! Debian's dockerd, one private instance a test.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::daemon::Daemon;
use crate::{Scratch, binaries};

/// A running dockerd with its own root, state, socket and network namespace, and with a containerd of its own unless it
/// was given another.
#[derive(Debug)]
pub struct Dockerd {
    home: PathBuf,
    arguments: Vec<String>,
    /// The process; `None` after [`Dockerd::kill9`].
    pub daemon: Option<Daemon>,
}

impl Dockerd {
    /// Starts an instance below `scratch` whose containers are run by the program `runtime`.
    ///
    /// # Panics
    ///
    /// docker.io is not installed or the daemon does not come up.
    pub fn start(scratch: &Scratch, runtime: &Path) -> Dockerd {
        let added = format!("--add-runtime=tested={}", runtime.display());
        Dockerd::with(scratch, vec![added, "--default-runtime=tested".to_owned()])
    }

    /// Starts an instance below `scratch` that leaves its containers to whoever serves containerd's API on `containerd`,
    /// and leaves them running when it goes.
    ///
    /// # Panics
    ///
    /// As [`Dockerd::start`].
    pub fn over(scratch: &Scratch, containerd: &Path) -> Dockerd {
        // By this name nothing is said of the program that makes containers: that is up to the other side.
        let runtime = "--default-runtime=io.containerd.runc.v2".to_owned();
        let containerd = format!("--containerd={}", containerd.display());
        // A control group of its own: it takes with it what a failed test leaves.
        let cgroup = format!("--cgroup-parent=/{}", scratch.unique());
        Dockerd::with(
            scratch,
            vec![runtime, containerd, cgroup, "--live-restore".to_owned()],
        )
    }

    fn with(scratch: &Scratch, arguments: Vec<String>) -> Dockerd {
        let mut dockerd = Dockerd {
            home: scratch.directory("dockerd"),
            arguments,
            daemon: None,
        };
        dockerd.restart();
        dockerd
    }

    /// Starts the daemon (again).
    ///
    /// # Panics
    ///
    /// It does not come up.
    pub fn restart(&mut self) {
        let home = &self.home;
        // Whatever it does to the network it does to a namespace that ends with it.
        let mut command = Command::new(binaries::peer("unshare"));
        command.args(["--net", "--"]).arg(binaries::peer("dockerd"));
        command.arg("--data-root").arg(home.join("root"));
        command.arg("--exec-root").arg(home.join("exec"));
        command.arg("--pidfile").arg(home.join("pid"));
        command
            .arg("--host")
            .arg(format!("unix://{}", self.socket().display()));
        command.args(["--bridge=none", "--iptables=false"]);
        command.args(["--exec-opt", "native.cgroupdriver=cgroupfs"]);
        command.args(&self.arguments);
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let daemon = Daemon::start(&mut command, &home.join("log"), || {
            let version = self.docker().arg("version").output();
            version.is_ok_and(|output| output.status.success())
        });
        self.daemon = Some(daemon);
    }

    /// Ends the daemon with SIGKILL.
    ///
    /// # Panics
    ///
    /// There is none.
    pub fn kill9(&mut self) {
        self.daemon.take().expect("a running daemon").kill9();
    }

    /// `docker` on this instance.
    pub fn docker(&self) -> Command {
        let mut command = Command::new(binaries::peer("docker"));
        command
            .arg("--host")
            .arg(format!("unix://{}", self.socket().display()));
        command
    }

    fn socket(&self) -> PathBuf {
        self.home.join("d.sock")
    }
}
