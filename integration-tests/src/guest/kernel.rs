//! Debian's cloud kernel, from its package.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{binaries, run};

/// What it takes to see a disk.
pub(super) const DISK_MODULES: [&str; 6] = [
    "virtio_ring.ko",
    "virtio.ko",
    "virtio_pci_modern_dev.ko",
    "virtio_pci_legacy_dev.ko",
    "virtio_pci.ko",
    "virtio_blk.ko",
];

/// What criu asks netfilter with before it does anything, in the order in which they are loaded.
pub(super) const FILTER_MODULES: [&str; 3] = ["libcrc32c.ko", "nfnetlink.ko", "nf_tables.ko"];

/// The kernel and its modules, unpacked below the build's target directory: `vmlinuz`, `overlay.ko`,
/// [`DISK_MODULES`] and [`FILTER_MODULES`].
///
/// # Panics
///
/// The package cannot be had.
pub(super) fn unpacked() -> PathBuf {
    let directory = binaries::directory().join("guest-kernel");
    let modules = || DISK_MODULES.iter().chain(&FILTER_MODULES);
    let complete = |directory: &Path| modules().all(|module| directory.join(module).exists());
    if complete(&directory) {
        return directory;
    }
    let depends = run(Command::new("apt-cache").args(["depends", "linux-image-cloud-amd64"])).ok();
    let package = depends
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: linux-image"))
        .map(|rest| format!("linux-image{}", rest.trim()))
        .expect("Debian's cloud kernel; run `apt-get update`");
    let work = tempfile::tempdir_in(binaries::directory()).expect("a directory for the kernel");
    run(Command::new("apt-get")
        .args(["download", "-q"])
        .arg(&package)
        .current_dir(work.path()))
    .ok();
    let archive = fs::read_dir(work.path())
        .expect("list the download")
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .expect("the kernel's package");
    let tree = work.path().join("tree");
    run(Command::new("dpkg").arg("-x").arg(archive).arg(&tree)).ok();
    let version = package.trim_start_matches("linux-image-");
    let ready = work.path().join("ready");
    fs::create_dir(&ready).expect("make the kernel's directory");
    let packed = tree.join(format!("lib/modules/{version}/kernel"));
    fs::copy(packed.join("fs/overlayfs/overlay.ko"), ready.join("overlay.ko")).expect("the overlay module");
    for module in modules() {
        let found = ["drivers/virtio", "drivers/block", "lib", "net/netfilter"]
            .iter()
            .map(|place| packed.join(place).join(module));
        let found = found.into_iter().find(|path| path.exists());
        let found = found.unwrap_or_else(|| panic!("the kernel's package has no {module}"));
        fs::copy(found, ready.join(module)).expect("a module");
    }
    fs::copy(
        tree.join(format!("boot/vmlinuz-{version}")),
        ready.join("vmlinuz"),
    )
    .expect("the kernel");
    // Another test may have been faster, and its result is as good; an older one lacks modules.
    if fs::rename(&ready, &directory).is_err() && !complete(&directory) {
        for file in fs::read_dir(&ready).expect("list the modules").flatten() {
            fs::copy(file.path(), directory.join(file.file_name())).expect("complete the kernel's directory");
        }
        assert!(
            complete(&directory),
            "cannot put the kernel at {}",
            directory.display()
        );
    }
    directory
}
