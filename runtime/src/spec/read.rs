//! Reading a document the way the readers do that configurations are written for.
//!
//! A parser of its own because those of the shelf, under types whose parsers are derived, take more than Go's `encoding/json`, and
//! less: a list where an object belongs, for the members in the order in which the type happens to declare them; a member only
//! in the very letters of its name. And because a container waits for it: what most documents hold (plain texts, whole
//! numbers) is read here and at once, the rest (escapes, fractions) by `serde_json`.
//!
//! Refused here: a list for an object, and a zero byte in a text. The kernel's strings end at the first one, and what is
//! behind it would be lost. What is no JSON is refused too, but why is for another reader to say (see `locate`).

use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::value::{BorrowedStrDeserializer, StrDeserializer};
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, Expected, IgnoredAny, MapAccess, SeqAccess, Unexpected,
    Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::{Number, Value};

use super::oci::seccomp::Glance;

/// How deep objects and lists may stand in each other, as with `serde_json`.
const MAX_DEPTH: u32 = 127;

/// Is told where in the text a profile stands that has a default action and is JSON; whether it is left for later.
pub(super) type Later<'a> = &'a mut dyn FnMut(Range<usize>) -> bool;

/// The type whose text [`Later`] is about: the largest part of a configuration, and the one that is needed last.
const PROFILE: &str = "LinuxSeccomp";

/// Reads a value from `text`, which holds it and nothing else. A profile that is left for `later` is read as an empty one.
pub(super) fn read<'de, T: Deserialize<'de>>(text: &'de [u8], later: Option<Later<'_>>) -> Result<T, Error> {
    let text = std::str::from_utf8(text).map_err(Error::custom)?;
    let mut parser = Parser {
        text,
        at: 0,
        depth: 0,
        later,
    };
    let value = T::deserialize(&mut parser)?;
    match parser.peek() {
        None => Ok(value),
        Some(_) => Err(parser.no_json()),
    }
}

/// What a document cannot be taken for.
#[derive(Debug)]
pub(super) struct Error {
    problem: String,
    /// How many bytes were read, if that is known yet.
    offset: Option<usize>,
}

impl Error {
    /// Where the parser stopped: behind what it could not take, or before it where that is an object or a list.
    pub(super) fn offset(&self) -> usize {
        self.offset.unwrap_or_default()
    }

    fn at(mut self, offset: usize) -> Self {
        self.offset.get_or_insert(offset);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.problem)
    }
}

impl std::error::Error for Error {}

impl serde::de::Error for Error {
    fn custom<T: fmt::Display>(problem: T) -> Self {
        Self {
            problem: problem.to_string(),
            offset: None,
        }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format_args!("invalid type: {}, expected {expected}", Told(found)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format_args!(
            "invalid value: {}, expected {expected}",
            Told(found)
        ))
    }
}

/// What was found, in JSON's words.
struct Told<'a>(Unexpected<'a>);

impl fmt::Display for Told<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Unexpected::Unit => formatter.write_str("null"),
            Unexpected::Bool(value) => write!(formatter, "boolean `{value}`"),
            Unexpected::Unsigned(number) => write!(formatter, "integer `{number}`"),
            Unexpected::Signed(number) => write!(formatter, "integer `{number}`"),
            Unexpected::Float(number) => match Number::from_f64(number) {
                Some(number) => write!(formatter, "floating point `{number}`"),
                None => formatter.write_str("floating point number"),
            },
            Unexpected::Str(text) => write!(formatter, "string {text:?}"),
            Unexpected::Seq => formatter.write_str("sequence"),
            Unexpected::Map => formatter.write_str("map"),
            _ => formatter.write_str("another value"),
        }
    }
}

struct Parser<'de, 'k> {
    text: &'de str,
    /// How much was read.
    at: usize,
    depth: u32,
    later: Option<Later<'k>>,
}

/// A text in the document.
enum Text<'de> {
    Plain(&'de str),
    Unescaped(String),
}

