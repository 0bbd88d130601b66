//! What a caller can ask for.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::str::FromStr;

use crate::{ContainerId, Stdio};

/// How criu treats the control groups of the container's processes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ManageCgroups {
    /// As criu does when it is told nothing: `Soft`.
    #[default]
    Default,
    /// The processes stay where the runtime puts them; nothing is saved.
    Ignore,
    /// Values of groups that had to be made are restored.
    Soft,
    /// Values of all groups are restored.
    Full,
    /// All groups have to be new.
    Strict,
}

/// The word is none of `soft`, `full`, `strict` and `ignore`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("invalid manage-cgroups-mode value")]
pub struct UnknownMode;

impl FromStr for ManageCgroups {
    type Err = UnknownMode;

    fn from_str(word: &str) -> Result<Self, UnknownMode> {
        match word {
            "" => Ok(Self::Default),
            "soft" => Ok(Self::Soft),
            "full" => Ok(Self::Full),
            "strict" => Ok(Self::Strict),
            "ignore" => Ok(Self::Ignore),
            _ => Err(UnknownMode),
        }
    }
}

/// Where a page server listens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PageServer {
    /// Its address, as criu takes it.
    pub address: String,
    /// Its TCP port.
    pub port: u16,
}

/// What checkpoints and restores have in common.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The criu program: a name to be looked up in `PATH`, or a path. `criu` when nothing is said.
    pub criu: Option<PathBuf>,
    /// The directory of criu's images; made (0700) by a checkpoint.
    pub images: PathBuf,
    /// Where criu writes its log and statistics; that of the images when nothing is said. Made (0700) if it is missing.
    pub work: Option<PathBuf>,
    /// Established TCP connections are kept.
    pub tcp_established: bool,
    /// Unix sockets may be connected with sockets outside the container.
    pub external_unix_sockets: bool,
    /// The container may have a terminal of somebody else's as its controlling terminal.
    pub shell_job: bool,
    /// File locks are kept.
    pub file_locks: bool,
    /// How control groups are treated.
    pub manage_cgroups: ManageCgroups,
    /// Memory that is in a later image is freed in the earlier one.
    pub auto_dedup: bool,
    /// Memory is moved when it is needed, by a `criu lazy-pages` that the caller has to start.
    pub lazy_pages: bool,
}

/// How a container is checkpointed. The network of a network namespace is never saved: whoever made it makes it again.
#[derive(Debug, Default)]
pub struct CheckpointOptions {
    /// What restores have too.
    pub settings: Settings,
    /// An earlier checkpoint, relative to the directory of the images: memory that has not changed since is left out.
    pub parent: Option<PathBuf>,
    /// The container runs on.
    pub leave_running: bool,
    /// TCP connections that are not established yet are left out.
    pub tcp_skip_in_flight: bool,
    /// Files that are open and have no name any more are given one.
    pub link_remap: bool,
    /// Save the memory only, and let the container run on: the checkpoint after this one names it as its parent.
    pub pre_dump: bool,
    /// Memory is sent there instead of being written.
    pub page_server: Option<PageServer>,
    /// Gets a zero byte when the lazy pages can be asked for, and is closed then.
    pub status: Option<OwnedFd>,
}

/// How a container is restored.
#[derive(Debug)]
pub struct RestoreOptions {
    /// The name; must not be taken.
    pub id: ContainerId,
    /// The directory with `config.json`.
    pub bundle: PathBuf,
    /// What checkpoints have too.
    pub settings: Settings,
    /// The standard streams. Pipes take the places of those the container had; for a container with a terminal these are
    /// not used, since it gets its terminal back.
    pub stdio: Stdio,
    /// Where to write the first process's pid, as decimal digits.
    pub pid_file: Option<PathBuf>,
    /// A listening unix socket that receives the terminal's master.
    pub console_socket: Option<PathBuf>,
    /// systemd makes the control group.
    pub systemd_cgroup: bool,
    /// As [`crate::CreateOptions::rootless`].
    pub rootless: Option<bool>,
    /// `TYPE:NAME`: the security profile in place of the one that was saved.
    pub lsm_profile: Option<String>,
    /// The security context of mounts in place of the one that was saved.
    pub lsm_mount_context: Option<String>,
}

impl RestoreOptions {
    /// Options with every switch off, inherited streams and no files but those of the checkpoint in `images`.
    #[must_use]
    pub fn new(id: ContainerId, bundle: impl Into<PathBuf>, images: impl Into<PathBuf>) -> Self {
        Self {
            id,
            bundle: bundle.into(),
            settings: Settings {
                images: images.into(),
                ..Settings::default()
            },
            stdio: Stdio::Inherit,
            pid_file: None,
            console_socket: None,
            systemd_cgroup: false,
            rootless: None,
            lsm_profile: None,
            lsm_mount_context: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_modes_have_criu_s_words() {
        for (word, mode) in [
            ("", ManageCgroups::Default),
            ("soft", ManageCgroups::Soft),
            ("full", ManageCgroups::Full),
            ("strict", ManageCgroups::Strict),
            ("ignore", ManageCgroups::Ignore),
        ] {
            assert_eq!(word.parse(), Ok(mode));
        }
        let error = "none".parse::<ManageCgroups>().unwrap_err();
        assert_eq!(error.to_string(), "invalid manage-cgroups-mode value");
    }
}
