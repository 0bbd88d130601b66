//! `/etc/hostname`, `/etc/hosts` and `/etc/resolv.conf` of a container.
//!
//! They are made in the container's own directory and bind-mounted, so they can be changed from inside and are gone with
//! the container.

use crate::api::types::HostConfig;
use crate::error::{Error, Result};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;

const LOCALHOST: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";

/// The three files.
#[derive(Debug, PartialEq, Eq)]
pub struct NetworkFiles {
    hostname: String,
    hosts: String,
    resolv_conf: String,
}

impl NetworkFiles {
    /// What the files say for this request. With `own_network`, the container has loopback only.
    ///
    /// # Errors
    ///
    /// An extra host or a name server that is not an address.
    pub fn new(hostname: &str, domainname: &str, host: &HostConfig, own_network: bool) -> Result<Self> {
        let mut hosts = if own_network {
            LOCALHOST.to_owned()
        } else {
            std::fs::read_to_string("/etc/hosts").unwrap_or_else(|_| LOCALHOST.to_owned())
        };
        if own_network {
            let full = if domainname.is_empty() {
                hostname.to_owned()
            } else {
                format!("{hostname}.{domainname} {hostname}")
            };
            writeln!(hosts, "127.0.0.1\t{full}").ok();
        }
        for entry in &host.extra_hosts {
            let invalid = || Error::invalid(format!("bad format for add-host: {entry:?}"));
            let (name, address) = entry.split_once([':', '=']).ok_or_else(invalid)?;
            if address == "host-gateway" {
                return Err(Error::not_supported("ExtraHosts: host-gateway"));
            }
            let address: IpAddr = address.trim_matches(['[', ']']).parse().map_err(|_| invalid())?;
            if name.is_empty() || name.contains(char::is_whitespace) {
                return Err(invalid());
            }
            writeln!(hosts, "{address}\t{name}").ok();
        }
        Ok(Self {
            hostname: format!("{hostname}\n"),
            hosts,
            resolv_conf: resolv_conf(host)?,
        })
    }

    /// Writes them into `directory`.
    ///
    /// # Errors
    ///
    /// A file cannot be written.
    pub fn write(&self, directory: &Path) -> Result<()> {
        for (name, text) in [
            ("hostname", &self.hostname),
            ("hosts", &self.hosts),
            ("resolv.conf", &self.resolv_conf),
        ] {
            let path = directory.join(name);
            std::fs::write(&path, text).map_err(|error| Error::io("write", &path, error))?;
        }
        Ok(())
    }
}

fn resolv_conf(host: &HostConfig) -> Result<String> {
    let inherited = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    if host.dns.is_empty() && host.dns_search.is_empty() && host.dns_options.is_empty() {
        return Ok(inherited);
    }
    let kept = |keyword: &'static str, replaced: bool| {
        inherited
            .lines()
            .filter(move |line| !replaced && line.split_whitespace().next() == Some(keyword))
            .map(|line| format!("{line}\n"))
            .collect::<String>()
    };
    let mut text = String::new();
    for server in &host.dns {
        let address: IpAddr = server
            .parse()
            .map_err(|_| Error::invalid(format!("{server:?} is not an ip address")))?;
        writeln!(text, "nameserver {address}").ok();
    }
    text.push_str(&kept("nameserver", !host.dns.is_empty()));
    for (keyword, words) in [("search", &host.dns_search), ("options", &host.dns_options)] {
        if let Some(word) = words.iter().find(|word| word.contains(char::is_whitespace)) {
            return Err(Error::invalid(format!("invalid DNS {keyword} entry {word:?}")));
        }
        // A lone dot means no search domains at all.
        if !words.is_empty() && words.as_slice() != ["."] {
            writeln!(text, "{keyword} {}", words.join(" ")).ok();
        }
        text.push_str(&kept(keyword, !words.is_empty()));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn files_say_what_was_asked() {
        let host = HostConfig {
            extra_hosts: words("db:10.0.0.1 v6:[fe80::1]"),
            dns: words("10.0.0.53"),
            dns_search: words("a.example b.example"),
            dns_options: words("ndots:2"),
            ..Default::default()
        };
        let files = NetworkFiles::new("web", "a.example", &host, true).unwrap();
        assert!(
            files
                .hosts
                .ends_with("127.0.0.1\tweb.a.example web\n10.0.0.1\tdb\nfe80::1\tv6\n"),
            "{}",
            files.hosts
        );
        assert_eq!(
            files.resolv_conf,
            "nameserver 10.0.0.53\nsearch a.example b.example\noptions ndots:2\n"
        );
        assert_eq!(files.hostname, "web\n");
    }

    #[test]
    fn bad_entries_are_refused() {
        for host in [
            HostConfig {
                extra_hosts: words("db"),
                ..Default::default()
            },
            HostConfig {
                extra_hosts: words("db:x"),
                ..Default::default()
            },
            HostConfig {
                extra_hosts: words("db:host-gateway"),
                ..Default::default()
            },
            HostConfig {
                dns: words("ns.example"),
                ..Default::default()
            },
            HostConfig {
                dns_search: vec!["a\nnameserver 1.2.3.4".to_owned()],
                ..Default::default()
            },
        ] {
            assert!(NetworkFiles::new("h", "", &host, true).is_err(), "{host:?}");
        }
    }
}
