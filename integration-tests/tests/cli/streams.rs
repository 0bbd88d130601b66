//! Output, input, exit codes and signals of attached containers.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use integration_tests::run;
use rustix::process::{Pid, Signal, kill_process};

use crate::instance::{Instance, run_with_input};

#[test]
fn output_goes_to_the_stream_it_was_written_to_and_the_code_is_the_process_s() {
    let instance = Instance::start();
    let finished = instance.run(&[], &["sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!(
        (finished.stdout.as_str(), finished.stderr.as_str(), finished.code),
        ("out\n", "err\n", 7)
    );
    // Of a child: the kernel protects the first process of a namespace from signals out of it.
    assert_eq!(
        instance
            .run(&[], &["sh", "-c", "sh -c 'kill -9 $$'; exit $?"])
            .code,
        137
    );
    assert_eq!(instance.wharf.run(&["ps", "-aq"]).ok(), "", "--rm leaves nothing");
}

#[test]
fn nothing_of_a_large_output_is_lost_when_the_process_ends_at_once() {
    let instance = Instance::start();
    let expected: String = (1..=200_000).map(|number| format!("{number}\n")).collect();
    let output = instance.run(&[], &["seq", "1", "200000"]).ok();
    assert!(
        output == expected,
        "{} bytes instead of {}",
        output.len(),
        expected.len()
    );
}

#[test]
fn stdin_is_passed_on_to_its_end() {
    let instance = Instance::start();
    let input: Vec<u8> = (0..3 << 20).map(|at: u32| b'a' + (at % 23) as u8).collect();
    let text = String::from_utf8(input.clone()).expect("letters");
    let arguments = instance.run_arguments(&["--rm", "-i"], &["cat"]);
    let output = run_with_input(&mut instance.wharf.command(&arguments), input.clone()).ok();
    assert!(output == text, "run: {} bytes came back", output.len());

    instance.detached("idle", &[], &["sleep", "1000"]);
    let mut exec = instance.wharf.command(&["exec", "-i", "idle", "cat"]);
    let output = run_with_input(&mut exec, input).ok();
    assert!(output == text, "exec: {} bytes came back", output.len());

    // Without -i the process sees the end of its stdin at once, whatever ours is.
    let arguments = instance.run_arguments(&["--rm"], &["cat"]);
    let mut command = instance.wharf.command(&arguments);
    let finished = run(command.stdin(Stdio::null()));
    assert_eq!(finished.ok(), "");
}

#[test]
fn the_class_of_a_failure_shows_in_the_exit_code() {
    let instance = Instance::start();
    instance.run(&[], &["no-such-program"]).fails_with(127);
    instance.run(&[], &["/etc/passwd"]).fails_with(126);
    instance.run(&["--no-such-flag"], &["true"]).fails_with(125);
    instance.run(&["--memory", "much"], &["true"]).fails_with(125);
    let error = instance.run(&["--publish", "80:80"], &["true"]).fails_with(125);
    assert!(error.contains("--publish is not supported yet"), "{error}");
    let error = instance
        .run(&["--user", "nobody-here"], &["true"])
        .fails_with(125);
    assert!(error.contains("nobody-here"), "{error}");
    assert_eq!(instance.wharf.run(&["ps", "-aq"]).ok(), "");

    instance.detached("idle", &[], &["sleep", "1000"]);
    instance
        .wharf
        .run(&["exec", "idle", "sh", "-c", "exit 3"])
        .fails_with(3);
    instance
        .wharf
        .run(&["exec", "idle", "no-such-program"])
        .fails_with(127);
    instance
        .wharf
        .run(&["exec", "idle", "/etc/passwd"])
        .fails_with(126);
    let error = instance.wharf.run(&["exec", "nobody", "true"]).fails_with(1);
    assert!(error.contains("Error: No such container: nobody"), "{error}");
    let error = instance.wharf.run(&["rm", "idle"]).fails_with(1);
    assert!(error.contains("wharf rm -f idle"), "{error}");
}

#[test]
fn signals_to_the_command_reach_the_process() {
    let instance = Instance::start();
    for (signal, name, code) in [
        (Signal::TERM, "TERM", 5),
        (Signal::INT, "INT", 6),
        (Signal::USR1, "USR1", 7),
    ] {
        let script = format!("trap 'echo got; exit {code}' {name}; echo ready; while :; do sleep 0.05; done");
        let arguments = instance.run_arguments(&["--rm"], &["sh", "-c", &script]);
        let mut child = instance
            .wharf
            .command(&arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start wharf");
        let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        output.read_line(&mut line).expect("read");
        assert_eq!(line, "ready\n");
        let pid = Pid::from_child(&child);
        kill_process(pid, signal).expect("signal wharf");
        let mut rest = String::new();
        output.read_to_string(&mut rest).expect("read");
        assert_eq!(rest, "got\n", "{name}");
        assert_eq!(child.wait().expect("wait").code(), Some(code), "{name}");
    }
}
