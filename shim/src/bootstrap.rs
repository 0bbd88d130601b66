//! What `start` reads on its standard input and answers on its standard output, in the forms of all containerds.
//!
//! Input: `BootstrapParams` since 2.3, taken as that only when its instance id and namespace are those of the command
//! line; before, a `google.protobuf.Any` of the runtime options, or nothing. Output: the bare address when
//! `MAX_SHIM_VERSION` is not set, JSON otherwise.

use std::io::Read;
use std::path::PathBuf;

use prost::Message;
use prost_types::Any;
use wharf_proto::any::unpack;
use wharf_proto::containerd::runc::v1::Options;
use wharf_proto::containerd::runtime::bootstrap::v1::BootstrapParams;

use crate::flags::Flags;

/// The most that is read from standard input.
const LIMIT: u64 = 10 << 20;

/// The newest version of the protocol that we speak.
const VERSION: u32 = 3;

/// Why the input was refused.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// It could not be read.
    #[error("read standard input: {0}")]
    Read(#[from] std::io::Error),
    /// There is too much of it.
    #[error("standard input has more than {LIMIT} bytes")]
    TooLong,
    /// It is no message that a daemon sends.
    #[error("standard input is neither BootstrapParams nor Any: {0}")]
    Decode(#[from] prost::DecodeError),
}

/// What a daemon tells a starting shim.
#[derive(Debug, Default, PartialEq)]
pub struct Bootstrap {
    /// The runtime options.
    pub options: Option<Options>,
    /// Where the socket shall be.
    pub socket_directory: Option<PathBuf>,
    /// Where events are published.
    pub ttrpc_address: Option<String>,
    /// Whether the daemon logs debug lines.
    pub debug: bool,
    /// Whether it came as `BootstrapParams`: such a daemon takes any version. To shims that do not know the message, it
    /// names an older one in the environment.
    pub is_message: bool,
}

/// Reads standard input to its end.
///
/// # Errors
///
/// It fails, or does not end in bounds.
pub fn read_input(input: impl Read) -> Result<Vec<u8>, BootstrapError> {
    let mut bytes = Vec::new();
    input.take(LIMIT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LIMIT {
        return Err(BootstrapError::TooLong);
    }
    Ok(bytes)
}

impl Bootstrap {
    /// Reads the message `bytes` in the light of the command line.
    ///
    /// # Errors
    ///
    /// It is neither form. Options of a type that is not runc's are no error: they are not for us.
    pub fn parse(bytes: &[u8], flags: &Flags) -> Result<Bootstrap, BootstrapError> {
        if let Ok(params) = BootstrapParams::decode(bytes)
            && params.instance_id == flags.id
            && params.namespace == flags.namespace
        {
            let mut options = None;
            for value in params
                .extensions
                .iter()
                .filter_map(|extension| extension.value.as_ref())
            {
                options = unpack::<Options>(value)?.or(options);
            }
            return Ok(Bootstrap {
                options,
                socket_directory: params.socket_dir.filter(|dir| !dir.is_empty()).map(PathBuf::from),
                ttrpc_address: Some(params.containerd_ttrpc_address).filter(|address| !address.is_empty()),
                debug: params.log_level < 0,
                is_message: true,
            });
        }
        let options = if bytes.is_empty() {
            None
        } else {
            unpack(&Any::decode(bytes)?)?
        };
        Ok(Bootstrap {
            options,
            ..Bootstrap::default()
        })
    }
}

/// What `start` prints for `address` to a daemon that sent `BootstrapParams`.
pub fn newest_answer(address: &str) -> String {
    answer(address, Some(&VERSION.to_string()))
}

/// What `start` prints for `address` when the environment has `max_version` as its `MAX_SHIM_VERSION`.
pub fn answer(address: &str, max_version: Option<&str>) -> String {
    let Some(max_version) = max_version else {
        return address.to_owned();
    };
    let version = max_version
        .parse()
        .map_or(2, |version: u32| version.clamp(2, VERSION));
    serde_json::json!({ "version": version, "address": address, "protocol": "ttrpc" }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use wharf_proto::any::pack;
    use wharf_proto::containerd::runtime::bootstrap::v1::Extension;

    fn flags() -> Flags {
        Flags {
            id: "c1".into(),
            namespace: "ns".into(),
            ..Flags::default()
        }
    }

    #[test]
    fn both_inputs_are_told_apart() {
        let options = Options {
            binary_name: "runc".into(),
            ..Options::default()
        };
        let old = Bootstrap::parse(&pack(&options).encode_to_vec(), &flags()).unwrap();
        assert_eq!(old.options, Some(options.clone()));
        let params = BootstrapParams {
            instance_id: "c1".into(),
            namespace: "ns".into(),
            log_level: -4,
            containerd_ttrpc_address: "/t".into(),
            socket_dir: Some("/s".into()),
            extensions: vec![Extension {
                value: Some(pack(&options)),
            }],
            ..BootstrapParams::default()
        };
        let new = Bootstrap::parse(&params.encode_to_vec(), &flags()).unwrap();
        let expected = Bootstrap {
            options: Some(options),
            socket_directory: Some("/s".into()),
            ttrpc_address: Some("/t".into()),
            debug: true,
            is_message: true,
        };
        assert_eq!(new, expected);
        assert_eq!(Bootstrap::parse(b"", &flags()).unwrap(), Bootstrap::default());
        assert!(Bootstrap::parse(b"\xff\xff", &flags()).is_err());
    }

    #[test]
    fn the_answer_has_the_form_that_was_asked_for() {
        assert_eq!(answer("unix:///s", None), "unix:///s");
        let json: serde_json::Value = serde_json::from_str(&answer("unix:///s", Some("2"))).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"version": 2, "address": "unix:///s", "protocol": "ttrpc"})
        );
        assert!(answer("unix:///s", Some("9")).contains("\"version\":3"));
        assert!(newest_answer("unix:///s").contains("\"version\":3"));
    }
}
