//! `wharf ps`: lists containers.

use std::io::Write as _;

use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::endpoint::Globals;
use super::failure::Outcome;
use super::option_values::filters;
use super::quantity::approximately;
use super::table::{self, Columns, Row};
use crate::api::types::{ContainerSummary, PortSummary};

/// List containers
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    wharf ps                                          the running ones\n  \
    wharf ps -a --filter status=exited                the ones that have ended\n  \
    wharf ps -q --filter label=app=web                their ids, for scripts\n  \
    wharf ps --format 'table {{.Names}}\\t{{.Status}}'  the columns you want\n  \
    wharf ps --format json                            one JSON document a line\n\n\
    Fields: .ID .Names .Image .Command .CreatedAt .RunningFor .State .Status .Ports .Labels .Mounts .Networks")]
pub(crate) struct Ps {
    /// Also the ones that do not run
    #[arg(short, long)]
    all: bool,
    /// Only the ids
    #[arg(short, long)]
    quiet: bool,
    /// Do not shorten ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// Only those that match, such as name=web, status=exited or label=app
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// table, json, or a template such as '{{.Names}}'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Only the last ones that were created, whether they run or not
    #[arg(short = 'n', long, value_name = "NUMBER")]
    last: Option<u32>,
    /// Only the last one that was created, whether it runs or not
    #[arg(short, long, conflicts_with = "last")]
    latest: bool,
}

const COLUMNS: Columns = Columns {
    default: r"{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}",
    headings: &[
        ("ID", "CONTAINER ID"),
        ("RunningFor", "CREATED"),
        ("CreatedAt", "CREATED AT"),
    ],
};

impl Ps {
    pub(crate) async fn run(&self, globals: &Globals) -> Outcome {
        let client = globals.connect().await?;
        let limit = if self.latest { Some(1) } else { self.last };
        let containers: Vec<ContainerSummary> = client
            .get("/containers/json")
            .flag("all", self.all || limit.is_some())
            .maybe("limit", limit.map(|limit| limit.to_string()))
            .maybe("filters", filters(&self.filter)?)
            .json()
            .await?;
        if self.quiet && self.format.is_none() {
            let mut out = std::io::stdout().lock();
            for container in &containers {
                writeln!(out, "{}", self.id(&container.id))?;
            }
            return Ok(0);
        }
        let now = Timestamp::now().as_second();
        let rows = containers
            .into_iter()
            .map(|container| self.row(&container, now))
            .collect();
        table::print(&COLUMNS, self.format.as_deref(), rows)?;
        Ok(0)
    }

    fn id<'a>(&self, id: &'a str) -> &'a str {
        if self.no_trunc {
            id
        } else {
            id.get(..12).unwrap_or(id)
        }
    }

    fn row(&self, container: &ContainerSummary, now: i64) -> Row {
        let names: Vec<&str> = container
            .names
            .iter()
            .map(|name| name.trim_start_matches('/'))
            .collect();
        let labels: Vec<String> = container
            .labels
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let mounts: Vec<&str> = container
            .mounts
            .iter()
            .map(|mount| mount.source.as_str())
            .collect();
        // An image that lost its name is listed by its id.
        let image = container
            .image
            .strip_prefix("sha256:")
            .map_or(container.image.as_str(), |id| self.id(id));
        let fields = json!({
            "ID": self.id(&container.id),
            "Names": names.join(","),
            "Image": image,
            "Command": format!("{:?}", if self.no_trunc { container.command.clone() } else { shorten(&container.command) }),
            "CreatedAt": created_at(container.created),
            "RunningFor": format!("{} ago", approximately(now - container.created)),
            "State": container.state,
            "Status": container.status,
            "Ports": ports(&container.ports),
            "Labels": labels.join(","),
            "Mounts": mounts.join(","),
            "Networks": container.host_config.network_mode,
        });
        match fields {
            serde_json::Value::Object(row) => row,
            _ => Row::new(),
        }
    }
}

/// `2026-01-31 12:00:00 +0000 UTC`, as Go prints times.
pub(crate) fn created_at(seconds: i64) -> String {
    match Timestamp::from_second(seconds) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string(),
        Err(_) => seconds.to_string(),
    }
}

/// At most twenty characters.
fn shorten(text: &str) -> String {
    if text.chars().count() <= 20 {
        return text.to_owned();
    }
    text.chars().take(19).chain(['…']).collect()
}

fn ports(ports: &[PortSummary]) -> String {
    let mut texts: Vec<String> = ports
        .iter()
        .map(|port| match port.public_port {
            Some(public) => format!("{}:{public}->{}/{}", port.ip, port.private_port, port.r#type),
            None => format!("{}/{}", port.private_port, port.r#type),
        })
        .collect();
    texts.sort();
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_shortened_to_twenty_characters() {
        assert_eq!(shorten("sleep 100"), "sleep 100");
        assert_eq!(shorten("12345678901234567890"), "12345678901234567890");
        assert_eq!(shorten("123456789012345678901"), "1234567890123456789…");
        assert_eq!(created_at(0), "1970-01-01 00:00:00 +0000 UTC");
    }
}
