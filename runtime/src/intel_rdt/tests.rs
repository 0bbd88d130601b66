//! On a directory that looks like a resctrl file system.

use std::fs;
use std::path::Path;

use super::*;
use crate::ContainerId;

/// A file system with cache, bandwidth and counters, and one group that was made before.
fn resctrl() -> (tempfile::TempDir, Resctrl) {
    let root = tempfile::tempdir().unwrap();
    let file = |path: &str, text: &str| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    file("schemata", "    MB:0=100;1=100\n    L3:0=fffff;1=fffff\n");
    file("tasks", "1\n");
    file("info/L3/cbm_mask", "fffff\n");
    file("info/L3/min_cbm_bits", "1\n");
    file("info/L3/num_closids", "16\n");
    file("info/MB/bandwidth_gran", "10\n");
    file("info/MB/delay_linear", "1\n");
    file("info/MB/min_bandwidth", "10\n");
    file("info/MB/num_closids", "8\n");
    file(
        "info/L3_MON/mon_features",
        "llc_occupancy\nmbm_total_bytes\nmbm_local_bytes\n",
    );
    file("info/last_cmd_status", "ok\n");
    file("gold/schemata", "    MB:0=100;1= 50\n    L3:0=000ff;1=f0000\n");
    file("gold/tasks", "");
    fs::create_dir(root.path().join("gold/mon_groups")).unwrap();
    let resctrl = Resctrl::at(root.path());
    (root, resctrl)
}

