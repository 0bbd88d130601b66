//! Pulls beside each other, pulls that need a password, and pulls of what is not there.

use std::fs;
use std::process::Command;

use integration_tests::daemon::Daemon;
use integration_tests::registry::Registry;
use integration_tests::{Scratch, binaries};
use serde_json::json;
use tonic::Code;
use wharf_proto::any;
use wharf_proto::containerd::types::transfer::{
    AuthRequest, AuthResponse, AuthType, Data, HttpDebug, ImageStore, RegistryResolver, WindowUpdate,
};

use crate::image::{GZIP, image};
use crate::supervisor::{Supervisor, store};

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_pulls_of_one_image_agree() {
    let scratch = Scratch::new();
    let layout = image(&scratch, GZIP);
    let registry = Registry::start(&scratch);
    let reference = registry.push(layout.path(), "latest", "team/app:v1");
    let supervisor = Supervisor::start(&scratch).await;
    let pulls = (0..6).map(|_| supervisor.transfer(supervisor.pull(&reference)));
    for outcome in futures_join(pulls).await {
        outcome.unwrap();
    }
    assert_eq!(supervisor.snapshots().await.len(), 3);
    assert_eq!(supervisor.images().await.len(), 1);
}

/// Polls all futures at the same time.
async fn futures_join<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut pending: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        for (future, output) in &mut pending {
            if output.is_none()
                && let std::task::Poll::Ready(ready) = future.as_mut().poll(context)
            {
                *output = Some(ready);
            }
        }
        if pending.iter().all(|(_, output)| output.is_some()) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    pending.into_iter().filter_map(|(_, output)| output).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_told_by_name() {
    let scratch = Scratch::new();
    let registry = Registry::start(&scratch);
    let supervisor = Supervisor::start(&scratch).await;
    let missing = registry.reference("nobody/nothing:1");
    let refused = supervisor.transfer(supervisor.pull(&missing)).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound, "{refused}");
    assert!(refused.message().contains("manifest unknown"), "{refused}");

    let port = integration_tests::registry::free_port();
    let dead = format!("127.0.0.1:{port}/a:1");
    let refused = supervisor.transfer(supervisor.pull(&dead)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert!(
        refused
            .message()
            .contains(&format!("dial tcp 127.0.0.1:{port}: connection refused")),
        "{refused}"
    );

    let cut = scratch.join("cut.tar");
    fs::write(&cut, [1; 700]).unwrap();
    assert_eq!(
        supervisor.import(&cut, store("a")).await.unwrap_err().code(),
        Code::InvalidArgument
    );
}

/// The registry wants a password; the client gives it over its stream when it is asked, and only then.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_asked_for_over_the_stream() {
    let scratch = Scratch::new();
    let layout = image(&scratch, GZIP);
    let registry = Registry::start(&scratch);
    registry.push(layout.path(), "latest", "team/app:v1");
    let (_guarded, host) = guarded(&scratch);
    let reference = format!("{host}/team/app:v1");
    let supervisor = Supervisor::start(&scratch).await;

    let (answers, mut questions) = supervisor.stream("auth").await;
    let client = tokio::spawn(async move {
        let question = questions.message().await.unwrap().unwrap();
        let question: AuthRequest = any::unpack(&question).unwrap().unwrap();
        assert_eq!(question.host, host);
        let answer = AuthResponse {
            auth_type: AuthType::Credentials.into(),
            username: "user".into(),
            secret: "secret".into(),
            ..AuthResponse::default()
        };
        answers.send(any::pack(&answer)).await.unwrap();
        questions.message().await
    });
    let resolver = RegistryResolver {
        auth_stream: "auth".into(),
        ..RegistryResolver::default()
    };
    supervisor
        .transfer(supervisor.pull_with(&reference, resolver))
        .await
        .unwrap();
    assert!(
        client.await.unwrap().unwrap().is_none(),
        "the stream ends with the transfer"
    );
    let refused = supervisor
        .transfer(supervisor.pull(&reference))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
}

