//! Which hosts stand for a registry: `hosts.toml`, as containerd reads it from its `certs.d` directories
//! (<https://github.com/containerd/containerd/blob/main/docs/hosts.md>).
//!
//! ```toml
//! server = "https://registry.example"          # the registry itself, asked last
//! ca = "/etc/ca.pem"
//! [host."https://mirror.example"]              # asked before it, in the order of the file
//!   capabilities = ["pull", "resolve"]         # and "push", "referrers"; all when there are none
//!   ca = ["a.pem", "b.pem"]                    # relative to the file
//!   client = [["cert.pem", "key.pem"]]
//!   skip_verify = false
//!   override_path = false                      # whether the URL's path is whole, without /v2
//!   dial_timeout = "5s"
//!   [host."https://mirror.example".header]
//!     x-team = ["a", "b"]
//! ```
//!
//! Below each directory, `HOST_PORT_`, `HOST:PORT` and `_default` are looked at, in this order. A directory without
//! `hosts.toml` may hold Docker's files: `*.crt` are authorities, `*.cert` with `*.key` are shown.
//!
//! Refuses a file that is not understood: to go on without a mirror's authority, or without a mirror, is not what it says.
//! Keys that are not known are logged and left alone, as containerd leaves them alone.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use hyper::{
    HeaderMap, Uri,
    header::{HeaderName, HeaderValue},
};
use serde::Deserialize;
use toml::Spanned;

use super::{Reference, tls::Tls};
use crate::error::{Error, Result};

/// The longest `hosts.toml`.
const MAX_FILE: u64 = 1 << 20;

/// What a host is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Capabilities {
    /// Content by digest.
    pub(super) pull: bool,
    /// What a tag means now.
    pub(super) resolve: bool,
    /// To take content.
    pub(super) push: bool,
    /// What refers to an image.
    pub(super) referrers: bool,
}

impl Capabilities {
    const ALL: Self = Self {
        pull: true,
        resolve: true,
        push: true,
        referrers: true,
    };
}

/// One host that stands for a registry.
#[derive(Debug, Clone)]
pub(super) struct Host {
    /// `scheme://host[:port]/path/v2/`.
    pub(super) root: String,
    pub(super) capabilities: Capabilities,
    pub(super) tls: Tls,
    /// Sent along with each request.
    pub(super) headers: HeaderMap,
    pub(super) dial_timeout: Option<Duration>,
}

impl Host {
    /// The registry of `reference` itself, without any configuration.
    pub(super) fn server(reference: &Reference, plain: bool) -> Self {
        let scheme = if plain { "http" } else { "https" };
        Self {
            root: format!("{scheme}://{}/v2/", reference.endpoint()),
            capabilities: Capabilities::ALL,
            tls: Tls::default(),
            headers: HeaderMap::new(),
            dial_timeout: None,
        }
    }
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    host: BTreeMap<Spanned<String>, Entry>,
}

