//! Standard streams: FIFOs, files, the container log, logging programs, terminals.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::{Duration, Instant};

use integration_tests::{Scratch, eventually};
use wharf_proto::containerd::task::v2;

use crate::client::{Driver, LIMIT, Shim, make_fifo, open_reader, read_all};

crate::with_each_driver!(
    output_arrives_before_the_exit_is_told,
    output_waits_for_a_reader_that_comes_after_the_exit,
    input_ends_when_it_is_closed,
    the_log_is_complete_without_any_reader,
    a_terminal_carries_both_ways,
    a_background_child_does_not_delay_the_exit,
    files_get_the_output,
    a_background_child_on_a_terminal_does_not_delay_the_exit,
);

fn output_arrives_before_the_exit_is_told(driver: Driver) {
    let scratch = Scratch::new();
    let script = "seq 1 20000; echo complaint >&2; exit 2";
    let mut shim = Shim::start(&scratch, driver, &["/bin/sh", "-c", script]);
    let mut request = shim.create_request();
    request.stdout = make_fifo(&scratch.join("out"));
    request.stderr = make_fifo(&scratch.join("err"));
    let out = read_all(&request.stdout);
    let err = read_all(&request.stderr);
    shim.run(&request);
    assert_eq!(shim.wait(""), 2);
    // The FIFOs have ended before any delete.
    let expected: String = (1..=20000).map(|number| format!("{number}\n")).collect();
    assert_eq!(out.join().unwrap(), expected);
    assert_eq!(err.join().unwrap(), "complaint\n");
    shim.delete("").unwrap();
}

/// Clients open their ends on a thread of their own, which on a busy machine is later than everything here.
fn output_waits_for_a_reader_that_comes_after_the_exit(driver: Driver) {
    let scratch = Scratch::new();
    let mut shim = Shim::start(&scratch, driver, &["/bin/sleep", "1000"]);
    let request = shim.create_request();
    shim.run(&request);
    let mut request = shim.exec_request("e", &["/bin/sh", "-c", "echo last words"]);
    request.stdout = make_fifo(&scratch.join("out"));
    request.stderr = make_fifo(&scratch.join("err"));
    shim.exec(&request);
    assert_eq!(shim.wait("e"), 0);
    let delete = v2::DeleteRequest {
        id: shim.id.clone(),
        exec_id: "e".to_owned(),
    };
    let deleting = shim.client.send(
        "containerd.task.v3.Task",
        "Delete",
        prost::Message::encode_to_vec(&delete),
    );
    thread::sleep(Duration::from_millis(100));
    assert!(!shim.client.has_answer(deleting), "the output was given up");
    let mut reader = open_reader(&request.stdout);
    let mut text = String::new();
    eventually("the output and its end", LIMIT, || {
        // Until the shim closes its end, there being nothing more to read is an error.
        reader.read_to_string(&mut text).ok()
    });
    assert_eq!(text, "last words\n");
    shim.client.receive::<v2::DeleteResponse>(deleting).unwrap();

    // The second time the reader of nothing comes late, and is not left waiting.
    request.stdout = make_fifo(&scratch.join("out2"));
    request.stderr = make_fifo(&scratch.join("err2"));
    request.exec_id = "f".to_owned();
    shim.exec(&request);
    assert_eq!(shim.wait("f"), 0);
    let err = read_all(&request.stderr);
    assert_eq!(err.join().unwrap(), "");
    assert_eq!(read_all(&request.stdout).join().unwrap(), "last words\n");
    shim.delete("f").unwrap();
}

fn input_ends_when_it_is_closed(driver: Driver) {
    let scratch = Scratch::new();
    let mut shim = Shim::start(&scratch, driver, &["/bin/cat"]);
    let mut request = shim.create_request();
    request.stdin = make_fifo(&scratch.join("in"));
    request.stdout = make_fifo(&scratch.join("out"));
    let out = read_all(&request.stdout);
    shim.run(&request);
    let mut input = File::options().write(true).open(&request.stdin).unwrap();
    let text = "x".repeat(300_000);
    input.write_all(text.as_bytes()).unwrap();
    drop(input);
    // A client that goes away does not end the input.
    let wait = v2::WaitRequest {
        id: shim.id.clone(),
        exec_id: String::new(),
    };
    let waiting = shim.client.send(
        "containerd.task.v3.Task",
        "Wait",
        prost::Message::encode_to_vec(&wait),
    );
    thread::sleep(Duration::from_millis(100));
    assert!(!shim.client.has_answer(waiting));
    let mut input = File::options().write(true).open(&request.stdin).unwrap();
    input.write_all(b"end").unwrap();
    let close = v2::CloseIoRequest {
        id: shim.id.clone(),
        exec_id: String::new(),
        stdin: true,
    };
    shim.call::<()>("CloseIO", &close).unwrap();
    drop(input);
    let exit: v2::WaitResponse = shim.client.receive(waiting).unwrap();
    assert_eq!(exit.exit_status, 0);
    assert_eq!(out.join().unwrap(), text + "end");
}

