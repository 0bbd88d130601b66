//! Bad input gets one clear line, an exit code, and leaves nothing behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use integration_tests::image::{self, Compression, Layout};
use integration_tests::registry::{self, Registry};
use integration_tests::wharf::Wharf;
use integration_tests::{Scratch, bundle, leftovers, run};
use serde_json::json;

/// What an instance holds that must not grow by a failure.
#[derive(Debug, PartialEq, Eq)]
struct Holdings {
    mounts: Vec<PathBuf>,
    images: String,
    containers: String,
    snapshots: String,
    processes: usize,
}

fn holdings(scratch: &Scratch, wharf: &Wharf) -> Holdings {
    Holdings {
        mounts: leftovers::mounts_below(scratch.path()),
        images: run(wharf.ctr().args(["images", "ls", "--quiet"])).ok(),
        containers: wharf.run(&["ps", "--all", "--quiet"]).ok(),
        snapshots: run(wharf.ctr().args(["snapshots", "ls"])).ok(),
        processes: leftovers::processes_with(scratch.unique())
            .iter()
            .filter(|(_, line)| line.contains("containerd-shim-wharf"))
            .count(),
    }
}

/// An instance, and a registry to pull from.
fn with_registry() -> (Scratch, Wharf, Registry) {
    let scratch = Scratch::new();
    let wharf = Wharf::start(&scratch);
    let registry = Registry::start(&scratch);
    (scratch, wharf, registry)
}

/// An instance, and an image that is good.
fn with_image() -> (Scratch, Wharf, String) {
    let scratch = Scratch::new();
    let wharf = Wharf::start(&scratch);
    let layout = image::busybox(&scratch.join("image"));
    let image = format!("oci:{}", layout.path().display());
    (scratch, wharf, image)
}

/// Runs an image that must be refused, and gives the refusal.
fn refused(scratch: &Scratch, wharf: &Wharf, image: &str, code: i32) -> String {
    let before = holdings(scratch, wharf);
    let finished = wharf.run(&[
        "run",
        "--rm",
        "--network",
        "none",
        "--name",
        "refused",
        image,
        "/bin/true",
    ]);
    let stderr = finished.fails_with(code);
    assert_eq!(holdings(scratch, wharf), before, "{stderr}");
    stderr
}

#[test]
fn an_image_that_is_not_there_and_a_registry_that_is_down() {
    let (scratch, wharf, registry) = with_registry();
    let error = refused(&scratch, &wharf, &registry.reference("no/such:1"), 125);
    assert!(
        error.contains("not found") || error.contains("manifest unknown"),
        "{error}"
    );
    let port = registry::free_port();
    let error = refused(&scratch, &wharf, &format!("127.0.0.1:{port}/any:1"), 125);
    assert!(
        error.contains("connection refused") && error.contains(&port.to_string()),
        "{error}"
    );
}

#[test]
fn blobs_that_are_not_what_their_digest_says() {
    let (scratch, wharf, registry) = with_registry();
    let mut layout = Layout::new(&scratch.join("image"));
    let root = scratch.directory("tree");
    bundle::busybox_root(&root);
    let layer = layout.layer_of(&root, Compression::Gzip);
    layout.tag("latest", &json!({"Cmd": ["/bin/sh"]}));
    let reference = registry.push(layout.path(), "latest", "tests/damaged:1");
    let blob = registry.blob(&layer);
    let good = fs::read(&blob).expect("read the layer");

    let mut wrong = good.clone();
    let middle = wrong.len() / 2;
    wrong[middle] ^= 0xff;
    fs::write(&blob, &wrong).expect("damage the layer");
    let error = refused(&scratch, &wharf, &reference, 125);
    assert!(
        error.contains("digest") && error.contains(&layer[..20]),
        "{error}"
    );

    fs::write(&blob, &good[..middle]).expect("truncate the layer");
    let error = refused(&scratch, &wharf, &reference, 125);
    assert!(error.contains(&layer[..20]), "{error}");

    // Whole again, the same reference runs: nothing of the failures was kept.
    fs::write(&blob, &good).expect("repair the layer");
    assert_eq!(
        wharf.run_image(&reference, &["/bin/echo", "whole"]).ok(),
        "whole\n"
    );
}

