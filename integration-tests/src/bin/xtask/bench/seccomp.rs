//! What a system call filter costs: none, one that was compiled before, and one that never was.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use integration_tests::{Scratch, bundle};
use serde_json::{Value, json};

use super::measure::{Driver, compare};
use super::runtime::Runtime;

/// The profile of Docker and Podman in the form they ship it, from Podman's package.
const SHIPPED: &str = "/usr/share/containers/seccomp.json";

/// Compares ours with itself.
pub(crate) fn compare_filters(
    scratch: &Scratch,
    driver: &Driver,
    ours: &Runtime,
    plain: &Path,
    rounds: usize,
) -> Result<()> {
    let Ok(shipped) = fs::read_to_string(SHIPPED) else {
        println!("{SHIPPED} is not installed: filters are left out");
        return Ok(());
    };
    let profile = resolved(&serde_json::from_str(&shipped).with_context(|| format!("read {SHIPPED}"))?)?;
    let (known, new) = (scratch.join("known-filter"), scratch.join("new-filter"));
    for directory in [&known, &new] {
        bundle::bundle(directory, &["/bin/true"], |spec| {
            spec["linux"]["seccomp"] = profile.clone();
        });
    }
    let in_new = new.clone();
    let candidates = [
        ours.run_as("without a filter", plain, |_| {}),
        ours.run_as("with Docker's, compiled before", &known, |_| {}),
        // A name that is no call changes the profile and not the filter.
        ours.run_as("with Docker's, never compiled", &new, move |round| {
            bundle::configure(&in_new, &["/bin/true"], |spec| {
                spec["linux"]["seccomp"]["syscalls"][0]["names"][0] = format!("bench-{round}").into();
            });
        }),
    ];
    compare(
        driver,
        "run /bin/true under a system call filter",
        &candidates,
        rounds,
    )
}

/// The profile as an engine hands it to a runtime: for this architecture, and for a container without added capabilities.
fn resolved(shipped: &Value) -> Result<Value> {
    let list = |value: &Value, name: &str| value[name].as_array().cloned().unwrap_or_default();
    let holds = |call: &Value| {
        let here = |it: &Value| it == "amd64";
        let includes = &call["includes"];
        let arches = list(includes, "arches");
        list(includes, "caps").is_empty()
            && (arches.is_empty() || arches.iter().any(here))
            && !list(&call["excludes"], "arches").iter().any(here)
    };
    let mut calls: Vec<Value> = list(shipped, "syscalls").into_iter().filter(holds).collect();
    for call in calls.iter_mut().filter_map(Value::as_object_mut) {
        call.retain(|name, value| {
            ["names", "action", "errnoRet", "args"].contains(&name.as_str()) && !value.is_null()
        });
    }
    if calls.is_empty() {
        bail!("{SHIPPED} has no rules");
    }
    // A rule of its own that can be changed without a change of what the filter does.
    calls.insert(0, json!({"names": ["bench"], "action": "SCMP_ACT_ALLOW"}));
    Ok(json!({
        "defaultAction": shipped["defaultAction"],
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": calls,
    }))
}
