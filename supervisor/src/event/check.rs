//! What an event from outside must look like.

use prost_types::Timestamp;
use wharf_proto::containerd::types::Envelope;

use crate::error::{Error, Result};
use crate::identifier;

/// Seconds of the year 1, which is how Go writes a time that was never set.
const GO_ZERO_TIME: i64 = -62_135_596_800;

/// Checks a topic: `/` and at least one identifier, more of them separated by `/`.
///
/// # Errors
///
/// `InvalidArgument` with the rule that is broken.
pub fn topic(topic: &str) -> Result<()> {
    let broken = |rule: String| Error::invalid(format!("envelope topic {topic:?}: {rule}"));
    if topic.is_empty() {
        return Err(broken("must not be empty".to_owned()));
    }
    let Some(components) = topic.strip_prefix('/') else {
        return Err(broken("must start with '/'".to_owned()));
    };
    if components.is_empty() {
        return Err(broken("must have at least one component".to_owned()));
    }
    for component in components.split('/') {
        if identifier::validate(component).is_err() {
            return Err(broken(format!("failed validation on component {component:?}")));
        }
    }
    Ok(())
}

/// Checks an envelope that somebody asks to forward.
///
/// # Errors
///
/// `InvalidArgument`: the namespace, the topic or the time.
pub fn envelope(envelope: &Envelope) -> Result<()> {
    identifier::validate(&envelope.namespace)
        .map_err(|error| error.context("event envelope has invalid namespace"))?;
    topic(&envelope.topic)?;
    let unset = |time: &Timestamp| time.nanos == 0 && (time.seconds == 0 || time.seconds == GO_ZERO_TIME);
    if envelope.timestamp.as_ref().is_none_or(unset) {
        return Err(Error::invalid("timestamp must be set on forwarded event"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_paths_of_identifiers() {
        for good in ["/a", "/tasks/exec-started", "/images/a.b_c"] {
            topic(good).unwrap();
        }
        for bad in ["", "/", "tasks", "/tasks/", "//a", "/a b", "/../a"] {
            assert!(topic(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_forwarded_event_needs_a_namespace_and_a_time() {
        let fine = Envelope {
            timestamp: Some(crate::time::now()),
            namespace: "default".to_owned(),
            topic: "/tasks/exit".to_owned(),
            event: None,
        };
        envelope(&fine).unwrap();
        let nowhere = Envelope {
            namespace: String::new(),
            ..fine.clone()
        };
        assert!(envelope(&nowhere).is_err());
        for seconds in [0, GO_ZERO_TIME] {
            let never = Envelope {
                timestamp: Some(Timestamp { seconds, nanos: 0 }),
                ..fine.clone()
            };
            assert!(envelope(&never).is_err());
        }
    }
}
