//! D-Bus messages: calls that are sent, and the replies and signals that come ([D-Bus, message protocol]).
//!
//! [D-Bus, message protocol]: https://dbus.freedesktop.org/doc/dbus-specification.html#message-protocol

use super::value::{Reader, Value, align};

/// The most that is accepted; the specification allows eight times as much.
pub(super) const MAX_BYTES: usize = 16 << 20;

const LITTLE_ENDIAN: u8 = b'l';
const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;
const PROTOCOL: u8 = 1;

const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// A method of an object of a peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Method<'a> {
    pub destination: &'a str,
    pub path: &'a str,
    pub interface: &'a str,
    pub member: &'a str,
}

/// A call as bytes.
pub(super) fn call(serial: u32, method: &Method<'_>, arguments: &[Value]) -> Vec<u8> {
    let mut body = Vec::new();
    arguments.iter().for_each(|argument| argument.write(&mut body));
    let signature: String = arguments.iter().map(Value::signature).collect();
    let field = |code: u8, value: Value| Value::Struct(vec![Value::Byte(code), value.variant()]);
    let mut fields = vec![
        field(PATH, Value::ObjectPath(method.path.to_owned())),
        field(INTERFACE, Value::text(method.interface)),
        field(MEMBER, Value::text(method.member)),
        field(DESTINATION, Value::text(method.destination)),
    ];
    if !signature.is_empty() {
        fields.push(field(SIGNATURE, Value::Signature(signature)));
    }
    let mut out = vec![LITTLE_ENDIAN, METHOD_CALL, 0, PROTOCOL];
    Value::Uint32(u32::try_from(body.len()).unwrap_or(u32::MAX)).write(&mut out);
    Value::Uint32(serial).write(&mut out);
    Value::Array("(yv)".to_owned(), fields).write(&mut out);
    align(&mut out, 8);
    out.extend(body);
    out
}

/// What came in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Incoming {
    /// The answer to the call of that serial.
    Return {
        serial: u32,
        body: Vec<u8>,
    },
    /// The refusal of the call of that serial.
    Error {
        serial: u32,
        name: String,
        text: String,
    },
    Signal {
        member: String,
        body: Vec<u8>,
    },
    /// A call of a peer: nothing here serves any.
    Other,
}

/// The fixed part of every message.
pub(super) const HEAD_BYTES: usize = 16;

/// How long a message is whose first [`HEAD_BYTES`] these are; nothing for what is no message, or too long a one.
pub(super) fn total_bytes(head: &[u8; HEAD_BYTES]) -> Option<usize> {
    if head[0] != LITTLE_ENDIAN || head[3] != PROTOCOL {
        return None;
    }
    let number = |at: usize| Some(u32::from_le_bytes(head.get(at..at + 4)?.try_into().ok()?) as usize);
    let (body, fields) = (number(4)?, number(12)?);
    let total = (HEAD_BYTES + fields).next_multiple_of(8) + body;
    (body <= MAX_BYTES && fields <= MAX_BYTES && total <= MAX_BYTES).then_some(total)
}

