//! What systemd is told for which resources.

use serde_json::json;

use super::*;

fn resources(json: serde_json::Value) -> LinuxResources {
    serde_json::from_value(json).unwrap()
}

fn told(version: u32, is_v2: bool, mut resources: LinuxResources) -> Vec<(String, Value)> {
    let mut properties = Properties::new(version);
    let result = match is_v2 {
        true => properties.limits_v2(&mut resources),
        false => properties.limits_v1(&mut resources),
    };
    result.unwrap();
    properties.list
}

fn number(name: &str, value: u64) -> (String, Value) {
    (name.to_owned(), Value::Uint64(value))
}

#[test]
fn limits_of_v2_have_their_properties() {
    let asked = json!({
        "memory": {"limit": 100, "reservation": 50, "swap": 150},
        "cpu": {"shares": 1024, "quota": 50_000, "period": 100_000, "cpus": "0-1,3", "mems": "0"},
        "pids": {"limit": 0},
    });
    assert_eq!(
        told(252, true, resources(asked)),
        [
            number("MemoryMax", 100),
            number("MemoryLow", 50),
            number("MemorySwapMax", 50),
            number("CPUWeight", 100),
            number("CPUQuotaPeriodUSec", 100_000),
            number("CPUQuotaPerSecUSec", 500_000),
            number("TasksMax", 1),
            ("AllowedCPUs".to_owned(), Value::bytes(&[0b1011])),
            ("AllowedMemoryNodes".to_owned(), Value::bytes(&[1])),
        ]
    );
    let unlimited = json!({"memory": {"limit": -1}, "pids": {"limit": -1}, "cpu": {"quota": -1}});
    assert_eq!(
        told(252, true, resources(unlimited)),
        [
            number("MemoryMax", u64::MAX),
            number("MemorySwapMax", u64::MAX),
            number("CPUQuotaPerSecUSec", u64::MAX),
            number("TasksMax", u64::MAX),
        ]
    );
}

#[test]
fn limits_of_v1_have_their_properties() {
    let asked = json!({
        "memory": {"limit": 100, "reservation": 50},
        "cpu": {"shares": 2, "period": 50_000},
        "blockIO": {"weight": 500},
        "pids": {"limit": 7},
    });
    assert_eq!(
        told(252, false, resources(asked)),
        [
            number("MemoryLimit", 100),
            number("CPUShares", 2),
            number("CPUQuotaPeriodUSec", 50_000),
            number("CPUQuotaPerSecUSec", u64::MAX),
            number("BlockIOWeight", 500),
            number("TasksMax", 7),
        ]
    );
}

#[test]
fn an_old_systemd_is_not_told_what_it_does_not_know() {
    let asked = || {
        resources(json!({"cpu": {"quota": 1000, "period": 10_000, "cpus": "0", "idle": 1, "shares": 1024}}))
    };
    let old = told(240, true, asked());
    assert_eq!(
        old,
        [number("CPUWeight", 100), number("CPUQuotaPerSecUSec", 100_000)]
    );
    let new = told(252, true, asked());
    assert!(
        new.contains(&number("CPUWeight", 0)) && !new.contains(&number("CPUWeight", 100)),
        "{new:?}"
    );
}

#[test]
fn a_quota_is_rounded_up_to_hundredths_of_a_processor() {
    let mut asked = resources(json!({"cpu": {"quota": 1234, "period": 100_000}}));
    let mut properties = Properties::new(252);
    properties.limits_v2(&mut asked).unwrap();
    assert!(properties.list.contains(&number("CPUQuotaPerSecUSec", 20_000)));
    assert_eq!(asked.cpu.unwrap().quota, Some(2000));
    let mut huge = resources(json!({"cpu": {"quota": i64::MAX, "period": 1}}));
    Properties::new(252).limits_v2(&mut huge).unwrap();
}

