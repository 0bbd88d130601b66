//! Runs one bundle as root: `run BUNDLE ID`. Shows the library's life cycle: create, start, wait, delete.

use std::process::ExitCode;

use rustix::process::{WaitId, WaitIdOptions, waitid};
use wharf_runtime::{ContainerId, CreateOptions, Runtime};

fn main() -> ExitCode {
    match run() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("run: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<u8, Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(bundle), Some(id)) = (arguments.next(), arguments.next()) else {
        return Err("usage: run BUNDLE ID".into());
    };
    let root = std::env::temp_dir().join("wharf-runtime-example");
    let container = Runtime::new(root).create(CreateOptions::new(ContainerId::new(id)?, bundle))?;
    let ended = container.start().and_then(|()| {
        let pidfd = container.pidfd().expect("a created container has a process");
        let ended = waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED);
        Ok(ended.ok().flatten().and_then(|status| status.exit_status()))
    });
    container.delete(true)?;
    Ok(ended?.and_then(|code| u8::try_from(code).ok()).unwrap_or(255))
}
