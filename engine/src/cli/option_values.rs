//! The small languages inside flags: `NAME=VALUE`, `SOURCE:TARGET:ro`, `nofile=1:2`, env files, image sources.
//!
//! Owns reading them as Docker's command line does, including what it does to them on this side: relative paths become
//! absolute, bare names take our environment's value, a seccomp profile is read from its file. Refuses what cannot be
//! split; whether a part makes sense is the daemon's to say.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::failure::Failure;
use crate::api::types::{DeviceMapping, Mount, Ulimit};

/// Largest env file and seccomp profile read, in bytes.
const FILE_LIMIT: u64 = 4 << 20;

fn invalid(flag: &str, text: &str, expected: &str) -> Failure {
    Failure::new(format!(
        "Error: invalid argument {text:?} for {flag}: expected {expected}"
    ))
}

fn read_file(flag: &str, path: &Path) -> Result<String, Failure> {
    use std::io::Read;
    let failed = |reason: String| Failure::new(format!("Error: {flag}: read {}: {reason}", path.display()));
    let file = std::fs::File::open(path).map_err(|error| failed(error.to_string()))?;
    let mut text = String::new();
    let read = file
        .take(FILE_LIMIT + 1)
        .read_to_string(&mut text)
        .map_err(|error| failed(error.to_string()))?;
    if read as u64 > FILE_LIMIT {
        return Err(failed(format!("it is larger than {FILE_LIMIT} bytes")));
    }
    Ok(text)
}

/// Where a container's files come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ImageSource {
    /// A name: in the store, or at a registry.
    Name(String),
    /// `oci:/dir` and its like: on this machine, never pulled.
    Local(String),
}

impl ImageSource {
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Name(name) | Self::Local(name) => name,
        }
    }
}

/// Tells `oci:DIR`, `oci-archive:FILE`, `docker-archive:FILE` and `rootfs:DIR` from names. The daemon has another working
/// directory, so their paths are made absolute here.
pub(crate) fn image_source(text: &str) -> Result<ImageSource, Failure> {
    let Some((scheme @ ("oci" | "oci-archive" | "docker-archive" | "rootfs"), path)) = text.split_once(':')
    else {
        return Ok(ImageSource::Name(text.to_owned()));
    };
    let absolute = absolute(path).map_err(|reason| Failure::new(format!("Error: image {text}: {reason}")))?;
    Ok(ImageSource::Local(format!("{scheme}:{absolute}")))
}

fn absolute(path: &str) -> Result<String, String> {
    let absolute = std::path::absolute(Path::new(path)).map_err(|error| format!("path {path:?}: {error}"))?;
    // `std::path::absolute` keeps `..`, rightly where symlinks are involved; the kernel resolves it.
    absolute
        .into_os_string()
        .into_string()
        .map_err(|_| format!("path {path:?} is not valid UTF-8"))
}

/// `NAME=VALUE` as it is, a bare `NAME` with our value; `None` when we have none.
pub(crate) fn env(text: &str) -> Result<Option<String>, Failure> {
    match text.split_once('=') {
        Some(("", _)) => Err(invalid("--env", text, "NAME=VALUE")),
        Some(_) => Ok(Some(text.to_owned())),
        None if text.is_empty() => Err(invalid("--env", text, "NAME=VALUE")),
        None => Ok(std::env::var(text).ok().map(|value| format!("{text}={value}"))),
    }
}

/// The variables of an env file: one a line, `#` begins a comment line, nothing is unquoted or expanded.
pub(crate) fn env_file(path: &Path) -> Result<Vec<String>, Failure> {
    let text = read_file("--env-file", path)?;
    let mut variables = Vec::new();
    for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split_once('=').map_or(line, |(name, _)| name);
        if name.is_empty() || name.contains(char::is_whitespace) {
            let place = format!("{}:{}", path.display(), number + 1);
            return Err(Failure::new(format!(
                "Error: --env-file: {place}: {name:?} is no name of a variable"
            )));
        }
        variables.extend(env(line)?);
    }
    Ok(variables)
}

/// What a `KEY` without `=` means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bare {
    MeansEmpty,
    Refused,
}

/// `KEY=VALUE` flags as a map; the last of equal keys counts.
pub(crate) fn map(flag: &str, texts: &[String], bare: Bare) -> Result<BTreeMap<String, String>, Failure> {
    let mut map = BTreeMap::new();
    for text in texts {
        let (key, value) = match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => (key, value),
            None if bare == Bare::MeansEmpty && !text.is_empty() => (text.as_str(), ""),
            _ => return Err(invalid(flag, text, "KEY=VALUE")),
        };
        map.insert(key.to_owned(), value.to_owned());
    }
    Ok(map)
}

