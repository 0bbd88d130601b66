//! A second kernel: Debian's cloud kernel in QEMU, with pure cgroup v2.
//!
//! The guest lives in memory. Its initramfs holds static busybox, the kernel's overlay module, whatever programs the test
//! brings and the test's script; it moves itself onto a tmpfs (a container cannot pivot away from the initial root),
//! mounts what a host has, runs the script and powers off. The script's output comes back over the serial line.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::{Scratch, binaries, run};

/// Put before the script's output on the serial line.
const BEGIN: &str = "=== the script begins";
/// Put after it, followed by the script's exit code.
const END: &str = "=== the script ended with";

/// PID 1 of the initramfs: moves everything to a tmpfs and goes on there.
const FIRST_INIT: &str = "#!/bin/busybox sh
/bin/busybox mkdir -p /new /proc
/bin/busybox mount -t tmpfs -o size=90% tmpfs /new
/bin/busybox cp -a /bin /job /lib /second /new/
exec /bin/busybox switch_root /new /second
";

/// PID 1 after that: the mounts of a host, the script, and the end of the machine.
const SECOND_INIT: &str = "#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/job:/bin
mkdir -p /proc /sys /dev /run /tmp /var/tmp /var/lib /etc /root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for module in /lib/*.ko; do insmod $module; done
ip link set lo up
echo '=== the script begins'
sh /job/script 2>&1
echo \"=== the script ended with $?\"
poweroff -f
";

/// Boots a guest with `programs` (paths on the host) in its `/job`, which is on its `PATH`, and runs `script` there with a
/// POSIX shell as root. Gives the script's output; its last command's exit code must be 0.
///
/// # Panics
///
/// QEMU or the kernel package cannot be had, the guest does not end within `limit`, or the script fails.
pub fn run_in_guest(scratch: &Scratch, programs: &[&Path], script: &str, limit: Duration) -> String {
    let home = scratch.directory("guest");
    let kernel = kernel();
    let initramfs = initramfs(&home, &kernel, programs, script);
    let console = home.join("console");
    let mut command = Command::new(binaries::peer("qemu-system-x86_64"));
    command
        .args([
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
            "-smp",
            "2",
            "-m",
            "2048",
            "-nic",
            "none",
        ])
        .args(["-display", "none", "-monitor", "none", "-no-reboot"])
        .args(["-append", "console=ttyS0 quiet cgroup_no_v1=all psi=1 panic=-1"])
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .arg("-kernel")
        .arg(kernel.join("vmlinuz"))
        .arg("-initrd")
        .arg(initramfs)
        .stdin(Stdio::null());
    let mut child = command.spawn().expect("start QEMU");
    let deadline = Instant::now() + limit;
    let ended = loop {
        if child.try_wait().expect("wait for QEMU").is_some() {
            break true;
        }
        if Instant::now() > deadline {
            child.kill().expect("end QEMU");
            child.wait().expect("wait for QEMU");
            break false;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let console = String::from_utf8_lossy(&fs::read(&console).unwrap_or_default()).replace('\r', "");
    assert!(ended, "the guest did not end within {limit:?}:\n{console}");
    let output = console.split_once(BEGIN).map(|(_, rest)| rest);
    let Some((output, code)) = output.and_then(|rest| rest.split_once(END)) else {
        panic!("the script did not run to its end:\n{console}");
    };
    assert!(
        code.trim_start().starts_with("0\n"),
        "the script failed:\n{console}"
    );
    output.trim().to_string()
}

/// Debian's cloud kernel, unpacked below the build's target directory: `vmlinuz` and `overlay.ko`.
fn kernel() -> PathBuf {
    let directory = binaries::directory().join("guest-kernel");
    if directory.join("vmlinuz").exists() {
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
    let module = format!("lib/modules/{version}/kernel/fs/overlayfs/overlay.ko");
    fs::copy(tree.join(module), ready.join("overlay.ko")).expect("the overlay module");
    fs::copy(
        tree.join(format!("boot/vmlinuz-{version}")),
        ready.join("vmlinuz"),
    )
    .expect("the kernel");
    // Another test may have been faster; its result is as good.
    if fs::rename(&ready, &directory).is_err() {
        assert!(
            directory.join("vmlinuz").exists(),
            "cannot put the kernel at {}",
            directory.display()
        );
    }
    directory
}

fn initramfs(home: &Path, kernel: &Path, programs: &[&Path], script: &str) -> PathBuf {
    let tree = home.join("tree");
    for directory in ["bin", "job", "lib"] {
        fs::create_dir_all(tree.join(directory)).expect("make the initramfs");
    }
    fs::copy(binaries::peer("busybox"), tree.join("bin/busybox")).expect("busybox");
    symlink("busybox", tree.join("bin/sh")).expect("link sh");
    fs::copy(kernel.join("overlay.ko"), tree.join("lib/overlay.ko")).expect("the overlay module");
    for program in programs {
        let name = program.file_name().expect("a program has a name");
        let copy = tree.join("job").join(name);
        fs::copy(program, &copy).unwrap_or_else(|error| panic!("copy {}: {error}", program.display()));
        // Debug information would only fill the guest's memory; a script has none.
        run(Command::new("strip").arg(&copy));
    }
    fs::write(tree.join("job/script"), script).expect("write the script");
    for (name, text) in [("init", FIRST_INIT), ("second", SECOND_INIT)] {
        let path = tree.join(name);
        fs::write(&path, text).expect("write an init");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod an init");
    }
    let archive = home.join("initramfs");
    let pack = format!("find . | cpio --quiet -o -H newc > '{}'", archive.display());
    run(Command::new("sh").args(["-c", &pack]).current_dir(&tree)).ok();
    archive
}