/// A host's table, and what the file says of the server.
#[derive(Deserialize, Default)]
struct Entry {
    server: Option<String>,
    #[serde(default)]
    capabilities: Vec<String>,
    ca: Option<OneOrMany<PathBuf>>,
    client: Option<OneOrMany<Pair>>,
    #[serde(default)]
    skip_verify: bool,
    #[serde(default)]
    header: BTreeMap<String, OneOrMany<String>>,
    #[serde(default)]
    override_path: bool,
    dial_timeout: Option<String>,
    /// The tables of the hosts, where this is the file itself.
    #[serde(rename = "host")]
    _hosts: Option<serde::de::IgnoredAny>,
    #[serde(flatten)]
    unknown: BTreeMap<String, serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    fn into_vec(self) -> Vec<T> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Pair {
    Both(PathBuf),
    Apart(PathBuf, PathBuf),
}

/// The hosts for the registry of `reference` by the first of `directories` that speaks of it, in the order in which they
/// are asked; `plain` says whether the registry itself is spoken to without TLS where no file says. Blocks on the files.
///
/// # Errors
///
/// `InvalidArgument` naming the file that is not understood.
pub(super) fn load(directories: &[PathBuf], reference: &Reference, plain: bool) -> Result<Vec<Host>> {
    for directory in directories {
        for name in names(reference.host()) {
            if let Some(hosts) = read(&directory.join(name), reference, plain)? {
                return Ok(hosts);
            }
        }
    }
    Ok(vec![Host::server(reference, plain)])
}

/// The names of the directories that may speak of `host`.
fn names(host: &str) -> Vec<String> {
    let mut names = Vec::new();
    if let Some((name, port)) = host.rsplit_once(':').filter(|(_, port)| !port.contains(']')) {
        names.push(format!("{name}_{port}_"));
    }
    names.extend([host.to_owned(), "_default".to_owned()]);
    names
}

fn read(directory: &Path, reference: &Reference, plain: bool) -> Result<Option<Vec<Host>>> {
    let path = directory.join("hosts.toml");
    match fs::metadata(&path) {
        Ok(metadata) if metadata.len() > MAX_FILE => {
            return Err(refused(&path, &format!("longer than {MAX_FILE} bytes")));
        }
        Ok(_) => {}
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return docker_files(directory, reference, plain);
        }
        Err(error) => return Err(Error::io(format!("stat {}", path.display()), error)),
    }
    let text =
        fs::read_to_string(&path).map_err(|error| Error::io(format!("read {}", path.display()), error))?;
    parse(&text, directory, reference, plain)
        .map(Some)
        .map_err(|reason| refused(&path, &reason))
}

fn refused(path: &Path, reason: &str) -> Error {
    Error::invalid(format!("{}: {reason}", path.display()))
}

pub(super) fn parse(
    text: &str,
    directory: &Path,
    reference: &Reference,
    plain: bool,
) -> Result<Vec<Host>, String> {
    let failed = |error: toml::de::Error| error.message().to_owned();
    let file: File = toml::from_str(text).map_err(failed)?;
    let server: Entry = toml::from_str(text).map_err(failed)?;
    let mut entries: Vec<_> = file.host.into_iter().collect();
    entries.sort_by_key(|(url, _)| url.span().start);
    let mut hosts = Vec::new();
    for (url, entry) in entries {
        let url = url.into_inner();
        hosts.push(host(&url, entry, directory).map_err(|reason| format!("host {url:?}: {reason}"))?);
    }
    let url = match &server.server {
        Some(url) if url.contains("://") => url.clone(),
        Some(host) => format!("https://{host}"),
        None => {
            let scheme = if plain { "http" } else { "https" };
            format!("{scheme}://{}", reference.endpoint())
        }
    };
    hosts.push(host(&url, server, directory).map_err(|reason| format!("server {url:?}: {reason}"))?);
    Ok(hosts)
}

fn host(url: &str, entry: Entry, directory: &Path) -> Result<Host, String> {
    for key in entry.unknown.keys() {
        tracing::warn!(host = url, key, "a key of hosts.toml that is not known");
    }
    let absolute = match url.contains("://") {
        true => url.to_owned(),
        false => format!("https://{url}"),
    };
    let uri: Uri = absolute.parse().map_err(|_malformed| "malformed URL")?;
    let authority = uri.authority().ok_or("no host in the URL")?.as_str();
    // `https:/host` without its second slash would be a host `https` with a port that is left out.
    if uri.host().is_none_or(str::is_empty) || authority.ends_with(':') {
        return Err("no host in the URL".into());
    }
    let scheme = uri.scheme_str().unwrap_or_default();
    if !matches!(scheme, "http" | "https") || authority.contains('@') || uri.query().is_some() {
        return Err("not an http or https URL of a host and a path".into());
    }
    let path = uri.path().trim_matches('/');
    let path = match (entry.override_path, path) {
        (true, path) => path.to_owned(),
        (false, "" | "v2") => "v2".to_owned(),
        (false, path) if path.ends_with("/v2") => path.to_owned(),
        (false, path) => format!("{path}/v2"),
    };
    let slash = if path.is_empty() { "" } else { "/" };
    let at = |path: PathBuf| directory.join(path);
    let certificates = entry.client.map(OneOrMany::into_vec).unwrap_or_default();
    Ok(Host {
        root: format!("{scheme}://{authority}/{path}{slash}"),
        capabilities: capabilities(&entry.capabilities)?,
        tls: Tls {
            authorities: entry
                .ca
                .map(OneOrMany::into_vec)
                .unwrap_or_default()
                .into_iter()
                .map(at)
                .collect(),
            certificates: certificates
                .into_iter()
                .map(|pair| match pair {
                    Pair::Both(both) => (at(both), None),
                    Pair::Apart(certificate, key) => (at(certificate), Some(at(key))),
                })
                .collect(),
            skip_verify: entry.skip_verify,
        },
        headers: headers(entry.header)?,
        dial_timeout: entry.dial_timeout.as_deref().map(duration).transpose()?,
    })
}

