//! The words that callers look for in errors, which are runc's.
//!
//! The errors of this library name the kernel's answer (`mount proc on /proc: EPERM`), for people who embed it. What stands
//! between an engine and a container says the same in the words that the engine, or a script, compares with.

use crate::Error;

/// What stands before a step that failed in the new process.
const IN_INIT: &str = "unable to start container process: error during container init";

/// The message of an error; where the library's own words differ from the ones looked for, those.
#[must_use]
pub fn of(error: &Error) -> String {
    // The library's errors have their causes in their own text.
    plain(match error {
        Error::NotFound(_) => "container does not exist".to_owned(),
        Error::Exists(_) => "container with given ID already exists".to_owned(),
        Error::Step { description, errno } => {
            // Engines look for the words, people and bug reports for the name. Some steps are told in words already.
            let what = description.strip_prefix("mount ");
            let what = what.map_or_else(|| description.clone(), |what| format!("error mounting {what}"));
            match what.ends_with(&format!(": {errno}")) {
                true => format!("{IN_INIT}: {what}: {}", errno.words()),
                false => format!("{IN_INIT}: {what}"),
            }
        }
        other => other.to_string(),
    })
}

/// The kernel's answer without its number and with a small letter at the beginning, as a program in Go tells it.
#[must_use]
pub fn plain(message: String) -> String {
    let Some((before, (cause, after))) = message.rsplit_once(" (os error ").and_then(|(text, after)| {
        let (_, after) = after.split_once(')')?;
        let begins = text.rfind(": ").map_or(0, |at| at + 2);
        Some((&text[..begins], (&text[begins..], after)))
    }) else {
        return message;
    };
    let mut letters = cause.chars();
    let first = letters.next().map(|letter| letter.to_ascii_lowercase());
    let cause: String = first.into_iter().chain(letters).collect();
    format!("{before}{cause}{after}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_answer_is_told_in_words() {
        for (message, told) in [
            (
                "open /x: Not a directory (os error 20)",
                "open /x: not a directory",
            ),
            (
                "No such file or directory (os error 2)",
                "no such file or directory",
            ),
            ("a: Is a directory (os error 21): b", "a: is a directory: b"),
            ("mkdir /x: ENOENT", "mkdir /x: ENOENT"),
        ] {
            assert_eq!(plain(message.to_owned()), told);
        }
    }
}
