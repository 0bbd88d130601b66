//! Programs that clients install: containerd's managed directory, into which `ctr install` unpacks an image's `bin` and `lib`.
//!
//! Clients ask the introspection service for it, and write there themselves. What the daemon starts for containers and layers
//! (shims, and with them runtimes; stream processors) finds the programs first on its `$PATH` and the libraries first on its
//! `$LD_LIBRARY_PATH`. A directory into which others could put programs as well is not used: it, its `bin` and its `lib` must belong
//! to the daemon's user alone, and nobody else but root may exchange them for others further up. What symbolic links on the way
//! lead to is found out once, when the daemon starts.

use std::{
    env,
    ffi::{OsStr, OsString},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use crate::{
    Config, config,
    error::{Error, Result},
};

/// Where programs are searched when the daemon was started without `$PATH`.
const USUAL: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The directory, if there is one.
#[derive(Debug)]
pub struct Opt {
    state: Option<(PathBuf, Result<()>)>,
    /// The search paths of children, by the names of their variables.
    variables: Vec<(&'static str, OsString)>,
}

impl Opt {
    /// Makes the directory of `config` with its `bin` and `lib`, mode 0711. The daemon can do without: what is wrong is told to
    /// who asks for the directory.
    pub fn open(config: &Config) -> Self {
        let directory = match &config.opt {
            config::Opt::Disabled => {
                return Self {
                    state: None,
                    variables: Vec::new(),
                };
            }
            config::Opt::BelowRoot => config.root.join("opt"),
            config::Opt::At(directory) => directory.clone(),
        };
        let (bin, lib) = (directory.join("bin"), directory.join("lib"));
        let made = make(&bin).and_then(|bin| Ok((bin, make(&lib)?)));
        let mut variables = Vec::new();
        match &made {
            Ok((bin, lib)) => {
                variables.push(("PATH", before(search_path(), bin)));
                let libraries = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
                variables.push(("LD_LIBRARY_PATH", before(libraries, lib)));
            }
            Err(error) => tracing::warn!(%error, "programs cannot be installed"),
        }
        Self {
            state: Some((directory, made.map(drop))),
            variables,
        }
    }

    /// The directory, or why it cannot be used; none if there is to be none.
    pub fn state(&self) -> Option<std::result::Result<&Path, &Error>> {
        let (directory, made) = self.state.as_ref()?;
        Some(made.as_ref().map(|()| directory.as_path()))
    }

    /// What differs from the daemon's own environment in that of its children.
    pub fn variables(&self) -> impl Iterator<Item = (&'static str, &OsStr)> {
        self.variables
            .iter()
            .map(|(name, value)| (*name, value.as_os_str()))
    }

    /// The directories in which programs are searched.
    pub fn path(&self) -> Vec<PathBuf> {
        let own = self.variables().find(|(name, _)| *name == "PATH");
        let path = own.map_or_else(search_path, |(_, path)| path.to_owned());
        env::split_paths(&path).collect()
    }
}

/// The daemon's own `$PATH`.
fn search_path() -> OsString {
    env::var_os("PATH")
        .filter(|path| !path.is_empty())
        .unwrap_or_else(|| USUAL.into())
}

/// The search path `rest` with `directory` first. Nothing is added to an empty one: the working directory would be searched.
fn before(rest: OsString, directory: &Path) -> OsString {
    let mut value = directory.as_os_str().to_owned();
    if !rest.is_empty() {
        value.push(":");
        value.push(rest);
    }
    value
}

/// Makes `directory` and those above it, checks who could put something there, and says its path without symbolic links.
fn make(directory: &Path) -> Result<PathBuf> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(directory)
        .map_err(|source| Error::io(format!("create {}", directory.display()), source))?;
    let directory = directory
        .canonicalize()
        .map_err(|source| Error::io(format!("resolve {}", directory.display()), source))?;
    let us = rustix::process::geteuid().as_raw();
    for (depth, path) in directory.ancestors().enumerate() {
        let about = path
            .metadata()
            .map_err(|source| Error::io(format!("stat {}", path.display()), source))?;
        let is_shared = about.mode() & 0o022 != 0;
        let is_safe = match depth {
            0 | 1 => about.uid() == us && !is_shared,
            // In a sticky directory nobody else renames what is ours.
            _ => [0, us].contains(&about.uid()) && (!is_shared || about.mode() & 0o1000 != 0),
        };
        if !is_safe {
            return Err(Error::precondition(format!(
                "{} does not belong to this user alone",
                path.display()
            )));
        }
    }
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn config(opt: config::Opt, root: &Path) -> Config {
        Config {
            root: root.to_owned(),
            opt,
            ..Config::default()
        }
    }

    #[test]
    fn installed_programs_come_first() {
        let root = tempfile::tempdir().unwrap();
        let opt = Opt::open(&config(config::Opt::BelowRoot, root.path()));
        let directory = root.path().join("opt");
        assert_eq!(opt.state().unwrap().unwrap(), directory);
        assert_eq!(opt.path()[0], directory.join("bin"));
        let mode = directory.join("bin").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o711);
        let libraries = opt.variables().find(|(name, _)| *name == "LD_LIBRARY_PATH");
        assert!(
            libraries
                .unwrap()
                .1
                .to_str()
                .unwrap()
                .starts_with(directory.join("lib").to_str().unwrap())
        );
        let none = Opt::open(&config(config::Opt::Disabled, root.path()));
        assert!(none.state().is_none() && none.variables().next().is_none());
    }

    #[test]
    fn a_directory_that_others_write_to_is_not_used() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("o");
        std::fs::create_dir_all(directory.join("bin")).unwrap();
        std::fs::set_permissions(directory.join("bin"), std::fs::Permissions::from_mode(0o777)).unwrap();
        let opt = Opt::open(&config(config::Opt::At(directory), root.path()));
        let error = opt.state().unwrap().unwrap_err().to_string();
        assert!(
            error.contains("bin does not belong to this user alone"),
            "{error}"
        );
        assert!(opt.variables().next().is_none());
    }

    #[test]
    fn nor_is_one_that_others_can_exchange() {
        let root = tempfile::tempdir().unwrap();
        let shared = root.path().join("shared");
        std::fs::create_dir(&shared).unwrap();
        let open = |mode| {
            std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(mode)).unwrap();
            Opt::open(&config(config::Opt::At(shared.join("a/o")), root.path()))
        };
        let error = open(0o777).state().unwrap().unwrap_err().to_string();
        assert!(
            error.contains("shared does not belong to this user alone"),
            "{error}"
        );
        assert!(open(0o1777).state().unwrap().is_ok());
        assert!(open(0o755).state().unwrap().is_ok());
    }

    #[test]
    fn a_search_path_has_no_empty_entry() {
        assert_eq!(before(OsString::new(), Path::new("/o")), "/o");
        assert_eq!(before("/a:/b".into(), Path::new("/o")), "/o:/a:/b");
    }
}