/// Takes a whole message apart; nothing when it breaks the rules.
pub(super) fn parse(bytes: &[u8]) -> Option<Incoming> {
    let mut reader = Reader::new(bytes);
    reader.byte()?;
    let kind = reader.byte()?;
    reader.byte()?;
    reader.byte()?;
    let body_bytes = reader.uint32()? as usize;
    reader.uint32()?;
    let field_bytes = reader.uint32()? as usize;
    let end = HEAD_BYTES.checked_add(field_bytes)?;
    let mut fields = Reader::new(bytes.get(..end)?);
    // The array's length was the last of the fixed part.
    for _ in 0..HEAD_BYTES {
        fields.byte()?;
    }
    let (mut member, mut error, mut serial, mut signature) = ("", "", 0, "");
    while !fields.is_at_end() {
        fields.align(8);
        if fields.is_at_end() {
            break;
        }
        let code = fields.byte()?;
        match (code, fields.signature()?) {
            (MEMBER, "s") => member = fields.text()?,
            (ERROR_NAME, "s") => error = fields.text()?,
            (REPLY_SERIAL, "u") => serial = fields.uint32()?,
            (SIGNATURE, "g") => signature = fields.signature()?,
            (_, "s" | "o") => drop(fields.text()?),
            (_, "u") => drop(fields.uint32()?),
            (_, "g") => drop(fields.signature()?),
            _ => return None,
        }
    }
    let start = end.next_multiple_of(8);
    let body = bytes.get(start..start.checked_add(body_bytes)?)?.to_vec();
    Some(match kind {
        METHOD_RETURN => Incoming::Return { serial, body },
        ERROR => {
            let text = signature
                .starts_with('s')
                .then(|| Reader::new(&body).text().map(str::to_owned))
                .flatten();
            Incoming::Error {
                serial,
                name: error.to_owned(),
                text: text.unwrap_or_default(),
            }
        }
        SIGNAL => Incoming::Signal {
            member: member.to_owned(),
            body,
        },
        _ => Incoming::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const METHOD: Method<'static> = Method {
        destination: "org.example",
        path: "/org/example",
        interface: "org.example.It",
        member: "Do",
    };

    fn head(bytes: &[u8]) -> [u8; HEAD_BYTES] {
        bytes[..HEAD_BYTES].try_into().unwrap()
    }

    #[test]
    fn a_call_tells_its_own_length() {
        for arguments in [
            vec![],
            vec![Value::text("x")],
            vec![Value::Bool(true), Value::text("long enough")],
        ] {
            let bytes = call(9, &METHOD, &arguments);
            assert_eq!(total_bytes(&head(&bytes)), Some(bytes.len()));
            assert_eq!(parse(&bytes), Some(Incoming::Other));
        }
    }

    /// As a peer would send it.
    fn message(kind: u8, fields: Vec<(u8, Value)>, body: &[Value]) -> Vec<u8> {
        let mut content = Vec::new();
        body.iter().for_each(|value| value.write(&mut content));
        let fields = fields
            .into_iter()
            .map(|(code, value)| Value::Struct(vec![Value::Byte(code), value.variant()]));
        let mut out = vec![LITTLE_ENDIAN, kind, 0, PROTOCOL];
        Value::Uint32(content.len() as u32).write(&mut out);
        Value::Uint32(1).write(&mut out);
        Value::Array("(yv)".to_owned(), fields.collect()).write(&mut out);
        align(&mut out, 8);
        out.extend(content);
        out
    }

    #[test]
    fn returns_errors_and_signals_are_told_apart() {
        let body = [Value::ObjectPath("/job/1".to_owned())];
        let bytes = message(METHOD_RETURN, vec![(REPLY_SERIAL, Value::Uint32(4))], &body);
        let Some(Incoming::Return { serial: 4, body }) = parse(&bytes) else {
            panic!("{bytes:?}");
        };
        assert_eq!(Reader::new(&body).text(), Some("/job/1"));
        let fields = vec![
            (ERROR_NAME, Value::text("a.b.C")),
            (REPLY_SERIAL, Value::Uint32(5)),
            (SIGNATURE, Value::Signature("s".to_owned())),
        ];
        let bytes = message(ERROR, fields, &[Value::text("why")]);
        let expected = Incoming::Error {
            serial: 5,
            name: "a.b.C".to_owned(),
            text: "why".to_owned(),
        };
        assert_eq!(parse(&bytes), Some(expected));
        let bytes = message(
            SIGNAL,
            vec![(MEMBER, Value::text("JobRemoved"))],
            &[Value::Uint32(1)],
        );
        assert!(matches!(parse(&bytes), Some(Incoming::Signal { member, .. }) if member == "JobRemoved"));
    }

    #[test]
    fn no_bytes_of_a_peer_are_trusted() {
        let fields = vec![
            (ERROR_NAME, Value::text("a.b.C")),
            (REPLY_SERIAL, Value::Uint32(5)),
        ];
        let good = message(ERROR, fields, &[Value::text("why")]);
        for length in 0..good.len() {
            // Whatever is missing: an answer, never a panic.
            drop(parse(&good[..length]));
        }
        let mut huge = head(&good);
        huge[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(total_bytes(&huge), None);
        let mut foreign = head(&good);
        foreign[0] = b'B';
        assert_eq!(total_bytes(&foreign), None);
        proptest::proptest!(|(at in 0..good.len(), byte: u8)| {
            let mut bad = good.clone();
            bad[at] = byte;
            drop(parse(&bad));
        });
    }
}
