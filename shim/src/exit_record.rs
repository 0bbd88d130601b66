//! Exit records: what must not be forgotten about a process that ended.
//!
//! `<bundle>/exits/init.json` and `<bundle>/exits/<exec id>.json`, each
//! `{"pid":7,"exit_status":137,"exited_at":"2006-01-02T15:04:05.9Z","signal":9}`; `signal` only when one ended the
//! process. Version 1 of the format. A record is written to a temporary file, flushed and renamed before anybody is
//! told of the exit, so after a crash it is there whole or not at all; a leftover `.tmp` file is overwritten by the
//! next try. An exec named `init` is recorded as `_init.json`, a name that no exec can have.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use prost_types::Timestamp;
use serde::{Deserialize, Serialize};

use crate::clock;

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The exit code, or 128 and the signal.
    pub status: u32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// When it was reaped.
    pub at: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct Record {
    pid: i32,
    exit_status: u32,
    exited_at: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signal: Option<i32>,
}

fn path(bundle: &Path, exec_id: &str) -> PathBuf {
    let name = match exec_id {
        "" => "init.json".to_owned(),
        "init" => "_init.json".to_owned(),
        other => format!("{other}.json"),
    };
    bundle.join("exits").join(name)
}

/// Records the exit of a process of the container in `bundle`; `exec_id` is empty for its first.
///
/// # Errors
///
/// The record could not be made durable; an earlier one is untouched.
pub fn write(bundle: &Path, exec_id: &str, pid: i32, exit: &Exit) -> io::Result<()> {
    let path = path(bundle, exec_id);
    match fs::create_dir(bundle.join("exits")) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let record = Record {
        pid,
        exit_status: exit.status,
        exited_at: clock::rfc3339(&exit.at),
        signal: exit.signal,
    };
    let temporary = path.with_extension("json.tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(&serde_json::to_vec(&record)?)?;
    file.sync_all()?;
    fs::rename(temporary, path)
}

/// The recorded exit and pid; `None` when there is no record, or none that can be read.
pub fn read(bundle: &Path, exec_id: &str) -> Option<(i32, Exit)> {
    parse(&fs::read(path(bundle, exec_id)).ok()?)
}

/// The exit and pid in a record; `None` when it is none.
pub fn parse(record: &[u8]) -> Option<(i32, Exit)> {
    let record: Record = serde_json::from_slice(record).ok()?;
    let exit = Exit {
        status: record.exit_status,
        signal: record.signal,
        at: clock::parse_rfc3339(&record.exited_at)?,
    };
    Some((record.pid, exit))
}

/// Removes the record of an exec that was deleted; one that is not there is no error.
///
/// # Errors
///
/// It is there and stays.
pub fn remove(bundle: &Path, exec_id: &str) -> io::Result<()> {
    match fs::remove_file(path(bundle, exec_id)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_back_and_do_not_mix() {
        let bundle = tempfile::tempdir().unwrap();
        let at = Timestamp {
            seconds: 1_700_000_000,
            nanos: 5,
        };
        let killed = Exit {
            status: 137,
            signal: Some(9),
            at,
        };
        let fine = Exit {
            status: 3,
            signal: None,
            at,
        };
        write(bundle.path(), "", 7, &killed).unwrap();
        write(bundle.path(), "init", 8, &fine).unwrap();
        assert_eq!(read(bundle.path(), ""), Some((7, killed)));
        assert_eq!(read(bundle.path(), "init"), Some((8, fine)));
        let text = fs::read_to_string(bundle.path().join("exits/init.json")).unwrap();
        let expected =
            r#"{"pid":7,"exit_status":137,"exited_at":"2023-11-14T22:13:20.000000005Z","signal":9}"#;
        assert_eq!(text, expected);
        remove(bundle.path(), "init").unwrap();
        remove(bundle.path(), "init").unwrap();
        assert_eq!(read(bundle.path(), "init"), None);
    }
}
