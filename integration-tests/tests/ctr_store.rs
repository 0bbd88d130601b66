//! Debian's `ctr` cannot tell `wharfd` from Debian's containerd: namespaces, content, images, snapshots, leases and
//! containers answer with the same words and exit codes. And what `wharfd` alone promises: nothing that it acknowledged
//! is lost, a full disk is an error and no more, one root belongs to one process.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use integration_tests::daemon::Daemon;
use integration_tests::image::{Compression, Layout};
use integration_tests::pair::{Pair, shell};
use integration_tests::wharf::Wharfd;
use integration_tests::{Scratch, binaries, eventually, run};
use serde_json::json;

/// The digest of `hello\n`.
const HELLO: &str = "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";

#[test]
fn namespaces_answer_the_same() {
    Pair::start().agree(&[
        "ctr namespaces ls",
        "ctr namespaces create foo x=y",
        "ctr namespaces ls",
        "ctr namespaces create foo",
        "ctr namespaces create a/b",
        "ctr namespaces create ''",
        "ctr namespaces label foo x=",
        "ctr namespaces label foo z=1",
        "ctr namespaces ls",
        "ctr namespaces rm foo bar",
        "ctr namespaces ls",
        "ctr --namespace a/b images ls",
        "ctr --namespace '' images ls",
        "ctr --namespace unheard-of images ls",
        "ctr --namespace used content ingest r < hello; ctr namespaces ls; ctr namespaces rm used",
        "ctr --namespace used content rm $(ctr --namespace used content ls -q); ctr namespaces rm used",
        "ctr namespaces ls",
    ]);
}

#[test]
fn content_answers_the_same() {
    let mut pair = Pair::start();
    // More than one message, and no multiple of anything.
    let large: Vec<u8> = (0..5_000_011_u32)
        .flat_map(|n| [(n.wrapping_mul(2_654_435_761) >> 24) as u8])
        .collect();
    pair.file("large", &large);
    let list = "ctr content ls | sed -E 's/Less than a second|[0-9]+ seconds?/AGE/'";
    pair.agree(&[
        "ctr content ls",
        "ctr content ingest r1 < hello",
        list,
        &format!("ctr content get {HELLO}"),
        &format!("ctr content label {HELLO} containerd.io/gc.root=1"),
        list,
        &format!("ctr content label {HELLO} {}=x 2>/dev/null; echo $?", "k".repeat(5000)),
        "ctr content ingest r1 < hello; ctr content ls -q",
        &format!("ctr content ls -q digest=={HELLO}; ctr content ls -q 'digest!={HELLO}'"),
        "ctr content ls -q 'labels.\"containerd.io/gc.root\"~=^1$'; ctr content ls -q 'labels.\"containerd.io/gc.root\"==2'",
        "ctr content ls -q 'digest ~= |^sha\\\\d{3}:|'; ctr content ls -q digest==x labels.x; ctr content ls -q digest~=^sha,labels.x",
        "ctr content ls 'digest==' >/dev/null 2>&1; echo $?",
        "ctr content ingest --expected-size 7 r2 < hello",
        "ctr content active | cut -f1,2",
        "ctr content ingest --expected-size 6 r2 < hello; ctr content ls -q",
        &format!("ctr content ingest --expected-digest {HELLO} r3 < empty; ctr content ls -q"),
        &format!("ctr content ingest --expected-digest {HELLO}0 r3 < empty"),
        &format!("ctr content ingest --expected-digest {} r4 < hello", HELLO.replace("be03", "be04")),
        "ctr content ingest r5 < large; ctr content get sha256:$(sha256sum < large | cut -d' ' -f1) | cmp - large",
        &format!("ctr --namespace other content get {HELLO}"),
        &format!("ctr --namespace other content ingest --expected-digest {HELLO} --expected-size 6 x < hello; ctr --namespace other content label {HELLO} containerd.io/gc.root=1; ctr --namespace other content ls -q"),
        &format!("ctr content rm {HELLO}; ctr content get {HELLO}"),
        &format!("ctr --namespace other content get {HELLO}"),
        "ctr content rm x; ctr content get sha256:00; ctr content get md5:00112233445566778899aabbccddeeff",
    ]);
}

