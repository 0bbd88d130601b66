//! One repository of one registry: resolving names and reading manifests.

use std::sync::Arc;

use bytes::Bytes;
use hyper::{
    HeaderMap, Method, StatusCode, Uri,
    header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue},
};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::{
    Reference,
    authorization::{self, CredentialSource},
    http::{self, Answer, Ask, Http},
    retry,
};
use crate::{
    digest::Digest,
    error::{Error, Kind, Result},
};
use wharf_proto::containerd::types::Descriptor;

/// The largest manifest or index, in bytes.
pub(crate) const MAX_MANIFEST: u64 = 4 << 20;
/// The longest error document that is read.
const MAX_ERROR: u64 = 64 * 1024;
const DIGEST_HEADER: HeaderName = HeaderName::from_static("docker-content-digest");

/// What a client asks a registry for manifests in: those of OCI and Docker, indexes first.
const MANIFEST_TYPES: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, */*;q=0.1";

/// How to reach the registry.
#[derive(Default)]
pub(crate) struct Options {
    /// Speak plain HTTP (`Some(true)`) or HTTPS (`Some(false)`); by default HTTP with loopback addresses only.
    pub(crate) plain_http: Option<bool>,
    /// Headers to send along with every request to the registry itself.
    pub(crate) headers: HeaderMap,
}

/// A client of one repository. Cheap to clone; clones share connections and token.
#[derive(Clone)]
pub(crate) struct Client {
    pub(super) http: Http,
    reference: Arc<Reference>,
    /// `scheme://host/`.
    root: Uri,
    headers: HeaderMap,
    source: Arc<dyn CredentialSource>,
    authorization: Arc<Mutex<Option<HeaderValue>>>,
}

impl Client {
    /// A client for the repository of `reference`. Connects to nothing yet.
    ///
    /// # Errors
    ///
    /// `Unknown` when TLS cannot be set up.
    pub(crate) fn new(
        reference: Reference,
        options: Options,
        source: Arc<dyn CredentialSource>,
    ) -> Result<Self> {
        let plain = options.plain_http.unwrap_or_else(|| reference.is_loopback());
        let scheme = if plain { "http" } else { "https" };
        let root = format!("{scheme}://{}/", reference.endpoint())
            .parse()
            .map_err(|error| {
                Error::invalid(format!("registry host {:?}", reference.host())).caused_by(error)
            })?;
        Ok(Self {
            http: Http::new()?,
            reference: Arc::new(reference),
            root,
            headers: options.headers,
            source,
            authorization: Arc::default(),
        })
    }

    /// The reference this client was made for.
    pub(crate) fn reference(&self) -> &Reference {
        &self.reference
    }

    /// Finds out which manifest or index the reference means.
    ///
    /// # Errors
    ///
    /// `NotFound` (`manifest unknown`), `Unauthenticated`, `PermissionDenied`, `Unavailable`; `InvalidArgument` when the
    /// registry contradicts itself.
    pub(crate) async fn resolve(&self) -> Result<Descriptor> {
        let object = self.reference.object();
        let answer = self
            .ask(
                Method::HEAD,
                &format!("manifests/{object}"),
                &accept(MANIFEST_TYPES),
            )
            .await?;
        let headers = answer.response.headers();
        let header = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let size = header(&CONTENT_LENGTH)
            .and_then(|length| length.parse::<u64>().ok())
            .filter(|size| *size > 0);
        let digest = header(&DIGEST_HEADER).map(str::parse::<Digest>).transpose()?;
        let digest = self.agreed(digest)?;
        if let (StatusCode::OK, Some(digest), Some(size), Some(media_type)) =
            (answer.response.status(), digest, size, header(&CONTENT_TYPE))
        {
            check_size(size, &digest)?;
            return Ok(descriptor(media_type, &digest, size));
        }
        if answer.response.status() == StatusCode::NOT_FOUND {
            return Err(self.unknown_manifest());
        }
        // Registries may answer HEAD with less than is needed; then the document itself tells.
        let (media_type, bytes) = self.get_manifest(object).await?;
        let digest = Digest::of(&bytes);
        if let Some(expected) = self.reference.digest()
            && *expected != digest
        {
            return Err(mismatch(expected, &digest));
        }
        Ok(descriptor(&media_type, &digest, bytes.len() as u64))
    }

    /// Reads the manifest or index that `wanted` describes, and checks that it is that one.
    ///
    /// # Errors
    ///
    /// As [`Client::resolve`]; `FailedPrecondition` when digest or size are wrong.
    pub(crate) async fn manifest(&self, wanted: &Descriptor) -> Result<Vec<u8>> {
        let expected: Digest = wanted.digest.parse()?;
        check_size(wanted.size.unsigned_abs(), &expected)?;
        let (_, bytes) = self.get_manifest(expected.as_str()).await?;
        let mut hasher = crate::digest::Hasher::new(expected.algorithm());
        hasher.update(&bytes);
        let found = hasher.finish();
        if found != expected {
            return Err(mismatch(&expected, &found));
        }
        if bytes.len() as u64 != wanted.size.unsigned_abs() {
            return Err(Error::precondition(format!(
                "manifest {expected}: {} bytes, its descriptor says {}",
                bytes.len(),
                wanted.size
            )));
        }
        Ok(bytes)
    }

    async fn get_manifest(&self, object: &str) -> Result<(String, Vec<u8>)> {
        let answer = self
            .ask(
                Method::GET,
                &format!("manifests/{object}"),
                &accept(MANIFEST_TYPES),
            )
            .await?;
        let answer = self.successful(answer, || self.unknown_manifest()).await?;
        let media_type = answer
            .response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let what = format!("manifest {}", self.reference);
        Ok((
            media_type,
            http::read_all(answer.response.into_body(), MAX_MANIFEST, &what).await?,
        ))
    }

    /// A digest in the reference decides; a registry that names another one lies.
    fn agreed(&self, told: Option<Digest>) -> Result<Option<Digest>> {
        match (self.reference.digest(), told) {
            (Some(wanted), Some(told)) if wanted.algorithm() == told.algorithm() && *wanted != told => {
                Err(mismatch(wanted, &told))
            }
            (Some(wanted), _) => Ok(Some(wanted.clone())),
            (None, told) => Ok(told),
        }
    }

    fn unknown_manifest(&self) -> Error {
        Error::not_found(format!("{}: manifest unknown", self.reference))
    }

    /// Asks for `path` in the repository, with authorization when the registry wants it, and again after failures that
    /// may pass.
    pub(super) async fn ask(&self, method: Method, path: &str, headers: &HeaderMap) -> Result<Answer> {
        let uri: Uri = format!("{}v2/{}/{path}", self.root, self.reference.repository())
            .parse()
            .map_err(|error| Error::invalid(format!("path {path:?}")).caused_by(error))?;
        let mut all = self.headers.clone();
        all.extend(headers.clone());
        let mut failed = 0;
        let mut authorised = false;
        loop {
            let authorization = self.authorization.lock().await.clone();
            let ask = Ask {
                method: method.clone(),
                uri: uri.clone(),
                headers: all.clone(),
                authorization: authorization.clone(),
                body: Bytes::new(),
            };
            let outcome = self.http.ask(ask).await;
            let (pause, error) = match outcome {
                // Only the registry itself is answered: a host it sent us to gets no credentials.
                Ok(answer)
                    if answer.response.status() == StatusCode::UNAUTHORIZED
                        && !answer.redirected
                        && !authorised =>
                {
                    authorised = true;
                    self.authorise(answer.response.headers(), authorization).await?;
                    continue;
                }
                Ok(answer) if retry::is_transient(answer.response.status()) => {
                    let status = answer.response.status();
                    let error = Error::unavailable(format!("{method} {uri}: status {status}"));
                    (retry::pause(failed + 1, Some(answer.response.headers())), error)
                }
                Ok(answer) => return Ok(answer),
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

    /// Gets a new authorization, unless somebody else did since `stale` was used.
    async fn authorise(&self, headers: &HeaderMap, stale: Option<HeaderValue>) -> Result<()> {
        let mut authorization = self.authorization.lock().await;
        if *authorization == stale {
            let scope = format!("repository:{}:pull", self.reference.repository());
            let fresh = authorization::answer(&self.http, &self.root, headers, &scope, &*self.source).await?;
            *authorization = Some(fresh);
        }
        Ok(())
    }

    /// Turns an answer other than success into an error; `not_found` says what a 404 means.
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
        Err(match status {
            StatusCode::NOT_FOUND => not_found(),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::new(
                if status == StatusCode::FORBIDDEN {
                    Kind::PermissionDenied
                } else {
                    Kind::Unauthenticated
                },
                format!(
                    "pull access denied for {}/{}, repository does not exist or may require authorization: {said}",
                    reference.host(),
                    reference.repository()
                ),
            ),
            _ => Error::unknown(format!("pull {reference}"), said),
        })
    }
}

fn accept(types: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(types))])
}

fn descriptor(media_type: &str, digest: &Digest, size: u64) -> Descriptor {
    Descriptor {
        // Parameters such as a charset say nothing about a manifest.
        media_type: media_type.split(';').next().unwrap_or_default().trim().to_owned(),
        digest: digest.to_string(),
        size: size.cast_signed(),
        ..Descriptor::default()
    }
}

fn check_size(size: u64, digest: &Digest) -> Result<()> {
    if size > MAX_MANIFEST {
        return Err(Error::new(
            Kind::OutOfRange,
            format!("manifest {digest}: {size} bytes, at most {MAX_MANIFEST} are accepted"),
        ));
    }
    Ok(())
}

fn mismatch(expected: &Digest, found: &Digest) -> Error {
    Error::precondition(format!(
        "the registry answered with digest {found}, expected {expected}"
    ))
}

/// The messages of a registry's error document, shortened.
fn message(body: &[u8]) -> Option<String> {
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
