//! `run` of `/bin/true` from a bundle, by each installed OCI runtime.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use integration_tests::{Scratch, binaries, bundle};

use super::measure::{Candidate, compare};

/// The peers, by the name of their program.
const PEERS: [&str; 3] = ["runc", "crun", "youki"];

/// Compares with a default spec, and with one that joins no cgroup controllers where the peer allows it.
pub(crate) fn compare_runtimes(rounds: usize) -> Result<()> {
    let scratch = Scratch::new();
    let directory = scratch.join("bundle");
    bundle::bundle(&directory, &["/bin/true"], |_| {});
    let mut candidates = vec![candidate(
        &scratch,
        binaries::ours("wharf-runtime"),
        "wharf-runtime",
        &directory,
    )];
    for peer in PEERS {
        match binaries::find(peer) {
            Some(program) if works(&program, &scratch, peer, &directory) => {
                candidates.push(candidate(&scratch, program, peer, &directory));
            }
            Some(_) => println!("{peer} is installed but cannot run a container on this machine: left out"),
            None => println!("{peer} is not installed: left out"),
        }
    }
    compare("run /bin/true from a bundle", &candidates, rounds)
}

fn candidate(scratch: &Scratch, program: PathBuf, name: &str, bundle: &Path) -> Candidate<'static> {
    let (root, bundle) = (scratch.join(format!("{name}-root")), bundle.to_path_buf());
    let prefix = format!("{}-{name}", scratch.unique());
    Candidate {
        name: name.to_string(),
        command: Box::new(move |round| command(&program, &root, &bundle, &format!("{prefix}-{round}"))),
    }
}

fn works(program: &Path, scratch: &Scratch, name: &str, bundle: &Path) -> bool {
    let root = scratch.join(format!("{name}-root"));
    let id = format!("{}-{name}-try", scratch.unique());
    integration_tests::run(&mut command(program, &root, bundle, &id)).code == 0
}

fn command(program: &Path, root: &Path, bundle: &Path, id: &str) -> Command {
    let mut command = Command::new(program);
    command
        .arg("--root")
        .arg(root)
        .args(["run", "--bundle"])
        .arg(bundle)
        .arg(id);
    command
}
