//! Checking an instance that is not running: whose each byte is, what belongs to nobody, what is missing; and repairing it.
//!
//! ```text
//! scan (rows against files, mounts, shims) ──► Report ──► repair ──► scan ──► what is left
//! ```
//!
//! Repair is what the daemon does when it starts, by the same code: files that no row names are removed, dead shims are
//! cleaned up after, garbage is collected. Beyond that, rows whose files are missing are removed, so that what they stood
//! for can be fetched again: of blobs, and of snapshots with all that lie on them. A daemon does not do that by itself,
//! because nothing it does brings that about: a disk lost what it had said was there, or somebody deleted it.
//!
//! A dry run changes nothing but that the journal is brought into the metadata's file. External snapshotters are asked
//! only by a repair. Refuses an instance whose root is in use.

mod bundles;
mod report;
mod rows;
mod scan;

use std::sync::Arc;

pub use report::{Fault, Item, Report};

use crate::{
    Config,
    daemon::Daemon,
    error::{Error, Result},
    gc, metadata, server,
};

/// How an instance is checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Only tell what would be done.
    pub dry_run: bool,
    /// Read every blob, and compare its bytes with its digest.
    pub verify: bool,
}

/// Checks the instance, and repairs it unless told otherwise. Blocks the runtime's blocking pool only.
///
/// # Errors
///
/// `Unavailable` when a daemon has the root open; `NotFound` when there is none; `Unknown` from the disk.
pub async fn check(config: Config, options: Options) -> Result<Report> {
    tokio::task::spawn_blocking(move || blocking(&config, options))
        .await
        .map_err(|error| Error::unknown("check the instance", error))?
}

fn blocking(config: &Config, options: Options) -> Result<Report> {
    if !config.root.join("metadata.redb").exists() {
        return Err(Error::not_found(format!(
            "an instance in {}",
            config.root.display()
        )));
    }
    let _lock = server::lock(&config.root)?;
    let mut report = {
        let metadata = metadata::Store::open(&config.root)?;
        scan::scan(config, &metadata, options)?
    };
    if options.dry_run {
        return Ok(report);
    }
    {
        let metadata = metadata::Store::open(&config.root)?;
        rows::remove(&metadata, &report.faults)?;
    }
    let daemon = Arc::new(Daemon::open(config)?);
    tokio::runtime::Handle::current().block_on(daemon.sandboxes.reconcile())?;
    tokio::runtime::Handle::current().block_on(daemon.tasks.reconcile())?;
    scan::unmount_orphans(config, &report.faults)?;
    daemon.mounts.recover()?;
    gc::collect(&daemon)?;
    let left = scan::scan(
        config,
        &daemon.metadata,
        Options {
            verify: false,
            ..options
        },
    )?;
    for fault in &mut report.faults {
        fault.repaired = !left.faults.iter().any(|other| other.is(fault));
    }
    // What the repair itself brought to light.
    for fault in left.faults {
        if !report.faults.iter().any(|known| known.is(&fault)) {
            report.faults.push(fault);
        }
    }
    report.items = left.items;
    Ok(report)
}
