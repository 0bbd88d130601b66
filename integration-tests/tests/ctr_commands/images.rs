//! Images: from and to a registry and archives, on disk, and in the store.

use crate::Stage;

/// In this order, in one namespace.
pub(crate) const SCRIPTS: &[&str] = &[
    "ctr images pull --plain-http $REGISTRY/two:1 >/dev/null 2>&1; ctr images ls; ctr images list --quiet",
    "ctr images pull --plain-http --print-chainid --platform linux/amd64 --label a=b --max-concurrent-downloads 1 \
     --user u:p --snapshotter native $REGISTRY/two:1 >/dev/null 2>&1; ctr images ls; ctr snapshots --snapshotter native ls | sort",
    // One manifest, of another platform than the one that is asked for.
    "ctr images pull --plain-http --platform linux/s390x $REGISTRY/two:1 | tail -2 | sed 's/done: .*/done/'; ctr images ls; \
     ctr images rm --sync $REGISTRY/two:1; ctr images pull --plain-http --platform linux/s390x --snapshotter native $REGISTRY/two:1 \
     >/dev/null 2>&1; echo $?; ctr images check | tr -s ' '; ctr content ls -q | sort; ctr images pull --plain-http $REGISTRY/two:1 >/dev/null 2>&1; echo $?",
    "ctr images pull --plain-http --http-dump --http-trace --refresh r $REGISTRY/two:1 >/dev/null 2>&1; echo $?",
    "ctr images pull --plain-http --skip-verify --all-platforms --all-metadata $REGISTRY/two:1 >/dev/null 2>&1; echo $?",
    "ctr images pull --plain-http $REGISTRY/none:1",
    "ctr images pull --hosts-dir $PWD/none --tlscacert none $REGISTRY/none:1; \
     ctr images pull --tlscert none --tlskey none $REGISTRY/none:1",
    "ctr images check | tr -s ' '; ctr images check --quiet; ctr images check --snapshotter native | tr -s ' '",
    "ctr images push --plain-http --user u:p $REGISTRY/pushed:1 $REGISTRY/two:1 >/dev/null 2>&1; echo $?; \
     ctr images push --plain-http $REGISTRY/pushed:2 none",
    "manifest=$(ctr images ls | awk 'END{print $3}'); ctr images push --plain-http --manifest $manifest --manifest-type \
     application/vnd.oci.image.manifest.v1+json $REGISTRY/pushed:3 >/dev/null 2>&1; echo $?",
    "ctr images push --plain-http --platform linux/amd64 --max-concurrent-uploaded-layers 1 $REGISTRY/x:1 \
     $REGISTRY/two:1 >/dev/null 2>&1; echo $?",
    "ctr images push --plain-http --allow-non-distributable-blobs $REGISTRY/x:2 $REGISTRY/two:1 >/dev/null 2>&1; echo $?",
    "ctr images import --digests --base-name docker.io/library/t two.tar; ctr images ls",
    "ctr images import --digests --skip-digest-for-named --base-name docker.io/library/s two.tar; ctr images ls -q",
    "ctr images import --index-name idx --all-platforms --no-unpack two.tar; ctr images ls -q | sed 's/import-.*/IMPORT/'",
    "ctr images import --platform linux/arm64 --no-unpack two.tar; echo $?",
    "ctr images import --compress-blobs --no-unpack two.tar; \
     ctr images import --base-name docker.io/library/t --snapshotter none two.tar",
    "ctr images import --base-name docker.io/library/t - < two.tar",
    "ctr images import none; ctr images import hello >/dev/null 2>&1; echo $?",
    "ctr images export --skip-manifest-json x.tar docker.io/library/t:1; tar -tf x.tar | sort",
    "ctr images export --platform linux/amd64 --skip-non-distributable x.tar docker.io/library/t:1; \
     tar -tf x.tar | sort; tar -xOf x.tar manifest.json; tar -xOf x.tar index.json",
    "ctr images export --all-platforms - docker.io/library/t:1 | sha256sum",
    "ctr images export x.tar none",
    "ctr images convert --oci docker.io/library/t:1 t:oci; ctr images convert --uncompress --platform linux/amd64 \
     docker.io/library/t:1 t:u; ctr images convert --all-platforms --uncompress docker.io/library/t:1 t:ua; ctr images ls \
     | sed 's/import-[^ ]*  */IMPORT/;s/  */ /g'",
    "ctr images convert none x; ctr images convert docker.io/library/t:1",
    "mkdir -p m; ctr images mount docker.io/library/t:1 m >/dev/null; ls m; ctr images unmount --rm m; ls m",
    "ctr images mount --rw --platform linux/amd64 --snapshotter native --label a=b docker.io/library/t:1 m >/dev/null; \
     touch m/new; ls m; ctr images unmount m; ctr snapshots --snapshotter native ls | wc -l",
    "ctr images mount none m; ctr images unmount none",
    "ctr images label docker.io/library/t:1 x=y z | tr , '\\n' | sort; ctr images label --replace-all \
     docker.io/library/t:1 q=r; ctr images ls -q labels.q==r; ctr images ls -q labels.x",
    "ctr images tag t:oci a/b:1 c:2; ctr images tag t:oci c:2; ctr images tag --force t:oci c:2; ctr images ls -q \
     | sed 's/import-.*/IMPORT/'",
    "ctr images delete --sync a/b:1 c:2 t:oci t:u t:ua idx none; ctr images ls -q | sed 's/import-.*/IMPORT/'",
    "mkdir -p inst; ctr install --path $PWD/inst --libs $REGISTRY/two:1; ls inst inst/*; \
     ctr install --path $PWD/inst --libs $REGISTRY/two:1; ctr install --replace --path $PWD/inst $REGISTRY/two:1; echo $?",
];

#[test]
fn images() {
    Stage::start().pair.agree(SCRIPTS);
}
