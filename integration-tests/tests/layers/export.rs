//! Images leave as they came: archives with the same blobs, the same bytes each time, and nothing half there.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::process::Command;

use integration_tests::containerd::ctr;
use integration_tests::{Scratch, run};
use serde_json::{Value, json};
use tonic::Code;
use wharf_proto::containerd::services::images::v1::images_client::ImagesClient;
use wharf_proto::containerd::services::images::v1::{CreateImageRequest, DeleteImageRequest, Image};
use wharf_proto::containerd::types::transfer::{ImageExportStream, ImageStore};
use wharf_proto::containerd::types::{Descriptor, Platform};

use crate::image::{GZIP, archive, image};
use crate::supervisor::{Supervisor, scoped, store};

const NAME: &str = "registry.example/team/app:v1";

/// The files of an archive.
fn files(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (name, bytes)
    });
    entries.collect()
}

fn document(files: &BTreeMap<String, Vec<u8>>, name: &str) -> Value {
    serde_json::from_slice(&files[name]).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exported_image_is_the_one_that_was_imported() {
    let scratch = Scratch::new();
    let layout = image(&scratch, GZIP);
    let file = archive(&scratch, layout.path(), "");
    let supervisor = Supervisor::start(&scratch).await;
    let mut destination = store("");
    destination
        .extra_references
        .push(wharf_proto::containerd::types::transfer::ImageReference {
            name: "registry.example/team/app".into(),
            is_prefix: true,
            ..Default::default()
        });
    supervisor.import(&file, destination.clone()).await.unwrap();
    let images = supervisor.images().await;
    let [image] = images.as_slice() else {
        panic!("one image: {images:?}")
    };
    let (name, target) = (image.name.as_str(), image.target.clone().unwrap());

    let exported = supervisor
        .export(&[name], ImageExportStream::default())
        .await
        .unwrap();
    let again = supervisor
        .export(&[name], ImageExportStream::default())
        .await
        .unwrap();
    assert!(exported == again, "the same bytes each time");
    let inside = files(&exported);
    for (name, bytes) in &inside {
        if let Some(hex) = name.strip_prefix("blobs/sha256/").filter(|hex| !hex.is_empty()) {
            assert_eq!(fs::read(layout.path().join(name)).unwrap(), *bytes, "{hex}");
        }
    }
    // Manifest, config and three layers below two directories, and three documents.
    assert_eq!(inside.len(), 10, "{:?}", inside.keys());
    let entry = &document(&inside, "index.json")["manifests"][0];
    assert_eq!(entry["digest"], target.digest);
    assert_eq!(entry["annotations"]["io.containerd.image.name"], name);

    // Debian's client writes the archive itself, from the Content service: the same files, but for the index's words.
    let socket = supervisor.home.join("sock");
    let theirs = scratch.join("theirs.tar");
    run(ctr(&socket, "tests")
        .args(["images", "export"])
        .arg(&theirs)
        .arg(name))
    .ok();
    let theirs = files(&fs::read(&theirs).unwrap());
    assert_eq!(
        document(&theirs, "index.json")["manifests"],
        document(&inside, "index.json")["manifests"]
    );
    for (name, bytes) in inside.iter().filter(|(name, _)| *name != "index.json") {
        assert!(theirs.get(name) == Some(bytes), "{name} differs");
    }

    // Gone, and back again from what was exported.
    let ours = scratch.join("ours.tar");
    fs::write(&ours, &exported).unwrap();
    let request = DeleteImageRequest {
        name: name.into(),
        sync: true,
        ..DeleteImageRequest::default()
    };
    let mut client = ImagesClient::new(supervisor.channel.clone());
    client.delete(scoped(request)).await.unwrap();
    assert!(supervisor.blobs().await.is_empty());
    supervisor.import(&ours, destination).await.unwrap();
    let images = supervisor.images().await;
    assert_eq!(images.len(), 1);
    assert_eq!(images[0].name, name);
    assert_eq!(images[0].target.as_ref().unwrap().digest, target.digest);

    // Docker's own reader takes it too.
    let copy = format!("docker-archive:{}", ours.display());
    let inspected = run(Command::new("skopeo").args(["inspect", "--raw", &copy])).ok();
    assert!(inspected.contains("layers"), "{inspected}");
}

/// An index of images for two platforms of which only this machine's is here, and a layer that may not be distributed.
async fn index(supervisor: &Supervisor) -> (String, String) {
    let host = store("").platforms[0].architecture.clone();
    let config = json!({"os": "linux", "architecture": host, "rootfs": {"type": "layers", "diff_ids": []}});
    let config = config.to_string();
    let foreign = "a layer that stays where it is";
    let describe = |kind: &str, digest: String, size: usize| json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest, "size": size});
    let config_digest = supervisor.write(config.as_bytes()).await;
    let foreign_digest = supervisor.write(foreign.as_bytes()).await;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": describe("config.v1+json", config_digest, config.len()),
        "layers": [describe("layer.nondistributable.v1.tar", foreign_digest.clone(), foreign.len())],
    })
    .to_string();
    let here = supervisor.write(manifest.as_bytes()).await;
    let mut here = describe("manifest.v1+json", here, manifest.len());
    here["platform"] = json!({"os": "linux", "architecture": host});
    let mut absent = describe("manifest.v1+json", format!("sha256:{}", "0".repeat(64)), 7);
    absent["platform"] = json!({"os": "linux", "architecture": "s390x"});
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [absent, here],
    })
    .to_string();
    let digest = supervisor.write(index.as_bytes()).await;
    let image = Image {
        name: NAME.into(),
        target: Some(Descriptor {
            media_type: "application/vnd.oci.image.index.v1+json".into(),
            digest: digest.clone(),
            size: index.len() as i64,
            ..Descriptor::default()
        }),
        ..Image::default()
    };
    let request = CreateImageRequest {
        image: Some(image),
        ..CreateImageRequest::default()
    };
    let mut client = ImagesClient::new(supervisor.channel.clone());
    client.create(scoped(request)).await.unwrap();
    (digest, foreign_digest)
}

