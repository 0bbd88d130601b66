//! Containers and tasks. What a container says is read from a file that it writes: with containerd's own shim, `ctr` on a
//! busy machine sometimes ends before it has opened the FIFO that holds a short output.

use crate::Stage;

/// In this order, in one namespace. `$OUT` gives a container the directory `out` at `/out`.
pub(crate) const SCRIPTS: &[&str] = &[
    "mkdir out; chmod 777 out; ctr images import --base-name docker.io/library/t two.tar",
    "ctr run --rm $OUT docker.io/library/t:1 r1 sh -c 'echo hi >/out/said; exit 3'; echo $?; cat out/said",
    // Once around everything.
    "ctr run --detach --pid-file pid --label a=b --annotation c=d --env A=B --cwd /tmp $OUT --memory-limit 67108864 --cpus 0.5 \
     --cpu-shares 200 docker.io/library/t:1 r1 sh -c '{ echo $A; pwd; } >/out/said; : >/out/done; exec sleep 1000'; \
     until [ -e out/done ]; do sleep 0.05; done; cat out/said; [ $(cat pid) = $(ctr tasks list | awk 'END{print $2}') ]; \
     ctr tasks ls --quiet; ctr containers list --quiet; ctr containers ls -q labels.a==b",
    "ctr containers info r1 | sed -E 's/\"(Created|Updated)At.*//' | grep -v Snapshot; ctr containers info --spec r1 | sha256sum | wc -l; \
     ctr containers label r1 a= x=y | tr , '\\n' | sort",
    "ctr tasks exec --exec-id e1 --cwd /bin --user 1000 r1 sh -c '{ id -u; pwd; } >/out/e1; exit 4'; echo $?; cat out/e1",
    "ctr tasks exec --exec-id e2 --detach r1 sleep 500; ctr tasks ps r1 | wc -l; ctr tasks kill --exec-id e2 --signal KILL r1; \
     until ctr tasks delete --exec-id e2 r1 2>&1 | grep 'not exist'; do sleep 0.05; done",
    "ctr tasks exec --exec-id e3 --log-uri file://$PWD/logged --detach r1 echo logged; until [ -s logged ]; do sleep 0.05; done; cat logged; \
     until ctr tasks rm --exec-id e3 r1 2>/dev/null; do sleep 0.05; done",
    "mkdir fifos; ctr tasks exec --exec-id e4 --fifo-dir $PWD/fifos r1 sh -c 'exit 5'; echo $?; ls fifos",
    "ctr tasks exec --exec-id e5 r1 >/dev/null 2>&1; echo $?; ctr tasks exec r1 true >/dev/null; echo $?; \
     ctr tasks exec --exec-id e6 r1 nonexistent 2>&1 | grep -c 'executable file not found'",
    "ctr tasks metrics r1 | awk '{print $1}'; ctr tasks metrics --format json r1 | head -c 10; ctr tasks metrics --format x r1",
    "ctr tasks pause r1; ctr tasks ls | awk 'END{print $3}'; ctr tasks pause r1 2>&1 | cut -d: -f1,2; ctr tasks resume r1; \
     ctr tasks ls | awk 'END{print $3}'",
    "ctr tasks start r1; ctr tasks pause none; ctr tasks resume none; ctr tasks metrics none; ctr tasks ps none",
    "ctr containers checkpoint --rw --image r1 c:1; ctr images ls -q | grep c:1; ctr content ls | wc -l; ctr containers checkpoint none x",
    "ctr containers restore --rw --live r9 none >/dev/null 2>&1; echo $?",
    // Whether the machine's criu works is not the question here: both need one.
    "ctr tasks checkpoint none; ctr containers checkpoint --task none x",
    "ctr tasks kill --signal NOPE r1; ctr tasks kill --all --signal KILL r1; until ctr tasks ls | grep -q STOPPED; do sleep 0.05; done; \
     ctr tasks kill r1; ctr tasks delete r1; ctr tasks delete r1; ctr tasks ls",
    "ctr tasks start --detach --null-io --pid-file pid2 r1; ctr tasks ls | awk 'END{print $3}'; ctr tasks delete --force r1",
    "ctr tasks start --detach --log-uri file://$PWD/log2 r1; ctr tasks delete -f r1",
    "ctr tasks start --detach --fifo-dir $PWD/fifos r1; ctr tasks rm -f r1; ctr snapshots label r1 containerd.io/gc.root=now; ctr containers delete --keep-snapshot r1; ctr snapshots ls | grep -c r1; \
     ctr snapshots rm r1; ctr containers ls",
    "ctr containers create --snapshotter native --label a=b --env A=B docker.io/library/t:1 r2 sh -c 'exit 6'; ctr containers ls; \
     ctr tasks start r2; echo $?; ctr containers rm r2 none",
    // The flags of `run` one by one.
    "ctr run --rm --null-io docker.io/library/t:1 n1 sh -c 'echo no; exit 2'",
    "ctr run --rm --log-uri file://$PWD/log3 docker.io/library/t:1 n2 sh -c 'echo logged; exit 2'; until [ -s log3 ]; do sleep 0.05; done; cat log3",
    "ctr run --rm --cgroup /$CONTAINERD_NAMESPACE/chosen $OUT docker.io/library/t:1 n3 sh -c 'cat /proc/self/cgroup >/out/cgroup'; \
     cut -d: -f3 out/cgroup | sort -u; ctr run --rm --cgroup '' docker.io/library/t:1 n4 true",
    "ctr run --rm --platform linux/amd64 --cni --fifo-dir $PWD/fifos docker.io/library/t:1 n5 sh -c 'exit 3'; echo $?",
    "ctr run --rm --runc-binary /usr/sbin/runc --runc-root $PWD/runc docker.io/library/t:1 n6 sh -c 'exit 3'; echo $?; ls runc; \
     ctr run --rm --runc-binary /nonexistent docker.io/library/t:1 n7 true >/dev/null 2>&1; echo $?",
    "ctr run --rm --runc-systemd-cgroup docker.io/library/t:1 n8 true",
    "ctr run --rm --uidmap 0:100000:65536 --gidmap 0:200000:65536 $OUT docker.io/library/t:1 n9 \
     sh -c '{ cat /proc/self/uid_map; cat /proc/self/gid_map; stat -c %u:%g /come; } >/out/map'; echo $?; cat out/map",
    "ctr run --rm --snapshotter native --snapshotter-label x=y $OUT docker.io/library/t:1 n10 sh -c 'cat /come >/out/come'; cat out/come",
    "ctr run --rm --config none n11; ctr run --rm --env-file none docker.io/library/t:1 n12 true; echo A=fromfile >env; \
     ctr run --rm --env-file env $OUT docker.io/library/t:1 n12b sh -c 'echo $A >/out/env'; cat out/env",
    "ctr oci spec | sed 's,\"cwd\":,\"args\": [\"/bin/true\"]\\, \"cwd\":,;s,\"cgroupsPath\": \".*\",\"cgroupsPath\": \"/'$CONTAINERD_NAMESPACE'/n13\",;\
     s,\"path\": \"rootfs\",\"path\": \"'$PWD/root'\",' >spec; mkdir -p root/bin root/proc root/sys root/dev root/run; cp /bin/busybox root/bin; \
     ln -sf busybox root/bin/true; ctr run --rm --config spec n13; echo $?",
    "ctr run --rm --rootfs --read-only --cwd / $PWD/root n14 /bin/busybox touch /x 2>/dev/null; echo $?",
    "ctr run --rm --runtime io.containerd.runc.v2 --runtime-config-path /x --no-pivot docker.io/library/t:1 n15 true; echo $?; \
     ctr run --rm --runtime io.containerd.none.v9 docker.io/library/t:1 n15 true",
    "ctr run --rm --gpus 0 docker.io/library/t:1 n16 true; ctr run --rm --apparmor-profile none docker.io/library/t:1 n17 true >/dev/null 2>&1; echo $?; \
     ctr run --rm --apparmor-default-profile d docker.io/library/t:1 n18 true",
    "ctr run --rm --rootfs-propagation rshared docker.io/library/t:1 n19 true; echo $?; \
     ctr run --rm --rootfs-propagation bad docker.io/library/t:1 n20 true >/dev/null 2>&1; echo $?",
    "ctr run --rm --privileged --net-host --device /dev/null --cap-add CAP_SYS_TIME --cap-drop CAP_CHOWN --allow-new-privs $OUT docker.io/library/t:1 n21 \
     sh -c 'cat /proc/self/status >/out/status'; grep -E '^(Cap|NoNew|Secc)' out/status; \
     ctr run --rm --device /dev/nonexistent docker.io/library/t:1 n22 true",
    "echo '{\"defaultAction\":\"SCMP_ACT_ALLOW\"}' >profile; ctr run --rm --seccomp --seccomp-profile $PWD/profile --cpu-quota 20000 --cpu-period 50000 \
     --with-ns uts:/proc/self/ns/uts $OUT docker.io/library/t:1 n23 sh -c 'cat /proc/self/status >/out/status; stat -Lc %i /proc/self/ns/uts >/out/uts'; \
     grep Seccomp: out/status; [ $(cat out/uts) = $(stat -Lc %i /proc/self/ns/uts) ] && echo joined",
    "ctr run --rm --detach docker.io/library/t:1 n24 true; ctr run --rm none n25 true; ctr run; ctr run --rm docker.io/library/t:1",
    // Not before what failed half-way is collected.
    "ctr leases create --id g >/dev/null; ctr leases rm --sync g; ctr containers ls; ctr tasks ls; ctr snapshots ls | sort; ctr snapshots --snapshotter native ls | sort",
];

#[test]
fn containers_and_tasks() {
    let mut stage = Stage::start();
    stage.bind_out();
    stage.pair.agree(SCRIPTS);
}
