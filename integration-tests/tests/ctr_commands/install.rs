//! Programs from images: what `ctr install` unpacks into the daemon's directory is found by what it starts.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use integration_tests::binaries;
use integration_tests::image::{Compression, Layout};
use serde_json::json;

use crate::Stage;

/// In this order, in one namespace. `$REGISTRY` has the image `tools:1`.
pub(crate) const SCRIPTS: &[&str] = &[
    "ctr install none; ctr images pull --plain-http $REGISTRY/tools:1 >/dev/null; ctr images pull --plain-http $REGISTRY/two:1 >/dev/null",
    "opt=$(ctr plugins ls --detailed id==opt | awk '$1 == \"path\" {print $2}'); ctr plugins ls --detailed id==opt | sed s,$opt,OPT,; \
     stat -c '%a %U %n' $opt $opt/* | sed s,$opt,OPT,; echo $opt >opt",
    "ctr install $REGISTRY/tools:1; ls $(cat opt) $(cat opt)/* | sed s,$(cat opt),OPT,",
    "ctr install $REGISTRY/tools:1 2>&1 | sed s,$(cat opt),OPT,; ctr install --libs $REGISTRY/tools:1 2>&1 | sed s,$(cat opt),OPT,",
    "ctr install --replace --libs $REGISTRY/tools:1; echo $?; cat $(cat opt)/lib/library; ls $(cat opt)",
    // A shim and a runtime that are nowhere else.
    "ctr run --rm --runtime io.containerd.installed.v1 $REGISTRY/two:1 i1 sh -c 'exit 3'; echo $?; \
     sort -u $(cat opt)/bin/containerd-shim-installed-v1.said | sed s,$(cat opt),OPT,g",
    "ctr run --rm --runc-binary installed-runc $REGISTRY/two:1 i2 sh -c 'exit 4'; echo $?; \
     sort -u $(cat opt)/bin/installed-runc.said | sed s,$(cat opt),OPT,g",
    "mkdir inst; ctr install --path $PWD/inst --libs $REGISTRY/tools:1; ls inst inst/*; ctr install --path $PWD/inst --libs \
     $REGISTRY/tools:1; ctr install --replace --path $PWD/inst $REGISTRY/tools:1; echo $?; \
     ctr install --path $PWD/absent $REGISTRY/tools:1; ls absent",
];

#[test]
fn installed_programs_are_found() {
    let mut stage = Stage::start();
    let scratch = &stage.pair.scratch;
    let tree = scratch.directory("tools");
    let shim = binaries::ours("containerd-shim-wharf-v2");
    for (name, program) in [
        ("containerd-shim-installed-v1", shim),
        ("installed-runc", binaries::peer("runc")),
    ] {
        let path = tree.join("bin").join(name);
        fs::create_dir_all(tree.join("bin")).expect("make a tree");
        // Says where it would find others.
        let script = format!(
            "#!/bin/sh\necho \"${{PATH%%:*}} ${{LD_LIBRARY_PATH%%:*}}\" >>\"$(dirname \"$0\")/{name}.said\"\nexec {} \"$@\"\n",
            program.display()
        );
        fs::write(&path, script).expect("write a program");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("make it executable");
    }
    for directory in ["bin/below", "lib", "etc"] {
        fs::create_dir(tree.join(directory)).expect("make a tree");
    }
    for file in ["lib/library", "etc/other", "bin/below/other"] {
        fs::write(tree.join(file), "text\n").expect("write");
    }
    // With names as images have them, not as tar would give them.
    let archive = scratch.join("tools.tar");
    integration_tests::run(
        std::process::Command::new("tar")
            .arg("-cf")
            .arg(&archive)
            .arg("-C")
            .arg(&tree)
            .args(["bin", "lib", "etc"]),
    )
    .ok();
    let mut layout = Layout::new(&scratch.join("tools-layout"));
    layout.layer(&archive, Compression::Gzip);
    layout.tag("1", &json!({}));
    stage.registry.push(layout.path(), "1", "tools:1");
    stage.pair.agree(SCRIPTS);
}
