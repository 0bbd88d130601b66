//! Enumerations of the specification: each value is a word.
//!
//! A table for each and one visitor for all, because a parser derived for each takes ten times the code.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserializer, Error, Visitor};

/// How much of an unknown word is told.
const MAX_QUOTED_BYTES: usize = 64;

/// An enumeration whose values are words.
pub(super) trait Word: Sized {
    /// The value that `word` stands for.
    fn of(word: &str) -> Option<Self>;

    /// What to say of a word that stands for none.
    fn unknown(word: &str) -> String;
}

/// Makes an enumeration: its name, what is said of an unknown word, and each value with its word.
macro_rules! words {
    (
        $(#[$meta:meta])*
        $name:ident, |$unknown:ident| $problem:expr, {
            $($(#[$of_variant:meta])* $variant:ident = $word:literal),+ $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
        pub enum $name {
            $(#[doc = concat!("`", $word, "`")] $(#[$of_variant])* $variant),+
        }

        impl $name {
            /// Every value, in the order of the specification.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word in the document.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),+
                }
            }
        }

        impl $crate::spec::oci::word::Word for $name {
            fn of(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.as_str() == word)
            }

            fn unknown($unknown: &str) -> String {
                $problem
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::spec::oci::word::required(deserializer)
            }
        }
    };
}

pub(super) use words;

/// A word that must be known.
pub(super) fn required<'de, T: Word, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_str(Required(PhantomData))
}

/// A word that must be known, or an empty one that stands for "not there".
pub(super) fn optional<'de, T: Word, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    deserializer.deserialize_str(Optional(PhantomData))
}

struct Required<T>(PhantomData<T>);

impl<T: Word> Visitor<'_> for Required<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a string")
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<T, E> {
        // A message is for a person, whatever the document says.
        T::of(word).ok_or_else(|| E::custom(T::unknown(&word[..word.floor_char_boundary(MAX_QUOTED_BYTES)])))
    }
}

struct Optional<T>(PhantomData<T>);

impl<T: Word> Visitor<'_> for Optional<T> {
    type Value = Option<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a string")
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<Option<T>, E> {
        match word {
            "" => Ok(None),
            word => Required(PhantomData).visit_str(word).map(Some),
        }
    }
}