#[test]
fn unified_values_are_told_where_there_is_a_property() {
    let asked = json!({"unified": {
        "memory.max": "max", "memory.high": "10", "memory.min": "1", "memory.low": "2", "memory.swap.max": "3",
        "pids.max": "0", "cpu.weight": "7", "cpu.max": "max 20000", "cpuset.cpus": "1", "hugetlb.2MB.max": "0",
    }});
    assert_eq!(
        told(252, true, resources(asked)),
        [
            number("CPUQuotaPeriodUSec", 20_000),
            number("CPUQuotaPerSecUSec", u64::MAX),
            number("CPUWeight", 7),
            ("AllowedCPUs".to_owned(), Value::bytes(&[2])),
            number("MemoryHigh", 10),
            number("MemoryLow", 2),
            number("MemoryMax", u64::MAX),
            number("MemoryMin", 1),
            number("MemorySwapMax", 3),
            number("TasksMax", 1),
        ]
    );
    for bad in [
        json!({"cpu.max": ""}),
        json!({"cpu.max": "1 2 3"}),
        json!({"cpu.max": "x"}),
        json!({"memory.max": "5M"}),
        json!({"cpuset.cpus": "3-1"}),
        json!({"pids.max": "-1"}),
    ] {
        let mut asked = resources(json!({"unified": bad}));
        let error = Properties::new(252)
            .limits_v2(&mut asked)
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("linux.resources.unified: "), "{error}");
    }
}

#[test]
fn a_weight_is_left_out_where_only_the_rest_of_the_time_is_given() {
    for asked in [
        json!({"cpu": {"idle": 1, "shares": 200}}),
        json!({"cpu": {"shares": 200}, "unified": {"cpu.idle": "1", "cpu.weight": "8"}}),
    ] {
        let mut asked = resources(asked);
        let mut properties = Properties::new(252);
        properties.limits_v2(&mut asked).unwrap();
        assert_eq!(properties.list, [number("CPUWeight", 0)]);
        assert!(properties.warnings[0].starts_with("unable to apply both"));
        assert!(
            asked.cpu.is_none_or(|cpu| cpu.shares.is_none()) && !asked.unified.contains_key("cpu.weight")
        );
    }
}

#[test]
fn the_oom_policy_is_told_to_a_systemd_that_knows_scopes_with_one() {
    let mut properties = Properties::new(253);
    properties.oom_policy(&resources(json!({"unified": {"memory.oom.group": "1"}})));
    assert_eq!(properties.list, [("OOMPolicy".to_owned(), Value::text("kill"))]);
    let mut properties = Properties::new(252);
    properties.oom_policy(&resources(json!({"unified": {"memory.oom.group": "1"}})));
    assert_eq!(properties.list, []);
}

fn devices(json: serde_json::Value, is_v2: bool) -> Properties {
    let rules = DeviceRules::compile(&resources(json!({"devices": json})).devices).unwrap();
    let mut properties = Properties::new(252);
    properties.devices(&rules, is_v2);
    properties
}

fn policy(properties: &Properties) -> &Value {
    &properties
        .list
        .iter()
        .find(|(name, _)| name == "DevicePolicy")
        .unwrap()
        .1
}

#[test]
fn allowed_devices_are_listed_by_systemds_names() {
    let told = devices(
        json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "b", "major": 8, "access": "r"}]),
        true,
    );
    assert_eq!(*policy(&told), Value::text("strict"));
    let Value::Array(_, list) = &told.list[2].1 else {
        panic!("{told:?}")
    };
    let has = |path: &str, access: &str| {
        list.contains(&Value::Struct(vec![Value::text(path), Value::text(access)]))
    };
    assert!(
        has("/dev/char/1:3", "rwm") && has("char-*", "m") && has("block-8", "r") && has("char-136", "rwm"),
        "{list:?}"
    );
}

#[test]
fn what_systemd_cannot_say_never_opens_more() {
    let denying = json!([{"allow": true, "access": "rwm"}, {"allow": false, "type": "b", "major": 8, "minor": 0, "access": "w"}]);
    assert_eq!(*policy(&devices(denying.clone(), true)), Value::text("auto"));
    let v1 = devices(denying, false);
    assert_eq!(
        (policy(&v1), v1.list.len(), v1.warnings.len()),
        (&Value::text("strict"), 2, 1)
    );
    let any_major = json!([{"allow": true, "type": "c", "minor": 5, "access": "r"}]);
    assert_eq!(*policy(&devices(any_major.clone(), true)), Value::text("auto"));
    assert_eq!(devices(any_major, false).warnings.len(), 1);
    assert_eq!(
        *policy(&devices(json!([{"allow": true, "access": "rwm"}]), false)),
        Value::text("auto")
    );
}

#[test]
fn lists_become_bits() {
    assert_eq!(bits("0"), Ok(vec![1]));
    assert_eq!(bits("8"), Ok(vec![0, 1]));
    assert_eq!(bits(" 1, 3-5 ,"), Ok(vec![0b11_1010]));
    for bad in ["", ",", "a", "5-3", "1-", "-1", "99999999"] {
        assert!(bits(bad).is_err(), "{bad}");
    }
}
