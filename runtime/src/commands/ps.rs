//! `ps`: the processes in a container.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::Command;

use anyhow::{Context as _, bail};
use clap::Args;

use super::Environment;
use super::list::Format;

#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// How to print: table or json
    #[arg(short, long, default_value = "table")]
    format: String,
    /// The container's name, then options for ps [default: -ef]
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_names = ["ID", "OPTION"])]
    arguments: Vec<OsString>,
}

pub(super) fn perform(environment: &Environment<'_>, arguments: &Arguments) -> anyhow::Result<()> {
    let (id, options) = arguments
        .arguments
        .split_first()
        .context("container id cannot be empty")?;
    let pids = environment.load(&id.to_string_lossy())?.processes()?;
    let text = match Format::parse(&arguments.format)? {
        Format::Json if pids.is_empty() => "null\n".to_owned(),
        Format::Json => serde_json::to_string(&pids)? + "\n",
        Format::Table => {
            let mut command = Command::new("ps");
            if options.is_empty() {
                command.arg("-ef")
            } else {
                command.args(options)
            };
            let output = command.output().context("run ps")?;
            if !output.status.success() {
                bail!(
                    "ps: {}: {}",
                    output.status,
                    String::from_utf8_lossy(&output.stderr).trim()
                );
            }
            only(&String::from_utf8_lossy(&output.stdout), &pids)?
        }
    };
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("write to standard output")
}

/// The lines of `ps` about these processes, below the title.
fn only(output: &str, pids: &[i32]) -> anyhow::Result<String> {
    let mut lines = output.lines();
    let title = lines.next().unwrap_or_default();
    let column = title
        .split_whitespace()
        .position(|name| name == "PID")
        .context("couldn't find PID field in ps output")?;
    let mut kept = format!("{title}\n");
    for line in lines.filter(|line| !line.trim().is_empty()) {
        let cell = line.split_whitespace().nth(column).unwrap_or_default();
        let pid: i32 = cell
            .parse()
            .with_context(|| format!("unable to parse pid {cell:?}"))?;
        if pids.contains(&pid) {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_lines_of_the_container_are_kept() {
        let output = "UID  PID CMD\nroot   1 init\nroot  20 sh\n\nroot 200 sleep\n";
        assert_eq!(
            only(output, &[20, 200]).unwrap(),
            "UID  PID CMD\nroot  20 sh\nroot 200 sleep\n"
        );
        assert!(only("UID CMD\n", &[1]).is_err());
    }
}