/// `--filter KEY=VALUE` flags as the API takes them, `{"key":["value"]}`; `None` without any.
pub(crate) fn filters(texts: &[String]) -> Result<Option<String>, Failure> {
    if texts.is_empty() {
        return Ok(None);
    }
    let mut filters: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for text in texts {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| invalid("--filter", text, "KEY=VALUE, such as name=web"))?;
        filters
            .entry(key.trim().to_lowercase())
            .or_default()
            .push(value.trim());
    }
    Ok(Some(json!(filters).to_string()))
}

/// `TARGET:OPTIONS`; no options when there is no colon.
pub(crate) fn split_at_colon(text: &str) -> (String, String) {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    (target.to_owned(), options.to_owned())
}

/// The `SOURCE:TARGET[:MODE]` among the volumes; a source that begins with a dot is a path from here.
pub(crate) fn binds(volumes: &[String]) -> Result<Vec<String>, Failure> {
    let mut binds = Vec::new();
    for volume in volumes {
        let Some((source, rest)) = volume.split_once(':') else {
            continue;
        };
        if source.is_empty() || rest.is_empty() {
            return Err(invalid("--volume", volume, "SOURCE:TARGET[:ro]"));
        }
        if source.starts_with('.') {
            let source = absolute(source).map_err(|reason| invalid("--volume", volume, &reason))?;
            binds.push(format!("{source}:{rest}"));
        } else {
            binds.push(volume.clone());
        }
    }
    Ok(binds)
}

/// `type=bind,source=/a,target=/b,readonly`.
pub(crate) fn mount(text: &str) -> Result<Mount, Failure> {
    let mut mount = Mount {
        r#type: "volume".to_owned(),
        ..Mount::default()
    };
    let mut options: BTreeMap<&str, BTreeMap<&str, Value>> = BTreeMap::new();
    for field in text.split(',') {
        let (key, value) = field
            .split_once('=')
            .map_or((field, None), |(key, value)| (key, Some(value)));
        let need = || value.ok_or_else(|| invalid("--mount", text, &format!("a value for {key}")));
        match key {
            "type" => mount.r#type = need()?.to_owned(),
            "source" | "src" => {
                let source = need()?;
                mount.source = match source.strip_prefix('.') {
                    Some(_) => absolute(source).map_err(|reason| invalid("--mount", text, &reason))?,
                    None => source.to_owned(),
                };
            }
            "target" | "dst" | "destination" => mount.target = need()?.to_owned(),
            "readonly" | "ro" => match value {
                None | Some("true" | "1") => mount.read_only = true,
                Some("false" | "0") => mount.read_only = false,
                Some(_) => {
                    return Err(invalid(
                        "--mount",
                        text,
                        "readonly, readonly=true or readonly=false",
                    ));
                }
            },
            "bind-propagation" => {
                options
                    .entry("BindOptions")
                    .or_default()
                    .insert("Propagation", json!(need()?));
            }
            "tmpfs-size" => {
                let size = quantity_of(need()?)?;
                options
                    .entry("TmpfsOptions")
                    .or_default()
                    .insert("SizeBytes", json!(size));
            }
            "tmpfs-mode" => {
                let mode = u32::from_str_radix(need()?, 8)
                    .map_err(|_| invalid("--mount", text, "an octal number for tmpfs-mode"))?;
                options
                    .entry("TmpfsOptions")
                    .or_default()
                    .insert("Mode", json!(mode));
            }
            other => {
                return Err(Failure::new(format!(
                    "Error: --mount: the option {other:?} is not supported yet"
                )));
            }
        }
    }
    mount.rest = options
        .into_iter()
        .map(|(key, value)| (key.to_owned(), json!(value)))
        .collect();
    Ok(mount)
}

fn quantity_of(text: &str) -> Result<i64, Failure> {
    Ok(super::quantity::bytes(text)?)
}

/// `nofile=SOFT[:HARD]`; without a hard limit it is the soft one.
pub(crate) fn ulimit(text: &str) -> Result<Ulimit, Failure> {
    let error = || invalid("--ulimit", text, "NAME=SOFT[:HARD], numbers or -1");
    let (name, limits) = text
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(error)?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let number = |text: &str| text.parse::<i64>().map_err(|_| error());
    Ok(Ulimit {
        name: name.to_owned(),
        soft: number(soft)?,
        hard: number(hard)?,
    })
}

