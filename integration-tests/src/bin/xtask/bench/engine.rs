//! `run --rm --network none IMAGE true` through whole engines: ours, Docker's and Podman.

use anyhow::Result;
use integration_tests::Scratch;

use super::measure::{Candidate, Driver, compare};
use super::peers::Engines;

/// Compares the engines, and ours with a directory of the host as the image.
pub(crate) fn compare_engines(rounds: usize) -> Result<()> {
    let scratch = Scratch::new();
    let engines = Engines::start(&scratch);
    let mut candidates = Vec::new();
    for engine in &engines.list {
        candidates.push(Candidate {
            name: engine.name.into(),
            command: Box::new(|_| engine.run(&["--rm"], &["/bin/true"])),
        });
    }
    candidates.push(Candidate {
        name: "wharf, rootfs:/".into(),
        command: Box::new(|_| {
            engines
                .wharf
                .command(&["run", "--rm", "--network", "none", "rootfs:/", "/bin/true"])
        }),
    });
    compare(
        &Driver::new(&scratch)?,
        "run --rm --network none … /bin/true",
        &candidates,
        rounds,
    )
}
