//! What all lives of a test use: a registry with an image whose every byte is known.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use integration_tests::image::{Compression, Layout};
use integration_tests::registry::Registry;
use integration_tests::{Scratch, binaries, run};
use serde_json::json;

/// Files by their path: mode, and content or target.
pub(crate) type Tree = BTreeMap<PathBuf, (u32, Vec<u8>)>;

/// The scratch directory, the registry, and what is in it.
pub(crate) struct Subject {
    pub(crate) scratch: Scratch,
    pub(crate) registry: Registry,
    pub(crate) reference: String,
    /// The digest of the image's manifest.
    pub(crate) manifest: String,
    /// The files of the image's lower layer.
    pub(crate) directory: PathBuf,
    /// The root filesystem of the image.
    pub(crate) tree: Tree,
    /// `config.json` as `wharf-runtime spec` prints it.
    pub(crate) spec: serde_json::Value,
}

impl Subject {
    /// Builds and pushes the image: a small busybox below, files of all kinds above.
    pub(crate) fn new() -> Self {
        let scratch = Scratch::new();
        let below = scratch.directory("below");
        for directory in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
            fs::create_dir(below.join(directory)).expect("mkdir");
        }
        fs::copy(binaries::peer("busybox"), below.join("bin/busybox")).expect("copy busybox");
        for applet in ["sh", "sleep", "true"] {
            std::os::unix::fs::symlink("busybox", below.join("bin").join(applet)).expect("symlink");
        }
        fs::write(below.join("etc/replaced"), "below").expect("write");
        let above = scratch.directory("above");
        fs::create_dir_all(above.join("etc/many")).expect("mkdir");
        fs::write(above.join("etc/replaced"), "above").expect("write");
        fs::write(above.join("etc/empty"), "").expect("write");
        for number in 0..24 {
            let content = format!("{number} ").repeat(300 * (number + 1));
            fs::write(above.join(format!("etc/many/{number}")), content).expect("write");
        }
        let mut tree = Tree::new();
        read(&below, Path::new(""), &mut tree);
        read(&above, Path::new(""), &mut tree);
        let mut layout = Layout::new(&scratch.join("image"));
        layout.layer_of(&below, Compression::Gzip);
        layout.layer_of(&above, Compression::Gzip);
        let manifest = layout.tag("latest", &json!({"Cmd": ["/bin/sh"]}));
        let registry = Registry::start(&scratch);
        let reference = registry.push(layout.path(), "latest", "tests/faults:1");
        let bundle = scratch.directory("bundle");
        run(Command::new(binaries::ours("wharf-runtime"))
            .args(["spec", "--bundle"])
            .arg(&bundle))
        .ok();
        let spec = fs::read(bundle.join("config.json")).expect("read config.json");
        Self {
            scratch,
            registry,
            reference,
            manifest,
            directory: below,
            tree,
            spec: serde_json::from_slice(&spec).expect("config.json is JSON"),
        }
    }

    /// The spec of the container: ends with 9 on SIGTERM.
    pub(crate) fn spec(&self, cgroup: &str) -> serde_json::Value {
        let mut spec = self.spec.clone();
        let script = "trap 'exit 9' TERM; while :; do sleep 0.05; done";
        spec["process"]["args"] = json!(["/bin/sh", "-c", script]);
        spec["process"]["terminal"] = false.into();
        spec["root"]["readonly"] = false.into();
        spec["linux"]["cgroupsPath"] = format!("/{cgroup}").into();
        spec
    }

    /// The process that is executed: ends with 7.
    pub(crate) fn process(&self) -> serde_json::Value {
        let mut process = self.spec["process"].clone();
        process["args"] = json!(["/bin/sh", "-c", "exit 7"]);
        process["terminal"] = false.into();
        process
    }
}

/// Adds what is below `directory` to `tree`, above what is there.
pub(crate) fn read(directory: &Path, prefix: &Path, tree: &mut Tree) {
    for entry in fs::read_dir(directory).expect("list a directory") {
        let entry = entry.expect("list a directory");
        let name = prefix.join(entry.file_name());
        let metadata = entry.metadata().expect("stat");
        let kind = metadata.file_type();
        let content = if kind.is_symlink() {
            let target = fs::read_link(entry.path()).expect("readlink");
            target.into_os_string().into_encoded_bytes()
        } else if kind.is_file() {
            fs::read(entry.path()).expect("read")
        } else {
            Vec::new()
        };
        tree.insert(name.clone(), (metadata.mode(), content));
        if kind.is_dir() {
            read(&entry.path(), &name, tree);
        }
    }
}
