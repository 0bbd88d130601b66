//! Snapshots, on two snapshotters.

use crate::Stage;

/// In this order, in one namespace.
pub(crate) const SCRIPTS: &[&str] = &[
    "ctr images import --no-unpack --base-name docker.io/library/t two.tar; ctr snapshots list",
    "ctr snapshots unpack $(ctr images ls | awk 'END{print $3}'); ctr snapshots ls",
    "ctr snapshots unpack --snapshotter native $(ctr images ls | awk 'END{print $3}'); ctr snapshots --snapshotter native ls | sort; \
     ctr snapshots unpack none",
    "ctr snapshots prepare --mounts k1; ctr snapshots prepare --target $PWD k2; ctr snapshots prepare k1",
    "top=$(ctr snapshots ls | awk '/Committed/ && /sha256.*sha256/ {print $1}'); ctr snapshots view --mounts v1 $top; \
     ctr snapshots view --target $PWD/mm v2 $top; ctr snapshots mounts $PWD/mm v1; ctr snapshots view v3 none",
    "ctr snapshots diff --keep --ref r1 --label a=b k1 | tar -tz; ctr content ls -q labels.a==b | wc -l",
    "ctr snapshots diff --media-type application/vnd.oci.image.layer.v1.tar k1 | sha256sum",
    "ctr snapshots diff k1 k2 | tar -tz; ctr snapshots diff $(ctr snapshots ls | awk '/sha256.*sha256/ {print $1}') | tar -tz | sort",
    // The views have no reference, so they go when containerd next looks for garbage.
    // A view that nobody holds may be collected between the list and the question about it.
    "until ctr snapshots usage >usage 2>/dev/null; do sleep 0.05; done; grep -v ^v usage; ctr snapshots usage -b k1; ctr snapshots usage none",
    "ctr snapshots commit c1 k1; ctr snapshots info c1 | grep -vE 'Created|Updated|gc.root'; ctr snapshots label c1 a=b | grep -c a=b; \
     ctr snapshots tree | sort; ctr snapshots info none; ctr snapshots commit c1 none",
    "ctr snapshots delete v1 v2 2>/dev/null; ctr snapshots delete k2 c1 none; ctr snapshots ls",
];

#[test]
fn snapshots() {
    Stage::start().pair.agree(SCRIPTS);
}
