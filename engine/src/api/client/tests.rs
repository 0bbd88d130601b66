//! Tests of the client against raw answers on a real socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;

use super::*;

#[test]
fn a_name_cannot_leave_its_place_in_the_path() {
    assert_eq!(segment("web-1.a_b"), "web-1.a_b");
    assert_eq!(segment("../x?force=1#"), "..%2Fx%3Fforce%3D1%23");
    assert_eq!(segment("a b\nc"), "a%20b%0Ac");
    assert_eq!(
        image_path("localhost:5000/a/b@sha256:0"),
        "localhost:5000/a/b@sha256:0"
    );
}

/// Serves the given raw answers, one per request, each request on whatever connection it comes; returns the heads.
fn serve(listener: UnixListener, answers: Vec<&'static str>) -> std::thread::JoinHandle<Vec<String>> {
    std::thread::spawn(move || {
        let mut heads = Vec::new();
        let mut connection = None;
        for answer in answers {
            let mut stream = connection
                .take()
                .unwrap_or_else(|| listener.accept().expect("accept").0);
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") {
                if stream.read(&mut byte).expect("read") == 0 {
                    stream = listener.accept().expect("accept").0;
                    continue;
                }
                head.push(byte[0]);
            }
            heads.push(String::from_utf8(head).expect("text"));
            stream.write_all(answer.as_bytes()).expect("write");
            connection = Some(stream);
        }
        heads
    })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime")
}

#[test]
fn an_older_daemon_is_asked_again_in_its_own_version() {
    let directory = tempfile::tempdir().expect("directory");
    let socket = directory.path().join("s");
    let server = serve(
        UnixListener::bind(&socket).expect("bind"),
        vec![
            "HTTP/1.1 400 Bad Request\r\nContent-Length: 21\r\nConnection: close\r\n\r\n{\"message\":\"too new\"}",
            "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Length: 2\r\n\r\nOK",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{\"a\": 42}",
        ],
    );
    runtime().block_on(async {
        let client = Client::new(&socket);
        let answer: serde_json::Value = client.get("/x").query("q", "a b").json().await.expect("answer");
        assert_eq!(answer["a"], 42);
    });
    let heads = server.join().expect("server");
    assert!(
        heads[0].starts_with("GET /v1.44/x?q=a%20b HTTP/1.1\r\n"),
        "{}",
        heads[0]
    );
    assert!(
        heads[2].starts_with("GET /v1.41/x?q=a%20b HTTP/1.1\r\n"),
        "{}",
        heads[2]
    );
}

#[test]
fn a_hijacked_connection_keeps_the_bytes_that_came_with_the_head() {
    let directory = tempfile::tempdir().expect("directory");
    let socket = directory.path().join("s");
    let server = serve(
        UnixListener::bind(&socket).expect("bind"),
        vec!["HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nearly"],
    );
    let hijacked =
        runtime().block_on(async { Client::new(&socket).post("/x").hijack().await.expect("hijack") });
    server.join().expect("server");
    let mut output = hijacked.early.to_vec();
    let mut stream = &hijacked.stream;
    stream.read_to_end(&mut output).expect("read");
    assert_eq!(output, b"early");
}

#[test]
fn nobody_listening_is_told_from_other_failures() {
    let directory = tempfile::tempdir().expect("directory");
    let socket = directory.path().join("s");
    let error = runtime().block_on(async { Client::new(&socket).ping().await.expect_err("no socket") });
    assert!(error.is_nobody_listening(), "{error}");
    drop(UnixListener::bind(&socket).expect("bind"));
    let error = runtime().block_on(async { Client::new(&socket).ping().await.expect_err("no listener") });
    assert!(error.is_nobody_listening(), "{error}");
}