/// `DEVICE[:TARGET][:rwm]`.
pub(crate) fn device(text: &str) -> DeviceMapping {
    let is_mode = |part: &str| !part.is_empty() && part.bytes().all(|byte| b"rwm".contains(&byte));
    let mut parts = text.splitn(3, ':');
    let host = parts.next().unwrap_or_default();
    let (target, mode) = match (parts.next(), parts.next()) {
        (None, _) => (host, "rwm"),
        (Some(mode), None) if is_mode(mode) => (host, mode),
        (Some(target), mode) => (target, mode.unwrap_or("rwm")),
    };
    DeviceMapping {
        path_on_host: host.to_owned(),
        path_in_container: target.to_owned(),
        cgroup_permissions: mode.to_owned(),
    }
}

/// Security options, with the seccomp profile that one names put in its place: the daemon cannot read our files.
pub(crate) fn security_options(texts: &[String]) -> Result<Vec<String>, Failure> {
    let mut options = Vec::new();
    for text in texts {
        let profile = text
            .strip_prefix("seccomp=")
            .or_else(|| text.strip_prefix("seccomp:"));
        match profile {
            Some(name) if !matches!(name, "unconfined" | "builtin") => {
                let path = PathBuf::from(name);
                let profile: Value = serde_json::from_str(&read_file("--security-opt seccomp", &path)?)
                    .map_err(|error| {
                        Failure::new(format!(
                            "Error: --security-opt seccomp: {}: {error}",
                            path.display()
                        ))
                    })?;
                options.push(format!("seccomp={profile}"));
            }
            _ => options.push(text.clone()),
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn local_images_are_told_from_names() {
        let here = std::env::current_dir().expect("directory");
        for (text, local) in [
            ("oci:dir", Some(format!("oci:{}/dir", here.display()))),
            ("rootfs:/a", Some("rootfs:/a".to_owned())),
            (
                "docker-archive:/a/b.tar",
                Some("docker-archive:/a/b.tar".to_owned()),
            ),
            ("busybox:latest", None),
            ("localhost:5000/oci", None),
        ] {
            let source = image_source(text).map_err(|failure| failure.message);
            let expected = local.map_or_else(|| ImageSource::Name(text.to_owned()), ImageSource::Local);
            assert_eq!(source, Ok(expected), "{text}");
        }
        assert!(image_source("oci:").is_err());
    }

    #[test]
    fn env_files_are_read_literally() {
        let mut file = tempfile::NamedTempFile::new().expect("file");
        write!(
            file,
            "\u{feff}# comment\n\nA=1\n  B=\"x y\" # no comment\nWHARF_TEST_UNSET\n"
        )
        .expect("write");
        let variables = env_file(file.path()).map_err(|failure| failure.message);
        assert_eq!(
            variables,
            Ok(vec!["A=1".to_owned(), "B=\"x y\" # no comment".to_owned()])
        );
        writeln!(file, "bad name=1").expect("write");
        let message = env_file(file.path()).expect_err("refused").message;
        assert!(message.contains(":6: \"bad name\""), "{message}");
    }

    #[test]
    fn mounts_and_limits_are_split() {
        let mount = mount("type=bind,src=/a,dst=/b,readonly")
            .map_err(|failure| failure.message)
            .expect("mount");
        assert_eq!(
            (
                mount.r#type.as_str(),
                mount.source.as_str(),
                mount.target.as_str()
            ),
            ("bind", "/a", "/b")
        );
        assert!(mount.read_only);
        assert!(
            super::mount("type=bind,volume-driver=x")
                .expect_err("refused")
                .message
                .contains("volume-driver")
        );
        let limit = ulimit("nofile=1:2")
            .map_err(|failure| failure.message)
            .expect("limit");
        assert_eq!((limit.soft, limit.hard), (1, 2));
        assert!(ulimit("nofile").is_err());
        let device = device("/dev/fuse:rw");
        assert_eq!(
            (
                device.path_in_container.as_str(),
                device.cgroup_permissions.as_str()
            ),
            ("/dev/fuse", "rw")
        );
        let binds = binds(&[
            "/a:/b:ro".to_owned(),
            "/anonymous".to_owned(),
            "name:/c".to_owned(),
        ]);
        assert_eq!(
            binds.map_err(|failure| failure.message),
            Ok(vec!["/a:/b:ro".to_owned(), "name:/c".to_owned()])
        );
    }
}
