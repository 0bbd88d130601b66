//! A second kernel: Debian's cloud kernel in QEMU, with pure cgroup v2.
//!
//! The guest lives in memory. Its initramfs holds static busybox, the kernel's overlay module, whatever programs the test
//! brings and the test's script; it moves itself onto a tmpfs (a container cannot pivot away from the initial root),
//! mounts what a host has, runs the script and powers off. The script's output comes back over the serial line.
//!
//! A guest of [`run_in_systemd_guest`] instead boots a Debian from a disk, whose systemd runs the script.

mod debian;
mod kernel;

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
/bin/busybox cp -a /bin /job /lib /lib64 /second /new/
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

/// PID 1 of the initramfs of a guest with a disk: hands over to the systemd on it.
const DISK_INIT: &str = "#!/bin/busybox sh
/bin/busybox mkdir -p /dev /proc /new
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox mount -t proc proc /proc
for module in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk; do
  /bin/busybox insmod /lib/$module.ko
done
tries=0
while [ ! -e /dev/vda ] && [ $tries -lt 100 ]; do /bin/busybox sleep 0.1; tries=$((tries + 1)); done
/bin/busybox mount -t ext4 /dev/vda /new
/bin/busybox mount -t tmpfs tmpfs /new/job
/bin/busybox cp -a /job/. /new/job/
/bin/busybox umount /proc
exec /bin/busybox switch_root /new /lib/systemd/systemd
";

/// Boots a guest with `programs` (paths on the host) in its `/job`, which is on its `PATH`, and runs `script` there with a
/// POSIX shell as root. Gives the script's output; its last command's exit code must be 0. The shared libraries that the
/// programs need come with them.
///
/// # Panics
///
/// QEMU or the kernel package cannot be had, the guest does not end within `limit`, or the script fails.
pub fn run_in_guest(scratch: &Scratch, programs: &[&Path], script: &str, limit: Duration) -> String {
    in_memory(scratch, &[], programs, script, limit, Clock::Real)
}

/// As [`run_in_guest`], with nf_tables in the kernel.
///
/// # Panics
///
/// As [`run_in_guest`].
pub fn run_in_guest_with_filters(
    scratch: &Scratch,
    programs: &[&Path],
    script: &str,
    limit: Duration,
) -> String {
    // They are loaded by name, and one needs another: whichever was too early is loaded by the script.
    let load = kernel::FILTER_MODULES.map(|module| format!("insmod /lib/{module} 2>/dev/null; "));
    let script = format!("{}\n{script}", load.concat());
    in_memory(
        scratch,
        &kernel::FILTER_MODULES,
        programs,
        &script,
        limit,
        Clock::Real,
    )
}

/// As [`run_in_guest`], on one processor whose every instruction takes a nanosecond of the guest's time and where nobody
/// waits for nothing: what is measured by the guest's clock does not depend on this machine, or on who else uses it.
///
/// # Panics
///
/// As [`run_in_guest`].
pub fn run_in_counting_guest(scratch: &Scratch, programs: &[&Path], script: &str, limit: Duration) -> String {
    in_memory(scratch, &[], programs, script, limit, Clock::Instructions)
}

/// What the guest's time is.
#[derive(Clone, Copy, Debug)]
enum Clock {
    Real,
    Instructions,
}

impl Clock {
    /// As QEMU's options.
    fn options(self) -> &'static [&'static str] {
        match self {
            Self::Real => &["-accel", "tcg,thread=multi", "-smp", "2"],
            Self::Instructions => &[
                "-accel",
                "tcg,thread=single",
                "-icount",
                "shift=0,sleep=off",
                "-smp",
                "1",
            ],
        }
    }
}

fn in_memory(
    scratch: &Scratch,
    modules: &[&str],
    programs: &[&Path],
    script: &str,
    limit: Duration,
    clock: Clock,
) -> String {
    let home = scratch.directory("guest");
    let kernel = kernel::unpacked();
    let mut library = libraries(programs);
    library.extend(
        ["overlay.ko"]
            .iter()
            .chain(modules)
            .map(|module| kernel.join(module)),
    );
    let inits = [("init", FIRST_INIT), ("second", SECOND_INIT)];
    let initramfs = initramfs(&home, &library, &inits, programs, script);
    boot(&home, &kernel, &initramfs, None, clock, limit)
}

