//! The systemd driver: a container's control group is a unit of systemd's, a transient scope.
//!
//! systemd makes the group of a process that is already there, so the process is made first, waits, and is put into its unit from
//! outside. Everything else is as without systemd: the files of the group are ours to write, because the scope is
//! delegated.
//!
//! Refused here: hosts that were not booted with systemd; a user's systemd on v1, where nothing is delegated to users.

mod annotation;
mod bus;
mod message;
mod name;
mod properties;
mod text;
mod value;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use self::bus::{Bus, Failure, PATIENCE};
use self::message::Method;
use self::name::UnitName;
use self::properties::{Properties, Property};
use self::value::{Reader, Value};
use super::Error;
use super::devices::DeviceRules;
use crate::spec::oci::LinuxResources;

/// There on hosts that systemd runs ([sd_booted(3)]).
///
/// [sd_booted(3)]: https://www.freedesktop.org/software/systemd/man/latest/sd_booted.html
const BOOTED: &str = "/run/systemd/system";

const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";

/// A method of the manager.
fn manager(member: &str) -> Method<'_> {
    Method {
        destination: "org.freedesktop.systemd1",
        path: "/org/freedesktop/systemd1",
        interface: "org.freedesktop.systemd1.Manager",
        member,
    }
}

/// What has to be known of a manager to plan a unit of its.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Manager {
    /// A user's manager instead of the system's.
    pub user: bool,
    /// Its release, e.g. 252.
    pub version: u32,
    /// Its own control group below the hierarchies' roots: empty for the system's.
    pub group: PathBuf,
}

impl Manager {
    /// Asks systemd; blocks, at most for a minute.
    ///
    /// # Errors
    ///
    /// The host does not run systemd, or it does not answer.
    pub fn ask(user: bool) -> Result<Self, Error> {
        if !Path::new(BOOTED).is_dir() {
            return Err(Error::Systemd(
                "systemd not running on this host, cannot use systemd cgroups manager".to_owned(),
            ));
        }
        let mut bus = Bus::connect(user)?;
        let mut property = |name: &str| {
            let method = Method {
                interface: "org.freedesktop.DBus.Properties",
                ..manager("Get")
            };
            let arguments = [Value::text("org.freedesktop.systemd1.Manager"), Value::text(name)];
            let body = bus
                .call(&method, &arguments)
                .map_err(|failure| failure.about(&format!("ask systemd for its {name}")))?;
            let mut reader = Reader::new(&body);
            let text = reader
                .signature()
                .filter(|signature| *signature == "s")
                .and_then(|_| reader.text());
            text.map(str::to_owned)
                .ok_or_else(|| Error::Systemd(format!("systemd's {name} is no text")))
        };
        let text = property("Version")?;
        let version = version(&text)
            .ok_or_else(|| Error::Systemd(format!("can't parse systemd's version {text:?}")))?;
        let group = match user {
            true => PathBuf::from(property("ControlGroup")?.trim_start_matches('/')),
            false => PathBuf::new(),
        };
        Ok(Self { user, version, group })
    }
}

/// `v252.4-1`, `252 (252.39-1~deb12u2)` and `"245"` begin with the release.
fn version(text: &str) -> Option<u32> {
    let text = text.trim_start_matches(['"', 'v']);
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().ok()
}

/// A unit that is to be started.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct UnitPlan {
    pub unit: Unit,
    properties: Vec<Property>,
}

/// What a unit is planned from.
pub(super) struct Wishes<'a> {
    /// `linux.cgroupsPath`.
    pub cgroups_path: Option<&'a Path>,
    pub id: &'a str,
    pub annotations: &'a BTreeMap<String, String>,
    /// Nothing where device rules cannot be had.
    pub rules: Option<&'a DeviceRules>,
    pub is_v2: bool,
}

/// A planned unit.
pub(super) struct Planned {
    pub unit: UnitPlan,
    /// The group's place below the roots of the hierarchies.
    pub group: PathBuf,
    /// As they are to be written: rounded as systemd rounds.
    pub resources: LinuxResources,
    pub warnings: Vec<String>,
}

