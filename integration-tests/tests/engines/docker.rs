//! Debian's dockerd, its containerd and its shim, with our runtime as the default one.

use std::process::Command;
use std::time::Duration;

use integration_tests::dockerd::Dockerd;
use integration_tests::{Scratch, eventually, leftovers};

use crate::engine::{Engine, Holdings, runtime};
use crate::{crowd, life, options};

struct Docker(Dockerd);

impl Engine for Docker {
    fn command(&self) -> Command {
        self.0.docker()
    }
}

/// One daemon for everything: it takes longer to start than most cases.
#[test]
fn dockerd_runs_its_containers_with_our_runtime() {
    let scratch = Scratch::new();
    let docker = Docker(Dockerd::start(&scratch, &runtime()));
    docker.import(&scratch);
    let before = Holdings::of(&scratch);
    options::each(&docker, &scratch);
    options::docker_only(&docker);
    options::privileged_if_possible(&docker);
    life::whole(&docker);
    let ids = crowd::of(&docker);
    assert_eq!(docker.run(&["ps", "--all", "--quiet"]).ok(), "");
    eventually("nothing is left", Duration::from_secs(60), || {
        (Holdings::of(&scratch) == before).then_some(())
    });
    for id in ids {
        assert_eq!(
            leftovers::cgroups_named(&id),
            [""; 0].map(std::path::PathBuf::from)
        );
    }
    let states = scratch.join("dockerd/exec/runtime-tested/moby");
    let left = std::fs::read_dir(states).map(Iterator::count);
    assert!(
        left.is_err() || left.is_ok_and(|count| count == 0),
        "states are left"
    );
}
