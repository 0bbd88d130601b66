//! Wall-clock time as rows and responses carry it.

use prost_types::Timestamp;

/// Now, as a protobuf timestamp (UTC).
pub fn now() -> Timestamp {
    std::time::SystemTime::now().into()
}
