//! What `create`, `run` and `exec` have in common: the flags about a process, and what they forbid together.

use std::env;
use std::path::PathBuf;

use anyhow::bail;
use clap::Args;

/// The flags that `create` and `run` share.
#[derive(Args, Debug)]
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
    pub fn bundle(&self) -> PathBuf {
        self.bundle
            .clone()
            .filter(|path| !path.as_os_str().is_empty())
            .unwrap_or_else(|| PathBuf::from("."))
    }

    pub fn check(&self) -> anyhow::Result<()> {
        check_preserved(self.preserve_fds)?;
        check_environment()
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

/// Each descriptor that is to be passed has to be open.
pub(super) fn check_preserved(count: u32) -> anyhow::Result<()> {
    for index in 0..count {
        if let Err(error) = std::fs::symlink_metadata(format!("/proc/self/fd/{}", 3 + index)) {
            bail!("unable to stat preserved-fd {index} (of {count}): {error}");
        }
    }
    Ok(())
}

/// What a service manager asks for through the environment is refused, not lost.
fn check_environment() -> anyhow::Result<()> {
    if env::var_os("NOTIFY_SOCKET").is_some_and(|socket| !socket.is_empty()) {
        bail!("passing on NOTIFY_SOCKET is not supported yet; unset it to do without");
    }
    let meant = env::var("LISTEN_PID").is_ok_and(|pid| pid == std::process::id().to_string());
    if meant && env::var("LISTEN_FDS").is_ok_and(|count| count != "0") {
        bail!("passing on LISTEN_FDS is not supported yet; unset it to do without");
    }
    Ok(())
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
        let error = check_preserved(10_000).unwrap_err().to_string();
        assert!(error.starts_with("unable to stat preserved-fd "), "{error}");
    }
}
