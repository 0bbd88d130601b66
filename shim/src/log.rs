//! The shim's own log: lines for the daemon's journal, through the FIFO `log` of the bundle.
//!
//! The FIFO is opened for each line: a shim logs little, holds no descriptor for it, and a daemon that went away or
//! does not read costs the line and nothing else. Never blocks, never fails.

use std::path::PathBuf;

use rustix::fs::{FileType, Mode, OFlags};

use crate::clock;

/// Where lines go.
pub struct Log {
    fifo: PathBuf,
    debug: bool,
}

impl Log {
    /// A log to the FIFO at `fifo`, made by the daemon; without it, lines are dropped.
    pub fn new(fifo: PathBuf, debug: bool) -> Log {
        Log { fifo, debug }
    }

    /// A change of state worth a line only when debugging.
    pub fn debug(&self, message: &str) {
        if self.debug {
            self.line("debug", message);
        }
    }

    /// Something was lost or refused, and the shim goes on.
    pub fn warn(&self, message: &str) {
        self.line("warning", message);
    }

    /// Something that somebody has to look at.
    pub fn error(&self, message: &str) {
        self.line("error", message);
    }

    fn line(&self, level: &str, message: &str) {
        let time = clock::rfc3339(&clock::now());
        let line = format!("time={time:?} level={level} msg={message:?} runtime=io.containerd.wharf.v2\n");
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let Ok(fifo) = rustix::fs::open(&self.fifo, flags, Mode::empty()) else {
            return;
        };
        let is_fifo = rustix::fs::fstat(&fifo)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo);
        if is_fifo {
            // A full pipe means a daemon that does not read; the line is the price, not the container.
            let _ = rustix::io::write(&fifo, line.as_bytes());
        }
    }
}
