//! A program in the background, ended by pid when its guard goes.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::eventually;

/// A daemon that a test started, with its output in a file.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts `command` with both outputs in `log`, and waits until `ready`.
    ///
    /// # Panics
    ///
    /// It does not start, ends early, or is not ready within 30 s; the message carries its log.
    pub fn start(command: &mut Command, log: &Path, mut ready: impl FnMut() -> bool) -> Daemon {
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .expect("the daemon's log file");
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a second handle of the log"))
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let mut daemon = Daemon {
            child,
            log: log.to_path_buf(),
        };
        eventually(&format!("{command:?} is ready"), Duration::from_secs(30), || {
            if let Some(status) = daemon.child.try_wait().expect("wait for the daemon") {
                panic!("{command:?} ended with {status}:\n{}", daemon.log());
            }
            ready().then_some(())
        });
        daemon
    }

    /// What it has printed.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Whether it has ended by itself.
    ///
    /// # Panics
    ///
    /// It cannot be waited for.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("wait for the daemon").is_some()
    }

    /// Ends it as a crash would: SIGKILL, and waits until it is gone.
    ///
    /// # Panics
    ///
    /// It cannot be waited for.
    pub fn kill9(mut self) {
        self.end(false);
    }

    fn end(&mut self, politely: bool) {
        let Some(pid) = rustix::process::Pid::from_raw(self.pid()) else {
            return;
        };
        if let Ok(Some(_)) = self.child.try_wait() {
            return;
        }
        if politely && rustix::process::kill_process(pid, rustix::process::Signal::TERM).is_ok() {
            for _ in 0..500 {
                if let Ok(Some(_)) = self.child.try_wait() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        // Only an already ended process refuses SIGKILL, and that is what is wanted.
        drop(self.child.kill());
        self.child.wait().expect("wait for the daemon");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.end(true);
        if std::thread::panicking() {
            let log = self.log();
            let last: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("--- the end of {}", self.log.display());
            last.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}
