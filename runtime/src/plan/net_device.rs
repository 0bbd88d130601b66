//! `linux.netDevices`: which devices of the host a container takes over, and what they are called there.

use super::{Error, Namespaces};
use crate::spec::{is_net_device_name, oci};

/// A network device of the host for the container's network namespace.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NetDevice {
    /// Its name where the runtime is.
    pub host: String,
    /// Its name in the container.
    pub container: String,
}

/// Compiles the devices, by their names on the host.
pub(super) fn compile(linux: &oci::Linux, namespaces: &Namespaces) -> Result<Vec<NetDevice>, Error> {
    if linux.net_devices.is_empty() {
        return Ok(Vec::new());
    }
    if !namespaces.has(libc::CLONE_NEWNET) {
        return Err(Error::field(
            "linux.netDevices",
            "unable to move network devices without a NET namespace",
        ));
    }
    let mut devices: Vec<NetDevice> = Vec::with_capacity(linux.net_devices.len());
    for (host, device) in &linux.net_devices {
        let container = match device.name.as_str() {
            "" => host,
            name => name,
        };
        for name in [host.as_str(), container] {
            if !is_net_device_name(name) {
                let problem = format!("invalid network device name {name:?}");
                return Err(Error::field(format!("linux.netDevices.{host}"), problem));
            }
        }
        if devices.iter().any(|known| known.container == container) {
            let problem = format!("two devices would be {container:?} in the container");
            return Err(Error::field("linux.netDevices", problem));
        }
        devices.push(NetDevice {
            host: host.clone(),
            container: container.to_owned(),
        });
    }
    Ok(devices)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(devices: &[(&str, &str)]) -> Result<Vec<NetDevice>, Error> {
        let mut linux = oci::Linux::default();
        for (host, name) in devices {
            let device = oci::LinuxNetDevice {
                name: (*name).to_owned(),
            };
            linux.net_devices.insert((*host).to_owned(), device);
        }
        let namespaces = Namespaces {
            create: libc::CLONE_NEWNET as u64,
            ..Namespaces::default()
        };
        compile(&linux, &namespaces)
    }

    #[test]
    fn a_device_keeps_its_name_unless_it_gets_one() {
        let devices = compiled(&[("eth1", ""), ("eth2", "data")]).unwrap();
        let names: Vec<_> = devices.iter().map(|device| device.container.as_str()).collect();
        assert_eq!(names, ["eth1", "data"]);
    }

    #[test]
    fn names_that_are_none_or_that_clash_are_refused() {
        for name in [
            ".",
            "..",
            "a/b",
            "a:b",
            "a b",
            "a\tb",
            "eth%d",
            "0123456789abcdef",
        ] {
            assert!(compiled(&[("eth1", name)]).is_err(), "{name:?}");
            assert!(compiled(&[(name, "eth1")]).is_err(), "{name:?}");
        }
        assert!(compiled(&[("0123456789abcde", "")]).is_ok());
        assert!(compiled(&[("eth1", "eth0"), ("eth2", "eth0")]).is_err());
        let mut linux = oci::Linux::default();
        linux
            .net_devices
            .insert("eth1".into(), oci::LinuxNetDevice::default());
        assert!(compile(&linux, &Namespaces::default()).is_err());
    }
}
