//! Typing a document, and saying which field a complaint is about.
//!
//! The parser tells at which byte it stopped. A walk over the same text tells whose value ends, or begins, there.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Error;

/// Types the document `text`, which stands at `path` in the configuration.
///
/// Go's parser, which configurations are written for, takes `null` for "not there" wherever it is. Few documents have one,
/// so they are looked for only in what cannot be typed as it is.
pub(super) fn typed<T: DeserializeOwned>(text: &[u8], path: &str) -> Result<T, Error> {
    // The parser would take a list for an object's members in their order.
    let object = text.trim_ascii_start().starts_with(b"{");
    match serde_json::from_slice(text) {
        Ok(typed) if object => Ok(typed),
        _ => {
            let plain = without_nulls(text, path)?;
            serde_json::from_str(&plain).map_err(|error| complaint(&plain, path, &error))
        }
    }
}

/// The document without the members that are `null`, on one line and without spaces. That it is no JSON comes before
/// everything else: behind such an error nothing means anything.
fn without_nulls(text: &[u8], path: &str) -> Result<String, Error> {
    let mut document: Value = serde_json::from_slice(text).map_err(Error::Syntax)?;
    if !document.is_object() {
        return Err(Error::field(path, "must be an object"));
    }
    drop_nulls(&mut document);
    Ok(document.to_string())
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn complaint(text: &str, path: &str, error: &serde_json::Error) -> Error {
    let problem = error.to_string();
    // The place is told by the field's name; line and column would be those of a text that nobody has seen.
    let problem = problem.rsplit_once(" at line ").map_or(&*problem, |it| it.0);
    Error::field(field_at(text.as_bytes(), error.column(), path), problem)
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
