//! The id maps of a new user namespace, written by the parent.

use std::fs;
use std::io;

use crate::Error;
use crate::plan::Mappings;

/// Writes both maps of process `pid`, which waits. One write each: the kernel takes a map only once, and whole.
pub(crate) fn write(pid: i32, mappings: &Mappings) -> Result<(), Error> {
    put(pid, "gid_map", &mappings.gid)?;
    put(pid, "uid_map", &mappings.uid)
}

fn put(pid: i32, file: &str, text: &str) -> Result<(), Error> {
    let path = format!("/proc/{pid}/{file}");
    fs::write(&path, text).map_err(|error: io::Error| Error::io(format!("write {path}"), error))
}
