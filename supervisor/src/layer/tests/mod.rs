//! Layers applied to a directory: the honest ones, and a corpus of those that try to get out of it or to exhaust the host.
//!
//! Every test keeps a canary beside the target and looks at it afterwards. None needs root.

use super::fuzzed::{archive, host};

mod bounds;
mod copy_up;
mod generated;
mod honest;
mod links;
mod malformed;
mod names;
mod whiteouts;

use super::apply::Applied;
use crate::{
    Kind,
    error::{Error, Result},
};

/// The error of a layer that had to be refused, which names `entry`.
pub(super) fn refused(outcome: Result<Applied>, entry: &str) -> Error {
    let error = outcome.expect_err("the layer was accepted");
    assert_eq!(error.kind(), Kind::InvalidArgument, "{error}");
    assert!(
        error.to_string().contains(entry),
        "{error} does not name {entry:?}"
    );
    error
}
