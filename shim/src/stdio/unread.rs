//! Output that has ended and is not read yet.
//!
//! A FIFO that nobody holds open forgets what was written to it, and clients give up a FIFO that they have not got open
//! when the delete of its process is answered; on a busy machine either happens, since clients open and read on threads of
//! their own. So what is in the FIFO of an ended stream is kept, and deletes wait for it: while it has a reader, or none
//! has come yet. The kernel does not tell when a reader comes or reads, so it is asked from time to time; as nearly all
//! read at once, there is hardly ever anything to ask.

use std::os::fd::OwnedFd;
use std::time::Duration;

use super::fifo::{self, Writer};

/// The pause before the first question.
const FIRST: Duration = Duration::from_millis(2);

/// The longest pause between two questions: a reader that never comes costs no more than that.
const LONGEST: Duration = Duration::from_secs(1);

/// What keeps the bytes of one ended stream.
enum Kept {
    /// No reader has been seen; the first one is to see the bytes and the end.
    Unmet(Writer),
    /// The reader has seen the end; a reading end of our own.
    Ended(OwnedFd),
}

/// See the module.
#[derive(Default)]
pub struct Unread {
    kept: Vec<(u32, Kept)>,
    /// The last pause; `None` before the first one.
    pause: Option<Duration>,
    /// Whether a pause was handed out that is not over.
    pausing: bool,
}

impl Unread {
    /// Ends the stream of `writer`, a process `owner`'s, and keeps what somebody may still read.
    pub fn end(&mut self, owner: u32, mut writer: Writer) {
        let kept = if writer.is_unmet() {
            if writer.has_been_read() {
                return;
            }
            Kept::Unmet(writer)
        } else {
            writer.release();
            if writer.unread() == 0 || writer.is_alone() {
                return;
            }
            match writer.end() {
                Ok(reader) => Kept::Ended(reader),
                // Its reader has it open, most probably for good.
                Err(_) => return,
            }
        };
        self.kept.push((owner, kept));
        (self.pause, self.pausing) = (None, false);
    }

    /// How long to wait until [`Unread::ask`], once for each; `None` when nothing is kept, here or `elsewhere`.
    pub fn pause(&mut self, elsewhere: bool) -> Option<Duration> {
        if self.pausing || (self.kept.is_empty() && !elsewhere) {
            return None;
        }
        self.pausing = true;
        let pause = self.pause.map_or(FIRST, |pause| (pause * 2).min(LONGEST));
        self.pause = Some(pause);
        Some(pause)
    }

    /// Lets go what has been read.
    pub fn ask(&mut self) {
        self.pausing = false;
        self.kept.retain_mut(|(_, kept)| match kept {
            Kept::Unmet(writer) => !writer.has_been_read(),
            Kept::Ended(reader) => fifo::unread(reader) > 0,
        });
    }

    /// Whether bytes of the process `owner` wait for their reader.
    pub fn holds(&self, owner: u32) -> bool {
        self.kept.iter().any(|(other, kept)| {
            *other == owner
                && match kept {
                    Kept::Unmet(writer) => writer.unread() > 0,
                    Kept::Ended(reader) => fifo::unread(reader) > 0,
                }
        })
    }

    /// Gives up what is kept for the process `owner`.
    pub fn drop_all(&mut self, owner: u32) {
        self.kept.retain(|(other, _)| *other != owner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, open};
    use rustix::io::{read, write};
    use std::os::fd::OwnedFd;
    use std::path::Path;

    fn make_fifo(path: &Path) {
        mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    }

    fn reader(path: &Path) -> OwnedFd {
        open(
            path,
            OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .unwrap()
    }

    #[test]
    fn the_last_words_wait_for_a_reader_that_comes_late() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out");
        make_fifo(&path);
        let mut unread = Unread::default();
        assert_eq!(unread.pause(false), None);
        let writer = Writer::open(&path).unwrap();
        write(writer.fd(), b"last words").unwrap();
        unread.end(1, writer);
        assert!(unread.holds(1) && !unread.holds(2));
        assert_eq!(unread.pause(false), Some(FIRST));
        assert_eq!(unread.pause(false), None);
        unread.ask();
        assert_eq!(unread.pause(false), Some(FIRST * 2));
        let reader = reader(&path);
        unread.ask();
        assert!(unread.holds(1));
        let mut bytes = [0; 32];
        assert_eq!(read(&reader, &mut bytes).unwrap(), 10);
        unread.ask();
        assert!(!unread.holds(1));
        assert_eq!(read(&reader, &mut bytes).unwrap(), 0);
        assert_eq!(unread.pause(false), None);
    }

    #[test]
    fn a_reader_of_nothing_gets_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out");
        make_fifo(&path);
        let mut unread = Unread::default();
        unread.end(1, Writer::open(&path).unwrap());
        // Nobody waits for bytes that are not there.
        assert!(!unread.holds(1));
        unread.ask();
        let reader = reader(&path);
        unread.ask();
        assert_eq!(read(&reader, &mut [0; 1]).unwrap(), 0);
    }

    #[test]
    fn a_reader_in_time_sees_the_end_at_once_and_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out");
        make_fifo(&path);
        let reader = reader(&path);
        let writer = Writer::open(&path).unwrap();
        write(writer.fd(), b"heard").unwrap();
        let mut unread = Unread::default();
        unread.end(1, writer);
        assert!(unread.holds(1));
        assert_eq!(read(&reader, &mut [0; 8]).unwrap(), 5);
        assert!(!unread.holds(1));
        assert_eq!(read(&reader, &mut [0; 8]).unwrap(), 0);
        unread.ask();
        assert!(unread.kept.is_empty());
    }

    #[test]
    fn a_reader_that_is_gone_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out");
        make_fifo(&path);
        let reader = reader(&path);
        let writer = Writer::open(&path).unwrap();
        write(writer.fd(), b"unheard").unwrap();
        drop(reader);
        let mut unread = Unread::default();
        unread.end(1, writer);
        assert!(!unread.holds(1) && unread.kept.is_empty());
    }
}