#[test]
fn snapshots_answer_the_same() {
    Pair::start().agree(&[
        "ctr snapshots ls",
        "ctr snapshots info x; ctr snapshots rm x; ctr snapshots mounts /x x",
        "ctr snapshots prepare k1; ctr snapshots mounts /x k1; ctr snapshots ls",
        "ctr snapshots prepare k1",
        "ctr snapshots commit c1 k1; ctr snapshots ls",
        "ctr snapshots commit c1 k1",
        "ctr snapshots prepare k2 c1; ctr snapshots mounts /x k2",
        "ctr snapshots view v1 c1; ctr snapshots label v1 containerd.io/gc.root=1; ctr snapshots mounts /x v1",
        "ctr snapshots prepare k3 none; ctr snapshots ls",
        "ctr snapshots mounts /x c1 >/dev/null 2>&1; echo $?",
        "ctr snapshots prepare k3 k2 >/dev/null 2>&1; echo $?",
        "ctr snapshots rm c1",
        "ctr snapshots info c1 | grep -vE 'Created|Updated|gc.root'",
        "ctr snapshots label c1 a=b | tr , '\\n' | grep -v gc.root; ctr snapshots info c1 | grep a.*b",
        "ctr snapshots commit c2 k2; ctr snapshots prepare k4 c2; ctr snapshots mounts /x k4",
        "ctr snapshots view v4 c2; ctr snapshots label v4 containerd.io/gc.root=1; ctr snapshots mounts /x v4",
        "ctr snapshots usage; ctr snapshots tree; ctr snapshots ls",
        "ctr snapshots --snapshotter none ls",
        "ctr --namespace other snapshots ls; ctr --namespace other snapshots info c1",
        "ctr snapshots rm v4 k4 c2 v1 c1; ctr snapshots ls",
    ]);
}

#[test]
fn leases_answer_the_same() {
    Pair::start().agree(&[
        "ctr leases ls",
        "ctr leases create --id L1 a=b",
        "ctr leases ls -q; ctr leases ls -q id==L1; ctr leases ls -q labels.a==c",
        "ctr leases create --id L1",
        "ctr leases create --id a/b:c",
        "ctr leases rm L1 none",
        "ctr leases rm --sync a/b:c; ctr leases ls",
    ]);
}

/// A two-layer image in `archive`: a whiteout and a hard link among others, in an OCI layout that is tarred.
fn two_layers(scratch: &Scratch, archive: &Path) {
    let tree = scratch.directory("layer-1");
    fs::create_dir_all(tree.join("bin")).expect("make a tree");
    fs::copy("/bin/busybox", tree.join("bin/busybox")).expect("busybox-static is installed");
    fs::hard_link(tree.join("bin/busybox"), tree.join("bin/sh")).expect("link");
    fs::write(tree.join("gone"), "gone").expect("write");
    let mut layout = Layout::new(&scratch.join("layout"));
    layout.layer_of(&tree, Compression::Gzip);
    let tree = scratch.directory("layer-2");
    fs::write(tree.join(".wh.gone"), "").expect("write");
    fs::write(tree.join("come"), "come").expect("write");
    layout.layer_of(&tree, Compression::None);
    layout.tag("1", &json!({"Cmd": ["/bin/sh"]}));
    run(Command::new("tar")
        .arg("-cf")
        .arg(archive)
        .arg("-C")
        .arg(layout.path())
        .arg("."))
    .ok();
}

