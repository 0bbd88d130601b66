//! The words of a command's error.

use wharf_runtime::{Error, words};

/// The message of an error; where the library's own words differ from the ones looked for, those.
pub(super) fn of(error: &anyhow::Error) -> String {
    let Some(known) = error.chain().find_map(|cause| cause.downcast_ref::<Error>()) else {
        return words::plain(format!("{error:#}"));
    };
    // What stands before it, such as "run failed", stays.
    let before: Vec<String> = error
        .chain()
        .take_while(|cause| cause.downcast_ref::<Error>().is_none())
        .map(|cause| format!("{cause}: "))
        .collect();
    words::plain(format!("{}{}", before.concat(), words::of(known)))
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
