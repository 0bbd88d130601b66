//! `checkpoint`: a running container is saved to files, and removed unless it is to run on.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use rustix::fs::{OFlags, fcntl_getfl};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use wharf_runtime::Status;
use wharf_runtime::checkpoint::{CheckpointOptions, PageServer};

use super::Environment;
use super::criu::{CriuFlags, quote, warn_without_privileges};

#[derive(Args, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    flags: CriuFlags,
    /// An earlier checkpoint, relative to the directory of this one
    #[arg(long, value_name = "DIRECTORY")]
    parent_path: Option<PathBuf>,
    /// Let the container run on
    #[arg(long)]
    leave_running: bool,
    /// Leave out TCP connections that are not established yet
    #[arg(long)]
    tcp_skip_in_flight: bool,
    /// Give a name to open files that have none any more
    #[arg(long)]
    link_remap: bool,
    /// Where to write a zero byte when the lazy pages are ready
    #[arg(long, value_name = "FD", default_value_t = -1, hide_default_value = true, allow_hyphen_values = true)]
    status_fd: i32,
    /// Send memory to the page server at ADDRESS:PORT
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        default_value = "",
        hide_default_value = true
    )]
    page_server: String,
    /// Save the memory only, and let the container run on
    #[arg(long)]
    pre_dump: bool,
    /// The container's name
    id: String,
}

pub(super) fn perform(environment: &Environment<'_>, arguments: &Arguments) -> anyhow::Result<()> {
    warn_without_privileges(environment.log);
    let container = environment.load(&arguments.id)?;
    let status = container.state()?.status;
    if status == Status::Created || status == Status::Stopped {
        bail!("Container cannot be checkpointed in {status} state");
    }
    let parent = arguments.parent_path.clone();
    let options = CheckpointOptions {
        settings: arguments.flags.settings(environment)?,
        parent: parent.filter(|parent| !parent.as_os_str().is_empty()),
        leave_running: arguments.leave_running,
        tcp_skip_in_flight: arguments.tcp_skip_in_flight,
        link_remap: arguments.link_remap,
        pre_dump: arguments.pre_dump,
        page_server: page_server(&arguments.page_server)?,
        status: status_fd(arguments.status_fd)?,
    };
    let stays = options.leave_running || options.pre_dump;
    let saved = container.checkpoint(options).map_err(anyhow::Error::from);
    environment.log.warnings(&container.take_warnings());
    saved.inspect_err(|error| quote(environment.log, error))?;
    if !stays {
        // It is saved: what is left of it does not make that undone.
        if let Err(error) = container.delete(false) {
            environment.log.warning(&error.to_string());
        }
        environment.log.warnings(&container.take_warnings());
    }
    Ok(())
}

/// Splits `ADDRESS:PORT`; an address with colons of its own is in brackets.
fn page_server(text: &str) -> anyhow::Result<Option<PageServer>> {
    if text.is_empty() {
        return Ok(None);
    }
    let usage = || anyhow!("Use --page-server ADDRESS:PORT to specify page server");
    let (address, port) = text.rsplit_once(':').ok_or_else(usage)?;
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if bare.is_none() && address.contains([':', '[', ']']) {
        return Err(usage());
    }
    let address = bare.unwrap_or(address);
    if address.is_empty() || port.is_empty() {
        return Err(usage());
    }
    let port = port.parse().ok().filter(|port| *port != 0);
    Ok(Some(PageServer {
        address: address.to_owned(),
        port: port.ok_or_else(|| anyhow!("Invalid port number"))?,
    }))
}

/// A copy of the descriptor that was named, which has to be open for writing.
fn status_fd(number: i32) -> anyhow::Result<Option<OwnedFd>> {
    if number == -1 {
        return Ok(None);
    }
    let invalid = || format!("invalid --status-fd argument {number}");
    let myself = pidfd_open(getpid(), PidfdFlags::empty()).context("open a pidfd")?;
    let copy = pidfd_getfd(myself, number, PidfdGetfdFlags::empty()).with_context(invalid)?;
    let flags = fcntl_getfl(&copy).with_context(invalid)?;
    if !flags.intersects(OFlags::WRONLY | OFlags::RDWR) {
        bail!("{}: not writable", invalid());
    }
    Ok(Some(copy))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn a_page_server_has_an_address_and_a_port() {
        let of = |text| page_server(text).map_err(|error| error.to_string());
        let server = |address: &str, port| {
            Ok(Some(PageServer {
                address: address.to_owned(),
                port,
            }))
        };
        assert_eq!(of(""), Ok(None));
        assert_eq!(of("0.0.0.0:27277"), server("0.0.0.0", 27277));
        assert_eq!(of("[::1]:1"), server("::1", 1));
        let usage = "Use --page-server ADDRESS:PORT to specify page server";
        for bad in ["host", ":1", "host:", "::1:1", "[::1]", "[:1"] {
            assert_eq!(of(bad), Err(usage.to_owned()), "{bad}");
        }
        for bad in ["h:x", "h:0", "h:65536", "h:-1"] {
            assert_eq!(of(bad), Err("Invalid port number".to_owned()), "{bad}");
        }
    }

    #[test]
    fn a_status_descriptor_is_open_for_writing() {
        assert!(status_fd(-1).unwrap().is_none());
        let error = format!("{:#}", status_fd(9_999).unwrap_err());
        assert!(
            error.starts_with("invalid --status-fd argument 9999: "),
            "{error}"
        );
        let (read, write) = rustix::pipe::pipe().unwrap();
        let number = read.as_raw_fd();
        let error = status_fd(number).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("invalid --status-fd argument {number}: not writable")
        );
        let copy = status_fd(write.as_raw_fd()).unwrap().unwrap();
        drop(write);
        assert_eq!(rustix::io::write(&copy, &[0]), Ok(1));
    }
}
