//! Debian's `docker-registry` on loopback.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use crate::daemon::Daemon;
use crate::{Scratch, binaries, run};

/// A running registry.
#[derive(Debug)]
pub struct Registry {
    port: u16,
    storage: PathBuf,
    /// The process.
    pub daemon: Daemon,
}

impl Registry {
    /// Starts a registry with its storage below `scratch`.
    ///
    /// # Panics
    ///
    /// It is not installed or does not come up.
    pub fn start(scratch: &Scratch) -> Registry {
        let home = scratch.directory("registry");
        let port = free_port();
        let storage = home.join("storage");
        let config = home.join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\nhttp:\n  addr: 127.0.0.1:{port}\n",
            storage.display()
        );
        fs::write(&config, text).expect("write the registry's configuration");
        let daemon = Daemon::start(
            Command::new(binaries::peer("docker-registry"))
                .arg("serve")
                .arg(&config),
            &home.join("log"),
            || TcpStream::connect(("127.0.0.1", port)).is_ok(),
        );
        Registry {
            port,
            storage,
            daemon,
        }
    }

    /// The reference of `repository:tag` in this registry.
    pub fn reference(&self, name: &str) -> String {
        format!("127.0.0.1:{}/{name}", self.port)
    }

    /// Pushes the image `tag` of an OCI layout and gives its reference.
    ///
    /// # Panics
    ///
    /// skopeo is not installed or refuses.
    pub fn push(&self, layout: &std::path::Path, tag: &str, name: &str) -> String {
        let reference = self.reference(name);
        run(Command::new(binaries::peer("skopeo"))
            .args(["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"])
            .arg(format!("oci:{}:{tag}", layout.display()))
            .arg(format!("docker://{reference}")))
        .ok();
        reference
    }

    /// The file in which the registry keeps the blob `sha256:HEX`: for tests that damage it.
    pub fn blob(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").expect("a sha256 digest");
        self.storage
            .join("docker/registry/v2/blobs/sha256")
            .join(&hex[..2])
            .join(hex)
            .join("data")
    }
}

/// A TCP port on loopback that nothing listens on.
///
/// # Panics
///
/// Loopback has no free port.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port()
}
