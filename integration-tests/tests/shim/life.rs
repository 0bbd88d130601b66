//! From start to shutdown.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use integration_tests::leftovers::{cgroups_named, mounts_below};
use integration_tests::{Scratch, binaries, eventually, run};
use prost::Message;
use rustix::process::{Signal, kill_process};
use wharf_proto::any::{pack, unpack};
use wharf_proto::containerd::events::TaskExit;
use wharf_proto::containerd::runc::v1::Options;
use wharf_proto::containerd::runtime::bootstrap::v1::BootstrapParams;
use wharf_proto::containerd::task::v2;
use wharf_proto::containerd::types::RuntimeInfo;
use wharf_proto::containerd::v1::types::Status;

use crate::client::{Client, Driver, Events, LIMIT, Shim, command, make_bundle};

crate::with_each_driver!(
    a_container_lives_and_leaves_nothing,
    an_exec_lives_inside_and_its_exit_comes_first,
    a_created_container_can_be_deleted,
    pausing_stops_the_processes,
    a_paused_container_can_be_killed,
    processes_are_listed_with_their_exec_ids,
    a_shared_pid_namespace_is_cleared_at_the_exit,
);

fn a_container_lives_and_leaves_nothing(driver: Driver) {
    let scratch = Scratch::new();
    let events = Events::listen(scratch.path());
    let mut shim = Shim::start_with(
        &scratch,
        driver,
        &["/bin/sh", "-c", "exit 7"],
        |_| {},
        |command| {
            command.env("TTRPC_ADDRESS", &events.address);
        },
    );
    let socket = shim.address.strip_prefix("unix://").unwrap().to_owned();
    assert_eq!(fs::metadata(&socket).unwrap().mode() & 0o777, 0o600);
    assert_eq!(
        fs::read_to_string(shim.bundle.join("address")).unwrap(),
        shim.address
    );
    let request = shim.create_request();
    let pid = shim.run(&request);
    assert_eq!(shim.wait(""), 7);
    let record = fs::read_to_string(shim.bundle.join("exits/init.json")).unwrap();
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    assert_eq!(
        (record["pid"].as_u64(), record["exit_status"].as_u64()),
        (Some(pid.into()), Some(7))
    );
    let state = shim.state("").unwrap();
    assert_eq!(
        (state.status(), state.exit_status, state.pid),
        (Status::Stopped, 7, pid)
    );
    assert_eq!(shim.kill("", 9).unwrap_err().code, 5);
    // Not while there are containers.
    let shutdown = v2::ShutdownRequest {
        id: shim.id.clone(),
        now: false,
    };
    shim.call::<()>("Shutdown", &shutdown).unwrap();
    assert!(shim.is_alive());
    let deleted = shim.delete("").unwrap();
    assert_eq!((deleted.exit_status, deleted.pid), (7, pid));
    assert_eq!(shim.state("").unwrap_err().code, 5);
    shim.call::<()>("Shutdown", &shutdown).unwrap();
    eventually("the shim ends", LIMIT, || (!shim.is_alive()).then_some(()));
    eventually("the socket is removed", LIMIT, || {
        (!fs::exists(&socket).unwrap()).then_some(())
    });
    assert_eq!(
        events.topics(),
        ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]
    );
    assert_eq!(cgroups_named(scratch.unique()), Vec::<std::path::PathBuf>::new());
    assert_eq!(mounts_below(scratch.path()), Vec::<std::path::PathBuf>::new());
    // After a normal end, the command has nothing to do and tells the same.
    assert_eq!(shim.delete_command().exit_status, 7);
}

