//! The filter grammar of containerd: `name==x,labels."k"~=regex`.
//!
//! ```text
//! filter    = selector *( "," selector )            all must match
//! selector  = fieldpath [ operator value ]          without operator: the field is present
//! fieldpath = field *( "." field )
//! field     = quoted / 1*( letter / digit / "_" )
//! operator  = "==" / "!=" / "~="
//! value     = quoted / 1*( any but white space, "," and quotes )
//! quoted    = "\"" … "\"" with Go's escapes; after "~=" also / … / and | … |
//! ```
//!
//! White space between these is skipped. A backslash always begins an escape: in a pattern it is doubled.
//!
//! Of several filters one must match; no filter at all matches everything. What is not in the grammar is refused.

use regex_lite::Regex;

use crate::{
    error::{Error, Result},
    identifier::Labels,
};

/// The longest filter, in bytes.
const MAX_FILTER: usize = 64 * 1024;

/// What a filter asks of an object: the value at a path of fields.
pub trait Fields {
    /// The value at `path`; `None` when there is none.
    fn field(&self, path: &[&str]) -> Option<String>;
}

/// The label that the rest of a path names: keys contain dots.
pub fn label(labels: &Labels, path: &[&str]) -> Option<String> {
    labels.get(&path.join(".")).cloned()
}

/// Filters of which one must match.
#[derive(Debug)]
pub struct Filters(Vec<Vec<Selector>>);

#[derive(Debug)]
struct Selector {
    path: Vec<String>,
    test: Test,
}

#[derive(Debug)]
enum Test {
    Present,
    Equal(String),
    NotEqual(String),
    Matches(Regex),
}

impl Filters {
    /// Parses `filters`.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` naming the place.
    pub fn parse<S: AsRef<str>>(filters: &[S]) -> Result<Self> {
        filters
            .iter()
            .map(|text| parse(text.as_ref()))
            .collect::<Result<_>>()
            .map(Self)
    }

    /// Whether one of the filters matches.
    pub fn matches(&self, object: &impl Fields) -> bool {
        self.0.is_empty()
            || self
                .0
                .iter()
                .any(|all| all.iter().all(|selector| selector.matches(object)))
    }
}

impl Selector {
    fn matches(&self, object: &impl Fields) -> bool {
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        let found = object.field(&path);
        match &self.test {
            Test::Present => found.is_some(),
            Test::Equal(value) => found.is_some_and(|found| found == *value),
            Test::NotEqual(value) => found.unwrap_or_default() != *value,
            Test::Matches(regex) => regex.is_match(&found.unwrap_or_default()),
        }
    }
}

