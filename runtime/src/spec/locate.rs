//! Typing a document, and saying which field a complaint is about.
//!
//! The parser tells at which byte it stopped. A walk over the same text tells whose value ends, or begins, there.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::Error;
use super::read::{self, read};

/// Types the document `text`, which stands at `path` in the configuration.
///
/// Go's parser, which configurations are written for, takes `null` for "not there" wherever it is, and a member that is there
/// twice, perhaps in other letters, for more of the same: the last value, the objects joined. (Here the last of those in the
/// same letters, whole.) Few documents have either, so they are looked for only in what cannot be typed as it is.
pub(super) fn typed<T: DeserializeOwned>(text: &[u8], path: &str) -> Result<T, Error> {
    read(text, None).or_else(|_| typed_settled(text, path))
}

/// As [`typed`], of what cannot be typed as it is.
pub(super) fn typed_settled<T: DeserializeOwned>(text: &[u8], path: &str) -> Result<T, Error> {
    let plain = settled(text, path)?;
    // From bytes once more: a parser of another kind would be all of its code once more.
    read(plain.as_bytes(), None).map_err(|error| complaint(&plain, path, &error))
}

/// Objects whose names are data: there, names in other letters are other names.
const MAPS: [&str; 5] = ["annotations", "netDevices", "rdma", "sysctl", "unified"];

/// The document without the members that are `null`, with one member for each name, on one line and without spaces. That
/// it is no JSON comes before everything else: behind such an error nothing means anything.
fn settled(text: &[u8], path: &str) -> Result<String, Error> {
    let mut document: Value = serde_json::from_slice(text).map_err(Error::Syntax)?;
    if !document.is_object() {
        return Err(Error::field(path, "must be an object"));
    }
    settle(&mut document, false);
    Ok(document.to_string())
}

fn settle(value: &mut Value, is_map: bool) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            if !is_map {
                join_names(members);
            }
            for (name, member) in members {
                settle(member, MAPS.iter().any(|map| map.eq_ignore_ascii_case(name)));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| settle(item, false)),
        _ => {}
    }
}

/// Makes one member of those whose names differ in the case of letters only: objects are joined, of others the one in
/// capitals stays.
fn join_names(members: &mut Map<String, Value>) {
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    for (name, member) in std::mem::take(members) {
        match known.entry(name.to_ascii_lowercase()) {
            Entry::Vacant(entry) => {
                entry.insert(name.clone());
                members.insert(name, member);
            }
            Entry::Occupied(first) => {
                if let Some(first) = members.get_mut(first.get()) {
                    join(first, member);
                }
            }
        }
    }
}

fn join(first: &mut Value, second: Value) {
    if let (Value::Object(first), Value::Object(second)) = (first, second) {
        for (name, member) in second {
            match first.get_mut(&name) {
                None => drop(first.insert(name, member)),
                Some(first) => join(first, member),
            }
        }
    }
}

fn complaint(text: &str, path: &str, error: &read::Error) -> Error {
    Error::field(field_at(text.as_bytes(), error.offset(), path), error.to_string())
}

/// A level of the walk.
enum Level {
    /// In an object, with the member's name once it was read.
    Member(Option<String>),
    /// In a list, at this item.
    Item(usize),
}

/// The field of the first value that ends at `offset` or behind it, or is an object or a list that begins there: where the
/// parser stops at a value that it cannot take. `text` is JSON without spaces.
fn field_at(text: &[u8], offset: usize, path: &str) -> String {
    let mut levels: Vec<Level> = Vec::new();
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        let begins = at;
        at += 1;
        match byte {
            b'{' | b'[' if begins >= offset => break,
            b'{' => levels.push(Level::Member(None)),
            b'[' => levels.push(Level::Item(0)),
            b'}' | b']' => {
                levels.pop();
                if at >= offset {
                    break;
                }
            }
            b',' => match levels.last_mut() {
                Some(Level::Member(name)) => *name = None,
                Some(Level::Item(index)) => *index += 1,
                None => {}
            },
            b':' => {}
            _ => {
                at = begins + scalar_length(&text[begins..]);
                match levels.last_mut() {
                    Some(Level::Member(name @ None)) => {
                        *name = serde_json::from_slice(&text[begins..at]).ok();
                    }
                    _ if at >= offset => break,
                    _ => {}
                }
            }
        }
    }
    levels.iter().fold(path.to_owned(), |field, level| match level {
        Level::Member(Some(name)) if field.is_empty() => name.clone(),
        Level::Member(Some(name)) => format!("{field}.{name}"),
        Level::Member(None) => field,
        Level::Item(index) => format!("{field}[{index}]"),
    })
}

/// The length of the string, number or word at the beginning of `text`.
fn scalar_length(text: &[u8]) -> usize {
    if text.first() != Some(&b'"') {
        let end = text.iter().position(|byte| b",]}:".contains(byte));
        return end.unwrap_or(text.len());
    }
    let mut escaped = false;
    let end = text.iter().skip(1).position(|byte| {
        let closes = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        closes
    });
    end.map_or(text.len(), |end| end + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_by_its_end_and_a_nest_of_values_also_by_its_beginning() {
        let text = br#"{"a":1,"b\"]":{"c":[true,{"d":"x,}\\"},[]],"e":-2},"f":{}}"#;
        let ends = |of: &str| {
            let text = std::str::from_utf8(text).unwrap();
            text.find(of).unwrap() + of.len()
        };
        for (offset, field) in [
            (ends(r#""a":1"#), "a"),
            (ends("true"), "b\"].c[0]"),
            (ends(r#"\\""#), "b\"].c[1].d"),
            (ends(r#"\\"}"#), "b\"].c[1]"),
            (ends(r#"\\"},"#), "b\"].c[2]"),
            (ends("[]"), "b\"].c[2]"),
            (ends("-2"), "b\"].e"),
            (ends("-2}"), "b\"]"),
            (ends(r#""f":"#), "f"),
            (text.len(), ""),
        ] {
            assert_eq!(field_at(text, offset, ""), field, "byte {offset}");
            let below = field_at(text, offset, "process");
            assert!(below.starts_with("process") && below.ends_with(field));
        }
    }
}
