//! Runs one bundle as root: `run BUNDLE ID`. Shows the library's life cycle: create, start, wait, delete.

use std::process::ExitCode;

use rustix::process::{WaitId, WaitIdOptions, waitid};
use wharf_runtime::{Container, ContainerId, CreateOptions, Runtime};

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
    let ended = run_to_end(&container);
    container.delete(true)?;
    ended
}

/// The program's exit code, or 128 and the signal that ended it.
fn run_to_end(container: &Container) -> Result<u8, Box<dyn std::error::Error>> {
    container.start()?;
    let pidfd = container.pidfd().ok_or("the container has no process")?;
    let status = waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED)?.ok_or("no status")?;
    let code = status.exit_status().or_else(|| Some(128 + status.terminating_signal()?));
    Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(255))
}
