//! Values as annotations write them: GVariant's text form ([GVariant text format]), as far as properties of units need it.
//!
//! `true`, `-5`, `0x1f`, `uint64 5`, `@t 5`, `1.5`, `'text'`, `b'bytes'`, `['a', 'b']`, `<5>`. A number without a type is an
//! `int32`. Refused here: dictionaries and tuples, which no property that may be set has.
//!
//! [GVariant text format]: https://docs.gtk.org/glib/gvariant-text-format.html

use super::value::Value;

/// Arrays in arrays in variants: enough for any property, and no reason to run out of stack.
const MAX_DEPTH: u32 = 8;

/// Reads one value that fills the text.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let mut parser = Parser { rest: text };
    let value = parser.value(None, 0)?;
    match parser.peek() {
        None => Ok(value),
        Some(_) => Err(format!("unparsed: {:?}", parser.rest)),
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    /// The next character that is no blank, which stays.
    fn peek(&mut self) -> Option<char> {
        self.rest = self.rest.trim_start();
        self.rest.chars().next()
    }

    fn accept(&mut self, expected: char) -> bool {
        let found = self.peek() == Some(expected);
        if found {
            self.rest = &self.rest[expected.len_utf8()..];
        }
        found
    }

    /// Up to the next character that cannot be a part of a word.
    fn word(&mut self) -> &'a str {
        let end = self
            .rest
            .find(|c: char| c.is_whitespace() || ",[]<>'\"".contains(c))
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    /// A value of the type `wanted`, or of the one that it looks like.
    fn value(&mut self, wanted: Option<&str>, depth: u32) -> Result<Value, String> {
        if depth > MAX_DEPTH {
            return Err("nested too deeply".to_owned());
        }
        let first = self.peek().ok_or("unexpected end")?;
        match first {
            '\'' | '"' => text_as(self.string()?, wanted),
            '[' => self.array(wanted, depth),
            '<' => self.variant(wanted, depth),
            '{' | '(' => Err("dictionaries and tuples are no values of a property".to_owned()),
            'b' if self.rest[1..].starts_with(['\'', '"']) => {
                self.rest = &self.rest[1..];
                let mut bytes = self.string()?.into_bytes();
                // A byte string ends with a zero, as C's do.
                bytes.push(0);
                check(Value::bytes(&bytes), wanted)
            }
            '@' => {
                let signature = self.word()[1..].to_owned();
                self.typed(&signature, wanted, depth)
            }
            _ => {
                let word = self.word();
                if let Some(signature) = type_of(word) {
                    return self.typed(signature, wanted, depth);
                }
                match word {
                    "true" => check(Value::Bool(true), wanted),
                    "false" => check(Value::Bool(false), wanted),
                    "" => Err(format!("unexpected {first:?}")),
                    number => number_as(number, wanted),
                }
            }
        }
    }

    /// What follows a type.
    fn typed(&mut self, signature: &str, wanted: Option<&str>, depth: u32) -> Result<Value, String> {
        if wanted.is_some_and(|wanted| wanted != signature) {
            return Err("unexpected type annotation".to_owned());
        }
        if !is_known(signature) {
            return Err(format!("unrecognized type {signature:?}"));
        }
        self.value(Some(signature), depth + 1)
    }

    fn array(&mut self, wanted: Option<&str>, depth: u32) -> Result<Value, String> {
        self.accept('[');
        let mut element = match wanted {
            None => None,
            Some(wanted) => Some(
                wanted
                    .strip_prefix('a')
                    .ok_or_else(|| no(wanted, "an array"))?
                    .to_owned(),
            ),
        };
        let mut values = Vec::new();
        while !self.accept(']') {
            let value = self.value(element.as_deref(), depth + 1)?;
            // The first element tells the type of all.
            element.get_or_insert_with(|| value.signature());
            values.push(value);
            if !self.accept(',') && self.peek() != Some(']') {
                return Err("expected a comma or the end of the array".to_owned());
            }
        }
        let element = element.ok_or("an empty array needs a type")?;
        Ok(Value::Array(element, values))
    }

    fn variant(&mut self, wanted: Option<&str>, depth: u32) -> Result<Value, String> {
        self.accept('<');
        let value = self.value(None, depth + 1)?;
        if !self.accept('>') {
            return Err("expected the end of the variant".to_owned());
        }
        check(value.variant(), wanted)
    }

    /// In quotes of either sort, with the escapes of C.
    fn string(&mut self) -> Result<String, String> {
        let unterminated = || "unterminated string".to_owned();
        let mut characters = self.rest.char_indices();
        let (_, quote) = characters.next().ok_or_else(unterminated)?;
        let mut text = String::new();
        loop {
            let (at, character) = characters.next().ok_or_else(unterminated)?;
            match character {
                _ if character == quote => {
                    self.rest = &self.rest[at + 1..];
                    return Ok(text);
                }
                '\\' => match characters.next().ok_or_else(unterminated)?.1 {
                    'a' => text.push('\u{7}'),
                    'b' => text.push('\u{8}'),
                    'f' => text.push('\u{c}'),
                    'n' => text.push('\n'),
                    'r' => text.push('\r'),
                    't' => text.push('\t'),
                    'v' => text.push('\u{b}'),
                    '\n' => {}
                    kind @ ('u' | 'U') => {
                        let digits: String = characters
                            .by_ref()
                            .take(if kind == 'u' { 4 } else { 8 })
                            .map(|(_, c)| c)
                            .collect();
                        let code = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                        text.push(code.ok_or_else(|| format!("bad unicode escape {digits:?}"))?);
                    }
                    other => text.push(other),
                },
                other => text.push(other),
            }
        }
    }
}

