//! Every field of the specification: a value of a wrong type is refused by the field's name, and a right one is not for
//! nothing: it changes what is carried out, or is refused too.

use std::collections::BTreeMap;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use wharf_runtime::ContainerId;
use wharf_runtime::cgroup::{CgroupPlan, Layout};
use wharf_runtime::lsm::Enabled;
use wharf_runtime::plan::{Caller, Facts, Plan};
use wharf_runtime::spec;

/// A document with every field.
fn full() -> Value {
    serde_json::from_str(include_str!("../src/spec/full.json")).expect("JSON")
}

/// The same with no value that is also the default, and no rule that undoes another.
fn telling() -> Value {
    let mut document = full();
    let linux = &mut document["linux"];
    linux["devices"][0] = json!({"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 384, "uid": 5, "gid": 6});
    linux["devices"][1] = json!({"path": "/dev/pipe", "type": "p"});
    linux["resources"]["devices"] =
        json!([{"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"}]);
    linux["seccomp"]["syscalls"][0]["args"][0]["index"] = 2.into();
    linux["seccomp"]["architectures"] = json!(["SCMP_ARCH_X86"]);
    let block = linux["resources"]["blockIO"].as_object_mut().expect("blockIO");
    for devices in block.values_mut().filter_map(Value::as_array_mut) {
        devices[0]["minor"] = 3.into();
    }
    document
}

/// Other systems' parts, which are none of this one's business.
const ELSEWHERE: [&str; 5] = ["solaris", "windows", "vm", "zos", "freebsd"];

/// Objects whose names are data.
const MAPS: [&str; 5] = [
    "annotations",
    "linux.sysctl",
    "linux.netDevices",
    "linux.resources.rdma",
    "linux.resources.unified",
];

/// One step down a document.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    Member(String),
    Item(usize),
}

/// The path as an error names it.
fn name(path: &[Step]) -> String {
    let mut name = String::new();
    for step in path {
        match step {
            Step::Member(member) if name.is_empty() => name.clone_from(member),
            Step::Member(member) => name = format!("{name}.{member}"),
            Step::Item(index) => name = format!("{name}[{index}]"),
        }
    }
    name
}

fn at<'a>(document: &'a mut Value, path: &[Step]) -> &'a mut Value {
    path.iter().fold(document, |value, step| match step {
        Step::Member(member) => &mut value[member.as_str()],
        Step::Item(index) => &mut value[*index],
    })
}

/// Every path of a document, those of objects and lists included.
fn paths(value: &Value, path: &mut Vec<Step>, found: &mut Vec<Vec<Step>>) {
    if !path.is_empty() {
        found.push(path.clone());
    }
    let members: Vec<(Step, &Value)> = match value {
        Value::Object(members) => members
            .iter()
            .map(|(name, member)| (Step::Member(name.clone()), member))
            .collect(),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .map(|(index, item)| (Step::Item(index), item))
            .collect(),
        _ => Vec::new(),
    };
    for (step, member) in members {
        path.push(step);
        paths(member, path, found);
        path.pop();
    }
}

fn all_paths() -> Vec<Vec<Step>> {
    let mut found = Vec::new();
    paths(&full(), &mut Vec::new(), &mut found);
    found.retain(|path| !ELSEWHERE.contains(&name(path).as_str()));
    assert!(found.len() > 250, "{} fields", found.len());
    found
}

fn refusal(document: &Value) -> Result<(), String> {
    let bytes = document.to_string().into_bytes();
    let parsed = catch_unwind(|| spec::parse(bytes)).expect("nothing panics");
    parsed.map(drop).map_err(|error| error.to_string())
}

