//! What is answered otherwise than by the peer, and why; and what newer containerds answer in services that 1.6 lacks.

use tonic::Code;

use crate::call::Outcome;

/// The answer that is expected whatever the peer says, for the cases of `method` whose name begins so.
type Line = (&'static str, &'static str, Outcome, &'static str);

/// Where `wharfd` answers otherwise: method, beginning of the case's name, its answer, reason.
const DIFFERENCES: &[Line] = &[];

/// What containerd 2.3 answers in services that Debian's lacks: method, beginning of the case's name, answer.
const NEWER: &[(&str, &str, Outcome)] = &[];

/// The answer to `case`, if it is another than the peer's.
pub(crate) fn difference(method: &str, case: &str) -> Option<Outcome> {
    let line = DIFFERENCES
        .iter()
        .find(|(of, prefix, ..)| *of == method && case.starts_with(prefix))?;
    Some(line.2)
}

/// What a newer containerd answers.
pub(crate) fn newer(method: &str, case: &str) -> Option<Outcome> {
    let line = NEWER
        .iter()
        .find(|(of, prefix, _)| *of == method && case.starts_with(prefix))?;
    Some(line.2)
}
