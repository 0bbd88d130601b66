//! Many operations at once.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::engine::Engine;

/// How many at a time.
const WORKERS: usize = 8;

/// Lives of `count` containers, some of five operations each; answers the ids of those that were seen.
pub(crate) fn of(engine: &impl Engine, count: usize) -> Vec<String> {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|_| {
                scope.spawn(|| {
                    let mut ids = Vec::new();
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        if index >= count {
                            return ids;
                        }
                        ids.extend(one(engine, index));
                    }
                })
            })
            .collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().expect("a worker"))
            .collect()
    })
}

fn one(engine: &impl Engine, index: usize) -> Option<String> {
    let name = format!("crowd{index}");
    let name = name.as_str();
    match index % 4 {
        0 => {
            let code = index % 100;
            engine
                .script(&["--rm", "--tty"], &format!("exit {code}"))
                .fails_with(code as i32);
            return None;
        }
        1 => {
            engine.start(name, &[], "sleep 1000");
            assert_eq!(engine.run(&["exec", name, "/bin/echo", name]).ok().trim(), name);
            engine.run(&["pause", name]).ok();
            engine.run(&["unpause", name]).ok();
        }
        2 => {
            engine.start(name, &["--tty", "--memory", "32m"], "sleep 1000");
            engine.run(&["exec", "--detach", name, "/bin/sleep", "1000"]).ok();
            engine.run(&["restart", "--time", "0", name]).ok();
            engine.run(&["kill", name]).ok();
        }
        _ => {
            // Removed while something is executed in it.
            engine.start(name, &[], "sleep 1000");
            let id = identify(engine, name);
            std::thread::scope(|scope| {
                let busy = scope
                    .spawn(|| engine.run(&["exec", name, "/bin/sh", "-c", "while :; do /bin/true; done"]));
                engine.run(&["exec", name, "/bin/true"]).ok();
                engine.run(&["rm", "--force", name]).ok();
                assert_ne!(busy.join().expect("a worker").code, 0);
            });
            return Some(id);
        }
    }
    let id = identify(engine, name);
    engine.run(&["rm", "--force", name]).ok();
    Some(id)
}

fn identify(engine: &impl Engine, name: &str) -> String {
    let id = engine.run(&["inspect", "--format", "{{.Id}}", name]).ok();
    id.trim().to_owned()
}
