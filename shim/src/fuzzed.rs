//! The checks of the fuzz targets (`fuzz/`), one for each place where bytes come in; built for them and for tests only.
//!
//! Each takes any bytes, reads them as its part of the shim would, and panics when a promise is broken. Nothing is executed
//! and nothing mounted. `cargo test` runs them on the inputs that were kept.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use prost::Message;
use prost_types::Any;
use rustix::io::{Errno, read, write};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use wharf_proto::containerd::runtime::sandbox::v1 as sandbox;
use wharf_proto::containerd::task::v2;
use wharf_proto::ttrpc::{Frame, Kind, Request, Response};
use wharf_runtime::spec;

use crate::bootstrap::{self, Bootstrap};
use crate::clock;
use crate::connection::{Call, Connections};
use crate::driver::{Settings, binary};
use crate::exit_record;
use crate::flags::Flags;
use crate::id_map;
use crate::log::Log;
use crate::reactor::Reactor;
use crate::rootfs;
use crate::stdio::uri::Output;
use crate::tasks::options;

/// Sends `data` to a connection, in pieces whose size its first byte says, and reads the calls that come out of it. Panics
/// when those are not the frames that were sent.
pub fn frames(data: &[u8]) {
    let Some((piece, wire)) = data.split_first() else {
        return;
    };
    let expected = requests(wire);
    let reactor = Reactor::new().expect("a reactor");
    let log = Log::new("/nonexistent".into(), false);
    let mut connections = Connections::default();
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (ours, client) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).expect("a socket pair");
    let id = connections.add(&reactor, ours).expect("a connection");
    let mut calls = Vec::new();
    let mut is_open = true;
    for part in wire.chunks(1 + usize::from(*piece) * 16) {
        let before = calls.len();
        is_open = write(&client, part).is_ok() && connections.ready(&reactor, &log, id, &mut calls);
        for call in &calls[before..] {
            let answer = read_call(&call.request).map(|()| Vec::new());
            let answer = answer.map_err(|error| {
                crate::status::Refusal::new(crate::status::Code::InvalidArgument, error.to_string())
            });
            connections.answer(&reactor, &log, call.reply, answer);
        }
        drain(&client);
        if !is_open {
            break;
        }
    }
    compare(&calls, &expected, is_open);
}

/// What the connection is to take from `wire`: the requests in front of the first thing that is none.
fn requests(wire: &[u8]) -> Vec<Request> {
    let mut buffer = wire.to_vec();
    let mut requests = Vec::new();
    while let Ok(Some(frame)) = Frame::decode(&mut buffer) {
        if frame.kind != Kind::Request || frame.stream % 2 == 0 {
            break;
        }
        requests.extend(Request::decode(frame.payload.as_slice()));
    }
    // What a daemon answers to the shim's own calls comes in the same frames.
    if let Ok(response) = Response::decode(wire) {
        drop(v2::ConnectResponse::decode(response.payload.as_slice()));
    }
    requests
}

fn compare(calls: &[Call], expected: &[Request], is_open: bool) {
    let calls: Vec<&Request> = calls.iter().map(|call| &call.request).collect();
    let expected: Vec<&Request> = expected.iter().collect();
    // A client that is cut off in the middle of a piece was heard up to there.
    if is_open {
        assert_eq!(calls, expected);
    } else {
        assert!(expected.starts_with(&calls), "{calls:?}");
    }
}

fn drain(client: &OwnedFd) {
    let mut buffer = [0; 4096];
    loop {
        match read(client, &mut buffer) {
            Ok(0) | Err(Errno::AGAIN | Errno::CONNRESET) => return,
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => panic!("read the answers: {error}"),
        }
    }
}