#[test]
fn a_value_of_a_wrong_type_is_refused_by_its_fields_name() {
    for path in all_paths() {
        let mut document = full();
        let right = at(&mut document, &path).clone();
        let mut wrong = vec![json!(true), json!(1.5), json!(1e300)];
        if !right.is_object() {
            wrong.push(json!({"a": {"b": []}}));
        }
        if !right.is_array() {
            wrong.extend([json!([]), json!([[]])]);
        }
        match &right {
            Value::Bool(_) => {
                wrong.retain(|value| !value.is_boolean());
                wrong.extend([json!("true"), json!(0)]);
            }
            Value::Number(_) => wrong.extend([json!("1"), json!("")]),
            Value::String(_) => wrong.extend([json!(7), json!(-1)]),
            Value::Array(_) => wrong.extend([json!("a"), json!(7)]),
            _ => wrong.extend([json!("a"), json!(7)]),
        }
        for value in wrong {
            *at(&mut document, &path) = value.clone();
            let name = name(&path);
            let error = refusal(&document).expect_err(&format!("{name} may not be {value}"));
            assert!(error.starts_with(&name), "{name} is {value}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}

/// The kernel's strings end there, and what is behind it would be lost; so it is nowhere, be it a key of a map.
#[test]
fn a_zero_byte_is_refused_by_its_fields_name() {
    for path in all_paths() {
        let mut document = full();
        let value = at(&mut document, &path);
        let name = name(&path);
        let expected = match value {
            Value::String(_) => {
                *value = "a\0b".into();
                name
            }
            Value::Object(members) if MAPS.contains(&name.as_str()) => {
                let value = members.values().next().expect("not empty").clone();
                members.insert("a\0b".into(), value);
                format!("{name}.a\\u{{0}}b")
            }
            _ => continue,
        };
        let error = refusal(&document).expect_err(&expected);
        assert_eq!(error, format!("{expected}: contains a zero byte"));
    }
}

/// Numbers that do not fit their type are neither cut nor wrapped.
#[test]
fn a_number_that_is_out_of_range_is_refused_by_its_fields_name() {
    for path in all_paths() {
        let mut document = full();
        if !at(&mut document, &path).is_number() {
            continue;
        }
        let name = name(&path);
        for text in [
            "18446744073709551616",
            "-9223372036854775809",
            "1e40",
            "99999999999999999999999",
        ] {
            *at(&mut document, &path) = json!("@@");
            let bytes = document.to_string().replace("\"@@\"", text).into_bytes();
            let error = spec::parse(bytes)
                .expect_err(&format!("{name} may not be {text}"))
                .to_string();
            assert!(error.starts_with(&name), "{name} is {text}: {error}");
        }
    }
}

/// The words of a list of words: each has a value that nobody knows.
#[test]
fn an_unknown_word_is_refused_by_its_fields_name() {
    for field in [
        "process.rlimits[0].type",
        "process.scheduler.policy",
        "process.scheduler.flags[0]",
        "process.ioPriority.class",
        "linux.namespaces[0].type",
        "linux.devices[0].type",
        "linux.resources.devices[0].type",
        "linux.seccomp.defaultAction",
        "linux.seccomp.architectures[0]",
        "linux.seccomp.syscalls[0].action",
        "linux.seccomp.syscalls[0].args[0].op",
        "linux.memoryPolicy.mode",
        "linux.memoryPolicy.flags[0]",
        "linux.personality.domain",
    ] {
        for word in ["SCMP_ACT_JOY", "b ", "PID", "x\0y", &"long".repeat(5000)] {
            let path = all_paths().into_iter().find(|path| name(path) == field);
            let mut document = full();
            *at(&mut document, &path.unwrap_or_else(|| panic!("{field}"))) = json!(word);
            let error = refusal(&document).expect_err(&format!("{field} may not be {word:?}"));
            assert!(error.starts_with(field), "{field} is {word:?}: {error}");
            assert!(error.len() < 1000, "{field}: an error of {} bytes", error.len());
        }
    }
}

/// What a configuration leads to on a host with this arrangement of control groups, as text, or why it is refused.
fn on_host(document: &Value, mountinfo: &str, own: &str) -> Result<String, String> {
    let spec = spec::parse(document.to_string().into_bytes()).map_err(|error| error.to_string())?;
    let id = ContainerId::new("jar").expect("an id");
    let layout = Layout::parse(mountinfo, own, "0 0 4294967295\n").expect("a layout");
    let linux = spec.oci().linux.as_ref();
    let cgroups = CgroupPlan::compile(
        &layout,
        linux
            .map(|linux| linux.cgroups_path.as_path())
            .filter(|path| !path.as_os_str().is_empty()),
        id.as_str(),
        linux.and_then(|linux| linux.resources.as_ref()),
    )
    .map_err(|error| error.to_string())?;
    let paths: BTreeMap<String, PathBuf> = cgroups.paths();
    let facts = Facts {
        id: &id,
        bundle: Path::new("/bundle"),
        cgroup_version: layout.version(),
        cgroup_paths: &paths,
        new_cgroup_namespace: false,
        lsm: Enabled {
            apparmor: true,
            selinux: true,
        },
        no_pivot: false,
        whole_views: &[],
        staging: false,
        no_new_keyring: false,
        caller: Caller::ROOT,
        filter_comes_later: false,
    };
    let plan = Plan::compile(spec.oci(), &facts).map_err(|error| error.to_string())?;
    let warnings = (spec.warnings(), cgroups.warnings());
    Ok(format!("{cgroups:?} {plan:?} {warnings:?}"))
}

/// On a host with v2, and on one with every v1 controller.
fn carried_out(document: &Value) -> [Result<String, String>; 2] {
    let controllers = [
        "cpuset",
        "cpu",
        "cpuacct",
        "blkio",
        "memory",
        "devices",
        "freezer",
        "net_cls",
        "perf_event",
        "net_prio",
        "hugetlb",
        "pids",
        "rdma",
        "misc",
    ];
    let (mut mounts, mut own) = (String::new(), String::new());
    for (index, name) in controllers.iter().enumerate() {
        mounts += &format!("3{index} 20 0:2{index} / /sys/fs/cgroup/{name} rw - cgroup cgroup rw,{name}\n");
        own += &format!("{}:{name}:/\n", index + 1);
    }
    let v2 = "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
    [on_host(document, v2, "0::/\n"), on_host(document, &mounts, &own)]
}

/// What the parent half reads itself when it comes to it, and what means nothing to any runtime.
const NOT_IN_THE_PLAN: &[&str] = &[
    // Run by the parent half.
    "hooks",
    // Told by `state`.
    "annotations",
    "ociVersion",
    // For systems with other command lines, and for the names of other systems' users.
    "process.commandLine",
    "process.user.username",
    // Of kernels that are gone (as runc); with one warning for both.
    "linux.resources.memory.useHierarchy",
    "linux.resources.memory.kernel",
    // v1's alone.
    "linux.resources.blockIO.leafWeight",
    "linux.resources.blockIO.weightDevice[0].leafWeight",
    // Only what was asked for by the cgroup's own name.
    "linux.resources.memory.checkBeforeUpdate",
    // The default, and the flags of the future.
    "linux.personality.flags",
    // Zero, which must be there, and is what is not there too.
    "linux.uidMappings[0].containerID",
    "linux.gidMappings[0].containerID",
    "mounts[0].uidMappings[0].containerID",
    "mounts[0].gidMappings[0].containerID",
    // Three names of one thing: without one of them the others ask for it.
    "linux.intelRdt.enableCMT",
    "linux.intelRdt.enableMBM",
    "linux.intelRdt.enableMonitoring",
    // A bind mount is one by its options.
    "mounts[0].type",
    // Of processes that are executed later, whose plan is another.
    "process.execCPUAffinity",
    // Of a notification that no rule asks for.
    "linux.seccomp.listener",
];

/// The part of the document that is judged together: what its fields mean depends on the ones beside them.
fn section(path: &[Step]) -> usize {
    let members = |count: usize| count.min(path.len());
    match path {
        [Step::Member(first), Step::Member(second), ..] if first == "linux" && second == "resources" => {
            members(3)
        }
        [Step::Member(first), ..] if first == "linux" || first == "process" => members(2),
        _ => members(1),
    }
}

/// A small configuration in which `field` can mean something.
fn around(field: &str) -> Value {
    let mut document = json!({
        "ociVersion": "1.3.0",
        "root": {"path": "rootfs"},
        "mounts": [{"destination": "/mnt", "type": "tmpfs", "source": "tmpfs"}],
        "process": {"terminal": true, "cwd": "/", "args": ["/bin/true"], "user": {"uid": 1, "gid": 2}},
        "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "uts"}, {"type": "network"}, {"type": "ipc"}]},
    });
    let linux = &mut document["linux"];
    if field.starts_with("linux.uidMappings")
        || field.starts_with("linux.gidMappings")
        || field.starts_with("linux.namespaces")
    {
        for kind in ["uidMappings", "gidMappings"] {
            linux[kind] = telling()["linux"][kind].clone();
        }
        let namespaces = linux["namespaces"].as_array_mut().expect("namespaces");
        namespaces.push(json!({"type": "user"}));
    }
    if field.starts_with("linux.timeOffsets") {
        let namespaces = linux["namespaces"].as_array_mut().expect("namespaces");
        namespaces.push(json!({"type": "time"}));
    }
    document
}

#[test]
fn no_field_is_read_and_ignored() {
    let mut ignored = Vec::new();
    let mut fields = Vec::new();
    paths(&telling(), &mut Vec::new(), &mut fields);
    for path in fields {
        let name = name(&path);
        let elsewhere = ELSEWHERE.contains(&name.as_str());
        if elsewhere || NOT_IN_THE_PLAN.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        // Leaving out an item moves the others; the list itself is judged.
        let Some((Step::Member(member), parent)) = path.split_last() else {
            continue;
        };
        // The section as it is in the full document, then the same without the field.
        let head = &path[..section(&path)];
        let mut with = around(&name);
        *at(&mut with, head) = at(&mut telling(), head).clone();
        let mut without = with.clone();
        if let Value::Object(members) = at(&mut without, parent) {
            members.remove(member);
        }
        let [v2, v1] = carried_out(&with);
        let refused = [&v2, &v1].iter().all(|outcome| {
            outcome
                .as_ref()
                .is_err_and(|error| error.contains(&self::name(head)) || error.contains("mounts[0]"))
        });
        if [v2.clone(), v1.clone()] == carried_out(&without) && !refused {
            ignored.push((name, v2.err(), v1.err()));
        }
    }
    assert!(ignored.is_empty(), "read and ignored: {ignored:#?}");
}

/// Texts that are hardly ever meant, by what is odd about them.
fn nonsense() -> [(&'static str, String); 8] {
    [
        ("empty", String::new()),
        ("parent", "..".into()),
        ("above", "/../../x".into()),
        ("relative", "a/b".into()),
        ("long path", "/x".repeat(2500)),
        ("long name", format!("/{}", "x".repeat(300))),
        ("two lines", "a\nb".into()),
        ("huge", "x".repeat(200_000)),
    ]
}

/// Where any text may stand, because it is for others to understand.
const FREE: &[&str] = &[
    // Told as they are, to whoever asks for the state.
    "annotations",
    "linux.seccomp.listenerMetadata",
    // For other systems.
    "process.commandLine",
    "process.user.username",
    // For the programs that are executed. That it is too much is for `execve` to say.
    "process.args[1]",
    "process.args[2]",
    "hooks.prestart[0].args[0]",
    "hooks.prestart[0].env[0]",
    // Names that only other kernels know must not stop a container: they are left out.
    "process.capabilities",
    "linux.seccomp.syscalls[0].names[0]",
    // Written into a file of the kernel's, which judges it; the error tells the file.
    "linux.sysctl.net.core.somaxconn",
    "linux.resources.cpu.cpus",
    "linux.resources.cpu.mems",
    "linux.resources.unified.memory.high",
    "linux.intelRdt.schemata[0]",
    "linux.intelRdt.l3CacheSchema",
    "linux.intelRdt.memBwSchema",
    "linux.mountLabel",
    "process.apparmorProfile",
    "process.selinuxLabel",
    // What no option is called is for the file system, and left out for a bind mount, as here.
    "mounts[0].options",
];

/// Where some of these are not nonsense.
const SENSE: &[(&str, &[&str])] = &[
    // As if they were not there.
    ("hostname", &["empty", "parent", "above", "relative", "two lines"]),
    (
        "domainname",
        &["empty", "parent", "above", "relative", "two lines"],
    ),
    ("linux.cgroupsPath", &["empty", "above", "relative"]),
    ("linux.namespaces[0].path", &["empty", "above"]),
    ("linux.netDevices.eth0.name", &["empty"]),
    ("linux.rootfsPropagation", &["empty"]),
    ("linux.intelRdt.closID", &["empty"]),
    ("linux.resources.devices[0].type", &["empty"]),
    ("process.execCPUAffinity", &["empty"]),
    // Looked up in the container, whose root has nothing above it; a line may end in a file's name.
    ("process.cwd", &["above"]),
    (
        "process.args[0]",
        &["parent", "above", "relative", "two lines", "huge"],
    ),
    ("linux.devices[0].path", &["above"]),
    ("linux.devices[1].path", &["above"]),
    (
        "linux.maskedPaths[0]",
        &["empty", "parent", "above", "relative", "two lines"],
    ),
    (
        "linux.readonlyPaths[0]",
        &["empty", "parent", "above", "relative", "two lines"],
    ),
    ("mounts[0].destination", &["above", "relative", "two lines"]),
    // On the host, relative to the bundle.
    ("mounts[0].source", &["parent", "above", "relative", "two lines"]),
    ("root.path", &["parent", "above", "relative", "two lines"]),
    // Of a bind mount; for others it is a name that the kernel knows or not.
    (
        "mounts[0].type",
        &[
            "empty",
            "parent",
            "above",
            "relative",
            "two lines",
            "long name",
            "long path",
            "huge",
        ],
    ),
    ("hooks", &["above"]),
    (
        "linux.seccomp.listenerPath",
        &["parent", "above", "relative", "two lines"],
    ),
];

#[test]
fn nonsense_for_a_text_is_refused_by_its_fields_name() {
    let mut wrong = Vec::new();
    let mut fields = Vec::new();
    let mut telling = telling();
    paths(&telling, &mut Vec::new(), &mut fields);
    for path in fields {
        let field = name(&path);
        let is_text = at(&mut telling, &path).is_string();
        if !is_text || ELSEWHERE.contains(&field.as_str()) || FREE.iter().any(|free| field.starts_with(free))
        {
            continue;
        }
        let sense = SENSE.iter().filter(|(prefix, _)| field.starts_with(prefix));
        let sense: Vec<&str> = sense.flat_map(|(_, sense)| sense.iter().copied()).collect();
        for (what, text) in nonsense() {
            let head = &path[..section(&path)];
            let mut document = around(&field);
            *at(&mut document, head) = at(&mut telling, head).clone();
            if field.starts_with("linux.seccomp.listener") {
                document["linux"]["seccomp"]["syscalls"][0]["action"] = "SCMP_ACT_NOTIFY".into();
            }
            *at(&mut document, &path) = text.into();
            // An error by its field's name; or, where several fields make one value, by the name of what holds them.
            let by_name =
                |error: &str| error.starts_with(&field) || error.starts_with(&name(&path[..path.len() - 1]));
            let outcomes = carried_out(&document);
            for error in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
                let is_short_line = error.len() < 1100 && !error.contains(char::is_control);
                assert!(
                    is_short_line && error.contains(name(head).as_str()),
                    "{field}, {what}: {error}"
                );
            }
            let refused = outcomes
                .iter()
                .any(|outcome| outcome.as_ref().is_err_and(|error| by_name(error)));
            if refused == sense.contains(&what) {
                wrong.push((field.clone(), what, outcomes.map(Result::err)));
            }
        }
    }
    assert!(wrong.is_empty(), "passed, or not as it says above: {wrong:#?}");
}

#[test]
fn nonsense_for_a_name_in_a_map_is_refused_by_the_maps_name() {
    let mut passed = Vec::new();
    for map in MAPS
        .iter()
        .chain(&["linux.timeOffsets"])
        .filter(|map| **map != "annotations")
    {
        let path = all_paths()
            .into_iter()
            .find(|path| name(path) == *map)
            .expect("in the document");
        for (what, text) in nonsense() {
            let mut document = around(map);
            let members = at(&mut telling(), &path).as_object().cloned().expect("an object");
            let value = members.values().next().cloned().expect("not empty");
            *at(&mut document, &path) = json!({text: value});
            let outcomes = carried_out(&document);
            let refused = outcomes
                .iter()
                .any(|outcome| outcome.as_ref().is_err_and(|error| error.starts_with(map)));
            if !refused {
                passed.push((*map, what, outcomes.map(Result::err)));
            }
        }
    }
    assert!(passed.is_empty(), "{passed:#?}");
}