/// A second registry over the storage of the first, which wants `user` and `secret`; with its `host:port`.
fn guarded(scratch: &Scratch) -> (Daemon, String) {
    let home = scratch.directory("guarded");
    // The bcrypt of "secret".
    let password = "user:$2a$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";
    fs::write(home.join("htpasswd"), password).unwrap();
    let host = format!("127.0.0.1:{}", integration_tests::registry::free_port());
    let config = json!({
        "version": "0.1",
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": scratch.join("registry/storage")}},
        "http": {"addr": host},
        "auth": {"htpasswd": {"realm": "tests", "path": home.join("htpasswd")}},
    });
    // JSON is YAML.
    fs::write(home.join("config.yml"), config.to_string()).unwrap();
    let daemon = Daemon::start(
        Command::new(binaries::peer("docker-registry"))
            .arg("serve")
            .arg(home.join("config.yml")),
        &home.join("log"),
        || std::net::TcpStream::connect(&host).is_ok(),
    );
    (daemon, host)
}

/// Pushes an index of `entries` as `team/app:tag`.
fn push_index(
    scratch: &Scratch,
    registry: &Registry,
    tag: &str,
    entries: &[&serde_json::Value],
) -> (String, String) {
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": entries,
    });
    let file = scratch.join("index.json");
    fs::write(&file, index.to_string()).unwrap();
    let reference = registry.reference(&format!("team/app:{tag}"));
    let (host, _) = reference.split_once('/').unwrap();
    integration_tests::run(
        Command::new("curl")
            .args(["--fail", "--silent", "--show-error", "--request", "PUT"])
            .args([
                "--header",
                "Content-Type: application/vnd.oci.image.index.v1+json",
            ])
            .arg("--data-binary")
            .arg(format!("@{}", file.display()))
            .arg(format!("http://{host}/v2/team/app/manifests/{tag}")),
    )
    .ok();
    (reference, integration_tests::image::digest_of(&file))
}

/// The only image of a layout, as an index says that it is for `architecture`.
fn entry(layout: &std::path::Path, architecture: &str) -> serde_json::Value {
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    let mut entry = index["manifests"][0].clone();
    entry["platform"] = json!({"os": "linux", "architecture": architecture});
    entry
}

/// As containerd 2.3 has it: what is not for the wanted platform is an image all the same, and its layers are unpacked when it
/// is all that there is.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_another_platform_is_not_refused() {
    let scratch = Scratch::new();
    let registry = Registry::start(&scratch);
    let layout = image(&scratch, GZIP);
    let single = registry.push(layout.path(), "latest", "team/app:single");
    let ours = entry(layout.path(), &store("").platforms[0].architecture);
    let (index, digest) = push_index(&scratch, &registry, "index", &[&ours]);
    let wanting = |reference: &str, os: &str| {
        let mut wanting = store(reference);
        let unpack = wanting.unpacks[0].platform.as_mut().unwrap();
        for platform in [unpack, &mut wanting.platforms[0]] {
            platform.architecture = "s390x".into();
            platform.os = os.into();
        }
        wanting
    };
    let transferred = async |reference: &str, destination: ImageStore| {
        let scratch = Scratch::new();
        let supervisor = Supervisor::start(&scratch).await;
        let mut request = supervisor.pull(reference);
        request.destination = Some(any::pack(&destination));
        supervisor.transfer(request).await?;
        assert_eq!(supervisor.images().await.len(), 1);
        Ok((supervisor.blobs().await, supervisor.snapshots().await.len()))
    };
    let (blobs, snapshots) = transferred(&single, wanting(&single, "linux")).await.unwrap();
    assert_eq!((blobs.len(), snapshots), (5, 3));
    let (blobs, snapshots) = transferred(&index, wanting(&index, "linux")).await.unwrap();
    assert!(blobs.len() == 1 && blobs.contains(&digest), "{blobs:?}");
    assert_eq!(snapshots, 0);
    let mut metadata = wanting(&index, "linux");
    metadata.all_metadata = true;
    let (blobs, snapshots) = transferred(&index, metadata).await.unwrap();
    assert_eq!((blobs.len(), snapshots), (3, 0));
    // One image is asked for, and there is none.
    for reference in [&index, &single] {
        let scratch = Scratch::new();
        let supervisor = Supervisor::start(&scratch).await;
        let mut one = wanting(reference, "linux");
        one.manifest_limit = 1;
        let mut request = supervisor.pull(reference);
        request.destination = Some(any::pack(&one));
        let refused = supervisor.transfer(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound, "{refused}");
        assert!(
            refused.message().contains("no match for platform linux/s390x"),
            "{refused}"
        );
        assert!(supervisor.images().await.is_empty() && supervisor.snapshots().await.is_empty());
    }
    let mut ours = store(&single);
    ours.manifest_limit = 1;
    assert_eq!(transferred(&single, ours).await.unwrap().1, 3);
    let refused: tonic::Status = transferred(&single, wanting(&single, "windows"))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    assert!(refused.message().contains("no unpack platforms"), "{refused}");
}

