//! An honest image, pulled and imported, is file by file what umoci makes of it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use integration_tests::image::{Compression, Layout};
use integration_tests::registry::Registry;
use integration_tests::{Scratch, binaries, leftovers, run};
use serde_json::json;
use wharf_proto::any;
use wharf_proto::containerd::services::transfer::v1::TransferOptions;
use wharf_proto::containerd::types::transfer::{ImageReference, ImageStore, Progress};

use crate::compare::{assert_same, umoci};
use crate::image::{GZIP, archive, image};
use crate::supervisor::{Supervisor, store};

#[tokio::test(flavor = "multi_thread")]
async fn a_pulled_image_is_what_umoci_unpacks() {
    let scratch = Scratch::new();
    let layout = image(&scratch, GZIP);
    let registry = Registry::start(&scratch);
    let reference = registry.push(layout.path(), "latest", "team/app:v1");
    let supervisor = Supervisor::start(&scratch).await;

    let (_keep, mut progress) = supervisor.stream("progress").await;
    let mut request = supervisor.pull(&reference);
    request.options = Some(TransferOptions {
        progress_stream: "progress".into(),
    });
    let leases = supervisor.leases().await;
    supervisor.transfer(request).await.unwrap();

    let images = supervisor.images().await;
    assert_eq!(images.len(), 1);
    assert_eq!(images[0].name, reference);
    let target = images[0].target.clone().unwrap().digest;
    let expected = umoci(layout.path(), "latest", &scratch.join("bundle"));
    assert_same(&supervisor.tree(&scratch, &target).await, &expected);
    assert_eq!(
        supervisor.leases().await,
        leases,
        "the operation's lease was given back"
    );

    let mut events = Vec::new();
    while let Some(message) = progress.message().await.unwrap() {
        events.push(any::unpack::<Progress>(&message).unwrap().unwrap());
    }
    let said = |event: &str| events.iter().filter(|progress| progress.event == event).count();
    assert_eq!(said("extracted"), 3);
    assert_eq!(said("saved"), 1);
    assert_eq!(said("complete"), 5, "manifest, config and three layers");
    let layer = events
        .iter()
        .find(|progress| progress.event == "extracted")
        .unwrap();
    assert!(layer.name.starts_with("layer-sha256:") && layer.total > 0 && layer.progress == layer.total);

    // What containerd's clients look for.
    let manifest = supervisor.read(&target).await;
    let layer = manifest["layers"][0]["digest"].as_str().unwrap();
    assert_eq!(
        supervisor
            .label(&target, "containerd.io/gc.ref.content.l.0")
            .await
            .as_deref(),
        Some(layer)
    );
    let source = supervisor
        .label(layer, "containerd.io/distribution.source.127.0.0.1")
        .await;
    assert_eq!(source.as_deref(), Some("team/app"));
    assert!(
        supervisor
            .label(layer, "containerd.io/uncompressed")
            .await
            .is_some()
    );

    // Once more: nothing is fetched or unpacked again, even with the registry gone bad.
    for layer in manifest["layers"].as_array().unwrap() {
        fs::write(registry.blob(layer["digest"].as_str().unwrap()), "rotten").unwrap();
    }
    let before = supervisor.snapshots().await.len();
    supervisor.transfer(supervisor.pull(&reference)).await.unwrap();
    assert_eq!(supervisor.snapshots().await.len(), before);
    assert!(leftovers::mounts_below(&supervisor.home).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_of_both_formats_are_imported() {
    let scratch = Scratch::new();
    let layout = image(&scratch, GZIP);
    let expected = umoci(layout.path(), "latest", &scratch.join("bundle"));
    let supervisor = Supervisor::start(&scratch).await;
    let mixed = image(
        &scratch,
        [Compression::None, Compression::Zstd, Compression::Gzip],
    );
    for (layout, filter) in [(&layout, ""), (&layout, "--gzip"), (&mixed, "--zstd")] {
        let file = archive(&scratch, layout.path(), filter);
        supervisor
            .import(&file, store("example.org/imported:1"))
            .await
            .unwrap();
    }
    let target = supervisor.images().await[0].target.clone().unwrap();
    let index = supervisor.read(&target.digest).await;
    let manifest = index["manifests"][0]["digest"].as_str().unwrap();
    assert_same(&supervisor.tree(&scratch, manifest).await, &expected);

    // The same image as `docker save` writes it, under the name that is in the archive.
    let saved = scratch.join("saved.tar");
    run(Command::new(binaries::peer("skopeo"))
        .args(["--insecure-policy", "copy", "--quiet"])
        .arg(format!("oci:{}:latest", layout.path().display()))
        .arg(format!("docker-archive:{}:team/saved:2", saved.display())))
    .ok();
    let any_name = ImageReference {
        name: "example.org/x".into(),
        is_prefix: true,
        allow_overwrite: true,
        ..ImageReference::default()
    };
    let destination = ImageStore {
        extra_references: vec![any_name],
        ..store("")
    };
    supervisor.import(&saved, destination.clone()).await.unwrap();
    let images = supervisor.images().await;
    let plain = images
        .iter()
        .find(|image| image.name == "docker.io/team/saved:2")
        .unwrap();
    let manifest = plain.target.clone().unwrap().digest;
    assert_same(&supervisor.tree(&scratch, &manifest).await, &expected);

    // Its layers are not compressed, unless that is asked for; then they unpack to the same, and are the same each time.
    let plain = supervisor.read(&manifest).await;
    assert_eq!(
        plain["layers"][0]["mediaType"],
        "application/vnd.docker.image.rootfs.diff.tar"
    );
    let mut manifests = Vec::new();
    for _ in 0..2 {
        supervisor
            .import_as(&saved, destination.clone(), true)
            .await
            .unwrap();
        let images = supervisor.images().await;
        let named = images.iter().find(|image| image.name == "docker.io/team/saved:2");
        manifests.push(named.unwrap().target.clone().unwrap().digest);
    }
    assert_eq!(manifests[0], manifests[1]);
    assert_ne!(manifests[0], manifest);
    let packed = supervisor.read(&manifests[0]).await;
    for (place, layer) in packed["layers"].as_array().unwrap().iter().enumerate() {
        assert_eq!(
            layer["mediaType"],
            "application/vnd.docker.image.rootfs.diff.tar.gzip"
        );
        let digest = layer["digest"].as_str().unwrap();
        let label = supervisor.label(digest, "containerd.io/uncompressed").await;
        assert_eq!(label.as_deref(), plain["layers"][place]["digest"].as_str());
    }
    assert_same(&supervisor.tree(&scratch, &manifests[0]).await, &expected);
}

/// A layer that brings a hard link, and whose file is in a layer below: it cannot be unpacked before that.
#[tokio::test(flavor = "multi_thread")]
async fn hard_links_to_files_of_layers_below_are_made() {
    let scratch = Scratch::new();
    let tree = scratch.directory("tree");
    fs::create_dir_all(tree.join("deep/er")).unwrap();
    fs::write(tree.join("deep/er/file"), vec![3; 200_000]).unwrap();
    fs::set_permissions(tree.join("deep/er/file"), fs::Permissions::from_mode(0o4750)).unwrap();
    for number in 0..10 {
        fs::write(tree.join(format!("beside-{number}")), "beside").unwrap();
    }
    let mut layout = Layout::new(&scratch.join("layout"));
    layout.layer_of(&tree, Compression::Gzip);
    let link = |name: &str, to: &str, file: &str| {
        let mut archive = tar::Builder::new(fs::File::create(scratch.join(file)).unwrap());
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Link);
        header.set_mode(0o4750);
        header.set_size(0);
        header.set_mtime(1_000_000_000);
        archive.append_link(&mut header, name, to).unwrap();
        archive.into_inner().unwrap();
        scratch.join(file)
    };
    layout.layer(&link("link", "deep/er/file", "two.tar"), Compression::Gzip);
    layout.layer(&link("deep/third", "link", "three.tar"), Compression::Gzip);
    layout.tag("latest", &json!({}));
    let registry = Registry::start(&scratch);
    let reference = registry.push(layout.path(), "latest", "team/app:v1");
    let supervisor = Supervisor::start(&scratch).await;
    supervisor.transfer(supervisor.pull(&reference)).await.unwrap();
    let target = supervisor.images().await[0].target.clone().unwrap().digest;
    let mut expected = umoci(layout.path(), "latest", &scratch.join("bundle"));
    let mut found = supervisor.tree(&scratch, &target).await;
    assert_eq!(supervisor.snapshots().await.len(), 4, "three layers and a view");
    // Each layer that links makes a copy, as overlayfs does: names of one layer are one file.
    assert_eq!(found["link"]["link"], "deep/third");
    for tree in [&mut expected, &mut found] {
        for entry in tree.as_object_mut().unwrap().values_mut() {
            let entry = entry.as_object_mut().unwrap();
            entry.remove("link");
            // umoci leaves the time of a file alone that is linked to.
            entry.remove("mtime");
        }
    }
    assert_same(&found, &expected);
}
