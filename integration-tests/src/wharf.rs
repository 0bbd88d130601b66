//! `wharf` and `wharfd` instances of a test's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::containerd::ctr;
use crate::daemon::Daemon;
use crate::{Scratch, binaries};

/// An instance of the engine: root, state and sockets below one directory.
#[derive(Debug)]
pub struct Wharf {
    home: PathBuf,
    /// The daemon, when the test started it itself.
    pub daemon: Option<Daemon>,
}

impl Wharf {
    /// An instance without a daemon: the first command starts one in the background.
    pub fn unstarted(scratch: &Scratch) -> Wharf {
        Wharf {
            home: scratch.directory("wharf"),
            daemon: None,
        }
    }

    /// The commands of an instance that another value started in `home`.
    pub fn at(home: &Path) -> Wharf {
        Wharf {
            home: home.to_path_buf(),
            daemon: None,
        }
    }

    /// An instance whose daemon runs in the foreground as a child of the test.
    ///
    /// # Panics
    ///
    /// The daemon does not come up.
    pub fn start(scratch: &Scratch) -> Wharf {
        let mut wharf = Wharf::unstarted(scratch);
        wharf.restart();
        wharf
    }

    /// Starts the daemon (again).
    ///
    /// # Panics
    ///
    /// It does not come up.
    pub fn restart(&mut self) {
        let mut command = self.command(&["daemon"]);
        command.arg("--containerd-address").arg(self.supervisor_socket());
        let socket = self.socket();
        self.daemon = Some(Daemon::start(&mut command, &self.home.join("daemon.log"), || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        }));
    }

    /// Ends the daemon with SIGKILL.
    ///
    /// # Panics
    ///
    /// There is none.
    pub fn kill9(&mut self) {
        self.daemon.take().expect("a running daemon").kill9();
    }

    /// `wharf ARGUMENTS…` on this instance.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binaries::ours("wharf"));
        command
            .arg("--host")
            .arg(format!("unix://{}", self.socket().display()));
        command.arg("--root").arg(self.home.join("root"));
        command.arg("--state").arg(self.home.join("state"));
        command.args(arguments);
        command
    }

    /// Runs `wharf ARGUMENTS…` to its end.
    pub fn run(&self, arguments: &[&str]) -> crate::Finished {
        crate::run(&mut self.command(arguments))
    }

    /// Runs `wharf run --rm --network none IMAGE COMMAND…` to its end.
    pub fn run_image(&self, image: &str, command: &[&str]) -> crate::Finished {
        self.run(&[&["run", "--rm", "--network", "none", image], command].concat())
    }

    /// Runs `wharf run -d --network none --name NAME IMAGE COMMAND…`, which prints the container's id.
    pub fn run_detached(&self, name: &str, image: &str, command: &[&str]) -> crate::Finished {
        let options = ["run", "-d", "--network", "none", "--name", name, image];
        self.run(&[&options, command].concat())
    }

    /// Where the engine's API is served.
    pub fn socket(&self) -> PathBuf {
        self.home.join("wharf.sock")
    }

    /// Where containerd's API is served by the embedded supervisor.
    pub fn supervisor_socket(&self) -> PathBuf {
        self.home.join("wharfd.sock")
    }

    /// Debian's `ctr` on the embedded supervisor, in the engine's namespace.
    pub fn ctr(&self) -> Command {
        ctr(&self.supervisor_socket(), "wharf")
    }

    /// The directory of the instance.
    pub fn home(&self) -> &Path {
        &self.home
    }
}

/// A `wharfd` of a test's own.
#[derive(Debug)]
pub struct Wharfd {
    home: PathBuf,
    /// The process; `None` after [`Wharfd::kill9`].
    pub daemon: Option<Daemon>,
}

impl Wharfd {
    /// Starts an instance below `scratch`.
    ///
    /// # Panics
    ///
    /// It does not come up.
    pub fn start(scratch: &Scratch) -> Wharfd {
        let mut wharfd = Wharfd::unstarted(scratch);
        wharfd.restart();
        wharfd
    }

    /// An instance below `scratch` that does not run yet.
    pub fn unstarted(scratch: &Scratch) -> Wharfd {
        Wharfd {
            home: scratch.directory("wharfd"),
            daemon: None,
        }
    }

    /// Starts the daemon (again).
    ///
    /// # Panics
    ///
    /// It does not come up.
    pub fn restart(&mut self) {
        self.restart_as(&mut self.command(&[]));
    }

    /// Starts the daemon (again) with a command like [`Wharfd::command`]'s.
    ///
    /// # Panics
    ///
    /// It does not come up.
    pub fn restart_as(&mut self, command: &mut Command) {
        let socket = self.socket();
        self.daemon = Some(Daemon::start(command, &self.home.join("log"), || {
            answers(&socket)
        }));
    }

    /// Has a new daemon take over from the one that runs, which must end by itself.
    ///
    /// # Panics
    ///
    /// It does not come up, or the old one stays.
    pub fn take_over(&mut self) {
        let mut old = self.daemon.take().expect("a running daemon");
        let socket = self.socket();
        let mut command = self.command(&["--takeover"]);
        self.daemon = Some(Daemon::start(&mut command, &self.home.join("log"), || {
            old.has_ended() && answers(&socket)
        }));
    }

    /// `wharfd ARGUMENTS…` on this instance, with the configuration file `wharfd.toml` in its directory if there is one.
    ///
    /// # Panics
    ///
    /// The directory cannot be made.
    pub fn command(&self, arguments: &[&str]) -> Command {
        fs::create_dir_all(&self.home).expect("make the instance's directory");
        let mut command = Command::new(binaries::ours("wharfd"));
        command
            .arg("--root")
            .arg(self.home.join("root"))
            .arg("--state")
            .arg(self.home.join("state"))
            .arg("--address")
            .arg(self.socket());
        let file = self.home.join("wharfd.toml");
        if file.exists() {
            command.arg("--config").arg(file);
        }
        command.args(arguments);
        command
    }

    /// Ends the daemon with SIGKILL.
    ///
    /// # Panics
    ///
    /// There is none.
    pub fn kill9(&mut self) {
        self.daemon.take().expect("a running daemon").kill9();
    }

    /// The socket that it serves.
    pub fn socket(&self) -> PathBuf {
        self.home.join("wharfd.sock")
    }

    /// Debian's `ctr` on this instance.
    pub fn ctr(&self) -> Command {
        ctr(&self.socket(), "default")
    }

    /// The directory of the instance.
    pub fn home(&self) -> &Path {
        &self.home
    }
}

/// Whether somebody serves containerd's API on `socket`.
fn answers(socket: &Path) -> bool {
    ctr(socket, "default")
        .arg("version")
        .output()
        .is_ok_and(|output| output.status.success())
}
