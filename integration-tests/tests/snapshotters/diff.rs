//! Layers that are computed: applied to the parent, they give the child; and so do containerd's of the same two trees.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use integration_tests::containerd::Containerd;
use integration_tests::{Scratch, run};
use tonic::Code;
use wharf_proto::containerd::services::content::v1::content_client::ContentClient;
use wharf_proto::containerd::services::content::v1::{
    InfoRequest, ReadContentRequest, WriteAction, WriteContentRequest,
};
use wharf_proto::containerd::services::diff::v1::diff_client::DiffClient;
use wharf_proto::containerd::services::diff::v1::{ApplyRequest, DiffRequest};
use wharf_proto::containerd::types::{Descriptor, Mount};

use crate::subject::{Filesystem, Mounted, Subject, code, rename, scoped};

const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";
const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

async fn diff(
    subject: &Subject,
    left: &[Mount],
    right: &[Mount],
    media_type: &str,
) -> Result<Descriptor, tonic::Status> {
    let request = DiffRequest {
        left: left.to_vec(),
        right: right.to_vec(),
        media_type: media_type.into(),
        // A layer that nothing refers to would be garbage.
        labels: BTreeMap::from([("containerd.io/gc.root".into(), "2000-01-01T00:00:00Z".into())]),
        ..DiffRequest::default()
    };
    let answer = DiffClient::new(subject.channel.clone())
        .diff(scoped(request))
        .await?;
    Ok(answer.into_inner().diff.expect("an answer has a descriptor"))
}

async fn apply(subject: &Subject, layer: &Descriptor, mounts: &[Mount]) -> Descriptor {
    let request = ApplyRequest {
        diff: Some(layer.clone()),
        mounts: mounts.to_vec(),
        ..ApplyRequest::default()
    };
    let answer = DiffClient::new(subject.channel.clone())
        .apply(scoped(request))
        .await
        .unwrap();
    answer.into_inner().applied.unwrap()
}

async fn read(subject: &Subject, digest: &str) -> Vec<u8> {
    let request = ReadContentRequest {
        digest: digest.into(),
        ..ReadContentRequest::default()
    };
    let mut stream = ContentClient::new(subject.channel.clone())
        .read(scoped(request))
        .await
        .unwrap()
        .into_inner();
    let mut bytes = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        bytes.extend_from_slice(&message.data);
    }
    bytes
}

/// Puts what one daemon has into another.
async fn carry(from: &Subject, to: &Subject, layer: &Descriptor) {
    let bytes = read(from, &layer.digest).await;
    let message = WriteContentRequest {
        action: WriteAction::Commit.into(),
        r#ref: format!("carry-{}", layer.digest),
        total: layer.size,
        expected: layer.digest.clone(),
        data: bytes.into(),
        labels: BTreeMap::from([("containerd.io/gc.root".into(), "2000-01-01T00:00:00Z".into())]),
        ..WriteContentRequest::default()
    };
    let mut stream = ContentClient::new(to.channel.clone())
        .write(scoped(tokio_stream::iter([message])))
        .await
        .unwrap()
        .into_inner();
    while let Some(_written) = stream.message().await.unwrap() {}
}

async fn uncompressed_label(subject: &Subject, digest: &str) -> Option<String> {
    let request = InfoRequest {
        digest: digest.into(),
    };
    let info = ContentClient::new(subject.channel.clone())
        .info(scoped(request))
        .await
        .unwrap();
    info.into_inner()
        .info
        .unwrap()
        .labels
        .remove("containerd.io/uncompressed")
}

