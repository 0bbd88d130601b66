//! `wharf pull`: fetches an image. Also the pull of `run` and `create`.
//!
//! Owns the display of progress: bars on a terminal, lines elsewhere, both on stderr when another command pulls. Errors
//! that arrive within the stream are errors of the command. Refuses image sources that are paths on this machine.

use std::collections::HashMap;
use std::io::Write as _;

use clap::Args;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::endpoint::Globals;
use super::failure::{Failure, Outcome};
use super::option_values::{ImageSource, image_source};
use super::terminal;
use crate::api::client::Client;
use crate::api::types::{Progress, decode};

/// Longest line of progress taken, in bytes.
const LINE_LIMIT: usize = 1 << 20;

/// Fetch an image from a registry
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    wharf pull alpine                                   the tag latest\n  \
    wharf pull alpine:3.20\n  \
    wharf pull registry.example.org/team/app@sha256:…   exactly this one")]
pub(crate) struct Pull {
    /// Do not show progress
    #[arg(short, long)]
    quiet: bool,
    /// The image's name
    #[arg(value_name = "IMAGE")]
    image: String,
}

impl Pull {
    pub(crate) async fn run(&self, globals: &Globals) -> Outcome {
        if let ImageSource::Local(source) = image_source(&self.image)? {
            return Err(
                Failure::new(format!("Error: {source} is on this machine and is not pulled"))
                    .hint("`wharf run` takes it as it is"),
            );
        }
        let client = globals.connect().await?;
        pull(&client, &self.image, self.quiet).await?;
        writeln!(std::io::stdout(), "{}", tagged(&self.image))?;
        Ok(0)
    }
}

/// The name with the tag that is meant when there is none.
pub(crate) fn tagged(name: &str) -> String {
    let last = name.rsplit_once('/').map_or(name, |(_, last)| last);
    if last.contains([':', '@']) {
        name.to_owned()
    } else {
        format!("{name}:latest")
    }
}

/// Repository and tag, or digest, as the API takes them.
fn split(name: &str) -> (String, String) {
    if let Some((repository, digest)) = name.split_once('@') {
        return (repository.to_owned(), digest.to_owned());
    }
    let name = tagged(name);
    match name.rsplit_once(':') {
        Some((repository, tag)) => (repository.to_owned(), tag.to_owned()),
        None => (name, "latest".to_owned()),
    }
}

/// Pulls; shows progress on stderr unless `quiet`. Returns when the image is there.
pub(crate) async fn pull(client: &Client, name: &str, quiet: bool) -> Result<(), Failure> {
    let (repository, tag) = split(name);
    let mut stream = client
        .post("/images/create")
        .query("fromImage", repository)
        .query("tag", tag)
        .send()
        .await?;
    let mut display = if quiet { Display::None } else { Display::new() };
    let mut pending: Vec<u8> = Vec::new();
    while let Some(chunk) = stream.chunk().await? {
        pending.extend_from_slice(&chunk);
        let mut begin = 0;
        while let Some(length) = pending[begin..].iter().position(|byte| *byte == b'\n') {
            display.show(&pending[begin..begin + length])?;
            begin += length + 1;
        }
        pending.drain(..begin);
        if pending.len() > LINE_LIMIT {
            return Err(Failure::new(format!(
                "Error: pull {name}: a line of progress exceeds {LINE_LIMIT} bytes"
            )));
        }
    }
    display.show(&pending)?;
    display.finish();
    Ok(())
}

/// Where progress goes.
#[derive(Debug)]
enum Display {
    None,
    /// One line for each change of a layer's status.
    Lines(HashMap<String, String>),
    /// One bar a layer, redrawn.
    Bars {
        all: MultiProgress,
        layers: HashMap<String, ProgressBar>,
        /// What is about the whole image, shown below the bars when they are done.
        result: Vec<String>,
    },
}