fn id() -> ContainerId {
    ContainerId::new("box").unwrap()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn a_group_of_its_own_goes_with_the_container() {
    let (root, resctrl) = resctrl();
    let settings = Settings {
        cache: some("L3:0=f;1=f0\nMB:0=20"),
        bandwidth: some("MB:0=30;1=70"),
        schemata: vec!["L2:0=f".to_owned()],
        ..Settings::default()
    };
    resctrl.check(&settings).unwrap();
    let group = resctrl.enter(&settings, &id(), 42).unwrap();
    assert_eq!(group.path(), root.path().join("box"));
    assert_eq!(read(&root.path().join("box/tasks")), "42");
    assert_eq!(
        read(&root.path().join("box/schemata")),
        "L3:0=f;1=f0\nMB:0=30;1=70\nL2:0=f\n"
    );
    group.join(43).unwrap();
    assert_eq!(read(&root.path().join("box/tasks")), "43");
    // The kernel's files go with their directory.
    for name in ["tasks", "schemata"] {
        fs::remove_file(root.path().join("box").join(name)).unwrap();
    }
    group.remove().unwrap();
    group.remove().unwrap();
    assert!(!root.path().join("box").exists());
    group.join(44).unwrap();
    assert!(!root.path().join("box").exists());
}

#[test]
fn a_class_that_was_there_stays_and_is_not_changed() {
    let (root, resctrl) = resctrl();
    let before = read(&root.path().join("gold/schemata"));
    let settings = Settings {
        class: some("gold"),
        monitoring: true,
        ..Settings::default()
    };
    resctrl.check(&settings).unwrap();
    let group = resctrl.enter(&settings, &id(), 42).unwrap();
    let monitor = root.path().join("gold/mon_groups/box");
    assert_eq!(group.counters(), monitor);
    assert_eq!(read(&root.path().join("gold/tasks")), "42");
    assert_eq!(read(&monitor.join("tasks")), "42");
    fs::remove_file(monitor.join("tasks")).unwrap();
    group.remove().unwrap();
    assert!(!monitor.exists());
    assert_eq!(read(&root.path().join("gold/schemata")), before);
}

#[test]
fn a_class_must_have_the_limits_that_are_asked_for() {
    let (_root, resctrl) = resctrl();
    let gold = |cache: &str, bandwidth: &str| Settings {
        class: some("gold"),
        cache: some(cache),
        bandwidth: some(bandwidth),
        ..Settings::default()
    };
    resctrl.check(&gold("L3:0=ff;1=f0000", "MB:1=50")).unwrap();
    let error = resctrl.check(&gold("L3:0=ff;1=ff", "MB:0=100")).unwrap_err();
    assert!(
        matches!(&error, Error::Differs { asked, .. } if asked == "L3:0=ff;1=ff"),
        "{error}"
    );
    assert!(matches!(
        resctrl.check(&gold("L3:0=ff", "MB:1=60")),
        Err(Error::Differs { .. })
    ));
}

#[test]
fn a_class_without_limits_must_be_there() {
    let (root, resctrl) = resctrl();
    let mut settings = Settings {
        class: some("silver"),
        ..Settings::default()
    };
    let error = resctrl.check(&settings).unwrap_err().to_string();
    assert!(
        error.contains("clos dir not accessible (must be pre-created"),
        "{error}"
    );
    settings.schemata = vec!["L3:0=f".to_owned()];
    resctrl.check(&settings).unwrap();
    let group = resctrl.enter(&settings, &id(), 42).unwrap();
    // Others may use it by now: it has a name that was given to it.
    group.remove().unwrap();
    assert_eq!(read(&root.path().join("silver/tasks")), "42");
}

#[test]
fn what_cannot_be_is_refused_by_runcs_phrases() {
    let empty = tempfile::tempdir().unwrap();
    let resctrl = Resctrl::at(empty.path());
    let cache = Settings {
        cache: some("L3:0=f"),
        ..Settings::default()
    };
    assert!(matches!(resctrl.check(&cache), Err(Error::NoCache)));
    let bandwidth = Settings {
        bandwidth: some("MB:0=10"),
        ..Settings::default()
    };
    assert!(matches!(resctrl.check(&bandwidth), Err(Error::NoBandwidth)));
    for class in [".", "..", "a/b", "/a", "a\0"] {
        let settings = Settings {
            class: some(class),
            ..Settings::default()
        };
        assert!(
            matches!(resctrl.check(&settings), Err(Error::Class(_))),
            "{class:?}"
        );
    }
    let update = Resctrl::update(Some(&resctrl), None, Some("L3:0=f"), None);
    assert!(matches!(update, Err(Error::UpdateCache)));
    let update = Resctrl::update(None, None, None, Some("MB:0=10"));
    assert!(matches!(update, Err(Error::UpdateBandwidth)));
}

#[test]
fn limits_change_where_there_is_a_group() {
    let (root, resctrl) = resctrl();
    let group = resctrl.enter(&Settings::default(), &id(), 42).unwrap();
    assert!(!root.path().join("box/schemata").exists());
    Resctrl::update(Some(&resctrl), Some(&group), Some("L3:0=1"), Some("")).unwrap();
    assert_eq!(read(&root.path().join("box/schemata")), "L3:0=1\n");
    let nowhere = Resctrl::update(Some(&resctrl), None, Some("L3:0=1"), None);
    assert!(matches!(nowhere, Err(Error::NoGroup)));
    Resctrl::update(None, None, None, None).unwrap();
}

#[test]
fn a_failure_tells_what_resctrl_says_and_leaves_nothing() {
    let (root, resctrl) = resctrl();
    fs::write(root.path().join("info/last_cmd_status"), "too many groups\n").unwrap();
    // Cannot be written as a file.
    fs::create_dir_all(root.path().join("box2/tasks")).unwrap();
    let id = ContainerId::new("box2").unwrap();
    let error = resctrl
        .enter(&Settings::default(), &id, 42)
        .unwrap_err()
        .to_string();
    assert!(error.ends_with(", last_cmd_status: too many groups"), "{error}");
    assert!(
        error.starts_with("intelrdt: unable to write \"42\" to "),
        "{error}"
    );
}

#[test]
fn the_counters_are_those_of_the_container() {
    let (root, resctrl) = resctrl();
    let settings = Settings {
        class: some("gold"),
        monitoring: true,
        ..Settings::default()
    };
    let group = resctrl.enter(&settings, &id(), 42).unwrap();
    for (domain, bytes) in [("mon_L3_00", 7), ("mon_L3_01", 8)] {
        let data = group.counters().join("mon_data").join(domain);
        fs::create_dir_all(&data).unwrap();
        for event in ["llc_occupancy", "mbm_total_bytes", "mbm_local_bytes"] {
            fs::write(data.join(event), format!("{bytes}\n")).unwrap();
        }
    }
    let stats = serde_json::to_value(resctrl.stats(&group).unwrap()).unwrap();
    assert_eq!(
        stats["cmt_stats"],
        serde_json::json!([{"llc_occupancy": 7}, {"llc_occupancy": 8}])
    );
    assert_eq!(stats["mbm_stats"][1]["mbm_total_bytes"], 8);
    assert_eq!(stats["l3_cache_info"]["num_closids"], 16);
    assert_eq!(stats["mem_bw_schema_root"], "MB:0=100;1=100");
    assert_eq!(stats["l3_cache_schema"], "L3:0=000ff;1=f0000");
    assert_eq!(stats["schemata"].as_array().unwrap().len(), 2);
    drop(root);
}

#[test]
fn it_is_found_where_it_is_mounted() {
    let text = "24 1 0:22 / /sys rw - sysfs sysfs rw\n\
                30 24 0:40 / /mnt/re\\040sctrl rw,relatime shared:1 - resctrl resctrl rw\n";
    assert_eq!(find::mounted(text), Some("/mnt/re sctrl".into()));
    let both = format!("{text}31 24 0:40 / /sys/fs/resctrl rw - resctrl resctrl rw\n");
    assert_eq!(find::mounted(&both), Some("/sys/fs/resctrl".into()));
    assert_eq!(find::mounted("24 1 0:22 / /sys rw - sysfs resctrl rw\n"), None);
}
