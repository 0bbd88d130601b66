//! Events between two daemons: envelopes one after the other, each with its length before it, in a file in memory.

use std::{
    fs::File,
    io::{Read as _, Seek as _, Write as _},
    os::fd::OwnedFd,
};

use prost::Message as _;
use rustix::fs::{MemfdFlags, memfd_create};
use wharf_proto::containerd::types::Envelope;

use crate::error::{Error, Result};

/// The most that is read: twice what an event log keeps.
const LIMIT: u64 = 32 << 20;

/// Writes `events` into a new file.
///
/// # Errors
///
/// `Unknown`, `ResourceExhausted`: no memory.
pub fn encode(events: &[Envelope]) -> Result<OwnedFd> {
    let failed = |error| Error::io("keep events for the next daemon", error);
    let mut bytes = Vec::new();
    for event in events {
        event
            .encode_length_delimited(&mut bytes)
            .map_err(|error| Error::unknown("encode an event", error))?;
    }
    let memory = memfd_create(c"wharfd-events", MemfdFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
    let mut file = File::from(memory);
    file.write_all(&bytes).map_err(failed)?;
    Ok(file.into())
}

/// Reads what [`encode`] wrote.
///
/// # Errors
///
/// `InvalidArgument`: something else is in it.
pub fn decode(file: OwnedFd) -> Result<Vec<Envelope>> {
    let failed = |error| Error::io("read the events of the daemon before this one", error);
    let mut file = File::from(file);
    file.rewind().map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(LIMIT).read_to_end(&mut bytes).map_err(failed)?;
    let mut rest = bytes.as_slice();
    let mut events = Vec::new();
    while !rest.is_empty() {
        let event = Envelope::decode_length_delimited(&mut rest)
            .map_err(|error| Error::invalid("events of the daemon before this one").caused_by(error))?;
        events.push(event);
    }
    Ok(events)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_survive_the_way() {
        let event = |topic: &str| Envelope {
            namespace: "ns".to_owned(),
            topic: topic.to_owned(),
            ..Envelope::default()
        };
        let events = vec![event("/a"), Envelope::default(), event("/b")];
        assert_eq!(decode(encode(&events).unwrap()).unwrap(), events);
        assert_eq!(decode(encode(&[]).unwrap()).unwrap(), []);
        let mut torn = tempfile::tempfile().unwrap();
        torn.write_all(&[9, 1]).unwrap();
        assert!(decode(torn.into()).is_err());
    }
}
