//! What can be said about a configuration without knowing the host.
//!
//! These checks come before anything is made for a container. What depends on the host, or on how a field is
//! carried out, is checked where that is planned; what no text may contain, where it is read.

use std::path::Path;

use super::{Error, oci};

/// Checks a whole configuration.
///
/// # Errors
///
/// The first field that is not usable.
pub fn validate(spec: &oci::Spec) -> Result<(), Error> {
    version(&spec.oci_version)?;
    let root = spec
        .root
        .as_ref()
        .ok_or_else(|| Error::field("root", "must be specified"))?;
    path(&root.path, "root.path")?;
    let process = spec
        .process
        .as_ref()
        .ok_or_else(|| Error::field("process", "must not be empty"))?;
    validate_process(process, "process")?;
    for (index, mount) in spec.mounts.iter().enumerate() {
        path(&mount.destination, &format!("mounts[{index}].destination"))?;
    }
    Ok(())
}

/// Checks a `process` object that stands at `field`.
///
/// # Errors
///
/// The first field that is not usable.
pub fn validate_process(process: &oci::Process, field: &str) -> Result<(), Error> {
    path(&process.cwd, &format!("{field}.cwd"))?;
    if !process.cwd.is_absolute() {
        return Err(Error::field(format!("{field}.cwd"), "must be an absolute path"));
    }
    let args = &process.args;
    if args.is_empty() {
        return Err(Error::field(format!("{field}.args"), "must not be empty"));
    }
    if args[0].is_empty() {
        return Err(Error::field(format!("{field}.args[0]"), "must not be empty"));
    }
    for (index, variable) in process.env.iter().enumerate() {
        let field = format!("{field}.env[{index}]");
        match variable.find('=') {
            None => return Err(Error::field(field, "invalid environment variable: missing '='")),
            Some(0) => {
                return Err(Error::field(
                    field,
                    "invalid environment variable: name cannot be empty",
                ));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// The specification demands SemVer 2.0.0, and this runtime follows its major version 1.
fn version(version: &str) -> Result<(), Error> {
    let numbers = version.split(['-', '+']).next().unwrap_or_default();
    let numbers: Option<Vec<u32>> = numbers.split('.').map(|number| number.parse().ok()).collect();
    match numbers.as_deref() {
        Some([1, _, _]) => Ok(()),
        Some([major, _, _]) => Err(Error::field(
            "ociVersion",
            format!("major version {major} is not supported"),
        )),
        _ => Err(Error::field(
            "ociVersion",
            format!("{version:?} is not a semantic version"),
        )),
    }
}

fn path(path: &Path, field: &str) -> Result<(), Error> {
    match path.as_os_str().is_empty() {
        true => Err(Error::field(field, "must not be empty")),
        false => Ok(()),
    }
}
