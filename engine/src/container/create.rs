//! Making a container: everything but its process.
//!
//! Name, snapshot, files, row, record, in this order; each step has its undo. The container is visible when all are done.

use super::config::mount::{self, Kind};
use super::config::spec::{self, Input};
use super::config::user::{self, Accounts, User};
use super::config::{ImageDefaults, merge};
use super::network_files::NetworkFiles;
use super::record::{Record, RootfsSource};
use super::runtime::Runtime;
use super::store::Container;
use super::{name, throwaway};
use crate::api::types::{ContainerConfig, HostConfig};
use crate::engine::{Engine, SNAPSHOTTER, blocking};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::image::import::LocalSource;
use crate::image::store::Named;
use crate::rootfs::Rootfs;
use crate::supervisor::{ContainerRow, Mount};
use crate::undo::Undo;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use wharf_proto::any;
use wharf_proto::containerd::services::containers::v1::container::Runtime as RowRuntime;

const MAX_ACCOUNTS: u64 = 1 << 20;

/// What is asked for, checked for members that are not there yet.
#[derive(Debug, Clone)]
pub struct Request {
    /// The name; `None`: a random one.
    pub name: Option<String>,
    /// What does not depend on the host.
    pub config: ContainerConfig,
    /// What does.
    pub host: HostConfig,
}

enum Base {
    Image(Named),
    Directory(PathBuf),
}

impl Engine {
    /// Makes a container and returns it. Nothing of it is left when this fails.
    ///
    /// # Errors
    ///
    /// The image does not exist, the name is taken, the request is wrong or cannot be met.
    pub async fn create_container(&self, request: Request) -> Result<Arc<Container>> {
        let base = self.base(&request.config.image).await?;
        let defaults = match &base {
            Base::Image(named) => named.image.defaults.clone(),
            Base::Directory(_) => ImageDefaults::default(),
        };
        let config = merge(&defaults, request.config)?;
        let mut undo = Undo::default();
        match self
            .make(request.name.as_deref(), &base, config, request.host, &mut undo)
            .await
        {
            Ok(container) => {
                undo.keep();
                self.publish(&container, "create", &[]);
                Ok(container)
            }
            Err((error, name)) => {
                undo.run().await;
                if let Some(name) = name {
                    self.containers.release(&name);
                }
                Err(error)
            }
        }
    }

    async fn base(&self, image: &str) -> Result<Base> {
        match LocalSource::parse(image)? {
            Some(LocalSource::Rootfs(path)) => Ok(Base::Directory(path)),
            Some(source) => Ok(Base::Image(self.images.import(&source, SNAPSHOTTER).await?)),
            None => Ok(Base::Image(self.images.find(image).await?)),
        }
    }

