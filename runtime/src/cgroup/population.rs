//! News of the end of a group: that its last process has left, or that it is gone.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::OFlags;

use super::{Cgroup, Error, file};

/// Tells when a v2 group has lost its last process.
#[derive(Debug)]
pub struct PopulationWatch {
    events: OwnedFd,
}

impl AsFd for PopulationWatch {
    /// The descriptor to poll: it has urgent data (`POLLPRI`) when there are news.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

impl PopulationWatch {
    /// Whether nobody is in the group any more, or it is gone. Reading this also waits for the next news.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let mut text = [0; 512];
        match rustix::io::pread(&self.events, &mut text, 0) {
            Ok(length) => text[..length]
                .split(|byte| *byte == b'\n')
                .any(|line| line == b"populated 0"),
            Err(_) => true,
        }
    }
}

impl Cgroup {
    /// Watches for the end of the group; nothing on v1, whose notice of the OOM killer also tells of the group's removal.
    ///
    /// # Errors
    ///
    /// The group is gone already.
    pub fn population_watch(&self) -> Result<Option<PopulationWatch>, Error> {
        if !self.is_v2() {
            return Ok(None);
        }
        let group = self.primary()?;
        let events = file::open(group.fd()?.as_fd(), "cgroup.events", OFlags::RDONLY)
            .map_err(|errno| Error::io("watch", group.path.join("cgroup.events"), errno))?;
        Ok(Some(PopulationWatch { events }))
    }
}
