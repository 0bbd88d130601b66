//! Who the process is: `user[:group]` looked up in the container's own `/etc/passwd` and `/etc/group`.
//!
//! The files are the image's, so they are hostile: they were read by [`crate::rootfs`] with a bound, and nothing in
//! them is trusted beyond numbers in range. The rules are those of runc and Docker, but for names that are numbers.

use crate::error::{Error, Result};

/// The highest uid and gid that is accepted: higher ones turn negative, or to root, in some program or other.
pub const MAX_ID: u32 = (1 << 31) - 1;

/// The account files of a root filesystem.
#[derive(Debug, Clone, Default)]
pub struct Accounts {
    /// `/etc/passwd`; empty when there is none.
    pub passwd: String,
    /// `/etc/group`; empty when there is none.
    pub group: String,
}

/// A resolved identity.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// The uid.
    pub uid: u32,
    /// The gid.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
    /// The home directory; `/` when it is not known.
    pub home: String,
}

struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn entries(passwd: &str) -> impl Iterator<Item = Entry<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok().filter(|id| *id <= MAX_ID)?;
        let gid = fields.next()?.parse().ok().filter(|id| *id <= MAX_ID)?;
        let home = fields.nth(1).unwrap_or_default();
        Some(Entry { name, uid, gid, home })
    })
}

fn groups(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok().filter(|id| *id <= MAX_ID)?;
        Some((name, gid, fields.next().unwrap_or_default()))
    })
}

/// Looks `spec` up: empty for root, `name`, `uid`, `name:group`, `uid:gid`. A number is an id and never a name, also
/// where an entry has it as its name: an image must not make root of who was asked to be `1000`. A number that has
/// no entry stands for itself, with the gid 0; a name must have one. `additional` are more groups by name or number.
///
/// # Errors
///
/// A name without an entry, or a number over [`MAX_ID`].
pub fn resolve(spec: &str, additional: &[String], accounts: &Accounts) -> Result<User> {
    let (user, group) = match spec.split_once(':') {
        Some((user, group)) => (user, group),
        None => (spec, ""),
    };
    let wanted_uid = number(if user.is_empty() { "0" } else { user })?;
    let matches = |entry: &Entry<'_>| match wanted_uid {
        Some(uid) => entry.uid == uid,
        None => entry.name == user,
    };
    let entry = entries(&accounts.passwd).find(matches);
    let mut resolved = match (&entry, wanted_uid) {
        (Some(entry), _) => User {
            uid: entry.uid,
            gid: entry.gid,
            groups: Vec::new(),
            home: entry.home.to_owned(),
        },
        (None, Some(uid)) => User {
            uid,
            ..Default::default()
        },
        (None, None) => {
            let message = format!("unable to find user {user}: no matching entries in passwd file");
            return Err(Error::invalid(message));
        }
    };
    if resolved.home.is_empty() {
        resolved.home = "/".to_owned();
    }
    if group.is_empty() {
        if let Some(entry) = entry {
            let member =
                |(_, _, members): &(&str, u32, &str)| members.split(',').any(|name| name == entry.name);
            resolved.groups = groups(&accounts.group)
                .filter(member)
                .map(|(_, gid, _)| gid)
                .collect();
        }
    } else {
        resolved.gid = find_group(group, accounts)?;
    }
    for name in additional {
        resolved.groups.push(find_group(name, accounts)?);
    }
    let mut seen = std::collections::BTreeSet::new();
    resolved.groups.retain(|gid| seen.insert(*gid));
    Ok(resolved)
}

fn find_group(group: &str, accounts: &Accounts) -> Result<u32> {
    let wanted = number(group)?;
    groups(&accounts.group)
        .find(|(name, gid, _)| match wanted {
            Some(wanted) => *gid == wanted,
            None => *name == group,
        })
        .map(|(_, gid, _)| gid)
        .or(wanted)
        .ok_or_else(|| {
            Error::invalid(format!(
                "unable to find group {group}: no matching entries in group file"
            ))
        })
}

fn number(text: &str) -> Result<Option<u32>> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        // A sign makes it neither a name that passwd allows nor an id.
        let signed = text
            .strip_prefix(['-', '+'])
            .is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()));
        return if signed { Err(out_of_range()) } else { Ok(None) };
    }
    match text.parse::<u32>() {
        Ok(id) if id <= MAX_ID => Ok(Some(id)),
        _ => Err(out_of_range()),
    }
}

fn out_of_range() -> Error {
    Error::invalid(format!("uids and gids must be in range 0-{MAX_ID}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts {
            passwd: "root:x:0:0:root:/root:/bin/sh\nbad line\nhuge:x:4294967296:0::/:\nweb:x:33:34::/srv:/bin/false\n1000:x:5:6::/five:\n"
                .to_owned(),
            group: "root:x:0:root\nwheel:x:10:root,web\n2000:x:0:\nweb:x:34:\naudio:x:29:web\n".to_owned(),
        }
    }

    fn user(uid: u32, gid: u32, groups: &[u32], home: &str) -> User {
        User {
            uid,
            gid,
            groups: groups.to_vec(),
            home: home.to_owned(),
        }
    }

    #[test]
    fn users_resolve_as_in_docker() {
        for (spec, expected) in [
            ("", user(0, 0, &[0, 10], "/root")),
            ("root", user(0, 0, &[0, 10], "/root")),
            ("web", user(33, 34, &[10, 29], "/srv")),
            ("33", user(33, 34, &[10, 29], "/srv")),
            ("web:wheel", user(33, 10, &[], "/srv")),
            ("33:7", user(33, 7, &[], "/srv")),
            ("4711", user(4711, 0, &[], "/")),
            ("4711:4712", user(4711, 4712, &[], "/")),
            (":10", user(0, 10, &[], "/root")),
            // An entry is called so, but the number is meant.
            ("1000", user(1000, 0, &[], "/")),
            ("1000:2000", user(1000, 2000, &[], "/")),
        ] {
            assert_eq!(resolve(spec, &[], &accounts()).unwrap(), expected, "{spec}");
        }
    }

    #[test]
    fn unknown_names_and_numbers_out_of_range_are_refused() {
        for spec in [
            "nobody",
            "web:nogroup",
            "2147483648",
            "4294967296",
            "-1",
            "0:-1",
            "0:4294967295",
            "huge",
        ] {
            assert!(resolve(spec, &[], &accounts()).is_err(), "{spec}");
        }
    }

    #[test]
    fn groups_are_added_once() {
        let more = ["audio".to_owned(), "29".to_owned(), "77".to_owned()];
        assert_eq!(resolve("web", &more, &accounts()).unwrap().groups, [10, 29, 77]);
        assert!(resolve("web", &["nogroup".to_owned()], &accounts()).is_err());
    }

    #[test]
    fn no_files_at_all() {
        assert_eq!(
            resolve("", &[], &Accounts::default()).unwrap(),
            user(0, 0, &[], "/")
        );
    }
}