#[test]
fn images_and_containers_answer_the_same() {
    let mut pair = Pair::start();
    let archive = pair.scratch.join("image.tar");
    two_layers(&pair.scratch, &archive);
    let docker = pair.scratch.join("docker.tar");
    run(Command::new(binaries::peer("skopeo"))
        .arg("copy")
        .arg(format!("oci:{}:1", pair.scratch.join("layout").display()))
        .arg(format!(
            "docker-archive:{}:docker.io/library/d:1",
            docker.display()
        )))
    .ok();
    for (name, path) in [("image.tar", archive), ("docker.tar", docker)] {
        pair.file(name, &fs::read(path).expect("read an archive"));
    }
    pair.agree(&[
        "ctr images ls; ctr images rm none; ctr images tag none x; ctr images label none a=b",
        "ctr images import hello >/dev/null 2>&1; echo $?",
        "ctr images import --no-unpack --base-name docker.io/library/t image.tar; ctr images ls; ctr snapshots ls",
        "ctr leases create --id g >/dev/null; ctr leases rm --sync g; ctr content ls -q",
        "ctr images import --base-name docker.io/library/t image.tar; ctr images ls; ctr snapshots ls; ctr snapshots tree",
        "ctr images check | tr -s ' '",
        "ctr images tag docker.io/library/t:1 t:2; ctr images tag docker.io/library/t:1 t:2; ctr images tag --force docker.io/library/t:1 t:2",
        "ctr images label t:2 a=b; ctr images ls name==t:2; ctr images label t:2 a=; ctr images ls -q labels.a",
        "ctr images rm t:2; ctr images ls -q",
        "ctr images export x.tar docker.io/library/t:1; tar -tf x.tar | sort",
        "ctr containers create docker.io/library/t:1 c1; ctr containers ls; ctr snapshots ls; ctr snapshots mounts /x c1",
        "ctr containers info c1 | grep -v 'edAt'",
        "ctr containers create docker.io/library/t:1 c1; ctr containers create none c2; ctr containers create docker.io/library/t:1 a/b",
        "ctr containers create --rootfs --label a=b /x c3 sh; ctr containers ls -q labels.a==b; ctr containers ls -q id~=c",
        "ctr containers label c1 x=y | tr , '\\n' | sort; ctr containers label c1 x=; ctr containers info none",
        "ctr images rm --sync docker.io/library/t:1; ctr images ls; ctr content ls; ctr snapshots ls | sort",
        "ctr containers rm c1 c3 none; ctr containers ls; ctr leases create --id g >/dev/null; ctr leases rm --sync g; ctr snapshots ls",
        "ctr images import docker.tar; ctr images ls; ctr images rm --sync docker.io/library/d:1; ctr content ls; ctr snapshots ls",
    ]);
}

