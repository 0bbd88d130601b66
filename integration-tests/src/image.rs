//! OCI images made on the spot: layers by GNU tar, blobs and manifests by hand, so that a test knows every byte.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::{binaries, run};

/// How a layer's archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// By gzip.
    Gzip,
    /// By zstd.
    Zstd,
    /// By zstd with the largest window that is accepted, 32 MiB.
    ZstdWide,
}

/// An OCI image layout under construction.
#[derive(Clone, Debug)]
pub struct Layout {
    directory: PathBuf,
    layers: Vec<serde_json::Value>,
    diff_ids: Vec<String>,
    manifests: Vec<serde_json::Value>,
}

impl Layout {
    /// An empty layout in `directory`.
    ///
    /// # Panics
    ///
    /// The directory cannot be made.
    pub fn new(directory: &Path) -> Layout {
        fs::create_dir_all(directory.join("blobs/sha256")).expect("make the layout");
        fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)
            .expect("write oci-layout");
        Layout {
            directory: directory.to_path_buf(),
            layers: Vec::new(),
            diff_ids: Vec::new(),
            manifests: Vec::new(),
        }
    }

    /// Where the layout is.
    pub fn path(&self) -> &Path {
        &self.directory
    }

    /// Adds the content of `tree` (with xattrs, owners and device nodes) as the next layer; gives its digest.
    ///
    /// # Panics
    ///
    /// tar or the compressor fails.
    pub fn layer_of(&mut self, tree: &Path, compression: Compression) -> String {
        let file = self.directory.join("layer.tar");
        archive(tree, &file);
        self.layer(&file, compression)
    }

    /// Adds the uncompressed archive `tar` as the next layer and removes the file; gives the blob's digest.
    ///
    /// # Panics
    ///
    /// The compressor fails.
    pub fn layer(&mut self, tar: &Path, compression: Compression) -> String {
        self.diff_ids.push(digest_of(tar));
        let (program, kind) = match compression {
            Compression::None => (None, "application/vnd.oci.image.layer.v1.tar"),
            Compression::Gzip => (
                Some(("gzip", "gz")),
                "application/vnd.oci.image.layer.v1.tar+gzip",
            ),
            Compression::Zstd | Compression::ZstdWide => (
                Some(("zstd", "zst")),
                "application/vnd.oci.image.layer.v1.tar+zstd",
            ),
        };
        let window = (compression == Compression::ZstdWide).then_some("--long=25");
        let blob = match program {
            None => tar.to_path_buf(),
            Some((program, suffix)) => {
                run(Command::new(binaries::peer(program))
                    .args(["-q", "-f", "-k"])
                    .args(window)
                    .arg(tar))
                .ok();
                PathBuf::from(format!("{}.{suffix}", tar.display()))
            }
        };
        let descriptor = self.adopt(&blob, kind);
        if tar.exists() {
            fs::remove_file(tar).expect("remove the uncompressed layer");
        }
        let digest = descriptor["digest"].as_str().expect("a digest").to_string();
        self.layers.push(descriptor);
        digest
    }

    /// Makes the last layer one that registries may not distribute, to be had from `url`.
    ///
    /// # Panics
    ///
    /// There is no layer yet.
    pub fn withhold(&mut self, url: &str) {
        let layer = self.layers.last_mut().expect("a layer");
        let kind = layer["mediaType"].as_str().expect("a media type");
        layer["mediaType"] = kind.replace("layer.v1", "layer.nondistributable.v1").into();
        layer["urls"] = json!([url]);
    }

    /// Ends the image: writes its config (`config` is the OCI image config's `config` object) and manifest under `tag`,
    /// and gives the manifest's digest.
    ///
    /// # Panics
    ///
    /// A file cannot be written.
    pub fn tag(&mut self, tag: &str, config: &serde_json::Value) -> String {
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": self.diff_ids},
        });
        let config = self.blob(
            config.to_string().as_bytes(),
            "application/vnd.oci.image.config.v1+json",
        );
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config,
            "layers": self.layers,
        });
        let mut descriptor = self.blob(
            manifest.to_string().as_bytes(),
            "application/vnd.oci.image.manifest.v1+json",
        );
        let digest = descriptor["digest"].as_str().expect("a digest").to_string();
        descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
        self.manifests.push(descriptor);
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": self.manifests,
        });
        fs::write(self.directory.join("index.json"), index.to_string()).expect("write index.json");
        self.layers.clear();
        self.diff_ids.clear();
        digest
    }

    /// Adds `bytes` as a blob and gives its descriptor.
    fn blob(&self, bytes: &[u8], media_type: &str) -> serde_json::Value {
        let file = self.directory.join("blob");
        fs::write(&file, bytes).expect("write a blob");
        self.adopt(&file, media_type)
    }

    /// Moves `file` to its place among the blobs.
    fn adopt(&self, file: &Path, media_type: &str) -> serde_json::Value {
        let digest = digest_of(file);
        let size = fs::metadata(file).expect("stat a blob").len();
        let hex = digest.strip_prefix("sha256:").expect("a sha256 digest");
        fs::rename(file, self.directory.join("blobs/sha256").join(hex)).expect("move a blob into place");
        json!({"mediaType": media_type, "digest": digest, "size": size})
    }
}

/// A one-layer image of the busybox root filesystem in `directory`, under the tag `latest`; gives the layout.
///
/// # Panics
///
/// As [`Layout::layer_of`].
pub fn busybox(directory: &Path) -> Layout {
    let root = directory.with_extension("tree");
    crate::bundle::busybox_root(&root);
    let mut layout = Layout::new(directory);
    layout.layer_of(&root, Compression::Gzip);
    layout.tag(
        "latest",
        &json!({"Cmd": ["/bin/sh"], "Env": ["PATH=/bin:/usr/bin"]}),
    );
    fs::remove_dir_all(&root).expect("remove the layer's tree");
    layout
}

/// Writes the content of `tree` (with xattrs, owners and device nodes) to `file` as an archive, as GNU tar makes it.
///
/// # Panics
///
/// tar fails.
pub fn archive(tree: &Path, file: &Path) {
    run(Command::new("tar")
        .args([
            "--xattrs",
            "--xattrs-include=*",
            "--sort=name",
            "--numeric-owner",
            "-cf",
        ])
        .arg(file)
        .arg("-C")
        .arg(tree)
        .arg("."))
    .ok();
}

/// The digest of a file's content, `sha256:HEX`, as `sha256sum` computes it.
///
/// # Panics
///
/// The file cannot be read.
pub fn digest_of(file: &Path) -> String {
    let line = run(Command::new("sha256sum").arg(file)).ok();
    format!(
        "sha256:{}",
        line.trim_start_matches('\\')
            .split(' ')
            .next()
            .unwrap_or_default()
    )
}

/// This machine's architecture by its OCI name.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
