//! Pushes to Debian's registry, and what another client reads there.

use std::fs;
use std::process::Command;

use integration_tests::registry::Registry;
use integration_tests::{Scratch, binaries, run};
use tonic::Code;
use wharf_proto::any;
use wharf_proto::containerd::services::transfer::v1::TransferRequest;
use wharf_proto::containerd::types::transfer::{ImageStore, OciRegistry, RegistryResolver};

use crate::image::{GZIP, image};
use crate::supervisor::Supervisor;

pub(crate) fn push(name: &str, reference: &str, resolver: RegistryResolver) -> TransferRequest {
    TransferRequest {
        source: Some(any::pack(&ImageStore {
            name: name.into(),
            ..ImageStore::default()
        })),
        destination: Some(any::pack(&OciRegistry {
            reference: reference.into(),
            resolver: Some(resolver),
        })),
        options: None,
    }
}

/// Another client reads all of the image, and finds each blob to be what its digest says.
fn read_whole(scratch: &Scratch, reference: &str) {
    let copy = scratch.directory(crate::supervisor::unique("copy"));
    run(Command::new(binaries::peer("skopeo"))
        .args(["--insecure-policy", "copy", "--quiet", "--src-tls-verify=false"])
        .arg(format!("docker://{reference}"))
        .arg(format!("dir:{}", copy.display())))
    .ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pushed_image_is_read_whole_by_another_client() {
    let scratch = Scratch::new();
    let layout = image(&scratch, GZIP);
    let registry = Registry::start(&scratch);
    let pulled = registry.push(layout.path(), "latest", "team/app:v1");
    let supervisor = Supervisor::start(&scratch).await;
    supervisor.transfer(supervisor.pull(&pulled)).await.unwrap();

    // Mounted from the repository that it was pulled from.
    let beside = registry.reference("other/app:v2");
    let request = push(&pulled, &beside, RegistryResolver::default());
    supervisor.transfer(request).await.unwrap();
    read_whole(&scratch, &beside);

    // Sent to a registry that has nothing of it; reached by its configuration only.
    let elsewhere = Scratch::new();
    let second = Registry::start(&elsewhere);
    let hosts = scratch.directory("hosts/registry.invalid");
    let address = second.reference("");
    let server = format!("server = \"http://{}\"\n", address.trim_end_matches('/'));
    fs::write(hosts.join("hosts.toml"), server).unwrap();
    let resolver = RegistryResolver {
        host_dir: scratch.join("hosts").to_string_lossy().into_owned(),
        ..RegistryResolver::default()
    };
    let request = push(&pulled, "registry.invalid/app:v3", resolver.clone());
    supervisor.transfer(request).await.unwrap();
    read_whole(&scratch, &second.reference("app:v3"));
    let fresh = Supervisor::start(&elsewhere).await;
    let again = fresh.pull_with("registry.invalid/app:v3", resolver);
    fresh.transfer(again).await.unwrap();
    assert_eq!(fresh.snapshots().await.len(), 3);

    let missing = push("nothing", &beside, RegistryResolver::default());
    let refused = supervisor.transfer(missing).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound, "{refused}");
}