fn an_exec_lives_inside_and_its_exit_comes_first(driver: Driver) {
    let scratch = Scratch::new();
    let events = Events::listen(scratch.path());
    let mut shim = Shim::start_with(
        &scratch,
        driver,
        &["/bin/sleep", "1000"],
        |_| {},
        |command| {
            command.env("TTRPC_ADDRESS", &events.address);
        },
    );
    let request = shim.create_request();
    shim.run(&request);
    let quick = shim.exec_request("quick", &["/bin/sh", "-c", "exit 3"]);
    shim.exec(&quick);
    assert_eq!(shim.wait("quick"), 3);
    assert_eq!(shim.call::<()>("Exec", &quick).unwrap_err().code, 6);
    assert!(shim.bundle.join("exits/quick.json").exists());
    assert_eq!(shim.delete("quick").unwrap().exit_status, 3);
    assert!(!shim.bundle.join("exits/quick.json").exists());
    assert_eq!(shim.state("quick").unwrap_err().code, 5);
    for number in 0..5 {
        let request = shim.exec_request(&format!("long{number}"), &["/bin/sleep", "1000"]);
        shim.exec(&request);
    }
    assert_eq!(shim.delete("long0").unwrap_err().code, 2);
    shim.kill("long0", 15).unwrap();
    assert_eq!(shim.wait("long0"), 143);
    shim.kill("", 9).unwrap();
    assert_eq!(shim.wait(""), 137);
    assert_eq!(shim.wait("long1"), 137);
    let exits = eventually("all exits are told", LIMIT, || {
        let exits: Vec<TaskExit> = events.of("/tasks/exit");
        (exits.len() == 7).then_some(exits)
    });
    assert_eq!(exits[6].id, shim.id);
    assert_eq!(exits[1].id, "long0");
    let late = shim.exec_request("late", &["/bin/true"]);
    assert_eq!(shim.call::<()>("Exec", &late).unwrap_err().code, 2);
    shim.delete("").unwrap();
}

fn a_created_container_can_be_deleted(driver: Driver) {
    let scratch = Scratch::new();
    let mut shim = Shim::start(&scratch, driver, &["/bin/true"]);
    let request = shim.create_request();
    let created: v2::CreateTaskResponse = shim.call("Create", &request).unwrap();
    assert_eq!(shim.state("").unwrap().status(), Status::Created);
    assert_eq!(
        shim.call::<v2::CreateTaskResponse>("Create", &request)
            .unwrap_err()
            .code,
        6
    );
    let deleted = shim.delete("").unwrap();
    assert_eq!((deleted.pid, deleted.exit_status), (created.pid, 137));
    assert_eq!(cgroups_named(scratch.unique()), Vec::<std::path::PathBuf>::new());
}

fn pausing_stops_the_processes(driver: Driver) {
    let scratch = Scratch::new();
    let mut shim = Shim::start(
        &scratch,
        driver,
        &["/bin/sh", "-c", "while :; do date +%N >/tick; done"],
    );
    let request = shim.create_request();
    shim.run(&request);
    let tick = shim.bundle.join("rootfs/tick");
    let changes = |from: &str| {
        let now = fs::read_to_string(&tick).unwrap_or_default();
        (now != from).then_some(now)
    };
    eventually("it runs", LIMIT, || changes(""));
    let pause = v2::PauseRequest { id: shim.id.clone() };
    shim.call::<()>("Pause", &pause).unwrap();
    assert_eq!(shim.state("").unwrap().status(), Status::Paused);
    let before = fs::metadata(&tick).unwrap().modified().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(fs::metadata(&tick).unwrap().modified().unwrap(), before);
    assert_eq!(shim.call::<()>("Pause", &pause).unwrap_err().code, 2);
    let exec = shim.exec_request("no", &["/bin/true"]);
    assert_eq!(shim.call::<()>("Exec", &exec).unwrap_err().code, 2);
    shim.call::<()>("Resume", &v2::ResumeRequest { id: shim.id.clone() })
        .unwrap();
    eventually("it runs again", LIMIT, || {
        (fs::metadata(&tick).unwrap().modified().unwrap() > before).then_some(())
    });
    shim.kill("", 9).unwrap();
    assert_eq!(shim.wait(""), 137);
    shim.delete("").unwrap();
}

