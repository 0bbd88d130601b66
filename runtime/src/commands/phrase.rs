//! The words that callers look for in errors, which are runc's.

use wharf_runtime::Error;

/// What stands before a step that failed in the new process.
const IN_INIT: &str = "unable to start container process: error during container init";

/// The message of an error; where the library's own words differ from the ones looked for, those.
pub(super) fn of(error: &anyhow::Error) -> String {
    let Some(known) = error.chain().find_map(|cause| cause.downcast_ref::<Error>()) else {
        return in_go_words(format!("{error:#}"));
    };
    // The library's errors have their causes in their own text.
    let phrase = match known {
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
    };
    // What stands before it, such as "run failed", stays.
    let before: Vec<String> = error
        .chain()
        .take_while(|cause| cause.downcast_ref::<Error>().is_none())
        .map(|cause| format!("{cause}: "))
        .collect();
    in_go_words(format!("{}{phrase}", before.concat()))
}

/// The kernel's answer without its number and with a small letter at the beginning, as a program in Go tells it.
fn in_go_words(message: String) -> String {
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

/// What the program itself would have said, when the kernel would not execute it.
pub(super) fn program_error(error: &anyhow::Error) -> Option<String> {
    let known = error.chain().find_map(|cause| cause.downcast_ref::<Error>());
    known
        .filter(|known| matches!(known, Error::Execute { .. }))
        .map(ToString::to_string)
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;
    use wharf_runtime::ContainerId;

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
            assert_eq!(in_go_words(message.to_owned()), told);
        }
    }

    #[test]
    fn known_errors_have_the_phrases_that_callers_look_for() {
        let id = || ContainerId::new("box").unwrap();
        assert_eq!(of(&Error::NotFound(id()).into()), "container does not exist");
        let nested: anyhow::Result<()> = Err(Error::Exists(id())).context("run failed");
        assert_eq!(
            of(&nested.unwrap_err()),
            "run failed: container with given ID already exists"
        );
        let other: anyhow::Result<()> = Err(Error::Unsupported("flying".into())).context("run failed");
        assert_eq!(of(&other.unwrap_err()), "run failed: flying is not supported yet");
    }
}