/// A value, or what kind of value begins here.
enum Found<'de> {
    Text(Text<'de>),
    Unsigned(u64),
    Signed(i64),
    Fraction(f64),
    Bool(bool),
    Null,
    Object,
    List,
}

impl<'de> Parser<'de, '_> {
    fn bytes(&self) -> &'de [u8] {
        self.text.as_bytes()
    }

    /// The byte that the next value or mark begins with.
    fn peek(&mut self) -> Option<u8> {
        let mut rest = &self.bytes()[self.at..];
        loop {
            match rest {
                [b'\n', further @ ..] if further.starts_with(INDENTATION) => {
                    rest = &further[INDENTATION.len()..];
                }
                [b' ' | b'\n' | b'\t' | b'\r', further @ ..] => rest = further,
                _ => break,
            }
        }
        self.at = self.text.len() - rest.len();
        rest.first().copied()
    }

    fn no_json(&self) -> Error {
        Error::custom("no JSON").at(self.at)
    }

    /// Reads `mark`.
    fn expect(&mut self, mark: u8) -> Result<(), Error> {
        match self.peek() {
            Some(byte) if byte == mark => {
                self.at += 1;
                Ok(())
            }
            _ => Err(self.no_json()),
        }
    }

    fn word(&mut self, word: &str) -> Result<(), Error> {
        match self.bytes()[self.at..].starts_with(word.as_bytes()) {
            true => {
                self.at += word.len();
                Ok(())
            }
            false => Err(self.no_json()),
        }
    }

    /// Reads a text that begins here; answers it with its quotation marks, and whether there are escapes in it.
    fn quoted(&mut self) -> Result<(&'de str, bool), Error> {
        let rest = &self.text[self.at..];
        let bytes = rest.as_bytes();
        let mut escapes = false;
        let mut at = 1;
        loop {
            at += plain_length(&bytes[at..]);
            match bytes.get(at) {
                Some(b'"') => break,
                Some(b'\\') if at + 2 <= bytes.len() => {
                    escapes = true;
                    at += 2;
                }
                _ => return Err(self.no_json()),
            }
        }
        let quoted = &rest[..=at];
        self.at += quoted.len();
        Ok((quoted, escapes))
    }

    fn text(&mut self) -> Result<Text<'de>, Error> {
        let (quoted, escapes) = self.quoted()?;
        match escapes {
            false => Ok(Text::Plain(&quoted[1..quoted.len() - 1])),
            true => match serde_json::from_slice(quoted.as_bytes()) {
                Ok(text) => Ok(Text::Unescaped(text)),
                Err(_) => Err(self.no_json()),
            },
        }
    }

    /// The length of the number that begins here, or of what looks like one.
    fn number_length(&self) -> usize {
        let rest = &self.bytes()[self.at..];
        let is_of_number = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
        rest.iter()
            .position(|byte| !is_of_number(byte))
            .unwrap_or(rest.len())
    }

    fn number(&mut self) -> Result<Found<'de>, Error> {
        let number = &self.text[self.at..self.at + self.number_length()];
        self.at += number.len();
        // Eighteen digits are in every type of 64 bits; zeros before others are no JSON.
        let digits = number.strip_prefix('-').unwrap_or(number).as_bytes();
        if let ([b'1'..=b'9', ..], 1..=18) | ([b'0'], 1) = (digits, digits.len())
            && digits.iter().all(u8::is_ascii_digit)
        {
            let value = digits
                .iter()
                .fold(0, |value, digit| value * 10 + u64::from(digit - b'0'));
            match number.len() > digits.len() {
                false => return Ok(Found::Unsigned(value)),
                true if value > 0 => return Ok(Found::Signed(-value.cast_signed())),
                true => {}
            }
        }
        match serde_json::from_slice(number.as_bytes()) {
            Ok(Value::Number(number)) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(number), ..) => Ok(Found::Unsigned(number)),
                (_, Some(number), _) => Ok(Found::Signed(number)),
                (.., Some(number)) => Ok(Found::Fraction(number)),
                _ => Err(self.no_json()),
            },
            _ => Err(self.no_json()),
        }
    }

    /// Reads the value that begins here, but for an object or a list.
    fn find(&mut self) -> Result<Found<'de>, Error> {
        match self.peek() {
            Some(b'"') => self.text().map(Found::Text),
            Some(b'{') => Ok(Found::Object),
            Some(b'[') => Ok(Found::List),
            Some(b't') => self.word("true").map(|()| Found::Bool(true)),
            Some(b'f') => self.word("false").map(|()| Found::Bool(false)),
            Some(b'n') => self.word("null").map(|()| Found::Null),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => Err(self.no_json()),
        }
    }

    /// What to say of the value that begins here, which is not what is `expected`.
    fn complaint(&mut self, expected: &dyn Expected) -> Error {
        let found = match self.find() {
            Ok(found) => found,
            Err(error) => return error,
        };
        let found = match &found {
            Found::Text(Text::Plain(text)) => Unexpected::Str(text),
            Found::Text(Text::Unescaped(text)) => Unexpected::Str(text),
            Found::Unsigned(number) => Unexpected::Unsigned(*number),
            Found::Signed(number) => Unexpected::Signed(*number),
            Found::Fraction(number) => Unexpected::Float(*number),
            Found::Bool(value) => Unexpected::Bool(*value),
            Found::Null => Unexpected::Unit,
            Found::Object => Unexpected::Map,
            Found::List => Unexpected::Seq,
        };
        Error::invalid_type(found, expected).at(self.at)
    }

    /// Reads a value that is neither an object nor a list.
    fn plain<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, Error> {
        if let Some(b'{' | b'[') = self.peek() {
            return Err(self.complaint(&visitor));
        }
        let value = match self.find()? {
            Found::Text(text) => visit(text, visitor),
            Found::Unsigned(number) => visitor.visit_u64(number),
            Found::Signed(number) => visitor.visit_i64(number),
            Found::Fraction(number) => visitor.visit_f64(number),
            Found::Bool(value) => visitor.visit_bool(value),
            Found::Null | Found::Object | Found::List => visitor.visit_unit(),
        };
        value.map_err(|error| error.at(self.at))
    }

    /// Reads what stands between brackets, the first of which is here.
    fn nested<T>(
        &mut self,
        closing: u8,
        inner: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        if self.depth == MAX_DEPTH {
            return Err(self.no_json());
        }
        self.depth += 1;
        self.at += 1;
        let value = inner(self);
        self.depth -= 1;
        let closed = self.expect(closing);
        match value {
            Ok(value) => closed.map(|()| value),
            Err(error) => Err(error.at(self.at)),
        }
    }

    /// Goes on to the next member or item; whether there is one.
    fn next(&mut self, first: &mut bool, closing: u8) -> Result<bool, Error> {
        let is_first = std::mem::replace(first, false);
        match self.peek() {
            Some(byte) if byte == closing => Ok(false),
            Some(_) if is_first => Ok(true),
            Some(b',') => {
                self.at += 1;
                match self.peek() {
                    Some(byte) if byte != closing => Ok(true),
                    _ => Err(self.no_json()),
                }
            }
            _ => Err(self.no_json()),
        }
    }

    /// Whether the text or number is JSON, of any size.
    fn check(&self, value: &str) -> Result<(), Error> {
        match serde_json::from_slice::<IgnoredAny>(value.as_bytes()) {
            Ok(_) => Ok(()),
            Err(_) => Err(self.no_json()),
        }
    }

    /// Reads a value that nobody wants.
    fn skip(&mut self) -> Result<(), Error> {
        let mut first = true;
        match self.peek() {
            Some(b'"') => match self.quoted()? {
                (_, false) => Ok(()),
                (quoted, true) => self.check(quoted),
            },
            Some(b'-' | b'0'..=b'9') => {
                let number = &self.text[self.at..self.at + self.number_length()];
                self.at += number.len();
                self.check(number)
            }
            Some(b'{') => self.nested(b'}', |parser| {
                while parser.next(&mut first, b'}')? {
                    if parser.peek() != Some(b'"') {
                        return Err(parser.no_json());
                    }
                    parser.skip()?;
                    parser.expect(b':')?;
                    parser.skip()?;
                }
                Ok(())
            }),
            Some(b'[') => self.nested(b']', |parser| {
                while parser.next(&mut first, b']')? {
                    parser.skip_texts();
                    parser.skip()?;
                }
                Ok(())
            }),
            _ => self.find().map(drop),
        }
    }

    /// Goes over the texts of a list of which another one follows, as long as they are plain: what most of a profile is.
    fn skip_texts(&mut self) {
        while let [b'"', bytes @ ..] = &self.bytes()[self.at..]
            && let length = plain_length(bytes)
            && let [b'"', b',', rest @ ..] = &bytes[length..]
            && let white = rest.iter().take_while(|byte| b" \n".contains(byte)).count()
            && let Some(b'"') = rest.get(white)
        {
            self.at += length + 3 + white;
        }
    }
}

