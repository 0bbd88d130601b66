//! `wharf version`: the versions of this command and of the daemon.

use std::io::Write as _;

use clap::Args;
use serde_json::{Value, json};

use super::endpoint::Globals;
use super::failure::Outcome;
use super::template::Template;
use crate::api::types::API_VERSION;

/// Show the versions of this command and of the daemon
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  wharf version\n  wharf version -f '{{.Server.Version}}'    for scripts")]
pub(crate) struct Version {
    /// json, or a template such as '{{.Server.Version}}'
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

impl Version {
    pub(crate) async fn run(&self, globals: &Globals) -> Outcome {
        let template = match self.format.as_deref() {
            None | Some("" | "json") => None,
            Some(format) => Some(Template::parse(format)?),
        };
        let client = globals.connect().await?;
        let server: Value = client.get("/version").json().await?;
        let text = |of: &Value, key: &str| of.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
        let document = json!({
            "Client": {
                "Version": env!("CARGO_PKG_VERSION"),
                "ApiVersion": API_VERSION,
                "Os": "linux",
                "Arch": architecture(),
            },
            "Server": server,
        });
        let mut out = std::io::stdout().lock();
        match (template, &self.format) {
            (Some(template), _) => writeln!(out, "{}", template.render(&document)?)?,
            (None, Some(_)) => writeln!(out, "{document}")?,
            (None, None) => {
                let (client, server) = (&document["Client"], &document["Server"]);
                let platform = server
                    .get("Platform")
                    .map_or_else(String::new, |platform| text(platform, "Name"));
                writeln!(out, "Client:")?;
                writeln!(out, " Version:           {}", text(client, "Version"))?;
                writeln!(out, " API version:       {}", text(client, "ApiVersion"))?;
                writeln!(out, " OS/Arch:           linux/{}\n", text(client, "Arch"))?;
                writeln!(out, "{}", format!("Server: {platform}").trim_end())?;
                writeln!(out, " Engine:")?;
                writeln!(out, "  Version:          {}", text(server, "Version"))?;
                let (newest, oldest) = (text(server, "ApiVersion"), text(server, "MinAPIVersion"));
                writeln!(out, "  API version:      {newest} (minimum version {oldest})")?;
                writeln!(
                    out,
                    "  OS/Arch:          {}/{}",
                    text(server, "Os"),
                    text(server, "Arch")
                )?;
                writeln!(out, "  Kernel version:   {}", text(server, "KernelVersion"))?;
                for component in server
                    .get("Components")
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                {
                    let name = text(component, "Name");
                    if name != "Engine" {
                        writeln!(
                            out,
                            " {name}:\n  Version:          {}",
                            text(component, "Version")
                        )?;
                    }
                }
            }
        }
        out.flush()?;
        Ok(0)
    }
}

/// The architecture by the name that images use.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
