//! `wharf rmi`: removes images.

use std::io::Write as _;

use clap::Args;

use super::endpoint::Globals;
use super::failure::{FAILED, Failure, Outcome};
use super::report;
use crate::api::client::image_path;
use crate::api::types::ImageDelete;

/// Remove images
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wharf rmi alpine:3.20\n  wharf rmi $(wharf images -q --filter dangling=true)"
)]
pub(crate) struct Rmi {
    /// Remove it even if a stopped container was made of it
    #[arg(short, long)]
    force: bool,
    /// Names or ids
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

impl Rmi {
    pub(crate) async fn run(&self, globals: &Globals) -> Outcome {
        let client = globals.connect().await?;
        let mut failed = false;
        // One after the other: two names of one image must not race for its layers.
        for image in &self.images {
            if image.is_empty() {
                return Err(Failure::new("Error: the name of an image is empty"));
            }
            let call = client
                .delete(format!("/images/{}", image_path(image)))
                .flag("force", self.force);
            match call.json::<Vec<ImageDelete>>().await {
                Ok(removed) => {
                    let mut out = std::io::stdout().lock();
                    for ImageDelete { untagged, deleted } in removed {
                        if let Some(name) = untagged {
                            writeln!(out, "Untagged: {name}")?;
                        }
                        if let Some(id) = deleted {
                            writeln!(out, "Deleted: {id}")?;
                        }
                    }
                }
                Err(error) => {
                    let gone = self.force && error.status() == Some(404);
                    report(&error.into(), false);
                    failed |= !gone;
                }
            }
        }
        if failed {
            Err(Failure::silent(FAILED))
        } else {
            Ok(0)
        }
    }
}
