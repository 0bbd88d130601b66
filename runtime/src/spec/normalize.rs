//! Making a document fit for the strict typed parser, as lenient as the runtimes in use are.
//!
//! Go's parser, which configurations are written for, takes `null` for "not there" and an empty string for an
//! enumeration's default. Names that only newer kernels know must not stop a container, so unknown capabilities are
//! left out with a warning. An unknown value of any other enumeration is an error: leaving it out would change
//! what the container is.

use std::collections::BTreeSet;

use oci_spec::runtime::{Capability, LinuxNamespaceType, PosixRlimitType};
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde_json::{Map, Value, json};

use super::Error;

type Object = Map<String, Value>;

/// Rewrites a whole configuration; answers what was left out, one sentence each.
pub(super) fn spec(document: &mut Value) -> Result<Vec<String>, Error> {
    drop_nulls(document);
    let mut warnings = Vec::new();
    if let Some(process) = document.get_mut("process") {
        warnings = process_object(process, "process")?;
    }
    let Some(linux) = document.get_mut("linux").and_then(Value::as_object_mut) else {
        return Ok(warnings);
    };
    for (index, namespace) in array(linux, "namespaces").iter().enumerate() {
        if let Some(Value::String(kind)) = namespace.get("type")
            && !is_known::<LinuxNamespaceType>(kind)
        {
            let field = format!("linux.namespaces[{index}].type");
            return Err(Error::field(field, format!("unknown namespace {kind:?}")));
        }
    }
    if let Some(resources) = linux.get_mut("resources").and_then(Value::as_object_mut) {
        self::resources(resources, &mut warnings);
    }
    if let Some(seccomp) = linux.get_mut("seccomp").and_then(Value::as_object_mut) {
        remove_empty_string(seccomp, "defaultAction");
        // Neither an action nor a call: the profile of somebody who wants none.
        if !seccomp.contains_key("defaultAction") && array(seccomp, "syscalls").is_empty() {
            linux.remove("seccomp");
        }
    }
    remove_empty_string(linux, "rootfsPropagation");
    Ok(warnings)
}

/// Rewrites a `process` object that stands at `path`.
pub(super) fn process(document: &mut Value, path: &str) -> Result<Vec<String>, Error> {
    drop_nulls(document);
    process_object(document, path)
}

fn process_object(process: &mut Value, path: &str) -> Result<Vec<String>, Error> {
    let Some(process) = process.as_object_mut() else {
        return Ok(Vec::new());
    };
    // Numbers that are not there are zero: a process without a user runs as root of its container.
    if let Some(user) = process.entry("user").or_insert_with(|| json!({})).as_object_mut() {
        for id in ["uid", "gid"] {
            user.entry(id).or_insert(json!(0));
        }
    }
    for (index, limit) in array(process, "rlimits").iter().enumerate() {
        if let Some(Value::String(kind)) = limit.get("type")
            && !is_known::<PosixRlimitType>(kind)
        {
            let field = format!("{path}.rlimits[{index}].type");
            return Err(Error::field(field, format!("wrong rlimit value: {kind}")));
        }
    }
    let mut unknown = BTreeSet::new();
    if let Some(sets) = process.get_mut("capabilities").and_then(Value::as_object_mut) {
        for set in sets.values_mut().filter_map(Value::as_array_mut) {
            set.retain(|name| match name.as_str() {
                Some(name) if !is_known::<Capability>(name) => {
                    unknown.insert(name.to_owned());
                    false
                }
                _ => true,
            });
        }
    }
    if unknown.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<String> = unknown.into_iter().collect();
    Ok(vec![format!(
        "ignoring unknown or unavailable capabilities: [{}]",
        names.join(" ")
    )])
}

fn resources(resources: &mut Object, warnings: &mut Vec<String>) {
    for rule in array_mut(resources, "devices").filter_map(Value::as_object_mut) {
        remove_empty_string(rule, "type");
    }
    // The typed form would take a missing limit for a limit of zero.
    if resources
        .get("pids")
        .is_some_and(|pids| pids.get("limit").is_none())
    {
        resources.remove("pids");
    }
    if let Some(memory) = resources.get_mut("memory").and_then(Value::as_object_mut) {
        let kernel = memory.remove("kernel").is_some();
        if memory.remove("kernelTCP").is_some() | kernel {
            warnings.push("Kernel memory settings are ignored and will be removed".to_owned());
        }
    }
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn array<'a>(object: &'a Object, name: &str) -> &'a [Value] {
    object
        .get(name)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

fn array_mut<'a>(object: &'a mut Object, name: &str) -> impl Iterator<Item = &'a mut Value> {
    object
        .get_mut(name)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
}

fn remove_empty_string(object: &mut Object, name: &str) {
    if object.get(name).and_then(Value::as_str) == Some("") {
        object.remove(name);
    }
}

/// Whether `name` is a value of the enumeration `T`.
fn is_known<'a, T: Deserialize<'a>>(name: &'a str) -> bool {
    T::deserialize(IntoDeserializer::<serde::de::value::Error>::into_deserializer(
        name,
    ))
    .is_ok()
}