impl Display {
    fn new() -> Self {
        if terminal::stderr_is_terminal() {
            let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(15));
            Self::Bars {
                all,
                layers: HashMap::new(),
                result: Vec::new(),
            }
        } else {
            Self::Lines(HashMap::new())
        }
    }

    /// Shows one line of the stream; an error in it is returned.
    fn show(&mut self, line: &[u8]) -> Result<(), Failure> {
        let line = line.trim_ascii();
        if line.is_empty() {
            return Ok(());
        }
        let progress: Progress = decode(line)
            .map_err(|error| Failure::new(format!("Error: the daemon's progress cannot be read: {error}")))?;
        if let Some(error) = error_in(&progress) {
            self.finish();
            return Err(Failure::new(format!("Error response from daemon: {error}")));
        }
        let Progress {
            status,
            id,
            progress_detail,
            ..
        } = progress;
        let detail = progress_detail.unwrap_or_default();
        match self {
            Self::None => {}
            Self::Lines(seen) => {
                // Bytes are of no interest in a log; changes of status are.
                if id.is_empty() {
                    super::notice(&status);
                } else if seen.get(&id) != Some(&status) {
                    super::notice(&format!("{id}: {status}"));
                    seen.insert(id, status);
                }
            }
            Self::Bars { all, layers, result } => {
                if id.is_empty() {
                    result.push(status);
                    return Ok(());
                }
                if status.starts_with("Pulling from") {
                    all.println(format!("{id}: {status}"))?;
                    return Ok(());
                }
                let bar = layers.entry(id).or_insert_with_key(|id| {
                    let bar = all.add(ProgressBar::no_length());
                    bar.set_style(plain());
                    bar.set_prefix(id.clone());
                    bar
                });
                if detail.total > 0 {
                    bar.set_style(with_bar());
                    bar.set_length(u64::try_from(detail.total).unwrap_or(0));
                    bar.set_position(u64::try_from(detail.current).unwrap_or(0));
                } else {
                    bar.set_style(plain());
                }
                bar.set_message(status);
            }
        }
        Ok(())
    }

    /// Leaves the bars as they are on the screen.
    fn finish(&mut self) {
        if let Self::Bars { layers, result, .. } = self {
            layers.values().for_each(ProgressBar::abandon);
            result.drain(..).for_each(|line| super::notice(&line));
        }
    }
}

fn error_in(progress: &Progress) -> Option<&str> {
    let detail = progress
        .error_detail
        .as_ref()
        .map(|detail| detail.message.as_str());
    detail
        .filter(|message| !message.is_empty())
        .or_else(|| Some(progress.error.as_str()).filter(|m| !m.is_empty()))
}

fn plain() -> ProgressStyle {
    ProgressStyle::with_template("{prefix}: {wide_msg}").expect("a constant template")
}

fn with_bar() -> ProgressStyle {
    ProgressStyle::with_template("{prefix}: {msg:18} [{bar:40}] {bytes}/{total_bytes}")
        .expect("a constant template")
        .progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split_into_repository_and_tag() {
        for (name, full, repository, tag) in [
            ("alpine", "alpine:latest", "alpine", "latest"),
            ("alpine:3", "alpine:3", "alpine", "3"),
            (
                "localhost:5000/a",
                "localhost:5000/a:latest",
                "localhost:5000/a",
                "latest",
            ),
            ("a@sha256:0", "a@sha256:0", "a", "sha256:0"),
        ] {
            assert_eq!(tagged(name), full);
            assert_eq!(split(name), (repository.to_owned(), tag.to_owned()));
        }
    }

    #[test]
    fn an_error_in_the_stream_is_an_error() {
        let mut display = Display::Lines(HashMap::new());
        assert!(
            display
                .show(br#"{"status":"Pulling fs layer","progressDetail":{},"id":"a"}"#)
                .is_ok()
        );
        let failure = display
            .show(br#"{"errorDetail":{"message":"no space"},"error":"no space"}"#)
            .expect_err("error");
        assert_eq!(failure.message, "Error response from daemon: no space");
        assert!(display.show(b"{").is_err());
    }
}
