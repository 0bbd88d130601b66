//! Layers that registries may not distribute: fetched from where the manifest says, and never sent.

use std::fs;
use std::path::Path;
use std::process::Command;

use integration_tests::daemon::Daemon;
use integration_tests::image::{Compression, Layout};
use integration_tests::registry::{Registry, free_port};
use integration_tests::{Scratch, binaries, run};
use serde_json::json;
use tonic::Code;
use wharf_proto::containerd::types::transfer::RegistryResolver;

use crate::push::push;
use crate::supervisor::Supervisor;

/// A registry that takes manifests with URLs in them; with its `host:port`.
fn lenient(scratch: &Scratch) -> (Daemon, String) {
    let home = scratch.directory("lenient");
    let host = format!("127.0.0.1:{}", free_port());
    let config = json!({
        "version": "0.1",
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": home.join("storage")}},
        "http": {"addr": host},
        "validation": {"disabled": true},
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

fn copy(layout: &Path, tag: &str, reference: &str) {
    run(Command::new(binaries::peer("skopeo"))
        .args(["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"])
        .arg(format!("oci:{}:{tag}", layout.display()))
        .arg(format!("docker://{reference}")))
    .ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_layer_is_fetched_from_its_url_and_never_pushed() {
    let scratch = Scratch::new();
    let tree = scratch.directory("tree");
    fs::write(tree.join("licensed"), "elsewhere").unwrap();
    // Whoever may distribute the layer is another registry.
    let elsewhere = Registry::start(&scratch);
    let mut layout = Layout::new(&scratch.join("layout"));
    let layer = layout.layer_of(&tree, Compression::Gzip);
    layout.clone().tag("whole", &json!({}));
    elsewhere.push(layout.path(), "whole", "vendor/base:1");
    let there = elsewhere.reference("vendor/base");
    let (host, repository) = there.split_once('/').unwrap();
    layout.withhold(&format!("http://{host}/v2/{repository}/blobs/{layer}"));
    layout.tag("latest", &json!({}));
    let (_registry, own) = lenient(&scratch);
    let reference = format!("{own}/team/app:1");
    copy(layout.path(), "latest", &reference);
    let has = |repository: &str| {
        let hex = layer.strip_prefix("sha256:").unwrap();
        let links = scratch.join("lenient/storage/docker/registry/v2/repositories");
        links.join(repository).join("_layers/sha256").join(hex).exists()
    };
    assert!(!has("team/app"), "the other client sent the layer");

    let supervisor = Supervisor::start(&scratch).await;
    supervisor.transfer(supervisor.pull(&reference)).await.unwrap();
    assert_eq!(supervisor.snapshots().await.len(), 1);
    assert!(supervisor.blobs().await.contains(&layer));

    let again = format!("{own}/team/again:1");
    let request = push(&reference, &again, RegistryResolver::default());
    supervisor.transfer(request).await.unwrap();
    assert!(!has("team/again"), "a layer was sent that may not be distributed");

    // Bytes that are not the layer's do not become it.
    fs::write(elsewhere.blob(&layer), "rotten").unwrap();
    let second = Scratch::new();
    let fresh = Supervisor::start(&second).await;
    let refused = fresh.transfer(fresh.pull(&again)).await.unwrap_err();
    assert_ne!(refused.code(), Code::Ok);
    assert!(fresh.images().await.is_empty() && fresh.snapshots().await.is_empty());
    assert!(!fresh.blobs().await.contains(&layer));
}
