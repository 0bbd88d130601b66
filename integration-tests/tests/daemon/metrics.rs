//! What a scrape finds, on containerd and on `wharfd`.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use integration_tests::containerd::{Containerd, ctr};
use integration_tests::registry::free_port;
use integration_tests::{Scratch, bundle, eventually, run};

use crate::subject::{SOON, Subject};

/// The status and the body of an answer.
fn ask(port: u16, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connect to the metrics' address");
    stream.set_read_timeout(Some(SOON)).expect("a time-out");
    let request = format!("{request} HTTP/1.0\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("ask");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).expect("a status").to_owned();
    (status, body.to_owned())
}

/// The names of the samples about the container `id`.
fn names(page: &str, id: &str) -> BTreeSet<String> {
    let label = format!("container_id=\"{id}\"");
    page.lines()
        .filter(|line| line.contains(&label))
        .filter_map(|line| Some(line.split_once('{')?.0.to_owned()))
        .collect()
}

/// What containerd says of a container.
fn containerds_names() -> BTreeSet<String> {
    let scratch = Scratch::new();
    let port = free_port();
    let containerd =
        Containerd::start_with(&scratch, &format!("[metrics]\naddress = \"127.0.0.1:{port}\"\n"));
    let root = scratch.directory("root");
    bundle::busybox_root(&root);
    let ctr = |arguments: &[&str]| run(ctr(containerd.socket(), scratch.unique()).args(arguments));
    let rootfs = root.to_str().expect("a UTF-8 path");
    ctr(&["run", "--detach", "--rootfs", rootfs, "a", "/bin/sleep", "1000"]).ok();
    let names = eventually("containerd's metrics", SOON, || {
        let names = names(&ask(port, "GET /v1/metrics").1, "a");
        (names.len() > 10).then_some(names)
    });
    ctr(&["tasks", "delete", "--force", "a"]).ok();
    integration_tests::leftovers::remove_cgroups_named(scratch.unique());
    names
}

#[test]
fn a_container_has_the_families_that_containerd_gives_it() {
    let port = free_port();
    let mut subject = Subject::configured(&format!(
        "[metrics]\naddress = \"127.0.0.1:{port}\"\ngrpc_histogram = true\n"
    ));
    subject.detached("a", &["/bin/sleep", "1000"]);
    let (status, page) = ask(port, "GET /v1/metrics");
    assert_eq!(status, "200");
    let ours = names(&page, "a");
    let missing: Vec<_> = containerds_names().difference(&ours).cloned().collect();
    assert!(missing.is_empty(), "not here: {missing:?}");
    let namespace = format!("namespace=\"{}\"", subject.namespace());
    let about = |page: &str, id: &str| {
        page.lines()
            .any(|line| line.contains(&format!("container_id=\"{id}\"")) && line.contains(&namespace))
    };
    assert!(about(&page, "a"), "{page}");
    for part in [
        "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Create\",grpc_service=\"containerd.services.tasks.v1.Tasks\",grpc_type=\"unary\"} 1\n",
        "grpc_server_msg_received_total{grpc_method=\"Create\",grpc_service=\"containerd.services.tasks.v1.Tasks\",grpc_type=\"unary\"} 1\n",
        "grpc_server_handling_seconds_count{grpc_method=\"Create\",grpc_service=\"containerd.services.tasks.v1.Tasks\",grpc_type=\"unary\"} 1\n",
        "\nprocess_open_fds ",
        "\ncontainerd_build_info_total{version=\"v2.3",
    ] {
        assert!(page.contains(part), "{part} is not in {page}");
    }
    // Each family is told of once, and its samples follow.
    let mut families = BTreeSet::new();
    let mut current = "";
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            current = rest.split(' ').next().expect("a name");
            assert!(families.insert(current), "{current} twice");
        } else if !line.starts_with('#') {
            assert!(line.starts_with(current), "{line} is not of {current}");
        }
    }
    assert_eq!(ask(port, "GET /metrics").0, "404");
    assert_eq!(ask(port, "POST /v1/metrics").0, "405");

    // A shim that does not answer costs its own samples and two seconds, no more.
    subject.detached("b", &["/bin/sleep", "1000"]);
    let frozen: Vec<i32> = integration_tests::leftovers::processes_with(" -id b ")
        .into_iter()
        .filter(|(_, line)| line.contains(subject.namespace()))
        .map(|(pid, _)| pid)
        .collect();
    assert_eq!(frozen.len(), 1, "the shim of b");
    let shim = rustix::process::Pid::from_raw(frozen[0]).expect("a process id");
    rustix::process::kill_process(shim, rustix::process::Signal::STOP).expect("stop the shim");
    let begin = Instant::now();
    let (_, page) = ask(port, "GET /v1/metrics");
    rustix::process::kill_process(shim, rustix::process::Signal::CONT).expect("let the shim go on");
    assert!(begin.elapsed() < Duration::from_secs(10));
    assert!(about(&page, "a") && !about(&page, "b"));

    // The next daemon serves them on the same socket.
    subject.wharfd.take_over();
    assert!(about(&ask(port, "GET /v1/metrics").1, "b"));
}
