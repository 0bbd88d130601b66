//! Many operations at once: few containers, and at least [`LEAST`] commands on them from all sides.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::engine::Engine;

/// How many at a time, each with a container of its own.
const WORKERS: usize = 6;

/// How often each worker does all that a container survives.
const ROUNDS: usize = 3;

/// The operations that were promised.
const LEAST: usize = 200;

/// An engine whose commands are counted.
struct Crowd<'a, E> {
    engine: &'a E,
    operations: AtomicUsize,
}

/// Does them; answers the ids of the containers that were there.
pub(crate) fn of(engine: &impl Engine) -> Vec<String> {
    let crowd = Crowd {
        engine,
        operations: AtomicUsize::new(0),
    };
    crowd.start("shared", &[]);
    let mut ids = vec![crowd.identify("shared")];
    std::thread::scope(|scope| {
        let crowd = &crowd;
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| scope.spawn(move || crowd.work(worker)))
            .collect();
        ids.extend(workers.into_iter().map(|worker| worker.join().expect("a worker")));
    });
    crowd.ok(&["rm", "--force", "shared"]);
    let operations = crowd.operations.into_inner();
    eprintln!("{operations} operations");
    assert!(operations >= LEAST, "{operations} operations");
    ids
}

impl<E: Engine> Crowd<'_, E> {
    fn count(&self) {
        self.operations.fetch_add(1, Ordering::Relaxed);
    }

    fn ok(&self, arguments: &[&str]) -> String {
        self.count();
        self.engine.run(arguments).ok()
    }

    fn start(&self, name: &str, options: &[&str]) {
        self.count();
        self.engine
            .start(name, options, "trap : WINCH; while :; do sleep 0.2; done");
    }

    fn identify(&self, name: &str) -> String {
        let id = self.ok(&["inspect", "--format", "{{.Id}}", name]);
        id.trim().to_owned()
    }

    fn work(&self, worker: usize) -> String {
        let name = format!("crowd{worker}");
        let name = name.as_str();
        let options: &[&str] = if worker.is_multiple_of(2) { &["--tty"] } else { &[] };
        self.start(
            name,
            &[options, &["--memory", "64m", "--memory-swap", "64m"]].concat(),
        );
        let id = self.identify(name);
        for round in 0..ROUNDS {
            let word = format!("{name}-{round}");
            assert_eq!(self.ok(&["exec", name, "/bin/echo", &word]).trim(), word);
            assert_eq!(self.ok(&["exec", "shared", "/bin/echo", &word]).trim(), word);
            self.ok(&["exec", "--detach", name, "/bin/sleep", "1000"]);
            self.ok(&["pause", name]);
            self.ok(&["unpause", name]);
            self.ok(&["update", "--cpu-shares", &format!("{}", 100 + round), name]);
            assert!(self.ok(&["top", name]).contains("sleep 1000"));
            self.ok(&["kill", "--signal", "WINCH", name]);
            assert_eq!(self.identify(name), id);
        }
        self.count();
        let code = worker as i32 + 3;
        self.engine
            .script(&["--rm", "--tty"], &format!("exit {code}"))
            .fails_with(code);
        self.ok(&["restart", "--time", "0", name]);
        self.ok(&["kill", name]);
        self.ok(&["start", name]);
        // Removed while something is executed in it.
        std::thread::scope(|scope| {
            let busy = scope.spawn(|| {
                self.count();
                let script = "while :; do /bin/true; done";
                self.engine.run(&["exec", name, "/bin/sh", "-c", script])
            });
            self.ok(&["exec", name, "/bin/true"]);
            self.ok(&["rm", "--force", name]);
            assert_ne!(busy.join().expect("a worker").code, 0);
        });
        id
    }
}
