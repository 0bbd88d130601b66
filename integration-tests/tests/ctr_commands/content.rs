//! Content, leases, namespaces, and what the daemon says of itself.

use crate::Stage;

/// In this order, in one namespace.
pub(crate) const SCRIPTS: &[&str] = &[
    "ctr content fetch --plain-http --metadata-only $REGISTRY/two:1 >/dev/null 2>&1; echo $?; ctr images list -q; ctr content list x==y",
    "ctr content fetch --plain-http --platform linux/amd64 --label a=b $REGISTRY/two:1 >/dev/null 2>&1; ctr content ls -q; ctr images ls",
    "ctr content fetch --plain-http --all-platforms --all-metadata $REGISTRY/two:1 >/dev/null 2>&1; echo $?",
    "ctr content fetch --plain-http $REGISTRY/none:1",
    "ctr content fetch-object --plain-http $REGISTRY/two:1 $(ctr content ls -q | head -1) | sha256sum",
    "ctr content push-object --plain-http $REGISTRY/$SIDE:2 $(ctr content ls -q | tail -1) application/vnd.oci.image.config.v1+json",
    "ctr content push-object --plain-http $REGISTRY/$SIDE:2 sha256:0000000000000000000000000000000000000000000000000000000000000000 x",
    // What nothing refers to may be collected at once.
    "ctr content ingest --expected-size 6 r1 < hello; ctr content ingest --expected-size 5 r2 < hello; \
     ctr content ingest --expected-digest sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 r3 < empty; echo $?",
    "manifest=$(ctr images ls | awk 'END{print $3}'); ctr content get $manifest | sha256sum; ctr content label $manifest a=b >/dev/null; \
     ctr content ls -q labels.a==b",
    "manifest=$(ctr images ls | awk 'END{print $3}'); ctr content edit --editor 'sed -i s/amd64/arm64/' $manifest; \
     EDITOR='sed -i s/\"schemaVersion\"/\"SchemaVersion\"/' ctr content edit $manifest",
    "ctr content edit --editor true --validate json $(ctr content ls -q | head -1); ctr content edit --editor true none; \
     ctr content edit $(ctr content ls -q | head -1)",
    "ctr content active; ctr content active --timeout 1s --root /x",
    "ctr content prune references --dry 2>&1 | sort; ctr content prune references; ctr content prune references --async; ctr images ls -q",
    "ctr content delete none; ctr content rm $(ctr content ls -q | head -1) | wc -l",
    "ctr leases create --expires 1h --id e1 a=b; ctr leases list | awk '{print $1, $3}' | sed 's/20..-.*Z/TIME/'; ctr leases ls --quiet; \
     ctr leases delete e1; ctr leases create --id e2; ctr leases rm --sync e2 e3",
    "ctr leases create -x 0 x=y | wc -l; ctr leases ls -q | wc -l; ctr leases rm $(ctr leases ls -q) | wc -l",
    "ctr namespaces create n1 a=b; ctr namespaces create n2; ctr namespaces list -q | grep ^n; ctr namespaces label n1 a=c d=e; \
     ctr namespaces ls | grep n1; ctr namespaces remove --cgroup n1; ctr namespaces rm n2 n3; ctr namespaces list --quiet | grep ^n",
    "ctr plugins list --quiet type==io.containerd.snapshotter.v1 | grep -vE 'aufs|btrfs' | sort; ctr plugins ls --detailed id==overlayfs | grep -viE 'root|remap-ids' | tr -s ' '; \
     ctr plugins ls type==none",
    "ctr version 2>/dev/null | sed '/Server/q'; ctr version 2>/dev/null | grep -cE '^  (Version|Revision|UUID)'",
    "ctr oci spec | grep -v cgroupsPath | sha256sum",
];

#[test]
fn content_and_what_the_daemon_says_of_itself() {
    Stage::start().pair.agree(SCRIPTS);
}