fn a_paused_container_can_be_killed(driver: Driver) {
    let scratch = Scratch::new();
    let mut shim = Shim::start(&scratch, driver, &["/bin/sleep", "1000"]);
    let request = shim.create_request();
    shim.run(&request);
    shim.call::<()>("Pause", &v2::PauseRequest { id: shim.id.clone() })
        .unwrap();
    shim.kill("", 9).unwrap();
    assert_eq!(shim.wait(""), 137);
    shim.delete("").unwrap();
    assert_eq!(cgroups_named(scratch.unique()), Vec::<std::path::PathBuf>::new());
}

fn processes_are_listed_with_their_exec_ids(driver: Driver) {
    let scratch = Scratch::new();
    let mut shim = Shim::start(&scratch, driver, &["/bin/sleep", "1000"]);
    let request = shim.create_request();
    let init = shim.run(&request);
    let request = shim.exec_request("named", &["/bin/sleep", "1000"]);
    let exec = shim.exec(&request);
    let list: v2::PidsResponse = shim
        .call("Pids", &v2::PidsRequest { id: shim.id.clone() })
        .unwrap();
    let mut pids: Vec<u32> = list.processes.iter().map(|process| process.pid).collect();
    pids.sort_unstable();
    let mut expected = [init, exec];
    expected.sort_unstable();
    assert_eq!(pids, expected);
    let named = list.processes.iter().find(|process| process.pid == exec).unwrap();
    assert_eq!(
        named.info.as_ref().unwrap().type_url,
        "containerd.runc.v1.ProcessDetails"
    );
    let stats: v2::StatsResponse = shim
        .call("Stats", &v2::StatsRequest { id: shim.id.clone() })
        .unwrap();
    assert!(
        stats
            .stats
            .unwrap()
            .type_url
            .starts_with("io.containerd.cgroups.v")
    );
    let connect: v2::ConnectResponse = shim
        .call("Connect", &v2::ConnectRequest { id: shim.id.clone() })
        .unwrap();
    assert_eq!(
        (connect.shim_pid, connect.task_pid),
        (shim.pid().as_raw_nonzero().get() as u32, init)
    );
}

fn a_shared_pid_namespace_is_cleared_at_the_exit(driver: Driver) {
    let scratch = Scratch::new();
    let share = |spec: &mut serde_json::Value| {
        let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "pid");
    };
    let script = "sleep 1000 & echo $! >/child; sleep 1000";
    let mut shim = Shim::start_with(&scratch, driver, &["/bin/sh", "-c", script], share, |_| {});
    let request = shim.create_request();
    shim.run(&request);
    let child = eventually("the child runs", LIMIT, || {
        let text = fs::read_to_string(shim.bundle.join("rootfs/child")).ok()?;
        rustix::process::Pid::from_raw(text.trim().parse().ok()?)
    });
    shim.kill("", 9).unwrap();
    assert_eq!(shim.wait(""), 137);
    eventually("the child is killed", LIMIT, || {
        (!crate::client::is_running(child)).then_some(())
    });
    shim.delete("").unwrap();
}