    fn reserve_name(&self, wanted: Option<&str>, id: &str) -> Result<String> {
        if let Some(wanted) = wanted {
            let name = name::check(wanted)?;
            self.containers.reserve(&name, id)?;
            return Ok(name);
        }
        for attempt in 0..100 {
            let name = name::random(attempt)?;
            match self.containers.reserve(&name, id) {
                Ok(()) => return Ok(name),
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::conflict("no random name is free"))
    }

    // The name is given back by the caller, as the last undo: it must outlive everything else.
    async fn make(
        &self,
        wanted_name: Option<&str>,
        base: &Base,
        config: ContainerConfig,
        host: HostConfig,
        undo: &mut Undo,
    ) -> std::result::Result<Arc<Container>, (Error, Option<String>)> {
        let id = crate::id::new().map_err(|error| (error, None))?;
        let name = self
            .reserve_name(wanted_name, &id)
            .map_err(|error| (error, None))?;
        let made = self.make_named(&id, &name, base, config, host, undo).await;
        made.map_err(|error| (error, Some(name)))
    }

    async fn make_named(
        &self,
        id: &str,
        name: &str,
        base: &Base,
        config: ContainerConfig,
        host: HostConfig,
        undo: &mut Undo,
    ) -> Result<Arc<Container>> {
        let runtime = Runtime::parse(&host.runtime)?;
        let mounts = mount::requested(&host)?;
        let own_network = own_network(&config, &host)?;
        let (rootfs, accounts) = self.prepare_rootfs(id, base, undo).await?;
        let user = user::resolve(&config.user, &host.group_add, &accounts)?;
        let source = match base {
            Base::Image(_) => RootfsSource::Snapshot {
                snapshotter: SNAPSHOTTER.to_owned(),
            },
            Base::Directory(path) => RootfsSource::Directory { path: path.clone() },
        };
        let mut record = Record::new(id.to_owned(), name.to_owned(), config.image.clone(), source);
        if let Base::Image(named) = base {
            record.image_id.clone_from(&named.image.id);
        }
        (record.config, record.host) = (config, host);
        let container = Arc::new(Container::new(record, &self.root, &self.state));
        self.write_files(&container, &mounts, own_network, &user, undo)
            .await?;
        let spec = container.with_record(|record| {
            spec::build(&Input {
                id,
                config: &record.config,
                host: &record.host,
                private_network: own_network,
                mounts: &mounts,
                user: &user,
                files: &container.directory,
                facts: &self.facts,
            })
        })?;
        let row = ContainerRow {
            id: id.to_owned(),
            image: match base {
                Base::Image(named) => named.name.clone(),
                Base::Directory(_) => String::new(),
            },
            runtime: Some(RowRuntime {
                name: runtime.shim.clone(),
                options: runtime.options(),
            }),
            spec: Some(prost_types::Any {
                type_url: any::RUNTIME_SPEC_URL.to_owned(),
                value: spec.to_string().into_bytes(),
            }),
            snapshotter: if rootfs {
                SNAPSHOTTER.to_owned()
            } else {
                String::new()
            },
            snapshot_key: if rootfs { id.to_owned() } else { String::new() },
            ..Default::default()
        };
        let dies_with_boot = container.with_record(Record::dies_with_boot);
        self.client.create_container(row, dies_with_boot).await?;
        let (client, key) = (self.client.clone(), id.to_owned());
        undo.push("container row", async move {
            Ok(client.delete_container(&key, dies_with_boot).await?)
        });
        container.update(|_| {})?;
        self.containers.insert(Arc::clone(&container));
        Ok(container)
    }

    // Whether there is a snapshot, and the account files in it.
    async fn prepare_rootfs(&self, id: &str, base: &Base, undo: &mut Undo) -> Result<(bool, Accounts)> {
        match base {
            Base::Directory(path) => {
                let path = path.clone();
                let accounts = blocking(move || read_accounts(&Rootfs::open(&path)?)).await?;
                Ok((false, accounts))
            }
            Base::Image(named) => {
                let mounts = self
                    .client
                    .prepare(SNAPSHOTTER, id, &named.image.chain_id)
                    .await
                    .map_err(|error| {
                        if error.is_not_found() {
                            Error::conflict(format!("image {} is not unpacked: {error}", named.name))
                        } else {
                            error.into()
                        }
                    })?;
                let (client, key) = (self.client.clone(), id.to_owned());
                undo.push("snapshot", async move {
                    Ok(client.remove_snapshot(SNAPSHOTTER, &key).await?)
                });
                Ok((true, self.accounts_of(&named.image, mounts).await?))
            }
        }
    }

    // An image never changes, so its account files are read once.
    async fn accounts_of(&self, image: &crate::image::store::Image, mounts: Vec<Mount>) -> Result<Accounts> {
        if let Some(accounts) = image.accounts.get() {
            return Ok(accounts.clone());
        }
        let point = self.state.join("mnt");
        let accounts = blocking(move || read_accounts(&Rootfs::of_mounts(&mounts, &point)?)).await?;
        Ok(image.accounts.get_or_init(|| accounts).clone())
    }

    async fn write_files(
        &self,
        container: &Arc<Container>,
        mounts: &[mount::Requested],
        own_network: bool,
        user: &User,
        undo: &mut Undo,
    ) -> Result<()> {
        let files = container.with_record(|record| {
            let hostname = spec::hostname(&Input {
                id: &record.id,
                config: &record.config,
                host: &record.host,
                private_network: own_network,
                mounts,
                user,
                files: &container.directory,
                facts: &self.facts,
            });
            NetworkFiles::new(&hostname, &record.config.domainname, &record.host, own_network)
        })?;
        for mount in mounts
            .iter()
            .filter(|mount| mount.create_source && mount.kind == Kind::Bind)
        {
            std::fs::create_dir_all(&mount.source)
                .or_else(|error| {
                    if Path::new(&mount.source).exists() {
                        Ok(())
                    } else {
                        Err(error)
                    }
                })
                .map_err(|error| Error::io("create bind source", Path::new(&mount.source), error))?;
        }
        let directory = container.directory.clone();
        std::fs::create_dir(&directory).map_err(|error| Error::io("create", &directory, error))?;
        let going = directory.clone();
        undo.push("container directory", async move {
            std::fs::remove_dir_all(&going).map_err(|error| Error::io("remove", &going, error))
        });
        files.write(&directory)
    }

    /// What to mount for a container's root filesystem.
    ///
    /// # Errors
    ///
    /// The snapshot is gone, or the directory is.
    pub async fn rootfs_mounts(&self, container: &Container) -> Result<Vec<Mount>> {
        match container.with_record(|record| record.rootfs.clone()) {
            RootfsSource::Snapshot { snapshotter } => {
                Ok(self.client.mounts(&snapshotter, &container.id).await?)
            }
            RootfsSource::Directory { path } => {
                let (state, id) = (self.state.clone(), container.id.clone());
                blocking(move || throwaway::prepare(&state, &id, &path)).await
            }
        }
    }
}

/// The account files of a root filesystem.
///
/// # Errors
///
/// One of them is no file or is beyond reason.
pub fn read_accounts(rootfs: &Rootfs) -> Result<Accounts> {
    Ok(Accounts {
        passwd: rootfs.read("/etc/passwd", MAX_ACCOUNTS)?.unwrap_or_default(),
        group: rootfs.read("/etc/group", MAX_ACCOUNTS)?.unwrap_or_default(),
    })
}

// Until there is a bridge, a container has a network of its own with loopback only, unless it shares the host's.
fn own_network(config: &ContainerConfig, host: &HostConfig) -> Result<bool> {
    match host.network_mode.as_str() {
        "" | "default" | "none" => Ok(true),
        "host" if config.network_disabled => {
            Err(Error::invalid("NetworkDisabled contradicts NetworkMode host"))
        }
        "host" => Ok(false),
        other => Err(Error::not_supported(format!("NetworkMode: {other:?}"))),
    }
}
