//! The id mappings of a user namespace: what a new one gets, and what a joined one must have.

use std::fmt::Write as _;

use super::{Caller, Error, Namespaces};
use crate::spec::oci;

/// The kernel takes this many lines in one map (since 4.15).
const MAX_LINES: usize = 340;

/// Ids of a container, and the host's ids that they are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct IdRange {
    /// The first one in the container.
    pub container: u32,
    /// The first one on the host.
    pub host: u32,
    /// How many.
    pub size: u32,
}

/// The two maps of a user namespace.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mappings {
    /// Of user ids.
    pub uid: Vec<IdRange>,
    /// Of group ids.
    pub gid: Vec<IdRange>,
    /// Forbid `setgroups(2)` in the namespace before the group map is written. Without privileges the kernel
    /// wants that: by leaving a group somebody could gain what it is denied.
    pub deny_setgroups: bool,
}

/// The host's id of the container's `id`; nothing for one that is not mapped.
#[must_use]
pub fn host_id(ranges: &[IdRange], id: u32) -> Option<u32> {
    ranges.iter().find_map(|range| {
        let offset = id
            .checked_sub(range.container)
            .filter(|offset| *offset < range.size)?;
        range.host.checked_add(offset)
    })
}

/// The text for `/proc/PID/uid_map` or `gid_map`.
#[must_use]
pub fn text(ranges: &[IdRange]) -> String {
    ranges.iter().fold(String::new(), |mut text, range| {
        let IdRange {
            container,
            host,
            size,
        } = range;
        // Writing to a string cannot fail.
        let written = writeln!(text, "{container} {host} {size}");
        debug_assert!(written.is_ok());
        text
    })
}

/// Reads what `/proc/PID/uid_map` or `gid_map` shows; nothing when that makes no sense.
#[must_use]
pub fn parse(text: &str) -> Option<Vec<IdRange>> {
    let range = |line: &str| {
        let mut numbers = line.split_ascii_whitespace().map(str::parse::<u32>);
        let mut next = || numbers.next()?.ok();
        let (container, host, size) = (next()?, next()?, next()?);
        Some(IdRange {
            container,
            host,
            size,
        })
    };
    text.lines().map(range).collect()
}

/// The maps of a new user namespace; nothing when none is made.
pub(super) fn compile(
    linux: &oci::Linux,
    namespaces: &Namespaces,
    caller: &Caller,
) -> Result<Option<Mappings>, Error> {
    let given = !linux.uid_mappings.is_empty() || !linux.gid_mappings.is_empty();
    if !namespaces.makes(libc::CLONE_NEWUSER) {
        // With a joined one they only repeat what it has, which is checked when it is known.
        if given && !namespaces.joins(libc::CLONE_NEWUSER) {
            return Err(Error::field(
                "linux.uidMappings",
                "user namespace mappings specified, but user namespace isn't enabled in the config",
            ));
        }
        return Ok(None);
    }
    let uid = ranges("uid", &linux.uid_mappings)?;
    let gid = ranges("gid", &linux.gid_mappings)?;
    let only_its_own = [IdRange {
        container: 0,
        host: caller.gid,
        size: 1,
    }];
    Ok(Some(Mappings {
        deny_setgroups: !caller.is_root() && gid == only_its_own,
        uid,
        gid,
    }))
}

/// Checks the maps of a user namespace that is joined against those of the configuration, if it gives any; whether
/// it does.
pub(crate) fn check_joined(linux: &oci::Linux, actual: &Mappings) -> Result<bool, Error> {
    for (kind, ranges) in [("uid", &actual.uid), ("gid", &actual.gid)] {
        if host_id(ranges, 0).is_none() {
            let problem = format!("user namespaces enabled, but no mapping found for {kind} 0");
            return Err(Error::field("linux.namespaces", problem));
        }
    }
    if linux.uid_mappings.is_empty() && linux.gid_mappings.is_empty() {
        return Ok(false);
    }
    let same = linux
        .uid_mappings
        .iter()
        .map(range)
        .eq(actual.uid.iter().copied())
        && linux
            .gid_mappings
            .iter()
            .map(range)
            .eq(actual.gid.iter().copied());
    match same {
        true => Ok(true),
        false => Err(Error::field(
            "linux.uidMappings",
            "user namespaces enabled, but both namespace path and non-matching mapping specified -- you may only provide one",
        )),
    }
}

fn range(mapping: &oci::LinuxIdMapping) -> IdRange {
    IdRange {
        container: mapping.container_id,
        host: mapping.host_id,
        size: mapping.size,
    }
}

fn ranges(kind: &str, mappings: &[oci::LinuxIdMapping]) -> Result<Vec<IdRange>, Error> {
    let field = format!("linux.{kind}Mappings");
    if mappings.is_empty() {
        let problem = format!("user namespaces enabled, but no {kind} mappings found");
        return Err(Error::field(field, problem));
    }
    let ranges = checked(&field, mappings)?;
    // The container's root makes the mounts and owns what is made on the way.
    if host_id(&ranges, 0).is_none() {
        let problem = format!("user namespaces enabled, but no mapping found for {kind} 0");
        return Err(Error::field(field, problem));
    }
    Ok(ranges)
}