/// The words for types.
fn type_of(word: &str) -> Option<&'static str> {
    Some(match word {
        "boolean" => "b",
        "byte" => "y",
        "int16" => "n",
        "uint16" => "q",
        "int32" => "i",
        "uint32" => "u",
        "int64" => "x",
        "uint64" => "t",
        "double" => "d",
        "string" => "s",
        "objectpath" => "o",
        "signature" => "g",
        _ => return None,
    })
}

/// One complete type that a value here can have.
fn is_known(signature: &str) -> bool {
    let element = signature.trim_start_matches('a');
    signature.len() - element.len() <= MAX_DEPTH as usize
        && element.len() == 1
        && "bynqiuxtdsogv".contains(element)
}

fn no(wanted: &str, what: &str) -> String {
    format!("can't parse {what} as type {wanted:?}")
}

fn check(value: Value, wanted: Option<&str>) -> Result<Value, String> {
    let signature = value.signature();
    match wanted {
        Some(wanted) if wanted != signature => Err(no(wanted, "the value")),
        _ => Ok(value),
    }
}

fn text_as(text: String, wanted: Option<&str>) -> Result<Value, String> {
    match wanted.unwrap_or("s") {
        "s" => Ok(Value::Text(text)),
        "o" => Ok(Value::ObjectPath(text)),
        "g" => Ok(Value::Signature(text)),
        other => Err(no(other, "a string")),
    }
}

fn number_as(word: &str, wanted: Option<&str>) -> Result<Value, String> {
    let is_real = word.contains(['.', 'e', 'E']) && !word.contains('x');
    let kind = wanted.unwrap_or(if is_real { "d" } else { "i" });
    let bad = || format!("bad number {word:?} for type {kind:?}");
    if kind == "d" {
        return word.parse().map(Value::Double).map_err(|_| bad());
    }
    let (negative, digits) = match word.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, word.strip_prefix('+').unwrap_or(word)),
    };
    let (digits, radix) = match (digits.strip_prefix("0x"), digits.strip_prefix('0')) {
        (Some(hex), _) => (hex, 16),
        (None, Some(octal)) if !octal.is_empty() => (octal, 8),
        _ => (digits, 10),
    };
    if !digits.starts_with(|c: char| c.is_ascii_hexdigit()) {
        return Err(bad());
    }
    let number = i128::from_str_radix(digits, radix).map_err(|_| bad())?;
    let number = if negative { -number } else { number };
    let value = match kind {
        "y" => number.try_into().map(Value::Byte),
        "n" => number.try_into().map(Value::Int16),
        "q" => number.try_into().map(Value::Uint16),
        "i" => number.try_into().map(Value::Int32),
        "u" => number.try_into().map(Value::Uint32),
        "x" => number.try_into().map(Value::Int64),
        "t" => number.try_into().map(Value::Uint64),
        other => return Err(no(other, "a number")),
    };
    value.map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_with_and_without_a_type() {
        let text = |text: &str| Value::text(text);
        for (written, value) in [
            ("true", Value::Bool(true)),
            (" false ", Value::Bool(false)),
            ("5", Value::Int32(5)),
            ("-5", Value::Int32(-5)),
            ("0x1f", Value::Int32(31)),
            ("017", Value::Int32(15)),
            ("0", Value::Int32(0)),
            ("uint64 5", Value::Uint64(5)),
            ("@t 18446744073709551615", Value::Uint64(u64::MAX)),
            ("byte 255", Value::Byte(255)),
            ("1.5", Value::Double(1.5)),
            ("double 2", Value::Double(2.0)),
            ("'inactive-or-failed'", text("inactive-or-failed")),
            (r#""it's \u00e9\n""#, text("it's é\n")),
            ("objectpath '/a'", Value::ObjectPath("/a".into())),
            ("b'ab'", Value::bytes(b"ab\0")),
            ("['a', 'b']", Value::Array("s".into(), vec![text("a"), text("b")])),
            ("@as []", Value::Array("s".into(), vec![])),
            (
                "@at [1, 2]",
                Value::Array("t".into(), vec![Value::Uint64(1), Value::Uint64(2)]),
            ),
            (
                "[uint32 1,2]",
                Value::Array("u".into(), vec![Value::Uint32(1), Value::Uint32(2)]),
            ),
            ("<true>", Value::Bool(true).variant()),
        ] {
            assert_eq!(parse(written), Ok(value), "{written}");
        }
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for written in [
            "",
            " ",
            "maybe",
            "'open",
            "5 6",
            "5x",
            "0x",
            "--5",
            "-",
            "uint64 -1",
            "byte 256",
            "int32 2147483648",
            "uint64 'five'",
            "string 5",
            "[",
            "[1",
            "[1 2]",
            "[]",
            "[1, 'a']",
            "{'a': 1}",
            "(1, 2)",
            "<1",
            "@ 5",
            "@zz 5",
            "uint64",
            "@a{ss} {}",
            "int16 uint16 5",
            "'\\uZZZZ'",
            "b",
            "[[[[[[[[[[[[1]]]]]]]]]]]]",
        ] {
            assert!(parse(written).is_err(), "{written:?}: {:?}", parse(written));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_strange(text in ".{0,40}") {
            drop(parse(&text));
        }

        #[test]
        fn numbers_come_back(number: i64) {
            proptest::prop_assert_eq!(parse(&format!("int64 {number}")), Ok(Value::Int64(number)));
        }
    }
}