impl UnitPlan {
    pub fn compile(
        manager: &Manager,
        wishes: &Wishes<'_>,
        resources: &LinuxResources,
    ) -> Result<Planned, Error> {
        if manager.user && !wishes.is_v2 {
            return Err(Error::Systemd(
                "cannot use rootless systemd cgroups manager on cgroup v1".to_owned(),
            ));
        }
        let name = UnitName::parse(wishes.cgroups_path, wishes.id, "wharf")?;
        let slice = name.slice(manager.user);
        let group = manager.group.join(name.group(manager.user)?);
        let mut properties = Properties::new(manager.version);
        properties.add(
            "Description",
            Value::text(format!("wharf container {}", name.short())),
        );
        if name.is_slice() {
            // Where a slice is says its name.
            properties.add("Wants", Value::Array("s".to_owned(), vec![Value::text(slice)]));
        } else {
            properties.add("Slice", Value::text(slice));
            properties.add("Delegate", Value::Bool(true));
        }
        let io = if wishes.is_v2 {
            "IOAccounting"
        } else {
            "BlockIOAccounting"
        };
        for accounting in ["MemoryAccounting", "CPUAccounting", io, "TasksAccounting"] {
            properties.add(accounting, Value::Bool(true));
        }
        properties.add("DefaultDependencies", Value::Bool(false));
        properties
            .list
            .extend(annotation::properties(wishes.annotations)?);
        let mut resources = resources.clone();
        if let Some(rules) = wishes.rules {
            properties.devices(rules, wishes.is_v2);
        }
        if wishes.is_v2 {
            properties.oom_policy(&resources);
            properties.limits_v2(&mut resources)?;
        } else {
            properties.limits_v1(&mut resources)?;
        }
        let unit = Unit {
            name: name.full(),
            user: manager.user,
            version: manager.version,
        };
        Ok(Planned {
            unit: Self {
                unit,
                properties: properties.list,
            },
            group,
            resources,
            warnings: properties.warnings,
        })
    }

    /// Starts the unit with the process `pid` in it; returns when systemd has done it.
    pub fn start(&self, pid: i32) -> Result<(), Error> {
        let unit = &self.unit;
        let what = format!("unable to start unit {:?}", unit.name);
        let mut bus = Bus::connect(unit.user)?;
        let pids = Value::Array("u".to_owned(), vec![Value::Uint32(pid.cast_unsigned())]);
        let properties: Vec<Property> = self
            .properties
            .iter()
            .cloned()
            .chain((!unit.name.ends_with(".slice")).then(|| ("PIDs".to_owned(), pids)))
            .collect();
        let auxiliary = Value::Array("(sa(sv))".to_owned(), Vec::new());
        let arguments = [
            Value::text(&unit.name),
            Value::text("replace"),
            list(&properties),
            auxiliary,
        ];
        let start = manager("StartTransientUnit");
        let body = match bus.call(&start, &arguments) {
            // What failed earlier under that name, and was left for somebody to look at, is in the way.
            Err(failure) if failure.is(UNIT_EXISTS) => {
                unit.reset(&mut bus).map_err(|failure| failure.about(&what))?;
                bus.call(&start, &arguments)
            }
            result => result,
        }
        .map_err(|failure| failure.about(&what))?;
        let result = job_result(&mut bus, &body).map_err(|failure| failure.about(&what));
        match result {
            Ok(result) if result == "done" => Ok(()),
            failed => {
                let error = match failed {
                    Ok(result) => Error::Systemd(format!(
                        "error creating systemd unit `{}`: got `{result}`",
                        unit.name
                    )),
                    Err(error) => error,
                };
                match unit.reset(&mut bus) {
                    Ok(()) => Err(error),
                    Err(failure) => Err(Error::Systemd(format!("{error}; {}", failure.about("reset it")))),
                }
            }
        }
    }
}

/// A container's unit, as its state remembers it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Unit {
    /// Its name, with the suffix.
    pub name: String,
    /// Of a user's manager instead of the system's.
    pub user: bool,
    /// The manager's release.
    pub version: u32,
}

impl Unit {
    /// Stops and forgets the unit. Whatever still runs in it ends. One that is gone is no error.
    pub(super) fn stop(&self) -> Result<(), Error> {
        let what = format!("unable to stop unit {:?}", self.name);
        let mut bus = Bus::connect(self.user)?;
        match bus.call(
            &manager("StopUnit"),
            &[Value::text(&self.name), Value::text("replace")],
        ) {
            Ok(body) => {
                // However the job ends, the files of the group tell whether it is gone.
                job_result(&mut bus, &body).map_err(|failure| failure.about(&what))?;
            }
            Err(failure) if failure.is(NO_SUCH_UNIT) => {}
            Err(failure) => return Err(failure.about(&what)),
        }
        self.reset(&mut bus).map_err(|failure| failure.about(&what))
    }

    /// Forgets that the unit failed, so that systemd forgets the unit.
    fn reset(&self, bus: &mut Bus) -> Result<(), Failure> {
        match bus.call(&manager("ResetFailedUnit"), &[Value::text(&self.name)]) {
            Err(failure) if failure.is(NO_SUCH_UNIT) => Ok(()),
            result => result.map(drop),
        }
    }

