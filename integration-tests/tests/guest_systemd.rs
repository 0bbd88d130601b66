//! Containers whose control groups systemd makes, on a Debian that systemd has booted, with pure cgroup v2.

use std::path::Path;
use std::time::Duration;

use integration_tests::{Scratch, binaries, bundle, guest};
use serde_json::json;

/// Boots, prepares `/bundle` with the given configuration, and runs `script` with `runtime` as the command.
fn in_guest(edit: impl FnOnce(&mut serde_json::Value), script: &str) -> String {
    let scratch = Scratch::new();
    let home = scratch.directory("bundle");
    bundle::configure(&home, &["/bin/sleep", "1000"], |spec| {
        spec["linux"]["cgroupsPath"] = "machine.slice:wharf:box".into();
        edit(spec);
    });
    let (runtime, busybox) = (binaries::ours("wharf-runtime"), binaries::peer("busybox"));
    let config = home.join("config.json");
    let prelude = r#"
set -e
mkdir -p /bundle/rootfs/bin /bundle/rootfs/proc /bundle/rootfs/sys /bundle/rootfs/dev /bundle/rootfs/tmp
cp /job/busybox /bundle/rootfs/bin/
for name in sh sleep cat true mknod wc; do ln -s busybox /bundle/rootfs/bin/$name; done
cp /job/config.json /bundle/
runtime() { wharf-runtime --systemd-cgroup "$@"; }
show() { systemctl show --property="$2" "$1"; }
unit=wharf-box.scope
group=/sys/fs/cgroup/machine.slice/$unit
left() { echo left $(systemctl list-units --all --no-legend 'wharf-*') $(ls -d $group 2>/dev/null) $(ls /run/wharf-runtime); }
"#;
    let programs: [&Path; 3] = [&runtime, &busybox, &config];
    guest::run_in_systemd_guest(
        &scratch,
        &programs,
        &format!("{prelude}{script}"),
        Duration::from_secs(230),
    )
}

fn expect(output: &str, lines: &[&str]) {
    let found: Vec<&str> = output.lines().map(str::trim).collect();
    for line in lines {
        assert!(found.contains(line), "{line}:\n{output}");
    }
}

#[test]
fn a_container_in_the_guest_is_a_scope_with_its_limits() {
    let script = r#"
runtime run --detach --bundle /bundle box < /dev/null > /tmp/out 2>&1
echo warned $(grep -c 'memory swappiness is ignored' /tmp/out) of $(wc -l < /tmp/out)
for property in ActiveState Slice Delegate MemoryMax TasksMax CPUWeight CPUQuotaPerSecUSec CPUQuotaPeriodUSec \
    DevicePolicy TimeoutStopUSec Description ControlGroup; do show $unit $property; done
for file in memory.max pids.max cpu.max cpu.weight; do echo $file $(cat $group/$file); done
echo processes $(wc -l < $group/cgroup.procs)
runtime exec box /bin/cat /proc/self/cgroup | sed 's/^/exec /'
echo === update
runtime update --memory 128M --pids-limit 20 --cpu-quota 25500 box
for property in MemoryMax TasksMax CPUQuotaPerSecUSec; do show $unit $property; done
for file in memory.max pids.max cpu.max; do echo $file $(cat $group/$file); done
systemctl daemon-reload
echo reloaded $(cat $group/memory.max) $(cat $group/pids.max)
runtime exec box /bin/sh -c 'echo x > /dev/null && echo null is open'
runtime exec box /bin/sh -c 'mknod /tmp/ram b 1 0; cat /tmp/ram 2>&1 | wc -c; cat /tmp/ram 2>&1 || true' | tail -1
runtime pause box
runtime state box | grep status
runtime resume box
runtime events --stats box | cut -c1-27
runtime delete --force box
left
"#;
    let output = in_guest(
        |spec| {
            spec["linux"]["resources"]["memory"] = json!({"limit": 64 << 20, "swappiness": 10});
            spec["linux"]["resources"]["cpu"] = json!({"quota": 50_000, "period": 100_000, "shares": 512});
            spec["linux"]["resources"]["pids"] = json!({"limit": 16});
            spec["annotations"] = json!({"org.systemd.property.TimeoutStopUSec": "uint64 3000000"});
            spec["process"]["capabilities"]["bounding"] = json!(["CAP_MKNOD"]);
            spec["process"]["capabilities"]["permitted"] = json!(["CAP_MKNOD"]);
            spec["process"]["capabilities"]["effective"] = json!(["CAP_MKNOD"]);
            spec["root"]["readonly"] = false.into();
            let namespaces = spec["linux"]["namespaces"].as_array_mut().expect("namespaces");
            namespaces.retain(|namespace| namespace["type"] != "cgroup");
            namespaces.push(json!({"type": "cgroup"}));
        },
        script,
    );
    let (created, updated) = output
        .split_once("=== update")
        .unwrap_or_else(|| panic!("{output}"));
    expect(
        created,
        &[
            "warned 1 of 1",
            "ActiveState=active",
            "Slice=machine.slice",
            "Delegate=yes",
            "MemoryMax=67108864",
            "TasksMax=16",
            "CPUWeight=59",
            "CPUQuotaPerSecUSec=500ms",
            "CPUQuotaPeriodUSec=100ms",
            "DevicePolicy=strict",
            "TimeoutStopUSec=3s",
            "Description=wharf container box",
            "ControlGroup=/machine.slice/wharf-box.scope",
            "memory.max 67108864",
            "pids.max 16",
            "cpu.max 50000 100000",
            "cpu.weight 59",
            "processes 1",
            "exec 0::/",
        ],
    );
    expect(
        updated,
        &[
            "MemoryMax=134217728",
            "TasksMax=20",
            // systemd counts in hundredths of a processor, and rounds up.
            "CPUQuotaPerSecUSec=260ms",
            "memory.max 134217728",
            "pids.max 20",
            "cpu.max 26000 100000",
            "reloaded 134217728 20",
            "null is open",
            "cat: can't open '/tmp/ram': Operation not permitted",
            "\"status\": \"paused\",",
            "{\"type\":\"stats\",\"id\":\"box\",",
            "left",
        ],
    );
}

