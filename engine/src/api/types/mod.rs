//! The JSON documents of the Docker Engine API, v1.44, as Rust types.
//!
//! Owns the shapes, served by [`crate::api::server`] and read by the client; nothing else in the project derives
//! Docker's JSON. Go clients write `null` for an empty list and leave out what is empty, and mean the same by both:
//! [`decode`] drops `null` members first, so that every field here can be a plain list, map or value with a default.
//!
//! Requests carry a `rest` map with the members that have no field here. `crate::api::refuse` judges those: a
//! member that Docker knows, with a value that asks for something, is refused by its name; one that Docker itself does
//! not know is ignored, as dockerd does.

mod container;
mod exec;
mod host_config;
mod image;
mod inspect;
mod system;

pub use container::{
    ChangeItem, ContainerConfig, ContainerSummary, CreateRequest, CreateResponse, HealthConfig,
    NetworkingConfig, PortSummary, SummaryHostConfig, TopResponse, WaitError, WaitResponse,
};
pub use exec::{ExecConfig, ExecInspect, ExecProcessConfig, ExecStart, IdResponse};
pub use host_config::{DeviceMapping, HostConfig, LogConfig, Mount, RestartPolicy, Ulimit};
pub use image::{
    ImageConfig, ImageDelete, ImageInspect, ImageSummary, JsonError, Progress, ProgressDetail, RootFs,
};
pub use inspect::{ContainerInspect, ContainerState, MountPoint, NetworkSettings};
pub use system::{
    ErrorResponse, Event, EventActor, Info, Platform, Plugins, Runtime, Version, VersionComponent,
};

use serde::de::DeserializeOwned;
use serde_json::Value;

/// The newest API version that is served, and the one the client speaks.
pub const API_VERSION: &str = "1.44";

/// The oldest API version that is accepted in a path prefix.
pub const MIN_API_VERSION: &str = "1.24";

/// A JSON object whose members are kept in order of name.
pub type Members = std::collections::BTreeMap<String, Value>;

/// Reads a document, taking a member with the value `null` for an absent one, as Go does.
///
/// # Errors
///
/// The bytes are not JSON, or a member has a type that its field cannot hold.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    let mut value: Value = serde_json::from_slice(bytes)?;
    drop_nulls(&mut value);
    serde_json::from_value(value)
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_means_absent() {
        let request: CreateRequest =
            decode(br#"{"Image":"a","Env":null,"HostConfig":{"Binds":null,"Links":null}}"#).unwrap();
        assert_eq!(request.config.image, "a");
        assert!(request.config.env.is_empty());
        assert!(request.host_config.binds.is_empty());
        assert!(request.host_config.rest.is_empty());
    }

    #[test]
    fn unknown_members_are_kept_for_judgement() {
        let request: CreateRequest = decode(br#"{"Frobnicate":1,"HostConfig":{"Links":["a"]}}"#).unwrap();
        assert!(request.rest.contains_key("Frobnicate"));
        assert!(request.host_config.rest.contains_key("Links"));
    }

    #[test]
    fn a_wrong_type_is_an_error() {
        assert!(decode::<CreateRequest>(br#"{"Env":"A=b"}"#).is_err());
    }
}
