//! Containers as Docker shows them.

use crate::api::types::{
    ContainerInspect, ContainerState, ContainerSummary, NetworkSettings, SummaryHostConfig,
};
use crate::container::config::{command, mount};
use crate::container::record::{Phase, Record, RootfsSource};
use crate::container::store::Container;
use crate::error::Result;

const NEVER: &str = "0001-01-01T00:00:00Z";

/// `created`, `running`, `paused`, `exited` or `dead`.
pub fn status_word(record: &Record) -> &'static str {
    match record.state.phase {
        Phase::Created => "created",
        Phase::Running => "running",
        Phase::Paused => "paused",
        Phase::Exited => "exited",
        Phase::Dead => "dead",
    }
}

/// An element of the list.
pub fn summary(record: &Record) -> ContainerSummary {
    ContainerSummary {
        id: record.id.clone(),
        names: vec![format!("/{}", record.name)],
        image: record.config.image.clone(),
        image_id: record.image_id.clone(),
        command: command(&record.config).join(" "),
        created: record.created.as_second(),
        ports: Vec::new(),
        labels: record.config.labels.clone(),
        state: status_word(record).to_owned(),
        status: status_text(record, jiff::Timestamp::now()),
        host_config: SummaryHostConfig {
            network_mode: network_mode(record),
        },
        mounts: mount::requested(&record.host)
            .map(|mounts| mount::mount_points(&mounts))
            .unwrap_or_default(),
    }
}

fn network_mode(record: &Record) -> String {
    match record.host.network_mode.as_str() {
        "" | "default" => "none".to_owned(),
        mode => mode.to_owned(),
    }
}

/// Everything about a container.
///
/// # Errors
///
/// Its mounts cannot be read any more.
pub fn inspect(container: &Container) -> Result<ContainerInspect> {
    let record = container.record();
    let mut words = command(&record.config).into_iter();
    let mut config = record.config.clone();
    if config.hostname.is_empty() && record.host.uts_mode != "host" {
        config.hostname = record.id.chars().take(12).collect();
    }
    let mut host = record.host.clone();
    host.network_mode = network_mode(&record);
    if host.log_config.r#type.is_empty() {
        host.log_config.r#type = "json-file".to_owned();
    }
    let file = |name: &str| container.directory.join(name).to_string_lossy().into_owned();
    let execs = container.execs();
    let live = execs.values().filter(|exec| exec.state().exit_code.is_none());
    Ok(ContainerInspect {
        id: record.id.clone(),
        created: record.created.to_string(),
        path: words.next().unwrap_or_default(),
        args: words.collect(),
        state: state(&record),
        image: record.image_id.clone(),
        resolv_conf_path: file("resolv.conf"),
        hostname_path: file("hostname"),
        hosts_path: file("hosts"),
        log_path: container.log_path().to_string_lossy().into_owned(),
        name: format!("/{}", record.name),
        driver: match &record.rootfs {
            RootfsSource::Snapshot { snapshotter } => snapshotter.clone(),
            RootfsSource::Directory { .. } => "rootfs".to_owned(),
        },
        platform: "linux".to_owned(),
        exec_ids: live.map(|exec| exec.id.clone()).collect(),
        mounts: mount::mount_points(&mount::requested(&record.host)?),
        host_config: host,
        config,
        network_settings: NetworkSettings {
            networks: [(network_mode(&record), crate::api::types::Members::new())].into(),
            ..Default::default()
        },
        ..Default::default()
    })
}

fn state(record: &Record) -> ContainerState {
    let time = |time: Option<jiff::Timestamp>| time.map_or_else(|| NEVER.to_owned(), |time| time.to_string());
    let phase = record.state.phase;
    ContainerState {
        status: status_word(record).to_owned(),
        running: matches!(phase, Phase::Running | Phase::Paused),
        paused: phase == Phase::Paused,
        restarting: false,
        oom_killed: record.state.oom_killed,
        dead: phase == Phase::Dead,
        pid: record.state.pid,
        exit_code: record.state.exit_code,
        error: record.state.error.clone(),
        started_at: time(record.state.started),
        finished_at: time(record.state.finished),
    }
}

fn status_text(record: &Record, now: jiff::Timestamp) -> String {
    let since = |time: Option<jiff::Timestamp>| {
        time.map(|time| duration(now.as_second() - time.as_second()))
            .unwrap_or_default()
    };
    match record.state.phase {
        Phase::Created => "Created".to_owned(),
        Phase::Running => format!("Up {}", since(record.state.started)),
        Phase::Paused => format!("Up {} (Paused)", since(record.state.started)),
        Phase::Exited => format!(
            "Exited ({}) {} ago",
            record.state.exit_code,
            since(record.state.finished)
        ),
        Phase::Dead => "Dead".to_owned(),
    }
}

// As Docker says it: one unit, rounded the way people talk.
fn duration(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match seconds {
        ..1 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        120..3600 => format!("{minutes} minutes"),
        _ if hours <= 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 14 => format!("{} days", hours / 24),
        _ if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// A process as a row of `top`; `None` when it has ended meanwhile.
pub fn process(pid: u32) -> Option<Vec<String>> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.split_whitespace().next()?.to_owned())
    };
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let line = String::from_utf8_lossy(&words)
        .trim_end_matches('\0')
        .replace('\0', " ");
    let line = if line.is_empty() {
        format!("[{}]", field("Name:")?)
    } else {
        line
    };
    Some(vec![field("Uid:")?, pid.to_string(), field("PPid:")?, line])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_in_docker() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (59, "59 seconds"),
            (61, "About a minute"),
            (600, "10 minutes"),
            (4000, "About an hour"),
            (7200, "2 hours"),
            (86_400 * 3, "3 days"),
            (86_400 * 21, "3 weeks"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }
}
