//! Root filesystems and OCI bundles for tests, made from Debian's static busybox and the `probe`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::{binaries, run};

/// The applets that a test's root filesystem links to busybox.
const APPLETS: [&str; 35] = [
    "cat", "chmod", "cp", "date", "dd", "df", "echo", "env", "false", "find", "grep", "head", "hostname",
    "id", "ip", "kill", "ls", "mkdir", "mount", "mv", "nc", "ps", "pwd", "readlink", "rm", "seq", "sh",
    "sleep", "stat", "stty", "tail", "touch", "true", "wc", "yes",
];

/// Fills `root` with a small Linux: busybox, `/bin/probe`, a passwd and a group file, and the usual directories.
///
/// # Panics
///
/// busybox is not installed, or a file cannot be written.
pub fn busybox_root(root: &Path) {
    for directory in [
        "bin",
        "dev",
        "etc",
        "home/user",
        "proc",
        "root",
        "sys",
        "tmp",
        "usr",
        "var",
    ] {
        fs::create_dir_all(root.join(directory)).expect("make the root's directories");
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).expect("chmod /tmp");
    copy(&binaries::peer("busybox"), &root.join("bin/busybox"));
    copy(&binaries::ours("probe"), &root.join("bin/probe"));
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet)).expect("link an applet");
    }
    let files = [
        (
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:A user:/home/user:/bin/sh\n",
        ),
        ("etc/group", "root:x:0:\nuser:x:1000:\nextra:x:2000:user\n"),
    ];
    for (name, text) in files {
        fs::write(root.join(name), text).expect("write an account file");
    }
}

/// Makes `directory` a bundle: `rootfs/` by [`busybox_root`] and the default `config.json` of `wharf-runtime spec`,
/// with no terminal and `arguments` as the command; `edit` may change the rest.
///
/// # Panics
///
/// A file cannot be written, or `wharf-runtime spec` fails.
pub fn bundle(directory: &Path, arguments: &[&str], edit: impl FnOnce(&mut serde_json::Value)) {
    fs::create_dir_all(directory).expect("make the bundle");
    busybox_root(&directory.join("rootfs"));
    configure(directory, arguments, edit);
}

/// Writes the `config.json` of a bundle whose root filesystem is there already.
///
/// # Panics
///
/// As [`bundle`].
pub fn configure(directory: &Path, arguments: &[&str], edit: impl FnOnce(&mut serde_json::Value)) {
    let path = directory.join("config.json");
    if !path.exists() {
        run(Command::new(binaries::ours("wharf-runtime"))
            .args(["spec", "--bundle"])
            .arg(directory))
        .ok();
    }
    let text = fs::read_to_string(&path).expect("read config.json");
    let mut spec: serde_json::Value = serde_json::from_str(&text).expect("config.json is JSON");
    spec["process"]["terminal"] = false.into();
    spec["process"]["args"] = arguments.into();
    edit(&mut spec);
    fs::write(&path, serde_json::to_vec_pretty(&spec).expect("JSON")).expect("write config.json");
}

fn copy(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap_or_else(|error| panic!("copy {} to {}: {error}", from.display(), to.display()));
}