fn parse(text: &str) -> Result<Vec<Selector>> {
    if text.len() > MAX_FILTER {
        return Err(Error::invalid("filter is longer than 64 KiB"));
    }
    let mut parser = Parser { text, at: 0 };
    let mut selectors = Vec::new();
    if text.is_empty() {
        return Ok(selectors);
    }
    loop {
        selectors.push(parser.selector()?);
        if parser.rest().is_empty() {
            return Ok(selectors);
        }
        if !parser.take(",") {
            return Err(parser.error("expected a comma"));
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn error(&self, what: &str) -> Error {
        Error::invalid(format!(
            "filters: parse error: {:?} at byte {}: {what}",
            self.text, self.at
        ))
    }

    fn take(&mut self, token: &str) -> bool {
        self.skip();
        let taken = self.rest().starts_with(token);
        if taken {
            self.at += token.len();
        }
        taken
    }

    /// Skips white space.
    fn skip(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn selector(&mut self) -> Result<Selector> {
        let mut path = vec![self.field()?];
        while self.take(".") {
            path.push(self.field()?);
        }
        let test = if self.take("==") {
            Test::Equal(self.value(&['"'])?)
        } else if self.take("!=") {
            Test::NotEqual(self.value(&['"'])?)
        } else if self.take("~=") {
            let at = self.at;
            let pattern = self.value(&['"', '/', '|'])?;
            let regex = Regex::new(&pattern).map_err(|error| {
                self.at = at;
                self.error("bad regular expression").caused_by(error)
            })?;
            Test::Matches(regex)
        } else {
            Test::Present
        };
        Ok(Selector { path, test })
    }

    fn field(&mut self) -> Result<String> {
        self.skip();
        if self.rest().starts_with('"') {
            return self.quoted('"');
        }
        let length = self
            .rest()
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .unwrap_or(self.rest().len());
        if length == 0 {
            return Err(self.error("expected a field"));
        }
        let field = self.rest()[..length].to_owned();
        self.at += length;
        Ok(field)
    }

    fn value(&mut self, quotes: &[char]) -> Result<String> {
        self.skip();
        if let Some(quote) = self.rest().chars().next().filter(|c| quotes.contains(c)) {
            return self.quoted(quote);
        }
        let length = self
            .rest()
            .find(|c: char| c.is_whitespace() || c == ',' || c == '"')
            .unwrap_or(self.rest().len());
        if length == 0 {
            return Err(self.error("expected a value"));
        }
        let value = self.rest()[..length].to_owned();
        self.at += length;
        Ok(value)
    }

    /// A quoted text.
    fn quoted(&mut self, quote: char) -> Result<String> {
        let start = self.at;
        self.at += 1;
        let mut value = String::new();
        while let Some(next) = self.rest().chars().next() {
            self.at += next.len_utf8();
            if next == quote {
                return Ok(value);
            }
            match next {
                '\n' => break,
                '\\' => value.push(self.escape(quote)?),
                other => value.push(other),
            }
        }
        self.at = start;
        Err(self.error("unterminated quote"))
    }

    /// What follows a backslash, as in a Go string.
    fn escape(&mut self, quote: char) -> Result<char> {
        let Some(kind) = self.rest().chars().next() else {
            return Err(self.error("unterminated quote"));
        };
        self.at += kind.len_utf8();
        let (digits, radix) = match kind {
            'a' => return Ok('\x07'),
            'b' => return Ok('\x08'),
            'f' => return Ok('\x0c'),
            'n' => return Ok('\n'),
            'r' => return Ok('\r'),
            't' => return Ok('\t'),
            'v' => return Ok('\x0b'),
            _ if kind == '\\' || kind == quote => return Ok(kind),
            '0'..='7' => {
                self.at -= 1;
                (3, 8)
            }
            'x' => (2, 16),
            'u' => (4, 16),
            'U' => (8, 16),
            _ => return Err(self.error("unknown escape")),
        };
        let decoded = self
            .rest()
            .get(..digits)
            .filter(|text| text.chars().all(|c| c.is_digit(radix)))
            .and_then(|text| u32::from_str_radix(text, radix).ok())
            .and_then(char::from_u32)
            // Go's shorter escapes are bytes; one that is not ASCII would be half a character.
            .filter(|decoded| digits > 3 || decoded.is_ascii());
        match decoded {
            Some(decoded) => {
                self.at += digits;
                Ok(decoded)
            }
            None => Err(self.error("bad escape")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Image;

    impl Fields for Image {
        fn field(&self, path: &[&str]) -> Option<String> {
            let labels = Labels::from([
                ("a.b/c".to_owned(), "x,y".to_owned()),
                ("env".to_owned(), "prod".to_owned()),
            ]);
            match path {
                ["name"] => Some("docker.io/library/alpine:3".to_owned()),
                ["labels", rest @ ..] => label(&labels, rest),
                _ => None,
            }
        }
    }

    #[test]
    fn filters_select_as_containerds_do() {
        for (filters, expected) in [
            (&[][..], true),
            (&[""], true),
            (&["name==docker.io/library/alpine:3"], true),
            (&["name==alpine"], false),
            (&["name!=alpine"], true),
            (&["name~=alpine"], true),
            (&["name~=^alpine"], false),
            (&["name~=/library\\/alp/"], true),
            (&["name~=|alpine:[0-9]$|"], true),
            (&["labels.env"], true),
            (&["name ~= |alpine:\\\\d$| , labels . env == prod"], true),
            (&["labels.env==\"\\160rod\""], true),
            (&["labels.none"], false),
            (&["labels.none!=x"], true),
            (&["labels.none~=^$"], true),
            (&["labels.\"a.b/c\"==\"x,y\""], true),
            (&["labels.\"a.b/c\"==\"\\x78\\u002cy\""], true),
            (&["labels.env==prod,name==alpine"], false),
            (&["labels.env==prod", "name==alpine"], true),
            (&["nothing"], false),
        ] {
            assert_eq!(
                Filters::parse(filters).unwrap().matches(&Image),
                expected,
                "{filters:?}"
            );
        }
    }

    #[test]
    fn what_is_not_in_the_grammar_is_refused() {
        for bad in [
            "=",
            "name=",
            "name==",
            "name=x",
            "name==a,",
            ",",
            "name==\"a",
            "name==\"\\q\"",
            "name~=(",
            ".a",
            "a b",
        ] {
            assert!(Filters::parse(&[bad]).is_err(), "{bad:?} was accepted");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[a-z.,\"/|\\\\=!~ é]{0,40}") {
            if let Ok(filters) = Filters::parse(&[text]) {
                filters.matches(&Image);
            }
        }
    }
}