/// What most lines of a document on many lines begin with.
const INDENTATION: &[u8] = b"        ";

/// How many bytes are before the first quotation mark, backslash or control character. Eight at a time: most texts have more.
fn plain_length(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const TOPS: u64 = ONES << 7;
    // The top bit of each byte that is less than `limit`, and perhaps of some behind the first such.
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word & TOPS;
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let marks = below(word, 0x20)
            | below(word ^ (ONES * u64::from(b'"')), 1)
            | below(word ^ (ONES * u64::from(b'\\')), 1);
        if marks != 0 {
            return 8 * index + marks.trailing_zeros() as usize / 8;
        }
    }
    let ends = |byte: &u8| matches!(byte, b'"' | b'\\' | ..b' ');
    let length = rest.iter().position(ends).unwrap_or(rest.len());
    bytes.len() - rest.len() + length
}

/// A text is never one with a zero byte, which has to be written as an escape.
fn visit<'de, V: Visitor<'de>>(text: Text<'de>, visitor: V) -> Result<V::Value, Error> {
    match text {
        Text::Plain(text) => visitor.visit_borrowed_str(text),
        Text::Unescaped(text) if text.contains('\0') => Err(Error::custom("contains a zero byte")),
        Text::Unescaped(text) => visitor.visit_string(text),
    }
}