/// All that a layer can tell of a tree, by path.
fn tree(root: &Path) -> BTreeMap<String, String> {
    let mut facts = BTreeMap::new();
    let mut inodes: BTreeMap<u64, String> = BTreeMap::new();
    let mut pending = vec![String::new()];
    while let Some(path) = pending.pop() {
        let full = root.join(&path);
        let stat = fs::symlink_metadata(&full).unwrap();
        let kind = stat.file_type();
        let mut fact = format!("{:o} {}:{}", stat.mode(), stat.uid(), stat.gid());
        if kind.is_dir() {
            let mut names: Vec<_> = fs::read_dir(&full)
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            names.sort();
            for name in names.iter().rev() {
                pending.push(Path::new(&path).join(name).to_str().unwrap().to_owned());
            }
        } else {
            fact += &format!(" time {}", stat.mtime());
        }
        if kind.is_symlink() {
            fact += &format!(" -> {}", fs::read_link(&full).unwrap().display());
        }
        if kind.is_file() {
            let bytes = fs::read(&full).unwrap();
            let sum = bytes.iter().fold(bytes.len() as u64, |sum, byte| {
                sum.wrapping_mul(31).wrapping_add(u64::from(*byte))
            });
            fact += &format!(" bytes {sum:x}");
            if stat.nlink() > 1 {
                let first = inodes.entry(stat.ino()).or_insert_with(|| path.clone());
                fact += &format!(" inode of {first}");
            }
        }
        if kind.is_char_device() || kind.is_block_device() {
            fact += &format!(" device {}", stat.rdev());
        }
        if !kind.is_symlink() {
            let list = run(Command::new("getfattr")
                .args([
                    "--absolute-names",
                    "--dump",
                    "--match",
                    "^(user\\.|security\\.capability)",
                ])
                .arg(&full));
            fact += &list
                .stdout
                .lines()
                .filter(|line| !line.starts_with('#'))
                .collect::<String>();
        }
        facts.insert(path, fact);
    }
    facts
}

fn base(root: &Path) {
    for name in [
        "keep", "bytes", "mode", "owner", "gone", "to-dir", "to-link", "linked-1", "time",
    ] {
        fs::write(root.join(name), name).unwrap();
    }
    fs::hard_link(root.join("linked-1"), root.join("linked-2")).unwrap();
    for name in [
        "dir/sub/deep",
        "dir-gone/sub",
        "dir-replaced/old",
        "dir-renamed/in",
        "to-file/x",
    ] {
        fs::create_dir_all(root.join(name)).unwrap();
        fs::write(root.join(name).join("file"), name).unwrap();
    }
    fs::write(root.join("attribute"), "").unwrap();
    symlink("keep", root.join("link")).unwrap();
}

fn change(root: &Path) {
    let at = |name: &str| root.join(name);
    fs::write(at("bytes"), "other").unwrap();
    fs::set_permissions(at("mode"), fs::Permissions::from_mode(0o4711)).unwrap();
    std::os::unix::fs::chown(at("owner"), Some(3_000_000), Some(5)).unwrap();
    fs::remove_file(at("gone")).unwrap();
    fs::remove_file(at("to-dir")).unwrap();
    fs::create_dir(at("to-dir")).unwrap();
    fs::write(at("to-dir/in"), "in").unwrap();
    fs::remove_file(at("to-link")).unwrap();
    symlink("/nowhere", at("to-link")).unwrap();
    fs::remove_dir_all(at("to-file")).unwrap();
    fs::write(at("to-file"), "file").unwrap();
    fs::remove_dir_all(at("dir-gone")).unwrap();
    fs::remove_dir_all(at("dir-replaced")).unwrap();
    fs::create_dir(at("dir-replaced")).unwrap();
    fs::write(at("dir-replaced/new"), "new").unwrap();
    rename(root, "dir-renamed", "dir-moved");
    fs::hard_link(at("keep"), at("dir/kept-too")).unwrap();
    fs::remove_file(at("link")).unwrap();
    symlink("bytes", at("link")).unwrap();
    let old = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 500);
    fs::File::open(at("time")).unwrap().set_modified(old).unwrap();
    let long = format!("dir/{}/{}", "long".repeat(40), "name".repeat(40));
    fs::create_dir_all(at(&long)).unwrap();
    fs::write(at(&long).join("ü"), vec![9; 100_000]).unwrap();
    run(Command::new("mknod").arg(at("fifo")).arg("p")).ok();
    run(Command::new("mknod").arg(at("device")).args(["c", "1", "3"])).ok();
    run(Command::new("setfattr")
        .args(["-n", "user.note", "-v", "x=y"])
        .arg(at("attribute")))
    .ok();
    let sparse = fs::File::create(at("sparse")).unwrap();
    sparse.set_len(1 << 20).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    drop(socket);
}

/// What containerd's layers do not tell: extended attributes of users.
fn without_attributes(mut tree: BTreeMap<String, String>) -> BTreeMap<String, String> {
    for fact in tree.values_mut() {
        if let Some(at) = fact.find("user.") {
            fact.truncate(at);
        }
    }
    tree
}

