//! The container's configuration: loading `config.json`, checking it, and the example that `spec` prints.
//!
//! The typed form is [`oci::Spec`]. It forgets fields it does not know, so the original bytes are kept beside it.
//!
//! Refused here: documents past [`MAX_CONFIG_BYTES`], unknown values of enumerations, and everything that
//! could not be carried out faithfully. An error names the field it is about.

mod default;
mod error;
mod load;
mod locate;
mod normalize;
pub mod oci;
mod read;
mod text;
mod validate;

#[cfg(test)]
mod tests;

pub use default::{OCI_VERSION, default};
pub use error::Error;
pub use load::{CONFIG_FILE, MAX_CONFIG_BYTES, Spec, load, parse, parse_process, parse_resources};
pub(crate) use load::{load_but_profile, parse_but_profile};
pub use normalize::is_capability;
pub(crate) use text::{check_path, is_net_device_name, told};
pub use validate::{validate, validate_process};
