//! How much memory a pull takes, whatever the image.

use std::fs::File;
use std::io::{Read, Write};

use integration_tests::Scratch;
use integration_tests::image::{Compression, Layout};
use integration_tests::registry::Registry;
use serde_json::json;

use crate::supervisor::Supervisor;

/// What the daemon may take for all layers of an image together, beside what it takes anyway.
const MOST_KIB: u64 = 64 << 10;

/// Layers whose windows alone would take more, if all were unpacked at the same time as they are asked for.
#[tokio::test(flavor = "multi_thread")]
async fn wide_windows_share_what_one_of_them_may_take() {
    let scratch = Scratch::new();
    let mut block = vec![0; 1 << 20];
    File::open("/dev/urandom")
        .unwrap()
        .read_exact(&mut block)
        .unwrap();
    let mut layout = Layout::new(&scratch.join("layout"));
    for layer in 0..3 {
        let tree = scratch.directory(format!("tree/{layer}"));
        let mut file = File::create(tree.join(format!("file{layer}"))).unwrap();
        for number in 0..36u8 {
            block[0] = number;
            block[1] = layer;
            file.write_all(&block).unwrap();
        }
        layout.layer_of(&tree, Compression::ZstdWide);
    }
    layout.tag("latest", &json!({}));
    let registry = Registry::start(&scratch);
    let reference = registry.push(layout.path(), "latest", "team/app:v1");
    let supervisor = Supervisor::start(&scratch).await;
    let before = supervisor.peak_kib();
    supervisor.transfer(supervisor.pull(&reference)).await.unwrap();
    assert_eq!(supervisor.snapshots().await.len(), 3);
    let taken = supervisor.peak_kib() - before;
    assert!(taken < MOST_KIB, "{taken} KiB");
}