fn the_log_is_complete_without_any_reader(driver: Driver) {
    let scratch = Scratch::new();
    let script =
        "seq 1 30000; echo last >&2; until test -e /go; do sleep 0.01; done; echo tapped; printf unfinished";
    let mut shim = Shim::start(&scratch, driver, &["/bin/sh", "-c", script]);
    let log = scratch.join("c.log");
    let tap = make_fifo(&scratch.join("tap"));
    let mut request = shim.create_request();
    request.stdout = format!(
        "json-file://{}?max-size=500000&max-file=9&fifo={tap}",
        log.display()
    );
    request.stderr = format!("json-file://{}?max-size=500000&max-file=9", log.display());
    shim.run(&request);
    let text = || {
        let mut all = String::new();
        for number in (0..9).rev() {
            let name = if number == 0 {
                "c.log".to_owned()
            } else {
                format!("c.log.{number}")
            };
            all += &fs::read_to_string(scratch.join(name)).unwrap_or_default();
        }
        all
    };
    // Somebody begins to follow in the middle, and gets what comes from then on.
    eventually("the numbers are logged", LIMIT, || {
        text().contains("30000\\n").then_some(())
    });
    let mut follower = open_reader(&tap);
    fs::write(shim.bundle.join("rootfs/go"), "").unwrap();
    assert_eq!(shim.wait(""), 0);
    let mut followed = String::new();
    eventually("the follower sees the end", LIMIT, || {
        // Not ready is an error until the shim writes, and the end comes when it closes.
        let _ = follower.read_to_string(&mut followed);
        followed.ends_with("unfinished").then_some(())
    });
    assert!(followed.contains("tapped\n"), "{followed}");
    let mut streams = std::collections::BTreeMap::<String, String>::new();
    for line in text().lines() {
        let entry: serde_json::Value = serde_json::from_str(line).unwrap();
        let stream = streams
            .entry(entry["stream"].as_str().unwrap().to_owned())
            .or_default();
        stream.push_str(entry["log"].as_str().unwrap());
    }
    let expected: String = (1..=30000).map(|number| format!("{number}\n")).collect();
    assert_eq!(streams["stdout"], expected + "tapped\nunfinished");
    assert_eq!(streams["stderr"], "last\n");
    assert!(fs::metadata(scratch.join("c.log.1")).unwrap().len() <= 500_000);
}

fn a_terminal_carries_both_ways(driver: Driver) {
    let scratch = Scratch::new();
    let terminal = |spec: &mut serde_json::Value| spec["process"]["terminal"] = true.into();
    let script = "stty size; read line; echo got $line; exit 5";
    let mut shim = Shim::start_with(&scratch, driver, &["/bin/sh", "-c", script], terminal, |_| {});
    let mut request = shim.create_request();
    request.terminal = true;
    request.stdin = make_fifo(&scratch.join("in"));
    request.stdout = make_fifo(&scratch.join("out"));
    let out = read_all(&request.stdout);
    shim.call::<v2::CreateTaskResponse>("Create", &request).unwrap();
    let size = v2::ResizePtyRequest {
        id: shim.id.clone(),
        exec_id: String::new(),
        width: 101,
        height: 33,
    };
    shim.call::<()>("ResizePty", &size).unwrap();
    shim.call::<v2::StartResponse>("Start", &shim.start_request(""))
        .unwrap();
    let mut input = File::options().write(true).open(&request.stdin).unwrap();
    input.write_all(b"word\n").unwrap();
    assert_eq!(shim.wait(""), 5);
    let out = out.join().unwrap();
    assert!(out.contains("33 101\r\n"), "{out:?}");
    assert!(out.contains("got word\r\n"), "{out:?}");
    assert_eq!(shim.call::<()>("ResizePty", &size).unwrap_err().code, 2);
    shim.delete("").unwrap();
}

