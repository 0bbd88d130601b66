//! Re-indents JSON without reading it: members keep the daemon's order, and numbers their digits.
//!
//! Refuses nothing: the input comes from a JSON parser.

/// `document`, which must be valid JSON, with four spaces of indentation a level, as `inspect` prints it.
pub(crate) fn indent(document: &str) -> String {
    let mut text = String::with_capacity(document.len() * 2);
    let mut level = 0;
    let mut in_string = false;
    let mut escaped = false;
    let mut characters = document.chars().peekable();
    let line = |text: &mut String, level: usize| {
        text.push('\n');
        text.extend(std::iter::repeat_n("    ", level));
    };
    while let Some(c) = characters.next() {
        if in_string {
            text.push(c);
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
            continue;
        }
        match c {
            '"' => {
                in_string = true;
                text.push(c);
            }
            '{' | '[' => {
                text.push(c);
                while characters.next_if(char::is_ascii_whitespace).is_some() {}
                if let Some(close) = characters.next_if(|c| matches!(c, '}' | ']')) {
                    text.push(close);
                } else {
                    level += 1;
                    line(&mut text, level);
                }
            }
            '}' | ']' => {
                level -= 1;
                line(&mut text, level);
                text.push(c);
            }
            ',' => {
                text.push(c);
                line(&mut text, level);
            }
            ':' => text.push_str(": "),
            c if c.is_ascii_whitespace() => {}
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_text_stay() {
        let document = r#"{"b": [1.50, {}], "a":{"x":"a,\"{:\\"},"e" : [ ] }"#;
        let indented = "{\n    \"b\": [\n        1.50,\n        {}\n    ],\n    \"a\": {\n        \"x\": \"a,\\\"{:\\\\\"\n    },\n    \"e\": []\n}";
        assert_eq!(indent(document), indented);
        assert_eq!(indent(indented), indented);
    }
}
