//! Whether the first process of a restored container is what the configuration asks for, before it runs.
//!
//! The images say what it is, and they come from anywhere; the configuration is the request. More confinement than was asked for
//! is nothing to complain of: a program may have given up what it had.

use std::fs;
use std::os::fd::AsFd;

use crate::Error;
use crate::plan::{Opened, Plan, namespace_name};

use super::{Error as Refused, ManageCgroups};

/// The namespaces that the plan makes and criu does not, if it is told to leave control groups alone: that of control groups.
pub(super) fn left_out(plan: &Plan, mode: ManageCgroups) -> u64 {
    match mode {
        ManageCgroups::Ignore => plan.namespaces.unshare & libc::CLONE_NEWCGROUP as u64,
        _ => 0,
    }
}

/// Refuses process `pid`, which is stopped, unless it is in the groups and namespaces of the plan and has no more privileges.
pub(super) fn check(
    pid: i32,
    plan: &Plan,
    mode: ManageCgroups,
    joined: &[Opened],
    cgroups: &[(String, String)],
) -> Result<(), Error> {
    let differs = |problem: String| Error::from(Refused::Differs(problem));
    let read = |name: &str| {
        let path = format!("/proc/{pid}/{name}");
        fs::read_to_string(&path).map_err(|error| Error::io(format!("read {path}"), error))
    };
    outside(&parse_cgroups(&read("cgroup")?), cgroups).map_or(Ok(()), |path| {
        Err(differs(format!("it is in the control group {path}")))
    })?;
    let asked = Asked {
        bounding: plan.process.capabilities.bounding,
        no_new_privileges: plan.process.no_new_privileges,
        filter: plan.process.seccomp.is_some(),
    };
    asked.check(&read("status")?).map_err(differs)?;
    let made = plan.namespaces.create | plan.namespaces.unshare;
    for kind in kinds(made & !left_out(plan, mode)) {
        let name = namespace_name(kind);
        let (own, its) = (inode("self", name)?, inode(&pid.to_string(), name)?);
        if own == its {
            return Err(differs(format!("it is in the runtime's {name} namespace")));
        }
    }
    for namespace in joined {
        let name = namespace_name(namespace.kind);
        let asked = rustix::fs::fstat(namespace.fd.as_fd())
            .map_err(|errno| Error::io(format!("stat the {name} namespace"), errno))?;
        if inode(&pid.to_string(), name)? != (asked.st_dev, asked.st_ino) {
            return Err(differs(format!("it is in another {name} namespace")));
        }
    }
    Ok(())
}

/// Whether a process has a time namespace that is not this one's: criu gives it one, since clocks must not jump for it.
pub(super) fn has_own_time(pid: i32) -> Result<bool, Error> {
    match inode(&pid.to_string(), "time") {
        Ok(its) => Ok(its != inode("self", "time")?),
        // A kernel without them.
        Err(Error::Io { cause, .. }) if cause.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn kinds(set: u64) -> impl Iterator<Item = u64> {
    (0..64).map(move |bit| set & 1 << bit).filter(|kind| *kind != 0)
}

fn inode(process: &str, name: &str) -> Result<(u64, u64), Error> {
    let path = format!("/proc/{process}/ns/{name}");
    let stat = rustix::fs::stat(&path).map_err(|errno| Error::io(format!("stat {path}"), errno))?;
    Ok((stat.st_dev, stat.st_ino))
}

/// `/proc/PID/cgroup`: every controller (or named hierarchy; empty for v2) with its path.
pub(super) fn parse_cgroups(text: &str) -> Vec<(String, String)> {
    let mut groups = Vec::new();
    for line in text.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        if let (Some(controllers), Some(path)) = (fields.next(), fields.next()) {
            groups.extend(
                controllers
                    .split(',')
                    .map(|name| (name.to_owned(), path.to_owned())),
            );
        }
    }
    groups
}

/// A group of the process that is neither the one it should be in nor below it.
fn outside<'a>(its: &'a [(String, String)], expected: &[(String, String)]) -> Option<&'a str> {
    let fits = |(controller, path): &(String, String)| {
        let group = expected.iter().find(|(name, _)| name == controller);
        group.is_some_and(|(_, group)| {
            path == group
                || group == "/"
                || path
                    .strip_prefix(group.as_str())
                    .is_some_and(|rest| rest.starts_with('/'))
        })
    };
    let found = its.iter().find(|group| !fits(group));
    found.map(|(_, path)| path.as_str())
}