#[test]
fn a_group_of_containers_shares_one_shim() {
    let scratch = Scratch::new();
    let grouped = |spec: &mut serde_json::Value| {
        spec["annotations"]["io.kubernetes.cri.sandbox-id"] = "pod".into();
    };
    let mut first = Shim::start_with(&scratch, "runc", &["/bin/sleep", "1000"], grouped, |_| {});
    let request = first.create_request();
    first.run(&request);
    let bundle = make_bundle(&scratch, "c2", &["/bin/sh", "-c", "exit 4"], grouped);
    let id = format!("{}-c2", scratch.unique());
    let mut start = command(&bundle, &id, &scratch.join("s"), "start");
    start.env("MAX_SHIM_VERSION", "2");
    let answer: serde_json::Value = serde_json::from_slice(&start.output().unwrap().stdout).unwrap();
    assert_eq!(
        answer,
        serde_json::json!({ "version": 2, "address": first.address, "protocol": "ttrpc" })
    );
    assert_eq!(
        fs::read_to_string(bundle.join("shim.pid")).unwrap(),
        first.pid().as_raw_nonzero().to_string()
    );
    let mut request = first.create_request();
    request.id.clone_from(&id);
    request.bundle = bundle.to_string_lossy().into_owned();
    let mut second = Client::connect(&first.address);
    second.call::<v2::CreateTaskResponse>("Create", &request).unwrap();
    let start = v2::StartRequest {
        id: id.clone(),
        exec_id: String::new(),
    };
    second.call::<v2::StartResponse>("Start", &start).unwrap();
    let wait = v2::WaitRequest {
        id: id.clone(),
        exec_id: String::new(),
    };
    assert_eq!(
        second
            .call::<v2::WaitResponse>("Wait", &wait)
            .unwrap()
            .exit_status,
        4
    );
    assert_eq!(first.state("").unwrap().status(), Status::Running);
    let delete = v2::DeleteRequest {
        id,
        exec_id: String::new(),
    };
    second.call::<v2::DeleteResponse>("Delete", &delete).unwrap();
    first.kill("", 9).unwrap();
    first.wait("");
    first.delete("").unwrap();
}

#[test]
fn a_term_signal_ends_the_shim_and_removes_its_socket() {
    let scratch = Scratch::new();
    let shim = Shim::start(&scratch, "runc", &["/bin/true"]);
    let socket = shim.address.strip_prefix("unix://").unwrap().to_owned();
    kill_process(shim.pid(), Signal::TERM).unwrap();
    eventually("the socket is removed", LIMIT, || {
        (!fs::exists(&socket).unwrap()).then_some(())
    });
}

#[test]
fn an_idle_shim_stays_small() {
    let scratch = Scratch::new();
    let mut shim = Shim::start(&scratch, "", &["/bin/sleep", "1000"]);
    let mut request = shim.create_request();
    request.stdout = crate::client::make_fifo(&scratch.join("out"));
    request.stderr = crate::client::make_fifo(&scratch.join("err"));
    shim.run(&request);
    let pid = shim.pid().as_raw_nonzero();
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    // Not what is dirty: a program that was linked a moment ago is that until it is on the disk.
    let own = rollup
        .lines()
        .find(|line| line.starts_with("Anonymous:"))
        .unwrap();
    let kilobytes: u64 = own.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kilobytes < 2048, "{rollup}");
}

#[test]
fn a_daemon_of_today_says_where_the_socket_shall_be() {
    let scratch = Scratch::new();
    let bundle = make_bundle(&scratch, "c1", &["/bin/true"], |_| {});
    let sockets = scratch.join("chosen");
    let params = BootstrapParams {
        instance_id: "c1".to_owned(),
        namespace: "tests".to_owned(),
        socket_dir: Some(sockets.to_string_lossy().into_owned()),
        ..BootstrapParams::default()
    };
    let mut start = command(&bundle, "c1", &scratch.join("s"), "start");
    start
        .env_remove("WHARF_SHIM_SOCKET_DIR")
        .env("MAX_SHIM_VERSION", "2");
    let mut child = start
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(&params.encode_to_vec())
        .unwrap();
    let answer: serde_json::Value =
        serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(
        (answer["version"].as_u64(), answer["protocol"].as_str()),
        (Some(3), Some("ttrpc"))
    );
    let address = answer["address"].as_str().unwrap();
    assert!(
        address.starts_with(&format!("unix://{}/", sockets.display())),
        "{address}"
    );
    let mut client = Client::connect(address);
    let connect: v2::ConnectResponse = client
        .call("Connect", &v2::ConnectRequest { id: "c1".to_owned() })
        .unwrap();
    let shutdown = v2::ShutdownRequest {
        id: "c1".to_owned(),
        now: false,
    };
    client.call::<()>("Shutdown", &shutdown).unwrap();
    let pid = rustix::process::Pid::from_raw(connect.shim_pid as i32).unwrap();
    eventually("the shim ends", LIMIT, || {
        (!crate::client::is_running(pid)).then_some(())
    });
}

