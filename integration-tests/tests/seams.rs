//! One container, seen from both sides: made by `wharf`, looked at by Debian's `ctr`.

use integration_tests::registry::Registry;
use integration_tests::wharf::Wharf;
use integration_tests::{Scratch, image, run};

#[test]
fn ctr_sees_what_wharf_made() {
    let scratch = Scratch::new();
    let registry = Registry::start(&scratch);
    let layout = image::busybox(&scratch.join("image"));
    let reference = registry.push(layout.path(), "latest", "tests/busybox:1");
    let wharf = Wharf::start(&scratch);
    let id = wharf
        .run_detached("seen", &reference, &["/bin/sleep", "1000"])
        .ok();
    let id = id.trim();
    assert_eq!(id.len(), 64, "{id}");
    let ctr = |arguments: &[&str]| run(wharf.ctr().args(arguments)).ok();
    assert!(ctr(&["version"]).contains("Server:"));
    assert!(
        ctr(&["namespaces", "ls", "--quiet"])
            .lines()
            .any(|line| line == "wharf")
    );
    assert!(ctr(&["images", "ls", "--quiet"]).contains(&reference));
    // Index or manifest, config, layer.
    assert!(ctr(&["content", "ls", "--quiet"]).lines().count() >= 3);
    assert!(
        ctr(&["snapshots", "ls"])
            .lines()
            .any(|line| line.contains("Committed"))
    );
    assert!(
        ctr(&["containers", "ls", "--quiet"])
            .lines()
            .any(|line| line == id)
    );
    assert!(
        ctr(&["tasks", "ls"])
            .lines()
            .any(|line| line.starts_with(id) && line.contains("RUNNING"))
    );
    assert_eq!(
        ctr(&["tasks", "exec", "--exec-id", "one", id, "/bin/echo", "by ctr"]),
        "by ctr\n"
    );
    assert_eq!(
        wharf.run(&["exec", "seen", "/bin/echo", "by wharf"]).ok(),
        "by wharf\n"
    );
    ctr(&["tasks", "kill", "--signal", "KILL", id]);
    wharf.run(&["wait", "seen"]).ok();
    let listed = wharf.run(&["ps", "--all", "--format", "{{.Status}}"]).ok();
    assert!(listed.starts_with("Exited (137)"), "{listed}");
    wharf.run(&["rm", "seen"]).ok();
    assert_eq!(ctr(&["containers", "ls", "--quiet"]), "");
}
