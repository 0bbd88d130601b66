//! Members of requests that Docker knows and this engine does not act on.
//!
//! Such a member is refused by its name unless its value asks for nothing, so that no wish is dropped in silence. A member
//! that Docker does not know either is ignored, as dockerd does.

use super::types::{CreateRequest, ExecConfig, HostConfig, Members};
use crate::container::config::mount::is_nothing;
use crate::error::{Error, Result};
use serde_json::{Value, json};

/// Beside what [`is_nothing`] takes, the value that asks for nothing.
type Known = (&'static str, Option<&'static str>);

const CONFIG: [Known; 3] = [("MacAddress", None), ("OnBuild", None), ("Shell", None)];

const HOST: [Known; 31] = [
    ("BlkioDeviceReadBps", None),
    ("BlkioDeviceReadIOps", None),
    ("BlkioDeviceWriteBps", None),
    ("BlkioDeviceWriteIOps", None),
    ("BlkioWeight", None),
    ("BlkioWeightDevice", None),
    ("Cgroup", None),
    ("CpuCount", None),
    ("CpuPercent", None),
    ("CpuRealtimePeriod", None),
    ("CpuRealtimeRuntime", None),
    ("DeviceCgroupRules", None),
    ("DeviceRequests", None),
    ("IOMaximumBandwidth", None),
    ("IOMaximumIOps", None),
    ("Init", None),
    ("Isolation", Some("default")),
    ("KernelMemory", None),
    ("KernelMemoryTCP", None),
    ("Links", None),
    ("LxcConf", None),
    ("MemorySwappiness", Some("-1")),
    ("OomKillDisable", None),
    ("PortBindings", None),
    ("PublishAllPorts", None),
    ("StorageOpt", None),
    ("UsernsMode", None),
    ("VolumeDriver", None),
    ("VolumesFrom", None),
    ("NetworkingConfig", None),
    ("GpuOptions", None),
];

/// Judges a create request, and takes its remaining members off.
///
/// # Errors
///
/// The name of the first member that asks for something that is not there.
pub fn create(request: &mut CreateRequest) -> Result<()> {
    judge("", &request.rest, &CONFIG)?;
    let config = &request.config;
    if !config.volumes.is_empty() {
        return Err(Error::not_supported("Volumes: anonymous volumes"));
    }
    if let Some(check) = &config.healthcheck {
        let off = check.test.is_empty() && check.rest.values().all(is_nothing) || check.test == ["NONE"];
        if !off {
            return Err(Error::not_supported("Healthcheck"));
        }
    }
    host(&request.host_config)?;
    let mode = match request.host_config.network_mode.as_str() {
        "" => "default",
        mode => mode,
    };
    for (network, settings) in &request.networking_config.endpoints_config {
        // Clients repeat the network mode here; more than one network, or settings of it, ask for a network.
        if network != mode || !settings.values().all(is_nothing) {
            return Err(Error::not_supported(format!(
                "NetworkingConfig: the network {network:?}"
            )));
        }
    }
    request.config.healthcheck = None;
    request.rest.clear();
    request.host_config.rest.clear();
    Ok(())
}

fn host(host: &HostConfig) -> Result<()> {
    judge("HostConfig.", &host.rest, &HOST)?;
    let policy = &host.restart_policy;
    if !matches!(policy.name.as_str(), "" | "no") {
        return Err(Error::not_supported(format!("RestartPolicy: {:?}", policy.name)));
    }
    if policy.maximum_retry_count != 0 {
        return Err(Error::invalid(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'",
        ));
    }
    if !matches!(host.log_config.r#type.as_str(), "" | "json-file") {
        return Err(Error::not_supported(format!(
            "LogConfig: type {:?}",
            host.log_config.r#type
        )));
    }
    Ok(())
}

/// Judges the body of an exec.
///
/// # Errors
///
/// As [`create`].
pub fn exec(config: &ExecConfig) -> Result<()> {
    judge("", &config.rest, &[])
}

/// Judges query parameters: those in `known` that are given and not empty or false are refused.
///
/// # Errors
///
/// The name of the first one.
pub fn query<'a>(given: impl Iterator<Item = (&'a str, &'a str)>, known: &[&str]) -> Result<()> {
    for (name, value) in given {
        if known.contains(&name) && !matches!(value, "" | "0" | "false" | "False") {
            return Err(Error::not_supported(format!("the parameter {name}")));
        }
    }
    Ok(())
}

fn judge(prefix: &str, rest: &Members, known: &[Known]) -> Result<()> {
    for (name, value) in rest {
        let Some((_, neutral)) = known.iter().find(|(other, _)| other == name) else {
            continue;
        };
        let neutral =
            neutral.is_some_and(|neutral| *value == json!(neutral) || value.to_string().as_str() == neutral);
        if !neutral && !is_nothing(value) {
            return Err(Error::not_supported(format!("{prefix}{name}: {}", shown(value))));
        }
    }
    Ok(())
}

fn shown(value: &Value) -> String {
    let mut text = value.to_string();
    if text.len() > 80 {
        let cut = (0..=77)
            .rev()
            .find(|cut| text.is_char_boundary(*cut))
            .unwrap_or(0);
        text.truncate(cut);
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::decode;
    use crate::error::Kind;

    fn judged(body: &Value) -> Result<()> {
        create(&mut decode(body.to_string().as_bytes()).unwrap())
    }

    #[test]
    fn what_is_not_there_is_refused_by_name() {
        for (name, body) in [
            (
                "PortBindings",
                json!({ "HostConfig": { "PortBindings": { "80/tcp": [{ "HostPort": "80" }] } } }),
            ),
            ("Init", json!({ "HostConfig": { "Init": true } })),
            ("Links", json!({ "HostConfig": { "Links": ["a:b"] } })),
            (
                "RestartPolicy",
                json!({ "HostConfig": { "RestartPolicy": { "Name": "always" } } }),
            ),
            (
                "LogConfig",
                json!({ "HostConfig": { "LogConfig": { "Type": "syslog" } } }),
            ),
            (
                "MemorySwappiness",
                json!({ "HostConfig": { "MemorySwappiness": 10 } }),
            ),
            ("Healthcheck", json!({ "Healthcheck": { "Test": ["CMD", "x"] } })),
            ("Volumes", json!({ "Volumes": { "/data": {} } })),
            ("MacAddress", json!({ "MacAddress": "02:42:00:00:00:01" })),
            (
                "NetworkingConfig",
                json!({ "NetworkingConfig": { "EndpointsConfig": { "mine": {} } } }),
            ),
        ] {
            let error = judged(&body).unwrap_err();
            assert_eq!(error.kind(), Kind::NotImplemented, "{name}");
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn what_asks_for_nothing_passes() {
        let body = json!({
            "Image": "a", "MacAddress": "", "OnBuild": null, "Unheard": [1],
            "Healthcheck": { "Test": ["NONE"] },
            "HostConfig": {
                "PortBindings": {}, "Links": [], "Init": false, "Isolation": "default", "MemorySwappiness": -1, "BlkioWeight": 0,
                "RestartPolicy": { "Name": "no", "MaximumRetryCount": 0 }, "LogConfig": { "Type": "", "Config": {} },
                "ConsoleSize": [24, 80], "Unheard": true,
            },
            "NetworkingConfig": { "EndpointsConfig": { "default": { "IPAMConfig": null, "Links": null, "MacAddress": "" } } },
        });
        judged(&body).unwrap();
    }
}