#[test]
fn what_the_shim_is_can_be_asked() {
    let ask = |input: &[u8]| {
        let mut child = Command::new(binaries::ours("containerd-shim-wharf-v2"))
            .arg("-info")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let info = RuntimeInfo::decode(child.wait_with_output().unwrap().stdout.as_slice()).unwrap();
        assert_eq!(info.name, "io.containerd.wharf.v2");
        assert!(!info.version.as_ref().unwrap().version.is_empty());
        info
    };
    let runs = |binary: &str| Options {
        binary_name: binary.to_owned(),
        ..Options::default()
    };
    let features = |info: &RuntimeInfo| -> serde_json::Value {
        let any = info.features.as_ref().unwrap();
        assert!(any.type_url.ends_with("/features/Features"), "{}", any.type_url);
        serde_json::from_slice(&any.value).unwrap()
    };
    let own = features(&ask(b""));
    assert_eq!(own["linux"]["seccomp"]["enabled"], true);

    let options = runs("runc");
    let by_runc = ask(&pack(&options).encode_to_vec());
    assert_eq!(
        unpack::<Options>(by_runc.options.as_ref().unwrap()).unwrap(),
        Some(options)
    );
    let said = run(Command::new(binaries::peer("runc")).arg("features")).ok();
    assert_eq!(
        features(&by_runc),
        serde_json::from_str::<serde_json::Value>(&said).unwrap()
    );
    // A program that does not know, and one that does not exist, say nothing.
    for binary in ["/bin/false", "/nonexistent"] {
        assert_eq!(ask(&pack(&runs(binary)).encode_to_vec()).features, None);
    }
}

#[test]
fn the_shim_joins_the_group_it_is_to_be_in_and_its_container_does_not() {
    let scratch = Scratch::new();
    // One hierarchy of the host, made by us and taken away by us.
    let hierarchy = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].map(std::path::Path::new);
    let hierarchy = hierarchy
        .into_iter()
        .find(|place| place.join("cgroup.procs").exists());
    let name = format!("{}-shims", scratch.unique());
    let group = hierarchy.expect("a control group hierarchy").join(&name);
    let with = |group: &str| {
        let options = Options {
            shim_cgroup: group.to_owned(),
            ..Options::default()
        };
        let input = scratch.join("options");
        fs::write(&input, pack(&options).encode_to_vec()).unwrap();
        fs::File::open(input).unwrap()
    };
    let bundle = make_bundle(&scratch, "none", &["/bin/true"], |_| {});
    for (group, error) in [(name.as_str(), "cgroup deleted"), ("/../x", "not a plain path")] {
        let mut start = command(&bundle, "none", &scratch.join("s"), "start");
        let output = start.stdin(with(group)).output().unwrap();
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && words.contains(error), "{words}");
    }
    fs::create_dir(&group).unwrap();
    let input = with(&format!("/{name}"));
    let mut shim = Shim::start_with(
        &scratch,
        "",
        &["/bin/sleep", "1000"],
        |_| {},
        |command| {
            command.stdin(input);
        },
    );
    let pid = shim.run(&shim.create_request());
    let group_of = |pid: &str| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let of_shim = group_of(&shim.pid().as_raw_nonzero().to_string());
    assert!(
        of_shim.lines().any(|line| line.ends_with(&format!(":/{name}"))),
        "{of_shim}"
    );
    let of_container = group_of(&pid.to_string());
    assert!(!of_container.contains(&name), "{of_container}");
    shim.kill("", 9).unwrap();
    assert_eq!(shim.wait(""), 137);
    shim.delete("").unwrap();
    let shutdown = v2::ShutdownRequest {
        id: shim.id.clone(),
        now: false,
    };
    shim.call::<()>("Shutdown", &shutdown).unwrap();
    eventually("the shim ends", LIMIT, || (!shim.is_alive()).then_some(()));
    eventually("nobody is in the group", LIMIT, || fs::remove_dir(&group).ok());
}
