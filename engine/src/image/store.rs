//! Looking images up: from a name or an id to what containers need to know.
//!
//! Manifests and configurations are content-addressed, so what was read once is kept in memory by digest.

use super::reference::{Reference, is_digest};
use crate::api::types::{ContainerConfig, ImageDelete, ImageInspect, ImageSummary, RootFs};
use crate::container::config::ImageDefaults;
use crate::container::config::user::Accounts;
use crate::error::{Error, Result};
use crate::supervisor::{CallError, Client, Descriptor, ImageRow, Platform};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

const CACHED: usize = 512;
const MAX_LAYERS: usize = 500;
// An index in an index is legal once; deeper ones are an attack.
const MAX_DEPTH: usize = 4;

/// What an image is, for one platform.
#[derive(Debug)]
pub struct Image {
    /// The digest of its configuration: the id that people see.
    pub id: String,
    /// What containers inherit.
    pub defaults: ImageDefaults,
    /// The key of its top snapshot; empty for an image without layers.
    pub chain_id: String,
    /// Its account files, once a container needed them.
    pub accounts: OnceLock<Accounts>,
    diff_ids: Vec<String>,
    architecture: String,
    variant: String,
    os: String,
    created: String,
    author: String,
    size: i64,
}

/// An image found by a name.
#[derive(Debug, Clone)]
pub struct Named {
    /// The full name of its row.
    pub name: String,
    /// The digest that the row points to.
    pub target: String,
    /// What it is.
    pub image: Arc<Image>,
}

/// The images of one supervisor.
#[derive(Debug)]
pub struct Images {
    client: Client,
    platform: Platform,
    cache: Mutex<HashMap<String, Arc<Image>>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ManifestOrIndex {
    config: Option<OciDescriptor>,
    layers: Vec<OciDescriptor>,
    manifests: Vec<OciDescriptor>,
}

#[derive(Deserialize, Default, Clone)]
#[serde(rename_all = "camelCase", default)]
struct OciDescriptor {
    digest: String,
    size: i64,
    platform: Option<OciPlatform>,
}

#[derive(Deserialize, Default, Clone)]
#[serde(default)]
struct OciPlatform {
    architecture: String,
    os: String,
    variant: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ConfigDocument {
    architecture: String,
    variant: String,
    os: String,
    created: String,
    author: String,
    rootfs: RootFsDocument,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RootFsDocument {
    diff_ids: Vec<String>,
}

impl Images {
    /// The images behind `client`, for the platform of this host.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            platform: host_platform(),
            cache: Mutex::default(),
        }
    }

    /// The platform that images are chosen for.
    pub fn platform(&self) -> &Platform {
        &self.platform
    }

    /// The connection.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Finds an image by name, by id, or by the first digits of an id.
    ///
    /// # Errors
    ///
    /// There is none (`No such image`), several begin with these digits, or it cannot be read.
    pub async fn find(&self, text: &str) -> Result<Named> {
        let missing = || Error::not_found(format!("No such image: {}", shown(text)));
        if let Ok(reference) = Reference::parse(text) {
            match self.client.image(&reference.to_string()).await {
                Ok(row) => return self.named(row).await,
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
        }
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        if digits.len() < 2 || digits.len() > 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(missing());
        }
        let mut found: Option<Named> = None;
        for named in self.all().await? {
            let matches = [&named.image.id, &named.target].iter().any(|digest| {
                digest
                    .strip_prefix("sha256:")
                    .is_some_and(|hex| hex.starts_with(digits))
            });
            if !matches {
                continue;
            }
            if found
                .as_ref()
                .is_some_and(|other| other.image.id != named.image.id)
            {
                return Err(Error::invalid(format!("image id prefix {digits} is ambiguous")));
            }
            found = found.or(Some(named));
        }
        found.ok_or_else(missing)
    }

    /// All images that can be read for this platform. Others are left out: they cannot be run.
    ///
    /// # Errors
    ///
    /// The supervisor cannot be asked.
    pub async fn all(&self) -> Result<Vec<Named>> {
        let mut all = Vec::new();
        for row in self.client.images().await? {
            let name = row.name.clone();
            match self.named(row).await {
                Ok(named) => all.push(named),
                Err(error) => tracing::debug!(image = name, %error, "image left out of the list"),
            }
        }
        Ok(all)
    }

    async fn named(&self, row: ImageRow) -> Result<Named> {
        let target = row
            .target
            .ok_or_else(|| Error::system(format!("image {} has no target", row.name)))?;
        let image = self.read(&row.name, &target).await?;
        Ok(Named {
            name: row.name,
            target: target.digest,
            image,
        })
    }

    async fn read(&self, name: &str, target: &Descriptor) -> Result<Arc<Image>> {
        if let Some(image) = self.lock().get(&target.digest) {
            return Ok(Arc::clone(image));
        }
        let image = Arc::new(self.read_content(name, &target.digest).await?);
        let mut cache = self.lock();
        if cache.len() >= CACHED {
            cache.clear();
        }
        cache.insert(target.digest.clone(), Arc::clone(&image));
        Ok(image)
    }