macro_rules! plain {
    ($($ask:ident)*) => {
        $(fn $ask<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.plain(visitor)
        })*
    };
}

impl<'de> Deserializer<'de> for &mut Parser<'de, '_> {
    type Error = Error;

    /// For values of any type.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.peek() {
            Some(b'{') => self.deserialize_map(visitor),
            Some(b'[') => self.deserialize_seq(visitor),
            _ => self.plain(visitor),
        }
    }

    plain! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8 deserialize_u16
        deserialize_u32 deserialize_u64 deserialize_f32 deserialize_f64 deserialize_char deserialize_str deserialize_string
        deserialize_identifier
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.peek() {
            Some(b'[') => self.nested(b']', |parser| visitor.visit_seq(Items { parser, first: true })),
            _ => Err(self.complaint(&visitor)),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.peek() {
            Some(b'{') => self.nested(b'}', |parser| visitor.visit_map(Members::of(parser, None))),
            _ => Err(self.complaint(&visitor)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.peek() {
            Some(b'n') => self.word("null").and_then(|()| visitor.visit_none()),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if self.peek() != Some(b'{') {
            return Err(self.complaint(&"an object"));
        }
        if name == PROFILE
            && let Some(later) = self.later.take()
        {
            let begins = self.at;
            let glance = Glance::deserialize(&mut *self);
            let has_action = glance.is_ok_and(|glance| glance.default_action.is_some());
            self.at = match has_action && later(begins..self.at) {
                // Before its end, where there is nothing more in it. (Another way to visit nothing would be all of the types'
                // parsers once more.)
                true => self.at - 2,
                false => begins,
            };
            self.later = Some(later);
        }
        self.nested(b'}', |parser| visitor.visit_map(Members::of(parser, Some(names))))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.skip()?;
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        i128 u128 bytes byte_buf unit unit_struct newtype_struct tuple tuple_struct enum
    }
}

struct Items<'p, 'de, 'k> {
    parser: &'p mut Parser<'de, 'k>,
    first: bool,
}

impl<'de> SeqAccess<'de> for Items<'_, 'de, '_> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        match self.parser.next(&mut self.first, b']')? {
            true => seed.deserialize(&mut *self.parser).map(Some),
            false => Ok(None),
        }
    }
}

