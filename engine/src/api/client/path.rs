//! Names in paths and queries: whatever a name contains, it stays in its place.

use std::borrow::Cow;
use std::fmt::Write as _;

/// One name as one segment of a path: nothing in it can end the segment or begin a query.
#[must_use]
pub fn segment(name: &str) -> String {
    encode(name, ":@").into_owned()
}

/// An image name as the wildcard part of a path: its slashes stay.
#[must_use]
pub fn image_path(name: &str) -> String {
    encode(name, ":@/").into_owned()
}

/// Percent-encodes everything but RFC 3986's unreserved characters and `keep`.
pub(super) fn encode<'a>(text: &'a str, keep: &str) -> Cow<'a, str> {
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || keep.as_bytes().contains(&byte);
    if text.bytes().all(plain) {
        return Cow::Borrowed(text);
    }
    let mut encoded = String::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        if plain(byte) {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("writing to a string does not fail");
        }
    }
    Cow::Owned(encoded)
}
