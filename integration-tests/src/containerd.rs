//! Debian's containerd, one private instance a test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::daemon::Daemon;
use crate::{Scratch, binaries};

/// A running containerd with its own root, state and socket.
#[derive(Debug)]
pub struct Containerd {
    socket: PathBuf,
    /// The process.
    pub daemon: Daemon,
}

impl Containerd {
    /// Starts an instance below `scratch`, with the workspace's programs first on its `PATH`.
    ///
    /// # Panics
    ///
    /// containerd is not installed or does not come up.
    pub fn start(scratch: &Scratch) -> Containerd {
        Self::start_with(scratch, "")
    }

    /// As [`Containerd::start`], with more tables in its configuration.
    ///
    /// # Panics
    ///
    /// containerd is not installed or does not come up.
    pub fn start_with(scratch: &Scratch, tables: &str) -> Containerd {
        let home = scratch.directory("containerd");
        let program = binaries::peer("containerd");
        Self::start_configured(&home, &program, &binaries::directory(), tables)
    }

    /// Starts another version: `program`, with its state in `home`, and `programs` first on its `PATH`.
    ///
    /// # Panics
    ///
    /// It does not come up.
    pub fn start_program(home: &Path, program: &Path, programs: &Path) -> Containerd {
        Self::start_configured(home, program, programs, "")
    }

    fn start_configured(home: &Path, program: &Path, programs: &Path, tables: &str) -> Containerd {
        fs::create_dir_all(home).expect("make containerd's directory");
        let socket = home.join("c.sock");
        let config = home.join("config.toml");
        fs::write(&config, configuration(home) + tables).expect("write containerd's configuration");
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", programs.display());
        let daemon = Daemon::start(
            Command::new(program)
                .arg("--config")
                .arg(&config)
                .env("PATH", path),
            &home.join("log"),
            || {
                ctr(&socket, "default")
                    .arg("version")
                    .output()
                    .is_ok_and(|output| output.status.success())
            },
        );
        Containerd { socket, daemon }
    }

    /// `ctr` on this instance.
    pub fn ctr(&self) -> Command {
        ctr(&self.socket, "default")
    }

    /// The socket that it serves.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

/// Debian's `ctr` on `socket` in `namespace`.
///
/// # Panics
///
/// `ctr` is not installed.
pub fn ctr(socket: &Path, namespace: &str) -> Command {
    let mut command = Command::new(binaries::peer("ctr"));
    command
        .arg("--address")
        .arg(socket)
        .arg("--namespace")
        .arg(namespace);
    command
}

fn configuration(home: &Path) -> String {
    let home = home.display();
    format!(
        "version = 2\nroot = \"{home}/root\"\nstate = \"{home}/state\"\n\
         disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.snapshotter.v1.btrfs\", \"io.containerd.snapshotter.v1.devmapper\", \"io.containerd.snapshotter.v1.zfs\"]\n\
         [grpc]\naddress = \"{home}/c.sock\"\n[ttrpc]\naddress = \"{home}/c.sock.ttrpc\"\n\
         [plugins.'io.containerd.internal.v1.opt']\npath = \"{home}/opt\"\n"
    )
}
