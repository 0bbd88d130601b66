//! Documents as the engines in use write them, and documents that must not pass.

use serde_json::{Value, json};

use super::*;

/// The smallest usable document, with `changes` merged into it.
fn document(changes: Value) -> Value {
    let mut document = json!({
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs"},
        "process": {"cwd": "/", "args": ["sh"], "user": {"uid": 0, "gid": 0}},
        "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}]},
    });
    merge(&mut document, changes);
    document
}

/// A `null` of `changes` removes the member.
fn merge(into: &mut Value, changes: Value) {
    match (into, changes) {
        (Value::Object(into), Value::Object(changes)) => {
            for (name, change) in changes {
                if change.is_null() {
                    into.remove(&name);
                } else {
                    merge(into.entry(name).or_insert(Value::Null), change);
                }
            }
        }
        (into, change) => *into = change,
    }
}

fn parsed(changes: Value) -> Result<Spec, Error> {
    parse(document(changes).to_string().into_bytes())
}

fn refusal(changes: Value) -> String {
    parsed(changes).unwrap_err().to_string()
}

#[test]
fn the_original_bytes_are_kept_with_what_the_typed_form_does_not_know() {
    let bytes = document(json!({"future": {"field": 1}})).to_string().into_bytes();
    let spec = parse(bytes.clone()).unwrap();
    assert_eq!(spec.original(), bytes);
    let root = spec.oci().root.as_ref().unwrap();
    assert_eq!(root.path.to_str(), Some("rootfs"));
    assert!(spec.warnings().is_empty());
}

#[test]
fn unknown_capabilities_are_left_out_and_told() {
    let spec = parsed(json!({"process": {"capabilities": {
        "bounding": ["CAP_KILL", "CAP_TIME_TRAVEL"], "ambient": ["CAP_TIME_TRAVEL", "CAP_A"],
    }}}))
    .unwrap();
    assert_eq!(
        spec.warnings(),
        ["ignoring unknown or unavailable capabilities: [CAP_A CAP_TIME_TRAVEL]"]
    );
    let process = spec.oci().process.as_ref().unwrap();
    let sets = process.capabilities.as_ref().unwrap();
    assert_eq!(sets.bounding, ["CAP_KILL"]);
    assert!(sets.ambient.is_empty());
}

