//! News of the OOM killer in a group.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::event::EventfdFlags;
use rustix::fs::{OFlags, inotify};
use rustix::io::Errno;

use super::{Cgroup, Error, file};

/// Tells when the kernel's OOM killer was at work in a group.
#[derive(Debug)]
pub struct OomWatch {
    notice: OwnedFd,
    group: PathBuf,
    /// v2: how often a process was killed, as far as it was told.
    kills: Option<u64>,
}

impl AsFd for OomWatch {
    /// The descriptor to poll: readable (v1 eventfd, v2 inotify) when there may be news.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.notice.as_fd()
    }
}

impl OomWatch {
    /// Consumes what made the descriptor readable; whether the group ran out of memory since the last call.
    /// Does not block.
    ///
    /// # Errors
    ///
    /// The notice cannot be read.
    pub fn take(&mut self) -> Result<bool, Error> {
        let mut news = [0u8; 4096];
        let mut any = false;
        loop {
            match rustix::io::read(&self.notice, &mut news) {
                // An eventfd is empty after one read; inotify's queue may be longer than the buffer.
                Ok(length) => {
                    any = true;
                    if length < news.len() / 2 {
                        break;
                    }
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::io("read the OOM notice of", &self.group, errno)),
            }
        }
        match self.kills {
            Some(before) => {
                let Ok(text) = std::fs::read_to_string(self.group.join("memory.events")) else {
                    return Ok(false);
                };
                let now = oom_kills(&text);
                self.kills = Some(now);
                Ok(now > before)
            }
            // The v1 eventfd also fires when the group is removed.
            None => Ok(any && self.group.join("cgroup.event_control").exists()),
        }
    }
}

fn oom_kills(events: &str) -> u64 {
    let line = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

impl Cgroup {
    /// Watches for the OOM killer; nothing where the memory controller is missing.
    ///
    /// # Errors
    ///
    /// The notice cannot be set up.
    pub fn oom_watch(&self) -> Result<Option<OomWatch>, Error> {
        if let Some(memory) = self.directory("memory") {
            let failed = |errno| Error::io("watch", memory.path.join("memory.oom_control"), errno);
            let notice =
                rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(failed)?;
            let control =
                file::open(memory.fd()?.as_fd(), "memory.oom_control", OFlags::RDONLY).map_err(failed)?;
            memory.write(
                "cgroup.event_control",
                &format!("{} {}", notice.as_raw_fd(), control.as_raw_fd()),
            )?;
            return Ok(Some(OomWatch {
                notice,
                group: memory.path.clone(),
                kills: None,
            }));
        }
        let Some(v2) = self.directory("") else {
            return Ok(None);
        };
        let Some(events) = v2.read_if_present("memory.events")? else {
            return Ok(None);
        };
        let path = v2.path.join("memory.events");
        let failed = |errno| Error::io("watch", &path, errno);
        let notice =
            inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).map_err(failed)?;
        inotify::add_watch(&notice, &path, inotify::WatchFlags::MODIFY).map_err(failed)?;
        Ok(Some(OomWatch {
            notice,
            group: v2.path.clone(),
            kills: Some(oom_kills(&events)),
        }))
    }
}
