//! Mounts that the daemon makes: loop devices, templates, directories and filesystems; by name, kept by leases and labels,
//! over a crash of the daemon, and as the root filesystem of a container.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use integration_tests::{eventually, leftovers, run};
use tokio_stream::StreamExt as _;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use wharf_proto::containerd::services::containers::v1::containers_client::ContainersClient;
use wharf_proto::containerd::services::containers::v1::{
    Container, CreateContainerRequest, DeleteContainerRequest, container,
};
use wharf_proto::containerd::services::leases::v1::leases_client::LeasesClient;
use wharf_proto::containerd::services::leases::v1::{CreateRequest, DeleteRequest};
use wharf_proto::containerd::services::mounts::v1::mounts_client::MountsClient;
use wharf_proto::containerd::services::mounts::v1::*;
use wharf_proto::containerd::services::tasks::v1::tasks_client::TasksClient;
use wharf_proto::containerd::services::tasks::v1::{CreateTaskRequest, DeleteTaskRequest};
use wharf_proto::containerd::types::{ActivationInfo, Mount};

use crate::subject::{SOON, Subject};

const RUNTIME: &str = "io.containerd.wharf.v2";

struct Daemon {
    subject: Subject,
    channel: Channel,
}

impl Daemon {
    fn start() -> Daemon {
        let subject = Subject::wharfd(RUNTIME);
        let channel = Endpoint::try_from(format!("unix://{}", subject.socket.display()))
            .expect("an address")
            .connect_lazy();
        Daemon { subject, channel }
    }

    fn home(&self) -> &Path {
        self.subject.wharfd.as_ref().expect("wharfd").home()
    }

    fn scoped<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let namespace = self.subject.namespace().parse().expect("a header");
        request.metadata_mut().insert("containerd-namespace", namespace);
        request
    }

    async fn activate(&self, request: ActivateRequest, lease: &str) -> Result<ActivationInfo, Status> {
        let mut request = self.scoped(request);
        if !lease.is_empty() {
            let lease = lease.parse().expect("a header");
            request.metadata_mut().insert("containerd-lease", lease);
        }
        let mut mounts = MountsClient::new(self.channel.clone());
        let activated = mounts.activate(request).await?;
        Ok(activated.into_inner().info.expect("what was made"))
    }

    async fn deactivate(&self, name: &str) -> Result<(), Status> {
        let mut mounts = MountsClient::new(self.channel.clone());
        let request = DeactivateRequest { name: name.into() };
        mounts.deactivate(self.scoped(request)).await.map(drop)
    }

    async fn info(&self, name: &str) -> Result<ActivationInfo, Status> {
        let mut mounts = MountsClient::new(self.channel.clone());
        let request = InfoRequest { name: name.into() };
        let info = mounts.info(self.scoped(request)).await?;
        Ok(info.into_inner().info.expect("what is there"))
    }

    async fn names(&self, filters: &[&str]) -> Vec<String> {
        let mut mounts = MountsClient::new(self.channel.clone());
        let filters = filters.iter().map(|filter| (*filter).to_owned()).collect();
        let list = mounts.list(self.scoped(ListRequest { filters })).await;
        let messages: Vec<_> = list.expect("a list").into_inner().collect().await;
        let infos = messages
            .into_iter()
            .map(|message| message.expect("a message").info);
        infos.map(|info| info.expect("an activation").name).collect()
    }

    async fn lease(&self, id: &str) {
        let request = CreateRequest {
            id: id.into(),
            ..CreateRequest::default()
        };
        let mut leases = LeasesClient::new(self.channel.clone());
        leases.create(self.scoped(request)).await.expect("a lease");
    }

    /// Deletes a lease, and collects what is garbage before it returns.
    async fn unlease(&self, id: &str) {
        let request = DeleteRequest {
            id: id.into(),
            sync: true,
        };
        let mut leases = LeasesClient::new(self.channel.clone());
        leases.delete(self.scoped(request)).await.expect("it is deleted");
    }

    /// Collects garbage.
    async fn collect(&self) {
        self.lease("short").await;
        self.unlease("short").await;
    }

    fn nothing_is_mounted(&self) {
        let mounts = self.home().join("state/mounts");
        assert_eq!(leftovers::mounts_below(&mounts), [] as [PathBuf; 0]);
        let left: Vec<_> = fs::read_dir(&mounts).map_or(Vec::new(), |entries| {
            entries.map(|entry| entry.expect("an entry").path()).collect()
        });
        assert_eq!(left, [] as [PathBuf; 0]);
        assert_eq!(devices_of(self.home()), [] as [String; 0]);
    }
}

