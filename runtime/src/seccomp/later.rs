//! A profile that is looked into while the process that it is for is being made.
//!
//! To look for the filter that is kept of a profile takes a while, to type and compile one takes a small container's whole
//! building. The process needs its filter last, and its parent has little to do meanwhile: so before the clone nothing is
//! learned of a profile but where in the configuration it stands.
//!
//! # What does not come later
//!
//! - A profile that may need the parent when its filter is loaded: one with notices, or with an escape that could hide them.
//! - A profile that may be empty, which means none: the process must know whether a filter comes.
//! - A profile in a document that is not typed as it stands.
//!
//! These are typed with the rest of the configuration, compiled with the rest of the plan, and never kept.

use std::os::fd::OwnedFd;

use super::cache::Cache;
use super::{Program, compile, tell};
use crate::spec::Spec;
use crate::trace::is_heard;
use crate::{Error, plan};

/// Whether nothing but its filter is needed of a profile, which is JSON.
pub(crate) fn may_come_later(profile: &str) -> bool {
    !profile.contains('\\') && !profile.contains("NOTIFY")
}

/// Sends the filter of a configuration whose profile was left for later to who waits for it; answers it if it is new, to be kept.
/// Blocks on file reads, and while the socket's buffer is full: until the other end reads or is gone.
pub(crate) fn hand_over(spec: &Spec, filters: &Cache, to: &OwnedFd) -> Result<Option<Program>, Error> {
    if let Some(kept) = kept(spec, filters) {
        kept.send(to)?;
        return Ok(None);
    }
    let program = new(spec)?;
    program.send(to)?;
    Ok(Some(program))
}

/// Keeps the filter that [`hand_over`] has answered.
pub(crate) fn keep(spec: &Spec, program: &Program, filters: &Cache) {
    if let Some(profile) = spec.later_profile() {
        filters.store(profile.as_bytes(), program);
    }
}

/// Refuses a configuration whose profile, if it was left for later, is not usable: for a process that nobody makes here.
pub(crate) fn check(spec: &Spec, filters: &Cache) -> Result<(), Error> {
    match spec.later_profile() {
        Some(_) if kept(spec, filters).is_none() => new(spec).map(drop),
        _ => Ok(()),
    }
}

/// Whoever listens is told of the calls in the profile that are not known: that takes the profile.
fn kept(spec: &Spec, filters: &Cache) -> Option<Program> {
    let profile = spec.later_profile().filter(|_| !is_heard())?;
    filters.load(profile.as_bytes())
}

fn new(spec: &Spec) -> Result<Program, Error> {
    let profile = spec.type_profile()?;
    let program = compile(&profile).map_err(plan::Error::from)?;
    tell(Some(&profile), Some(&program));
    Ok(program)
}