fn capabilities(words: &[String]) -> Result<Capabilities, String> {
    if words.is_empty() {
        return Ok(Capabilities::ALL);
    }
    let mut found = Capabilities {
        pull: false,
        resolve: false,
        push: false,
        referrers: false,
    };
    for word in words {
        match word.to_lowercase().as_str() {
            "pull" => found.pull = true,
            "resolve" => found.resolve = true,
            "push" => found.push = true,
            "referrers" => found.referrers = true,
            _ => return Err(format!("unknown capability {word:?}")),
        }
    }
    Ok(found)
}

fn headers(said: BTreeMap<String, OneOrMany<String>>) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, values) in said {
        let malformed = || format!("malformed header {name:?}");
        let key = HeaderName::try_from(&name).map_err(|_malformed| malformed())?;
        for value in values.into_vec() {
            let mut value = HeaderValue::try_from(value).map_err(|_malformed| malformed())?;
            value.set_sensitive(true);
            headers.append(key.clone(), value);
        }
    }
    Ok(headers)
}

/// A duration as Go writes it: numbers with units, `1m30s`.
fn duration(text: &str) -> Result<Duration, String> {
    let malformed = || format!("malformed duration {text:?}");
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest
            .find(|character: char| !(character.is_ascii_digit() || character == '.'))
            .ok_or_else(malformed)?;
        let number: f64 = rest[..end].parse().map_err(|_malformed| malformed())?;
        rest = &rest[end..];
        let end = rest
            .find(|character: char| character.is_ascii_digit() || character == '.')
            .unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(malformed()),
        };
        let part = Duration::try_from_secs_f64(number * unit).map_err(|_overflow| malformed())?;
        total = total.checked_add(part).ok_or_else(malformed)?;
        rest = &rest[end..];
    }
    match text.is_empty() {
        true => Err(malformed()),
        false => Ok(total),
    }
}

