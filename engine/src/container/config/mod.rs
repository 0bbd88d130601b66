//! From an image and a request to an OCI spec.
//!
//! ```text
//! image config ──► ImageDefaults ─┐
//!                                 ├─► merge ──► ContainerConfig ─┐
//! request ────────────────────────┘                             ├─► spec::build ──► OCI spec (JSON)
//! request's HostConfig, Facts about the host, User, Files ───────┘
//! ```
//!
//! Architecture invariant: an image reaches the spec only through [`ImageDefaults`], whose fields are all that an image
//! may say. Nothing of it reaches `HostConfig`, mounts, devices, capabilities, annotations or runtime options.

pub mod capability;
pub mod device;
pub mod facts;
pub mod mount;
pub mod resource;
pub mod seccomp;
pub mod signal;
pub mod spec;
pub mod user;

use crate::api::types::{ContainerConfig, Members};
use crate::error::{Error, Result};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Everything that an image may say about the containers made from it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageDefaults {
    /// `user[:group]`.
    pub user: String,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// The executable and its fixed arguments.
    pub entrypoint: Vec<String>,
    /// Default arguments.
    pub cmd: Vec<String>,
    /// The working directory.
    pub working_dir: String,
    /// Labels: information, never a switch.
    pub labels: BTreeMap<String, String>,
    /// The signal that `stop` sends first.
    pub stop_signal: String,
    /// Ports it says it listens on: information.
    pub exposed_ports: BTreeMap<String, Members>,
    /// Paths it declares as volumes. They are kept in the container's own writable layer.
    pub volumes: BTreeMap<String, Members>,
}

/// The longest list an image may bring: environment, labels, arguments.
const MAX_LIST: usize = 10_000;

impl ImageDefaults {
    /// Reads the `config` member of an image configuration.
    ///
    /// # Errors
    ///
    /// It is not of this shape, or holds lists beyond reason.
    pub fn read(config: &[u8]) -> Result<Self> {
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Document {
            config: ImageDefaults,
        }
        let document: Document = crate::api::types::decode(config)
            .map_err(|error| Error::invalid(format!("read image configuration: {error}")))?;
        let image = document.config;
        for (name, length) in [
            ("Env", image.env.len()),
            ("Entrypoint", image.entrypoint.len()),
            ("Cmd", image.cmd.len()),
            ("Labels", image.labels.len()),
            ("Volumes", image.volumes.len()),
        ] {
            if length > MAX_LIST {
                let message =
                    format!("read image configuration: {name} has {length} entries, more than {MAX_LIST}");
                return Err(Error::invalid(message));
            }
        }
        Ok(image)
    }
}

/// Fills what the request leaves open from the image, by Docker's rules: an entrypoint in the request hides the image's
/// entrypoint and arguments, and a list with one empty word stands for no entrypoint.
///
/// # Errors
///
/// Neither of them names a command; or an environment entry has no name.
pub fn merge(image: &ImageDefaults, mut request: ContainerConfig) -> Result<ContainerConfig> {
    let fill = |field: &mut String, default: &String| {
        if field.is_empty() {
            field.clone_from(default);
        }
    };
    fill(&mut request.user, &image.user);
    fill(&mut request.working_dir, &image.working_dir);
    fill(&mut request.stop_signal, &image.stop_signal);
    if request.entrypoint.as_ref().is_none_or(Vec::is_empty) {
        if request.cmd.is_empty() {
            request.cmd.clone_from(&image.cmd);
        }
        if request.entrypoint.is_none() && !image.entrypoint.is_empty() {
            request.entrypoint = Some(image.entrypoint.clone());
        }
    }
    if request
        .entrypoint
        .as_ref()
        .is_some_and(|words| words.as_slice() == [""])
    {
        request.entrypoint = None;
    }
    if request.cmd.is_empty() && request.entrypoint.as_ref().is_none_or(Vec::is_empty) {
        return Err(Error::invalid("no command specified"));
    }
    request.env = merge_env(&image.env, &request.env)?;
    for (name, value) in &image.labels {
        request
            .labels
            .entry(name.clone())
            .or_insert_with(|| value.clone());
    }
    for (port, value) in &image.exposed_ports {
        request
            .exposed_ports
            .entry(port.clone())
            .or_insert_with(|| value.clone());
    }
    for (path, value) in &image.volumes {
        request
            .volumes
            .entry(path.clone())
            .or_insert_with(|| value.clone());
    }
    Ok(request)
}

