//! `-info`: what this shim is, for daemons that ask before they use it.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use prost::Message;
use prost_types::Any;
use wharf_proto::any::unpack;
use wharf_proto::containerd::runc::v1::Options;
use wharf_proto::containerd::types::{RuntimeInfo, RuntimeVersion};

use crate::bootstrap::{BootstrapError, read_input};

/// The type of the features document of the OCI specification on the wire; its value is JSON.
const FEATURES_URL: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// The most that is read of another program's features.
const LONGEST_FEATURES: u64 = 1 << 20;

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

/// Reads an `Any` of options (or nothing) from standard input and prints a `RuntimeInfo`, with the OCI features of what makes
/// the containers: the library, or the program that the options name. Blocks for the input and for that program.
///
/// # Errors
///
/// The options are not understood.
pub fn info() -> Result<(), InfoError> {
    let input = read_input(std::io::stdin())?;
    let mut binary = String::new();
    let options = if input.is_empty() {
        None
    } else {
        let any = Any::decode(input.as_slice()).map_err(BootstrapError::from)?;
        match unpack::<Options>(&any).map_err(BootstrapError::from)? {
            Some(options) => binary = options.binary_name,
            None => return Err(InfoError::Options(any.type_url)),
        }
        Some(any)
    };
    let features = if binary.is_empty() {
        Some(wharf_runtime::features::features().to_string().into_bytes())
    } else {
        features_of(&binary)
    };
    let info = RuntimeInfo {
        name: "io.containerd.wharf.v2".to_owned(),
        version: Some(RuntimeVersion {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: String::new(),
        }),
        options,
        features: features.map(|value| Any {
            type_url: FEATURES_URL.to_owned(),
            value,
        }),
        ..RuntimeInfo::default()
    };
    let mut output = std::io::stdout();
    output.write_all(&info.encode_to_vec())?;
    Ok(output.flush()?)
}

/// What `program features` prints. `None` when it has no such command, as older ones have not: then nothing is known.
fn features_of(program: &str) -> Option<Vec<u8>> {
    let mut child = Command::new(program)
        .arg("features")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut document = Vec::new();
    let read = child
        .stdout
        .take()
        .map(|output| output.take(LONGEST_FEATURES).read_to_end(&mut document));
    let ended = child.wait().ok()?;
    let is_whole = ended.success() && matches!(read, Some(Ok(_)));
    (is_whole && serde_json::from_slice::<serde_json::Value>(&document).is_ok_and(|value| value.is_object()))
        .then_some(document)
}
