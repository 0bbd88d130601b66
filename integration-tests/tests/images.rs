//! A pulled image is, file by file, what GNU tar and umoci make of it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use integration_tests::image::{Compression, Layout, archive};
use integration_tests::registry::Registry;
use integration_tests::wharf::Wharf;
use integration_tests::{Scratch, binaries, bundle, run};
use serde_json::{Value, json};

/// What the engine mounts over the image, or makes for those mounts.
const MOUNTED: [&str; 6] = [
    "dev",
    "etc/hostname",
    "etc/hosts",
    "etc/resolv.conf",
    "proc",
    "sys",
];

#[test]
fn a_pulled_image_equals_what_gnu_tar_and_umoci_unpack() {
    let scratch = Scratch::new();
    let compressions = [Compression::Gzip, Compression::None, Compression::Gzip];
    let (layout, inside, by_tar) = pulled_and_by_tar(&scratch, compressions, "tests/many-layers:1");
    let by_umoci = scratch.join("by-umoci");
    run(Command::new(binaries::peer("umoci"))
        .args(["unpack", "--image"])
        .arg(format!("{}:latest", layout.path().display()))
        .arg(&by_umoci))
    .ok();
    assert_same(&inside, &by_tar, "GNU tar");
    assert_same(&inside, &tree(&by_umoci.join("rootfs")), "umoci");
}

#[test]
fn zstd_layers_equal_what_gnu_tar_unpacks() {
    let scratch = Scratch::new();
    let compressions = [Compression::Zstd, Compression::Zstd, Compression::None];
    let (_, inside, by_tar) = pulled_and_by_tar(&scratch, compressions, "tests/zstd:1");
    assert_same(&inside, &by_tar, "GNU tar");
}

/// Makes the image and runs it from a registry as `name`: gives its layout, the tree seen inside the container, and the
/// one that GNU tar unpacks.
fn pulled_and_by_tar(
    scratch: &Scratch,
    compressions: [Compression; 3],
    name: &str,
) -> (Layout, Value, Value) {
    let (layout, archives) = make_image(scratch, compressions);
    let registry = Registry::start(scratch);
    let reference = registry.push(layout.path(), "latest", name);
    let by_tar = scratch.directory("by-tar");
    for archive in &archives {
        apply_with_gnu_tar(archive, &by_tar);
    }
    let wharf = Wharf::start(scratch);
    let inside = wharf.run_image(&reference, &["/bin/probe", "tree", "/"]).ok();
    (layout, without_mounted(&inside), tree(&by_tar))
}

#[test]
fn layouts_and_archives_run_without_a_registry() {
    let scratch = Scratch::new();
    let layout = integration_tests::image::busybox(&scratch.join("image"));
    let directory = format!("oci:{}", layout.path().display());
    let copy = |to: &str| {
        run(Command::new(binaries::peer("skopeo"))
            .args(["--insecure-policy", "copy", "--quiet"])
            .arg(format!("oci:{}:latest", layout.path().display()))
            .arg(to))
        .ok();
        to.to_string()
    };
    let archive = copy(&format!("oci-archive:{}", scratch.join("oci.tar").display()));
    let saved = copy(&format!(
        "docker-archive:{}",
        scratch.join("docker.tar").display()
    ));
    let wharf = Wharf::start(&scratch);
    for source in [directory, archive, saved] {
        let output = wharf.run_image(&source, &["/bin/echo", "from", &source]).ok();
        assert_eq!(output, format!("from {source}\n"));
    }
}

