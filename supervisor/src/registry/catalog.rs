//! What a repository has beside the images that one knows: its tags, and what refers to an image (signatures, bills of
//! materials), by the OCI distribution specification 1.1.

use std::{collections::BTreeMap, sync::Arc};

use serde::Deserialize;

use super::{
    Client, CredentialSource, DockerConfig, NoCredentials, Options, Reference,
    paging::{self, Listed},
};
use crate::{
    config,
    digest::Digest,
    error::{Error, Result},
};

/// The most tags of a repository.
const MAX_TAGS: usize = 100_000;
/// Tags that are asked for at once: as many as registries give.
const PAGE: usize = 1000;
/// The most that may refer to one image.
const MAX_REFERRERS: usize = 1000;
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Something that says of itself that it is about an image.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Referrer {
    /// The media type of its manifest.
    pub media_type: String,
    /// The digest of its manifest.
    pub digest: String,
    /// The size of its manifest in bytes.
    pub size: u64,
    /// What it is; empty when it does not say.
    #[serde(default)]
    pub artifact_type: String,
    /// What it says of itself.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// Lists the tags of the repository of `reference` (`host/repository`), in the registry's order.
///
/// # Errors
///
/// `NotFound` for the repository, `Unauthenticated`, `PermissionDenied`, `Unavailable`; `InvalidArgument` for a reference or
/// an answer that makes no sense; `OutOfRange` for more than 100,000 tags.
pub async fn list_tags(config: &config::Registry, reference: &str) -> Result<Vec<String>> {
    client(config, reference).await?.tags().await
}

/// Lists what refers to the image `reference` (`host/repository[:tag][@digest]`), of `artifact_types` only if there are any.
/// A registry without the referrers API is asked for the tag that stands for it.
///
/// # Errors
///
/// As [`list_tags`], for more than 1,000.
pub async fn list_referrers(
    config: &config::Registry,
    reference: &str,
    artifact_types: &[String],
) -> Result<Vec<Referrer>> {
    let client = client(config, reference).await?;
    let digest = match client.reference().digest() {
        Some(digest) => digest.clone(),
        None => client.resolve().await?.digest.parse()?,
    };
    client.referrers(&digest, artifact_types).await
}

async fn client(config: &config::Registry, reference: &str) -> Result<Client> {
    let reference: Reference = reference.parse()?;
    let config = config.clone();
    let made = tokio::task::spawn_blocking(move || {
        let source: Arc<dyn CredentialSource> = match &config.docker_config {
            Some(path) => Arc::new(DockerConfig::new(path)),
            None => Arc::new(NoCredentials),
        };
        let options = Options {
            hosts: config.hosts,
            ..Options::default()
        };
        Client::new(reference, options, source)
    });
    made.await
        .map_err(|error| Error::unknown("run on the blocking pool", error))?
}

impl Client {
    /// The tags of the repository.
    ///
    /// # Errors
    ///
    /// As [`list_tags`].
    pub(super) async fn tags(&self) -> Result<Vec<String>> {
        let mut failure = self.nobody("resolve");
        for endpoint in self.able(|able| able.resolve) {
            let path = format!("tags/list?n={PAGE}");
            match paging::list(endpoint, &path, "application/json", MAX_TAGS, tags_of).await {
                Ok(Listed::Entries(tags)) => return Ok(tags),
                Ok(Listed::Unknown) => {
                    failure = Error::not_found(format!("{}: repository unknown", self.reference()));
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// What refers to `digest`.
    ///
    /// # Errors
    ///
    /// As [`list_referrers`].
    pub(super) async fn referrers(
        &self,
        digest: &Digest,
        artifact_types: &[String],
    ) -> Result<Vec<Referrer>> {
        let mut failure = self.nobody("list referrers");
        for endpoint in self.able(|able| able.referrers) {
            let path = format!("referrers/{digest}");
            let listed = match paging::list(endpoint, &path, INDEX, MAX_REFERRERS, referrers_of).await {
                Ok(Listed::Unknown) => {
                    // The tag that clients keep where the registry does not (`sha256-HEX`).
                    let path = format!("manifests/{}", digest.as_str().replacen(':', "-", 1));
                    paging::list(endpoint, &path, INDEX, MAX_REFERRERS, referrers_of).await
                }
                listed => listed,
            };
            match listed {
                Ok(Listed::Entries(mut found)) => {
                    // A registry need not filter, so it is not asked to.
                    found.retain(|one| {
                        artifact_types.is_empty() || artifact_types.contains(&one.artifact_type)
                    });
                    return Ok(found);
                }
                Ok(Listed::Unknown) => return Ok(Vec::new()),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

pub(super) fn tags_of(page: &[u8]) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Page {
        /// `null` when there are none.
        tags: Option<Vec<String>>,
    }
    let page: Page = serde_json::from_slice(page).map_err(|error| Error::invalid(error.to_string()))?;
    let tags = page.tags.unwrap_or_default();
    match tags.iter().find(|tag| !super::reference::is_tag(tag)) {
        Some(bad) => {
            let shown: String = bad.chars().take(200).collect();
            Err(Error::invalid(format!("malformed tag {shown:?}")))
        }
        None => Ok(tags),
    }
}

pub(super) fn referrers_of(page: &[u8]) -> Result<Vec<Referrer>> {
    #[derive(Deserialize)]
    struct Index {
        manifests: Vec<Referrer>,
        layers: Option<serde::de::IgnoredAny>,
    }
    let index: Index = serde_json::from_slice(page).map_err(|error| Error::invalid(error.to_string()))?;
    if index.layers.is_some() {
        return Err(Error::invalid("expected an index but found a manifest"));
    }
    for referrer in &index.manifests {
        referrer.digest.parse::<Digest>()?;
    }
    Ok(index.manifests)
}
