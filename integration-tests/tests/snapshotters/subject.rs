//! A daemon whose snapshots are tested, and the calls on it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use integration_tests::daemon::Daemon;
use integration_tests::{Scratch, binaries, run};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use wharf_proto::containerd::services::snapshots::v1::snapshots_client::SnapshotsClient;
use wharf_proto::containerd::services::snapshots::v1::{
    CleanupRequest, CommitSnapshotRequest, Info, ListSnapshotsRequest, MountsRequest, PrepareSnapshotRequest,
    RemoveSnapshotRequest, StatSnapshotRequest, UpdateSnapshotRequest, UsageRequest, UsageResponse,
    ViewSnapshotRequest,
};
use wharf_proto::containerd::types::Mount;

pub(crate) type Labels = BTreeMap<String, String>;

/// One snapshotter of one daemon.
pub(crate) struct Subject {
    pub(crate) channel: Channel,
    pub(crate) socket: PathBuf,
    pub(crate) snapshotter: String,
    _daemon: Option<Daemon>,
}

/// What a message is in the namespace of the tests.
pub(crate) fn scoped<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert("containerd-namespace", "default".parse().unwrap());
    request
}

/// Labels that keep a snapshot although nothing refers to it.
pub(crate) fn kept() -> Labels {
    Labels::from([(
        "containerd.io/gc.root".to_owned(),
        "2000-01-01T00:00:00Z".to_owned(),
    )])
}

impl Subject {
    /// A `wharfd` of its own in `scratch/name`, with `configuration` in its file.
    pub(crate) async fn wharfd(scratch: &Scratch, name: &str, configuration: &str) -> Self {
        let home = scratch.directory(name);
        let socket = home.join("sock");
        let file = home.join("config.toml");
        fs::write(&file, configuration).unwrap();
        let daemon = Daemon::start(
            Command::new(binaries::ours("wharfd"))
                .arg("--config")
                .arg(&file)
                .arg("--root")
                .arg(home.join("root"))
                .arg("--state")
                .arg(home.join("state"))
                .arg("--address")
                .arg(&socket),
            &home.join("log"),
            || std::os::unix::net::UnixStream::connect(&socket).is_ok(),
        );
        let mut subject = Self::connect(&socket, "overlayfs").await;
        subject._daemon = Some(daemon);
        subject
    }

    /// The snapshotter `name` of the daemon behind `socket`.
    pub(crate) async fn connect(socket: &Path, name: &str) -> Self {
        let channel = Endpoint::try_from(format!("unix://{}", socket.display()))
            .unwrap()
            .connect()
            .await
            .unwrap();
        Self {
            channel,
            socket: socket.to_path_buf(),
            snapshotter: name.to_owned(),
            _daemon: None,
        }
    }

    /// The same daemon's snapshotter `name`.
    pub(crate) fn with(mut self, name: &str) -> Self {
        self.snapshotter = name.to_owned();
        self
    }

    /// The configuration of a daemon that uses this one's snapshotter `name` instead of its own.
    pub(crate) fn as_proxy(&self, name: &str) -> String {
        format!(
            "disabled_plugins = [\"io.containerd.snapshotter.v1.{name}\"]\n\
             [proxy_plugins.{name}]\ntype = \"snapshot\"\naddress = \"{}\"\n",
            self.socket.display()
        )
    }

    fn client(&self) -> SnapshotsClient<Channel> {
        SnapshotsClient::new(self.channel.clone())
    }

    pub(crate) async fn prepare(&self, key: &str, parent: &str) -> Result<Vec<Mount>, Status> {
        self.prepare_with(key, parent, kept()).await
    }

    pub(crate) async fn prepare_with(
        &self,
        key: &str,
        parent: &str,
        labels: BTreeMap<String, String>,
    ) -> Result<Vec<Mount>, Status> {
        let request = PrepareSnapshotRequest {
            snapshotter: self.snapshotter.clone(),
            key: key.into(),
            parent: parent.into(),
            labels,
        };
        Ok(self.client().prepare(scoped(request)).await?.into_inner().mounts)
    }

    pub(crate) async fn view(&self, key: &str, parent: &str) -> Result<Vec<Mount>, Status> {
        let request = ViewSnapshotRequest {
            snapshotter: self.snapshotter.clone(),
            key: key.into(),
            parent: parent.into(),
            labels: kept(),
        };
        Ok(self.client().view(scoped(request)).await?.into_inner().mounts)
    }

    pub(crate) async fn mounts(&self, key: &str) -> Result<Vec<Mount>, Status> {
        let request = MountsRequest {
            snapshotter: self.snapshotter.clone(),
            key: key.into(),
        };
        Ok(self.client().mounts(scoped(request)).await?.into_inner().mounts)
    }

    pub(crate) async fn commit(&self, name: &str, key: &str) -> Result<(), Status> {
        let request = CommitSnapshotRequest {
            snapshotter: self.snapshotter.clone(),
            name: name.into(),
            key: key.into(),
            labels: kept(),
            parent: String::new(),
        };
        self.client().commit(scoped(request)).await.map(drop)
    }

