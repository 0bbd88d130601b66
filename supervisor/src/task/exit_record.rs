//! The exit records that a shim of ours leaves in its bundle before it tells anyone.
//!
//! `exits/<exec id, or "init">.json`: `{"pid":7,"exit_status":137,"exited_at":"2026-01-02T03:04:05.6Z"}`. They speak when
//! the shim cannot any more.

use std::fs;

use prost_types::Timestamp;
use serde::Deserialize;

use super::bundle::Bundle;
use super::handle::Exit;
use crate::error::{Error, Result};

/// More execs than that are not looked at in one bundle.
const MAX_RECORDS: usize = 4096;

#[derive(Deserialize)]
struct Record {
    pid: u32,
    exit_status: u32,
    exited_at: String,
}

impl Record {
    fn exit(self) -> Result<Exit> {
        let at: jiff::Timestamp = self
            .exited_at
            .parse()
            .map_err(|error| Error::unknown(format!("parse exit time {:?}", self.exited_at), error))?;
        Ok(Exit {
            pid: self.pid,
            status: self.exit_status,
            at: Some(Timestamp {
                seconds: at.as_second(),
                nanos: at.subsec_nanosecond(),
            }),
        })
    }
}

/// How the init process ended, if the shim recorded it. Blocks.
///
/// # Errors
///
/// `Unknown`: the record cannot be read, or is not one.
pub fn init(bundle: &Bundle) -> Result<Option<Exit>> {
    let record: Option<Record> = bundle.read_json("exits/init.json")?;
    record.map(Record::exit).transpose()
}

/// Whether the shim's record of the end of an exec is there. Blocks.
pub fn exists(bundle: &Bundle, exec_id: &str) -> bool {
    let record = bundle.path().join("exits").join(format!("{exec_id}.json"));
    record.symlink_metadata().is_ok()
}

/// How each exec ended of which the shim recorded it. Blocks.
///
/// # Errors
///
/// `Unknown`: the directory cannot be read. Records that are not ones are skipped, and logged.
pub fn execs(bundle: &Bundle) -> Result<Vec<(String, Exit)>> {
    let directory = bundle.path().join("exits");
    let failed = |error| Error::io(format!("read {}", directory.display()), error);
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut execs = Vec::new();
    for entry in entries.take(MAX_RECORDS) {
        let name = entry.map_err(failed)?.file_name();
        let Some(id) = name.to_str().and_then(|name| name.strip_suffix(".json")) else {
            continue;
        };
        if id == "init" || crate::identifier::validate(id).is_err() {
            continue;
        }
        let record = bundle.read_json::<Record>(&format!("exits/{id}.json"));
        match record.and_then(|record| record.map(Record::exit).transpose()) {
            Ok(Some(exit)) => execs.push((id.to_owned(), exit)),
            Ok(None) => {}
            Err(error) => tracing::warn!(exec_id = id, %error, "exit record skipped"),
        }
    }
    Ok(execs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_with_their_own_time() {
        let dir = tempfile::tempdir().unwrap();
        let bundle = Bundle::of(dir.path(), "ns", "c");
        bundle.create(b"{}").unwrap();
        assert_eq!(init(&bundle).unwrap(), None);
        assert_eq!(execs(&bundle).unwrap(), []);
        let exits = bundle.path().join("exits");
        fs::create_dir(&exits).unwrap();
        let record = |pid: u32| {
            format!(r#"{{"pid":{pid},"exit_status":137,"exited_at":"2026-01-02T03:04:05.6Z","signal":9}}"#)
        };
        fs::write(exits.join("init.json"), record(1)).unwrap();
        fs::write(exits.join("e1.json"), record(2)).unwrap();
        fs::write(exits.join("e2.json"), "{").unwrap();
        fs::write(exits.join("e3.partial"), record(3)).unwrap();
        let expected = |pid| Exit {
            pid,
            status: 137,
            at: Some(Timestamp {
                seconds: 1_767_323_045,
                nanos: 600_000_000,
            }),
        };
        assert_eq!(init(&bundle).unwrap(), Some(expected(1)));
        assert_eq!(execs(&bundle).unwrap(), [("e1".to_owned(), expected(2))]);
    }
}
