//! Debian's Podman and conmon, with our runtime.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use integration_tests::{Scratch, binaries, eventually, leftovers, run};

use crate::engine::{Engine, Holdings, runtime};
use crate::{crowd, life, options};

struct Podman {
    home: PathBuf,
    /// Where all cgroups go, so that they are told from everybody else's, and removed with the test's other things.
    parent: String,
}

impl Engine for Podman {
    fn command(&self) -> Command {
        let mut command = Command::new(binaries::peer("podman"));
        // Where conmon runs, it notes that a container ran out of memory.
        command.current_dir(&self.home);
        command.arg("--root").arg(self.home.join("root"));
        command.arg("--runroot").arg(self.home.join("run"));
        command.arg("--tmpdir").arg(self.home.join("tmp"));
        command.arg("--runtime").arg(runtime());
        command.args(["--cgroup-manager", "cgroupfs", "--events-backend", "none"]);
        command
    }

    // Podman asks for its own limits, above what a container of some machines may allow.
    fn limits(&self) -> Vec<&str> {
        let limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"];
        [&limits[..], &["--cgroup-parent", &self.parent]].concat()
    }
}

#[test]
fn podman_runs_its_containers_with_our_runtime() {
    let _made = leftovers::PlainHierarchies::watch();
    let scratch = Scratch::new();
    let podman = Podman {
        home: scratch.directory("podman"),
        parent: format!("/{}", scratch.unique()),
    };
    podman.import(&scratch);
    let before = Holdings::of(&scratch);
    options::each(&podman, &scratch);
    options::podman_only(&podman);
    options::privileged(&podman);
    life::whole(&podman);
    let ids = crowd::of(&podman);
    assert_eq!(podman.run(&["ps", "--all", "--quiet"]).ok(), "");
    let states = run(Command::new(runtime()).args(["list", "--quiet"])).ok();
    assert!(!ids.iter().any(|id| states.contains(id.as_str())), "{states}");
    eventually("nothing is left", Duration::from_secs(60), || {
        (Holdings::of(&scratch) == before).then_some(())
    });
    for id in ids {
        assert_eq!(leftovers::cgroups_named(&id), [""; 0].map(PathBuf::from));
    }
}
