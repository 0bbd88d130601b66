//! Which field a typed parser's complaint is about.
//!
//! The parser tells what is wrong but not where. On an error, members are left out one at a time: the one without
//! which the complaint changes is the one it is about.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Error;

/// Documents with more values are not searched: the search tries every value on the way to the field.
const MAX_VALUES: usize = 20_000;

/// Types `document`, which stands at `path` in the configuration.
pub(super) fn typed<T: DeserializeOwned>(document: &Value, path: &str) -> Result<T, Error> {
    T::deserialize(document).map_err(|error| {
        let complaint = error.to_string();
        let field = if count(document) > MAX_VALUES {
            path.to_owned()
        } else {
            locate::<T>(document, path, &complaint)
        };
        Error::field(field, complaint)
    })
}

fn locate<T: DeserializeOwned>(document: &Value, path: &str, complaint: &str) -> String {
    let still = |candidate: &Value| {
        T::deserialize(candidate)
            .err()
            .is_some_and(|it| it.to_string() == complaint)
    };
    let mut pointer = String::new();
    let mut field = path.to_owned();
    'deeper: loop {
        let members: Vec<(String, String)> = match document.pointer(&pointer) {
            Some(Value::Object(members)) => members
                .keys()
                .map(|name| {
                    let escaped = name.replace('~', "~0").replace('/', "~1");
                    let dot = if field.is_empty() { "" } else { "." };
                    (format!("{pointer}/{escaped}"), format!("{field}{dot}{name}"))
                })
                .collect(),
            Some(Value::Array(items)) => (0..items.len())
                .map(|index| (format!("{pointer}/{index}"), format!("{field}[{index}]")))
                .collect(),
            _ => return field,
        };
        for (member, name) in members {
            let mut without = document.clone();
            remove(&mut without, &pointer, &member);
            if !still(&without) {
                (pointer, field) = (member, name);
                continue 'deeper;
            }
        }
        return field;
    }
}

/// Removes the member at the JSON pointer `member` from its parent.
fn remove(document: &mut Value, parent: &str, member: &str) {
    let key = member[parent.len() + 1..].replace("~1", "/").replace("~0", "~");
    match document.pointer_mut(parent) {
        Some(Value::Object(members)) => {
            members.remove(&key);
        }
        Some(Value::Array(items)) => {
            if let Some(index) = key.parse().ok().filter(|index| *index < items.len()) {
                items.remove(index);
            }
        }
        _ => {}
    }
}

fn count(value: &Value) -> usize {
    match value {
        Value::Object(members) => 1 + members.values().map(count).sum::<usize>(),
        Value::Array(items) => 1 + items.iter().map(count).sum::<usize>(),
        _ => 1,
    }
}