    async fn read_content(&self, name: &str, target: &str) -> Result<Image> {
        let mut digest = target.to_owned();
        for _ in 0..MAX_DEPTH {
            let bytes = self.client.document(&digest).await?;
            let document: ManifestOrIndex = crate::api::types::decode(&bytes)
                .map_err(|error| Error::invalid(format!("read manifest {digest} of {name}: {error}")))?;
            if let Some(config) = document.config {
                return self
                    .read_image(name, &config, &document.layers, bytes.len())
                    .await;
            }
            digest = self.choose(name, &document.manifests).await?;
        }
        Err(Error::invalid(format!(
            "read image {name}: indexes nested deeper than {MAX_DEPTH}"
        )))
    }

    async fn choose(&self, name: &str, manifests: &[OciDescriptor]) -> Result<String> {
        let fits = |wanted: &Platform, have: &OciPlatform| {
            have.os == wanted.os
                && have.architecture == wanted.architecture
                && (have.variant.is_empty() || wanted.variant.is_empty() || have.variant == wanted.variant)
        };
        for manifest in manifests {
            let chosen = manifest
                .platform
                .as_ref()
                .is_none_or(|platform| fits(&self.platform, platform));
            if chosen && self.client.has_content(&manifest.digest).await? {
                return Ok(manifest.digest.clone());
            }
        }
        let Platform { os, architecture, .. } = &self.platform;
        Err(Error::not_found(format!(
            "image {name} has no content for the platform {os}/{architecture}"
        )))
    }

