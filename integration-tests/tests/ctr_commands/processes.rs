//! What goes on while something else does: terminals, attached clients, events, a shim that is asked directly.

use crate::Stage;

/// In this order, in one namespace.
pub(crate) const SCRIPTS: &[&str] = &[
    "mkdir out; chmod 777 out; ctr images import --base-name docker.io/library/t two.tar >/dev/null",
    // `ctr` wants a terminal of its own to give one; in the foreground, or it would be stopped when it sets that up.
    "script -qec \"timeout --foreground 60 ctr --address $SOCKET run --rm --tty $OUT docker.io/library/t:1 t1 sh -c '[ -t 0 ] && [ -t 1 ] && \
     echo terminal >/out/tty; stty size >/out/size 2>&1; exit 7'\" /dev/null >/dev/null; echo $?; cat out/tty",
    // It ends when attach has both pipes, each by a handle and by what it reads: containerd's own ctr loses what comes before.
    "ctr run --detach $OUT docker.io/library/t:1 t2 sh -c 'until [ -e /out/go ]; do sleep 0.05; done; echo attached; echo apart >&2; exit 5'; \
     script -qec \"timeout --foreground 60 ctr --address $SOCKET tasks exec --exec-id x --tty t2 sh -c '[ -t 0 ] && exit 9'\" /dev/null >/dev/null; echo $?; \
     env ctr --address $SOCKET tasks attach t2 >attached 2>apart & until [ $(ls -l /proc/$!/fd | grep -c 't2-std[oe]') -ge 4 ]; do \
     kill -0 $! || break; sleep 0.05; done; touch out/go; wait $!; echo $?; cat attached apart; \
     ctr tasks ls; ctr containers rm t2",
    "ctr tasks attach none",
    ": >events; ctr events >>events 2>/dev/null & until grep -q /containers/create events; do ctr containers create docker.io/library/t:1 c1; ctr containers rm c1; done; \
     ctr run --rm docker.io/library/t:1 e1 sh -c 'exit 3'; ctr namespaces create $CONTAINERD_NAMESPACE-n; ctr namespaces rm $CONTAINERD_NAMESPACE-n >/dev/null; \
     ctr images tag docker.io/library/t:1 u:1; ctr images label u:1 a=b; ctr images rm u:1; \
     until grep -q /images/delete events && grep -q /tasks/delete events; do sleep 0.05; done; kill $!; \
     grep -E '\"e1\"|/namespaces/|/images/' events | awk '{print $6, $7}' | sed 's/,\"snapshot_key.*//' | grep -E '^/(tasks/(create|start|exit|delete)|images|namespaces)' | cut -d' ' -f1 | sort",
    "ctr run --detach docker.io/library/t:1 s1 sleep 1000; \
     ctr shim --id s1 state | tr ',' '\\n' | grep -E '\"(id|status|terminal)\"'; ctr shim --id s1 delete 2>&1 | sed 's/: not found$//'; \
     ctr shim --id s1 exec --spec none --cwd / x1 >/dev/null 2>&1; echo $?; \
     ctr oci spec | sed -n '/\"process\"/,/^    }/p' | sed '1s/.*/{/;$s/.*/}/' >process; ctr shim --id s1 exec --spec process --cwd / --env A=B --stdin '' --stdout '' --stderr '' x2; echo $?; \
     ctr shim --id s1 start 2>&1 | sed 's/: not found$//'; ctr tasks kill --signal KILL s1; until ctr tasks ls | grep -q STOPPED; do sleep 0.05; done; ctr tasks delete s1; ctr containers rm s1; \
     ctr shim --id s1 state; ctr shim --id none state; \
     ls /run/containerd/s | grep $(printf %s \"$SOCKET/$CONTAINERD_NAMESPACE/s1\" | sha256sum | cut -d' ' -f1)",
    // Profiles of a Go program: there is no such socket here, and `wharfd` has none at all.
    "ctr pprof --debug-socket $PWD/none block; ctr pprof -d $PWD/none goroutines; ctr pprof -d $PWD/none heap; \
     ctr pprof -d $PWD/none threadcreate; ctr pprof -d $PWD/none profile --seconds 1; \
     ctr pprof -d $PWD/none trace --seconds 1",
];

#[test]
fn terminals_events_and_shims() {
    let mut stage = Stage::start();
    stage.bind_out();
    stage.pair.agree(SCRIPTS);
}
