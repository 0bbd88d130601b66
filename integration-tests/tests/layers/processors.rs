//! Layers in a compression that only an external program knows, applied and unpacked through it; and programs that fail.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use integration_tests::image::Compression;
use integration_tests::{Scratch, run};
use prost_types::Any;
use serde_json::{Value, json};
use tonic::Code;

use crate::archive::Tar;
use crate::compare::sha256;
use crate::image::{archive, image};
use crate::supervisor::{Supervisor, store};

const XZ: &str = "application/vnd.oci.image.layer.v1.tar+xz";
const LOCKED: &str = "application/vnd.example.locked";

fn configuration(scratch: &Scratch) -> String {
    // Takes the key from descriptor 3; what it is given is the layer behind three bytes.
    let unlock = scratch.join("unlock");
    fs::write(
        &unlock,
        "#!/bin/sh\ngrep -q open-sesame <&3 2>/dev/null || { echo 'no key' >&2; exit 1; }\nexec tail -c +4\n",
    )
    .unwrap();
    run(Command::new("chmod").arg("+x").arg(&unlock)).ok();
    format!(
        "[stream_processors.xz]\naccepts = ['{XZ}']\nreturns = 'application/vnd.oci.image.layer.v1.tar'\n\
         path = 'xz'\nargs = ['-d', '-c']\n\
         [stream_processors.lock]\naccepts = ['{LOCKED}']\nreturns = '{XZ}'\npath = '{}'\n\
         [stream_processors.bad]\naccepts = ['x/bad']\nreturns = 'application/vnd.oci.image.layer.v1.tar'\n\
         path = '/bin/sh'\nargs = ['-c', 'cat; echo the reason >&2; exit 3']\n\
         [stream_processors.slow]\naccepts = ['x/slow']\nreturns = 'application/vnd.oci.image.layer.v1.tar'\n\
         path = '/bin/sleep'\nargs = ['1000']\ntimeout_seconds = 1\n",
        unlock.display()
    )
}

fn xz(bytes: &[u8], scratch: &Scratch) -> Vec<u8> {
    let file = scratch.join(crate::supervisor::unique("plain"));
    fs::write(&file, bytes).unwrap();
    run(Command::new("xz").arg(&file)).ok();
    fs::read(file.with_extension("xz")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_of_programs_makes_a_layer() {
    let scratch = Scratch::new();
    let supervisor = Supervisor::start_with(&scratch, &configuration(&scratch)).await;
    let layer = Tar::default().file("etc/hello", b"world").end();
    let squeezed = xz(&layer, &scratch);
    let locked = [b"abc", &squeezed[..]].concat();
    let key = |text: &str| {
        let payload = Any {
            type_url: "example/key".into(),
            value: text.as_bytes().to_vec(),
        };
        BTreeMap::from([("lock".to_owned(), payload)])
    };

    let mounts = supervisor.prepare("").await;
    let applied = supervisor
        .apply_as(LOCKED, &locked, mounts.clone(), key("open-sesame"))
        .await
        .unwrap();
    assert_eq!(applied.digest, sha256(&layer));
    let hello = Path::new(&mounts[0].source).join("etc/hello");
    assert_eq!(fs::read(hello).unwrap(), b"world");

    let mounts = supervisor.prepare("").await;
    let refused = supervisor
        .apply_as(LOCKED, &locked, mounts.clone(), key("wrong"))
        .await
        .unwrap_err();
    assert!(
        refused.message().contains("stream processor lock") && refused.message().contains("no key"),
        "{}",
        refused.message()
    );
    for (media_type, code, words) in [
        ("x/bad", Code::Unknown, "the reason"),
        ("x/slow", Code::DeadlineExceeded, "no output"),
        ("x/unknown", Code::Unimplemented, "no processor for media-type"),
    ] {
        let refused = supervisor
            .apply_as(media_type, &layer, mounts.clone(), BTreeMap::new())
            .await
            .unwrap_err();
        assert_eq!(refused.code(), code, "{}", refused.message());
        assert!(refused.message().contains(words), "{}", refused.message());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_unpacked_through_a_program() {
    let scratch = Scratch::new();
    let layout = image(&scratch, [Compression::None; 3]);
    let supervisor = Supervisor::start_with(&scratch, &configuration(&scratch)).await;
    let plain = archive(&scratch, layout.path(), "");
    supervisor.import(&plain, store("plain:1")).await.unwrap();
    let index = supervisor.images().await[0].target.clone().unwrap().digest;
    let expected = supervisor
        .tree(&scratch, &manifest(&supervisor, &index).await)
        .await;

    // The same image with its layers squeezed anew, for a daemon that has not seen it.
    let path = |digest: &str| layout.path().join("blobs").join(digest.replace(':', "/"));
    let read = |file: &Path| serde_json::from_slice::<Value>(&fs::read(file).unwrap()).unwrap();
    let put = |bytes: &[u8]| {
        let digest = sha256(bytes);
        fs::write(path(&digest), bytes).unwrap();
        (json!(digest), json!(bytes.len()))
    };
    let mut index = read(&layout.path().join("index.json"));
    let mut manifest_document = read(&path(index["manifests"][0]["digest"].as_str().unwrap()));
    for layer in manifest_document["layers"].as_array_mut().unwrap() {
        let bytes = fs::read(path(layer["digest"].as_str().unwrap())).unwrap();
        (layer["digest"], layer["size"]) = put(&xz(&bytes, &scratch));
        layer["mediaType"] = json!(XZ);
    }
    let entry = &mut index["manifests"][0];
    (entry["digest"], entry["size"]) = put(manifest_document.to_string().as_bytes());
    fs::write(layout.path().join("index.json"), index.to_string()).unwrap();
    let squeezed = archive(&scratch, layout.path(), "");

    let other = Scratch::new();
    let supervisor = Supervisor::start_with(&other, &configuration(&other)).await;
    supervisor.import(&squeezed, store("squeezed:1")).await.unwrap();
    let index = supervisor.images().await[0].target.clone().unwrap().digest;
    let tree = supervisor
        .tree(&other, &manifest(&supervisor, &index).await)
        .await;
    assert_eq!(tree, expected);
}

/// The digest of the one manifest in an index.
async fn manifest(supervisor: &Supervisor, index: &str) -> String {
    let index = supervisor.read(index).await;
    index["manifests"][0]["digest"].as_str().unwrap().to_owned()
}
