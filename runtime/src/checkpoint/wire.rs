//! The encoding of criu's messages (Protocol Buffers), as much of it as they need.
//!
//! Refused here: what ends within a field, numbers of more than 64 bits, and the groups that nobody uses any more.

/// A message that is put together, field after field.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Message(Vec<u8>);

/// A field that lies in the message as a number.
const NUMBER: u64 = 0;
/// A field of eight bytes.
const EIGHT: u64 = 1;
/// A field that says how long it is.
const LENGTH: u64 = 2;
/// A field of four bytes.
const FOUR: u64 = 5;

impl Message {
    /// A number, an enumeration's word, or a descriptor's number; negative ones have the sign in every bit.
    pub(super) fn number(&mut self, field: u32, value: i64) {
        self.varint(u64::from(field) << 3 | NUMBER);
        self.varint(value.cast_unsigned());
    }

    pub(super) fn boolean(&mut self, field: u32, value: bool) {
        self.number(field, i64::from(value));
    }

    pub(super) fn bytes(&mut self, field: u32, value: &[u8]) {
        self.varint(u64::from(field) << 3 | LENGTH);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    pub(super) fn message(&mut self, field: u32, value: &Self) {
        self.bytes(field, &value.0);
    }

    /// The message as it is sent.
    pub(super) fn encoded(&self) -> &[u8] {
        &self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// What a field of a received message has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Of a kind that no message of criu's has.
    Other,
}

impl<'a> Value<'a> {
    /// As the 32 bits of an `int32`, which travels with 64.
    pub(super) fn int(self) -> Option<i32> {
        match self {
            Self::Number(number) => Some(number as i32),
            _ => None,
        }
    }

    pub(super) fn boolean(self) -> Option<bool> {
        match self {
            Self::Number(number) => Some(number != 0),
            _ => None,
        }
    }

    pub(super) fn message(self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// Text for people: what is no text in it is replaced, and a line's end inside is a blank.
    pub(super) fn text(self) -> Option<String> {
        let text = String::from_utf8_lossy(self.message()?);
        Some(text.trim().replace(char::is_control, " "))
    }
}

/// The fields of a message, in order. An error ends them.
pub(super) struct Fields<'a>(&'a [u8]);

/// The bytes are no message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Malformed;

impl<'a> Fields<'a> {
    pub(super) fn of(message: &'a [u8]) -> Self {
        Self(message)
    }

    fn field(&mut self) -> Result<(u32, Value<'a>), Malformed> {
        let key = self.varint()?;
        let field = u32::try_from(key >> 3).map_err(|_| Malformed)?;
        let value = match key & 7 {
            NUMBER => Value::Number(self.varint()?),
            LENGTH => {
                let length = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
                Value::Bytes(self.take(length)?)
            }
            EIGHT => self.take(8).map(|_| Value::Other)?,
            FOUR => self.take(4).map(|_| Value::Other)?,
            _ => return Err(Malformed),
        };
        Ok((field, value))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.take(1)?.first().ok_or(Malformed)?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return Err(Malformed);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_encoded_as_the_format_says() {
        let mut message = Message::default();
        message.number(1, 150);
        message.bytes(2, b"testing");
        message.boolean(3, true);
        let mut inner = Message::default();
        inner.number(1, -1);
        message.message(50, &inner);
        let mut expected = vec![0x08, 0x96, 0x01, 0x12, 0x07];
        expected.extend_from_slice(b"testing");
        expected.extend_from_slice(&[0x18, 0x01, 0x92, 0x03, 0x0b, 0x08]);
        expected.extend_from_slice(&[0xff; 9]);
        expected.push(1);
        assert_eq!(message.encoded(), expected);
        let fields: Vec<_> = Fields::of(message.encoded()).map(Result::unwrap).collect();
        assert_eq!(fields[0], (1, Value::Number(150)));
        assert_eq!(fields[1].1.text().as_deref(), Some("testing"));
        assert_eq!(fields[2].1.boolean(), Some(true));
        let inner = Fields::of(fields[3].1.message().unwrap())
            .next()
            .unwrap()
            .unwrap();
        assert_eq!((inner.0, inner.1.int()), (1, Some(-1)));
        assert_eq!(fields.len(), 4);
    }

    #[test]
    fn fields_of_kinds_that_are_not_used_are_passed_over() {
        let bytes = [0x09, 1, 2, 3, 4, 5, 6, 7, 8, 0x15, 1, 2, 3, 4, 0x18, 7];
        let fields: Vec<_> = Fields::of(&bytes).map(Result::unwrap).collect();
        assert_eq!(
            fields,
            [(1, Value::Other), (2, Value::Other), (3, Value::Number(7))]
        );
        assert_eq!(Value::Other.int(), None);
        assert_eq!(Value::Number(3).text(), None);
        assert_eq!(Value::Bytes(b"a\nb\xff").text().as_deref(), Some("a b\u{fffd}"));
    }

    #[test]
    fn what_is_no_message_is_refused_and_ends_the_fields() {
        for bytes in [
            &[0x08][..],
            &[0x08, 0xff],
            &[0x12, 0x05, b'a'],
            &[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
            &[0x0b, 0x0c],
            &[0x09, 1, 2],
            &[0x15, 1, 2],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0],
        ] {
            let fields: Vec<_> = Fields::of(bytes).collect();
            assert_eq!(fields, [Err(Malformed)], "{bytes:?}");
        }
    }
}