/// Ranges that the kernel takes for a map, given at `field`.
pub(super) fn checked(field: &str, mappings: &[oci::LinuxIdMapping]) -> Result<Vec<IdRange>, Error> {
    if mappings.len() > MAX_LINES {
        return Err(Error::field(field, format!("are more than {MAX_LINES}")));
    }
    let ranges: Vec<IdRange> = mappings.iter().map(range).collect();
    for (index, range) in ranges.iter().enumerate() {
        let one = |name: &str, problem: &str| Error::field(format!("{field}[{index}].{name}"), problem);
        if range.size == 0 {
            return Err(one("size", "must not be 0"));
        }
        let ends = |first: u32| first.checked_add(range.size).is_some();
        if !ends(range.container) || !ends(range.host) {
            return Err(one("size", "reaches beyond the last id"));
        }
        let earlier = &ranges[..index];
        let overlaps = |first: fn(&IdRange) -> u32| {
            earlier.iter().any(|other| {
                let (a, b) = (first(range), first(other));
                a < b + other.size && b < a + range.size
            })
        };
        if overlaps(|range| range.container) {
            return Err(one("containerID", "maps ids that are mapped already"));
        }
        if overlaps(|range| range.host) {
            return Err(one("hostID", "maps ids that are mapped already"));
        }
    }
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping((container_id, host_id, size): (u32, u32, u32)) -> oci::LinuxIdMapping {
        oci::LinuxIdMapping {
            container_id,
            host_id,
            size,
        }
    }

    fn compiled(
        caller: &Caller,
        uid: &[(u32, u32, u32)],
        gid: &[(u32, u32, u32)],
    ) -> Result<Mappings, String> {
        let linux = oci::Linux {
            uid_mappings: uid.iter().copied().map(mapping).collect(),
            gid_mappings: gid.iter().copied().map(mapping).collect(),
            ..oci::Linux::default()
        };
        let namespaces = Namespaces {
            create: libc::CLONE_NEWUSER as u64,
            ..Namespaces::default()
        };
        compile(&linux, &namespaces, caller)
            .map(|mappings| mappings.unwrap())
            .map_err(|error| error.to_string())
    }

    const ROOT: Caller = Caller::ROOT;
    const USER: Caller = Caller {
        uid: 1000,
        gid: 1001,
        may_set_groups: true,
    };

    #[test]
    fn maps_are_written_line_by_line_and_read_again() {
        let ranges = [(0, 1000, 1), (1, 100_000, 65_536)];
        let mappings = compiled(&ROOT, &ranges, &ranges).unwrap();
        assert_eq!(text(&mappings.uid), "0 1000 1\n1 100000 65536\n");
        assert_eq!(
            parse("         0       1000          1\n         1     100000      65536\n"),
            Some(mappings.uid.clone())
        );
        assert_eq!(parse("0 1000\n"), None);
        assert_eq!(host_id(&mappings.uid, 0), Some(1000));
        assert_eq!(host_id(&mappings.uid, 65_536), Some(165_535));
        assert_eq!(host_id(&mappings.uid, 65_537), None);
    }

    #[test]
    fn only_a_user_that_maps_nothing_but_its_own_group_gives_up_setgroups() {
        let own = [(0, 1001, 1)];
        assert!(compiled(&USER, &[(0, 1000, 1)], &own).unwrap().deny_setgroups);
        let more = [(0, 1001, 1), (1, 100_000, 10)];
        assert!(!compiled(&USER, &[(0, 1000, 1)], &more).unwrap().deny_setgroups);
        assert!(!compiled(&ROOT, &[(0, 1000, 1)], &own).unwrap().deny_setgroups);
    }

    #[test]
    fn what_cannot_be_a_map_is_refused_by_field() {
        let good = [(0, 1000, 10)];
        for (uid, gid, problem) in [
            (
                &[][..],
                &good[..],
                "linux.uidMappings: user namespaces enabled, but no uid mappings found",
            ),
            (
                &good,
                &[],
                "linux.gidMappings: user namespaces enabled, but no gid mappings found",
            ),
            (
                &[(1, 1000, 10)],
                &good,
                "linux.uidMappings: user namespaces enabled, but no mapping found for uid 0",
            ),
            (&[(0, 1000, 0)], &good, "linux.uidMappings[0].size: must not be 0"),
            (
                &good,
                &[(0, 4_294_967_295, 1)],
                "linux.gidMappings[0].size: reaches beyond the last id",
            ),
            (
                &[(0, 1000, 10), (9, 2000, 1)],
                &good,
                "linux.uidMappings[1].containerID: maps ids that are mapped already",
            ),
            (
                &[(0, 1000, 10), (10, 1009, 1)],
                &good,
                "linux.uidMappings[1].hostID: maps ids that are mapped already",
            ),
        ] {
            assert_eq!(compiled(&ROOT, uid, gid).unwrap_err(), problem);
        }
    }

    #[test]
    fn a_joined_namespace_has_the_maps_that_are_given_or_none_are() {
        let actual = Mappings {
            uid: vec![range(&mapping((0, 1000, 10)))],
            gid: vec![range(&mapping((0, 2000, 10)))],
            deny_setgroups: false,
        };
        let mut linux = oci::Linux::default();
        assert_eq!(check_joined(&linux, &actual), Ok(false));
        linux.uid_mappings = vec![mapping((0, 1000, 10))];
        assert!(check_joined(&linux, &actual).is_err());
        linux.gid_mappings = vec![mapping((0, 2000, 10))];
        assert_eq!(check_joined(&linux, &actual), Ok(true));
        let rootless = Mappings {
            uid: vec![range(&mapping((5, 1000, 10)))],
            ..actual
        };
        assert!(check_joined(&oci::Linux::default(), &rootless).is_err());
    }
}
