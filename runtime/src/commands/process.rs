//! What `create`, `run` and `exec` have in common: the flags about a process, and what they forbid together.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::bail;
use clap::Args;

use super::plain::Words;

// The flags that `create` and `run` share; with a doc comment that would be the head of their help.
#[derive(Args, Debug, Default)]
pub(super) struct ContainerFlags {
    /// The bundle's directory [default: the working directory]
    #[arg(short, long, value_name = "DIRECTORY")]
    pub bundle: Option<PathBuf>,
    /// A unix socket that receives the master of the container's terminal
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// A unix socket that receives a pidfd of the first process
    #[arg(long, value_name = "SOCKET")]
    pub pidfd_socket: Option<PathBuf>,
    /// Where to write the first process's pid
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Do not use pivot_root, for a root file system on a ramdisk
    #[arg(long)]
    pub no_pivot: bool,
    /// Keep the caller's session keyring
    #[arg(long)]
    pub no_new_keyring: bool,
    /// How many more descriptors to pass, from 3 on
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
}

impl ContainerFlags {
    /// Takes the plain flag of that name ([`super::plain`]).
    pub fn take(&mut self, name: &str, words: &mut Words<'_>) -> Option<()> {
        match name {
            "-b" | "--bundle" => self.bundle = Some(words.value()?.into()),
            "--console-socket" => self.console_socket = Some(words.value()?.into()),
            "--pidfd-socket" => self.pidfd_socket = Some(words.value()?.into()),
            "--pid-file" => self.pid_file = Some(words.value()?.into()),
            "--no-pivot" => self.no_pivot = true,
            "--no-new-keyring" => self.no_new_keyring = true,
            "--preserve-fds" => self.preserve_fds = words.number()?,
            _ => return None,
        }
        Some(())
    }

    pub fn bundle(&self) -> PathBuf {
        self.bundle
            .clone()
            .filter(|path| !path.as_os_str().is_empty())
            .unwrap_or_else(|| PathBuf::from("."))
    }
}

/// A terminal's master has to go somewhere, and only a terminal has one.
pub(super) fn check_terminal(detach: bool, terminal: bool, has_socket: bool) -> anyhow::Result<()> {
    match (detach && terminal, has_socket) {
        (true, false) => bail!(
            "cannot allocate tty if {} will detach without setting console socket",
            super::called()
        ),
        (false, true) => bail!(
            "cannot use console socket if {} will not detach or allocate tty",
            super::called()
        ),
        _ => Ok(()),
    }
}

/// Each descriptor that is to be passed has to be open; `before` them come those of a service manager.
pub(super) fn check_preserved(before: u32, count: u32) -> anyhow::Result<()> {
    for index in 0..count {
        let number = before.saturating_add(index).saturating_add(3);
        if let Err(error) = std::fs::symlink_metadata(format!("/proc/self/fd/{number}")) {
            bail!("unable to stat preserved-fd {index} (of {count}): {error}");
        }
    }
    Ok(())
}

/// The service manager that waits to hear that the service is ready.
pub(super) fn service_manager() -> Option<OsString> {
    env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty())
}

/// How many sockets a service manager has opened for this process, from 3 on (`sd_listen_fds(3)`).
pub(super) fn listen_fds() -> u32 {
    let number = |name| env::var(name).ok()?.parse::<u32>().ok();
    match number("LISTEN_PID") {
        Some(pid) if pid == std::process::id() => number("LISTEN_FDS").unwrap_or(0),
        _ => 0,
    }
}

/// What the container's process has to know of them.
pub(super) fn listen_environment(count: u32) -> Vec<String> {
    if count == 0 {
        return Vec::new();
    }
    let names = env::var("LISTEN_FDNAMES").map(|names| format!("LISTEN_FDNAMES={names}"));
    let mut environment = vec![format!("LISTEN_FDS={count}"), "LISTEN_PID=1".to_owned()];
    environment.extend(names);
    environment
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_socket_goes_with_a_detached_terminal_only() {
        for (detach, terminal, socket, good) in [
            (true, true, true, true),
            (true, true, false, false),
            (true, false, false, true),
            (true, false, true, false),
            (false, true, false, true),
            (false, true, true, false),
            (false, false, false, true),
            (false, false, true, false),
        ] {
            assert_eq!(
                check_terminal(detach, terminal, socket).is_ok(),
                good,
                "{detach} {terminal} {socket}"
            );
        }
    }

    #[test]
    fn a_descriptor_that_is_not_open_cannot_be_passed() {
        let error = check_preserved(0, 10_000).unwrap_err().to_string();
        assert!(error.starts_with("unable to stat preserved-fd "), "{error}");
    }
}
