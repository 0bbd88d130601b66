//! `ctr run --rm IMAGE ID true` on `wharfd` and on containerd.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use integration_tests::containerd::{Containerd, ctr};
use integration_tests::wharf::Wharfd;
use integration_tests::{Scratch, binaries, image, run};

use super::measure::{Candidate, Driver, compare};

/// Compares the daemons behind containerd's own client; the client's start is a part of each figure, and shown alone.
pub(crate) fn compare_daemons(rounds: usize) -> Result<()> {
    if binaries::find("ctr").is_none() || binaries::find("containerd").is_none() {
        println!("containerd is not installed: left out");
        return Ok(());
    }
    let scratch = Scratch::new();
    let layout = image::busybox(&scratch.join("image"));
    let archive = scratch.join("image.tar");
    run(Command::new("tar")
        .arg("-cf")
        .arg(&archive)
        .arg("-C")
        .arg(layout.path())
        .arg("."))
    .ok();
    scratch.tmpfs("wharfd/state");
    scratch.tmpfs("containerd/state");
    let wharfd = Wharfd::start(&scratch);
    let containerd = Containerd::start(&scratch);
    let mut candidates = vec![
        candidate("wharfd", wharfd.socket(), &archive),
        candidate("containerd", containerd.socket().to_path_buf(), &archive),
    ];
    candidates.push(Candidate {
        name: "ctr alone".into(),
        command: Box::new(|_| {
            let mut command = Command::new(binaries::peer("ctr"));
            command.arg("--version");
            command
        }),
    });
    compare(
        &Driver::new(&scratch)?,
        "ctr run --rm … /bin/true",
        &candidates,
        rounds,
    )
}

fn candidate(name: &str, socket: PathBuf, archive: &std::path::Path) -> Candidate<'static> {
    let prefix = name.to_owned();
    run(ctr(&socket, "default")
        .args(["images", "import", "--base-name", "bench"])
        .arg(archive))
    .ok();
    Candidate {
        name: name.to_owned(),
        command: Box::new(move |round| {
            let mut command = ctr(&socket, "default");
            let id = format!("{prefix}-{round}");
            command.args(["run", "--rm", "bench:latest", &id, "/bin/true"]);
            command
        }),
    }
}