/// Three layers that use everything an image may hold; gives the layout and the uncompressed archives in order.
fn make_image(scratch: &Scratch, compressions: [Compression; 3]) -> (Layout, Vec<PathBuf>) {
    let mut layout = Layout::new(&scratch.join("image"));
    let trees = [first_layer(scratch), second_layer(scratch), third_layer(scratch)];
    let mut archives = Vec::new();
    for (tree, compression) in trees.iter().zip(compressions) {
        let kept = tree.with_extension("tar");
        archive(tree, &kept);
        let copy = scratch.join("layer.tar");
        fs::copy(&kept, &copy).expect("copy a layer");
        layout.layer(&copy, compression);
        archives.push(kept);
    }
    layout.tag("latest", &json!({"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]}));
    (layout, archives)
}

fn first_layer(scratch: &Scratch) -> PathBuf {
    let root = scratch.directory("one");
    bundle::busybox_root(&root);
    for directory in [
        "data/opaque",
        "data/gone-directory/deep",
        "data/sticky",
        "data/kept",
    ] {
        fs::create_dir_all(root.join(directory)).expect("make a directory");
    }
    let data = root.join("data");
    write(&data.join("plain"), b"plain content\n", 0o640);
    write(&data.join("empty"), b"", 0o600);
    write(&data.join("large"), &vec![0x5a; 3 << 20], 0o644);
    write(&data.join("setuid"), b"#!/bin/sh\n", 0o4755);
    write(&data.join("setgid"), b"#!/bin/sh\n", 0o2755);
    write(&data.join("owned"), b"owned", 0o644);
    chown(data.join("owned"), Some(1234), Some(5678)).expect("chown");
    fs::set_permissions(data.join("sticky"), fs::Permissions::from_mode(0o1777)).expect("chmod");
    write(&data.join("linked"), b"three names", 0o644);
    fs::hard_link(data.join("linked"), data.join("linked-too")).expect("link");
    fs::hard_link(data.join("linked"), data.join("kept/linked-far")).expect("link");
    symlink("plain", data.join("relative-link")).expect("symlink");
    symlink("/data/plain", data.join("absolute-link")).expect("symlink");
    symlink("../../../../etc/passwd", data.join("climbing-link")).expect("symlink");
    symlink("nowhere", data.join("dangling-link")).expect("symlink");
    lchown(data.join("dangling-link"), Some(7), Some(8)).expect("lchown");
    write(
        &data.join(format!("long-{}", "n".repeat(200))),
        b"a long name",
        0o644,
    );
    write(&data.join("naïve-ünïcode"), b"not ASCII", 0o644);
    write(&data.join("gone"), b"removed by the second layer", 0o644);
    write(&data.join("opaque/lower"), b"hidden by the second layer", 0o644);
    write(&data.join("gone-directory/deep/file"), b"removed", 0o644);
    write(&data.join("replaced"), b"a file, then a directory", 0o644);
    write(&data.join("rewritten"), b"first", 0o644);
    write(&data.join("attributed"), b"with xattrs", 0o644);
    set_xattr(&data.join("attributed"), "user.wharf", b"value \x00 with a zero");
    // CAP_NET_BIND_SERVICE, permitted and effective, in the kernel's revision 2 layout.
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    write(&data.join("capable"), b"#!/bin/sh\n", 0o755);
    set_xattr(&data.join("capable"), "security.capability", &capability);
    run(Command::new("mkfifo").arg(data.join("fifo"))).ok();
    run(Command::new("mknod").arg(data.join("null")).args(["c", "1", "3"])).ok();
    root
}

fn second_layer(scratch: &Scratch) -> PathBuf {
    let root = scratch.directory("two");
    let data = root.join("data");
    fs::create_dir_all(data.join("opaque")).expect("make a directory");
    fs::create_dir_all(data.join("replaced")).expect("make a directory");
    write(&data.join(".wh.gone"), b"", 0o644);
    write(&data.join(".wh.gone-directory"), b"", 0o644);
    write(&data.join("opaque/.wh..wh..opq"), b"", 0o644);
    write(&data.join("opaque/upper"), b"visible", 0o644);
    write(&data.join("replaced/inside"), b"now a directory", 0o644);
    write(&data.join("rewritten"), b"second", 0o600);
    root
}

fn third_layer(scratch: &Scratch) -> PathBuf {
    let root = scratch.directory("three");
    let data = root.join("data");
    fs::create_dir_all(data.join("kept")).expect("make a directory");
    fs::set_permissions(data.join("kept"), fs::Permissions::from_mode(0o700)).expect("chmod");
    write(&data.join("gone"), b"there again", 0o644);
    write(&data.join("kept/late"), b"third", 0o644);
    root
}

/// GNU tar extracts; the whiteouts, of which it knows nothing, are done before and after by the image spec's rules.
fn apply_with_gnu_tar(archive: &Path, root: &Path) {
    let names = run(Command::new("tar").arg("-tf").arg(archive)).ok();
    for name in names.lines().map(|name| name.trim_start_matches("./")) {
        let Some((parent, file)) = name.rsplit_once('/') else {
            continue;
        };
        if file == ".wh..wh..opq" {
            for entry in fs::read_dir(root.join(parent))
                .expect("the opaque directory")
                .flatten()
            {
                remove(&entry.path());
            }
        } else if let Some(hidden) = file.strip_prefix(".wh.") {
            remove(&root.join(parent).join(hidden));
        } else if root.join(name).symlink_metadata().is_ok_and(|old| !old.is_dir()) {
            remove(&root.join(name));
        }
    }
    run(Command::new("tar")
        .args([
            "--xattrs",
            "--xattrs-include=*",
            "--numeric-owner",
            "--exclude=.wh.*",
            "-xpf",
        ])
        .arg(archive)
        .arg("-C")
        .arg(root))
    .ok();
}

fn remove(path: &Path) {
    match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path).expect("remove a directory"),
        Ok(_) => fs::remove_file(path).expect("remove a file"),
        Err(_) => {}
    }
}

fn write(path: &Path, content: &[u8], mode: u32) {
    fs::write(path, content).unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}

fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::setxattr(path, name, value, rustix::fs::XattrFlags::empty())
        .unwrap_or_else(|error| panic!("setxattr {name} on {}: {error}", path.display()));
}

fn tree(root: &Path) -> Value {
    without_mounted(&run(Command::new(binaries::ours("probe")).arg("tree").arg(root)).ok())
}

fn without_mounted(report: &str) -> Value {
    let mut tree: Value = serde_json::from_str(report).expect("the probe prints JSON");
    let entries = tree.as_object_mut().expect("the tree is an object");
    for name in MOUNTED {
        entries.remove(name);
    }
    assert!(
        entries.len() > 60,
        "a tree of only {} entries proves nothing",
        entries.len()
    );
    tree
}

/// Compares entry by entry, so that a difference names its path.
fn assert_same(inside: &Value, expected: &Value, by: &str) {
    let (inside, expected) = (
        inside.as_object().expect("object"),
        expected.as_object().expect("object"),
    );
    for (name, entry) in expected {
        assert_eq!(
            inside.get(name),
            Some(entry),
            "{name}: inside the container, and as unpacked by {by}"
        );
    }
    for name in inside.keys() {
        assert!(
            expected.contains_key(name),
            "{name} is inside the container but not in what {by} unpacked"
        );
    }
}
