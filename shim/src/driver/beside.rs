//! Work of the runtime library that takes its time, done in a process of its own beside the main loop.
//!
//! The process is a fork of this one, which has one thread, and ends without running anything of the loop. What it could
//! not do it says in a file in memory: one byte of the [`Code`], and the text. It dies with the shim.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::fs::{MemfdFlags, memfd_create};

use super::{Job, Outcome, Step};
use crate::status::{Code, Refusal};
use crate::sys;

/// The longest text of a refusal, in bytes.
const LONGEST: u64 = 64 << 10;

/// Does `work` beside the loop; `finish` reads the result here once it has succeeded.
pub fn beside(
    work: impl FnOnce() -> Result<(), Refusal>,
    finish: impl FnOnce() -> Result<Outcome, Refusal> + 'static,
) -> Step {
    let failed = |operation: &str, error: std::io::Error| Step::Ready(Err(Refusal::system(operation, error)));
    let mut said: File = match memfd_create("refusal", MemfdFlags::CLOEXEC) {
        Ok(file) => file.into(),
        Err(error) => return failed("make a memory file", error.into()),
    };
    let pid = match sys::fork() {
        Ok(Some(pid)) => pid,
        Ok(None) => {
            let work = || {
                sys::begin_work().map_err(|error| Refusal::system("prepare a process", error))?;
                work()
            };
            let refusal = match catch_unwind(AssertUnwindSafe(work)) {
                Ok(Ok(())) => sys::end_work(0),
                Ok(Err(refusal)) => refusal,
                Err(_panic) => Refusal::new(Code::Unknown, "the process beside the shim panicked"),
            };
            // What cannot be written down is told by the exit status alone.
            let _ = said
                .write_all(&[refusal.code as u8])
                .and_then(|()| said.write_all(refusal.message.as_bytes()));
            sys::end_work(1)
        }
        Err(error) => return failed("fork", error),
    };
    Step::Running(Job {
        pid,
        finish: Box::new(move |status| {
            if status.exit_status() == Some(0) {
                return finish();
            }
            let mut text = Vec::new();
            let read = said
                .seek(SeekFrom::Start(0))
                .and_then(|_| said.take(LONGEST).read_to_end(&mut text));
            Err(match (read, text.split_first()) {
                (Ok(_), Some((code, message))) => {
                    Refusal::new(Code::from_number(*code), String::from_utf8_lossy(message))
                }
                _ => Refusal::new(
                    Code::Unknown,
                    format!("the process beside the shim ended: {status:?}"),
                ),
            })
        }),
    })
}
