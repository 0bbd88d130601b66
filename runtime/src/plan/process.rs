//! The `process` object: what runs, as whom, with which limits.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::CString;
use std::path::Path;

use super::limit::{Affinity, MemoryPolicy};
use super::text::{c_path, c_string};
use super::{Error, capability};
use crate::seccomp;
use crate::spec::{check_path, oci};
use crate::sys::credentials::CapabilitySets;
use crate::sys::process::Scheduling;
use crate::sys::strings::Strings;

/// A process, ready to be executed by the child half.
#[derive(Debug)]
pub struct ProcessPlan {
    /// Where the program may be, in order: one path, or one for each directory of `PATH`.
    pub candidates: Vec<CString>,
    /// `argv`.
    pub arguments: Strings,
    /// `envp`; it has room for `HOME=` when [`Self::look_up_home`] is set.
    pub environment: Strings,
    /// No `HOME` is given: take it from the container's `/etc/passwd`.
    pub look_up_home: bool,
    /// The working directory.
    pub cwd: CString,
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Supplementary groups; nothing where the caller's stay, because they may not be changed.
    pub groups: Option<Vec<u32>>,
    /// Mode bits that new files lack.
    pub umask: u32,
    /// The five capability sets.
    pub capabilities: CapabilitySets,
    /// What was asked for and is not granted, for people.
    pub warnings: Vec<String>,
    /// Set `no_new_privs`.
    pub no_new_privileges: bool,
    /// Resource number, soft and hard limit.
    pub rlimits: Vec<(u32, u64, u64)>,
    /// The system call filter, or room for it.
    pub seccomp: Option<seccomp::Program>,
    /// Who listens, when the filter has notices.
    pub agent: Option<seccomp::Agent>,
    /// Give it a terminal; rows and columns, 0 for the kernel's default.
    pub terminal: Option<(u16, u16)>,
    /// For `/proc/PID/oom_score_adj`, written by the parent.
    pub oom_score_adj: Option<i32>,
    /// Class and level as `ioprio_set(2)` packs them.
    pub io_priority: Option<u32>,
    /// The scheduling policy.
    pub scheduling: Option<Scheduling>,
    /// For messages: the container may use some CPUs only, which some policies do not go with.
    pub some_cpus: bool,
    /// The NUMA memory policy.
    pub memory_policy: Option<MemoryPolicy>,
    /// The CPUs it runs on.
    pub affinity: Affinity,
    /// The execution domain.
    pub personality: Option<u32>,
    /// The label for the next `execve`, and the file of `/proc/self/attr` that takes it.
    pub label: Option<Label>,
    /// The name of the session keyring to join.
    pub keyring: Option<CString>,
}

/// A security label.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Label {
    /// Relative to a procfs.
    pub file: CString,
    /// What is written.
    pub value: CString,
}

impl ProcessPlan {
    /// Leaves out the capabilities that the running kernel does not know, with a warning. `is_known` is asked only about those
    /// that not every kernel knows.
    pub(crate) fn leave_out_capabilities(&mut self, is_known: impl Fn(u32) -> bool) {
        let told = capability::leave_out(&mut self.capabilities, is_known);
        self.warnings.extend(told);
    }
}

/// Compiles `process`. What belongs to the container (`seccomp`, `personality`, …) is compiled elsewhere.
pub(super) fn compile(process: &oci::Process) -> Result<ProcessPlan, Error> {
    let arguments = &process.args;
    let Some(program) = arguments.first() else {
        return Err(Error::field("process.args", "must not be empty"));
    };
    if program.is_empty() {
        return Err(Error::field("process.args[0]", "must not be empty"));
    }
    let (environment, look_up_home) = compile_environment(&process.env)?;
    if !process.cwd.is_absolute() {
        return Err(Error::field("process.cwd", "must be absolute"));
    }
    let user = &process.user;
    check_ids(user)?;
    let (capabilities, warnings) = capability::compile(process.capabilities.as_ref());
    Ok(ProcessPlan {
        candidates: candidates(program, &process.env)?,
        arguments: Strings::new(
            arguments
                .iter()
                .map(|argument| c_string("process.args", argument))
                .collect::<Result<_, _>>()?,
        ),
        environment: match look_up_home {
            true => Strings::with_room(environment, "HOME=/", "HOME=".len() + libc::PATH_MAX as usize),
            false => Strings::new(environment),
        },
        look_up_home,
        cwd: c_path("process.cwd", &process.cwd)?,
        uid: user.uid,
        gid: user.gid,
        groups: Some(user.additional_gids.clone()),
        umask: user.umask.unwrap_or(0o022),
        capabilities,
        warnings,
        no_new_privileges: process.no_new_privileges,
        rlimits: super::limit::rlimits(&process.rlimits)?,
        seccomp: None,
        agent: None,
        terminal: terminal(process)?,
        oom_score_adj: oom_score_adj(process)?,
        io_priority: process
            .io_priority
            .as_ref()
            .map(super::limit::io_priority)
            .transpose()?,
        scheduling: process
            .scheduler
            .as_ref()
            .map(super::limit::scheduling)
            .transpose()?,
        some_cpus: false,
        memory_policy: None,
        affinity: super::limit::affinity(process.exec_cpu_affinity.as_ref())?,
        personality: None,
        label: None,
        keyring: None,
    })
}