#[test]
fn archives_that_escape_are_refused_and_the_host_is_untouched() {
    let (scratch, wharf, registry) = with_registry();
    let canary = scratch.join("canary");
    fs::write(&canary, "untouched").expect("write the canary");
    let climb = "../".repeat(12);
    let target = canary.strip_prefix("/").expect("an absolute path").to_path_buf();
    let cases: [(&str, Vec<Entry>); 4] = [
        (
            "dot-dot",
            vec![(
                tar::EntryType::Regular,
                format!("{climb}{}", target.display()),
                None,
            )],
        ),
        (
            "through-a-link",
            vec![
                (
                    tar::EntryType::Symlink,
                    "way".into(),
                    Some(scratch.path().display().to_string()),
                ),
                (tar::EntryType::Regular, "way/canary".into(), None),
            ],
        ),
        (
            "hard-link",
            vec![
                (
                    tar::EntryType::Link,
                    "alias".into(),
                    Some(format!("{climb}{}", target.display())),
                ),
                (tar::EntryType::Regular, "alias".into(), None),
            ],
        ),
        (
            "whiteout",
            vec![(tar::EntryType::Regular, "data/.wh...".into(), None)],
        ),
    ];
    for (name, entries) in cases {
        let mut layout = Layout::new(&scratch.join(name));
        let archive = scratch.join("layer.tar");
        write_archive(&archive, &entries);
        layout.layer(&archive, Compression::Gzip);
        layout.tag("latest", &json!({"Cmd": ["/bin/sh"]}));
        let reference = registry.push(layout.path(), "latest", &format!("tests/{name}:1"));
        let before = holdings(&scratch, &wharf);
        let finished = wharf.run_image(&reference, &["/bin/true"]);
        assert!(finished.code != 0, "{name} ran: {finished}");
        assert_eq!(holdings(&scratch, &wharf).mounts, before.mounts, "{name}");
        assert_eq!(
            fs::read_to_string(&canary).expect("read the canary"),
            "untouched",
            "{name}"
        );
        assert!(!scratch.join("true").exists(), "{name}");
    }
}

/// Type, name and link target of an entry.
type Entry = (tar::EntryType, String, Option<String>);

/// Writes raw headers: the tar crate refuses to make such names.
fn write_archive(path: &Path, entries: &[Entry]) {
    let mut builder = tar::Builder::new(fs::File::create(path).expect("make the archive"));
    for (kind, name, link) in entries {
        let content: &[u8] = if kind.is_file() { b"escaped" } else { b"" };
        let mut header = tar::Header::new_gnu();
        let bytes = &mut header.as_old_mut().name;
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        if let Some(link) = link {
            header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        }
        header.set_entry_type(*kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append(&header, content).expect("append an entry");
    }
    builder.into_inner().expect("end the archive");
}

#[test]
fn commands_that_cannot_be_run_end_with_the_shells_codes() {
    let (scratch, wharf, image) = with_image();
    wharf.run_image(&image, &["/bin/true"]).ok();
    let before = holdings(&scratch, &wharf);
    let run = |command: &str| wharf.run_image(&image, &[command]);
    let error = run("no-such-program").fails_with(127);
    assert!(
        error.contains("no-such-program") && error.contains("executable file not found in $PATH"),
        "{error}"
    );
    let error = run("/etc/passwd").fails_with(126);
    assert!(error.contains("permission denied"), "{error}");
    assert_eq!(holdings(&scratch, &wharf), before);
}

#[test]
fn a_second_container_of_the_same_name_is_refused() {
    let (scratch, wharf, image) = with_image();
    let run = || wharf.run_detached("taken", &image, &["/bin/sleep", "1000"]);
    run().ok();
    let before = holdings(&scratch, &wharf);
    let error = run().fails_with(125);
    assert!(error.contains("\"/taken\" is already in use"), "{error}");
    assert_eq!(holdings(&scratch, &wharf), before);
    wharf.run(&["rm", "--force", "taken"]).ok();
    assert_eq!(wharf.run(&["ps", "--all", "--quiet"]).ok(), "");
}

#[test]
fn a_full_disk_is_named_and_a_second_try_works_once_there_is_room() {
    let scratch = Scratch::new();
    let registry = Registry::start(&scratch);
    let root = scratch.directory("tree");
    bundle::busybox_root(&root);
    // Random bytes do not compress: the blob alone is larger than the disk.
    let mut random = fs::File::open("/dev/urandom").expect("open urandom");
    let mut large = fs::File::create(root.join("large")).expect("make a large file");
    std::io::copy(&mut std::io::Read::take(&mut random, 48 << 20), &mut large).expect("fill it");
    let mut layout = Layout::new(&scratch.join("image"));
    layout.layer_of(&root, Compression::Gzip);
    layout.tag("latest", &json!({"Cmd": ["/bin/sh"]}));
    let reference = registry.push(layout.path(), "latest", "tests/large:1");

    // The instance's disk is a loop-mounted ext4 of 40 MB, which later grows.
    let disk = scratch.join("disk");
    fs::File::create(&disk)
        .and_then(|file| file.set_len(40 << 20))
        .expect("make the disk");
    run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&disk)).ok();
    let home = scratch.directory("wharf/root");
    run(Command::new("mount").args(["-o", "loop"]).arg(&disk).arg(&home)).ok();
    let mut wharf = Wharf::start(&scratch);
    let error = refused(&scratch, &wharf, &reference, 125);
    assert!(error.contains("no space left on device"), "{error}");

    wharf.daemon = None;
    run(Command::new("umount").arg(&home)).ok();
    fs::File::options()
        .write(true)
        .open(&disk)
        .and_then(|file| file.set_len(400 << 20))
        .expect("grow the disk");
    run(Command::new("e2fsck").args(["-f", "-p"]).arg(&disk)).ok();
    run(Command::new("resize2fs").arg(&disk)).ok();
    run(Command::new("mount").args(["-o", "loop"]).arg(&disk).arg(&home)).ok();
    wharf.restart();
    assert_eq!(wharf.run_image(&reference, &["/bin/echo", "room"]).ok(), "room\n");
}