fn a_background_child_does_not_delay_the_exit(driver: Driver) {
    let scratch = Scratch::new();
    let mut shim = Shim::start(&scratch, driver, &["/bin/sleep", "1000"]);
    let request = shim.create_request();
    shim.run(&request);
    let mut request = shim.exec_request("e", &["/bin/sh", "-c", "echo first; sleep 1000 & exit 6"]);
    request.stdout = make_fifo(&scratch.join("out"));
    let mut reader = open_reader(&request.stdout);
    let before = Instant::now();
    shim.exec(&request);
    assert_eq!(shim.wait("e"), 6);
    assert!(
        before.elapsed() < Duration::from_secs(1),
        "{:?}",
        before.elapsed()
    );
    let mut text = [0; 6];
    reader.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"first\n");
    shim.delete("e").unwrap();
    assert!(
        before.elapsed() < Duration::from_secs(2),
        "{:?}",
        before.elapsed()
    );
    assert_eq!(reader.read(&mut text).unwrap(), 0);
}

fn a_background_child_on_a_terminal_does_not_delay_the_exit(driver: Driver) {
    let scratch = Scratch::new();
    let mut shim = Shim::start(&scratch, driver, &["/bin/sleep", "1000"]);
    let request = shim.create_request();
    shim.run(&request);
    let script = "trap '' HUP; sleep 1000 & echo first; exit 6";
    let mut request = shim.exec_request("e", &["/bin/sh", "-c", script]);
    request.terminal = true;
    request.stdout = make_fifo(&scratch.join("out"));
    let out = read_all(&request.stdout);
    let before = Instant::now();
    shim.exec(&request);
    assert_eq!(shim.wait("e"), 6);
    assert_eq!(out.join().unwrap(), "first\r\n");
    shim.delete("e").unwrap();
    assert!(
        before.elapsed() < Duration::from_secs(2),
        "{:?}",
        before.elapsed()
    );
}

fn files_get_the_output(driver: Driver) {
    let scratch = Scratch::new();
    let mut shim = Shim::start(&scratch, driver, &["/bin/sh", "-c", "echo out; echo err >&2"]);
    let mut request = shim.create_request();
    let file = scratch.join("deep/er/file");
    request.stdout = format!("file://{}", file.display());
    request.stderr.clone_from(&request.stdout);
    shim.run(&request);
    assert_eq!(shim.wait(""), 0);
    let text = fs::read_to_string(file).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["err", "out"]);
}

#[test]
fn a_logging_program_gets_both_streams_and_ends() {
    let scratch = Scratch::new();
    let program = scratch.join("logger");
    let script = format!(
        "#!/bin/sh\nexec 5>&-\n(cat <&3; echo \"$CONTAINER_NAMESPACE $CONTAINER_ID $1 $2\"; cat <&4) >{}\n",
        scratch.join("logged").display()
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let mut shim = Shim::start(&scratch, "runc", &["/bin/sh", "-c", "echo out; echo err >&2"]);
    let mut request = shim.create_request();
    request.stdout = format!("binary://{}?key=value", program.display());
    request.stderr.clone_from(&request.stdout);
    shim.run(&request);
    assert_eq!(shim.wait(""), 0);
    let expected = format!("out\ntests {} key value\nerr\n", shim.id);
    eventually("the program has logged", LIMIT, || {
        (fs::read_to_string(scratch.join("logged")).ok()? == expected).then_some(())
    });
    shim.delete("").unwrap();
}

#[test]
fn a_client_that_does_not_read_slows_the_process_and_loses_nothing() {
    let scratch = Scratch::new();
    let mut shim = Shim::start(
        &scratch,
        "runc",
        &["/bin/sh", "-c", "seq 1 200000; echo done >/done"],
    );
    let mut request = shim.create_request();
    request.stdout = make_fifo(&scratch.join("out"));
    shim.run(&request);
    thread::sleep(Duration::from_millis(300));
    assert!(
        !shim.bundle.join("rootfs/done").exists(),
        "nobody read, and the process went on"
    );
    let out = read_all(&request.stdout);
    assert_eq!(shim.wait(""), 0);
    let expected: String = (1..=200_000).map(|number| format!("{number}\n")).collect();
    assert_eq!(out.join().unwrap(), expected);
}
