//! The disk of a guest with systemd: the least Debian that boots, made once below the build's target directory.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{binaries, run};

/// Runs the test's script, when the system is up, and ends the machine.
const SERVICE: &str = "[Unit]
Description=The script of a test
After=basic.target dbus.service
Wants=dbus.service
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'echo \"=== the script begins\"; sh /job/script 2>&1; echo \"=== the script ended with $?\"; systemctl poweroff -ff'
Environment=PATH=/job:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
StandardInput=null
StandardOutput=file:/dev/ttyS0
StandardError=inherit
TimeoutStartSec=infinity
";

/// Units that would only take time, or write between the lines of the script.
const MASKED: [&str; 9] = [
    "serial-getty@ttyS0.service",
    "getty@tty1.service",
    "systemd-timesyncd.service",
    "systemd-update-utmp.service",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
];

/// The image of an ext4 file system.
///
/// # Panics
///
/// `debootstrap` or `mke2fs` is not there, or fails.
pub(super) fn disk() -> PathBuf {
    let image = binaries::directory().join("guest-debian.ext4");
    if image.exists() {
        return image;
    }
    let work = tempfile::tempdir_in(binaries::directory()).expect("a directory for the disk");
    let tree = work.path().join("tree");
    // In a mount namespace of its own: it mounts a procfs in the tree, which is nobody else's to see.
    run(Command::new(binaries::peer("unshare"))
        .arg("--mount")
        .arg(binaries::peer("debootstrap"))
        .args([
            "--variant=minbase",
            "--include=systemd,systemd-sysv,dbus",
            "bookworm",
        ])
        .arg(&tree))
    .ok();
    for superfluous in [
        "var/cache/apt/archives",
        "var/lib/apt/lists",
        "usr/share/doc",
        "usr/share/man",
        "usr/share/locale",
    ] {
        fs::remove_dir_all(tree.join(superfluous)).expect("make the disk smaller");
    }
    prepare(&tree);
    let new = work.path().join("disk");
    run(Command::new("truncate").args(["-s", "600M"]).arg(&new)).ok();
    run(Command::new(binaries::peer("mke2fs"))
        .args(["-q", "-F", "-t", "ext4", "-d"])
        .arg(&tree)
        .arg(&new))
    .ok();
    // Another test may have been faster: either image will do.
    fs::rename(&new, &image).expect("keep the disk");
    image
}

fn prepare(tree: &Path) {
    let units = tree.join("etc/systemd/system");
    let wanted = units.join("multi-user.target.wants");
    for directory in [&wanted, &tree.join("job")] {
        fs::create_dir_all(directory).expect("make the disk's directories");
    }
    fs::write(units.join("script.service"), SERVICE).expect("write the service");
    symlink("../script.service", wanted.join("script.service")).expect("want the service");
    for unit in MASKED {
        let link = units.join(unit);
        if fs::symlink_metadata(&link).is_ok() {
            fs::remove_file(&link).expect("replace a unit");
        }
        symlink("/dev/null", link).expect("mask a unit");
    }
    fs::write(tree.join("etc/hostname"), "guest\n").expect("name the guest");
}
