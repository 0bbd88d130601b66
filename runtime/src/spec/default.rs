//! The example configuration: what `spec` writes, with the content of runc's.
//!
//! Kept as documents and not as typed values, so that order and layout are those that users know.

/// The version of the OCI runtime specification that is followed.
pub const OCI_VERSION: &str = "1.3.0";

const EXAMPLE: &str = include_str!("example.json");
const ROOTLESS: &str = include_str!("example-rootless.json");
const MOUNT_NAMESPACE: &str = "{\n\t\t\t\t\"type\": \"mount\"\n\t\t\t}";
const WITH_CGROUP_NAMESPACE: &str =
    "{\n\t\t\t\t\"type\": \"mount\"\n\t\t\t},\n\t\t\t{\n\t\t\t\t\"type\": \"cgroup\"\n\t\t\t}";

/// A configuration that runs `sh` in `rootfs`, pretty printed with tabs.
///
/// With `rootless` it is for the user with these ids `(uid, gid)` and no privileges: a user namespace, the host's
/// network, and no limits. With `cgroup_namespace` the container gets one, as is usual on v2 hosts.
#[must_use]
pub fn default(rootless: Option<(u32, u32)>, cgroup_namespace: bool) -> String {
    let mut text = match rootless {
        None => EXAMPLE.to_owned(),
        Some((uid, gid)) => ROOTLESS
            .replace("\"@UID@\"", &uid.to_string())
            .replace("\"@GID@\"", &gid.to_string()),
    };
    if cgroup_namespace {
        text = text.replace(MOUNT_NAMESPACE, WITH_CGROUP_NAMESPACE);
    }
    text.replace("@VERSION@", OCI_VERSION)
}
