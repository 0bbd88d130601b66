//! `cargo xtask tidy`: the rules of the house that no compiler checks.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use cargo_metadata::{DependencyKind, MetadataCommand};

use crate::workspace;

/// The arrows between our crates that may exist. Nothing points upward.
const ARROWS: [(&str, &str); 5] = [
    ("wharf-shim", "wharf-runtime"),
    ("wharf-shim", "wharf-proto"),
    ("wharf-supervisor", "wharf-proto"),
    ("wharf-engine", "wharf-proto"),
    ("wharf-engine", "wharf-supervisor"),
];

/// What a crate must not know: packages that may not be reached from it, however indirectly.
const FORBIDDEN: [(&str, &[&str]); 2] = [
    ("wharf-runtime", &["tokio", "tonic", "prost", "tracing", "hyper"]),
    ("wharf-shim", &["tokio", "tonic", "hyper", "redb"]),
];

/// Files that are longer than the house's limit; each says why in its `//!`.
const LONG_FILE_LINES: usize = 600;

/// Entries of the top level, as the house plan fixes them.
const TOP_LEVEL: [&str; 16] = [
    ".cargo",
    ".ci",
    ".clippy.toml",
    ".config",
    ".gitignore",
    ".rustfmt.toml",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "engine",
    "integration-tests",
    "proto",
    "runtime",
    "shim",
    "supervisor",
];

/// Runs every check and lists all that is wrong.
pub(crate) fn run() -> Result<()> {
    let mut faults = Vec::new();
    arrows(&mut faults)?;
    top_level(&mut faults)?;
    for file in sources()? {
        let text = fs::read_to_string(workspace().join(&file)).with_context(|| file.display().to_string())?;
        source(&file, &text, &mut faults);
    }
    if faults.is_empty() {
        return Ok(());
    }
    for fault in &faults {
        eprintln!("{fault}");
    }
    bail!("{} faults", faults.len());
}

/// Checks `cargo metadata` against [`ARROWS`] and [`FORBIDDEN`].
fn arrows(faults: &mut Vec<String>) -> Result<()> {
    let metadata = MetadataCommand::new()
        .manifest_path(workspace().join("Cargo.toml"))
        .exec()?;
    for package in metadata.workspace_packages() {
        if package.name == "integration-tests" {
            continue;
        }
        for dependency in &package.dependencies {
            let arrow = (package.name.as_str(), dependency.name.as_str());
            let ours = dependency.name.starts_with("wharf-");
            if ours && dependency.kind == DependencyKind::Normal && !ARROWS.contains(&arrow) {
                faults.push(format!("{} must not depend on {}", arrow.0, arrow.1));
            }
        }
    }
    for (from, forbidden) in FORBIDDEN {
        // `cargo tree` resolves the features of this one package; the metadata unites those of the workspace.
        let tree = output(
            "cargo",
            &["tree", "--package", from, "--edges", "normal", "--prefix", "none"],
        )?;
        let reached: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
        for name in forbidden.iter().filter(|name| reached.contains(*name)) {
            faults.push(format!("{from} must not reach {name}"));
        }
    }
    Ok(())
}

/// The top level holds what the house plan names and nothing else.
fn top_level(faults: &mut Vec<String>) -> Result<()> {
    let listed = output("git", &["ls-tree", "--name-only", "HEAD"])?;
    for name in listed.lines() {
        if !TOP_LEVEL.contains(&name) {
            faults.push(format!("{name} does not belong at the top level"));
        }
    }
    Ok(())
}

/// Our Rust files, generated ones excepted.
fn sources() -> Result<Vec<PathBuf>> {
    let listed = output("git", &["ls-files", "*.rs"])?;
    Ok(listed
        .lines()
        .map(PathBuf::from)
        .filter(|path| !path.starts_with("proto/src/generated"))
        .collect())
}

fn source(file: &Path, text: &str, faults: &mut Vec<String>) {
    let name = file.display();
    if !text.starts_with("//!") {
        faults.push(format!("{name}: opens without a `//!` that says what it owns"));
    }
    let lines = text.lines().count();
    if lines > LONG_FILE_LINES
        && !text
            .lines()
            .take(30)
            .any(|line| line.starts_with("//!") && line.contains("long"))
    {
        faults.push(format!(
            "{name}: {lines} lines, and its `//!` does not say why it is so long"
        ));
    }
    let may_be_unsafe = file.starts_with("runtime/src/sys");
    if !may_be_unsafe && text.contains("unsafe {") && !text.contains("unsafe_code") {
        faults.push(format!("{name}: `unsafe` belongs in runtime/src/sys"));
    }
    let stem = file
        .file_stem()
        .and_then(|stem| stem.to_str())
        .unwrap_or_default();
    if ["utils", "util", "helpers", "helper", "misc", "common"].contains(&stem) {
        faults.push(format!("{name}: a file is named after what it owns"));
    }
}

fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let output = crate::shell::command(program, arguments)
        .output()
        .with_context(|| format!("run {program}"))?;
    if !output.status.success() {
        bail!(
            "{program} {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
