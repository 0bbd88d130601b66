//! One host that stands for a registry, and one repository on it: requests with authorization and retries.

use std::sync::Arc;

use hyper::{HeaderMap, Method, StatusCode, Uri, header::HeaderValue};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::{
    Reference,
    authorization::{self, CredentialSource, Scopes},
    hosts::{Capabilities, Host},
    http::{self, Answer, Ask, Http, Payload},
    request_log::RequestLog,
    retry,
};
use crate::error::{Error, Kind, Result};

/// The longest error document that is read.
const MAX_ERROR: u64 = 64 * 1024;

/// A host. It keeps its authorization to itself.
pub(super) struct Endpoint {
    pub(super) http: Http,
    pub(super) capabilities: Capabilities,
    pub(super) reference: Arc<Reference>,
    /// `scheme://host/path/v2/`.
    root: Uri,
    /// What a mirror of several registries is told: which of them is meant.
    namespace: Option<String>,
    headers: HeaderMap,
    source: Arc<dyn CredentialSource>,
    scopes: Scopes,
    authorization: Mutex<Option<HeaderValue>>,
}

impl Endpoint {
    /// The repository of `reference` on `host`. Connects to nothing yet; blocks on the files that `host` names.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` naming a file that cannot be used.
    pub(super) fn new(
        host: Host,
        reference: &Arc<Reference>,
        headers: &HeaderMap,
        source: &Arc<dyn CredentialSource>,
        options: (bool, &RequestLog),
    ) -> Result<Self> {
        let (push, log) = options;
        let root: Uri = host
            .root
            .parse()
            .map_err(|error| Error::invalid(format!("registry host {:?}", host.root)).caused_by(error))?;
        let authority = root.authority().map_or("", |authority| authority.as_str());
        let namespace = (authority != reference.endpoint()).then(|| reference.host().to_owned());
        let mut all = host.headers;
        if namespace.is_none() {
            // What the caller says to the registry is not for a mirror's ears.
            all.extend(headers.clone());
        }
        Ok(Self {
            http: Http::new(&root, &host.tls, host.dial_timeout)?.telling(log.clone()),
            capabilities: host.capabilities,
            reference: Arc::clone(reference),
            root,
            namespace,
            headers: all,
            source: Arc::clone(source),
            scopes: Scopes::new(reference.repository(), push),
            authorization: Mutex::default(),
        })
    }

    /// The URL of `path` in the repository.
    pub(super) fn url(&self, path: &str) -> Result<Uri> {
        let mut text = format!("{}{}/{path}", self.root, self.reference.repository());
        if let Some(namespace) = &self.namespace {
            let separator = if path.contains('?') { '&' } else { '?' };
            text = format!("{text}{separator}ns={namespace}");
        }
        text.parse()
            .map_err(|error| Error::invalid(format!("path {path:?}")).caused_by(error))
    }

    /// Asks for `path` in the repository, and again after failures that may pass.
    ///
    /// # Errors
    ///
    /// `Unavailable` when no answer comes; `Unauthenticated`.
    pub(super) async fn ask(&self, method: Method, path: &str, headers: HeaderMap) -> Result<Answer> {
        let uri = self.url(path)?;
        self.request(method, uri, headers, Payload::default(), retry::TRIES)
            .await
    }

