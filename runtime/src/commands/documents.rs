//! What is made from the grammar of the command line and kept beside the sources: manual pages and completions.
//!
//! The test fails when they are not what would be made. `cargo xtask man` makes them: with [`WRITE`] in the environment the test
//! writes what it would have compared.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use clap_complete::Shell;

use super::usage::{self, Flags};

const WRITE: &str = "WHARF_WRITE_DOCUMENTS";

/// Each document's place below the crate, and its text.
fn documents() -> Vec<(String, String)> {
    let version = env!("CARGO_PKG_VERSION");
    let mut command = usage::command(&["wharf-runtime".into()], Flags::Plain).version(version);
    let mut documents = vec![page(command.clone(), "wharf-runtime")];
    for subcommand in command.get_subcommands().filter(|it| it.get_name() != "help") {
        let name = format!("wharf-runtime-{}", subcommand.get_name());
        let subcommand = subcommand.clone().version(version);
        documents.push(page(subcommand, &name));
    }
    for (shell, file) in [
        (Shell::Fish, "wharf-runtime.fish"),
        (Shell::Zsh, "_wharf-runtime"),
    ] {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut command, "wharf-runtime", &mut text);
        documents.push((format!("completions/{file}"), String::from_utf8(text).unwrap()));
    }
    documents
}

fn page(command: clap::Command, name: &str) -> (String, String) {
    let page = clap_mangen::Man::new(command.display_name(name.to_owned()))
        .section("8")
        .title(name.to_uppercase())
        .source("Wharf")
        .manual("Wharf's manual");
    let mut text = Vec::new();
    page.render(&mut text).unwrap();
    (format!("man/{name}.8"), String::from_utf8(text).unwrap())
}

#[test]
fn manual_pages_and_completions_are_what_the_program_takes() {
    let crate_directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    let documents = documents();
    if std::env::var_os(WRITE).is_some() {
        fs::create_dir_all(crate_directory.join("man")).unwrap();
        for (path, text) in &documents {
            fs::write(crate_directory.join(path), text).unwrap();
        }
    }
    for (path, text) in &documents {
        let kept = fs::read_to_string(crate_directory.join(path)).unwrap_or_default();
        assert!(
            kept == *text,
            "{path} is not what would be made: `cargo xtask man` makes it"
        );
    }
    for entry in fs::read_dir(crate_directory.join("man")).unwrap() {
        let name = entry.unwrap().file_name();
        let known = documents
            .iter()
            .any(|(path, _)| Path::new(path).file_name() == Some(OsStr::new(&name)));
        assert!(known, "there is no such command: {}", name.display());
    }
}

/// Beside the lists of the grammar: each flag that a page should have is in it.
#[test]
fn every_flag_is_in_its_manual_page() {
    let documents = documents();
    let text = |name: &str| {
        let path = format!("man/{name}.8");
        let (_, text) = documents.iter().find(|(at, _)| *at == path).expect(name);
        text.replace("\\-", "-")
    };
    let command = usage::command(&["wharf-runtime".into()], Flags::Plain);
    let check = |command: &clap::Command, name: &str| {
        let page = text(name);
        for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
            if let Some(long) = argument.get_long() {
                assert!(page.contains(&format!("--{long}")), "{name}: --{long}");
            }
        }
    };
    check(&command, "wharf-runtime");
    for subcommand in command.get_subcommands().filter(|it| it.get_name() != "help") {
        check(subcommand, &format!("wharf-runtime-{}", subcommand.get_name()));
    }
}
