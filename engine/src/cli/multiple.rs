//! Verbs on several objects: each is done whatever becomes of the others, and named when it is done.
//!
//! Owns the order of the output, which is that of the arguments, and a bound on how many are done at once.

use std::io::Write as _;

use futures_util::stream::{self, StreamExt as _};

use super::failure::{FAILED, Failure, Outcome};

/// How many objects are worked on at a time.
const AT_ONCE: usize = 16;

/// Does `act` to each name; prints what it gives, if anything, one a line, and every failure; exit code 1 if there was any.
pub(crate) async fn for_each<'a, F>(names: &'a [String], act: impl Fn(&'a str) -> F) -> Outcome
where
    F: Future<Output = Result<Option<String>, Failure>>,
{
    let checked = async |name: &'a str| {
        if name.trim_matches('/').is_empty() {
            return Err(Failure::new("Error: the name of a container is empty"));
        }
        act(name.strip_prefix('/').unwrap_or(name)).await
    };
    let mut results = stream::iter(names).map(|name| checked(name)).buffered(AT_ONCE);
    let mut failed = false;
    while let Some(result) = results.next().await {
        match result {
            Ok(Some(line)) => writeln!(std::io::stdout(), "{line}")?,
            Ok(None) => {}
            Err(failure) => {
                super::report(&failure, false);
                failed = true;
            }
        }
    }
    if failed {
        Err(Failure::silent(FAILED))
    } else {
        Ok(0)
    }
}
