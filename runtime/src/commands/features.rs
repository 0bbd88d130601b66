//! `features`: what this runtime can do, as JSON.

use std::io::Write as _;

use anyhow::Context as _;

pub(super) fn perform() -> anyhow::Result<()> {
    let text =
        serde_json::to_string_pretty(&wharf_runtime::features::features()).context("write the features")?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{text}").context("write to standard output")
}
