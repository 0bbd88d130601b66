//! `linux.netDevices`: which devices of the host a container takes over, and what they are called there.

/// A network device of the host for the container's network namespace.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NetDevice {
    /// Its name where the runtime is.
    pub host: String,
    /// Its name in the container.
    pub container: String,
}
