//! `wharf images`: lists images.

use std::io::Write as _;

use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::endpoint::Globals;
use super::failure::{Failure, Outcome};
use super::option_values::filters;
use super::ps::created_at;
use super::quantity::{approximately, size};
use super::table::{self, Columns, Row};
use crate::api::types::ImageSummary;

/// List images
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    wharf images\n  \
    wharf images alpine                               those of one repository\n  \
    wharf images -q --filter dangling=true            the ids of those without a name\n  \
    wharf images --format '{{.Repository}}:{{.Tag}}'    for scripts\n\n\
    Fields: .ID .Repository .Tag .Digest .CreatedSince .CreatedAt .Size")]
pub(crate) struct Images {
    /// Only the ids
    #[arg(short, long)]
    quiet: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Do not shorten ids
    #[arg(long)]
    no_trunc: bool,
    /// Also intermediate images
    #[arg(short, long)]
    all: bool,
    /// Only those that match, such as dangling=true or reference=alpine
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// table, json, or a template such as '{{.Repository}}'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Only those with this name
    #[arg(value_name = "REPOSITORY[:TAG]")]
    reference: Option<String>,
}

const HEADINGS: &[(&str, &str)] = &[
    ("ID", "IMAGE ID"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
];
const COLUMNS: Columns = Columns {
    default: r"{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}",
    headings: HEADINGS,
};
const COLUMNS_WITH_DIGESTS: Columns = Columns {
    default: r"{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}",
    headings: HEADINGS,
};

impl Images {
    pub(crate) async fn run(&self, globals: &Globals) -> Outcome {
        let client = globals.connect().await?;
        let mut filter = self.filter.clone();
        filter.extend(
            self.reference
                .as_ref()
                .map(|reference| format!("reference={reference}")),
        );
        let images: Vec<ImageSummary> = client
            .get("/images/json")
            .flag("all", self.all)
            .flag("digests", self.digests)
            .maybe("filters", filters(&filter)?)
            .json()
            .await?;
        if self.quiet && self.format.is_none() {
            return self.print_ids(&images);
        }
        let now = Timestamp::now().as_second();
        let rows = images.iter().flat_map(|image| self.rows(image, now)).collect();
        let columns = if self.digests {
            &COLUMNS_WITH_DIGESTS
        } else {
            &COLUMNS
        };
        table::print(columns, self.format.as_deref(), rows)?;
        Ok(0)
    }

    fn print_ids(&self, images: &[ImageSummary]) -> Result<u8, Failure> {
        let mut out = std::io::stdout().lock();
        for image in images {
            // Once for each name, as in Docker.
            for _ in 0..image.repo_tags.len().max(1) {
                writeln!(out, "{}", self.id(&image.id))?;
            }
        }
        Ok(0)
    }

    fn id<'a>(&self, id: &'a str) -> &'a str {
        if self.no_trunc {
            return id;
        }
        let digits = id.strip_prefix("sha256:").unwrap_or(id);
        digits.get(..12).unwrap_or(digits)
    }

    fn rows(&self, image: &ImageSummary, now: i64) -> Vec<Row> {
        let mut names: Vec<(&str, &str, &str)> = Vec::new();
        let digests: Vec<(&str, &str)> = image
            .repo_digests
            .iter()
            .filter_map(|digest| digest.split_once('@'))
            .collect();
        for name in &image.repo_tags {
            let (repository, tag) = name.rsplit_once(':').unwrap_or((name, "<none>"));
            let digest = digests
                .iter()
                .find(|(of, _)| *of == repository)
                .map_or("<none>", |(_, digest)| digest);
            names.push((repository, tag, digest));
        }
        if names.is_empty() {
            names.extend(
                digests
                    .iter()
                    .map(|(repository, digest)| (*repository, "<none>", *digest)),
            );
        }
        if names.is_empty() {
            names.push(("<none>", "<none>", "<none>"));
        }
        let row = |(repository, tag, digest): (&str, &str, &str)| {
            let fields = json!({
                "ID": self.id(&image.id),
                "Repository": repository,
                "Tag": tag,
                "Digest": digest,
                "CreatedSince": format!("{} ago", approximately(now - image.created)),
                "CreatedAt": created_at(image.created),
                "Size": size(image.size),
            });
            match fields {
                serde_json::Value::Object(row) => row,
                _ => Row::new(),
            }
        };
        names.into_iter().map(row).collect()
    }
}
