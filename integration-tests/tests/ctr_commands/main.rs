//! Every command of Debian's `ctr`, with every flag that it has, answered the same by `wharfd` and by Debian's containerd.
//!
//! The scripts are tables, one a subject. [`coverage`] reads `ctr --help` to its last leaf and fails when it finds a
//! command or a flag that no script uses.

mod content;
mod coverage;
mod images;
mod install;
mod processes;
mod snapshots;
mod tasks;

use std::fs;
use std::os::unix::fs::symlink;

use integration_tests::image::{Compression, Layout};
use integration_tests::pair::Pair;
use integration_tests::registry::Registry;
use integration_tests::{Scratch, binaries, run};
use serde_json::json;

/// Both daemons, each in a namespace of its own, and a registry at `$REGISTRY` that has the image `two:1`, which is in the
/// file `two.tar` as well.
struct Stage {
    pair: Pair,
    registry: Registry,
}

impl Stage {
    fn start() -> Stage {
        // `ctr shim` looks for shims where containerd has them, wherever its state is.
        let sockets = "[plugins.'io.containerd.shim.v1.manager']\nsocket_dir = '/run/containerd/s'\n";
        let mut pair = Pair::start_with(sockets).apart();
        let registry = Registry::start(&pair.scratch);
        let layout = two_layers(&pair.scratch);
        registry.push(layout.path(), "1", "two:1");
        run(std::process::Command::new("tar")
            .arg("-cf")
            .arg(pair.scratch.join("two.tar"))
            .arg("-C")
            .arg(layout.path())
            .arg("."))
        .ok();
        pair.file(
            "two.tar",
            &fs::read(pair.scratch.join("two.tar")).expect("read an archive"),
        );
        let reference = registry.reference("two:1");
        let host = reference.split('/').next().unwrap_or_default();
        pair.variable("REGISTRY", host);
        // Never used up by what the user of this machine has set.
        pair.variable("EDITOR", "false");
        Stage { pair, registry }
    }
}

impl Stage {
    /// Sets `$OUT` to the option that gives a container the directory `out` of its side.
    fn bind_out(&mut self) {
        self.pair.variable(
            "OUT",
            "--mount type=bind,src=DIRECTORY/out,dst=/out,options=rbind:rw",
        );
    }
}

/// An image of two layers, with a whiteout, that can be run.
fn two_layers(scratch: &Scratch) -> Layout {
    let tree = scratch.directory("layer-1");
    for directory in ["bin", "dev", "etc", "lib", "out", "proc", "run", "sys", "tmp"] {
        fs::create_dir(tree.join(directory)).expect("make a tree");
    }
    fs::copy(binaries::peer("busybox"), tree.join("bin/busybox")).expect("copy busybox");
    for applet in [
        "cat", "echo", "id", "ls", "pwd", "sh", "sleep", "stat", "touch", "true",
    ] {
        symlink("busybox", tree.join("bin").join(applet)).expect("link an applet");
    }
    fs::write(tree.join("gone"), "gone").expect("write");
    let mut layout = Layout::new(&scratch.join("layout"));
    layout.layer_of(&tree, Compression::Gzip);
    let tree = scratch.directory("layer-2");
    fs::create_dir(tree.join("lib")).expect("make a tree");
    fs::write(tree.join("lib/library"), "a library").expect("write");
    fs::write(tree.join(".wh.gone"), "").expect("write");
    fs::write(tree.join("come"), "come").expect("write");
    layout.layer_of(&tree, Compression::Gzip);
    layout.tag("1", &json!({"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]}));
    layout
}