/// Privileges as the configuration gives them.
#[derive(Clone, Copy, Debug)]
struct Asked {
    bounding: u64,
    no_new_privileges: bool,
    filter: bool,
}

impl Asked {
    /// Reads `/proc/PID/status`; answers what is wrong.
    fn check(self, status: &str) -> Result<(), String> {
        let field = |name: &str| {
            let mut lines = status.lines();
            lines
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .map(str::trim)
        };
        for set in ["CapBnd", "CapPrm", "CapEff", "CapInh", "CapAmb"] {
            let has = field(set).and_then(|text| u64::from_str_radix(text, 16).ok());
            match has.map(|has| has & !self.bounding) {
                Some(0) => {}
                Some(more) => {
                    return Err(format!(
                        "it has capabilities beyond process.capabilities.bounding: {more:x}"
                    ));
                }
                None => return Err(format!("{set} cannot be read")),
            }
        }
        if self.no_new_privileges && field("NoNewPrivs") != Some("1") {
            return Err(
                "it may gain privileges, which process.noNewPrivileges forbids, and older versions of criu forget"
                    .into(),
            );
        }
        if self.filter && field("Seccomp") != Some("2") {
            return Err("it has no system call filter, which linux.seccomp asks for".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(text: &str) -> Vec<(String, String)> {
        parse_cgroups(text)
    }

    #[test]
    fn every_controller_has_its_group() {
        let parsed = groups("12:cpu,cpuacct:/a:b\n1:name=systemd:/s\n0::/u\nnonsense\n");
        let pairs: Vec<_> = parsed
            .iter()
            .map(|(name, path)| (name.as_str(), path.as_str()))
            .collect();
        assert_eq!(
            pairs,
            [
                ("cpu", "/a:b"),
                ("cpuacct", "/a:b"),
                ("name=systemd", "/s"),
                ("", "/u")
            ]
        );
    }

    #[test]
    fn a_process_is_in_its_groups_or_below() {
        let expected = groups("2:pids:/c\n0::/u/c\n1:misc:/\n");
        for good in ["2:pids:/c\n", "2:pids:/c/sub\n0::/u/c\n", "1:misc:/any\n"] {
            assert_eq!(outside(&groups(good), &expected), None, "{good}");
        }
        for (bad, path) in [
            ("2:pids:/\n", "/"),
            ("2:pids:/cc\n", "/cc"),
            ("0::/u\n", "/u"),
            ("3:cpu:/c\n", "/c"),
        ] {
            assert_eq!(outside(&groups(bad), &expected), Some(path), "{bad}");
        }
    }

    #[test]
    fn no_more_privileges_than_the_configuration_gives() {
        let status = |bounding: &str, effective: &str, privileges: &str, filter: &str| {
            format!(
                "Name:\tx\nCapInh:\t0\nCapPrm:\t{effective}\nCapEff:\t{effective}\nCapBnd:\t{bounding}\nCapAmb:\t0\n\
                 NoNewPrivs:\t{privileges}\nSeccomp:\t{filter}\nSeccomp_filters:\t1\n"
            )
        };
        let asked = Asked {
            bounding: 0x3,
            no_new_privileges: true,
            filter: true,
        };
        asked.check(&status("3", "1", "1", "2")).unwrap();
        asked.check(&status("0", "0", "1", "2")).unwrap();
        for (bad, what) in [
            (status("7", "1", "1", "2"), "capabilities"),
            (status("3", "1ff", "1", "2"), "capabilities"),
            (status("3", "1", "0", "2"), "noNewPrivileges"),
            (status("3", "1", "1", "0"), "linux.seccomp"),
            ("CapBnd:\tx\n".to_owned(), "CapBnd"),
            (String::new(), "CapBnd"),
        ] {
            let error = asked.check(&bad).unwrap_err();
            assert!(error.contains(what), "{error}");
        }
        let little = Asked {
            bounding: u64::MAX,
            no_new_privileges: false,
            filter: false,
        };
        little
            .check(&status("1ffffffffff", "1ffffffffff", "0", "0"))
            .unwrap();
    }

    #[test]
    fn this_process_has_no_other_time() {
        assert!(!has_own_time(rustix::process::getpid().as_raw_pid()).unwrap());
    }
}