async fn round_trip(subject: &Subject, scratch: &Scratch) {
    let at = Mounted::new(scratch, "at");
    subject.layer(&at, "base", "", base).await;
    let right = subject.prepare("child", "base").await.unwrap();
    at.with(&right, change);
    let left = subject.view("base-view", "base").await.unwrap();
    let mut expected = at.with(&right, tree);
    // A socket without its server is nothing.
    assert!(expected.remove("socket").is_some());

    let mut plain = Vec::new();
    for media_type in [PLAIN, GZIP, ZSTD, ""] {
        let layer = diff(subject, &left, &right, media_type).await.unwrap();
        assert_eq!(
            layer.media_type,
            if media_type.is_empty() { GZIP } else { media_type }
        );
        let bytes = read(subject, &layer.digest).await;
        assert_eq!(bytes.len() as i64, layer.size);
        let key = format!("applied-{media_type}");
        let mounts = subject.prepare(&key, "base").await.unwrap();
        let applied = apply(subject, &layer, &mounts).await;
        assert_eq!(at.with(&mounts, tree), expected, "{media_type}");
        if media_type == PLAIN {
            assert_eq!(applied.digest, layer.digest);
            plain = bytes;
        } else {
            let label = uncompressed_label(subject, &layer.digest).await;
            assert_eq!(label, Some(applied.digest.clone()));
        }
        let again = diff(subject, &left, &right, media_type).await.unwrap();
        assert_eq!(again, layer, "the same trees give the same bytes");
    }
    assert!(!plain.is_empty());

    // The same two trees, computed and applied by Debian's containerd, in all combinations.
    let containerd = Containerd::start(scratch);
    let theirs = Subject::connect(containerd.socket(), "overlayfs").await;
    let layer = diff(&theirs, &left, &right, GZIP).await.unwrap();
    carry(&theirs, subject, &layer).await;
    let mounts = subject.prepare("their-layer", "base").await.unwrap();
    apply(subject, &layer, &mounts).await;
    let expected = without_attributes(expected);
    assert_eq!(without_attributes(at.with(&mounts, tree)), expected);

    let layer = diff(subject, &left, &right, GZIP).await.unwrap();
    carry(subject, &theirs, &layer).await;
    let mounts = subject.prepare("their-apply", "base").await.unwrap();
    apply(&theirs, &layer, &mounts).await;
    assert_eq!(without_attributes(at.with(&mounts, tree)), expected);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(scratch.join("wharfd/state").to_str().unwrap()));
}

#[tokio::test]
async fn a_layer_of_overlayfs_is_what_changed() {
    let scratch = Scratch::new();
    round_trip(&Subject::wharfd(&scratch, "wharfd", "").await, &scratch).await;
}

#[tokio::test]
async fn a_layer_of_native_is_what_changed() {
    let scratch = Scratch::new();
    let subject = Subject::wharfd(&scratch, "wharfd", "").await.with("native");
    round_trip(&subject, &scratch).await;
}

#[tokio::test]
async fn a_layer_of_btrfs_is_what_changed() {
    let scratch = Scratch::new();
    let _disk = Filesystem::btrfs(&scratch, "wharfd/root");
    let subject = Subject::wharfd(&scratch, "wharfd", "").await.with("btrfs");
    round_trip(&subject, &scratch).await;
}

#[tokio::test]
async fn what_no_layer_can_be_computed_from_is_refused() {
    let scratch = Scratch::new();
    let subject = Subject::wharfd(&scratch, "wharfd", "").await;
    let at = Mounted::new(&scratch, "at");
    subject.layer(&at, "base", "", base).await;
    let right = subject.prepare("child", "base").await.unwrap();
    assert_eq!(
        code(diff(&subject, &[], &right, "text/plain").await),
        Code::Unimplemented
    );
    assert_eq!(code(diff(&subject, &[], &[], GZIP).await), Code::InvalidArgument);
    let mapped = Mount {
        options: vec!["uidmap=0:1000:1".into()],
        ..right[0].clone()
    };
    assert_eq!(
        code(diff(&subject, &[], &[mapped], GZIP).await),
        Code::Unimplemented
    );
    let missing = Mount {
        r#type: "bind".into(),
        source: scratch.join("missing").display().to_string(),
        ..Mount::default()
    };
    assert_eq!(code(diff(&subject, &[], &[missing], GZIP).await), Code::Unknown);
    at.with(&right, |root| fs::write(root.join(".wh.x"), "").unwrap());
    assert_eq!(
        code(diff(&subject, &[], &right, GZIP).await),
        Code::FailedPrecondition
    );
    // Nothing of the failed ones is left.
    let left: Vec<_> = fs::read_dir(scratch.join("wharfd/root/content/ingest"))
        .unwrap()
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
