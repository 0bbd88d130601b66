//! Which points of a life a run takes, and what came of them: one that fails does not stop the others.
//!
//! `WHARF_POINTS` is how many each test takes, evenly spread, or `all`, or a range of them (`200..300`), or each
//! third of a range (`200..300/3`).

use std::panic::{AssertUnwindSafe, catch_unwind};

/// The points of `all` that this run takes: `at_most` for the gate, or what `WHARF_POINTS` says.
fn chosen(all: usize, at_most: usize) -> Vec<usize> {
    let at_most = match std::env::var("WHARF_POINTS").as_deref() {
        Err(_) => at_most,
        Ok("all") => all,
        Ok(text) => match text.split_once("..") {
            Some((first, rest)) => {
                let (end, step) = rest.split_once('/').unwrap_or((rest, "1"));
                let points = number(first)..number(end).min(all);
                return points.step_by(number(step)).collect();
            }
            None => number(text),
        },
    };
    if all <= at_most {
        return (0..all).collect();
    }
    (0..at_most).map(|index| index * all / at_most).collect()
}

fn number(text: &str) -> usize {
    text.parse()
        .expect("WHARF_POINTS is a number, a range of numbers, or `all`")
}

/// Strikes at each chosen point of `all`, and tells at the end how many there were, and which of them failed.
pub(crate) fn each(
    what: &str,
    all: usize,
    at_most: usize,
    mut strike: impl FnMut(usize) -> Result<(), String>,
) {
    let points = chosen(all, at_most);
    let mut failures = Vec::new();
    for point in &points {
        let outcome = catch_unwind(AssertUnwindSafe(|| strike(*point)))
            .unwrap_or_else(|_panic| Err("the test panicked, see above".into()));
        if let Err(error) = outcome {
            eprintln!("{what}: point {point}: {error}");
            let line = error.lines().next().unwrap_or_default();
            failures.push(format!("point {point}: {line}"));
        }
    }
    eprintln!(
        "{what}: {} of {all} points run, {} failed",
        points.len(),
        failures.len()
    );
    assert!(failures.is_empty(), "{what}:\n{}", failures.join("\n"));
}