#[test]
fn a_guests_systemd_keeps_nothing_of_a_container_that_ended_or_failed() {
    let script = r#"
echo === one process
sed -i 's/"args": \[/&"\/bin\/true"], "was": [/' /bundle/config.json
runtime run --bundle /bundle box
echo code $?
left
echo === over the bus
mv /run/systemd/private /run/systemd/elsewhere
runtime run --bundle /bundle box
echo code $?
left
mv /run/systemd/elsewhere /run/systemd/private
echo === no program
sed -i 's/"\/bin\/true"/"\/bin\/nothing"/' /bundle/config.json
runtime run --bundle /bundle box && exit 1
left
echo === bad limit
sed -i 's/"limit": 1$/"limit": 1, "nonsense": 0/; s/"bad.limit"/"nothing.max"/' /bundle/config.json
runtime run --bundle /bundle box && exit 1
left
echo === the name is taken
systemd-run --quiet --scope --unit=$unit sleep 1000 < /dev/null > /dev/null 2>&1 &
until systemctl is-active --quiet $unit; do sleep 0.1; done
runtime run --bundle /bundle box && exit 1
echo the other is $(systemctl is-active $unit)
systemctl stop $unit
echo === a bad path
sed -i 's/machine.slice:wharf:box/\/machine\/box/' /bundle/config.json
runtime run --bundle /bundle box && exit 1
left
"#;
    let output = in_guest(
        |spec| {
            // The first process is the only one that may be.
            spec["linux"]["resources"]["pids"] = json!({"limit": 1});
            spec["annotations"] = json!({"bad.limit": "x"});
        },
        script,
    );
    let parts: Vec<&str> = output.split("=== ").collect();
    for part in &parts[1..] {
        assert!(
            part.starts_with("the name is taken") || part.lines().any(|line| line == "left"),
            "{part}\nof:\n{output}"
        );
    }
    for index in [1, 2] {
        expect(parts[index], &["code 0"]);
    }
    assert!(parts[3].contains("no such file or directory"), "{output}");
    assert!(parts[5].contains("the other is active"), "{output}");
    assert!(
        parts[6].contains("expected cgroupsPath to be of format \\\"slice:prefix:name\\\""),
        "{output}"
    );
}

#[test]
fn the_supervisors_service_survives_reload_restart_and_crash_in_the_guest() {
    let scratch = Scratch::new();
    let wharfd = scratch.join("wharfd");
    // A tenth of its size goes into the machine's memory.
    integration_tests::run(
        std::process::Command::new(binaries::peer("strip"))
            .arg("-o")
            .arg(&wharfd)
            .arg(binaries::ours("wharfd")),
    )
    .ok();
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../supervisor/systemd/wharfd.service");
    let ctr = binaries::peer("ctr");
    let script = r#"
set -e
mkdir -p /run/systemd/system
sed 's,/usr/local/bin,/job,' /job/wharfd.service > /run/systemd/system/wharfd.service
systemctl daemon-reload
show() { systemctl show --property=$1 --value wharfd; }
answers() { ctr -a /run/wharf/wharfd.sock version > /dev/null && echo $1 answers; }
systemctl start wharfd
first=$(show MainPID)
answers first
systemctl reload wharfd
second=$(show MainPID)
test $first != $second && echo the main process changed
test -d /proc/$second && ! test -d /proc/$first && echo the first has ended
echo $(show ActiveState) after $(show Result)
answers second
echo kept $(show NFileDescriptorStore)
systemctl restart wharfd
third=$(show MainPID)
answers third
kill -9 $third
answers fourth
test $(show MainPID) != $third && echo started anew $(show NRestarts)
systemctl stop wharfd
echo $(show ActiveState) after $(show Result)
journalctl --sync
echo serving $(journalctl -u wharfd -o cat -p info --no-pager | grep -c 'process: serving address')
echo errors $(journalctl -u wharfd -o cat -p err --no-pager -q _COMM=wharfd | wc -l)
echo prefixes $(journalctl -u wharfd -o cat --no-pager | grep -c '^<')
"#;
    let programs: [&Path; 3] = [&wharfd, &unit, &ctr];
    let output = guest::run_in_systemd_guest(&scratch, &programs, script, Duration::from_secs(230));
    expect(
        &output,
        &[
            "first answers",
            "the main process changed",
            "the first has ended",
            "active after success",
            "second answers",
            "kept 1",
            "third answers",
            "fourth answers",
            "started anew 1",
            "inactive after success",
            "serving 4",
            "errors 0",
            "prefixes 0",
        ],
    );
}