    pub(crate) async fn remove(&self, key: &str) -> Result<(), Status> {
        let request = RemoveSnapshotRequest {
            snapshotter: self.snapshotter.clone(),
            key: key.into(),
        };
        self.client().remove(scoped(request)).await.map(drop)
    }

    pub(crate) async fn stat(&self, key: &str) -> Result<Info, Status> {
        let request = StatSnapshotRequest {
            snapshotter: self.snapshotter.clone(),
            key: key.into(),
        };
        let answer = self.client().stat(scoped(request)).await?.into_inner();
        Ok(answer.info.expect("an answer has an info"))
    }

    pub(crate) async fn update(&self, info: Info, paths: &[&str]) -> Result<Info, Status> {
        let request = UpdateSnapshotRequest {
            snapshotter: self.snapshotter.clone(),
            info: Some(info),
            update_mask: Some(prost_types::FieldMask {
                paths: paths.iter().map(|path| (*path).to_owned()).collect(),
            }),
        };
        let answer = self.client().update(scoped(request)).await?.into_inner();
        Ok(answer.info.expect("an answer has an info"))
    }

    /// Names of the snapshots that match, sorted.
    pub(crate) async fn list(&self, filters: &[&str]) -> Vec<Info> {
        let request = ListSnapshotsRequest {
            snapshotter: self.snapshotter.clone(),
            filters: filters.iter().map(|filter| (*filter).to_owned()).collect(),
        };
        let mut stream = self.client().list(scoped(request)).await.unwrap().into_inner();
        let mut infos = Vec::new();
        while let Some(message) = stream.message().await.unwrap() {
            infos.extend(message.info);
        }
        infos.sort_by(|a, b| a.name.cmp(&b.name));
        infos
    }

    pub(crate) async fn names(&self, filters: &[&str]) -> Vec<String> {
        let infos = self.list(filters).await;
        infos.into_iter().map(|info| info.name).collect()
    }

    pub(crate) async fn usage(&self, key: &str) -> Result<UsageResponse, Status> {
        let request = UsageRequest {
            snapshotter: self.snapshotter.clone(),
            key: key.into(),
        };
        Ok(self.client().usage(scoped(request)).await?.into_inner())
    }

    pub(crate) async fn cleanup(&self) -> Result<(), Status> {
        let request = CleanupRequest {
            snapshotter: self.snapshotter.clone(),
        };
        self.client().cleanup(scoped(request)).await.map(drop)
    }

    /// Makes the committed snapshot `name` on `parent`, changed by `change`.
    pub(crate) async fn layer(&self, at: &Mounted, name: &str, parent: &str, change: impl FnOnce(&Path)) {
        let key = format!("{name}-active");
        let mounts = self.prepare(&key, parent).await.unwrap();
        at.with(&mounts, change);
        self.commit(name, &key).await.unwrap();
    }
}

/// The code of a call that fails.
pub(crate) fn code<T: std::fmt::Debug>(result: Result<T, Status>) -> Code {
    result.expect_err("a call that fails").code()
}

/// Renames a directory as people do: `rename(2)` of one that comes from a lower layer is refused by most overlays.
pub(crate) fn rename(root: &Path, from: &str, to: &str) {
    run(Command::new("mv").arg(from).arg(to).current_dir(root)).ok();
}

/// A place for mounts.
pub(crate) struct Mounted(PathBuf);

impl Mounted {
    pub(crate) fn new(scratch: &Scratch, name: &str) -> Self {
        Self(scratch.directory(name))
    }

    pub(crate) fn mount(&self, mounts: &[Mount]) {
        let [mount] = mounts else { panic!("{mounts:?}") };
        let mut command = Command::new("mount");
        if mount.r#type == "bind" {
            let read_only = mount.options.iter().any(|option| option == "ro");
            command
                .arg("--bind")
                .arg("-o")
                .arg(if read_only { "ro" } else { "rw" });
        } else {
            command.arg("-t").arg(&mount.r#type);
            command.arg("-o").arg(mount.options.join(","));
        }
        run(command.arg(&mount.source).arg(&self.0)).ok();
    }

    pub(crate) fn unmount(&self) {
        run(Command::new("umount").arg(&self.0)).ok();
    }

    /// Does `work` in what `mounts` show.
    pub(crate) fn with<T>(&self, mounts: &[Mount], work: impl FnOnce(&Path) -> T) -> T {
        self.mount(mounts);
        let done = work(&self.0);
        self.unmount();
        done
    }
}

/// A file system in a file.
pub(crate) struct Filesystem(PathBuf);

impl Filesystem {
    /// A btrfs of its own on `scratch/name`.
    pub(crate) fn btrfs(scratch: &Scratch, name: &str) -> Self {
        let image = scratch.join("btrfs.img");
        fs::File::create(&image).unwrap().set_len(512 << 20).unwrap();
        run(Command::new(binaries::peer("mkfs.btrfs")).arg("-q").arg(&image)).ok();
        let directory = scratch.directory(name);
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(&image)
            .arg(&directory))
        .ok();
        Self(directory)
    }
}

impl Drop for Filesystem {
    fn drop(&mut self) {
        run(Command::new("umount").arg("--lazy").arg(&self.0));
    }
}
