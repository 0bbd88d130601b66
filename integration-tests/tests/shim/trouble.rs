//! What is refused, and what is left when things end badly.

use std::fs;
use std::path::PathBuf;

use integration_tests::leftovers::{cgroups_named, mounts_below};
use integration_tests::{Scratch, eventually};
use rustix::process::{Pid, Signal, kill_process};
use wharf_proto::containerd::events::TaskExit;
use wharf_proto::containerd::task::v2;
use wharf_proto::containerd::types::Mount;

use crate::client::{Driver, Events, LIMIT, Shim, is_running, make_fifo, read_all};

crate::with_each_driver!(
    a_dead_shim_is_cleaned_up_by_the_command,
    a_failed_create_leaves_nothing,
    a_rootfs_of_many_layers_is_mounted,
    a_program_that_is_not_there_fails_the_exec_and_nothing_else,
);

fn nothing() -> Vec<PathBuf> {
    Vec::new()
}

/// Mounts whose overlay has `layers` lower layers below the bundle's own root filesystem.
fn overlay(scratch: &Scratch, shim: &Shim, layers: usize) -> Vec<Mount> {
    let mut lower: Vec<String> = (0..layers)
        .map(|number| {
            let layer = scratch.directory(format!("layers/with-a-long-name-to-fill-a-page-{number}/fs"));
            fs::write(layer.join(format!("file{number}")), "").unwrap();
            layer.to_string_lossy().into_owned()
        })
        .collect();
    let base = scratch.join("layers/base");
    fs::rename(shim.bundle.join("rootfs"), &base).unwrap();
    lower.push(base.to_string_lossy().into_owned());
    let upper = scratch.directory("layers/upper");
    let work = scratch.directory("layers/work");
    vec![Mount {
        r#type: "overlay".to_owned(),
        source: "overlay".to_owned(),
        target: String::new(),
        options: vec![
            format!("workdir={}", work.display()),
            format!("upperdir={}", upper.display()),
            format!("lowerdir={}", lower.join(":")),
        ],
    }]
}

fn a_dead_shim_is_cleaned_up_by_the_command(driver: Driver) {
    let scratch = Scratch::new();
    let mut shim = Shim::start(&scratch, driver, &["/bin/sleep", "1000"]);
    let mut request = shim.create_request();
    request.rootfs = overlay(&scratch, &shim, 2);
    let pid = shim.run(&request);
    kill_process(shim.pid(), Signal::KILL).unwrap();
    eventually("the shim is gone", LIMIT, || (!shim.is_alive()).then_some(()));
    let init = Pid::from_raw(pid as i32).unwrap();
    assert!(is_running(init), "the container depends on its shim");
    let answer = shim.delete_command();
    assert_eq!((answer.pid, answer.exit_status), (pid, 137));
    eventually("the container is killed", LIMIT, || {
        (!is_running(init)).then_some(())
    });
    assert_eq!(mounts_below(scratch.path()), nothing());
    assert_eq!(cgroups_named(scratch.unique()), nothing());
    assert!(!fs::exists(shim.address.strip_prefix("unix://").unwrap()).unwrap());
    // Once more, for a daemon that was killed in between.
    assert_eq!(shim.delete_command().exit_status, 137);
}

fn a_failed_create_leaves_nothing(driver: Driver) {
    let scratch = Scratch::new();
    let mut shim = Shim::start(&scratch, driver, &["/bin/true"]);
    let mut request = shim.create_request();
    request.rootfs = overlay(&scratch, &shim, 1);
    request.stdin = scratch.join("not-there").to_string_lossy().into_owned();
    let refused = shim
        .call::<v2::CreateTaskResponse>("Create", &request)
        .unwrap_err();
    assert!(refused.message.contains("not-there"), "{}", refused.message);
    assert_eq!(mounts_below(scratch.path()), nothing());
    request.stdin = String::new();
    let broken = fs::read_to_string(shim.bundle.join("config.json")).unwrap();
    let broken = broken.replace("\"/bin/true\"", "\"/bin/not-there\"");
    fs::write(shim.bundle.join("config.json"), broken).unwrap();
    request.stdout = make_fifo(&scratch.join("out"));
    request.stderr = make_fifo(&scratch.join("err"));
    let (out, err) = (read_all(&request.stdout), read_all(&request.stderr));
    let failed = shim
        .call::<v2::CreateTaskResponse>("Create", &request)
        .and_then(|_| {
            shim.call::<v2::StartResponse>("Start", &shim.start_request(""))
                .map(|_| ())
        })
        .unwrap_err();
    assert!(failed.message.contains("not-there"), "{}", failed.message);
    // Whether it failed at create or at start is the runtime's choice; after a delete all is gone in both cases.
    let _ = shim.delete("");
    // The answer says it; the container has said nothing.
    assert_eq!((out.join().unwrap(), err.join().unwrap()), Default::default());
    assert_eq!(shim.state("").unwrap_err().code, 5);
    assert_eq!(mounts_below(scratch.path()), nothing());
    assert_eq!(cgroups_named(scratch.unique()), nothing());
}

