//! A new daemon in place of the one that serves, five times, under clients that are busy all the while.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use integration_tests::containerd::ctr;
use integration_tests::registry::Registry;
use integration_tests::{Finished, eventually, image, run};

use crate::client;
use crate::subject::{SOON, Subject};

/// Runs `attempt`, and once more if that fails.
fn once_more(what: &str, attempt: impl Fn(usize) -> Finished) -> (Finished, usize) {
    let first = attempt(0);
    if first.code == 0 {
        return (first, 0);
    }
    let second = attempt(1);
    assert!(second.code == 0, "{what} failed twice: {first} and {second}");
    (second, 1)
}

#[test]
fn clients_that_retry_once_notice_nothing() {
    const UPGRADES: usize = 5;
    let mut subject = Subject::start();
    let registry = Registry::start(&subject.scratch);
    let layout = image::busybox(&subject.scratch.directory("layout"));
    let reference = registry.reference("busybox:latest");
    registry.push(layout.path(), "latest", "busybox:latest");
    let pid = subject.detached("a", &["/bin/sleep", "1000"]);
    let end = "while ! test -e /end; do sleep 0.05; done; exit 7";
    subject.detached("b", &["/bin/sh", "-c", end]);
    let (socket, namespace) = (subject.wharfd.socket(), subject.namespace().to_owned());
    let stop = AtomicBool::new(false);
    let (executed, pulled) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let (subscribed, is_subscribed) = mpsc::channel();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            client::runtime()
                .block_on(async { client::wait(client::channel(&socket), &namespace, "b").await })
        });
        let subscriber = scope.spawn(|| {
            client::runtime().block_on(async {
                client::exits(client::channel(&socket), &namespace, "b", || {
                    subscribed.send(()).expect("the test listens");
                })
                .await
            })
        });
        is_subscribed.recv_timeout(SOON).expect("a subscription");
        let execs = scope.spawn(|| {
            let mut done = Vec::new();
            while !stop.load(Ordering::SeqCst) {
                let number = done.len();
                let (finished, attempt) = once_more("exec", |attempt| {
                    let id = format!("x{number}-{attempt}");
                    let text = number.to_string();
                    let exec = ["tasks", "exec", "--exec-id", &id, "a", "/bin/echo", &text];
                    run(ctr(&socket, &namespace).args(exec))
                });
                assert_eq!(finished.stdout, format!("{number}\n"));
                done.push(format!("x{number}-{attempt}"));
                executed.fetch_add(1, Ordering::SeqCst);
            }
            done
        });
        let pulls = scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                once_more("pull", |_| {
                    let pull = ["images", "pull", "--plain-http", &reference];
                    run(ctr(&socket, &namespace).args(pull))
                });
                run(ctr(&socket, &namespace).args(["images", "delete", "--sync", &reference])).ok();
                pulled.fetch_add(1, Ordering::SeqCst);
            }
        });
        // A panic of a client must not leave the others running for ever.
        let upgraded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..UPGRADES {
                // Some more work is done, and some is under way.
                let before = (executed.load(Ordering::SeqCst), pulled.load(Ordering::SeqCst));
                eventually("the clients get on", SOON, || {
                    let now = (executed.load(Ordering::SeqCst), pulled.load(Ordering::SeqCst));
                    (now.0 > before.0 && now.1 > before.1).then_some(())
                });
                let begin = Instant::now();
                subject.wharfd.take_over();
                println!("upgraded in {:?}", begin.elapsed());
                is_subscribed
                    .recv_timeout(SOON)
                    .expect("the subscriber comes back");
                assert_eq!(subject.pid("a"), Some(pid));
            }
        }));
        stop.store(true, Ordering::SeqCst);
        let done = execs.join();
        let pulls = pulls.join();
        std::fs::write(std::path::Path::new(&subject.root).join("end"), "").expect("end the container");
        let waited = waiter.join();
        let seen = subscriber.join();
        upgraded.expect("all upgrades");
        let (status, retries) = waited.expect("a wait that is answered");
        assert_eq!(status, 7);
        assert!(retries <= UPGRADES, "{retries} retries");
        let (done, seen) = (done.expect("execs"), seen.expect("events"));
        pulls.expect("pulls");
        for id in &done {
            assert!(seen.contains(id), "the exit of {id} was not told: {seen:?}");
        }
    });
    assert_eq!(subject.pid("a"), Some(pid));
}

#[test]
fn the_installed_executable_takes_over_when_asked_to() {
    let mut subject = Subject::unstarted();
    let programs = subject.scratch.directory("bin");
    let ours = |name: &str| integration_tests::binaries::ours(name);
    let installed = programs.join("wharfd");
    let install = |source: &std::path::Path| {
        let new = programs.join("new");
        std::fs::copy(source, &new).expect("copy a program");
        std::fs::rename(&new, &installed).expect("install a program");
    };
    install(&ours("wharfd"));
    subject.configure(&format!("shim = {:?}\n", ours("containerd-shim-wharf-v2")));
    let command = subject.wharfd.command(&[]);
    let mut started = std::process::Command::new(&installed);
    started.args(command.get_args());
    subject.wharfd.restart_as(&mut started);
    let old = subject.daemon_pid();
    let container = subject.detached("a", &["/bin/sleep", "1000"]);
    let upgrade = || run(&mut subject.wharfd.command(&["upgrade"]));

    // What cannot start is told of, and changes nothing.
    install(&integration_tests::binaries::peer("false"));
    let refused = upgrade();
    assert!(refused.code != 0, "{refused}");
    assert!(refused.stderr.contains("exit status: 1"), "{refused}");
    assert_eq!(subject.pid("a"), Some(container));
    assert!(subject.serves() && subject.daemon_pid() == old);

    install(&ours("wharfd"));
    let new: i32 = upgrade().ok().trim().parse().expect("a process id");
    assert_ne!(new, old);
    let executable = std::fs::read_link(format!("/proc/{new}/exe")).expect("the new daemon's executable");
    assert_eq!(executable, installed);
    assert_eq!(subject.pid("a"), Some(container));
    let daemon = subject.wharfd.daemon.as_mut().expect("the old daemon");
    eventually("the old daemon has ended", SOON, || {
        daemon.has_ended().then_some(())
    });
    subject.ctr(&["tasks", "delete", "--force", "a"]);
    // Nobody's child: it is ended by its id.
    let new = rustix::process::Pid::from_raw(new).expect("a process id");
    rustix::process::kill_process(new, rustix::process::Signal::TERM).expect("end the new daemon");
    eventually("the new daemon has ended", SOON, || {
        std::os::unix::net::UnixStream::connect(subject.wharfd.socket())
            .err()
            .map(drop)
    });
}
