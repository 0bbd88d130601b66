//! Debian's dockerd, one private instance a test.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::daemon::Daemon;
use crate::{Scratch, binaries};

/// A running dockerd with its own root, state, socket, containerd and network namespace.
#[derive(Debug)]
pub struct Dockerd {
    socket: PathBuf,
    /// The process.
    pub daemon: Daemon,
}

impl Dockerd {
    /// Starts an instance below `scratch` whose containers are run by the program `runtime`.
    ///
    /// # Panics
    ///
    /// docker.io is not installed or the daemon does not come up.
    pub fn start(scratch: &Scratch, runtime: &Path) -> Dockerd {
        let home = scratch.directory("dockerd");
        let socket = home.join("d.sock");
        // Whatever it does to the network it does to a namespace that ends with it.
        let mut command = Command::new(binaries::peer("unshare"));
        command.args(["--net", "--"]).arg(binaries::peer("dockerd"));
        command.arg("--data-root").arg(home.join("root"));
        command.arg("--exec-root").arg(home.join("exec"));
        command.arg("--pidfile").arg(home.join("pid"));
        command.arg("--host").arg(format!("unix://{}", socket.display()));
        command
            .arg("--add-runtime")
            .arg(format!("tested={}", runtime.display()));
        command.args(["--default-runtime", "tested", "--bridge=none", "--iptables=false"]);
        command.args(["--exec-opt", "native.cgroupdriver=cgroupfs"]);
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let daemon = Daemon::start(&mut command, &home.join("log"), || {
            let version = docker(&socket).arg("version").output();
            version.is_ok_and(|output| output.status.success())
        });
        Dockerd { socket, daemon }
    }

    /// `docker` on this instance.
    pub fn docker(&self) -> Command {
        docker(&self.socket)
    }
}

fn docker(socket: &Path) -> Command {
    let mut command = Command::new(binaries::peer("docker"));
    command.arg("--host").arg(format!("unix://{}", socket.display()));
    command
}
