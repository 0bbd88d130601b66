//! Stopping and killing all processes of a group at once.

use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;

use super::group::GroupDirectory;
use super::{Cgroup, Error, file};
use crate::sys::signal;

/// How long the processes of a group may take to stop.
const FREEZE_SECONDS: u64 = 10;

/// How often a group without a freezer is read again for processes that were born meanwhile.
const KILL_ROUNDS: usize = 100;

impl Cgroup {
    /// Stops every process of the group; returns when they are stopped.
    ///
    /// # Errors
    ///
    /// There is no freezer, or the processes do not stop in ten seconds; the group is thawed again then.
    pub fn freeze(&self) -> Result<(), Error> {
        let result = match self.freezer()? {
            Freezer::V1(directory) => freeze_v1(directory),
            Freezer::V2(directory) => freeze_v2(directory),
        };
        // Half frozen is the worst of all states.
        result.map_err(|error| self.thaw().err().unwrap_or(error))
    }

    /// Lets the processes run again.
    ///
    /// # Errors
    ///
    /// There is no freezer, or the kernel refuses.
    pub fn thaw(&self) -> Result<(), Error> {
        match self.freezer()? {
            Freezer::V1(directory) => directory.write("freezer.state", "THAWED"),
            Freezer::V2(directory) => directory.write("cgroup.freeze", "0"),
        }
    }

    /// Whether the group itself (not an ancestor) is frozen or on its way there.
    ///
    /// # Errors
    ///
    /// The state cannot be read. A group that is gone, or has no freezer, is not frozen.
    pub fn is_frozen(&self) -> Result<bool, Error> {
        let state = match self.freezer() {
            Ok(Freezer::V1(directory)) => directory.read_if_present("freezer.self_freezing")?,
            Ok(Freezer::V2(directory)) => directory.read_if_present("cgroup.freeze")?,
            Err(_) => None,
        };
        Ok(state.is_some_and(|state| state.trim() == "1"))
    }

    /// Sends a signal to every process of the group and its children. `SIGKILL` also ends a frozen group.
    ///
    /// # Errors
    ///
    /// The group cannot be read, or a signal is refused. Processes that are gone are no error.
    pub fn kill(&self, signal: i32) -> Result<(), Error> {
        if signal == libc::SIGKILL
            && let Some(v2) = self.directory("")
            && v2.read_if_present("cgroup.type")?.is_some()
        {
            // Since Linux 5.14; it reaches what is born meanwhile and what is frozen by v2.
            match v2.write("cgroup.kill", "1") {
                Err(error) if !file::is_gone(&error) => return Err(error),
                Ok(()) if self.is_v2() => return Ok(()),
                Ok(()) | Err(_) => {}
            }
        }
        let was_frozen = self.is_frozen()?;
        let held = was_frozen || self.freeze().is_ok();
        let sent = if held {
            self.signal_once(signal).map(drop)
        } else {
            self.signal_until_none_is_new(signal)
        };
        if held && (!was_frozen || signal == libc::SIGKILL) {
            let thawed = self.thaw();
            return sent.and(thawed.or_else(|error| if file::is_gone(&error) { Ok(()) } else { Err(error) }));
        }
        sent
    }

    fn signal_once(&self, signal: i32) -> Result<Vec<i32>, Error> {
        let pids = self.pids()?;
        for pid in &pids {
            match signal::kill(*pid, signal) {
                Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
                    let group = &self.primary()?.path;
                    return Err(Error::io(
                        format!("send signal {signal} to process {pid} of"),
                        group,
                        error,
                    ));
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(pids)
    }

    fn signal_until_none_is_new(&self, signal: i32) -> Result<(), Error> {
        let mut known = Vec::new();
        for _ in 0..KILL_ROUNDS {
            let now = self.signal_once(signal)?;
            if now.iter().all(|pid| known.contains(pid)) {
                return Ok(());
            }
            known = now;
        }
        Err(Error::Timeout {
            operation: "signal all of",
            path: self.primary()?.path.clone(),
            seconds: 0,
        })
    }

    fn freezer(&self) -> Result<Freezer<'_>, Error> {
        if let Some(directory) = self.directory("freezer") {
            return Ok(Freezer::V1(directory));
        }
        // In a hybrid host's v2 hierarchy the freezer works as well.
        self.directory("")
            .map(Freezer::V2)
            .ok_or(Error::NoGroup("cannot toggle freezer"))
    }
}

enum Freezer<'a> {
    V1(&'a GroupDirectory),
    V2(&'a GroupDirectory),
}

/// The v1 freezer stays in `FREEZING` when processes are born meanwhile, until it is asked again; there is
/// nothing to wait on, so its state is polled.
fn freeze_v1(directory: &GroupDirectory) -> Result<(), Error> {
    let deadline = Instant::now() + Duration::from_secs(FREEZE_SECONDS);
    let mut round = 0u32;
    while Instant::now() < deadline {
        directory.write("freezer.state", "FROZEN")?;
        if directory.read("freezer.state")?.trim() == "FROZEN" {
            return Ok(());
        }
        round += 1;
        if round.is_multiple_of(50) {
            // Under a storm of forks a short thaw lets the newborn settle.
            directory.write("freezer.state", "THAWED")?;
        }
        thread::sleep(Duration::from_micros(if round < 10 { 50 } else { 1000 }));
    }
    Err(Error::Timeout {
        operation: "freeze",
        path: directory.path.clone(),
        seconds: FREEZE_SECONDS,
    })
}

fn freeze_v2(directory: &GroupDirectory) -> Result<(), Error> {
    let deadline = Instant::now() + Duration::from_secs(FREEZE_SECONDS);
    let failed = |errno| Error::io("wait for", directory.path.join("cgroup.events"), errno);
    let events = file::open(directory.fd()?.as_fd(), "cgroup.events", OFlags::RDONLY).map_err(failed)?;
    directory.write("cgroup.freeze", "1")?;
    loop {
        // Reading arms the notice of the next change.
        let mut text = [0; 512];
        let length = rustix::io::pread(&events, &mut text, 0).map_err(failed)?;
        if text[..length]
            .split(|byte| *byte == b'\n')
            .any(|line| line == b"frozen 1")
        {
            return Ok(());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let path = directory.path.clone();
            return Err(Error::Timeout {
                operation: "freeze",
                path,
                seconds: FREEZE_SECONDS,
            });
        }
        let timeout = Timespec {
            tv_sec: left.as_secs().cast_signed(),
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut poll = [PollFd::new(&events, PollFlags::PRI)];
        match rustix::event::poll(&mut poll, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
}