/// As [`run_in_guest`], but PID 1 is systemd, with its D-Bus, and the script is a service of it. `/job` is on a tmpfs.
///
/// # Panics
///
/// As [`run_in_guest`]; or Debian's packages for the disk cannot be had.
pub fn run_in_systemd_guest(scratch: &Scratch, programs: &[&Path], script: &str, limit: Duration) -> String {
    let home = scratch.directory("guest");
    let kernel = kernel::unpacked();
    let disk = debian::disk();
    let modules = kernel::DISK_MODULES.map(|module| kernel.join(module));
    let initramfs = initramfs(&home, &modules, &[("init", DISK_INIT)], programs, script);
    boot(&home, &kernel, &initramfs, Some(&disk), Clock::Real, limit)
}

/// The shared libraries of those among `programs` that are not static, the dynamic loader included.
fn libraries(programs: &[&Path]) -> Vec<PathBuf> {
    // A script, a static program and a file that is none have no lines with an address.
    let listed = run(Command::new("ldd").args(programs)).stdout;
    let mut libraries: Vec<PathBuf> = listed
        .lines()
        .filter_map(|line| line.trim().split_once(" (0x"))
        .map(|(line, _)| PathBuf::from(line.rsplit(' ').next().unwrap_or(line)))
        .filter(|path| path.is_absolute())
        .collect();
    libraries.sort();
    libraries.dedup();
    libraries
}

/// Runs the machine to its end; answers what the script wrote.
fn boot(
    home: &Path,
    kernel: &Path,
    initramfs: &Path,
    disk: Option<&Path>,
    clock: Clock,
    limit: Duration,
) -> String {
    let console = home.join("console");
    let mut command = Command::new(binaries::peer("qemu-system-x86_64"));
    command
        .args(clock.options())
        .args(["-cpu", "max", "-m", "2048", "-nic", "none"])
        .args(["-display", "none", "-monitor", "none", "-no-reboot"])
        .args([
            "-append",
            "console=ttyS0 quiet no_timer_check cgroup_no_v1=all psi=1 panic=-1 systemd.show_status=0",
        ])
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .arg("-kernel")
        .arg(kernel.join("vmlinuz"))
        .arg("-initrd")
        .arg(initramfs)
        .stdin(Stdio::null());
    if let Some(disk) = disk {
        // What the guest writes is forgotten with it.
        command.arg("-drive").arg(format!(
            "file={},if=virtio,format=raw,snapshot=on",
            disk.display()
        ));
    }
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

fn initramfs(
    home: &Path,
    library: &[PathBuf],
    inits: &[(&str, &str)],
    programs: &[&Path],
    script: &str,
) -> PathBuf {
    let tree = home.join("tree");
    for directory in ["bin", "job", "lib"] {
        fs::create_dir_all(tree.join(directory)).expect("make the initramfs");
    }
    fs::copy(binaries::peer("busybox"), tree.join("bin/busybox")).expect("busybox");
    symlink("busybox", tree.join("bin/sh")).expect("link sh");
    // Where programs have the path of the dynamic loader.
    symlink("lib", tree.join("lib64")).expect("link lib64");
    for file in library {
        let name = file.file_name().expect("a module or library has a name");
        fs::copy(file, tree.join("lib").join(name)).expect("a module or library");
    }
    for program in programs {
        let name = program.file_name().expect("a program has a name");
        let copy = tree.join("job").join(name);
        fs::copy(program, &copy).unwrap_or_else(|error| panic!("copy {}: {error}", program.display()));
        // Debug information would only fill the guest's memory; a script has none.
        run(Command::new("strip").arg(&copy));
    }
    fs::write(tree.join("job/script"), script).expect("write the script");
    for (name, text) in inits {
        let path = tree.join(name);
        fs::write(&path, text).expect("write an init");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod an init");
    }
    let archive = home.join("initramfs");
    let pack = format!("find . | cpio --quiet -o -H newc > '{}'", archive.display());
    run(Command::new("sh").args(["-c", &pack]).current_dir(&tree)).ok();
    archive
}
