//! The labels by which clients ask for a snapshot for a container in a user namespace, in containerd's words.
//!
//! Their values are ranges `CONTAINER:HOST:SIZE[,…]`, at most 340, as the kernel takes them; both labels are needed.

use crate::{
    error::{Error, Result},
    identifier::Labels,
};

/// The map of user ids.
const UIDS: &str = "containerd.io/snapshot/uidmapping";
/// The map of group ids.
const GIDS: &str = "containerd.io/snapshot/gidmapping";
/// The kernel takes this many lines in one map (since 4.15).
const MAX_RANGES: usize = 340;

/// Refuses labels that make no sense, or cannot be followed here (`able`).
///
/// # Errors
///
/// `InvalidArgument` for a label that is no map, or has no root, or comes without the other; `Unimplemented`.
pub(super) fn check(labels: &Labels, able: bool) -> Result<()> {
    match (labels.get(UIDS), labels.get(GIDS)) {
        (None, None) => Ok(()),
        (Some(_), Some(_)) if !able => Err(Error::unimplemented(
            "mapping ids of snapshots, which takes Linux 5.19 and the host's user namespace",
        )),
        (Some(uids), Some(gids)) => match (mapped_root(uids), mapped_root(gids)) {
            (Some(_), Some(_)) => Ok(()),
            (None, _) => Err(no_map(UIDS, uids)),
            (_, None) => Err(no_map(GIDS, gids)),
        },
        _ => Err(Error::invalid(format!(
            "labels {UIDS} and {GIDS} are taken together only"
        ))),
    }
}

/// The host's ids of the container's root, where `labels` ask for maps.
pub(super) fn root(labels: &Labels) -> Option<(u32, u32)> {
    Some((mapped_root(labels.get(UIDS)?)?, mapped_root(labels.get(GIDS)?)?))
}

/// The options of a mount by which the ids are mapped.
pub(super) fn options(labels: &Labels) -> Vec<String> {
    match (labels.get(UIDS), labels.get(GIDS)) {
        (Some(uids), Some(gids)) => vec![format!("uidmap={uids}"), format!("gidmap={gids}")],
        _ => Vec::new(),
    }
}

fn no_map(label: &str, value: &str) -> Error {
    Error::invalid(format!(
        "label {label}: {value:?} is no list of CONTAINER:HOST:SIZE with a root"
    ))
}

/// The host's id of 0; nothing where the map has none or is none.
fn mapped_root(map: &str) -> Option<u32> {
    let mut root = None;
    for (count, range) in map.split(',').enumerate() {
        let mut numbers = range.split(':').map(|number| number.parse::<u32>().ok());
        let (container, host, size) = (numbers.next()??, numbers.next()??, numbers.next()??);
        let ends = |first: u32| first.checked_add(size.checked_sub(1)?);
        if numbers.next().is_some() || count >= MAX_RANGES {
            return None;
        }
        ends(container).and(ends(host))?;
        if container == 0 {
            root = Some(host);
        }
    }
    root
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(uids: &str, gids: &str) -> Labels {
        [
            (UIDS.to_owned(), uids.to_owned()),
            (GIDS.to_owned(), gids.to_owned()),
        ]
        .into()
    }

    #[test]
    fn maps_have_a_root() {
        let both = labels("1:5:9,0:100000:1", "0:200000:65536");
        check(&both, true).unwrap();
        assert_eq!(root(&both), Some((100_000, 200_000)));
        assert_eq!(
            options(&both),
            ["uidmap=1:5:9,0:100000:1", "gidmap=0:200000:65536"]
        );
        assert_eq!(
            check(&both, false).unwrap_err().kind(),
            crate::Kind::Unimplemented
        );
        check(&Labels::default(), false).unwrap();
    }

    #[test]
    fn what_is_no_map_is_refused() {
        for wrong in [
            "",
            "1:5:9",
            "0:5",
            "0:5:0",
            "0:4294967295:2",
            "0:5:1:1",
            "0:x:1",
            "0:5:1,",
        ] {
            assert!(check(&labels(wrong, "0:0:1"), true).is_err(), "{wrong}");
            assert!(check(&labels("0:0:1", wrong), true).is_err(), "{wrong}");
        }
        let mut one = labels("0:0:1", "0:0:1");
        one.remove(GIDS);
        assert!(check(&one, true).is_err());
    }
}