struct Members<'p, 'de, 'k> {
    parser: &'p mut Parser<'de, 'k>,
    first: bool,
    /// Those of the type. Nothing for an object whose names are data.
    names: Option<&'static [&'static str]>,
}

impl<'p, 'de, 'k> Members<'p, 'de, 'k> {
    fn of(parser: &'p mut Parser<'de, 'k>, names: Option<&'static [&'static str]>) -> Self {
        Self {
            parser,
            first: true,
            names,
        }
    }
}

impl<'de> MapAccess<'de> for Members<'_, 'de, '_> {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        if !self.parser.next(&mut self.first, b'}')? {
            return Ok(None);
        }
        if self.parser.peek() != Some(b'"') {
            return Err(self.parser.no_json());
        }
        let text = self.parser.text()?;
        let key = match (self.names, &text) {
            (Some(names), Text::Plain(name)) => {
                seed.deserialize(BorrowedStrDeserializer::new(known(names, name)))
            }
            (Some(names), Text::Unescaped(name)) => {
                seed.deserialize(StrDeserializer::new(known(names, name)))
            }
            (None, Text::Plain(name)) => seed.deserialize(BorrowedStrDeserializer::new(name)),
            (None, Text::Unescaped(name)) if name.contains('\0') => {
                Err(Error::custom("contains a zero byte"))
            }
            (None, Text::Unescaped(name)) => seed.deserialize(StrDeserializer::new(name)),
        };
        key.map(Some).map_err(|error| error.at(self.parser.at))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        self.parser.expect(b':')?;
        seed.deserialize(&mut *self.parser)
    }
}