    /// Sends a request to `uri`, with authorization when it is on this host and wants it; `tries` times while failures
    /// may pass.
    ///
    /// # Errors
    ///
    /// As [`Endpoint::ask`].
    pub(super) async fn request(
        &self,
        method: Method,
        uri: Uri,
        headers: HeaderMap,
        payload: Payload,
        tries: u32,
    ) -> Result<Answer> {
        let home = place(&uri) == place(&self.root);
        let mut all = if home {
            self.headers.clone()
        } else {
            HeaderMap::new()
        };
        all.extend(headers);
        let mut failed = 0;
        let mut authorised = false;
        loop {
            let authorization = match home {
                true => self.authorization.lock().await.clone(),
                false => None,
            };
            let ask = Ask {
                method: method.clone(),
                uri: uri.clone(),
                headers: all.clone(),
                authorization: authorization.clone(),
                payload: payload.clone(),
                far: false,
            };
            let (pause, error) = match self.http.ask(ask).await {
                // Only the host itself is answered: one that it sent us to gets no credentials.
                Ok(answer)
                    if answer.response.status() == StatusCode::UNAUTHORIZED
                        && home
                        && !answer.redirected
                        && !authorised =>
                {
                    authorised = true;
                    self.authorise(answer.response.headers(), authorization).await?;
                    continue;
                }
                Ok(answer) if retry::is_transient(answer.response.status()) => {
                    let status = answer.response.status();
                    let shown = http::without_query(&uri);
                    let error = Error::unavailable(format!("{method} {shown}: status {status}"));
                    (retry::pause(failed + 1, Some(answer.response.headers())), error)
                }
                Ok(answer) => return Ok(answer),
                Err(failure) if failure.may_pass => (retry::pause(failed + 1, None), failure.error),
                Err(failure) => return Err(failure.error),
            };
            failed += 1;
            if failed >= tries {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Gets a new authorization, unless somebody else did since `stale` was used.
    async fn authorise(&self, headers: &HeaderMap, stale: Option<HeaderValue>) -> Result<()> {
        let mut authorization = self.authorization.lock().await;
        if *authorization == stale {
            let fresh =
                authorization::answer(&self.http, &self.root, headers, &self.scopes, &*self.source).await?;
            *authorization = Some(fresh);
        }
        Ok(())
    }

    /// Turns an answer other than success into an error; `not_found` says what a 404 means.
    ///
    /// # Errors
    ///
    /// `NotFound`, `Unauthenticated`, `PermissionDenied`, else `Unknown`, with what the host says.
    pub(super) async fn successful(&self, answer: Answer, not_found: impl Fn() -> Error) -> Result<Answer> {
        let status = answer.response.status();
        if status.is_success() {
            return Ok(answer);
        }
        let said = http::read_all(answer.response.into_body(), MAX_ERROR, "error of the registry").await;
        let said = said
            .ok()
            .and_then(|body| message(&body))
            .unwrap_or_else(|| status.to_string());
        let reference = &self.reference;
        let verb = self.scopes.verb();
        Err(match status {
            StatusCode::NOT_FOUND => not_found(),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::new(
                if status == StatusCode::FORBIDDEN {
                    Kind::PermissionDenied
                } else {
                    Kind::Unauthenticated
                },
                format!(
                    "{verb} access denied for {}/{}, repository does not exist or may require authorization: {said}",
                    reference.host(),
                    reference.repository()
                ),
            ),
            _ => Error::unknown(format!("{verb} {reference}"), said),
        })
    }
}

/// What must be the same for two URLs to be on one host: scheme, name and port, whether it is written or not.
pub(super) fn place(uri: &Uri) -> (Option<&str>, String, u16) {
    let scheme = uri.scheme_str();
    let port = if scheme == Some("http") { 80 } else { 443 };
    let host = uri.host().unwrap_or_default().to_ascii_lowercase();
    (scheme, host, uri.port_u16().unwrap_or(port))
}

/// The messages of a registry's error document, shortened.
pub(super) fn message(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Document {
        errors: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let document: Document = serde_json::from_slice(body).ok()?;
    let texts: Vec<String> = document
        .errors
        .iter()
        .take(3)
        .map(|entry| format!("{}: {}", entry.code.to_lowercase(), entry.message))
        .collect();
    let text: String = texts
        .join(", ")
        .chars()
        .filter(|c| !c.is_control())
        .take(300)
        .collect();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_the_same_with_its_port_written_or_not() {
        let same =
            |a: &'static str, b: &'static str| place(&Uri::from_static(a)) == place(&Uri::from_static(b));
        assert!(same("https://a.example/v2/", "https://A.example:443/upload"));
        assert!(same("http://a.example:80/", "http://a.example/"));
        for other in [
            "http://a.example:443/",
            "https://a.example:444/",
            "https://b.example/",
        ] {
            assert!(!same("https://a.example/", other), "{other}");
        }
    }
}
