//! One repository of one registry, on whichever hosts stand for it: resolving names and reading manifests.
//!
//! A host that fails, whatever the reason, is passed over for the next one; what each of them says is checked.

use std::{path::PathBuf, sync::Arc};

use hyper::{
    HeaderMap, Method, StatusCode,
    header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue},
};

use super::{
    Reference,
    authorization::CredentialSource,
    endpoint::Endpoint,
    hosts::{self, Capabilities},
    http,
    request_log::RequestLog,
};
use crate::{
    digest::Digest,
    error::{Error, Kind, Result},
};
use wharf_proto::containerd::types::Descriptor;

/// The largest manifest or index, in bytes.
pub(crate) const MAX_MANIFEST: u64 = 4 << 20;
pub(super) const DIGEST_HEADER: HeaderName = HeaderName::from_static("docker-content-digest");

/// What a client asks a registry for manifests in: those of OCI and Docker, indexes first.
const MANIFEST_TYPES: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, */*;q=0.1";

/// How to reach the registry.
#[derive(Default)]
pub(crate) struct Options {
    /// Speak plain HTTP (`Some(true)`) or HTTPS (`Some(false)`); by default HTTP with loopback addresses only. A
    /// configuration of hosts that names URLs decides for itself.
    pub(crate) plain_http: Option<bool>,
    /// Headers to send along with every request to the registry itself.
    pub(crate) headers: HeaderMap,
    /// Directories with configurations of hosts, in containerd's layout; the first one that speaks of the registry counts.
    pub(crate) hosts: Vec<PathBuf>,
    /// Whether the registry is written to.
    pub(crate) push: bool,
    /// Who is told of requests.
    pub(crate) log: RequestLog,
}

/// A client of one repository. Cheap to clone; clones share connections and tokens.
#[derive(Clone)]
pub(crate) struct Client {
    reference: Arc<Reference>,
    /// In the order in which they are asked, the registry itself last.
    endpoints: Arc<[Arc<Endpoint>]>,
}

impl Client {
    /// A client for the repository of `reference`. Connects to nothing yet; blocks shortly on files.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for a configuration of hosts that is not understood or names files that cannot be used.
    pub(crate) fn new(
        reference: Reference,
        options: Options,
        source: Arc<dyn CredentialSource>,
    ) -> Result<Self> {
        let plain = options.plain_http.unwrap_or_else(|| reference.is_loopback());
        let reference = Arc::new(reference);
        let endpoints = hosts::load(&options.hosts, &reference, plain)?
            .into_iter()
            .map(|host| {
                let told = (options.push, &options.log);
                Endpoint::new(host, &reference, &options.headers, &source, told).map(Arc::new)
            })
            .collect::<Result<_>>()?;
        Ok(Self { reference, endpoints })
    }

    /// The reference this client was made for.
    pub(crate) fn reference(&self) -> &Reference {
        &self.reference
    }

    /// The hosts that can do what `able` asks of them.
    pub(super) fn able(&self, able: impl Fn(&Capabilities) -> bool) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.endpoints
            .iter()
            .filter(move |endpoint| able(&endpoint.capabilities))
    }

    /// What is said when no host can do something.
    pub(super) fn nobody(&self, what: &str) -> Error {
        Error::precondition(format!("{}: no host is configured to {what}", self.reference))
    }

    /// Finds out which manifest or index the reference means.
    ///
    /// # Errors
    ///
    /// `NotFound` (`manifest unknown`), `Unauthenticated`, `PermissionDenied`, `Unavailable`; `InvalidArgument` when the
    /// registry contradicts itself. Of several hosts that fail, the last one's.
    pub(crate) async fn resolve(&self) -> Result<Descriptor> {
        let digested = self.reference.digest().is_some();
        let mut failure = self.nobody("resolve");
        for endpoint in self.able(|able| able.resolve || (able.pull && digested)) {
            match self.resolve_at(endpoint).await {
                Ok(found) => return Ok(found),
                Err(error) => {
                    tracing::debug!(reference = %self.reference, %error, "a host does not resolve");
                    failure = error;
                }
            }
        }
        Err(failure)
    }

    async fn resolve_at(&self, endpoint: &Endpoint) -> Result<Descriptor> {
        let object = self.reference.object();
        let answer = endpoint
            .ask(
                Method::HEAD,
                &format!("manifests/{object}"),
                accept(MANIFEST_TYPES),
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
        let (media_type, bytes) = self.get_manifest(endpoint, object).await?;
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
        let mut failure = self.nobody("pull");
        for endpoint in self.able(|able| able.pull) {
            match self.manifest_at(endpoint, wanted, &expected).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => {
                    tracing::debug!(reference = %self.reference, %error, "a host does not give a manifest");
                    failure = error;
                }
            }
        }
        Err(failure)
    }

    async fn manifest_at(
        &self,
        endpoint: &Endpoint,
        wanted: &Descriptor,
        expected: &Digest,
    ) -> Result<Vec<u8>> {
        let (_, bytes) = self.get_manifest(endpoint, expected.as_str()).await?;
        let mut hasher = crate::digest::Hasher::new(expected.algorithm());
        hasher.update(&bytes);
        let found = hasher.finish();
        if found != *expected {
            return Err(mismatch(expected, &found));
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

    async fn get_manifest(&self, endpoint: &Endpoint, object: &str) -> Result<(String, Vec<u8>)> {
        let answer = endpoint
            .ask(
                Method::GET,
                &format!("manifests/{object}"),
                accept(MANIFEST_TYPES),
            )
            .await?;
        let answer = endpoint.successful(answer, || self.unknown_manifest()).await?;
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
}

/// The header that asks for every kind of manifest.
pub(super) fn accept_manifests() -> HeaderMap {
    accept(MANIFEST_TYPES)
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