/// `base` with the entries of `over` replaced or added; a bare `NAME` in `over` removes it.
///
/// # Errors
///
/// An entry of `over` has no name or holds a NUL.
pub fn merge_env(base: &[String], over: &[String]) -> Result<Vec<String>> {
    let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    let mut merged: Vec<String> = base.iter().filter(|entry| entry.contains('=')).cloned().collect();
    for entry in over {
        let key = name(entry);
        if key.is_empty() {
            return Err(Error::invalid(format!("invalid environment variable: {entry}")));
        }
        merged.retain(|other| name(other) != key);
        if entry.contains('=') {
            merged.push(entry.clone());
        }
    }
    if let Some(entry) = merged.iter().find(|entry| entry.contains('\0')) {
        let message = format!("invalid environment variable: {}: contains a NUL", name(entry));
        return Err(Error::invalid(message));
    }
    Ok(merged)
}

/// The command line: the entrypoint's words, then the arguments.
pub fn command(config: &ContainerConfig) -> Vec<String> {
    let entrypoint = config.entrypoint.clone().unwrap_or_default();
    entrypoint.into_iter().chain(config.cmd.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn image() -> ImageDefaults {
        ImageDefaults {
            entrypoint: words("/entry -x"),
            cmd: words("serve"),
            env: words("PATH=/bin A=1"),
            user: "www".to_owned(),
            ..Default::default()
        }
    }

    fn merged(entrypoint: Option<&str>, cmd: &str) -> Vec<String> {
        let request = ContainerConfig {
            entrypoint: entrypoint.map(|text| {
                if text.is_empty() {
                    vec![String::new()]
                } else {
                    words(text)
                }
            }),
            cmd: words(cmd),
            ..Default::default()
        };
        merge(&image(), request)
            .map(|config| command(&config))
            .unwrap_or_default()
    }

    #[test]
    fn commands_merge_as_in_docker() {
        assert_eq!(merged(None, ""), words("/entry -x serve"));
        assert_eq!(merged(None, "other"), words("/entry -x other"));
        assert_eq!(merged(Some("/mine"), ""), words("/mine"));
        assert_eq!(merged(Some("/mine"), "arg"), words("/mine arg"));
        assert_eq!(merged(Some(""), "sh"), words("sh"));
        assert_eq!(merged(Some(""), ""), Vec::<String>::new());
    }

    #[test]
    fn the_request_wins_over_the_image() {
        let request = ContainerConfig {
            env: words("A=2 PATH B=3"),
            user: "root".to_owned(),
            ..Default::default()
        };
        let config = merge(&image(), request).unwrap();
        assert_eq!(config.env, words("A=2 B=3"));
        assert_eq!(config.user, "root");
    }

    #[test]
    fn entries_without_a_name_are_refused() {
        assert!(merge_env(&[], &words("=x")).is_err());
    }

    #[test]
    fn images_say_only_what_images_may() {
        let config =
            br#"{"config":{"User":"1","HostConfig":{"Privileged":true},"Healthcheck":{"Test":["CMD"]},
            "Binds":["/:/host"],"Env":null,"OnBuild":["RUN x"]}}"#;
        let expected = ImageDefaults {
            user: "1".to_owned(),
            ..Default::default()
        };
        assert_eq!(ImageDefaults::read(config).unwrap(), expected);
    }
}
