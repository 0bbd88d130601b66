//! The `--format` language: the part of Docker's templates that scripts use.
//!
//! Owns parsing and rendering of `{{.Field.Path}}`, `{{json .Field}}`, `{{index .Map "key"}}` and the escapes `\t` and
//! `\n` between them, over any JSON document.
//!
//! Refuses, by name, everything else of Go's templates: conditions, loops, variables, pipelines, functions.

use std::fmt::Write as _;

use serde_json::Value;

/// A parsed `--format` argument.
#[derive(Debug)]
pub(crate) struct Template(Vec<Part>);

#[derive(Debug)]
enum Part {
    Text(String),
    Field { path: Vec<String>, json: bool },
}

/// Why a template cannot be parsed or does not fit its document.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum TemplateError {
    #[error("template: \"{{{{\" without \"}}}}\" in {0:?}")]
    Unclosed(String),
    #[error(
        "template: {0:?} is not supported: use {{{{.Field}}}}, {{{{json .Field}}}} or {{{{index .Field \"key\"}}}}, \
         or --format json with a JSON tool"
    )]
    Unsupported(String),
    #[error("template: there is no field {field:?} in {path:?}")]
    NoField { field: String, path: String },
}

impl Template {
    pub(crate) fn parse(source: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut rest = source;
        while let Some((text, after)) = rest.split_once("{{") {
            let (action, after) = after
                .split_once("}}")
                .ok_or_else(|| TemplateError::Unclosed(source.to_owned()))?;
            parts.push(Part::Text(unescape(text)));
            parts.push(parse_action(action)?);
            rest = after;
        }
        parts.push(Part::Text(unescape(rest)));
        Ok(Self(parts))
    }

    /// Fills in the fields from `document`.
    pub(crate) fn render(&self, document: &Value) -> Result<String, TemplateError> {
        let mut line = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => line.push_str(text),
                Part::Field { path, json } => {
                    let value = find(document, path)?;
                    if *json {
                        line.push_str(&value.to_string());
                    } else {
                        print(&mut line, value);
                    }
                }
            }
        }
        Ok(line)
    }

    /// The line above a table: each field replaced by its heading.
    pub(crate) fn header(&self, heading: impl Fn(&str) -> String) -> String {
        self.0
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.clone(),
                Part::Field { path, .. } => path.last().map_or_else(String::new, |name| heading(name)),
            })
            .collect()
    }
}

/// Docker replaces these two outside of the template engine, so they work in shell quotes of any kind.
fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

fn parse_action(action: &str) -> Result<Part, TemplateError> {
    let unsupported = || TemplateError::Unsupported(format!("{{{{{action}}}}}"));
    let words = words(action).ok_or_else(unsupported)?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (path, keys, json): (&str, &[&str], bool) = match words.as_slice() {
        [path] => (path, &[], false),
        ["json", path] => (path, &[], true),
        ["index", path, keys @ ..] if !keys.is_empty() => (path, keys, false),
        [".Label", key] => (".Label", std::slice::from_ref(key), false),
        _ => return Err(unsupported()),
    };
    let fields = path.strip_prefix('.').ok_or_else(unsupported)?;
    let mut path: Vec<String> = Vec::new();
    if !fields.is_empty() {
        for field in fields.split('.') {
            if field.is_empty() || !field.chars().all(|c| c.is_alphanumeric() || c == '_') {
                return Err(unsupported());
            }
            path.push(field.to_owned());
        }
    }
    for key in keys {
        path.push(key.trim_matches('"').to_owned());
    }
    Ok(Part::Field { path, json })
}

/// Splits at white space outside of double quotes; `None` when a quote stays open.
fn words(action: &str) -> Option<Vec<String>> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    // A dash next to the braces trims white space in Go; there is none to trim in one-line formats.
    for c in action.trim().chars() {
        match c {
            '"' => {
                quoted = !quoted;
                words.last_mut()?.push(c);
            }
            c if c.is_whitespace() && !quoted => words.push(String::new()),
            c => words.last_mut()?.push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    (!quoted).then_some(words)
}

fn find<'a>(document: &'a Value, path: &[String]) -> Result<&'a Value, TemplateError> {
    let mut value = document;
    for field in path {
        let next = match value {
            Value::Object(map) => map.get(field),
            Value::Array(list) => field.parse::<usize>().ok().and_then(|at| list.get(at)),
            // A missing object has missing members: scripts ask containers without health for `.State.Health.Status`.
            Value::Null => Some(&Value::Null),
            _ => None,
        };
        value = next.ok_or_else(|| TemplateError::NoField {
            field: field.clone(),
            path: format!(".{}", path.join(".")),
        })?;
    }
    Ok(value)
}

/// Prints as Go's templates do: strings bare, lists as `[a b]`, maps as `map[k:v]`.
fn print(line: &mut String, value: &Value) {
    match value {
        Value::Null => line.push_str("<no value>"),
        Value::String(text) => line.push_str(text),
        Value::Bool(_) | Value::Number(_) => {
            write!(line, "{value}").expect("writing to a string does not fail");
        }
        Value::Array(list) => {
            line.push('[');
            for (at, item) in list.iter().enumerate() {
                if at > 0 {
                    line.push(' ');
                }
                print(line, item);
            }
            line.push(']');
        }
        Value::Object(map) => {
            line.push_str("map[");
            for (at, (key, item)) in map.iter().enumerate() {
                if at > 0 {
                    line.push(' ');
                }
                line.push_str(key);
                line.push(':');
                print(line, item);
            }
            line.push(']');
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn render(source: &str) -> Result<String, TemplateError> {
        let document = json!({
            "Id": "abc", "State": {"Status": "running", "Pid": 7, "Health": null},
            "Config": {"Labels": {"a.b": "c"}, "Cmd": ["sh", "-c"]},
        });
        Template::parse(source)?.render(&document)
    }

    #[test]
    fn fields_print_as_in_docker() {
        for (source, line) in [
            ("{{.State.Status}}", "running"),
            ("{{ .State.Pid }}", "7"),
            (r"{{.Id}}\t{{.State.Pid}}", "abc\t7"),
            ("{{json .State.Status}}", "\"running\""),
            ("{{.Config.Cmd}}", "[sh -c]"),
            ("{{.Config.Labels}}", "map[a.b:c]"),
            ("{{index .Config.Labels \"a.b\"}}", "c"),
            ("{{index .Config.Cmd 1}}", "-c"),
            ("{{.State.Health.Status}}", "<no value>"),
            ("no field", "no field"),
        ] {
            assert_eq!(render(source).as_deref(), Ok(line), "{source}");
        }
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        for source in [
            "{{range .Mounts}}",
            "{{if .A}}",
            "{{.A | upper}}",
            "{{len .Config.Cmd}}",
            "{{}}",
            "{{.A..B}}",
        ] {
            assert!(
                matches!(render(source), Err(TemplateError::Unsupported(_))),
                "{source}"
            );
        }
        assert!(matches!(render("{{.Id"), Err(TemplateError::Unclosed(_))));
        assert!(matches!(
            render("{{.State.Nothing}}"),
            Err(TemplateError::NoField { .. })
        ));
    }
}
