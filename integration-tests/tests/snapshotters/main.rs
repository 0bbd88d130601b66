//! Snapshotters keep the same promises, whichever one is asked for: one suite runs on each of `wharfd`'s, on one behind a
//! socket, and on Debian's containerd, which shows that the suite asks for what containerd's clients rely on. What they
//! hold can be turned into layers, which are the same as containerd's.

mod check;
mod diff;
mod mapped;
mod run;
mod subject;
mod suite;

use integration_tests::Scratch;
use integration_tests::containerd::Containerd;

use subject::{Filesystem, Subject};

#[tokio::test]
async fn overlayfs_keeps_the_promises() {
    let scratch = Scratch::new();
    let subject = Subject::wharfd(&scratch, "wharfd", "").await;
    suite::run(&subject, &scratch).await;
    suite::the_root_keeps_its_mode(&subject, &scratch).await;
}

#[tokio::test]
async fn native_keeps_the_promises() {
    let scratch = Scratch::new();
    let subject = Subject::wharfd(&scratch, "wharfd", "").await.with("native");
    suite::run(&subject, &scratch).await;
    suite::the_root_keeps_its_mode(&subject, &scratch).await;
}

#[tokio::test]
async fn btrfs_keeps_the_promises() {
    let scratch = Scratch::new();
    let _disk = Filesystem::btrfs(&scratch, "wharfd/root");
    let subject = Subject::wharfd(&scratch, "wharfd", "").await.with("btrfs");
    suite::run(&subject, &scratch).await;
    suite::the_root_keeps_its_mode(&subject, &scratch).await;
}

#[tokio::test]
async fn an_external_one_keeps_the_promises() {
    let scratch = Scratch::new();
    let other = Subject::wharfd(&scratch, "other", "").await;
    let subject = Subject::wharfd(&scratch, "wharfd", &other.as_proxy("native")).await;
    let subject = subject.with("native");
    suite::run(&subject, &scratch).await;
    suite::nothing_is_left(&other.with("native")).await;
}

#[tokio::test]
async fn one_of_containerd_keeps_the_promises_to_wharfd() {
    let scratch = Scratch::new();
    let containerd = Containerd::start(&scratch);
    let other = Subject::connect(containerd.socket(), "overlayfs").await;
    let subject = Subject::wharfd(&scratch, "wharfd", &other.as_proxy("overlayfs")).await;
    suite::run(&subject, &scratch).await;
    suite::nothing_is_left(&other).await;
}

#[tokio::test]
async fn containerds_own_keep_them_too() {
    let scratch = Scratch::new();
    let containerd = Containerd::start(&scratch);
    for name in ["overlayfs", "native"] {
        suite::run(&Subject::connect(containerd.socket(), name).await, &scratch).await;
    }
}
