//! Whether the scripts use all that `ctr --help` tells of.

use std::process::Command;

use integration_tests::{binaries, run};

use crate::{content, images, install, processes, snapshots, tasks};

/// Flags that no script needs to use, by the beginning of the command, with the reason.
const LEFT_OUT: &[(&str, &[&str], &str)] = &[
    (
        "",
        &[
            "--skip-verify",
            "--plain-http",
            "--user",
            "--refresh",
            "--hosts-dir",
            "--tlscacert",
            "--tlscert",
            "--tlskey",
            "--http-dump",
            "--http-trace",
            "--label",
        ],
        "of ctr's own way to a registry, the same in each command; `images pull` has them all",
    ),
    ("", &["--help", "--snapshotter"], "the same in each command"),
    (
        "containers create",
        &[""],
        "the flags of `run`, which has them all",
    ),
    ("run", &["--rdt-class"], "needs a processor with RDT"),
    (
        "run",
        &["--remap-labels"],
        "asks for mounts with mapped ids, as containerd 2 gives them, which this ctr cannot make",
    ),
    (
        "run",
        &["--tty", "--mount"],
        "used by a variable or through a terminal",
    ),
    ("tasks exec", &["--tty"], "used through a terminal"),
    (
        "tasks checkpoint",
        &["--exit", "--image-path", "--work-path"],
        "needs a criu that works on this kernel",
    ),
    ("shim exec", &["--tty", "--attach"], "of ctr's own streams"),
];

/// A command without subcommands, and each of its flags with all its names.
struct Leaf {
    names: Vec<Vec<String>>,
    flags: Vec<Vec<String>>,
}

/// The lines of a section of `help`.
fn section<'a>(help: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let head = format!("{name}:");
    help.lines()
        .skip_while(move |line| *line != head)
        .skip(1)
        .take_while(|line| !line.trim().is_empty())
}

/// The names at the beginning of a line: `list, ls  lists …`, `--quiet, -q  print …`.
fn names(line: &str) -> Vec<String> {
    let end = line.trim().find("  ").unwrap_or(line.trim().len());
    line.trim()[..end]
        .split(", ")
        .map(|name| name.split(' ').next().unwrap_or_default().to_owned())
        .collect()
}

fn leaves(path: &[Vec<String>], found: &mut Vec<Leaf>) {
    let mut command = Command::new(binaries::peer("ctr"));
    command.args(path.iter().map(|names| &names[0])).arg("--help");
    let help = run(&mut command).ok();
    let commands: Vec<_> = section(&help, "COMMANDS").map(names).collect();
    if commands.is_empty() {
        let flags = section(&help, "OPTIONS").map(names);
        found.push(Leaf {
            names: path.to_vec(),
            flags: flags.collect(),
        });
    }
    for names in commands {
        if names[0] != "help" {
            leaves(&[path, &[names]].concat(), found);
        }
    }
}

/// The words of a call of `ctr`, if it is one of this command.
fn calls<'a>(leaf: &Leaf, words: &[&'a str]) -> Option<Vec<&'a str>> {
    let mut rest = words;
    for (depth, names) in leaf.names.iter().enumerate() {
        // Flags of the group, with their values.
        while depth > 0 && rest.first().is_some_and(|word| word.starts_with('-')) {
            rest = rest.get(2..)?;
        }
        let (word, after) = rest.split_first()?;
        if !names.iter().any(|name| name == word.trim_end_matches(';')) {
            return None;
        }
        rest = after;
    }
    Some(rest.to_vec())
}

#[test]
fn every_command_and_flag_of_ctr_is_used() {
    let scripts = [
        images::SCRIPTS,
        install::SCRIPTS,
        content::SCRIPTS,
        snapshots::SCRIPTS,
        tasks::SCRIPTS,
        processes::SCRIPTS,
    ];
    let text = scripts
        .concat()
        .join("; ")
        .replace("ctr --address $SOCKET", "ctr");
    let used: Vec<Vec<&str>> = text
        .split("ctr ")
        .map(|call| call.split_whitespace().collect())
        .collect();
    let mut found = Vec::new();
    leaves(&[], &mut found);
    assert!(found.len() > 60, "{} commands", found.len());
    let mut missing = Vec::new();
    for leaf in &found {
        let name = leaf
            .names
            .iter()
            .map(|names| names[0].as_str())
            .collect::<Vec<_>>()
            .join(" ");
        let words: Vec<_> = used.iter().filter_map(|words| calls(leaf, words)).collect();
        if words.is_empty() {
            missing.push(name.clone());
        }
        let words: Vec<_> = words.into_iter().flatten().collect();
        for flag in &leaf.flags {
            let is_used = words
                .iter()
                .any(|word| flag.iter().any(|name| name == word.trim_end_matches(';')));
            let left_out = LEFT_OUT.iter().any(|(command, flags, _)| {
                let whole = *command == name || command.is_empty() && name != "images pull";
                whole && (flags.contains(&"") || flags.contains(&flag[0].as_str()))
            });
            if !is_used && !left_out && flag[0] != "--help" {
                missing.push(format!("{name} {}", flag[0]));
            }
        }
    }
    assert!(missing.is_empty(), "no script uses {missing:#?}");
}