/// The files below `directory` that are block devices at the moment.
fn devices_of(directory: &Path) -> Vec<String> {
    let devices = fs::read_dir("/sys/block").expect("the block devices");
    let files = devices.filter_map(|device| {
        let device = device.expect("an entry").path();
        fs::read_to_string(device.join("loop/backing_file")).ok()
    });
    let directory = directory.to_str().expect("a UTF-8 path");
    files
        .map(|file| file.trim().to_owned())
        .filter(|file| file.starts_with(directory))
        .collect()
}

fn mount(kind: &str, source: &str, options: &[&str]) -> Mount {
    Mount {
        r#type: kind.into(),
        source: source.into(),
        target: String::new(),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
    }
}

fn request(name: &str, mounts: Vec<Mount>) -> ActivateRequest {
    ActivateRequest {
        name: name.into(),
        mounts,
        ..ActivateRequest::default()
    }
}

/// A file with an empty ext4 that is made when it is activated, as a block device.
fn disk(home: &Path) -> Vec<Mount> {
    let image = home.join("root/disk.img");
    let image = image.to_str().expect("a UTF-8 path");
    vec![
        mount(
            "mkfs/loop",
            image,
            &["X-containerd.mkfs.size=8MiB", "X-containerd.mkfs.fs=ext2"],
        ),
        mount("format/ext2", "{{ mount 0 }}", &[]),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_for_a_runtime_is_made_and_the_rest_told() {
    let daemon = Daemon::start();
    daemon.lease("keep").await;
    let info = daemon
        .activate(request("disk", disk(daemon.home())), "keep")
        .await
        .expect("it is made");
    assert_eq!((info.active.len(), info.system.len()), (1, 1));
    let point = &info.active[0].mount_point;
    assert!(info.active[0].mounted_at.is_some());
    assert_eq!(info.active[0].mount.as_ref().unwrap().r#type, "loop");
    let device = fs::read_link(point).expect("a link to a device");
    assert!(device.starts_with("/dev"), "{}", device.display());
    assert_eq!(
        (info.system[0].r#type.as_str(), &info.system[0].source),
        ("ext2", point)
    );
    assert_eq!(devices_of(daemon.home()).len(), 1);
    // The same is told again.
    assert_eq!(daemon.info("disk").await.unwrap(), info);
    assert_eq!(daemon.names(&[]).await, ["disk"]);
    assert_eq!(daemon.names(&["name==other"]).await, [] as [String; 0]);
    let again = daemon.activate(request("disk", disk(daemon.home())), "").await;
    assert_eq!(again.unwrap_err().code(), Code::AlreadyExists);

    // What the client is told can be mounted, and what is written is there the next time.
    let place = daemon.subject.scratch.directory("place");
    let mounted = run(Command::new("mount").arg(point).arg(&place));
    mounted.ok();
    fs::write(place.join("file"), "kept").unwrap();
    run(Command::new("umount").arg(&place)).ok();
    daemon.deactivate("disk").await.expect("it is taken down");
    daemon.nothing_is_mounted();
    assert_eq!(
        daemon.deactivate("disk").await.unwrap_err().code(),
        Code::NotFound
    );
    assert_eq!(daemon.info("disk").await.unwrap_err().code(), Code::NotFound);

    let look = ActivateRequest {
        temporary: true,
        ..request("look", disk(daemon.home()))
    };
    let info = daemon.activate(look, "keep").await.expect("all is made");
    assert_eq!((info.active.len(), info.system.len()), (2, 1));
    assert_eq!(info.system[0].r#type, "bind");
    let seen = Path::new(&info.system[0].source).join("file");
    assert_eq!(fs::read_to_string(seen).unwrap(), "kept");
    daemon.deactivate("look").await.unwrap();
    daemon.nothing_is_mounted();
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_are_named_by_their_mounts() {
    let daemon = Daemon::start();
    let scratch = &daemon.subject.scratch;
    for name in ["low", "high", "upper", "work"] {
        fs::create_dir(scratch.join(name)).unwrap();
        fs::write(scratch.join(name).join(name), name).unwrap();
    }
    fs::remove_file(scratch.join("work/work")).unwrap();
    let at = |name: &str| scratch.join(name).display().to_string();
    let made = daemon.home().join("root/made");
    let mkdir = format!("X-containerd.mkdir.path={}:750:7:8", made.display());
    let mounts = vec![
        mount("bind", &at("low"), &["ro", "bind"]),
        mount("bind", &at("high"), &["ro", "bind"]),
        mount(
            "format/mkdir/overlay",
            "overlay",
            &[
                "lowerdir={{ overlay 1 0 }}",
                &format!("upperdir={}", at("upper")),
                &format!("workdir={}", at("work")),
                &mkdir,
            ],
        ),
    ];
    daemon.lease("keep").await;
    let info = daemon
        .activate(request("layers", mounts.clone()), "keep")
        .await
        .unwrap();
    let points: Vec<&str> = info
        .active
        .iter()
        .map(|active| active.mount_point.as_str())
        .collect();
    assert_eq!(points.len(), 2);
    assert_eq!(info.system[0].r#type, "overlay");
    assert_eq!(
        info.system[0].options[0],
        format!("lowerdir={}:{}", points[1], points[0])
    );
    assert_eq!(info.system[0].options.len(), 3, "the directory's option is gone");
    let metadata = fs::metadata(&made).unwrap();
    use std::os::unix::fs::MetadataExt as _;
    assert_eq!(
        (
            metadata.permissions().mode() & 0o777,
            metadata.uid(),
            metadata.gid()
        ),
        (0o750, 7, 8)
    );
    assert!(
        fs::write(Path::new(points[0]).join("x"), "").is_err(),
        "it is read-only"
    );
    daemon.deactivate("layers").await.unwrap();

    let temporary = ActivateRequest {
        temporary: true,
        ..request("layers", mounts)
    };
    let info = daemon.activate(temporary, "keep").await.unwrap();
    let root = Path::new(&info.system[0].source);
    for name in ["low", "high", "upper"] {
        assert_eq!(fs::read_to_string(root.join(name)).unwrap(), name);
    }
    daemon.deactivate("layers").await.unwrap();
    daemon.nothing_is_mounted();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_refused_and_leaves_nothing() {
    let daemon = Daemon::start();
    let root = daemon.home().join("root");
    let image = root.join("x.img").display().to_string();
    let outside = daemon.subject.scratch.join("x.img").display().to_string();
    let bind = || mount("bind", "/", &["bind", "ro"]);
    let mkdir = |path: String| mount("mkdir/bind", "/", &[&format!("X-containerd.mkdir.path={path}")]);
    let cases = [
        (Code::Unimplemented, vec![]),
        (Code::Unimplemented, vec![bind()]),
        (Code::Unimplemented, vec![mount("what/bind", "/", &[])]),
        (
            Code::Unknown,
            vec![bind(), mount("format/bind", "{{ mount 1 }}", &[])],
        ),
        (Code::Unknown, vec![bind(), mount("format/bind", "{{ mount", &[])]),
        (Code::Unknown, vec![bind(), mount("loop", "/does/not/exist", &[])]),
        (Code::Unknown, vec![bind(), mount("loop", "/dev/null", &[])]),
        (Code::InvalidArgument, vec![mount("mkfs/loop", &image, &[])]),
        (
            Code::InvalidArgument,
            vec![mount(
                "mkfs/loop",
                &image,
                &["X-containerd.mkfs.size=1M", "X-containerd.mkfs.fs=x"],
            )],
        ),
        (
            Code::Unimplemented,
            vec![mount("mkfs/loop", &outside, &["X-containerd.mkfs.size=1M"])],
        ),
        (
            Code::Unknown,
            vec![mount("mkfs/loop", &image, &["X-containerd.mkfs.size=4K"])],
        ),
        (Code::Unimplemented, vec![mkdir("/x".into())]),
        (
            Code::Unimplemented,
            vec![mkdir(daemon.subject.scratch.join("x").display().to_string())],
        ),
        (
            Code::Unknown,
            vec![mkdir(root.join("no/parent").display().to_string())],
        ),
        (
            Code::Unknown,
            vec![mkdir(root.join("../x").display().to_string())],
        ),
        (
            Code::InvalidArgument,
            vec![mkdir(format!("{}/x:bad", root.display()))],
        ),
        (
            Code::InvalidArgument,
            vec![bind(); 256]
                .into_iter()
                .chain([mount("format/bind", "/", &[])])
                .collect(),
        ),
    ];
    for (code, mounts) in cases {
        let shown = format!("{mounts:.200?}");
        let failed = daemon
            .activate(request("bad", mounts), "")
            .await
            .expect_err(&shown);
        assert_eq!(failed.code(), code, "{shown}: {failed}");
        assert_eq!(daemon.info("bad").await.unwrap_err().code(), Code::NotFound);
        daemon.nothing_is_mounted();
    }
    assert!(!Path::new(&image).exists());
    let temporary = |mounts| ActivateRequest {
        temporary: true,
        ..request("bad", mounts)
    };
    for (code, mount) in [
        (Code::Unknown, mount("nosuchfs", "x", &[])),
        (
            Code::InvalidArgument,
            mount("bind", "/", &["X-containerd.mkdir.path=/x"]),
        ),
        (Code::Unimplemented, mount("overlay", "/", &["uidmap=0:1:1"])),
        (
            Code::Unimplemented,
            Mount {
                target: "/below".into(),
                ..bind()
            },
        ),
    ] {
        let failed = daemon
            .activate(temporary(vec![bind(), mount]), "")
            .await
            .unwrap_err();
        assert_eq!(failed.code(), code, "{failed}");
        daemon.nothing_is_mounted();
    }
    let nameless = daemon.activate(request("", disk(daemon.home())), "").await;
    assert_eq!(nameless.unwrap_err().code(), Code::InvalidArgument);
    let lease = daemon.activate(request("bad", disk(daemon.home())), "none").await;
    assert_eq!(lease.unwrap_err().code(), Code::NotFound);
    let mut mounts = MountsClient::new(daemon.channel.clone());
    let update = mounts.update(daemon.scoped(UpdateRequest::default())).await;
    assert_eq!(update.unwrap_err().code(), Code::Unimplemented);
    let nowhere = mounts.info(InfoRequest { name: "x".into() }).await;
    assert_eq!(nowhere.unwrap_err().code(), Code::FailedPrecondition);
    daemon.nothing_is_mounted();
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_and_labels_keep_an_activation_and_nothing_else_does() {
    let daemon = Daemon::start();
    daemon.lease("long").await;
    let labelled = |name: &str, key: &str| ActivateRequest {
        labels: BTreeMap::from([(key.to_owned(), "box".to_owned())]),
        ..request(
            name,
            vec![
                mount("bind", "/", &["bind"]),
                mount("format/bind", "{{ mount 0 }}", &["bind"]),
            ],
        )
    };
    let container = Container {
        id: "box".into(),
        runtime: Some(container::Runtime {
            name: RUNTIME.into(),
            options: None,
        }),
        spec: Some(prost_types::Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/Spec".into(),
            value: b"{}".to_vec(),
        }),
        ..Container::default()
    };
    let mut containers = ContainersClient::new(daemon.channel.clone());
    let create = CreateContainerRequest {
        container: Some(container),
    };
    containers.create(daemon.scoped(create)).await.unwrap();
    daemon.activate(labelled("leased", "x"), "long").await.unwrap();
    daemon
        .activate(labelled("labelled", "containerd.io/gc.bref.container"), "")
        .await
        .unwrap();
    daemon.activate(labelled("free", "x"), "").await.unwrap();
    assert_eq!(daemon.names(&[]).await, ["free", "labelled", "leased"]);
    assert_eq!(daemon.names(&["labels.x==box"]).await, ["free", "leased"]);
    daemon.collect().await;
    assert_eq!(daemon.names(&[]).await, ["labelled", "leased"]);
    let below = leftovers::mounts_below(&daemon.home().join("state/mounts"));
    assert_eq!(below.len(), 2, "{below:?}");

    daemon.unlease("long").await;
    assert_eq!(daemon.names(&[]).await, ["labelled"]);
    let delete = DeleteContainerRequest { id: "box".into() };
    containers.delete(daemon.scoped(delete)).await.unwrap();
    eventually("what the container kept is taken down", SOON, || {
        leftovers::mounts_below(&daemon.home().join("state/mounts"))
            .is_empty()
            .then_some(())
    });
    daemon.collect().await;
    assert_eq!(daemon.names(&[]).await, [] as [String; 0]);
    daemon.nothing_is_mounted();
}

#[tokio::test(flavor = "multi_thread")]
async fn activations_outlive_the_daemon_and_remains_do_not() {
    let mut daemon = Daemon::start();
    daemon.lease("keep").await;
    let info = daemon
        .activate(request("disk", disk(daemon.home())), "keep")
        .await
        .unwrap();
    for is_repaired in [false, true] {
        // As a daemon leaves it that dies in the middle: a directory with a mount that no row names.
        let orphan = daemon.home().join("state/mounts/4711");
        fs::create_dir_all(orphan.join("0")).unwrap();
        let bind = Command::new("mount")
            .args(["--bind", "/"])
            .arg(orphan.join("0"))
            .status();
        assert!(bind.unwrap().success());
        // And a device that is somebody else's by now: that stays.
        let foreign = daemon.home().join("foreign.img");
        fs::write(&foreign, vec![0; 1 << 20]).unwrap();
        let device = run(Command::new("losetup").args(["--find", "--show"]).arg(&foreign));
        let device = device.ok().trim().to_owned();
        std::os::unix::fs::symlink(&device, orphan.join("1")).unwrap();

        let wharfd = daemon.subject.wharfd.as_mut().unwrap();
        wharfd.kill9();
        if is_repaired {
            let report = run(&mut wharfd.command(&["fsck", "--format", "json"]));
            let report: serde_json::Value = serde_json::from_str(&report.stdout).expect("a report");
            // The image in the root is nobody's there, and left alone.
            let faults = report["faults"].as_array().unwrap().iter();
            let mut faults = faults.filter(|fault| fault["kind"] != "unknown").peekable();
            assert!(
                faults.peek().is_some() && faults.all(|fault| fault["repaired"] == true),
                "{report}"
            );
            assert!(!orphan.exists());
        }
        wharfd.restart();
        let kept = eventually_info(&daemon, "disk").await;
        assert_eq!(kept, info);
        assert!(fs::read_link(&info.active[0].mount_point).is_ok());
        assert!(!orphan.exists());
        let backing = format!(
            "/sys/block/{}/loop/backing_file",
            device.trim_start_matches("/dev/")
        );
        let backing = fs::read_to_string(backing);
        run(Command::new("losetup").args(["--detach", &device])).ok();
        assert_eq!(backing.unwrap().trim(), foreign.to_str().unwrap());
    }
    daemon.deactivate("disk").await.unwrap();
    daemon.nothing_is_mounted();
}

/// The channel connects again.
async fn eventually_info(daemon: &Daemon, name: &str) -> ActivationInfo {
    let deadline = std::time::Instant::now() + SOON;
    loop {
        match daemon.info(name).await {
            Ok(info) => return info,
            Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_containers_root_is_activated_and_goes_with_its_task() {
    let daemon = Daemon::start();
    let id = format!("{}-box", daemon.subject.scratch.unique());
    let bundle = daemon.subject.scratch.join("bundle");
    integration_tests::bundle::bundle(&bundle, &["/bin/true"], |spec| {
        spec["root"]["path"] = "rootfs".into();
        spec["linux"]["cgroupsPath"] = format!("/{id}").into();
    });
    let spec = prost_types::Any {
        type_url: "types.containerd.io/opencontainers/runtime-spec/1/Spec".into(),
        value: fs::read(bundle.join("config.json")).unwrap(),
    };
    let create = CreateContainerRequest {
        container: Some(Container {
            id: id.clone(),
            runtime: Some(container::Runtime {
                name: RUNTIME.into(),
                options: None,
            }),
            spec: Some(spec),
            ..Container::default()
        }),
    };
    let mut containers = ContainersClient::new(daemon.channel.clone());
    containers.create(daemon.scoped(create)).await.unwrap();
    let mut tasks = TasksClient::new(daemon.channel.clone());
    let with = |rootfs: Vec<Mount>| {
        daemon.scoped(CreateTaskRequest {
            container_id: id.clone(),
            rootfs,
            ..CreateTaskRequest::default()
        })
    };
    let layer = mount("bind", &daemon.subject.root, &["bind", "ro"]);
    let bad = vec![layer.clone(), mount("format/nosuchfs", "{{ mount 0 }}", &[])];
    tasks.create(with(bad)).await.unwrap_err();
    assert_eq!(daemon.names(&[]).await, [] as [String; 0]);
    daemon.nothing_is_mounted();

    let good = vec![layer, mount("format/bind", "{{ mount 0 }}", &["rbind", "ro"])];
    let pid = tasks.create(with(good)).await.unwrap().into_inner().pid;
    assert_eq!(daemon.names(&[]).await, [id.clone()]);
    assert!(Path::new(&format!("/proc/{pid}/root")).exists());
    daemon.collect().await;
    assert_eq!(daemon.names(&[]).await, [id.clone()], "the container keeps it");
    let start = wharf_proto::containerd::services::tasks::v1::StartRequest {
        container_id: id.clone(),
        exec_id: String::new(),
    };
    tasks.start(daemon.scoped(start)).await.unwrap();
    let wait = wharf_proto::containerd::services::tasks::v1::WaitRequest {
        container_id: id.clone(),
        exec_id: String::new(),
    };
    let ended = tasks.wait(daemon.scoped(wait)).await.unwrap().into_inner();
    assert_eq!(ended.exit_status, 0, "the program was found in the root");
    let delete = DeleteTaskRequest {
        container_id: id.clone(),
    };
    tasks.delete(daemon.scoped(delete)).await.unwrap();
    assert_eq!(daemon.names(&[]).await, [] as [String; 0]);
    daemon.nothing_is_mounted();
    containers
        .delete(daemon.scoped(DeleteContainerRequest { id }))
        .await
        .unwrap();
}
