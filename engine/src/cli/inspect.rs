//! `wharf inspect`: everything about containers and images, as JSON.

use std::io::Write as _;

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::endpoint::Globals;
use super::failure::{FAILED, Failure, Outcome};
use super::template::Template;
use super::{json, report};
use crate::api::client::{Client, image_path, segment};

/// Show everything about containers and images
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    wharf inspect web                                        a JSON list with one object\n  \
    wharf inspect -f '{{.State.Status}} {{.State.ExitCode}}' web   two fields of it\n  \
    wharf inspect -f '{{json .Config.Env}}' alpine           one field as JSON\n  \
    wharf inspect -f '{{index .Config.Labels \"a.b\"}}' web    a key with a dot")]
pub(crate) struct Inspect {
    /// json, or a template such as '{{.State.Status}}'
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Look among objects of this kind only
    #[arg(long, value_enum, value_name = "KIND")]
    r#type: Option<Kind>,
    /// Names or ids
    #[arg(required = true, value_name = "OBJECT")]
    objects: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Containers
    Container,
    /// Images
    Image,
}

impl Inspect {
    pub(crate) async fn run(&self, globals: &Globals) -> Outcome {
        let template = match self.format.as_deref() {
            None | Some("" | "json") => None,
            Some(format) => Some(Template::parse(format)?),
        };
        let client = globals.connect().await?;
        let mut found = Vec::new();
        let mut failures = Vec::new();
        for object in &self.objects {
            match self.find(&client, object).await {
                Ok(document) => found.push(document),
                Err(failure) => failures.push(failure),
            }
        }
        let mut out = std::io::stdout().lock();
        if let Some(template) = template {
            for document in &found {
                let value: Value = serde_json::from_str(document)
                    .map_err(|error| Failure::new(format!("Error: the daemon's answer: {error}")))?;
                writeln!(out, "{}", template.render(&value)?)?;
            }
        } else {
            let list = format!("[{}]", found.join(","));
            if self.format.is_some() {
                writeln!(out, "{list}")?;
            } else {
                writeln!(out, "{}", json::indent(&list))?;
            }
        }
        out.flush()?;
        for failure in &failures {
            report(failure, false);
        }
        if failures.is_empty() {
            Ok(0)
        } else {
            Err(Failure::silent(FAILED))
        }
    }

    /// The daemon's document about `object`: its own text, so that nothing is lost or reordered.
    async fn find(&self, client: &Client, object: &str) -> Result<String, Failure> {
        let name = object.trim_start_matches('/');
        let mut paths = Vec::new();
        if self.r#type != Some(Kind::Image) {
            paths.push(format!("/containers/{}/json", segment(name)));
        }
        if self.r#type != Some(Kind::Container) {
            paths.push(format!("/images/{}/json", image_path(name)));
        }
        if name.is_empty() {
            paths.clear();
        }
        for path in paths {
            match client.get(path).send().await {
                Ok(answer) => {
                    return Ok(answer.document().await?);
                }
                Err(error) if error.status() == Some(404) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let kind = match self.r#type {
            None => "object",
            Some(Kind::Container) => "container",
            Some(Kind::Image) => "image",
        };
        Err(Failure::new(format!("Error: No such {kind}: {object}"))
            .hint("`wharf ps -a` lists containers, `wharf images` images"))
    }
}