#[test]
fn null_is_as_if_it_were_not_there() {
    let text = document(json!({}))
        .to_string()
        .replace(r#""cwd":"/""#, r#""cwd":"/","env":null,"rlimits":null"#);
    let text = text.replace(
        r#""linux":{"#,
        r#""linux":{"resources":{"pids":{"limit":null},"memory":null},"seccomp":null,"#,
    );
    let spec = parse(text.into_bytes()).unwrap();
    let linux = spec.oci().linux.as_ref().unwrap();
    let resources = linux.resources.as_ref().unwrap();
    assert!(
        resources.pids.is_none_or(|pids| pids.limit.is_none()),
        "no limit is not a limit of zero"
    );
}

#[test]
fn an_empty_seccomp_profile_is_none_and_kernel_memory_is_left_out() {
    let spec = parsed(json!({"linux": {
        "seccomp": {"defaultAction": ""},
        "resources": {"memory": {"kernel": 5, "limit": 7}, "devices": [{"allow": false, "type": "", "access": "rwm"}]},
    }}))
    .unwrap();
    let linux = spec.oci().linux.as_ref().unwrap();
    assert!(linux.seccomp.is_none());
    let resources = linux.resources.as_ref().unwrap();
    assert_eq!(resources.memory.as_ref().unwrap().limit, Some(7));
    assert_eq!(resources.devices[0].typ, None);
    assert_eq!(
        spec.warnings(),
        ["Kernel memory settings are ignored and will be removed"]
    );
}

#[test]
fn an_error_names_its_field() {
    for (changes, expected) in [
        (json!({"root": null}), "root: must be specified"),
        (json!({"root": {"path": ""}}), "root.path: must not be empty"),
        (json!({"process": null}), "process: must not be empty"),
        (
            json!({"process": {"args": []}}),
            "process.args: must not be empty",
        ),
        (
            json!({"process": {"args": ["a", "b\0c"]}}),
            "process.args[1]: contains a zero byte",
        ),
        (json!({"process": {"cwd": ""}}), "process.cwd: must not be empty"),
        (
            json!({"process": {"cwd": "tmp"}}),
            "process.cwd: must be an absolute path",
        ),
        (
            json!({"process": {"env": ["A=1", "B"]}}),
            "process.env[1]: invalid environment variable: missing '='",
        ),
        (
            json!({"process": {"env": ["=1"]}}),
            "process.env[0]: invalid environment variable: name cannot be empty",
        ),
        (
            json!({"process": {"rlimits": [{"type": "RLIMIT_JOY", "hard": 1, "soft": 1}]}}),
            "process.rlimits[0].type: wrong rlimit value: RLIMIT_JOY",
        ),
        (
            json!({"linux": {"namespaces": [{"type": "pid"}, {"type": "foo"}]}}),
            "linux.namespaces[1].type: unknown namespace \"foo\"",
        ),
        (
            json!({"mounts": [{"destination": ""}]}),
            "mounts[0].destination: must not be empty",
        ),
        (json!({"hostname": "a\0b"}), "hostname: contains a zero byte"),
    ] {
        assert_eq!(refusal(changes), expected);
    }
}

#[test]
fn the_typed_parsers_complaints_are_located() {
    for (changes, field) in [
        (json!({"process": {"terminal": "yes"}}), "process.terminal: "),
        (json!({"process": {"user": {"uid": -1}}}), "process.user.uid: "),
        (
            json!({"linux": {"resources": {"memory": {"limit": "1G"}}}}),
            "linux.resources.memory.limit: ",
        ),
        (
            json!({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["a"], "action": "SCMP_ACT_ALLOW"}, {"names": ["b"], "action": "SCMP_ACT_SING"}]}}}),
            "linux.seccomp.syscalls[1].action: ",
        ),
        (json!({"annotations": {"a/b~c": 5}}), "annotations.a/b~c: "),
        (
            json!({"linux": {"namespaces": [{"type": "pid"}, {"path": "x"}]}}),
            "linux.namespaces[1]: missing field `type`",
        ),
    ] {
        let refusal = refusal(changes);
        assert!(refusal.starts_with(field), "{refusal} does not name {field}");
    }
}

#[test]
fn what_is_no_configuration_is_refused() {
    assert!(
        parse(b"{".to_vec())
            .unwrap_err()
            .to_string()
            .starts_with("invalid JSON: ")
    );
    assert_eq!(
        parse(b"null".to_vec()).unwrap_err().to_string(),
        "config: must be an object"
    );
    let deep = "[".repeat(200_000);
    assert!(
        parse(deep.into_bytes()).is_err(),
        "deep nesting is refused and not followed"
    );
    let empty = tempfile::tempdir().unwrap();
    let missing = load(empty.path()).unwrap_err().to_string();
    assert!(
        missing.starts_with("JSON specification file ") && missing.ends_with("config.json not found"),
        "{missing}"
    );
    std::fs::create_dir(empty.path().join(CONFIG_FILE)).unwrap();
    let directory = load(empty.path()).unwrap_err().to_string();
    assert!(directory.ends_with("config.json: no regular file"), "{directory}");
    std::fs::remove_dir(empty.path().join(CONFIG_FILE)).unwrap();
    let large = std::fs::File::create(empty.path().join(CONFIG_FILE)).unwrap();
    large.set_len(MAX_CONFIG_BYTES + 1).unwrap();
    assert!(matches!(load(empty.path()), Err(Error::TooLarge { .. })));
}