fn a_rootfs_of_many_layers_is_mounted(driver: Driver) {
    let scratch = Scratch::new();
    let mut shim = Shim::start(
        &scratch,
        driver,
        &["/bin/sh", "-c", "test -e /file0 && test -e /file119"],
    );
    let mut request = shim.create_request();
    request.rootfs = overlay(&scratch, &shim, 120);
    assert!(request.rootfs[0].options[2].len() > 2 * 4096);
    shim.run(&request);
    assert_eq!(shim.wait(""), 0);
    shim.delete("").unwrap();
    assert_eq!(mounts_below(scratch.path()), nothing());
}

fn a_program_that_is_not_there_fails_the_exec_and_nothing_else(driver: Driver) {
    let scratch = Scratch::new();
    let mut shim = Shim::start(&scratch, driver, &["/bin/sleep", "1000"]);
    let request = shim.create_request();
    shim.run(&request);
    let mut request = shim.exec_request("e", &["/bin/not-there"]);
    request.stderr = make_fifo(&scratch.join("err"));
    let err = read_all(&request.stderr);
    shim.call::<()>("Exec", &request).unwrap();
    let failed = shim
        .call::<v2::StartResponse>("Start", &shim.start_request("e"))
        .unwrap_err();
    assert!(failed.message.contains("not-there"), "{}", failed.message);
    assert_eq!(err.join().unwrap(), "");
    shim.delete("e").unwrap();
    let request = shim.exec_request("e", &["/bin/sh", "-c", "exit 9"]);
    shim.exec(&request);
    assert_eq!(shim.wait("e"), 9);
}

#[test]
fn what_is_not_there_is_refused_by_name() {
    let scratch = Scratch::new();
    let mut shim = Shim::start(&scratch, "runc", &["/bin/true"]);
    let refused = shim
        .call::<()>(
            "Checkpoint",
            &v2::CheckpointTaskRequest {
                id: shim.id.clone(),
                ..Default::default()
            },
        )
        .unwrap_err();
    assert_eq!(
        (refused.code, refused.message.as_str()),
        (5, "container not created: not found")
    );
    let stream = shim.client.send("containerd.task.v9.Task", "State", Vec::new());
    assert_eq!(shim.client.receive::<()>(stream).unwrap_err().code, 12);
    let mut request = shim.create_request();
    request.parent_checkpoint = "/checkpoint".to_owned();
    assert_eq!(
        shim.call::<v2::CreateTaskResponse>("Create", &request)
            .unwrap_err()
            .code,
        12
    );
    let mut request = shim.create_request();
    request.checkpoint = "checkpoint".to_owned();
    let refused = shim
        .call::<v2::CreateTaskResponse>("Create", &request)
        .unwrap_err();
    assert_eq!(refused.code, 3);
    assert!(refused.message.contains("absolute"), "{}", refused.message);
    let mut request = shim.create_request();
    request.stdout = "smtp:///x".to_owned();
    assert_eq!(
        shim.call::<v2::CreateTaskResponse>("Create", &request)
            .unwrap_err()
            .code,
        3
    );
    let stream = shim
        .client
        .send("containerd.task.v2.Task", "State", vec![0xff; 9]);
    assert_eq!(shim.client.receive::<()>(stream).unwrap_err().code, 3);
    assert_eq!(shim.state("").unwrap_err().code, 5);
}

#[test]
fn an_exit_while_the_daemon_is_away_is_told_when_it_is_back() {
    let scratch = Scratch::new();
    let mut shim = Shim::start_with(
        &scratch,
        "runc",
        &["/bin/sh", "-c", "exit 8"],
        |_| {},
        |command| {
            command.env("TTRPC_ADDRESS", scratch.join("events.sock"));
        },
    );
    let request = shim.create_request();
    shim.run(&request);
    assert_eq!(shim.wait(""), 8);
    let events = Events::listen(scratch.path());
    let exits = eventually("the exit is told", LIMIT, || {
        let exits: Vec<TaskExit> = events.of("/tasks/exit");
        (!exits.is_empty()).then_some(exits)
    });
    assert_eq!(exits[0].exit_status, 8);
    assert_eq!(events.topics(), ["/tasks/create", "/tasks/start", "/tasks/exit"]);
}

#[test]
fn the_host_binary_cannot_be_written_through_a_process_of_it() {
    // CVE-2019-5736: a container reaches the file behind /proc/<pid>/exe of what enters it.
    let scratch = Scratch::new();
    let shim = Shim::start(&scratch, "", &["/bin/true"]);
    let exe = fs::File::open(format!("/proc/{}/exe", shim.pid().as_raw_nonzero())).unwrap();
    let mounted = rustix::fs::fstatvfs(&exe).unwrap();
    assert!(
        mounted.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY),
        "the mount of the shim's binary is writable"
    );
}
