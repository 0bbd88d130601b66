//! The distribution's packages that tests and benches compare with.

use anyhow::Result;

use crate::shell;

/// What the tests need from Debian, beside Rust and a C compiler.
const PACKAGES: [&str; 26] = [
    "attr",
    "binutils",
    "btrfs-progs",
    "busybox-static",
    "conmon",
    "containerd",
    "cpio",
    "criu",
    "crun",
    "debootstrap",
    "docker-registry",
    "docker.io",
    "e2fsprogs",
    "iproute2",
    "libseccomp-dev",
    "openssl",
    "podman",
    "python3-minimal",
    "runc",
    "skopeo",
    "strace",
    "tar",
    "umoci",
    "util-linux",
    "xz-utils",
    "zstd",
];

/// The emulator conflicts with `qemu-utils`, which some machines carry: the trailing minus removes that.
const EMULATOR: [&str; 2] = ["qemu-system-x86", "qemu-utils-"];

/// Installs the peers with apt-get. Needs root and Debian's package archive.
pub(crate) fn install() -> Result<()> {
    let quiet = ["install", "--yes", "-qq", "--no-install-recommends"];
    shell::run(apt().args(["update", "-qq"]))?;
    shell::run(apt().args(quiet).args(PACKAGES))?;
    shell::run(apt().args(quiet).args(EMULATOR))
}

fn apt() -> std::process::Command {
    let mut command = shell::command("apt-get", [] as [&str; 0]);
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}
