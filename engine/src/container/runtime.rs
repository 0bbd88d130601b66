//! Which shim and which OCI runtime a container runs on.

use crate::engine::DEFAULT_SHIM;
use crate::error::{Error, Result};
use prost_types::Any;
use std::path::{Path, PathBuf};
use wharf_proto::any;
use wharf_proto::containerd::runc::v1::Options;

/// A shim, and the program it runs instead of its built-in runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    /// The shim's name, as containerd names runtimes.
    pub shim: String,
    /// A runc-compatible program.
    pub binary: Option<PathBuf>,
}

impl Runtime {
    /// Reads the `Runtime` of a request: empty or `wharf` is built in, `io.containerd.*` names a shim, an absolute path
    /// is a runc-compatible program, and `runc` or `crun` is one that is looked up in the daemon's `PATH`.
    ///
    /// # Errors
    ///
    /// None of these, or the program is not there.
    pub fn parse(name: &str) -> Result<Self> {
        let on_default_shim = |binary| Self {
            shim: DEFAULT_SHIM.to_owned(),
            binary,
        };
        let unknown = |cause: &str| Error::invalid(format!("unknown or invalid runtime name: {name}{cause}"));
        match name {
            "" | "wharf" => Ok(on_default_shim(None)),
            path if path.starts_with('/') => {
                if Path::new(path).is_file() {
                    Ok(on_default_shim(Some(path.into())))
                } else {
                    Err(unknown(": no such file"))
                }
            }
            "runc" | "crun" => search(name)
                .map(|path| on_default_shim(Some(path)))
                .ok_or_else(|| unknown(": not in $PATH")),
            shim if shim.starts_with("io.containerd.") => Ok(Self {
                shim: shim.to_owned(),
                binary: None,
            }),
            _ => Err(unknown("")),
        }
    }

    /// The options that say so to the shim.
    pub fn options(&self) -> Option<Any> {
        self.binary.as_ref().map(|binary| {
            any::pack(&Options {
                binary_name: binary.to_string_lossy().into_owned(),
                ..Default::default()
            })
        })
    }

    /// The names that can be given, and their programs.
    pub fn known() -> Vec<(String, String)> {
        let mut known = vec![("wharf".to_owned(), "wharf".to_owned())];
        for name in ["runc", "crun"] {
            if let Some(path) = search(name) {
                known.push((name.to_owned(), path.to_string_lossy().into_owned()));
            }
        }
        known
    }
}

fn search(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_are_read() {
        assert_eq!(Runtime::parse("").unwrap(), Runtime::parse("wharf").unwrap());
        assert_eq!(Runtime::parse("").unwrap().options(), None);
        assert_eq!(
            Runtime::parse("io.containerd.runc.v2").unwrap().shim,
            "io.containerd.runc.v2"
        );
        assert_eq!(
            Runtime::parse("/etc/passwd").unwrap().binary,
            Some("/etc/passwd".into())
        );
        assert!(Runtime::parse("/no/such/runtime").is_err());
        assert!(Runtime::parse("../runc").is_err());
    }
}
