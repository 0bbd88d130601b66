//! What a group uses, as numbers.

/// A snapshot of a group's use.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Stats {}
