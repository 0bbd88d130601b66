//! The OCI runtimes in a guest with pure cgroup v2: `run` of `/bin/true`, also of peers that cannot run on this machine.
//!
//! The machine is emulated, and its clock counts instructions, a nanosecond each: kernel and programs alike, without the time
//! that a processor loses to its caches. The figures are the same on every machine however busy it is, but they are no
//! machine's times; what counts is the ratio.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use integration_tests::{Scratch, binaries, bundle, guest};

use super::measure::{Driver, Sample, WARM_UP, compile, print, sample};
use super::runtime::{FLOOR, PEERS};

/// Runs each of `$names` once a round, and tells each measurement. What fails the first time is left out.
///
/// Nobody's streams are the console, which would be relayed by some and not by others. And each has the machine for itself: a
/// network namespace is taken down behind the back of whoever made it, a quarter of a start that whoever comes next would pay
/// for, or not.
const SCRIPT: &str = r#"
mkdir -p /run/floor /bundle/rootfs/bin /bundle/rootfs/proc /bundle/rootfs/sys /bundle/rootfs/dev
cp /job/busybox /bundle/rootfs/bin/busybox
ln -s busybox /bundle/rootfs/bin/true
cp /job/config.json /bundle/
once() {
  sleep 0.3
  if [ $1 = floor ]; then
    measure /run/measured floor /bundle/rootfs /run/floor $1-$2 /sys/fs/cgroup -- /bin/true
  else
    measure /run/measured $1 --root /run/$1 run --bundle /bundle $1-$2
  fi
}
working=
for name in $names; do
  if once $name first < /dev/null > /run/said 2>&1; then
    working="$working $name"
  else
    echo left out $name: $(cat /run/said)
  fi
done
round=0
while [ $round -lt $rounds ]; do
  for name in $working; do
    once $name $round < /dev/null > /dev/null 2> /run/said || { cat /run/said; exit 1; }
    echo measured $name $(cat /run/measured)
  done
  round=$((round + 1))
done
"#;

/// Boots the guest with ours, the peers that are installed and the runcs at `more`, and runs `rounds` rounds in it.
pub(crate) fn compare_in_guest(rounds: usize, more: &[PathBuf]) -> Result<()> {
    let scratch = &Scratch::new();
    let driver = Driver::new(scratch)?;
    let home = scratch.directory("bundle");
    bundle::configure(&home, &["/bin/true"], |spec| {
        // Debian's crun knows no later version; nothing in this configuration is of one.
        spec["ociVersion"] = "1.0.2".into();
    });
    let mut programs = vec![
        driver.program().to_path_buf(),
        compile(scratch, "floor", include_str!("floor.c"))?,
        binaries::peer("busybox"),
        home.join("config.json"),
        binaries::ours("wharf-runtime"),
    ];
    let mut names = vec!["wharf-runtime".to_string(), "floor".to_string()];
    for peer in PEERS {
        let Some(program) = binaries::find(peer) else {
            println!("{peer} is not installed: left out");
            continue;
        };
        names.push(peer.to_string());
        programs.push(program);
    }
    for (number, path) in more.iter().enumerate() {
        // All are called runc; in the guest each has a name of its own.
        let name = format!("runc-{}", number + 1);
        let copy = scratch.join(&name);
        fs::copy(path, &copy).with_context(|| format!("copy {}", path.display()))?;
        println!("{name} is {}", path.display());
        names.push(name);
        programs.push(copy);
    }
    let total = rounds + WARM_UP;
    let script = format!("names='{}'\nrounds={total}\n{SCRIPT}", names.join(" "));
    let programs: Vec<_> = programs.iter().map(PathBuf::as_path).collect();
    // Ten times what an emulated machine takes for it on processors that others use too.
    let limit = Duration::from_secs(600 + (10 * total * names.len()) as u64);
    let output = guest::run_in_counting_guest(scratch, &programs, &script, limit);

    let mut samples: Vec<Vec<Sample>> = names.iter().map(|_| Vec::new()).collect();
    for line in output.lines().map(str::trim) {
        if let Some(told) = line.strip_prefix("measured ") {
            let (name, numbers) = told.split_once(' ').context("a measurement without a name")?;
            let index = names.iter().position(|it| it == name).context("a name")?;
            samples[index].push(sample(numbers)?);
        } else {
            println!("{line}");
        }
    }
    let (mut shown, mut measured) = (Vec::new(), Vec::new());
    for (name, mut samples) in names.iter().zip(samples) {
        if samples.is_empty() {
            continue;
        }
        if samples.len() != total {
            bail!("{name} was measured {} times instead of {total}", samples.len());
        }
        shown.push(if name == "floor" { FLOOR } else { name });
        measured.push(samples.split_off(WARM_UP));
    }
    let title = format!(
        "run /bin/true in a guest with pure cgroup v2 ({rounds} rounds, interleaved; an instruction is a nanosecond)"
    );
    print(&title, &shown, &measured);
    Ok(())
}