    /// Changes limits. Answers them as they are to be written: rounded as systemd rounds. What had to be left out is
    /// added to `warnings`.
    pub(super) fn update(
        &self,
        resources: &LinuxResources,
        is_v2: bool,
        warnings: &mut Vec<String>,
    ) -> Result<LinuxResources, Error> {
        let mut resources = resources.clone();
        let mut properties = Properties::new(self.version);
        if is_v2 {
            properties.limits_v2(&mut resources)?;
        } else {
            properties.limits_v1(&mut resources)?;
        }
        warnings.append(&mut properties.warnings);
        let arguments = [Value::text(&self.name), Value::Bool(true), list(&properties.list)];
        let mut bus = Bus::connect(self.user)?;
        bus.call(&manager("SetUnitProperties"), &arguments)
            .map_err(|failure| failure.about("unable to set unit properties"))?;
        Ok(resources)
    }

    /// Lets systemd move a process into the unit, or its sub-group `below` (empty, or starting with a slash): the way
    /// of those who may not themselves.
    pub(crate) fn attach(&self, below: &str, pid: i32) -> Result<(), Error> {
        let below = if below.is_empty() { "/" } else { below };
        let pids = Value::Array("u".to_owned(), vec![Value::Uint32(pid.cast_unsigned())]);
        let arguments = [Value::text(&self.name), Value::text(below), pids];
        let mut bus = Bus::connect(self.user)?;
        let attached = bus.call(&manager("AttachProcessesToUnit"), &arguments);
        attached
            .map(drop)
            .map_err(|failure| failure.about(&format!("move process {pid} to unit {:?}", self.name)))
    }
}

/// Properties as an argument: `a(sv)`.
fn list(properties: &[Property]) -> Value {
    let pair = |(name, value): &Property| Value::Struct(vec![Value::text(name), value.clone().variant()]);
    Value::Array("(sv)".to_owned(), properties.iter().map(pair).collect())
}

/// Waits for the end of the job that a call has answered; tells how it ended (`done`, `failed`, `timeout`, …).
fn job_result(bus: &mut Bus, answer: &[u8]) -> Result<String, Failure> {
    let invalid = || Failure::Broken(std::io::ErrorKind::InvalidData.into());
    let job = Reader::new(answer).text().ok_or_else(invalid)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (member, body) = bus.signal(deadline).map_err(Failure::Broken)?;
        if member != "JobRemoved" {
            continue;
        }
        let mut reader = Reader::new(&body);
        let fields = reader
            .uint32()
            .and_then(|_| Some((reader.text()?, reader.text()?, reader.text()?)));
        match fields.ok_or_else(invalid)? {
            (path, _, result) if path == job => return Ok(result.to_owned()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_what_distributions_make_of_it() {
        for (text, number) in [
            ("252 (252.39-1~deb12u2)", 252),
            ("v245.4-1.fc32", 245),
            ("\"245\"", 245),
            ("256~rc3", 256),
        ] {
            assert_eq!(version(text), Some(number), "{text}");
        }
        assert_eq!(version("systemd"), None);
    }

    fn planned(cgroups_path: &str, manager: &Manager) -> Result<Planned, Error> {
        let wishes = Wishes {
            cgroups_path: Some(Path::new(cgroups_path)),
            id: "box",
            annotations: &BTreeMap::from([(
                "org.systemd.property.TasksMax".to_owned(),
                "uint64 3".to_owned(),
            )]),
            rules: None,
            is_v2: true,
        };
        UnitPlan::compile(manager, &wishes, &LinuxResources::default())
    }

    #[test]
    fn a_scope_is_delegated_and_in_its_slice() {
        let manager = Manager {
            user: false,
            version: 252,
            group: PathBuf::new(),
        };
        let plan = planned("pods.slice:wharf:one", &manager).unwrap();
        assert_eq!(plan.group, Path::new("pods.slice/wharf-one.scope"));
        let properties = &plan.unit.properties;
        for expected in [
            ("Slice", Value::text("pods.slice")),
            ("Delegate", Value::Bool(true)),
            ("DefaultDependencies", Value::Bool(false)),
            ("IOAccounting", Value::Bool(true)),
            ("TasksMax", Value::Uint64(3)),
        ] {
            assert!(
                properties.contains(&(expected.0.to_owned(), expected.1.clone())),
                "{expected:?}"
            );
        }
        let slice = planned("pods.slice::pods-one.slice", &manager).unwrap();
        assert!(
            slice
                .unit
                .properties
                .iter()
                .all(|(name, _)| name != "Delegate" && name != "Slice")
        );
    }

    #[test]
    fn a_users_unit_is_below_the_users_manager() {
        let manager = Manager {
            user: true,
            version: 252,
            group: "user.slice/user-1000.slice/user@1000.service".into(),
        };
        let plan = planned(":wharf:one", &manager).unwrap();
        assert_eq!(
            plan.group,
            Path::new("user.slice/user-1000.slice/user@1000.service/user.slice/wharf-one.scope")
        );
    }
}
