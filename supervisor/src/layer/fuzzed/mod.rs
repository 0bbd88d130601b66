//! What the fuzz targets of layers do with their input; the tests of this module use the same parts.

mod apply;
pub(super) mod archive;
mod compare;
pub(super) mod generate;
pub(super) mod host;

pub use apply::apply;
pub use compare::compare;
