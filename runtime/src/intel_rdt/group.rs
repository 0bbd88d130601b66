//! A container's group: made, limited, entered, and removed.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Error, Resctrl, Settings, schemata};
use crate::ContainerId;

/// The group that a container is in, as its state records it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Group {
    /// Absolute; removed with the container if `own`.
    path: PathBuf,
    /// It was made for the container and is named as it.
    own: bool,
    /// The monitoring group below it, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    monitor: Option<PathBuf>,
}

impl Resctrl {
    /// Checks that this resctrl can do what `settings` ask for. Changes nothing.
    ///
    /// # Errors
    ///
    /// It does not divide a resource, a group that should be there is not, or its limits are others.
    pub fn check(&self, settings: &Settings) -> Result<(), Error> {
        settings.check()?;
        if settings.cache.is_some() && !self.has_cache() {
            return Err(Error::NoCache);
        }
        if settings.bandwidth.is_some() && !self.has_bandwidth() {
            return Err(Error::NoBandwidth);
        }
        let Some(class) = &settings.class else {
            return Ok(());
        };
        let group = self.group_of_class(class);
        match fs::read_to_string(group.join("schemata")) {
            Ok(have) => match schemata::difference(settings, &have) {
                Some((have, asked)) => Err(Error::Differs { group, have, asked }),
                None => Ok(()),
            },
            // It is made when it is asked to have limits.
            Err(error) if error.kind() == io::ErrorKind::NotFound && settings.has_limits() => Ok(()),
            Err(error) => {
                let operation = "clos dir not accessible (must be pre-created when schemata, l3CacheSchema and memBwSchema are empty)";
                Err(Error::io(operation, &group, error))
            }
        }
    }

    /// Makes the group if it is not there, gives it its limits, and puts process `pid` into it. What was made is removed
    /// again when a step fails.
    ///
    /// # Errors
    ///
    /// The kernel refuses a group (there are few), a limit, or the process.
    pub fn enter(&self, settings: &Settings, id: &ContainerId, pid: i32) -> Result<Group, Error> {
        let path = match &settings.class {
            Some(class) => self.group_of_class(class),
            None => self.root().join(id.as_str()),
        };
        let made = make(&path).map_err(|error| self.explained(error))?;
        let group = Group {
            own: made && settings.class.is_none(),
            monitor: settings
                .monitoring
                .then(|| path.join("mon_groups").join(id.as_str())),
            path,
        };
        match self.fill(&group, settings, pid) {
            Ok(()) => Ok(group),
            Err(error) => {
                let error = self.explained(error);
                // The first error is the one to know.
                let removed = group.remove().is_ok() && made;
                if removed && !group.own {
                    let gone = fs::remove_dir(&group.path);
                    debug_assert!(gone.is_ok(), "{gone:?}");
                }
                Err(error)
            }
        }
    }

    fn fill(&self, group: &Group, settings: &Settings, pid: i32) -> Result<(), Error> {
        // Before the process is in it: it never runs without its limits.
        let text = schemata::text(settings);
        if !text.is_empty() {
            write(&group.path.join("schemata"), &text)?;
        }
        group.add(pid)?;
        if let Some(monitor) = &group.monitor {
            make(monitor)?;
            write(&monitor.join("tasks"), &pid.to_string())?;
        }
        Ok(())
    }

    fn group_of_class(&self, class: &str) -> PathBuf {
        match class {
            "/" => self.root().to_owned(),
            class => self.root().join(class),
        }
    }

    /// Changes the limits of a container's group, those that are given.
    ///
    /// # Errors
    ///
    /// The container is in no group, a resource is not divided here, or the kernel refuses a limit.
    pub fn update(
        resctrl: Option<&Self>,
        group: Option<&Group>,
        cache: Option<&str>,
        bandwidth: Option<&str>,
    ) -> Result<(), Error> {
        let given = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
        let settings = Settings {
            cache: given(cache),
            bandwidth: given(bandwidth),
            ..Settings::default()
        };
        if settings.cache.is_some() && !resctrl.is_some_and(Self::has_cache) {
            return Err(Error::UpdateCache);
        }
        if settings.bandwidth.is_some() && !resctrl.is_some_and(Self::has_bandwidth) {
            return Err(Error::UpdateBandwidth);
        }
        let text = schemata::text(&settings);
        match (resctrl, group) {
            _ if text.is_empty() => Ok(()),
            (Some(resctrl), Some(group)) => {
                write(&group.path.join("schemata"), &text).map_err(|error| resctrl.explained(error))
            }
            _ => Err(Error::NoGroup),
        }
    }
}

impl Group {
    /// The group's directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the container's own counters are: its monitoring group, or else the group.
    #[must_use]
    pub fn counters(&self) -> &Path {
        self.monitor.as_deref().unwrap_or(&self.path)
    }

    /// Puts a process of the container that is executed later into the group. A group that is gone is no error.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn join(&self, pid: i32) -> Result<(), Error> {
        if !self.path.exists() {
            return Ok(());
        }
        self.add(pid)?;
        match &self.monitor {
            Some(monitor) if monitor.exists() => write(&monitor.join("tasks"), &pid.to_string()),
            _ => Ok(()),
        }
    }

    fn add(&self, pid: i32) -> Result<(), Error> {
        write(&self.path.join("tasks"), &pid.to_string())
    }

    /// Removes what was made for the container. What is gone is no error.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn remove(&self) -> Result<(), Error> {
        // The monitoring group goes with a group of the container's own.
        let directory = match (self.own, &self.monitor) {
            (true, _) => &self.path,
            (false, Some(monitor)) => monitor,
            (false, None) => return Ok(()),
        };
        match fs::remove_dir(directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io("rmdir", directory, error))
            }
            _ => Ok(()),
        }
    }
}

/// Makes a group; whether it was not there.
fn make(path: &Path) -> Result<bool, Error> {
    match fs::create_dir(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(Error::io("mkdir", path, error)),
    }
}

/// Writes in one call, as the kernel parses it.
fn write(path: &Path, text: &str) -> Result<(), Error> {
    let failed = |error| Error::io(format!("unable to write {text:?} to"), path, error);
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)
}
