//! The flags that `checkpoint` and `restore` share, and how criu's failures are told.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use wharf_runtime::Error;
use wharf_runtime::checkpoint::Settings;

use super::Environment;
use super::log::Log;

// What both take.
#[derive(Args, Debug)]
pub(super) struct CriuFlags {
    /// The directory of the checkpoint [default: checkpoint]
    #[arg(long, value_name = "DIRECTORY")]
    image_path: Option<PathBuf>,
    /// Where criu writes its log and statistics [default: the directory of the checkpoint]
    #[arg(long, value_name = "DIRECTORY")]
    work_path: Option<PathBuf>,
    /// Keep established TCP connections
    #[arg(long)]
    tcp_established: bool,
    /// Unix sockets may be connected with sockets outside the container
    #[arg(long)]
    ext_unix_sk: bool,
    /// The container may have a terminal of its caller's
    #[arg(long)]
    shell_job: bool,
    /// Move memory when it is needed; "criu lazy-pages" has to be run beside
    #[arg(long)]
    lazy_pages: bool,
    /// Keep file locks
    #[arg(long)]
    file_locks: bool,
    /// How to treat control groups: soft, full, strict or ignore [default: soft]
    #[arg(long, value_name = "MODE", default_value = "", hide_default_value = true)]
    manage_cgroups_mode: String,
    /// Make a namespace without restoring what is in it: network, which is always done so
    #[arg(long, value_name = "TYPE")]
    empty_ns: Vec<String>,
    /// Free memory of an earlier checkpoint that is in a later one
    #[arg(long)]
    auto_dedup: bool,
}

impl CriuFlags {
    pub(super) fn settings(&self, environment: &Environment<'_>) -> anyhow::Result<Settings> {
        if let Some(other) = self.empty_ns.iter().find(|name| *name != "network") {
            bail!("namespace {other:?} is not supported");
        }
        let given = |path: &Option<PathBuf>| path.clone().filter(|path| !path.as_os_str().is_empty());
        Ok(Settings {
            criu: Some(environment.criu.clone()),
            images: given(&self.image_path).unwrap_or_else(|| PathBuf::from("checkpoint")),
            work: given(&self.work_path),
            tcp_established: self.tcp_established,
            external_unix_sockets: self.ext_unix_sk,
            shell_job: self.shell_job,
            file_locks: self.file_locks,
            manage_cgroups: self.manage_cgroups_mode.parse()?,
            auto_dedup: self.auto_dedup,
            lazy_pages: self.lazy_pages,
        })
    }
}

/// criu wants privileges, as root of the host has them.
pub(super) fn warn_without_privileges(log: &Log) {
    if !rustix::process::geteuid().is_root() || wharf_runtime::in_user_namespace() {
        log.warning(&format!(
            "{} checkpoint is untested with rootless containers",
            super::called()
        ));
    }
}

/// Logs what criu's own log says about its failure.
pub(super) fn quote(log: &Log, error: &anyhow::Error) {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<Error>());
    let Some(failure) = causes.find_map(of_criu) else {
        return;
    };
    if let (Some(path), false) = (failure.log(), failure.excerpt().is_empty()) {
        log.warning(&format!("--- Quoting {:?}", path.display().to_string()));
        failure.excerpt().iter().for_each(|line| log.warning(line));
        log.warning("---");
    }
}

fn of_criu(error: &Error) -> Option<&wharf_runtime::checkpoint::Error> {
    match error {
        Error::Checkpoint(failure) => Some(failure),
        Error::Leftovers { error, .. } => of_criu(error),
        _ => None,
    }
}
