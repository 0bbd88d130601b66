//! `hooks`: programs to run, and the state that they are told.
//!
//! Refused here, of every kind: a path that is not absolute, a timeout that is none.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::path::Path;

use serde::Serialize;

use super::text::{c_path, c_string};
use super::{Error, Facts};
use crate::Status;
use crate::spec::oci;
use crate::sys::strings::Strings;

/// The longest time that a poll takes, in milliseconds.
const MAX_TIMEOUT: i64 = i32::MAX as i64 / 1000;

/// A hook, ready to be executed.
#[derive(Debug)]
pub struct Hook {
    /// The program.
    pub path: CString,
    /// `argv`.
    pub arguments: Strings,
    /// `envp`; nothing when none is given, which each place where hooks run understands in its own way.
    pub environment: Option<Strings>,
    /// After how many milliseconds it is killed.
    pub timeout: Option<u32>,
}

/// The hooks that the child half runs.
#[derive(Debug, Default)]
pub struct Hooks {
    /// Before the root changes.
    pub create_container: Vec<Hook>,
    /// What they are told.
    pub creating: StateText,
    /// After the gate was opened.
    pub start_container: Vec<Hook>,
    /// What they are told.
    pub created: StateText,
}

/// The state as JSON, up to the pid: that is known only inside.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct StateText(Vec<u8>);

impl StateText {
    /// What stands before the pid's digits.
    #[must_use]
    pub fn before_pid(&self) -> &[u8] {
        &self.0
    }

    /// What stands after them.
    pub(crate) const AFTER_PID: &[u8] = b"}";
}

/// What a hook reads from its standard input (OCI runtime specification, "State").
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HookState<'a> {
    pub(crate) oci_version: &'a str,
    pub(crate) id: &'a str,
    pub(crate) status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pid: Option<i32>,
    pub(crate) bundle: &'a Path,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: &'a BTreeMap<String, String>,
}

pub(super) fn compile(spec: &oci::Spec, facts: &Facts<'_>) -> Result<Hooks, Error> {
    let Some(hooks) = &spec.hooks else {
        return Ok(Hooks::default());
    };
    // Those of the runtime's side run later, and perhaps in another process: here they are only looked at.
    for (kind, hooks) in [
        ("prestart", &hooks.prestart),
        ("createRuntime", &hooks.create_runtime),
        ("poststart", &hooks.poststart),
        ("poststop", &hooks.poststop),
    ] {
        list(kind, hooks)?;
    }
    let state = |status, hooks: &[Hook]| match hooks {
        [] => Ok(StateText::default()),
        _ => state_text(spec, facts, status),
    };
    let mut create_container = list("createContainer", &hooks.create_container)?;
    for hook in &mut create_container {
        // The container's environment is for what runs on its root, and the runtime's is none of theirs (as runc).
        hook.environment.get_or_insert_with(|| Strings::new(Vec::new()));
    }
    let start_container = list("startContainer", &hooks.start_container)?;
    Ok(Hooks {
        creating: state(Status::Creating, &create_container)?,
        created: state(Status::Created, &start_container)?,
        create_container,
        start_container,
    })
}

fn list(kind: &str, hooks: &[oci::Hook]) -> Result<Vec<Hook>, Error> {
    let numbered = hooks.iter().enumerate();
    numbered
        .map(|(index, hook)| one(&format!("hooks.{kind}[{index}]"), hook))
        .collect()
}

/// Compiles the hook that stands at `field`.
pub(crate) fn one(field: &str, hook: &oci::Hook) -> Result<Hook, Error> {
    if !hook.path.is_absolute() {
        return Err(Error::field(format!("{field}.path"), "must be absolute"));
    }
    let path = c_path(&format!("{field}.path"), &hook.path)?;
    let strings = |name: &str, values: &[String]| -> Result<Vec<CString>, Error> {
        let field = format!("{field}.{name}");
        values.iter().map(|value| c_string(&field, value)).collect()
    };
    let arguments = match hook.args.as_slice() {
        [] => vec![path.clone()],
        given => strings("args", given)?,
    };
    let timeout = match hook.timeout {
        None => None,
        Some(seconds @ 1..) => Some(seconds.min(MAX_TIMEOUT) as u32 * 1000),
        Some(seconds) => {
            return Err(Error::field(
                format!("{field}.timeout"),
                format!("{seconds} s are no time"),
            ));
        }
    };
    Ok(Hook {
        path,
        arguments: Strings::new(arguments),
        environment: match hook.env.as_slice() {
            [] => None,
            given => Some(Strings::new(strings("env", given)?)),
        },
        timeout,
    })
}

fn state_text(spec: &oci::Spec, facts: &Facts<'_>, status: Status) -> Result<StateText, Error> {
    let state = HookState {
        oci_version: &spec.oci_version,
        id: facts.id.as_str(),
        status,
        pid: None,
        bundle: facts.bundle,
        annotations: &spec.annotations,
    };
    let mut text = serde_json::to_vec(&state).map_err(|error| Error::field("hooks", error.to_string()))?;
    // The object's end, which comes after the pid.
    text.pop();
    text.extend_from_slice(b",\"pid\":");
    Ok(StateText(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(path: &str, timeout: Option<i64>) -> oci::Hook {
        oci::Hook {
            path: path.into(),
            timeout,
            ..oci::Hook::default()
        }
    }

    #[test]
    fn a_hook_without_arguments_is_called_by_its_path() {
        let compiled = one("hooks.prestart[0]", &hook("/bin/x", Some(2))).unwrap();
        assert_eq!(compiled.arguments.as_slice(), [c"/bin/x".to_owned()]);
        assert_eq!(compiled.timeout, Some(2000));
        assert!(compiled.environment.is_none());
        let endless = one("h", &hook("/bin/x", Some(i64::MAX))).unwrap();
        assert!(endless.timeout.unwrap() > 2_000_000_000);
    }

    #[test]
    fn what_cannot_be_run_is_refused_by_its_field() {
        for (hook, problem) in [
            (hook("bin/x", None), "h.path: must be absolute"),
            (hook("/x", Some(0)), "h.timeout: 0 s are no time"),
            (hook("/x", Some(-1)), "h.timeout: -1 s are no time"),
        ] {
            assert_eq!(one("h", &hook).unwrap_err().to_string(), problem);
        }
    }
}