#[test]
fn a_process_alone_is_checked_like_one_in_a_configuration() {
    let parse = |json: Value| parse_process(json.to_string().as_bytes());
    let (process, warnings) =
        parse(json!({"cwd": "/", "args": ["id"], "capabilities": {"bounding": ["CAP_NEW"]}, "user": {"uid": 1, "gid": 2}}))
            .unwrap();
    assert_eq!(process.user.uid, 1);
    assert_eq!(warnings.len(), 1);
    assert_eq!(
        parse(json!({"cwd": "/", "args": []})).unwrap_err().to_string(),
        "process.args: must not be empty"
    );
}

#[test]
fn the_examples_are_usable_configurations() {
    let rooted = parse(default(None, false).into_bytes()).unwrap();
    assert_eq!(rooted.oci().oci_version, OCI_VERSION);
    assert!(!default(None, false).contains("cgroup\"\n\t\t\t}"));
    assert!(default(None, true).contains("\"type\": \"cgroup\"\n\t\t\t}"));
    let text = default(Some((1000, 100)), true);
    assert!(!text.contains('@'), "{text}");
    let rootless = parse(text.into_bytes()).unwrap();
    let linux = rootless.oci().linux.as_ref().unwrap();
    assert_eq!(linux.uid_mappings[0].host_id, 1000);
    assert_eq!(linux.gid_mappings[0].host_id, 100);
    assert!(linux.resources.is_none());
}

/// What is written is what was read: no field is lost, renamed or invented on the way.
#[test]
fn the_types_have_the_fields_of_the_specification() {
    let full: Value = serde_json::from_str(include_str!("full.json")).unwrap();
    let typed: oci::Spec = serde_json::from_value(full.clone()).unwrap();
    assert_eq!(serde_json::to_value(&typed).unwrap(), full);
    for example in [default(None, true), default(Some((1, 2)), false)] {
        let typed: oci::Spec = serde_json::from_str(&example).unwrap();
        let example: Value = serde_json::from_str(&example).unwrap();
        assert_eq!(serde_json::to_value(&typed).unwrap(), example);
    }
}

#[test]
fn numbers_outside_of_their_type_are_refused_by_their_field() {
    let resources = |resources: Value| json!({"linux": {"resources": resources}});
    for (changes, field) in [
        (
            json!({"process": {"user": {"uid": 4_294_967_296u64}}}),
            "process.user.uid: ",
        ),
        (
            json!({"process": {"user": {"additionalGids": [1, -1]}}}),
            "process.user.additionalGids[1]: ",
        ),
        (
            json!({"process": {"rlimits": [{"type": "RLIMIT_CPU", "soft": -1}]}}),
            "process.rlimits[0].soft: ",
        ),
        (json!({"process": {"oomScoreAdj": 1.5}}), "process.oomScoreAdj: "),
        (
            resources(json!({"cpu": {"shares": -1}})),
            "linux.resources.cpu.shares: ",
        ),
        (
            resources(json!({"memory": {"limit": 9_223_372_036_854_775_808u64}})),
            "linux.resources.memory.limit: ",
        ),
        (
            resources(json!({"blockIO": {"weightDevice": [{"weight": 65_536}]}})),
            "linux.resources.blockIO.weightDevice[0].weight: ",
        ),
        (
            json!({"linux": {"timeOffsets": {"boottime": {"nanosecs": -1}}}}),
            "linux.timeOffsets.boottime.nanosecs: ",
        ),
    ] {
        let refusal = refusal(changes);
        assert!(refusal.starts_with(field), "{refusal} does not name {field}");
    }
}

