//! The words that callers look for in errors, which are runc's.

use wharf_runtime::Error;

/// The message of an error; where the library's own words differ from the ones looked for, those.
pub(super) fn of(error: &anyhow::Error) -> String {
    let Some(known) = error.chain().find_map(|cause| cause.downcast_ref::<Error>()) else {
        return format!("{error:#}");
    };
    // The library's errors have their causes in their own text.
    let phrase = match known {
        Error::NotFound(_) => "container does not exist".to_owned(),
        Error::Exists(_) => "container with given ID already exists".to_owned(),
        other => program_error(&other.to_string()).unwrap_or_else(|| other.to_string()),
    };
    // What stands before it, such as "run failed", stays.
    let before: Vec<String> = error
        .chain()
        .take_while(|cause| cause.downcast_ref::<Error>().is_none())
        .map(|cause| format!("{cause}: "))
        .collect();
    format!("{}{phrase}", before.concat())
}

/// `exec PROGRAM: EACCES` in the words from which engines tell a program that cannot be run (exit code 126) from one
/// that is not there (127).
fn program_error(message: &str) -> Option<String> {
    let (program, errno) = message.strip_prefix("exec ")?.rsplit_once(": ")?;
    let words = match errno {
        "EACCES" => "permission denied",
        "ENOENT" => "no such file or directory",
        "ENOTDIR" => "not a directory",
        "EISDIR" => "is a directory",
        "ENOEXEC" => "exec format error",
        _ => return None,
    };
    Some(format!("exec: {program:?}: {words}"))
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;
    use wharf_runtime::ContainerId;

    use super::*;

    #[test]
    fn known_errors_have_the_phrases_that_callers_look_for() {
        let id = || ContainerId::new("box").unwrap();
        assert_eq!(of(&Error::NotFound(id()).into()), "container does not exist");
        let nested: anyhow::Result<()> = Err(Error::Exists(id())).context("run failed");
        assert_eq!(
            of(&nested.unwrap_err()),
            "run failed: container with given ID already exists"
        );
        assert_eq!(
            program_error("exec /etc: EACCES").as_deref(),
            Some("exec: \"/etc\": permission denied")
        );
        assert_eq!(program_error("mount proc on /proc: EACCES"), None);
        let other: anyhow::Result<()> = Err(Error::Unsupported("flying".into())).context("run failed");
        assert_eq!(of(&other.unwrap_err()), "run failed: flying is not supported yet");
    }
}
