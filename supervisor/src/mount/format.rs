//! The templates in sources, targets and options: `{{ mount 0 }}` is where the first mount was made.
//!
//! The language is the part of Go's templates that such texts are made of: actions in double braces, with `-` to trim
//! blanks, that call one function with whole numbers. Refuses everything else by its text.

use super::{ActiveMount, Mount};
use crate::error::{Error, Kind, Result};

/// Fills in what `mount` says of the `made` ones.
///
/// # Errors
///
/// `Unknown`, as containerd has it, for a template that is wrong or names a mount that is not made.
pub fn fill(mount: &mut Mount, made: &[ActiveMount]) -> Result<()> {
    mount.source = text(&mount.source, made)?;
    mount.target = text(&mount.target, made)?;
    for option in &mut mount.options {
        *option = text(option, made)?;
    }
    Ok(())
}

fn text(template: &str, made: &[ActiveMount]) -> Result<String> {
    let mut filled = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (action, after) = after
            .split_once("}}")
            .ok_or_else(|| wrong(template, "unclosed action"))?;
        let (action, is_trimmed_before) = match action.strip_prefix("- ") {
            Some(action) => (action, true),
            None => (action, false),
        };
        let (action, is_trimmed_after) = match action.strip_suffix(" -") {
            Some(action) => (action, true),
            None => (action, false),
        };
        filled.push_str(if is_trimmed_before {
            before.trim_end()
        } else {
            before
        });
        filled.push_str(&call(action, made).map_err(|what| wrong(template, &what))?);
        rest = if is_trimmed_after {
            after.trim_start()
        } else {
            after
        };
    }
    filled.push_str(rest);
    Ok(filled)
}

fn call(action: &str, made: &[ActiveMount]) -> Result<String, String> {
    let words: Vec<&str> = action.split_whitespace().collect();
    let (function, arguments) = words.split_first().ok_or("missing value for command")?;
    let numbers: Vec<i64> = arguments
        .iter()
        .map(|word| {
            word.parse()
                .map_err(|_| format!("{word:?} is not a whole number"))
        })
        .collect::<Result<_, String>>()?;
    let one = |number: i64| {
        usize::try_from(number)
            .ok()
            .and_then(|index| made.get(index))
            .ok_or_else(|| format!("index out of bounds: {number}, has {} active mounts", made.len()))
    };
    let described = |number| one(number).map(|active| active.mount.clone().unwrap_or_default());
    match (*function, numbers.as_slice()) {
        ("source", &[number]) => described(number).map(|mount| mount.source),
        ("target", &[number]) => described(number).map(|mount| mount.target),
        ("mount", &[number]) => one(number).map(|active| active.mount_point.clone()),
        ("overlay", &[from, to]) => {
            // Both ends are there, so at most as many as were made are between them.
            one(from)?;
            one(to)?;
            let mut places: Vec<i64> = (from.min(to)..=from.max(to)).collect();
            if from > to {
                places.reverse();
            }
            let points: Result<Vec<&str>, String> = places
                .into_iter()
                .map(|place| one(place).map(|active| active.mount_point.as_str()))
                .collect();
            Ok(points?.join(":"))
        }
        ("source" | "target" | "mount" | "overlay", numbers) => Err(format!(
            "wrong number of arguments for {function}: {}",
            numbers.len()
        )),
        _ => Err(format!("function {function:?} not defined")),
    }
}

fn wrong(template: &str, what: &str) -> Error {
    Error::new(Kind::Unknown, format!("template {template:?}: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> Vec<ActiveMount> {
        (0..3)
            .map(|number| ActiveMount {
                mount: Some(Mount {
                    source: format!("s{number}"),
                    target: format!("t{number}"),
                    ..Mount::default()
                }),
                mount_point: format!("/m/{number}"),
                ..ActiveMount::default()
            })
            .collect()
    }

    #[test]
    fn places_are_filled_in() {
        for (template, filled) in [
            ("plain", "plain"),
            ("{{ mount 0 }}", "/m/0"),
            ("{{mount 1}}/fs", "/m/1/fs"),
            ("{{ source 2 }}-{{target 1}}", "s2-t1"),
            ("lowerdir={{ overlay 0 2 }}", "lowerdir=/m/0:/m/1:/m/2"),
            ("lowerdir={{ overlay 2 0 }}", "lowerdir=/m/2:/m/1:/m/0"),
            ("lowerdir={{ overlay 1 1 }}", "lowerdir=/m/1"),
            ("a {{- mount 0 -}} b", "a/m/0b"),
        ] {
            assert_eq!(text(template, &made()).unwrap(), filled, "{template}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (template, what) in [
            ("{{ mount 3 }}", "index out of bounds: 3, has 3"),
            ("{{ mount -1 }}", "index out of bounds: -1"),
            ("{{ overlay 0 9223372036854775807 }}", "out of bounds"),
            ("{{ mount }}", "wrong number of arguments for mount: 0"),
            ("{{ mount x }}", "\"x\" is not a whole number"),
            ("{{ exec 0 }}", "function \"exec\" not defined"),
            ("{{ mount 0 ", "unclosed action"),
            ("{{}}", "missing value"),
        ] {
            let error = text(template, &made()).unwrap_err();
            assert_eq!(error.kind(), Kind::Unknown);
            assert!(error.to_string().contains(what), "{template}: {error}");
        }
    }
}
