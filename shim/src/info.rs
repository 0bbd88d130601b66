//! `-info`: what this shim is, for daemons that ask before they use it.

use std::io::Write;

use prost::Message;
use prost_types::Any;
use wharf_proto::any::unpack;
use wharf_proto::containerd::runc::v1::Options;
use wharf_proto::containerd::types::{RuntimeInfo, RuntimeVersion};

use crate::bootstrap::{BootstrapError, read_input};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum InfoError {
    /// The options were refused.
    #[error(transparent)]
    Input(#[from] BootstrapError),
    /// The options are no runc options.
    #[error("runtime options of type {0:?} are not understood")]
    Options(String),
    /// The answer could not be printed.
    #[error("print the answer: {0}")]
    Print(#[from] std::io::Error),
}

/// Reads an `Any` of options (or nothing) from standard input and prints a `RuntimeInfo`. Blocks for the input.
///
/// # Errors
///
/// The options are not understood.
pub fn info() -> Result<(), InfoError> {
    let input = read_input(std::io::stdin())?;
    let options = if input.is_empty() {
        None
    } else {
        let any = Any::decode(input.as_slice()).map_err(BootstrapError::from)?;
        match unpack::<Options>(&any).map_err(BootstrapError::from)? {
            Some(_) => Some(any),
            None => return Err(InfoError::Options(any.type_url)),
        }
    };
    let info = RuntimeInfo {
        name: "io.containerd.wharf.v2".to_owned(),
        version: Some(RuntimeVersion {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: String::new(),
        }),
        options,
        ..RuntimeInfo::default()
    };
    let mut output = std::io::stdout();
    output.write_all(&info.encode_to_vec())?;
    Ok(output.flush()?)
}