/// Reads the message of a call as far as it is read before anything is done.
fn read_call(request: &Request) -> Result<(), prost::DecodeError> {
    let payload = request.payload.as_slice();
    match request.method.as_str() {
        "Create" => {
            let create = v2::CreateTaskRequest::decode(payload)?;
            if let Ok(options) = options::options(&create) {
                drop(Settings::from_options(&options));
            }
            for name in [&create.stdout, &create.stderr] {
                output(name);
            }
            for mount in &create.rootfs {
                mounts(&mount.target, &mount.options);
            }
        }
        "Exec" => drop(
            v2::ExecProcessRequest::decode(payload)?
                .spec
                .map(|any| process(&any.value)),
        ),
        "Update" => drop(v2::UpdateTaskRequest::decode(payload)?.resources),
        "Start" => drop(v2::StartRequest::decode(payload)?),
        "Delete" => drop(v2::DeleteRequest::decode(payload)?),
        "Kill" => drop(v2::KillRequest::decode(payload)?),
        "Wait" => drop(v2::WaitRequest::decode(payload)?),
        "State" => drop(v2::StateRequest::decode(payload)?),
        "ResizePty" => drop(v2::ResizePtyRequest::decode(payload)?),
        "CloseIO" => drop(v2::CloseIoRequest::decode(payload)?),
        "Checkpoint" => drop(v2::CheckpointTaskRequest::decode(payload)?),
        "CreateSandbox" => drop(sandbox::CreateSandboxRequest::decode(payload)?),
        _ => drop(v2::ConnectRequest::decode(payload)?),
    }
    Ok(())
}

/// Reads `data`, whose first byte says as what, like something that comes in beside the socket. Panics when what was read
/// is not what it may be.
pub fn input(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else {
        return;
    };
    let text = String::from_utf8_lossy(data);
    match choice % 9 {
        0 => bootstrap(data),
        1 => {
            if let Some(error) = binary::last_error_in(data) {
                assert_eq!(error.trim(), error);
            }
        }
        2 => record(data),
        3 => drop(serde_json::from_slice::<Settings>(data)),
        4 => output(&text),
        5 => {
            let mut words = text.split('\n').map(str::to_owned);
            let target = words.next().unwrap_or_default();
            mounts(&target, &words.collect::<Vec<_>>());
        }
        6 => {
            let words = data
                .split(|byte| *byte == 0)
                .map(|word| OsString::from_vec(word.to_vec()));
            drop(Flags::parse(words));
        }
        7 => process(data),
        _ => time(&text),
    }
}

fn bootstrap(data: &[u8]) {
    let flags = Flags {
        id: "id".into(),
        namespace: "ns".into(),
        ..Flags::default()
    };
    let input = bootstrap::read_input(data).expect("it is short");
    drop(Bootstrap::parse(&input, &flags));
    drop(Any::decode(data));
}

fn record(data: &[u8]) {
    let Some((_, exit)) = exit_record::parse(data) else {
        return;
    };
    time(&clock::rfc3339(&exit.at));
}

fn time(text: &str) {
    if let Some(time) = clock::parse_rfc3339(text) {
        assert!((0..1_000_000_000).contains(&time.nanos), "{text:?}");
        let written = clock::rfc3339(&time);
        assert_eq!(
            clock::parse_rfc3339(&written),
            Some(time),
            "{text:?} and {written:?}"
        );
    }
}

fn output(name: &str) {
    match Output::parse(name) {
        Ok(Output::Path(path) | Output::File(path) | Output::Binary { program: path, .. }) => {
            assert!(path.is_absolute(), "{name:?}");
        }
        Ok(Output::JsonFile(log)) => assert!(log.path.is_absolute() && log.max_file > 0, "{name:?}"),
        Ok(Output::Null) | Err(_) => {}
    }
}

fn mounts(target: &str, options: &[String]) {
    let root = Path::new("/bundle/rootfs");
    if let Ok(target) = rootfs::target(root, target) {
        assert!(target.starts_with(root), "{}", target.display());
        assert!(
            !target
                .components()
                .any(|component| component == std::path::Component::ParentDir)
        );
    }
    drop(rootfs::parse(options));
    if let [uid, gid, ..] = options {
        drop(id_map::parse(Some(uid), Some(gid)));
    }
}

fn process(data: &[u8]) {
    drop(spec::parse_process(data));
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    /// What a fuzz target has once found, or learned to be worth a look.
    fn kept(target: &str) -> Vec<Vec<u8>> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz/corpus")
            .join(target);
        let entries = fs::read_dir(&directory).unwrap();
        let inputs: Vec<_> = entries
            .map(|entry| fs::read(entry.unwrap().path()).unwrap())
            .collect();
        assert!(!inputs.is_empty(), "{}", directory.display());
        inputs
    }

    #[test]
    fn kept_inputs_pass() {
        kept("frames").iter().for_each(|input| super::frames(input));
        kept("input").iter().for_each(|input| super::input(input));
    }
}