/// The registry itself with the certificates that Docker keeps for it; `None` when there is no such directory.
fn docker_files(directory: &Path, reference: &Reference, plain: bool) -> Result<Option<Vec<Host>>> {
    let failed = |error| Error::io(format!("list {}", directory.display()), error);
    let entries = match fs::read_dir(directory) {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(None);
        }
        entries => entries.map_err(failed)?,
    };
    let mut tls = Tls::default();
    let mut files = entries
        .map(|entry| Ok(entry.map_err(failed)?.path()))
        .collect::<Result<Vec<_>>>()?;
    files.sort();
    for file in files {
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => tls.authorities.push(file),
            Some("cert") => {
                let key = file.with_extension("key");
                tls.certificates.push((file, Some(key)));
            }
            _ => {}
        }
    }
    let host = Host {
        tls,
        ..Host::server(reference, plain)
    };
    Ok(Some(vec![host]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(text: &str) -> Reference {
        text.parse().unwrap()
    }

    fn parsed(text: &str) -> Result<Vec<Host>, String> {
        parse(
            text,
            Path::new("/etc/d"),
            &reference("docker.io/library/a"),
            false,
        )
    }

    #[test]
    fn hosts_are_asked_in_the_order_of_the_file_and_the_server_last() {
        let hosts = parsed(
            r#"
            server = "https://registry-1.docker.io"
            skip_verify = true
            [host."https://z.example:444/prefix"]
              capabilities = ["pull", "resolve"]
              ca = "a.pem"
              client = [["c.pem", "k.pem"], "both.pem"]
              dial_timeout = "1m1.5s"
              [host."https://z.example:444/prefix".header]
                x-one = "1"
                x-two = ["2", "3"]
            [host."http://a.example/whole"]
              override_path = true
              capabilities = ["push"]
              future_key = 1
            [host."m.example"]
            "#,
        )
        .unwrap();
        let roots: Vec<_> = hosts.iter().map(|host| host.root.as_str()).collect();
        assert_eq!(
            roots,
            [
                "https://z.example:444/prefix/v2/",
                "http://a.example/whole/",
                "https://m.example/v2/",
                "https://registry-1.docker.io/v2/"
            ]
        );
        assert!(hosts[0].capabilities.pull && !hosts[0].capabilities.push);
        assert_eq!(hosts[0].tls.authorities, [PathBuf::from("/etc/d/a.pem")]);
        assert_eq!(hosts[0].tls.certificates.len(), 2);
        assert_eq!(hosts[0].tls.certificates[1], ("/etc/d/both.pem".into(), None));
        assert_eq!(hosts[0].headers.get_all("x-two").iter().count(), 2);
        assert_eq!(hosts[0].dial_timeout, Some(Duration::from_millis(61_500)));
        assert_eq!(hosts[2].capabilities, Capabilities::ALL);
        assert!(hosts[3].tls.skip_verify && !hosts[2].tls.skip_verify);
    }

    #[test]
    fn without_a_server_the_registry_itself_is_meant() {
        let hosts = parsed("[host.\"https://m.example/v2\"]\n").unwrap();
        assert_eq!(hosts[0].root, "https://m.example/v2/");
        assert_eq!(hosts[1].root, "https://registry-1.docker.io/v2/");
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for bad in [
            "server = 1",
            "server = \"ftp://a\"",
            "server = \"https://user@a\"",
            "[host.\"https://a?x\"]",
            "[host.\"https://:/a\"]",
            "[host.\"https:/a\"]",
            "[host.\"https://a\"]\ncapabilities = [\"all\"]",
            "[host.\"https://a\"]\ndial_timeout = \"5\"",
            "[host.\"https://a\"]\ndial_timeout = \"5000000000000000h5000000000000000h\"",
            "[host.\"https://a\"]\nca = 5",
            "[host.\"https://a\".header]\n\"x y\" = \"1\"",
        ] {
            assert!(parsed(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn directories_are_named_by_host_and_port() {
        assert_eq!(names("a.b:5000"), ["a.b_5000_", "a.b:5000", "_default"]);
        assert_eq!(names("[::1]"), ["[::1]", "_default"]);
        let directory = tempfile::tempdir().unwrap();
        let certs = directory.path().join("a.b:5000");
        fs::create_dir(&certs).unwrap();
        for name in ["ca.crt", "me.cert", "me.key", "note.txt"] {
            fs::write(certs.join(name), "").unwrap();
        }
        let hosts = load(&[directory.path().into()], &reference("a.b:5000/x"), false).unwrap();
        assert_eq!(hosts[0].root, "https://a.b:5000/v2/");
        assert_eq!(hosts[0].tls.authorities, [certs.join("ca.crt")]);
        assert_eq!(
            hosts[0].tls.certificates,
            [(certs.join("me.cert"), Some(certs.join("me.key")))]
        );
        let other = load(&[directory.path().into()], &reference("localhost/x"), true).unwrap();
        assert_eq!(other[0].root, "http://localhost/v2/");
        fs::create_dir(directory.path().join("_default")).unwrap();
        fs::write(directory.path().join("_default/hosts.toml"), "server = [").unwrap();
        let error = load(&[directory.path().into()], &reference("localhost/x"), true).unwrap_err();
        assert!(error.to_string().contains("_default/hosts.toml"), "{error}");
    }
}
