//! Reading a document the way the readers do that configurations are written for.
//!
//! The types' own parsers are derived, and those take more than Go's `encoding/json`, and less: a list where an object belongs,
//! for the members in the order in which the type happens to declare them; a member only in the very letters of its
//! name. What is here stands between the parser of the text and those of the types, and mends both for every type that there
//! is or will be.
//!
//! Refused here: a list for an object, and a zero byte in a text. The kernel's strings end at the first one, and what is
//! behind it would be lost.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

/// Reads a value from `text`, which holds it and nothing else.
pub(super) fn read<'de, T: Deserialize<'de>>(text: &'de [u8]) -> serde_json::Result<T> {
    let mut parser = serde_json::Deserializer::from_slice(text);
    let value = T::deserialize(Plain(&mut parser))?;
    parser.end()?;
    Ok(value)
}

/// Around every part of the two parsers that hands on values of any type.
struct Plain<T>(T);

/// Questions whose answer is one number or word need no look at it.
macro_rules! as_it_is {
    ($($ask:ident)*) => {
        $(fn $ask<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.0.$ask(visitor)
        })*
    };
}

macro_rules! looked_at {
    ($($ask:ident)*) => {
        $(fn $ask<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.0.$ask(Plain(visitor))
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Plain<D> {
    type Error = D::Error;

    as_it_is! {
        deserialize_bool deserialize_u16 deserialize_u32 deserialize_u64 deserialize_i32 deserialize_i64
        deserialize_identifier deserialize_ignored_any
    }
    looked_at! {
        deserialize_any deserialize_str deserialize_string deserialize_option deserialize_seq deserialize_map
    }
    forward_to_deserialize_any! {
        i8 i16 i128 u8 u128 f32 f64 char bytes byte_buf unit unit_struct newtype_struct tuple tuple_struct enum
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(Object { names, visitor })
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Plain<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(Plain(deserializer))
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Plain<V> {
    type Value = V::Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(formatter)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<V::Value, E> {
        self.0.visit_bool(value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<V::Value, E> {
        self.0.visit_i64(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<V::Value, E> {
        self.0.visit_u64(value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<V::Value, E> {
        self.0.visit_f64(value)
    }

    /// In JSON a zero byte has to be written as an escape, and a text with escapes is a copy.
    fn visit_str<E: Error>(self, text: &str) -> Result<V::Value, E> {
        if text.contains('\0') {
            return Err(E::custom("contains a zero byte"));
        }
        self.0.visit_str(text)
    }

    /// And a text without escapes is the document's own.
    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<V::Value, E> {
        self.0.visit_borrowed_str(text)
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.0.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.0.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.0.visit_some(Plain(deserializer))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<V::Value, A::Error> {
        self.0.visit_seq(Plain(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(Plain(members))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Plain<A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.0.next_element_seed(Plain(seed))
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Plain<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.0.next_key_seed(Plain(seed))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.0.next_value_seed(Plain(seed))
    }
}

/// A type with members of these names.
struct Object<T> {
    names: &'static [&'static str],
    visitor: T,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Object<V> {
    type Value = V::Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_map(Members {
            names: self.names,
            members,
        })
    }
}

struct Members<A> {
    names: &'static [&'static str],
    members: A,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Members<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.members.next_key_seed(Name {
            names: self.names,
            inner: seed,
        })
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.members.next_value_seed(Plain(seed))
    }
}

/// The name of a member: in the letters of the one among `names` that differs in their case only.
struct Name<T> {
    names: &'static [&'static str],
    inner: T,
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Name<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.inner.deserialize(Name {
            names: self.names,
            inner: deserializer,
        })
    }
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Name<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_identifier(Name {
            names: self.names,
            inner: visitor,
        })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Name<V> {
    type Value = V::Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(formatter)
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<V::Value, E> {
        let known = self.names.iter().find(|known| known.eq_ignore_ascii_case(name));
        self.inner.visit_str(known.copied().unwrap_or(name))
    }
}

#[cfg(test)]
mod tests {
    use super::super::oci::{LinuxCpu, LinuxResources};
    use super::*;

    fn cpu(text: &str) -> Result<LinuxCpu, String> {
        let read = read::<LinuxResources>(text.as_bytes());
        read.map(|resources| resources.cpu.unwrap_or_default())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_member_is_known_in_any_letters() {
        for text in [
            r#"{"cpu": {"shares": 5, "cpus": "0"}}"#,
            r#"{"CPU": {"Shares": 5, "Cpus": "0"}}"#,
            r#"{"Cpu": {"SHARES": 5, "c\u0070us": "0"}}"#,
        ] {
            let cpu = cpu(text).unwrap();
            assert_eq!((cpu.shares, cpu.cpus.as_str()), (Some(5), "0"), "{text}");
        }
        assert_eq!(cpu(r#"{"cpux": {"shares": 5}}"#).unwrap(), LinuxCpu::default());
    }

    #[test]
    fn keys_that_are_data_keep_their_letters() {
        let read: LinuxResources = read(br#"{"unified": {"CPU.max": "1", "cpu.max": "2"}}"#).unwrap();
        assert_eq!(read.unified.len(), 2);
    }

    #[test]
    fn a_list_is_no_object() {
        let error = cpu(r#"{"cpu": [5]}"#).unwrap_err();
        assert!(
            error.starts_with("invalid type: sequence, expected an object"),
            "{error}"
        );
    }

    #[test]
    fn a_text_with_a_zero_byte_is_refused_wherever_it_is() {
        for text in [
            r#"{"cpu": {"cpus": "0\u00001"}}"#,
            r#"{"devices": [{"allow": true, "access": "\u0000"}]}"#,
            r#"{"unified": {"a\u0000": ""}}"#,
            r#"{"unified": {"a": "\u0000"}}"#,
        ] {
            let error = cpu(text).unwrap_err();
            assert!(error.starts_with("contains a zero byte"), "{error}");
        }
        cpu(r#"{"unknown": "\u0000"}"#).unwrap();
    }
}
