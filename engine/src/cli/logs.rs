//! `wharf logs`: what a container has written.

use clap::Args;
use jiff::Timestamp;

use super::attached::Printer;
use super::endpoint::Globals;
use super::failure::{Failure, Outcome};
use super::quantity::point_in_time;
use crate::api::client::segment;
use crate::api::types::ContainerInspect;

/// Show what a container has written
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    wharf logs web\n  \
    wharf logs -f --tail 20 web        the last lines, and what follows\n  \
    wharf logs -t --since 10m web      the last ten minutes, with times")]
pub(crate) struct Logs {
    /// Go on with what is written from now on, until the container ends
    #[arg(short, long)]
    follow: bool,
    /// Only this many of the last lines
    #[arg(short = 'n', long, value_name = "LINES", default_value = "all")]
    tail: String,
    /// Only from this time on: 10m (ago), 2026-01-31T12:00:00Z, or seconds since 1970
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only until this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Show when each line was written
    #[arg(short, long)]
    timestamps: bool,
    /// Show the attributes that the log options name
    #[arg(long)]
    details: bool,
    /// Name or id
    container: String,
}

impl Logs {
    pub(crate) async fn run(&self, globals: &Globals) -> Outcome {
        let now = Timestamp::now();
        let time = |text: &Option<String>| text.as_deref().map(|text| point_in_time(text, now)).transpose();
        let (since, until) = (time(&self.since)?, time(&self.until)?);
        if self.tail != "all" && self.tail.parse::<i64>().is_err() {
            return Err(Failure::new(format!(
                "Error: --tail {}: expected a number or \"all\"",
                self.tail
            )));
        }
        let client = globals.connect().await?;
        let path = segment(&self.container);
        let inspect: ContainerInspect = client.get(format!("/containers/{path}/json")).json().await?;
        let mut stream = client
            .get(format!("/containers/{path}/logs"))
            .query("stdout", "1")
            .query("stderr", "1")
            .query("tail", &self.tail)
            .flag("follow", self.follow)
            .flag("timestamps", self.timestamps)
            .flag("details", self.details)
            .maybe("since", since)
            .maybe("until", until)
            .send()
            .await?;
        let mut printer = Printer::new(inspect.config.tty);
        while let Some(chunk) = stream.chunk().await? {
            printer.print(&chunk)?;
        }
        printer.finish()?;
        Ok(0)
    }
}
