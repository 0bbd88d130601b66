//! Images whose parts do not match: refused, and nothing of them is there.

use std::fs;

use integration_tests::Scratch;
use integration_tests::image::{Compression, Layout};
use integration_tests::registry::Registry;
use serde_json::{Value, json};

use crate::compare::sha256;
use crate::image::{GZIP, archive, image};
use crate::supervisor::{Supervisor, store};

/// CVE-2021-41190 and its kin: what a registry gets wrong is refused, and nothing of the image is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_image_leaves_no_trace() {
    let scratch = Scratch::new();
    let layout = image(&scratch, GZIP);
    let registry = Registry::start(&scratch);
    let reference = registry.push(layout.path(), "latest", "team/app:v1");
    let index: Value = serde_json::from_slice(&fs::read(layout.path().join("index.json")).unwrap()).unwrap();
    let manifest = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
    let hex = manifest.strip_prefix("sha256:").unwrap();
    let document: Value =
        serde_json::from_slice(&fs::read(layout.path().join("blobs/sha256").join(hex)).unwrap()).unwrap();
    let layer = document["layers"][1]["digest"].as_str().unwrap().to_owned();
    let good = fs::read(registry.blob(&layer)).unwrap();
    let supervisor = Supervisor::start(&scratch).await;

    let mut wrong_byte = good.clone();
    wrong_byte[good.len() / 2] ^= 1;
    let cut = good[..good.len() / 2].to_vec();
    let longer = [good.as_slice(), b"more"].concat();
    for damaged in [wrong_byte, cut, longer] {
        fs::write(registry.blob(&layer), &damaged).unwrap();
        let refused = supervisor
            .transfer(supervisor.pull(&reference))
            .await
            .unwrap_err();
        assert!(refused.message().contains(&layer), "{refused}");
        assert!(supervisor.images().await.is_empty());
        assert!(
            !supervisor.blobs().await.contains(&layer),
            "the damaged layer is visible"
        );
    }
    // The next try starts anew and succeeds.
    fs::write(registry.blob(&layer), &good).unwrap();
    supervisor.transfer(supervisor.pull(&reference)).await.unwrap();
    assert_eq!(supervisor.images().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_diff_id_is_refused() {
    let scratch = Scratch::new();
    let mut layout = Layout::new(&scratch.join("layout"));
    let tree = scratch.directory("tree");
    fs::write(tree.join("file"), "data").unwrap();
    layout.layer_of(&tree, Compression::Gzip);
    layout.tag("latest", &json!({}));
    // Another config for the same layer.
    let index: Value = serde_json::from_slice(&fs::read(layout.path().join("index.json")).unwrap()).unwrap();
    let blob = |digest: &Value| {
        layout
            .path()
            .join("blobs/sha256")
            .join(digest.as_str().unwrap().strip_prefix("sha256:").unwrap())
    };
    let manifest = &index["manifests"][0]["digest"];
    let mut document: Value = serde_json::from_slice(&fs::read(blob(manifest)).unwrap()).unwrap();
    let mut config: Value =
        serde_json::from_slice(&fs::read(blob(&document["config"]["digest"])).unwrap()).unwrap();
    config["rootfs"]["diff_ids"][0] = json!(sha256(b"another layer"));
    let adopt = |value: &Value| {
        let bytes = value.to_string().into_bytes();
        let digest = sha256(&bytes);
        fs::write(blob(&json!(digest)), &bytes).unwrap();
        (digest, bytes.len())
    };
    let (digest, size) = adopt(&config);
    document["config"]["digest"] = json!(digest);
    document["config"]["size"] = json!(size);
    let (digest, size) = adopt(&document);
    let mut index = index.clone();
    index["manifests"][0]["digest"] = json!(digest);
    index["manifests"][0]["size"] = json!(size);
    fs::write(layout.path().join("index.json"), index.to_string()).unwrap();

    let supervisor = Supervisor::start(&scratch).await;
    let file = archive(&scratch, layout.path(), "");
    let refused = supervisor
        .import(&file, store("example.org/a:1"))
        .await
        .unwrap_err();
    assert!(refused.message().contains("wrong diff id"), "{refused}");
    assert!(supervisor.images().await.is_empty() && supervisor.snapshots().await.is_empty());
}
