//! The in-container probe: reports what a process inside really sees, as JSON on standard output.
//!
//! It is one static binary, so it runs in any root filesystem, and on the host for comparison.

mod entry;
mod hunt;
mod identity;
mod tree;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let report = match arguments.as_slice() {
        ["identity"] => identity::report(),
        ["call", entry, number, arguments @ ..] => entry::report(entry, number, arguments),
        ["hunt", secret] => hunt::report(secret),
        ["tree", directory] => tree::report(directory),
        ["notify", message] => return notify(message),
        _ => {
            eprintln!(
                "usage: probe identity | probe tree DIRECTORY | probe hunt SECRET | probe call ENTRY NUMBER ARGUMENT... | probe notify MESSAGE"
            );
            return ExitCode::from(2);
        }
    };
    match report {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("probe: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Sends a message to the service manager, as `systemd-notify` does.
fn notify(message: &str) -> ExitCode {
    let path = std::env::var_os("NOTIFY_SOCKET").unwrap_or_default();
    let sent = std::os::unix::net::UnixDatagram::unbound()
        .and_then(|socket| socket.send_to(message.as_bytes(), &path));
    match sent {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("probe: send to {}: {error}", path.display());
            ExitCode::FAILURE
        }
    }
}
