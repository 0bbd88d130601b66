//! The runtime's own program and descriptors, as a container sees them.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use integration_tests::{Finished, run};
use serde_json::{Value, json};

use crate::attack::Attack;

/// Opens the program of the process that was started as `/proc/self/exe`, and writes to it when it ended.
const OVERWRITE: &str = r#"
echo ready
while :; do
  for p in /proc/[0-9]*; do
    IFS= read -r line <$p/cmdline 2>/dev/null
    case $line in
      /proc/self/exe*--log*) (: <$p/exe) && exec 5<$p/exe && echo opened && break 2;;
    esac
  done
done 2>/dev/null
cat /door >/dev/null
while [ -e $p/exe ]; do sleep 0.02; done
for n in 1 2 3; do echo gone >/proc/self/fd/5; done && echo WRITTEN || echo refused
sleep 100
"#;

#[test]
fn cve_2019_5736_the_program_cannot_be_overwritten() {
    let mut attack = Attack::new();
    // A copy: if this fails, it takes the copy.
    let copy = attack.scratch.join("wharf-runtime");
    fs::copy(&attack.program, &copy).expect("copy");
    attack.program.clone_from(&copy);
    let before = fs::read(&copy).expect("read");
    fs::write(attack.rootfs("overwrite"), OVERWRITE).expect("write");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        attack.rootfs("door"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o666),
        0,
    )
    .expect("mkfifo");
    attack.configure(&["/bin/sh", "/overwrite"], |_| {});
    attack.start();
    attack.says("ready");
    // Inside, this is the runtime itself; it stops at the FIFO long enough for its file to be opened.
    let ended = attack.exec(&[], &["/proc/self/exe", "--log", "/door", "state", "none"]);
    assert_ne!(ended.code, 0, "{ended}");
    attack.says("opened");
    attack.says("refused");
    assert!(!attack.said().contains("WRITTEN"), "{}", attack.said());
    assert!(
        fs::read(&copy).expect("read") == before,
        "the program was overwritten"
    );
    attack.delete();
}

/// Runs the runtime with descriptors 3 to 64 open on directories of the host, none of them close-on-exec.
fn with_descriptors(command: &Command) -> Finished {
    let mut shell = Command::new("bash");
    shell.args([
        "-c",
        "for n in {3..64}; do eval \"exec $n</\"; done; [ -e /proc/self/fd/64 ] && exec \"$@\"",
        "bash",
    ]);
    run(shell.arg(command.get_program()).args(command.get_args()))
}

fn descriptors(finished: Finished) -> Vec<i32> {
    let report: Value = serde_json::from_str(&finished.ok()).expect("the probe prints JSON");
    let mut numbers: Vec<i32> = report["descriptors"]
        .as_object()
        .expect("object")
        .keys()
        .map(|number| number.parse().expect("a number"))
        .collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn only_declared_descriptors_reach_a_container() {
    let attack = Attack::new();
    attack.configure(&["/bin/probe", "identity"], |_| {});
    let bundle = attack.scratch.join("bundle");
    for (preserve, kept) in [("0", 2), ("1", 3), ("9", 11)] {
        let mut command = attack.command(&["run", "--preserve-fds", preserve, "--bundle"]);
        command.arg(&bundle).arg(attack.id());
        let expected: Vec<i32> = (0..=kept).collect();
        assert_eq!(
            descriptors(with_descriptors(&command)),
            expected,
            "run {preserve}"
        );
    }
    attack.configure(&["/bin/sleep", "100"], |_| {});
    attack.start();
    for (preserve, kept) in [("0", 2), ("1", 3), ("9", 11)] {
        let flags = [
            "exec",
            "--preserve-fds",
            preserve,
            attack.id(),
            "/bin/probe",
            "identity",
        ];
        let expected: Vec<i32> = (0..=kept).collect();
        let found = descriptors(with_descriptors(&attack.command(&flags)));
        assert_eq!(found, expected, "exec {preserve}");
    }
    attack.delete();
}

/// A hook that runs in the container executes what lies there.
#[test]
fn no_descriptor_reaches_a_hook_in_the_container() {
    let attack = Attack::new();
    let script = "exec >/found 2>/dev/null; for n in $(seq 3 64); do (exec <&$n) && echo $n; done; echo end";
    attack.configure(&["/bin/true"], |spec| {
        spec["root"]["readonly"] = false.into();
        spec["hooks"] = json!({"startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]});
    });
    let mut command = attack.command(&["run", "--bundle"]);
    command.arg(attack.scratch.join("bundle")).arg(attack.id());
    with_descriptors(&command).ok();
    let found = fs::read_to_string(attack.rootfs("found")).expect("what the hook found");
    assert_eq!(found, "end\n");
}

#[test]
fn cve_2024_21626_the_working_directory_is_inside() {
    let attack = Attack::new();
    let up = format!("../../../../../../..{}/secret", attack.canary().display());
    let bundle = attack.scratch.join("bundle");
    // All of them open, and kept: the worst that a caller can do.
    for number in [3, 7, 8, 12] {
        let direct = format!("/proc/self/fd/{number}");
        let link = attack.rootfs(&format!("link{number}"));
        symlink(&direct, &link).expect("symlink");
        for cwd in [direct.clone(), format!("/link{number}"), format!("{direct}/..")] {
            attack.configure(&["/bin/cat", &up], |spec| {
                spec["process"]["cwd"] = cwd.as_str().into();
            });
            let mut command = attack.command(&["run", "--preserve-fds", "20", "--bundle"]);
            let ended = with_descriptors(command.arg(&bundle).arg(attack.id()));
            assert!(!ended.stdout.contains("of the host"), "run in {cwd}: {ended}");
            assert_ne!(ended.code, 0, "run in {cwd}: {ended}");
        }
    }
    attack.configure(&["/bin/sleep", "100"], |_| {});
    attack.start();
    for cwd in ["/proc/self/fd/3", "/link7", "/proc/self/fd/12/.."] {
        let flags = [
            "exec",
            "--preserve-fds",
            "20",
            "--cwd",
            cwd,
            attack.id(),
            "/bin/cat",
            &up,
        ];
        let ended = with_descriptors(&attack.command(&flags));
        assert!(!ended.stdout.contains("of the host"), "exec in {cwd}: {ended}");
        assert_ne!(ended.code, 0, "exec in {cwd}: {ended}");
    }
    attack.delete();
    attack.lost_nothing("the working directory");
}