/// Go's parser sees a zero value where there is `null`, in whatever place.
#[test]
fn null_is_taken_for_any_member() {
    let nulled = |value: &Value| match value {
        Value::Object(members) => members.keys().cloned().collect(),
        _ => Vec::new(),
    };
    let full: Value = serde_json::from_str(include_str!("full.json")).unwrap();
    for section in nulled(&full) {
        for member in nulled(&full[&section]) {
            // Without these no container is described.
            if matches!(
                (section.as_str(), member.as_str()),
                ("process", "args" | "cwd") | ("root", "path") | ("linux", "seccomp")
            ) {
                continue;
            }
            let mut document = full.clone();
            document[&section][&member] = Value::Null;
            let parsed = parse(document.to_string().into_bytes());
            assert!(parsed.is_ok(), "{section}.{member}: {parsed:?}");
        }
    }
}

#[test]
fn unknown_words_are_refused_by_their_field() {
    for (changes, expected) in [
        (
            json!({"process": {"scheduler": {"policy": "SCHED_JOY"}}}),
            "process.scheduler.policy: invalid scheduler policy: SCHED_JOY",
        ),
        (
            json!({"process": {"ioPriority": {"class": "IOPRIO_CLASS_FIRST"}}}),
            "process.ioPriority.class: invalid ioPriority.class: IOPRIO_CLASS_FIRST",
        ),
        (
            json!({"linux": {"devices": [{"path": "/dev/x", "type": "x"}]}}),
            "linux.devices[0].type: invalid device type \"x\"",
        ),
        (
            json!({"linux": {"personality": {"domain": "BSD"}}}),
            "linux.personality.domain: invalid personality domain \"BSD\"",
        ),
        (
            json!({"linux": {"memoryPolicy": {"mode": "MPOL_FAR", "nodes": "0"}}}),
            "linux.memoryPolicy.mode: invalid memory policy mode \"MPOL_FAR\"",
        ),
        (
            json!({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_Z80"]}}}),
            "linux.seccomp.architectures[0]: string SCMP_ARCH_Z80 is not a valid arch for seccomp",
        ),
        (
            json!({"linux": {"resources": {"devices": [{"allow": true, "type": "z", "access": "r"}]}}}),
            "linux.resources.devices[0].type: invalid device type \"z\"",
        ),
    ] {
        assert_eq!(refusal(changes), expected);
    }
}

#[test]
fn a_list_is_not_taken_for_an_object() {
    assert_eq!(
        parse(b" [\"1.0.2\"]".to_vec()).unwrap_err().to_string(),
        "config: must be an object"
    );
    assert_eq!(
        parse_process(b"[]").unwrap_err().to_string(),
        "process: must be an object"
    );
}

/// As Go's parser has it, but that of two objects under one name in the same letters the last counts, whole.
#[test]
fn a_member_that_is_there_twice_is_one() {
    let resources = |text: &str| parse_resources(text.as_bytes()).unwrap();
    let cpu = resources(r#"{"cpu": {"shares": 5, "cpus": "0"}, "CPU": {"Cpus": "1", "Mems": "0"}}"#);
    let cpu = cpu.cpu.unwrap();
    assert_eq!(
        (cpu.shares, cpu.cpus.as_str(), cpu.mems.as_str()),
        (Some(5), "1", "0")
    );
    let twice = resources(r#"{"pids": {"limit": 1}, "pids": {"limit": 2}, "unified": {"A": "1", "a": "2"}}"#);
    assert_eq!(twice.pids.unwrap().limit, Some(2));
    assert_eq!(twice.unified.len(), 2, "these names are data");
}

/// What Go's parser refuses too, or would take for something else without a word.
#[test]
fn what_only_looks_like_a_configuration_is_refused() {
    let whole = document(json!({})).to_string();
    for text in [
        format!("\u{feff}{whole}"),
        format!("{whole}{whole}"),
        format!("{whole}\0"),
        whole.replace("rootfs", "\\ud800"),
        String::new(),
    ] {
        let error = parse(text.clone().into_bytes()).unwrap_err();
        assert!(matches!(error, Error::Syntax(_)), "{text}: {error}");
    }
    let mut bytes = whole.into_bytes();
    let at = bytes.windows(6).position(|word| word == b"rootfs").unwrap();
    bytes[at] = 0xff;
    assert!(matches!(parse(bytes), Err(Error::Syntax(_))));
}

/// The profile of a document that is read without it, and of one that is read at once; why it is refused, if it is.
fn read_both_ways(profile: &str) -> [Result<Option<oci::LinuxSeccomp>, String>; 2] {
    let changes = json!({"linux": {"seccomp": "PROFILE", "cgroupsPath": "/a"}});
    let text = document(changes).to_string().replace("\"PROFILE\"", profile);
    let told = |error: Error| error.to_string();
    let profile_of = |spec: Spec| spec.oci().linux.clone().and_then(|linux| linux.seccomp);
    let later = parse_but_profile(text.clone().into_bytes()).and_then(|spec| match spec.later_profile() {
        Some(text) => {
            assert_eq!(text, profile);
            assert_eq!(profile_of(spec.clone()), Some(oci::LinuxSeccomp::default()));
            spec.type_profile().map(Some)
        }
        None => Ok(profile_of(spec)),
    });
    let at_once = parse(text.into_bytes()).map(profile_of);
    [later.map_err(told), at_once.map_err(told)]
}

#[test]
fn a_profile_is_the_same_and_refused_with_the_same_words_when_it_is_looked_into_later() {
    for profile in [
        r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#,
        r#"{"DefaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "syscalls": [{"names": ["a"], "action": "SCMP_ACT_LOG"}]}"#,
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": null, "flags": ["SECCOMP_FILTER_FLAG_TSYNC"], "future": {"a": [1]}}"#,
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "flags": [], "Flags": ["SECCOMP_FILTER_FLAG_LOG"]}"#,
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/a", "listenerMetadata": "b"}"#,
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["a"], "action": "SCMP_ACT_NOTIFY"}]}"#,
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["a"], "action": "SCMP_ACT_NOTIF\u0059"}]}"#,
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "defaultAction": null}"#,
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "DEFAULTACTION": ""}"#,
        r#"{"defaultAction": "", "syscalls": [], "architectures": ["SCMP_ARCH_X86"]}"#,
        "{}",
        "null",
    ] {
        let [later, at_once] = read_both_ways(profile);
        assert!(
            later.is_ok() && later == at_once,
            "{profile}: {later:?}, {at_once:?}"
        );
    }
    for profile in [
        r#"{"defaultAction": "SCMP_ACT_SING"}"#,
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["a"], "action": "SCMP_ACT_SING"}]}"#,
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["a"], "action": "SCMP_ACT_LOG", "args": [{"op": 1}]}]}"#,
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": "a", "action": "SCMP_ACT_LOG"}]}"#,
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [[]]}"#,
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_Z80"]}"#,
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["\u0000"]}"#,
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "flags": [}"#,
        "[]",
        "5",
    ] {
        let [later, at_once] = read_both_ways(profile);
        assert!(
            later.is_err() && later == at_once,
            "{profile}: {later:?}, {at_once:?}"
        );
    }
}

#[test]
fn a_profile_that_may_need_more_than_its_filter_or_be_none_is_looked_into_at_once() {
    let is_left = |profile: &str| {
        let changes = json!({"linux": {"seccomp": "PROFILE"}});
        let text = document(changes).to_string().replace("\"PROFILE\"", profile);
        parse_but_profile(text.into_bytes())
            .unwrap()
            .later_profile()
            .is_some()
    };
    assert!(is_left(r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#));
    for profile in [
        "null",
        "{}",
        r#"{"syscalls": [{"names": [], "action": "SCMP_ACT_LOG"}]}"#,
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [], "action": "SCMP_ACT_NOTIFY"}]}"#,
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [], "action": "SCMP_ACT_NOTIF\u0059"}]}"#,
        r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#,
        // What is typed is not the text as it stands.
        r#"{"defaultAction": "SCMP_ACT_ALLOW"}, "cgroupsPath": null"#,
    ] {
        assert!(!is_left(profile), "{profile}");
    }
}
