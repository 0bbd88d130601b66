//! `org.systemd.property.NAME` annotations: properties of the unit that the configuration asks for itself.

use std::collections::BTreeMap;

use super::properties::Property;
use super::text;
use super::value::Value;
use crate::cgroup::Error;

const PREFIX: &str = "org.systemd.property.";

/// The properties, by name.
pub(super) fn properties(annotations: &BTreeMap<String, String>) -> Result<Vec<Property>, Error> {
    annotations
        .iter()
        .filter_map(|(key, value)| Some((key.strip_prefix(PREFIX)?, value)))
        .map(|(name, value)| {
            property(name, value)
                .map_err(|problem| Error::field(format!("annotations.{PREFIX}{name}"), problem))
        })
        .collect()
}

fn property(name: &str, value: &str) -> Result<Property, String> {
    if name.len() < 3 {
        return Err("name incorrect: too short".to_owned());
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return Err("name incorrect: contains non-alphabetic character".to_owned());
    }
    let parse_error = |problem| format!("{value:?} value parse error: {problem}");
    let value = text::parse(value).map_err(parse_error)?;
    // The manual's names of times end with Sec, those of the bus with USec.
    let seconds = name
        .strip_suffix("Sec")
        .filter(|stem| stem.ends_with(|c: char| c.is_ascii_lowercase()));
    match seconds {
        Some(stem) => {
            let microseconds = microseconds(&value).ok_or_else(|| parse_error("not a number".to_owned()))?;
            Ok((format!("{stem}USec"), Value::Uint64(microseconds)))
        }
        None => Ok((name.to_owned(), value)),
    }
}

fn microseconds(seconds: &Value) -> Option<u64> {
    const MILLION: u64 = 1_000_000;
    let whole = match seconds {
        Value::Byte(value) => Some(u64::from(*value)),
        Value::Uint16(value) => Some((*value).into()),
        Value::Uint32(value) => Some((*value).into()),
        Value::Uint64(value) => Some(*value),
        Value::Int16(value) => u64::try_from(*value).ok(),
        Value::Int32(value) => u64::try_from(*value).ok(),
        Value::Int64(value) => u64::try_from(*value).ok(),
        Value::Double(value) if *value >= 0.0 => return Some((value * MILLION as f64) as u64),
        _ => None,
    };
    // The largest number means for ever.
    whole.map(|seconds| seconds.saturating_mul(MILLION))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, value: &str) -> Result<Property, String> {
        let annotations = [
            (format!("{PREFIX}{name}"), value.to_owned()),
            ("other".to_owned(), "x".to_owned()),
        ];
        let mut found = properties(&annotations.into()).map_err(|error| error.to_string())?;
        assert_eq!(found.len(), 1);
        Ok(found.remove(0))
    }

    #[test]
    fn annotations_become_properties() {
        let has = |name: &str, value: Value| Ok((name.to_owned(), value));
        assert_eq!(
            one("CollectMode", "'inactive-or-failed'"),
            has("CollectMode", Value::text("inactive-or-failed"))
        );
        assert_eq!(one("SendSIGHUP", "true"), has("SendSIGHUP", Value::Bool(true)));
        assert_eq!(
            one("TimeoutStopSec", "uint64 5"),
            has("TimeoutStopUSec", Value::Uint64(5_000_000))
        );
        assert_eq!(
            one("TimeoutStopSec", "1.5"),
            has("TimeoutStopUSec", Value::Uint64(1_500_000))
        );
        assert_eq!(
            one("TimeoutStopUSec", "uint64 5"),
            has("TimeoutStopUSec", Value::Uint64(5))
        );
    }

    #[test]
    fn bad_names_and_values_are_refused_by_name() {
        for (name, value) in [
            ("X", "1"),
            ("Collect-Mode", "1"),
            ("CollectMode", "inactive"),
            ("TimeoutStopSec", "'5'"),
            ("TimeoutStopSec", "-5"),
        ] {
            let error = one(name, value).unwrap_err();
            assert!(
                error.starts_with(&format!("annotations.{PREFIX}{name}: ")),
                "{error}"
            );
        }
    }
}