/// Of another platform, manifest and configuration are fetched when all metadata are wanted, and layers never are.
#[tokio::test(flavor = "multi_thread")]
async fn metadata_of_all_platforms_come_without_their_layers() {
    let scratch = Scratch::new();
    let registry = Registry::start(&scratch);
    let ours = image(&scratch, GZIP);
    registry.push(ours.path(), "latest", "team/app:ours");
    let tree = scratch.directory("foreign");
    fs::write(tree.join("file"), "for another machine").unwrap();
    let mut theirs = integration_tests::image::Layout::new(&scratch.join("foreign-layout"));
    let layer = theirs.layer_of(&tree, integration_tests::image::Compression::Gzip);
    theirs.tag("latest", &json!({}));
    registry.push(theirs.path(), "latest", "team/app:theirs");
    let host = store("").platforms[0].architecture.clone();
    let other = entry(theirs.path(), "s390x");
    let ours = entry(ours.path(), &host);
    let (reference, _) = push_index(&scratch, &registry, "multi", &[&other, &ours]);
    let other = other["digest"].as_str().unwrap().to_owned();
    let config: serde_json::Value =
        serde_json::from_slice(&fs::read(theirs.path().join("blobs").join(other.replace(':', "/"))).unwrap())
            .unwrap();
    let config = config["config"]["digest"].as_str().unwrap().to_owned();
    for all_metadata in [false, true] {
        let scratch = Scratch::new();
        let supervisor = Supervisor::start(&scratch).await;
        let mut request = supervisor.pull(&reference);
        let destination = ImageStore {
            all_metadata,
            ..store(&reference)
        };
        request.destination = Some(any::pack(&destination));
        supervisor.transfer(request).await.unwrap();
        let blobs = supervisor.blobs().await;
        for digest in [&other, &config] {
            assert_eq!(blobs.contains(digest), all_metadata, "{digest} {blobs:?}");
        }
        assert!(!blobs.contains(&layer));
        assert_eq!(supervisor.snapshots().await.len(), 3);
    }
}

/// The heads of requests and answers come over a stream of the client's, without what authorises.
#[tokio::test(flavor = "multi_thread")]
async fn requests_to_the_registry_can_be_watched() {
    let scratch = Scratch::new();
    let layout = image(&scratch, GZIP);
    let registry = Registry::start(&scratch);
    let reference = registry.push(layout.path(), "latest", "team/app:v1");
    let supervisor = Supervisor::start(&scratch).await;
    let (sender, mut inbound) = supervisor.stream("requests").await;
    sender
        .send(any::pack(&WindowUpdate { update: 1 << 20 }))
        .await
        .unwrap();
    let reader = tokio::spawn(async move {
        let mut text = String::new();
        while let Ok(Some(message)) = inbound.message().await {
            let data: Data = any::unpack(&message).unwrap().unwrap();
            text.push_str(std::str::from_utf8(&data.data).unwrap());
        }
        text
    });
    let resolver = RegistryResolver {
        http_debug: HttpDebug::Debug.into(),
        logs_stream: "requests".into(),
        headers: [("X-Secret".to_owned(), "hidden".to_owned())].into(),
        ..RegistryResolver::default()
    };
    supervisor
        .transfer(supervisor.pull_with(&reference, resolver))
        .await
        .unwrap();
    let text = tokio::time::timeout(std::time::Duration::from_secs(20), reader)
        .await
        .expect("the stream ends with the pull")
        .unwrap();
    drop(sender);
    assert!(text.contains("/v2/team/app/manifests/v1 HTTP/1.1\r\n"), "{text}");
    assert!(text.matches("/v2/team/app/blobs/sha256:").count() >= 4, "{text}");
    assert!(text.contains("HTTP/1.1 200 OK\r\n"), "{text}");
    assert!(
        text.contains("x-secret: <redacted>\r\n") && !text.contains("hidden"),
        "{text}"
    );
    // A stream that is not there is told by name; without debugging it would have no use.
    let resolver = RegistryResolver {
        http_debug: HttpDebug::Both.into(),
        logs_stream: "none".into(),
        ..RegistryResolver::default()
    };
    let refused = supervisor
        .transfer(supervisor.pull_with(&reference, resolver))
        .await;
    assert_eq!(refused.unwrap_err().code(), Code::NotFound);
}
