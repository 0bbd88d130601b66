//! Query parameters and filters.

use crate::error::{Error, Result};
use axum::http::Uri;
use serde_json::Value;
use std::collections::BTreeMap;

/// The parameters of a request.
#[derive(Debug, Default)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Reads the parameters of a URI.
    pub fn of(uri: &Uri) -> Self {
        let pairs = uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty());
        let split = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        };
        Self {
            pairs: pairs.map(split).collect(),
        }
    }

    /// A parameter; empty when it is not given.
    pub fn get(&self, name: &str) -> &str {
        self.pairs
            .iter()
            .find(|(other, _)| other == name)
            .map_or("", |(_, value)| value)
    }

    /// A parameter that means yes or no, as Docker reads it: everything but nothing, 0, no, false and none is yes.
    pub fn flag(&self, name: &str) -> bool {
        let value = self.get(name).to_ascii_lowercase();
        !matches!(value.as_str(), "" | "0" | "no" | "false" | "none")
    }

    /// A number; `None` when it is not given.
    ///
    /// # Errors
    ///
    /// It is none.
    pub fn number(&self, name: &str) -> Result<Option<i64>> {
        match self.get(name) {
            "" => Ok(None),
            text => text
                .parse()
                .map(Some)
                .map_err(|_| Error::invalid(format!("invalid {name}: {text:?} is not a number"))),
        }
    }

    /// All parameters.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The `filters` parameter.
    ///
    /// # Errors
    ///
    /// It is not JSON of Docker's shape, or names a filter that is not in `known`.
    pub fn filters(&self, known: &[&str]) -> Result<Filters> {
        Filters::parse(self.get("filters"), known)
    }
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        let escaped = bytes.get(index + 1..index + 3).filter(|_| bytes[index] == b'%');
        let byte = escaped.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match (byte, bytes[index]) {
            (Some(byte), _) => {
                out.push(byte);
                index += 3;
                continue;
            }
            (None, b'+') => out.push(b' '),
            (None, byte) => out.push(byte),
        }
        index += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The `filters` of a list: a container passes when for each name one of the values fits.
#[derive(Debug, Default)]
pub struct Filters {
    values: BTreeMap<String, Vec<String>>,
}

impl Filters {
    fn parse(text: &str, known: &[&str]) -> Result<Self> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let invalid = || Error::invalid(format!("invalid filter: {text}"));
        let document: BTreeMap<String, Value> = serde_json::from_str(text).map_err(|_| invalid())?;
        let mut values = BTreeMap::new();
        for (name, value) in document {
            if !known.contains(&name.as_str()) {
                return Err(Error::invalid(format!("invalid filter '{name}'")));
            }
            // {"name": ["a"]} of old clients, {"name": {"a": true}} of the others.
            let list = match value {
                Value::Array(items) => items
                    .iter()
                    .map(|item| item.as_str().map(str::to_owned))
                    .collect::<Option<_>>(),
                Value::Object(members) => Some(
                    members
                        .into_iter()
                        .filter(|(_, on)| on != &Value::Bool(false))
                        .map(|(value, _)| value)
                        .collect(),
                ),
                _ => None,
            };
            values.insert(name, list.ok_or_else(invalid)?);
        }
        Ok(Self { values })
    }

    /// Whether one of the values given for `name` fits; also when none is given.
    pub fn pass(&self, name: &str, fits: impl Fn(&str) -> bool) -> bool {
        self.values
            .get(name)
            .is_none_or(|values| values.is_empty() || values.iter().any(|value| fits(value)))
    }

    /// Whether all labels given fit: `name` or `name=value`.
    pub fn pass_labels(&self, labels: &BTreeMap<String, String>) -> bool {
        let fits = |wanted: &String| match wanted.split_once('=') {
            Some((name, value)) => labels.get(name).is_some_and(|have| have == value),
            None => labels.contains_key(wanted),
        };
        self.values
            .get("label")
            .is_none_or(|wanted| wanted.iter().all(fits))
    }

    /// Whether a filter is given.
    pub fn has(&self, name: &str) -> bool {
        self.values.get(name).is_some_and(|values| !values.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let query = Query::of(&Uri::from_static("/x?a=1&b=%7B%22c%22%3A+1%7D&d&e=False&f=%zz"));
        assert_eq!(query.get("b"), "{\"c\": 1}");
        assert!(query.flag("a") && !query.flag("d") && !query.flag("e") && !query.flag("none"));
        assert_eq!(query.get("f"), "%zz");
        assert_eq!(query.number("a").unwrap(), Some(1));
        assert!(query.number("f").is_err());
    }

    #[test]
    fn filters_of_both_shapes_are_read() {
        for text in [
            r#"{"name":["a","b"]}"#,
            r#"{"name":{"a":true,"b":true,"c":false}}"#,
        ] {
            let filters = Filters::parse(text, &["name"]).unwrap();
            assert!(filters.pass("name", |value| value == "b"));
            assert!(!filters.pass("name", |value| value == "c"));
            assert!(filters.pass("status", |_| false));
        }
        for text in [
            "x",
            "[]",
            r#"{"other":["a"]}"#,
            r#"{"name":1}"#,
            r#"{"name":[1]}"#,
        ] {
            assert!(Filters::parse(text, &["name"]).is_err(), "{text}");
        }
    }

    #[test]
    fn every_label_must_fit() {
        let labels: BTreeMap<String, String> =
            [("a".to_owned(), "1".to_owned()), ("b".to_owned(), String::new())].into();
        let pass = |text: &str| Filters::parse(text, &["label"]).unwrap().pass_labels(&labels);
        assert!(pass(r#"{"label":["a=1","b"]}"#));
        assert!(!pass(r#"{"label":["a=1","c"]}"#));
        assert!(!pass(r#"{"label":["a=2"]}"#));
    }
}
