//! `wharf create`: makes a container and does not start it. Also the creation step of `run`.
//!
//! Owns the pull of a missing image and the file with the id. Refuses to pull images given as paths.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use clap::Args;

use super::container_options::{AttachStreams, ContainerOptions, PullPolicy};
use super::endpoint::Globals;
use super::failure::{Failure, Outcome};
use super::option_values::ImageSource;
use super::pull;
use crate::api::client::Client;
use crate::api::types::CreateResponse;

/// Make a container from an image, without starting it
#[derive(Debug, Args)]
#[command(
    disable_help_flag = true,
    override_usage = "wharf create [OPTIONS] IMAGE [COMMAND [ARG...]]",
    after_help = "Examples:\n  \
        wharf create --name job alpine sh -c 'echo hello'   make it\n  \
        wharf start -a job                                  run it, as often as needed"
)]
pub(crate) struct Create {
    #[command(flatten)]
    container: ContainerOptions,
}

impl Create {
    pub(crate) async fn run(&self, globals: &Globals) -> Outcome {
        let client = globals.connect().await?;
        // Who starts it later decides what to attach: everything must be possible.
        let id = create(&client, &self.container, self.container.streams()).await?;
        writeln!(std::io::stdout(), "{id}")?;
        Ok(0)
    }
}

/// Makes the container, pulling its image if the options say so; gives its id.
pub(crate) async fn create(
    client: &Client,
    options: &ContainerOptions,
    streams: AttachStreams,
) -> Result<String, Failure> {
    let image = options.image()?;
    let request = options.request(image.as_str(), streams)?;
    let cidfile = options.cidfile.as_deref().map(CidFile::reserve).transpose()?;
    if let (ImageSource::Name(name), PullPolicy::Always) = (&image, options.pull) {
        pull::pull(client, name, options.quiet).await?;
    }
    let create = async || {
        let call = client
            .post("/containers/create")
            .maybe("name", options.name.as_deref());
        call.body(&request).json::<CreateResponse>().await
    };
    let created = match create().await {
        Err(error)
            if error.status() == Some(404)
                && error.to_string().starts_with("No such image")
                && options.pull == PullPolicy::Missing
                && matches!(image, ImageSource::Name(_)) =>
        {
            super::notice(&format!(
                "Unable to find image '{}' locally",
                pull::tagged(image.as_str())
            ));
            pull::pull(client, image.as_str(), options.quiet).await?;
            create().await?
        }
        other => other?,
    };
    for warning in &created.warnings {
        super::notice(&format!("WARNING: {warning}"));
    }
    if let Some(file) = cidfile {
        file.write(&created.id)?;
    }
    Ok(created.id)
}

/// A new file that gets the container's id, or is gone again when there is no container.
struct CidFile<'a> {
    path: &'a Path,
    file: std::fs::File,
    written: bool,
}

impl<'a> CidFile<'a> {
    fn reserve(path: &'a Path) -> Result<Self, Failure> {
        match OpenOptions::new().write(true).create_new(true).open(path) {
            Ok(file) => Ok(Self {
                path,
                file,
                written: false,
            }),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(Failure::new(format!(
                "Error: --cidfile: {} exists: another container may be using it",
                path.display()
            ))
            .hint("remove it if that container is gone")),
            Err(error) => Err(Failure::new(format!(
                "Error: --cidfile: create {}: {error}",
                path.display()
            ))),
        }
    }

    fn write(mut self, id: &str) -> Result<(), Failure> {
        self.file.write_all(id.as_bytes()).map_err(|error| {
            Failure::new(format!(
                "Error: --cidfile: write {}: {error}",
                self.path.display()
            ))
        })?;
        self.written = true;
        Ok(())
    }
}

impl Drop for CidFile<'_> {
    fn drop(&mut self) {
        if !self.written {
            // The first error is the one to report; an empty file is the worst that remains.
            std::fs::remove_file(self.path).ok();
        }
    }
}