#[test]
fn other_snapshotters_and_layers_answer_the_same() {
    let mut pair = Pair::start();
    let archive = pair.scratch.join("image.tar");
    two_layers(&pair.scratch, &archive);
    pair.file("image.tar", &fs::read(archive).expect("read an archive"));
    let plugin =
        "ctr plugins ls type==io.containerd.snapshotter.v1 | tr -s ' ' | grep -vE ' aufs | btrfs ' | sort";
    // What a container gets of its runtime is not what this is about.
    let change = "mkdir mnt; ctr snapshots --snapshotter native prepare k $(ctr snapshots --snapshotter native ls | grep Committed | tail -1 | cut -d' ' -f1) > /dev/null; \
                  $(ctr snapshots --snapshotter native mounts mnt k); touch -d @1000 mnt/new; rm mnt/come; umount mnt";
    pair.agree(&[
        plugin,
        "ctr images import --snapshotter native --base-name docker.io/library/t image.tar",
        "ctr snapshots --snapshotter native ls | sort; ctr snapshots ls; ctr snapshots --snapshotter native tree | sort",
        "ctr images mount --snapshotter native docker.io/library/t:1 m > /dev/null; ls m; ctr images unmount --snapshotter native --rm m; ls m",
        "ctr images mount --snapshotter native --rw docker.io/library/t:1 m > /dev/null; touch m/x; ctr images unmount --snapshotter native --rm m",
        "ctr images usage --snapshotter native docker.io/library/t:1 | wc -l",
        change,
        "ctr snapshots --snapshotter native diff k | tar -tz | sort",
        "ctr snapshots --snapshotter native diff --media-type application/vnd.oci.image.layer.v1.tar k | tar -t | sort",
        "ctr snapshots --snapshotter native diff k $(ctr snapshots --snapshotter native ls | grep Committed | head -1 | cut -d' ' -f1) | tar -tz | sort",
        "ctr snapshots --snapshotter native diff none; ctr snapshots --snapshotter native diff --media-type x/y k",
        "ctr snapshots --snapshotter none prepare k; ctr snapshots --snapshotter native rm k; ctr snapshots --snapshotter native ls | wc -l",
        "ctr images convert --uncompress docker.io/library/t:1 t:u; ctr images ls",
        "ctr snapshots unpack none; ctr content edit none; ctr containers checkpoint none x 2>/dev/null; echo $?",
        "ctr images rm --sync docker.io/library/t:1 t:u; ctr content ls; ctr snapshots --snapshotter native ls",
    ]);
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let scratch = Scratch::new();
    let mut wharfd = Wharfd::start(&scratch);
    let mut acknowledged: Vec<String> = Vec::new();
    for round in 0..3 {
        let socket = wharfd.socket();
        let directory = scratch.path().to_path_buf();
        let work = std::thread::spawn(move || {
            let mut done = Vec::new();
            for index in 0.. {
                let name = format!("n{round}-{index}");
                // A lease is durable, a prepared snapshot is not flushed: both must be there. (`ctr content ingest`
                // itself tries for ever when its daemon goes away.)
                let script = format!(
                    "ctr leases create --id {name} >/dev/null && ctr snapshots prepare {name} && echo {name} \
                     | timeout 10 ctr --address \"$SOCKET\" --namespace keep content ingest {name}"
                );
                if shell(&directory, &socket, &script).code != 0 {
                    return done;
                }
                done.push(name);
            }
            done
        });
        let socket = wharfd.socket();
        eventually("some work was acknowledged", Duration::from_secs(30), || {
            let last = format!("ctr snapshots info n{round}-5");
            (shell(scratch.path(), &socket, &last).code == 0).then_some(())
        });
        wharfd.kill9();
        acknowledged.extend(work.join().expect("the thread that works"));
        wharfd.restart();
        let answer = |script: &str| shell(scratch.path(), &wharfd.socket(), script).ok();
        let leases = answer("ctr leases ls -q");
        let snapshots = answer("ctr snapshots ls | cut -d' ' -f1");
        for name in &acknowledged {
            assert!(leases.lines().any(|line| line == name), "lease {name} is lost");
            assert!(
                snapshots.lines().any(|line| line == name),
                "snapshot {name} is lost"
            );
            let mounts = answer(&format!("ctr snapshots mounts /x {name}"));
            let source = mounts.split_whitespace().nth(3).expect("mount -t bind SOURCE …");
            assert!(Path::new(source).is_dir(), "{source} is lost: {mounts}");
        }
        // Unreferenced blobs are garbage, so those of earlier rounds may be gone; what is listed must be whole.
        let digests = answer("ctr --namespace keep content ls -q");
        for digest in digests.lines() {
            let sum = answer(&format!("ctr --namespace keep content get {digest} | sha256sum"));
            assert_eq!(sum.split(' ').next(), digest.strip_prefix("sha256:"));
        }
    }
    assert!(acknowledged.len() >= 15, "{acknowledged:?}");
}

