//! `spec`: an example configuration to start from.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use wharf_runtime::cgroup::{Layout, Version};
use wharf_runtime::spec::{CONFIG_FILE, default};

#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The bundle's directory [default: the working directory]
    #[arg(short, long, value_name = "DIRECTORY")]
    bundle: Option<PathBuf>,
    /// For a user without privileges
    #[arg(long)]
    rootless: bool,
}

pub(super) fn perform(arguments: &Arguments) -> anyhow::Result<()> {
    let user = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    // Without control groups there is nothing for a namespace of them to hide.
    let v2 = Layout::detect().is_ok_and(|layout| layout.version() == Version::V2);
    let text = default(arguments.rootless.then_some(user), v2);
    let path = arguments
        .bundle
        .as_deref()
        .unwrap_or(Path::new(""))
        .join(CONFIG_FILE);
    match OpenOptions::new().write(true).create_new(true).open(&path) {
        Ok(mut file) => file
            .write_all(text.as_bytes())
            .with_context(|| format!("write {}", path.display())),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("File {CONFIG_FILE} exists. Remove it first")
        }
        Err(error) => Err(error).with_context(|| format!("open {}", path.display())),
    }
}
