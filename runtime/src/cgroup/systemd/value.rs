//! Values of the D-Bus type system, and how they lie in a message ([D-Bus, type system and marshalling]).
//!
//! Only what properties of systemd's units are made of: no descriptors, no dictionaries. Little endian.
//!
//! [D-Bus, type system and marshalling]: https://dbus.freedesktop.org/doc/dbus-specification.html#type-system

/// One value with its type.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Byte(u8),
    Bool(bool),
    Int16(i16),
    Uint16(u16),
    Int32(i32),
    Uint32(u32),
    Int64(i64),
    Uint64(u64),
    Double(f64),
    Text(String),
    ObjectPath(String),
    Signature(String),
    /// The elements' type, and the elements.
    Array(String, Vec<Value>),
    Struct(Vec<Value>),
    Variant(Box<Value>),
}

impl Value {
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub fn bytes(bytes: &[u8]) -> Self {
        Self::Array("y".to_owned(), bytes.iter().copied().map(Self::Byte).collect())
    }

    pub fn variant(self) -> Self {
        Self::Variant(Box::new(self))
    }

    /// The value's type, as a signature.
    pub fn signature(&self) -> String {
        match self {
            Self::Byte(_) => "y".to_owned(),
            Self::Bool(_) => "b".to_owned(),
            Self::Int16(_) => "n".to_owned(),
            Self::Uint16(_) => "q".to_owned(),
            Self::Int32(_) => "i".to_owned(),
            Self::Uint32(_) => "u".to_owned(),
            Self::Int64(_) => "x".to_owned(),
            Self::Uint64(_) => "t".to_owned(),
            Self::Double(_) => "d".to_owned(),
            Self::Text(_) => "s".to_owned(),
            Self::ObjectPath(_) => "o".to_owned(),
            Self::Signature(_) => "g".to_owned(),
            Self::Array(element, _) => format!("a{element}"),
            Self::Struct(fields) => {
                let fields: String = fields.iter().map(Self::signature).collect();
                format!("({fields})")
            }
            Self::Variant(_) => "v".to_owned(),
        }
    }

    /// Appends the value to a body that starts where `out` starts (a body is aligned to 8).
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Byte(value) => out.push(*value),
            Self::Bool(value) => number(out, &u32::from(*value).to_le_bytes()),
            Self::Int16(value) => number(out, &value.to_le_bytes()),
            Self::Uint16(value) => number(out, &value.to_le_bytes()),
            Self::Int32(value) => number(out, &value.to_le_bytes()),
            Self::Uint32(value) => number(out, &value.to_le_bytes()),
            Self::Int64(value) => number(out, &value.to_le_bytes()),
            Self::Uint64(value) => number(out, &value.to_le_bytes()),
            Self::Double(value) => number(out, &value.to_le_bytes()),
            Self::Text(text) | Self::ObjectPath(text) => {
                number(out, &length(text.len()));
                out.extend_from_slice(text.as_bytes());
                out.push(0);
            }
            Self::Signature(text) => signature(out, text),
            Self::Array(element, values) => {
                align(out, 4);
                let at = out.len();
                out.extend_from_slice(&[0; 4]);
                // The padding before the first element is there even without one, and is not counted.
                align(out, alignment(element));
                let start = out.len();
                values.iter().for_each(|value| value.write(out));
                let size = length(out.len() - start);
                out[at..at + 4].copy_from_slice(&size);
            }
            Self::Struct(fields) => {
                align(out, 8);
                fields.iter().for_each(|field| field.write(out));
            }
            Self::Variant(value) => {
                signature(out, &value.signature());
                value.write(out);
            }
        }
    }
}

/// Pads with zeros to a multiple of `to`.
pub(super) fn align(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(to), 0);
}

/// Lengths are far below 4 GiB: a message of this size is refused before it is sent.
fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes()
}

fn number(out: &mut Vec<u8>, bytes: &[u8]) {
    align(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn signature(out: &mut Vec<u8>, text: &str) {
    out.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(text.as_bytes());
    out.push(0);
}

/// What the type that starts a signature is aligned to.
fn alignment(signature: &str) -> usize {
    match signature.as_bytes().first() {
        Some(b'y' | b'g' | b'v') => 1,
        Some(b'n' | b'q') => 2,
        Some(b'x' | b't' | b'd' | b'(' | b'{') => 8,
        _ => 4,
    }
}

/// Reads what a message carries, from its start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// `bytes` begin where alignment begins to count.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub fn is_at_end(&self) -> bool {
        self.at >= self.bytes.len()
    }

    pub fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let bytes = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(bytes)
    }

    pub fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    pub fn uint32(&mut self) -> Option<u32> {
        self.align(4);
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    /// A string or an object path.
    pub fn text(&mut self) -> Option<&'a str> {
        let length = self.uint32()? as usize;
        let text = self.take(length)?;
        self.take(1)?;
        std::str::from_utf8(text).ok()
    }

    pub fn signature(&mut self) -> Option<&'a str> {
        let length = usize::from(self.byte()?);
        let text = self.take(length)?;
        self.take(1)?;
        std::str::from_utf8(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        value.write(&mut out);
        out
    }

    #[test]
    fn values_lie_as_the_specification_says() {
        assert_eq!(written(&Value::text("ab")), [2, 0, 0, 0, b'a', b'b', 0]);
        assert_eq!(written(&Value::Bool(true)), [1, 0, 0, 0]);
        assert_eq!(
            written(&Value::Uint64(1).variant()),
            [1, b't', 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]
        );
        assert_eq!(written(&Value::bytes(&[5, 6])), [2, 0, 0, 0, 5, 6]);
        // The padding of an array of structures is there without an element, and not counted.
        assert_eq!(
            written(&Value::Array("(ss)".to_owned(), Vec::new())),
            [0, 0, 0, 0, 0, 0, 0, 0]
        );
        let pairs = Value::Array(
            "(ss)".to_owned(),
            vec![Value::Struct(vec![Value::text(""), Value::text("r")])],
        );
        assert_eq!(pairs.signature(), "a(ss)");
        assert_eq!(
            written(&pairs),
            [
                14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, b'r', 0
            ]
        );
    }

    #[test]
    fn what_was_written_is_read() {
        let mut out = Vec::new();
        Value::Uint32(7).write(&mut out);
        Value::text("a path").write(&mut out);
        Value::Signature("as".to_owned()).write(&mut out);
        let mut reader = Reader::new(&out);
        assert_eq!(reader.uint32(), Some(7));
        assert_eq!(reader.text(), Some("a path"));
        assert_eq!(reader.signature(), Some("as"));
        assert!(reader.is_at_end());
        assert_eq!(reader.byte(), None);
    }

    #[test]
    fn a_length_beyond_the_end_is_refused() {
        assert_eq!(Reader::new(&[255, 255, 255, 255, b'a']).text(), None);
        assert_eq!(Reader::new(&[200, b'a', 0]).signature(), None);
        assert_eq!(Reader::new(&[1, 0]).uint32(), None);
    }
}
