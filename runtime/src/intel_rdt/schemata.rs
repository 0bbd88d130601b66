//! The lines of a `schemata` file: which are written, and whether a group has them already.

use std::collections::BTreeMap;

use super::Settings;

/// What is written for `settings`: cache, bandwidth, then the rest, which wins. Empty when nothing is asked for.
///
/// A bandwidth line among those for the cache gives way to one that is asked for as such.
pub(super) fn text(settings: &Settings) -> String {
    let mut text = String::new();
    let mut push = |line: &str| {
        if !line.is_empty() {
            text.push_str(line);
            text.push('\n');
        }
    };
    for line in settings.cache.iter().flat_map(|lines| lines.lines()) {
        if settings.bandwidth.is_none() || !line.trim_start().starts_with("MB:") {
            push(line);
        }
    }
    settings.bandwidth.iter().for_each(|line| push(line));
    settings.schemata.iter().for_each(|line| push(line));
    text
}

/// The first line of what is asked for cache and bandwidth that a group with the schemata `have` does not have: the
/// group's own line, and the one that was asked for.
pub(super) fn difference(settings: &Settings, have: &str) -> Option<(String, String)> {
    let without = Settings {
        schemata: Vec::new(),
        ..settings.clone()
    };
    let asked = text(&without);
    asked.lines().find_map(|asked| {
        let (resource, shares) = parse(asked)?;
        let own = have
            .lines()
            .find(|line| parse(line).is_some_and(|(name, _)| name == resource));
        let same = own.and_then(parse).is_some_and(|(_, own)| {
            shares
                .iter()
                .all(|(domain, share)| own.get(domain) == Some(share))
        });
        let own = own.unwrap_or_default().trim().to_owned();
        (!same).then(|| (own, asked.trim().to_owned()))
    })
}

/// `L3:0=ff;1=0f0`: the resource, and the share of each domain as it reads without leading zeros.
fn parse(line: &str) -> Option<(&str, BTreeMap<&str, &str>)> {
    let (resource, shares) = line.trim().split_once(':')?;
    let shares = shares.split(';').filter_map(|share| {
        let (domain, value) = share.split_once('=')?;
        Some((strip(domain), strip(value)))
    });
    Some((resource.trim(), shares.collect()))
}

/// Without blanks and leading zeros.
fn strip(number: &str) -> &str {
    let number = number.trim();
    match number.trim_start_matches('0') {
        "" if !number.is_empty() => "0",
        rest => rest,
    }
}
