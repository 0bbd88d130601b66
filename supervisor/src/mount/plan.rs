//! Which of the mounts are made by the daemon, and what is done to them before: decided without touching anything.
//!
//! A type like `format/mkdir/overlay` is an `overlay` after two transformations. Everything before the last mount that is
//! transformed or has a handler is made here: that one may name the places of the others.

use super::Mount;

/// The type of a file that becomes a block device.
pub const LOOP: &str = "loop";

/// What is done to a mount before it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transform {
    /// Fills in the places of earlier mounts.
    Format,
    /// Makes directories.
    Mkdir,
    /// Makes a file with an empty filesystem.
    Mkfs,
}

/// A mount and how it is made.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The mount, with its type as the last transformation leaves it.
    pub mount: Mount,
    /// What is done before, in this order.
    pub transforms: Vec<Transform>,
}

/// What an activation does.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The mounts that are made here.
    pub here: Vec<Step>,
    /// The first of those that are left may be transformed, too.
    pub left: Vec<Step>,
    /// Whether all are made here, and a bind of the last one is told instead.
    pub is_temporary: bool,
}

impl Plan {
    /// Whether there is something to do about `mounts` unless all are to be made here.
    pub fn concerns(mounts: &[Mount]) -> bool {
        mounts
            .iter()
            .any(|mount| mount.r#type == LOOP || Transform::first_of(&mount.r#type).is_some())
    }

    /// The plan for `mounts`; `None` when there is nothing to do, and the caller makes them all.
    pub fn of(mounts: Vec<Mount>, is_temporary: bool) -> Option<Self> {
        let mut first_left = None;
        let mut here = Vec::with_capacity(mounts.len());
        for (place, mount) in mounts.into_iter().enumerate() {
            let step = Step::of(mount);
            if !step.transforms.is_empty() {
                first_left = Some(place);
            }
            if is_temporary || step.mount.r#type == LOOP {
                first_left = Some(place + 1);
            }
            here.push(step);
        }
        let left = here.split_off(first_left?);
        Some(Self {
            here,
            left,
            is_temporary,
        })
    }
}

impl Transform {
    /// The first transformation that a type names, and the type that is left.
    fn first_of(kind: &str) -> Option<(Self, &str)> {
        let (first, rest) = kind.split_once('/')?;
        let transform = match first {
            "format" => Self::Format,
            "mkdir" => Self::Mkdir,
            "mkfs" => Self::Mkfs,
            _ => return None,
        };
        Some((transform, rest))
    }
}

impl Step {
    fn of(mut mount: Mount) -> Self {
        let mut transforms = Vec::new();
        while let Some((transform, rest)) = Transform::first_of(&mount.r#type) {
            transforms.push(transform);
            mount.r#type = rest.to_owned();
        }
        Self { mount, transforms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounts(kinds: &[&str]) -> Vec<Mount> {
        let mount = |kind: &&str| Mount {
            r#type: (*kind).to_owned(),
            ..Mount::default()
        };
        kinds.iter().map(mount).collect()
    }

    /// How many are made here, and how many are left.
    fn split(kinds: &[&str], is_temporary: bool) -> Option<(usize, usize)> {
        let mounts = mounts(kinds);
        if !is_temporary {
            assert_eq!(Plan::concerns(&mounts), Plan::of(mounts.clone(), false).is_some());
        }
        Plan::of(mounts, is_temporary).map(|plan| (plan.here.len(), plan.left.len()))
    }

    #[test]
    fn only_what_must_be_is_made_here() {
        assert_eq!(split(&[], false), None);
        assert_eq!(split(&["overlay"], false), None);
        assert_eq!(split(&["fuse.other/thing"], false), None);
        assert_eq!(split(&["loop"], false), Some((1, 0)));
        assert_eq!(split(&["loop", "format/ext4"], false), Some((1, 1)));
        assert_eq!(split(&["ext4", "format/overlay"], false), Some((1, 1)));
        assert_eq!(split(&["mkdir/bind"], false), Some((0, 1)));
        assert_eq!(split(&["format/loop", "bind"], false), Some((1, 1)));
        assert_eq!(split(&["overlay"], true), Some((1, 0)));
        assert_eq!(split(&[], true), None);
    }

    #[test]
    fn a_type_is_what_the_transformations_leave() {
        let plan = Plan::of(mounts(&["format/mkdir/overlay"]), false).unwrap();
        assert_eq!(plan.left[0].transforms, [Transform::Format, Transform::Mkdir]);
        assert_eq!(plan.left[0].mount.r#type, "overlay");
        let plan = Plan::of(mounts(&["mkfs/what/ever"]), false).unwrap();
        assert_eq!(plan.left[0].mount.r#type, "what/ever");
    }
}