    async fn read_image(
        &self,
        name: &str,
        config: &OciDescriptor,
        layers: &[OciDescriptor],
        manifest_size: usize,
    ) -> Result<Image> {
        let bytes = self.client.document(&config.digest).await?;
        let document: ConfigDocument = crate::api::types::decode(&bytes).map_err(|error| {
            Error::invalid(format!("read configuration {} of {name}: {error}", config.digest))
        })?;
        let diff_ids = document.rootfs.diff_ids;
        if diff_ids.len() > MAX_LAYERS || !diff_ids.iter().all(|digest| is_digest(digest)) {
            return Err(Error::invalid(format!(
                "read configuration {} of {name}: bad diff_ids",
                config.digest
            )));
        }
        let size = layers.iter().map(|layer| layer.size).sum::<i64>();
        Ok(Image {
            id: config.digest.clone(),
            defaults: ImageDefaults::read(&bytes)?,
            chain_id: chain_id(&diff_ids),
            accounts: OnceLock::new(),
            diff_ids,
            architecture: document.architecture,
            variant: document.variant,
            os: document.os,
            created: document.created,
            author: document.author,
            size: size + config.size + i64::try_from(manifest_size).unwrap_or(0),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Image>>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The list of images, newest first, one element an id.
    ///
    /// # Errors
    ///
    /// The supervisor cannot be asked.
    pub async fn list(&self) -> Result<Vec<ImageSummary>> {
        let mut by_id: BTreeMap<String, ImageSummary> = BTreeMap::new();
        for named in self.all().await? {
            let image = &named.image;
            let summary = by_id.entry(image.id.clone()).or_insert_with(|| ImageSummary {
                id: image.id.clone(),
                created: seconds(&image.created),
                size: image.size,
                shared_size: -1,
                containers: -1,
                labels: image.defaults.labels.clone(),
                ..Default::default()
            });
            let (tag, digest) = display_names(&named);
            summary.repo_tags.extend(tag);
            summary.repo_digests.extend(digest);
        }
        let mut list: Vec<_> = by_id.into_values().collect();
        for summary in &mut list {
            summary.repo_tags.sort();
            summary.repo_digests.sort();
            summary.repo_digests.dedup();
        }
        list.sort_by_key(|summary| std::cmp::Reverse(summary.created));
        Ok(list)
    }

    /// Everything about one image.
    ///
    /// # Errors
    ///
    /// As [`Images::find`].
    pub async fn inspect(&self, text: &str) -> Result<ImageInspect> {
        let found = self.find(text).await?;
        let image = &found.image;
        let mut inspect = ImageInspect {
            id: image.id.clone(),
            created: image.created.clone(),
            author: image.author.clone(),
            config: config_of(&image.defaults),
            architecture: image.architecture.clone(),
            variant: image.variant.clone(),
            os: image.os.clone(),
            size: image.size,
            root_fs: RootFs {
                r#type: "layers".to_owned(),
                layers: image.diff_ids.clone(),
            },
            ..Default::default()
        };
        for named in self.all().await? {
            if named.image.id == image.id {
                let (tag, digest) = display_names(&named);
                inspect.repo_tags.extend(tag);
                inspect.repo_digests.extend(digest);
            }
        }
        inspect.repo_digests.sort();
        inspect.repo_digests.dedup();
        Ok(inspect)
    }

    /// Removes a name, or with an id every name of the image. `used` says whether a container uses an image id.
    ///
    /// # Errors
    ///
    /// There is none; a container uses it; several names have the id and `force` is not given.
    pub async fn remove(
        &self,
        text: &str,
        force: bool,
        used: impl Fn(&str) -> bool,
    ) -> Result<Vec<ImageDelete>> {
        let found = self.find(text).await?;
        let id = &found.image.id;
        let all = self.all().await?;
        let same: Vec<&Named> = all.iter().filter(|named| named.image.id == *id).collect();
        let by_name = Reference::parse(text).is_ok_and(|reference| reference.to_string() == found.name);
        let going: Vec<&Named> = if by_name {
            same.iter()
                .copied()
                .filter(|named| named.name == found.name)
                .collect()
        } else {
            same.clone()
        };
        if !by_name && going.len() > 1 && !force {
            let message = format!(
                "conflict: unable to delete {} (must be forced) - image is referenced in multiple repositories",
                shown(text)
            );
            return Err(Error::conflict(message));
        }
        let last = going.len() == same.len();
        if last && used(id) {
            let message = format!("conflict: unable to remove {} - a container uses it", shown(text));
            return Err(Error::conflict(message));
        }
        let mut deleted = Vec::new();
        for named in going {
            self.client.delete_image(&named.name).await?;
            deleted.push(ImageDelete {
                untagged: Some(familiar(&named.name)),
                deleted: None,
            });
        }
        if last {
            deleted.push(ImageDelete {
                untagged: None,
                deleted: Some(id.clone()),
            });
        }
        Ok(deleted)
    }

    /// Gives an image another name.
    ///
    /// # Errors
    ///
    /// There is no such image, or the name is none.
    pub async fn tag(&self, text: &str, name: &Reference) -> Result<()> {
        let found = self.find(text).await?;
        let mut row = self
            .client
            .image(&found.name)
            .await
            .map_err(CallError::into_error)?;
        row.name = name.to_string();
        (row.created_at, row.updated_at) = (None, None);
        Ok(self.client.put_image(row).await?)
    }
}

impl CallError {
    fn into_error(self) -> Error {
        self.into()
    }
}

fn display_names(named: &Named) -> (Option<String>, Option<String>) {
    let Ok(reference) = Reference::parse(&named.name) else {
        return (Some(named.name.clone()), None);
    };
    let tag = reference
        .tag()
        .map(|tag| format!("{}:{tag}", reference.familiar_name()));
    let digest = format!("{}@{}", reference.familiar_name(), named.target);
    (tag, Some(digest))
}

fn config_of(defaults: &ImageDefaults) -> ContainerConfig {
    ContainerConfig {
        user: defaults.user.clone(),
        env: defaults.env.clone(),
        entrypoint: (!defaults.entrypoint.is_empty()).then(|| defaults.entrypoint.clone()),
        cmd: defaults.cmd.clone(),
        working_dir: defaults.working_dir.clone(),
        labels: defaults.labels.clone(),
        stop_signal: defaults.stop_signal.clone(),
        exposed_ports: defaults.exposed_ports.clone(),
        volumes: defaults.volumes.clone(),
        ..Default::default()
    }
}

/// A full name as people write it.
pub fn familiar(name: &str) -> String {
    Reference::parse(name).map_or_else(|_| name.to_owned(), |reference| reference.familiar())
}

fn shown(text: &str) -> String {
    if is_digest(text) {
        text.to_owned()
    } else {
        familiar(text)
    }
}

fn seconds(time: &str) -> i64 {
    time.parse::<jiff::Timestamp>()
        .map_or(0, jiff::Timestamp::as_second)
}

// The ChainID of the OCI image specification: each layer's is made from the one below and its own DiffID.
fn chain_id(diff_ids: &[String]) -> String {
    let mut layers = diff_ids.iter();
    let first = layers.next().cloned().unwrap_or_default();
    layers.fold(first, |chain, diff| {
        let digest = Sha256::digest(format!("{chain} {diff}"));
        format!("sha256:{}", crate::id::hex(&digest))
    })
}

fn host_platform() -> Platform {
    let (architecture, variant) = match std::env::consts::ARCH {
        "x86_64" => ("amd64", ""),
        "aarch64" => ("arm64", "v8"),
        "arm" => ("arm", "v7"),
        "x86" => ("386", ""),
        "powerpc64" => ("ppc64le", ""),
        other => (other, ""),
    };
    Platform {
        os: "linux".to_owned(),
        architecture: architecture.to_owned(),
        variant: variant.to_owned(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_ids_follow_the_specification() {
        assert_eq!(chain_id(&[]), "");
        let (a, b) = ("sha256:aa".to_owned(), "sha256:bb".to_owned());
        assert_eq!(chain_id(std::slice::from_ref(&a)), "sha256:aa");
        let expected = format!(
            "sha256:{}",
            crate::id::hex(&Sha256::digest("sha256:aa sha256:bb"))
        );
        assert_eq!(chain_id(&[a, b]), expected);
    }
}
