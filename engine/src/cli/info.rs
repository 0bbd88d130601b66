//! `wharf info`: what the daemon has and can do.

use std::io::Write as _;

use clap::Args;
use serde_json::Value;

use super::endpoint::Globals;
use super::failure::{Failure, Outcome};
use super::quantity::size;
use super::template::Template;
use crate::api::types::{self, decode};

/// Show what the daemon has and can do
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  wharf info\n  wharf info -f '{{.ContainersRunning}}'    for scripts")]
pub(crate) struct Info {
    /// json, or a template such as '{{.ServerVersion}}'
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

impl Info {
    pub(crate) async fn run(&self, globals: &Globals) -> Outcome {
        let template = match self.format.as_deref() {
            None | Some("" | "json") => None,
            Some(format) => Some(Template::parse(format)?),
        };
        let client = globals.connect().await?;
        let answer = client.get("/info").send().await?.document().await?;
        let failed = |error: serde_json::Error| Failure::new(format!("Error: the daemon's answer: {error}"));
        let mut out = std::io::stdout().lock();
        match (template, &self.format) {
            (Some(template), _) => {
                let document: Value = serde_json::from_str(&answer).map_err(failed)?;
                writeln!(out, "{}", template.render(&document)?)?;
            }
            (None, Some(_)) => {
                writeln!(out, "{}", answer.trim_end())?;
            }
            (None, None) => out.write_all(text(&decode(answer.as_bytes()).map_err(failed)?).as_bytes())?,
        }
        out.flush()?;
        let info: types::Info = decode(answer.as_bytes()).map_err(failed)?;
        if self.format.is_none() {
            for warning in info.warnings {
                super::notice(&format!("WARNING: {warning}"));
            }
        }
        Ok(0)
    }
}

fn text(info: &types::Info) -> String {
    let mut lines = vec![
        format!("Containers: {}", info.containers),
        format!(" Running: {}", info.containers_running),
        format!(" Paused: {}", info.containers_paused),
        format!(" Stopped: {}", info.containers_stopped),
        format!("Images: {}", info.images),
        format!("Server Version: {}", info.server_version),
        format!("Storage Driver: {}", info.driver),
    ];
    lines.extend(
        info.driver_status
            .iter()
            .map(|[key, value]| format!(" {key}: {value}")),
    );
    lines.push(format!("Logging Driver: {}", info.logging_driver));
    lines.push(format!("Cgroup Driver: {}", info.cgroup_driver));
    lines.push(format!("Cgroup Version: {}", info.cgroup_version));
    let runtimes: Vec<&str> = info.runtimes.keys().map(String::as_str).collect();
    lines.push(format!("Runtimes: {}", runtimes.join(" ")));
    lines.push(format!("Default Runtime: {}", info.default_runtime));
    if !info.security_options.is_empty() {
        lines.push("Security Options:".to_owned());
        lines.extend(
            info.security_options
                .iter()
                .map(|option| format!(" {}", option.trim_start_matches("name="))),
        );
    }
    lines.push(format!("Kernel Version: {}", info.kernel_version));
    lines.push(format!("Operating System: {}", info.operating_system));
    lines.push(format!("OSType: {}", info.os_type));
    lines.push(format!("Architecture: {}", info.architecture));
    lines.push(format!("CPUs: {}", info.ncpu));
    lines.push(format!(
        "Total Memory: {}",
        size(i64::try_from(info.mem_total).unwrap_or(i64::MAX))
    ));
    lines.push(format!("Name: {}", info.name));
    lines.push(format!("ID: {}", info.id));
    lines.push(format!("Root Dir: {}", info.docker_root_dir));
    lines.push(format!("Debug Mode: {}", info.debug));
    lines.push(format!("Live Restore Enabled: {}", info.live_restore_enabled));
    lines.join("\n") + "\n"
}
