//! Configurations from bytes: a full one, with some of its values taken away, replaced, moved or multiplied.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::bytes::Bytes;

/// Every field that the specification knows.
static FULL: LazyLock<Value> = LazyLock::new(|| {
    let text = include_str!("../../src/spec/full.json");
    serde_json::from_str(text).expect("the document of the source tree")
});

/// Texts that paths, names and numbers in text are made of.
const TEXTS: [&str; 40] = [
    "",
    "/",
    ".",
    "..",
    "/..",
    "../../etc",
    "/proc",
    "/proc/sys",
    "/proc/../proc/self",
    "/dev",
    "/dev/null",
    "/sys",
    "/dev/shm/../../x",
    "a\u{0}b",
    "a/b/c",
    "/a//b/./c",
    "bind",
    "rbind",
    "ro",
    "rshared",
    "idmap",
    "tmpfs",
    "cgroup",
    "proc",
    "overlay",
    "SCMP_ACT_NOTIFY",
    "CAP_SYS_ADMIN",
    "RLIMIT_NOFILE",
    "kernel.shmmax",
    "net/ipv4.x",
    "user",
    "mount",
    "pid",
    "network",
    "time",
    "rootfs",
    "A=B",
    "=",
    "size=1%",
    "\u{1f980}",
];

/// The document that the bytes make.
pub fn configuration(bytes: &mut Bytes<'_>) -> Value {
    let mut document = FULL.clone();
    // Most fields exclude others: what stays is decided first, so that some documents are accepted.
    if let Some(members) = document.as_object_mut() {
        let keep = bytes.byte();
        thin(members, keep);
    }
    for _ in 0..32 {
        if bytes.is_empty() {
            break;
        }
        edit(&mut document, bytes);
    }
    document
}

/// Leaves what every container has, and what the bits of `keep` say.
fn thin(document: &mut Map<String, Value>, keep: u8) {
    for (bit, name) in ["hooks", "mounts", "annotations", "domainname"]
        .into_iter()
        .enumerate()
    {
        if keep >> bit & 1 == 0 {
            document.remove(name);
        }
    }
    if keep & 16 == 0 {
        let process = document["process"].as_object_mut().expect("an object");
        process.retain(|name, _| {
            ["args", "cwd", "env", "user", "capabilities", "rlimits"].contains(&name.as_str())
        });
    }
    if keep & 32 == 0 {
        let linux = document["linux"].as_object_mut().expect("an object");
        linux.retain(|name, _| {
            [
                "namespaces",
                "maskedPaths",
                "readonlyPaths",
                "resources",
                "seccomp",
            ]
            .contains(&name.as_str())
        });
    }
    if keep & 64 == 0 {
        document["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "pid"}, {"type": "uts"}]);
    }
    if keep & 128 == 0 {
        document["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW"});
    }
}

/// One change, at a place that the bytes choose.
fn edit(document: &mut Value, bytes: &mut Bytes<'_>) {
    let mut place = document;
    for _ in 0..bytes.below(6) {
        if place.as_object().is_some_and(|members| !members.is_empty()) {
            let members = place.as_object_mut().expect("looked at before");
            let index = bytes.below(members.len());
            place = members.values_mut().nth(index).expect("below the length");
        } else if place.as_array().is_some_and(|items| !items.is_empty()) {
            let items = place.as_array_mut().expect("looked at before");
            let index = bytes.below(items.len());
            place = &mut items[index];
        }
    }
    match bytes.byte() % 8 {
        0 => *place = Value::from(bytes.number()),
        1 => *place = Value::from(-(bytes.number() as i64 >> 1)),
        2 | 3 => *place = text(bytes),
        4 => *place = bytes.pick(&[true, false]).into(),
        5 => {
            if let Some(members) = place.as_object_mut() {
                let name = members.keys().nth(bytes.below(members.len())).cloned();
                name.map(|name| members.remove(&name));
            } else if let Some(items) = place.as_array_mut() {
                items.truncate(bytes.below(items.len() + 1));
            }
        }
        6 => {
            if let Some(items) = place.as_array_mut().filter(|items| items.len() < 64) {
                let more = items.clone();
                items.extend(more);
                items.push(text(bytes));
            } else if let Some(members) = place.as_object_mut() {
                members.insert(bytes.pick(&TEXTS).to_owned(), text(bytes));
            }
        }
        _ => *place = somewhere(&FULL, bytes).clone(),
    }
}

fn text(bytes: &mut Bytes<'_>) -> Value {
    let one = bytes.pick(&TEXTS);
    match bytes.byte() {
        0..160 => one.into(),
        160..220 => format!("{one}/{}", bytes.pick(&TEXTS)).into(),
        220..250 => format!("{one}={}", bytes.pick(&TEXTS)).into(),
        _ => one.repeat(3000 / one.len().max(1)).into(),
    }
}

fn somewhere<'a>(mut place: &'a Value, bytes: &mut Bytes<'_>) -> &'a Value {
    for _ in 0..bytes.below(6) {
        place = match place {
            Value::Object(members) if !members.is_empty() => {
                members.values().nth(bytes.below(members.len())).unwrap_or(place)
            }
            Value::Array(items) if !items.is_empty() => &items[bytes.below(items.len())],
            other => other,
        };
    }
    place
}