#[test]
fn a_full_disk_is_an_error_and_a_second_try_succeeds() {
    let scratch = Scratch::new();
    let root = scratch.directory("wharfd/root");
    let mount = |options: &str| {
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(&root))
        .ok();
    };
    mount("size=6m");
    let wharfd = Wharfd::start(&scratch);
    let answer = |script: &str| shell(scratch.path(), &wharfd.socket(), script);
    let tree = scratch.directory("tree");
    fs::write(tree.join("large"), vec![7; 16 << 20]).expect("write");
    let mut layout = Layout::new(&scratch.join("layout"));
    let layer = layout.layer_of(&tree, Compression::None);
    layout.tag("1", &json!({}));
    run(Command::new("tar")
        .args(["-cf", "image.tar", "-C", "layout", "."])
        .current_dir(scratch.path()))
    .ok();

    let import = "ctr images import --no-unpack --base-name large image.tar";
    let failed = answer(import);
    assert!(
        failed.code != 0 && failed.stderr.contains("no space left on device"),
        "{failed}"
    );
    assert_eq!(answer("ctr images ls -q").ok(), "");
    assert!(!answer("ctr content ls -q").ok().contains(&layer));
    let ingests = || fs::read_dir(root.join("content/ingest")).expect("list").count();
    assert!(ingests() <= 1, "{} ingests are left", ingests());

    mount("remount,size=64m");
    answer(import).ok();
    let hex = layer.strip_prefix("sha256:").expect("a digest");
    answer(&format!(
        "ctr content get {layer} | cmp - layout/blobs/sha256/{hex}"
    ))
    .ok();
    assert_eq!(ingests(), 0);
}

#[test]
fn a_root_belongs_to_one_process_and_others_run_beside_it() {
    let scratch = Scratch::new();
    let wharfd = Wharfd::start(&scratch);
    let path = |name: &str| wharfd.home().join(name).display().to_string();
    let second =
        |arguments: &[String]| run(Command::new(binaries::ours("wharfd")).args(arguments)).one_line_error();
    let arguments = |root: &str, state: &str, address: &str| {
        [
            "--root",
            &path(root),
            "--state",
            &path(state),
            "--address",
            &path(address),
        ]
        .map(str::to_string)
    };
    let refused = second(&arguments("root", "state-2", "socket-2"));
    assert!(refused.contains("in use by process"), "{refused}");
    let refused = second(&arguments("root-3", "state-3", "wharfd.sock"));
    assert!(refused.contains("somebody serves it"), "{refused}");
    let refused = second(&["--root".into(), "relative".into()]);
    assert!(refused.contains("absolute"), "{refused}");
    fs::write(scratch.join("bad.toml"), "rooot = \"/x\"").expect("write");
    let refused = second(&["--config".into(), scratch.join("bad.toml").display().to_string()]);
    assert!(refused.contains("rooot"), "{refused}");

    // An instance of its own, told by a file, started with a umask that would open everything.
    let socket = scratch.join("other/sock");
    let file = scratch.join("good.toml");
    let text = format!(
        "root = \"{0}/other/root\"\nstate = \"{0}/other/state\"\naddress = \"{1}\"\n",
        scratch.path().display(),
        socket.display()
    );
    fs::write(&file, text).expect("write");
    let script = format!(
        "umask 0; exec {} --config {}",
        binaries::ours("wharfd").display(),
        file.display()
    );
    let log = scratch.join("other.log");
    let other = Daemon::start(Command::new("sh").arg("-c").arg(script), &log, || {
        shell(scratch.path(), &socket, "ctr version").code == 0
    });
    let mode = |name: &str| fs::metadata(scratch.join(name)).expect(name).permissions().mode() & 0o7777;
    for (name, expected) in [
        ("other/root", 0o711),
        ("other/state", 0o711),
        ("other/root/content", 0o700),
        ("other/root/content/ingest", 0o700),
        ("other/root/snapshots", 0o700),
        ("other/root/metadata.redb", 0o600),
        ("other/root/metadata.journal", 0o600),
        ("other/sock", 0o660),
    ] {
        assert_eq!(mode(name), expected, "{name}: {:o}", mode(name));
    }
    drop(other);
    assert!(!socket.exists(), "the socket is left after SIGTERM");
    shell(scratch.path(), &wharfd.socket(), "ctr version").ok();
}
