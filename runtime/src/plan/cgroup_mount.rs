//! A mount of type `cgroup` on a host with v1 hierarchies: a container sees one directory for each of them, and in it only
//! its own group.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Error;
use super::mount::{One, Operation, Source};
use super::options::Options;
use super::text::{Target, c_path, c_string};

/// The directory of the hierarchies, and what is in it.
pub(super) fn compile(
    one: &One<'_>,
    options: &Options,
    operations: &mut Vec<Operation>,
) -> Result<(), Error> {
    let (field, destination, facts) = (one.field, one.destination, one.context.facts);
    let mut parameters = vec![
        (c"source".to_owned(), Some(c"tmpfs".to_owned())),
        (c"mode".to_owned(), Some(c"755".to_owned())),
    ];
    if let Some(label) = one.context.label {
        parameters.push((c"context".to_owned(), Some(c_string("linux.mountLabel", label)?)));
    }
    let tmpfs = Source::New {
        kind: c"tmpfs".to_owned(),
        parameters,
        legacy: false,
        instead: None,
    };
    // Read-only only when everything in it is there.
    let mut directory = one.place(destination, tmpfs, options.clone(), "tmpfs")?;
    if let Operation::Mount(mount) = &mut directory {
        mount.has_entries = true;
    }
    operations.push(directory);
    for (name, (path, controllers)) in hierarchies(facts.cgroup_paths) {
        let (source, kind) = match facts.new_cgroup_namespace {
            // The namespace shows the container its own group as the root of the hierarchy.
            true => (hierarchy(field, &name, &controllers)?, "cgroup"),
            false => {
                let path = c_path(field, path)?;
                let id_map = None;
                (
                    Source::Bind {
                        path,
                        tree: true,
                        id_map,
                    },
                    "bind",
                )
            }
        };
        let mut options = options.clone();
        options.propagation.clear();
        let mut entry = one.place(&destination.join(&name), source, options, kind)?;
        if let Operation::Mount(mount) = &mut entry {
            mount.entry = Some(c_string(field, &name)?);
        }
        operations.push(entry);
    }
    for (controller, path) in facts.cgroup_paths {
        if let Some(name) = hierarchy_name(path)
            && !controller.is_empty()
            && !controller.contains('=')
            && *controller != name
        {
            operations.push(Operation::Link {
                at: Target::new(field, &destination.join(controller))?,
                to: c_string(field, &name)?,
            });
        }
    }
    Ok(())
}

/// A mount of an existing v1 hierarchy: named by its controllers, or by its own name when it has none.
fn hierarchy(field: &str, name: &str, controllers: &[&str]) -> Result<Source, Error> {
    let has_controllers = controllers.iter().any(|controller| !controller.contains('='));
    let source = if has_controllers { "cgroup" } else { name };
    let mut parameters = vec![(c"source".to_owned(), Some(c_string(field, source)?))];
    for controller in controllers {
        parameters.push(match controller.split_once('=') {
            Some((key, value)) => (c_string(field, key)?, Some(c_string(field, value)?)),
            None => (c_string(field, controller)?, None),
        });
    }
    Ok(Source::New {
        kind: c"cgroup".to_owned(),
        parameters,
        legacy: false,
        instead: None,
    })
}

/// Directory name below `/sys/fs/cgroup` to the container's own group and the controllers, for each v1 hierarchy.
pub(super) fn hierarchies(paths: &BTreeMap<String, PathBuf>) -> BTreeMap<String, (&Path, Vec<&str>)> {
    let mut hierarchies: BTreeMap<String, (&Path, Vec<&str>)> = BTreeMap::new();
    for (controller, path) in paths.iter().filter(|(controller, _)| !controller.is_empty()) {
        if let Some(name) = hierarchy_name(path) {
            let (_, controllers) = hierarchies.entry(name).or_insert((path.as_path(), Vec::new()));
            controllers.push(controller);
        }
    }
    hierarchies
}

fn hierarchy_name(group: &Path) -> Option<String> {
    let below = group.strip_prefix("/sys/fs/cgroup").ok()?;
    Some(below.components().next()?.as_os_str().to_str()?.to_owned())
}
