//! What is sent to a method: the bad inputs that its request can hold.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use prost_types::{Any, FieldMask};

/// The header that names the namespace.
pub(crate) const NAMESPACE: &str = "containerd-namespace";

/// A digest that nobody has.
pub(crate) const NOWHERE: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// Which namespace a call is made in.
#[derive(Clone, Debug)]
pub(crate) enum Within {
    /// The side's own.
    Own,
    /// No header.
    None,
    /// This one.
    Named(String),
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) within: Within,
    pub(crate) messages: Vec<Bytes>,
}

/// A method, `package.Service/Method`, and the requests for it.
#[derive(Debug)]
pub(crate) struct Method {
    pub(crate) path: String,
    pub(crate) cases: Vec<Case>,
}

/// A label's map.
pub(crate) type Labels = BTreeMap<String, String>;

impl Method {
    /// A method with what every one of them can be sent: bytes that are no message, and no message at all.
    pub(crate) fn new(path: &str) -> Method {
        let method = Method {
            path: path.to_owned(),
            cases: Vec::new(),
        };
        method
            .raw(
                "bytes that are no message",
                vec![Bytes::from_static(b"\xff\xff\xff\xff")],
            )
            .raw("no message", Vec::new())
    }

    fn raw(mut self, name: &str, messages: Vec<Bytes>) -> Method {
        self.cases.push(Case {
            name: name.to_owned(),
            within: Within::Own,
            messages,
        });
        self
    }

    /// One message.
    pub(crate) fn send(self, name: &str, message: impl Message) -> Method {
        self.raw(name, vec![message.encode_to_vec().into()])
    }

    /// Several messages of one stream.
    pub(crate) fn stream<M: Message>(self, name: &str, messages: &[M]) -> Method {
        let messages = messages.iter().map(|message| message.encode_to_vec().into());
        self.raw(name, messages.collect())
    }

    /// `message` where the namespace is bad, or nothing is in it.
    pub(crate) fn namespaces(mut self, message: impl Message) -> Method {
        let messages = vec![Bytes::from(message.encode_to_vec())];
        for (name, within) in [
            ("no namespace", Within::None),
            ("an empty namespace", Within::Named(String::new())),
            ("a malformed namespace", Within::Named("a/b".into())),
            ("a long namespace", Within::Named("n".repeat(200))),
            ("an unknown namespace", Within::Named("unheard-of".into())),
        ] {
            self.cases.push(Case {
                name: name.to_owned(),
                within,
                messages: messages.clone(),
            });
        }
        self
    }

    /// A message for each of the bad ids in the place that `field` names.
    pub(crate) fn ids<M: Message>(mut self, field: &str, make: impl Fn(String) -> M) -> Method {
        for (name, id) in [
            ("empty", String::new()),
            ("malformed", "a/../b".into()),
            ("a space", "a b".into()),
            ("of 10,000 characters", "i".repeat(10_000)),
            ("unknown", "unheard-of".into()),
        ] {
            self = self.send(&format!("{field}: {name}"), make(id));
        }
        self
    }

    /// A message for each of the bad digests.
    pub(crate) fn digests<M: Message>(mut self, field: &str, make: impl Fn(String) -> M) -> Method {
        for (name, digest) in [
            ("empty", String::new()),
            ("no digest", "x".into()),
            ("a short one", "sha256:00".into()),
            (
                "of an unknown algorithm",
                "md5:00112233445566778899aabbccddeeff".into(),
            ),
            ("in capitals", NOWHERE.replace('0', "A")),
            ("a path", "sha256:../../../../etc/passwd".into()),
            ("of 10,000 characters", format!("sha256:{}", "0".repeat(10_000))),
            ("unknown", NOWHERE.into()),
        ] {
            self = self.send(&format!("{field}: {name}"), make(digest));
        }
        self
    }

    /// A message for each kind of labels that are too large, or not well formed.
    pub(crate) fn labels<M: Message>(mut self, make: impl Fn(Labels) -> M) -> Method {
        for (name, labels) in [
            (
                "a value of 1 MB",
                Labels::from([("a".into(), "v".repeat(1 << 20))]),
            ),
            ("a key of 1 MB", Labels::from([("k".repeat(1 << 20), "v".into())])),
            (
                "a value that is one too long",
                Labels::from([("a".into(), "v".repeat(4096))]),
            ),
        ] {
            self = self.send(&format!("labels: {name}"), make(labels));
        }
        self
    }

    /// A message for each bad filter.
    pub(crate) fn filters<M: Message>(mut self, make: impl Fn(String) -> M) -> Method {
        for filter in [
            "=", "name==", "name==\"", "name~=(", "a b", "name,,x", "!", "foo.bar",
        ] {
            self = self.send(&format!("filter: {filter}"), make(filter.into()));
        }
        self
    }

    /// A message for each bad field mask.
    pub(crate) fn masks<M: Message>(mut self, make: impl Fn(Option<FieldMask>) -> M) -> Method {
        for path in ["", "unheard.of", "labels.", "id", "size", "digest", "created_at"] {
            let mask = FieldMask {
                paths: vec![path.into()],
            };
            self = self.send(&format!("mask: {path:?}"), make(Some(mask)));
        }
        self
    }
}

/// A message of a type that nobody knows.
pub(crate) fn stranger() -> Any {
    Any {
        type_url: "type.example/unheard.of.Type".into(),
        value: b"\x0a\x01x".to_vec(),
    }
}