/// The highest number is no id: to `setresuid(2)` it means "leave it", and the process would stay root.
fn check_ids(user: &oci::User) -> Result<(), Error> {
    let groups = &user.additional_gids;
    let ids = [("uid", user.uid), ("gid", user.gid)];
    let ids = ids
        .into_iter()
        .chain(groups.iter().map(|gid| ("additionalGids", *gid)));
    match ids.into_iter().find(|(_, id)| *id == u32::MAX) {
        Some((name, id)) => Err(Error::field(
            format!("process.user.{name}"),
            format!("{id} is no id"),
        )),
        None => Ok(()),
    }
}

/// The last of two equal names wins, as with `setenv`; a `HOME` that is empty counts as none (as runc).
fn compile_environment(given: &[String]) -> Result<(Vec<CString>, bool), Error> {
    // An image may bring many: looking through those before for each would take for ever.
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    let mut compiled: Vec<CString> = Vec::with_capacity(given.len() + 1);
    for entry in given {
        let name = entry.split('=').next().unwrap_or_default();
        if !entry.contains('=') || name.is_empty() {
            return Err(Error::field(
                "process.env",
                format!("{entry:?} is not NAME=value"),
            ));
        }
        let entry = c_string("process.env", entry)?;
        match places.entry(name) {
            Entry::Occupied(place) => compiled[*place.get()] = entry,
            Entry::Vacant(place) => {
                place.insert(compiled.len());
                compiled.push(entry);
            }
        }
    }
    compiled.retain(|entry| entry.as_c_str() != c"HOME=");
    let look_up_home = !compiled
        .iter()
        .any(|entry| entry.as_bytes().starts_with(b"HOME="));
    Ok((compiled, look_up_home))
}

/// Where `program` may be. Without a slash it is looked for in `PATH`, and only there.
fn candidates(program: &str, environment: &[String]) -> Result<Vec<CString>, Error> {
    if program.contains('/') {
        return Ok(vec![c_path("process.args[0]", Path::new(program))?]);
    }
    let path = environment
        .iter()
        .rev()
        .find_map(|entry| entry.strip_prefix("PATH="));
    // A relative directory would find programs wherever the process happens to stand.
    path.unwrap_or_default()
        .split(':')
        .filter(|directory| directory.starts_with('/'))
        .map(|directory| Path::new(directory).join(program))
        .filter(|candidate| check_path(candidate).is_ok())
        .map(|candidate| c_path("process.args[0]", &candidate))
        .collect()
}

fn terminal(process: &oci::Process) -> Result<Option<(u16, u16)>, Error> {
    if !process.terminal {
        return Ok(None);
    }
    let Some(size) = process.console_size else {
        return Ok(Some((0, 0)));
    };
    let side = |name: &str, value: u64| {
        u16::try_from(value).map_err(|_| Error::field(format!("process.consoleSize.{name}"), "is too large"))
    };
    Ok(Some((side("height", size.height)?, side("width", size.width)?)))
}

fn oom_score_adj(process: &oci::Process) -> Result<Option<i32>, Error> {
    let Some(score) = process.oom_score_adj else {
        return Ok(None);
    };
    match i32::try_from(score) {
        Ok(score @ -1000..=1000) => Ok(Some(score)),
        _ => Err(Error::field(
            "process.oomScoreAdj",
            "must be between -1000 and 1000",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(given: &[&str]) -> Vec<String> {
        given.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_number_that_changes_no_id_is_refused() {
        for (uid, gid, group) in [(u32::MAX, 0, 0), (0, u32::MAX, 0), (0, 0, u32::MAX)] {
            let user = oci::User {
                uid,
                gid,
                additional_gids: vec![group],
                ..oci::User::default()
            };
            assert!(check_ids(&user).is_err(), "{uid}:{gid} {group}");
        }
        let user = oci::User {
            uid: u32::MAX - 1,
            ..oci::User::default()
        };
        assert!(check_ids(&user).is_ok());
    }

    #[test]
    fn the_last_of_two_equal_names_wins_and_home_is_looked_up_without_one() {
        let (environment, look_up) = compile_environment(&strings(&["A=1", "HOME=/h", "A=2"])).unwrap();
        assert_eq!(environment, [c"A=2".to_owned(), c"HOME=/h".to_owned()]);
        assert!(!look_up);
        let (environment, look_up) = compile_environment(&strings(&["A=1", "HOME="])).unwrap();
        assert_eq!(environment, [c"A=1".to_owned()]);
        assert!(look_up);
        assert!(compile_environment(&strings(&["=x"])).is_err());
        assert!(compile_environment(&strings(&["x"])).is_err());
    }

    #[test]
    fn a_program_without_a_slash_is_looked_for_in_the_last_path() {
        let environment = strings(&["PATH=/x", "PATH=/bin::/usr/bin"]);
        let found = candidates("sh", &environment).unwrap();
        assert_eq!(found, [c"/bin/sh".to_owned(), c"/usr/bin/sh".to_owned()]);
        assert_eq!(candidates("./sh", &environment).unwrap(), [c"./sh".to_owned()]);
        assert!(candidates("sh", &[]).unwrap().is_empty());
    }
}
