//! Names that lead out of the target, or seem to.

use super::{archive::Tar, host::Host, refused};

#[test]
fn names_that_lead_out_are_refused() {
    for name in [
        "../outside/canary",
        "a/../../outside/new",
        "/../outside/new",
        "..",
    ] {
        refused(Host::new().apply(&Tar::default().file(name, b"evil").end()), name);
        refused(
            Host::new().apply_upper(&Tar::default().file(name, b"evil").end()),
            name,
        );
    }
}

#[test]
fn absolute_names_stay_below_the_root() {
    let host = Host::new();
    host.apply(&Tar::default().file("/tmp/wharf-absolute", b"x").end())
        .unwrap();
    assert!(host.target().join("tmp/wharf-absolute").exists());
}
