//! Layers that a manifest gives URLs for, because registries may not distribute them.
//!
//! The URLs are the manifest's word, so nothing of ours goes there: no credentials, no headers of a configuration, and no
//! certificates. What comes back counts by its digest only.
//!
//! Refuses other schemes than HTTP and HTTPS, URLs with a user in them, and, unless the registry itself is on this machine,
//! addresses of this machine and its link: services there take who can reach them for somebody they know.

use hyper::{HeaderMap, Method, Response, StatusCode, Uri, body::Incoming};

use super::{
    Reference,
    http::{Ask, Http, Payload, without_query},
    retry,
    tls::Tls,
};
use crate::error::{Error, Result};

/// One URL.
pub(super) struct Foreign {
    http: Http,
    uri: Uri,
    /// Whether this machine is out of bounds.
    far: bool,
}

impl Foreign {
    /// The URL `url` of a layer of an image in the registry of `reference`.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for a URL that is refused.
    pub(super) fn new(url: &str, reference: &Reference) -> Result<Self> {
        let uri = accepted(url, reference.is_loopback())
            .map_err(|reason| Error::invalid(format!("URL of a layer: {reason}")))?;
        Ok(Self {
            http: Http::new(&uri, &Tls::default(), None)?,
            uri,
            far: !reference.is_loopback(),
        })
    }

    /// Asks for the layer, with `headers`, and again after failures that may pass.
    ///
    /// # Errors
    ///
    /// `NotFound` unless the answer is a success; `Unavailable` when no answer comes.
    pub(super) async fn get(&self, headers: HeaderMap, what: &str) -> Result<Response<Incoming>> {
        let mut failed = 0;
        loop {
            let ask = Ask {
                method: Method::GET,
                uri: self.uri.clone(),
                headers: headers.clone(),
                authorization: None,
                payload: Payload::default(),
                far: self.far,
            };
            let (pause, error) = match self.http.ask(ask).await {
                Ok(answer) if retry::is_transient(answer.response.status()) => {
                    let error = self.failed(what, answer.response.status());
                    (retry::pause(failed + 1, Some(answer.response.headers())), error)
                }
                Ok(answer) if answer.response.status().is_success() => return Ok(answer.response),
                Ok(answer) => return Err(self.failed(what, answer.response.status())),
                Err(failure) if failure.may_pass => (retry::pause(failed + 1, None), failure.error),
                Err(failure) => return Err(failure.error),
            };
            failed += 1;
            if failed >= retry::TRIES {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
        }
    }

    fn failed(&self, what: &str, status: StatusCode) -> Error {
        Error::not_found(format!("{what} at {}: status {status}", without_query(&self.uri)))
    }
}

/// Checks a URL; `local` says that addresses of this machine are fine.
pub(super) fn accepted(url: &str, local: bool) -> Result<Uri, String> {
    let shown: String = url.chars().take(200).collect();
    let uri: Uri = url
        .parse()
        .map_err(|_malformed| format!("{shown:?} is malformed"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(format!("{shown:?} is neither http nor https"));
    }
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    if authority.contains('@') {
        return Err("it has a user in it".into());
    }
    let host = uri.host().unwrap_or_default();
    if !local && is_near(host) {
        return Err(format!("{host} is an address of this machine or its link"));
    }
    Ok(uri)
}

/// Whether `host` is an address that other machines reach in another place than this one.
pub(super) fn is_near(host: &str) -> bool {
    use std::net::{IpAddr, Ipv4Addr};
    let near =
        |address: Ipv4Addr| address.is_loopback() || address.is_link_local() || address.is_unspecified();
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    match host.trim_matches(['[', ']']).parse() {
        Ok(IpAddr::V4(address)) => near(address),
        Ok(IpAddr::V6(address)) => {
            address.is_loopback()
                || address.is_unspecified()
                || address.is_unicast_link_local()
                || address.to_ipv4_mapped().is_some_and(near)
        }
        Err(_name) => name == "localhost" || name.ends_with(".localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_urls_of_elsewhere_are_accepted() {
        for good in [
            "https://a.example/x?y=z",
            "http://192.0.2.1:8080/x",
            "https://[2001:db8::1]/",
        ] {
            accepted(good, false).unwrap();
        }
        for bad in [
            "",
            "ftp://a.example/x",
            "file:///etc/passwd",
            "/etc/passwd",
            "https://user:secret@a.example/x",
            "http://127.0.0.1/x",
            "http://localhost:80/x",
            "http://LOCALHOST./x",
            "http://169.254.169.254/latest",
            "http://0.0.0.0/x",
            "http://[::1]/x",
            "http://[::ffff:127.0.0.1]/x",
            "http://[fe80::1]/x",
        ] {
            assert!(accepted(bad, false).is_err(), "{bad}");
        }
        accepted("http://127.0.0.1:5000/x", true).unwrap();
        assert!(accepted("ftp://127.0.0.1/x", true).is_err());
    }
}
