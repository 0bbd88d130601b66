//! `WWW-Authenticate` (RFC 9110 §11.6.1): which schemes a registry offers, with their parameters.

use std::collections::BTreeMap;

/// One challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Challenge {
    /// The scheme in lower case.
    pub(super) scheme: String,
    /// Parameters by lower-case name.
    pub(super) parameters: BTreeMap<String, String>,
}

impl Challenge {
    /// The parameter, or an empty text.
    pub(super) fn parameter(&self, name: &str) -> &str {
        self.parameters.get(name).map_or("", String::as_str)
    }
}

/// Reads one header value, which may hold several challenges. What cannot be read ends the list.
pub(super) fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = header.trim_start_matches([' ', ',', '\t']);
    while !rest.is_empty() {
        let (word, after) = token(rest);
        if word.is_empty() {
            break;
        }
        let tail = after.trim_start();
        if let Some(value) = tail.strip_prefix('=')
            && let Some(challenge) = challenges.last_mut()
        {
            let Some((value, after)) = parameter_value(value.trim_start()) else {
                break;
            };
            challenge.parameters.insert(word.to_ascii_lowercase(), value);
            rest = after;
        } else {
            challenges.push(Challenge {
                scheme: word.to_ascii_lowercase(),
                parameters: BTreeMap::new(),
            });
            rest = after;
        }
        rest = rest.trim_start_matches([' ', ',', '\t']);
    }
    challenges
}

fn token(text: &str) -> (&str, &str) {
    let end = text
        .find(|character: char| !(character.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(character)))
        .unwrap_or(text.len());
    text.split_at(end)
}

fn parameter_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, rest) = token(text);
        return Some((value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[index + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let challenges = parse(
            r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push", Basic realm="x \"y\"""#,
        );
        assert_eq!(challenges.len(), 2);
        assert_eq!(challenges[0].scheme, "bearer");
        assert_eq!(challenges[0].parameter("realm"), "https://auth.example/token");
        assert_eq!(challenges[0].parameter("scope"), "repository:a/b:pull,push");
        assert_eq!(challenges[1].scheme, "basic");
        assert_eq!(challenges[1].parameter("realm"), "x \"y\"");
        assert_eq!(challenges[1].parameter("none"), "");
    }

    #[test]
    fn garbage_ends_the_list() {
        assert!(parse("").is_empty());
        assert!(parse("\"\"").is_empty());
        assert_eq!(parse("Bearer realm=\"open").len(), 1);
        assert!(parse("Bearer realm=\"open")[0].parameters.is_empty());
    }

    proptest::proptest! {
        #[test]
        fn any_header_is_survived(
            header in "(Bearer|basic|,| |=|\"|\\\\|[a-z]{1,3}|[^\\x00]){0,40}",
        ) {
            for challenge in parse(&header) {
                assert!(!challenge.scheme.is_empty(), "{header:?}");
            }
        }
    }
}
