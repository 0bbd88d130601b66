//! libseccomp, behind a C program that is compiled once a test process.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use integration_tests::run;

use super::interpreter::Instruction;
use super::profile::Profile;

struct Built {
    program: PathBuf,
    _directory: tempfile::TempDir,
}

static BUILT: LazyLock<Built> = LazyLock::new(|| {
    let directory = tempfile::tempdir().expect("make a directory");
    let program = directory.path().join("libseccomp");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/seccomp/libseccomp.c");
    // Without the library or its headers this fails and says so: Debian has them in libseccomp-dev.
    run(Command::new("cc")
        .args(["-O1", "-Wall", "-Werror", "-o"])
        .args([&program, &source])
        .arg("-lseccomp"))
    .ok();
    Built {
        program,
        _directory: directory,
    }
});

/// The system calls that libseccomp knows on an architecture, by name.
pub fn names(arch: &str) -> BTreeMap<String, u32> {
    let listed = run(Command::new(&BUILT.program).args(["names", arch])).ok();
    let line = |line: &str| {
        let (number, name) = line.split_once(' ').expect("NUMBER NAME");
        (name.to_owned(), number.parse().expect("a number"))
    };
    listed.lines().map(line).collect()
}

/// A filter of libseccomp's.
pub struct Filter {
    pub program: Vec<Instruction>,
    /// What the names of its rules are on its architectures, as runc asks for it: a call of i386 that is multiplexed has a
    /// negative number.
    pub calls: Vec<(String, String, i64)>,
}

/// What libseccomp makes of a profile; nothing when it refuses it as contradictory.
pub fn filter(profile: &Profile) -> Option<Filter> {
    let mut child = Command::new(&BUILT.program)
        .arg("filter")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start the reference");
    let mut input = child.stdin.take().expect("it is a pipe");
    let lines = profile.lines();
    // It reads everything before it writes much, but a contradiction ends it early.
    let writer = std::thread::spawn(move || drop(input.write_all(lines.as_bytes())));
    let output = child.wait_with_output().expect("hear the reference");
    writer.join().expect("tell the reference");
    match output.status.code() {
        Some(0) => {}
        Some(3) => return None,
        _ => panic!("{}", String::from_utf8_lossy(&output.stderr)),
    }
    let mark = b"program\n";
    let at = output
        .stdout
        .windows(mark.len())
        .position(|window| window == mark);
    let (text, program) = output.stdout.split_at(at.expect("a program") + mark.len());
    let text = str::from_utf8(text).expect("lines of text");
    let calls = text
        .lines()
        .filter_map(|line| line.strip_prefix("call "))
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            (
                words[0].to_owned(),
                words[1].to_owned(),
                words[2].parse().expect("a number"),
            )
        });
    let instruction = |bytes: &[u8]| {
        let code = u16::from_ne_bytes([bytes[0], bytes[1]]);
        let k = u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        (code, bytes[2], bytes[3], k)
    };
    Some(Filter {
        program: program.chunks_exact(8).map(instruction).collect(),
        calls: calls.collect(),
    })
}
