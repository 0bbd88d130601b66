//! `list`: the containers below the root.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;

use anyhow::{Context as _, bail};
use clap::Args;
use wharf_runtime::{Error, State};

use super::Environment;

#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// How to print: table or json
    #[arg(short, long, default_value = "table")]
    format: String,
    /// Print names only
    #[arg(short, long)]
    quiet: bool,
}

/// How lists are printed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Format {
    /// In columns.
    Table,
    /// As one JSON value.
    Json,
}

impl Format {
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        match text {
            "table" => Ok(Self::Table),
            "json" => Ok(Self::Json),
            _ => bail!("invalid format option"),
        }
    }
}

pub(super) fn perform(environment: &Environment<'_>, arguments: &Arguments) -> anyhow::Result<()> {
    if environment.root_is_given {
        let root = environment.runtime.root();
        std::fs::read_dir(root).with_context(|| format!("open {}", root.display()))?;
    }
    let mut states = Vec::new();
    for id in environment.runtime.ids()? {
        match environment
            .runtime
            .load(&id)
            .and_then(|container| container.state())
        {
            Ok(state) => states.push(state),
            // Deleted meanwhile, or being created.
            Err(Error::NotFound(_)) => {}
            // One that is broken does not hide the others.
            Err(error) => eprintln!("load container {id}: {error}"),
        }
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    for state in &mut states {
        let directory = environment.runtime.root().join(&state.id);
        // One that is gone by now was there when it was listed.
        if let Ok(directory) = std::fs::metadata(directory) {
            state.owner = user_name(&users, directory.uid());
        }
    }
    let text = if arguments.quiet {
        states.iter().map(|state| format!("{}\n", state.id)).collect()
    } else {
        match Format::parse(&arguments.format)? {
            Format::Table => table(&states),
            Format::Json => json(&states)?,
        }
    };
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("write to standard output")
}

/// The user's name by the host's `/etc/passwd`, else `#` and the id.
fn user_name(users: &str, uid: u32) -> String {
    let id = uid.to_string();
    let mut names = users.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == id).then(|| name.to_owned())
    });
    names.next().unwrap_or_else(|| format!("#{id}"))
}

/// No containers are `null`, as Go writes an empty list that was never filled.
fn json(states: &[State]) -> anyhow::Result<String> {
    let text = if states.is_empty() {
        "null".to_owned()
    } else {
        serde_json::to_string(states)?
    };
    Ok(text + "\n")
}

/// Columns of at least twelve characters, three blanks apart; the last is not filled up.
fn table(states: &[State]) -> String {
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
    rows.extend(states.iter().map(|state| {
        [
            state.id.clone(),
            state.pid.to_string(),
            state.status.to_string(),
            state.bundle.display().to_string(),
            state.created.clone(),
            state.owner.clone(),
        ]
    }));
    let mut widths = [12; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count() + 3);
        }
    }
    let mut text = String::new();
    for [cells @ .., last] in &rows {
        for (cell, width) in cells.iter().zip(widths) {
            write!(text, "{cell:width$}").unwrap_or_default();
        }
        text.push_str(last);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use wharf_runtime::Status;

    use super::*;

    #[test]
    fn columns_are_wide_enough_for_their_longest_cell() {
        let state = State {
            oci_version: "1.0.2".into(),
            id: "a-rather-long-name".into(),
            pid: 7,
            status: Status::Running,
            bundle: "/b".into(),
            rootfs: "/b/rootfs".into(),
            created: "2026-01-01T00:00:00Z".into(),
            annotations: Default::default(),
            owner: "root".into(),
        };
        assert_eq!(
            table(&[state]),
            "ID                   PID         STATUS      BUNDLE      CREATED                OWNER\n\
             a-rather-long-name   7           running     /b          2026-01-01T00:00:00Z   root\n"
        );
        assert_eq!(
            table(&[]),
            "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n"
        );
        assert_eq!(json(&[]).unwrap(), "null\n");
    }

    #[test]
    fn an_owner_without_a_name_is_a_number() {
        let users = "root:x:0:0::/root:/bin/sh\nbroken\nme:x:1000:1000::/:/bin/sh\n";
        assert_eq!(user_name(users, 0), "root");
        assert_eq!(user_name(users, 1000), "me");
        assert_eq!(user_name(users, 7), "#7");
    }
}