/// The name in the letters of the one among `names` that differs in their case only.
fn known<'a>(names: &[&'static str], name: &'a str) -> &'a str {
    let known = names.iter().find(|known| known.eq_ignore_ascii_case(name));
    known.copied().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::super::oci::{LinuxCpu, LinuxResources};
    use super::*;

    fn cpu(text: &str) -> Result<LinuxCpu, String> {
        let read = read::<LinuxResources>(text.as_bytes(), None);
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
        let text = br#"{"unified": {"CPU.max": "1", "cpu.max": "2"}}"#;
        let read: LinuxResources = read(text, None).unwrap();
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

    /// What `serde_json` reads in `text`, but for texts with a zero byte.
    fn expected(text: &[u8]) -> Option<Value> {
        serde_json::from_slice(text).ok()
    }

    fn check(text: &[u8]) {
        let told = String::from_utf8_lossy(text);
        let read: Option<Value> = read(text, None).ok();
        assert_eq!(read, expected(text), "{told}");
        let ignored = self::read::<IgnoredAny>(text, None).is_ok();
        // Of what is ignored it does not judge every escape.
        assert!(ignored || read.is_none(), "{told}");
        let shelf = std::str::from_utf8(text).is_ok() && serde_json::from_slice::<IgnoredAny>(text).is_ok();
        assert_eq!(ignored, shelf, "{told}");
    }

    #[test]
    fn values_are_those_of_json() {
        for text in [
            "",
            " ",
            "null",
            "nul",
            "true ",
            "falsee",
            "0",
            "-0",
            "00",
            "01",
            "-",
            "-1",
            "+1",
            "1.",
            "1.5",
            ".5",
            "1e3",
            "1E",
            "1-1",
            "123456789012345678",
            "-123456789012345678",
            "1234567890123456789",
            "-9223372036854775808",
            "-9223372036854775809",
            "18446744073709551615",
            "18446744073709551616",
            "1e999",
            r#""""#,
            r#"""#,
            r#""a\"b""#,
            r#""\u0041\ud83d\ude00é""#,
            r#""\ud83d""#,
            r#""\x""#,
            r#""\"#,
            "\"\u{1}\"",
            "\"\u{7f}\"",
            "[]",
            "[",
            "]",
            "[1,]",
            "[,1]",
            "[1 2]",
            "[1,2,[3],{}]x",
            " [ 1 , 2 ]\n\t\r ",
            "{}",
            "{",
            "{,}",
            r#"{"a":1,}"#,
            r#"{"a" 1}"#,
            r#"{"a"}"#,
            r#"{a:1}"#,
            r#"{1:1}"#,
            r#"{"a":1}}"#,
            r#"{"\u0061":{"b":[null,false]}}"#,
            "\u{feff}1",
            "\u{c}1",
        ] {
            check(text.as_bytes());
        }
        for depth in [126, 127, 128, 129, 1000] {
            let deep = "[".repeat(depth) + &"]".repeat(depth);
            let read = read::<Value>(deep.as_bytes(), None).is_ok();
            assert_eq!(read, expected(deep.as_bytes()).is_some(), "{depth} deep");
        }
        assert!(read::<Value>(b"\"\xff\"", None).is_err());
    }

    #[test]
    fn documents_with_a_fault_are_read_as_by_others_or_not_at_all() {
        let full: Value = serde_json::from_str(include_str!("full.json")).unwrap();
        let full = full["linux"].to_string().into_bytes();
        check(&full);
        for at in (0..full.len()).step_by(23) {
            for byte in *b"{}[]:,\"\\ -1.ex\n" {
                let mut changed = full.clone();
                changed[at] = byte;
                check(&changed);
            }
            check(&full[..at]);
        }
    }

    #[test]
    fn a_profile_that_is_left_for_later_is_not_looked_into() {
        use super::super::oci::{Linux, LinuxSeccomp};

        // Whatever is wrong with the rest of it.
        let profile = r#"{"flags": "]}\"", "DefaultAction": "SCMP_ACT_LOG", "syscalls": [{}, "}"]}"#;
        let text = |profile: &str| {
            format!(r#"{{"cgroupsPath": "/a", "seccomp": {profile}, "rootfsPropagation": "slave"}}"#)
        };
        let whole = text(profile);
        let mut seen = Vec::new();
        let mut later = |at: Range<usize>| {
            seen.push(whole[at].to_owned());
            true
        };
        let linux: Linux = read(whole.as_bytes(), Some(&mut later)).unwrap();
        assert_eq!(linux.seccomp, Some(LinuxSeccomp::default()));
        assert_eq!(linux.rootfs_propagation, "slave");
        assert_eq!(seen, [profile]);
        assert!(read::<Linux>(whole.as_bytes(), Some(&mut |_| false)).is_err());
        assert!(read::<Linux>(whole.as_bytes(), None).is_err());
        // None that may be empty or is no JSON, and nothing that is no profile.
        for other in [
            "null",
            "{}",
            r#"{"defaultAction": ""}"#,
            r#"{"defaultAction": null}"#,
            r#"{"defaultAction": "SCMP_ACT_LOG", "defaultaction": ""}"#,
            r#"{"defaultAction": "SCMP_ACT_LOG", "defaultAction": "SCMP_ACT_LOG"}"#,
            r#"{"defaultAction": "log"}"#,
            r#"{"defaultAction": ["SCMP_ACT_LOG"]}"#,
            r#"{"syscalls": [{"defaultAction": "SCMP_ACT_LOG"}]}"#,
            r#"{"defaultAction": "SCMP_ACT_LOG", "flags": }"#,
            r#"{"defaultAction": "SCMP_ACT_LOG", "flags": [1 2]}"#,
        ] {
            let of = |later| read::<Linux>(text(other).as_bytes(), later).map_err(|error| error.to_string());
            assert_eq!(of(Some(&mut |_| panic!("{other}"))), of(None));
        }
        let elsewhere = format!(r#"{{"other": {{"seccomp": {profile}}}}}"#);
        read::<Linux>(elsewhere.as_bytes(), Some(&mut |_| panic!("no profile"))).unwrap();
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