#[tokio::test(flavor = "multi_thread")]
async fn platforms_and_parts_are_chosen() {
    let scratch = Scratch::new();
    let supervisor = Supervisor::start(&scratch).await;
    // Nothing refers to the blobs until the image does.
    let (digest, foreign) = index(&supervisor).await;
    let foreign = format!("blobs/sha256/{}", foreign.strip_prefix("sha256:").unwrap());

    let exported = supervisor.export(&[NAME], ImageExportStream::default()).await;
    let inside = files(&exported.unwrap());
    assert!(inside.contains_key(&foreign));
    assert_eq!(document(&inside, "index.json")["manifests"][0]["digest"], digest);
    assert_eq!(
        document(&inside, "manifest.json")[0]["RepoTags"],
        json!(["registry.example/team/app:v1"])
    );

    let wanted = ImageExportStream {
        skip_compatibility_manifest: true,
        skip_non_distributable: true,
        ..ImageExportStream::default()
    };
    let inside = files(&supervisor.export(&[NAME, NAME], wanted).await.unwrap());
    assert!(!inside.contains_key(&foreign));
    assert!(!inside.contains_key("manifest.json"));

    let refused = async |names: &[&str], wanted: ImageExportStream| {
        let status = supervisor.export(names, wanted).await.unwrap_err();
        (status.code(), status.message().to_string())
    };
    let all = ImageExportStream {
        all_platforms: true,
        ..ImageExportStream::default()
    };
    assert_eq!(refused(&[NAME], all).await.0, Code::NotFound);
    let other = ImageExportStream {
        platforms: vec![Platform {
            os: "linux".into(),
            architecture: "riscv64".into(),
            ..Platform::default()
        }],
        ..ImageExportStream::default()
    };
    let (code, message) = refused(&[NAME], other).await;
    assert_eq!(code, Code::NotFound);
    assert!(message.contains("no manifest found for platform"), "{message}");
    assert_eq!(
        refused(&["registry.example/none:1"], ImageExportStream::default())
            .await
            .0,
        Code::NotFound
    );
    let unknown_stream = wharf_proto::containerd::services::transfer::v1::TransferRequest {
        source: Some(wharf_proto::any::pack(&ImageStore {
            name: NAME.into(),
            ..ImageStore::default()
        })),
        destination: Some(wharf_proto::any::pack(&ImageExportStream {
            stream: "nobody".into(),
            ..ImageExportStream::default()
        })),
        options: None,
    };
    let status = supervisor.transfer(unknown_stream).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_sends_to_itself_comes_back() {
    let scratch = Scratch::new();
    let supervisor = Supervisor::start(&scratch).await;
    let long: Vec<u8> = (0..300_000u32).map(|number| (number % 251) as u8).collect();
    for bytes in [long, b"short".to_vec(), Vec::new()] {
        assert!(
            supervisor.echo(bytes.clone()).await.unwrap() == bytes,
            "{}",
            bytes.len()
        );
    }
    assert_eq!(supervisor.images().await, []);
}
