//! containerd's use of `google.protobuf.Any`.
//!
//! containerd's type URLs are the bare full name of the message (`containerd.events.TaskExit`), without the slash and
//! domain that other users of `Any` write; both forms are accepted when reading. Values that are not protobuf (an OCI
//! spec, say) travel as JSON under a `types.containerd.io/…` URL.

use prost::{Message, Name};
use prost_types::Any;

/// The type URL under which containerd carries an OCI runtime spec as JSON.
pub const RUNTIME_SPEC_URL: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";

/// The type URL under which containerd carries an OCI process (of an exec) as JSON.
pub const RUNTIME_PROCESS_URL: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";

/// Wraps `message` under containerd's form of its type URL.
pub fn pack<M: Message + Name>(message: &M) -> Any {
    Any {
        type_url: M::full_name(),
        value: message.encode_to_vec(),
    }
}

/// Reads `any` as an `M`; `None` when it names another type.
///
/// # Errors
///
/// The bytes are not an encoding of `M`.
pub fn unpack<M: Message + Name + Default>(any: &Any) -> Result<Option<M>, prost::DecodeError> {
    let name = any.type_url.rsplit('/').next().unwrap_or_default();
    if name == M::full_name() {
        M::decode(any.value.as_slice()).map(Some)
    } else {
        Ok(None)
    }
}
