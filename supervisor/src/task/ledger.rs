//! Which exits were published: an exit is told once, whoever finds out first.
//!
//! A shim publishes the exits of its processes, and tries again when the daemon does not answer; the daemon publishes
//! those that no shim can tell any more. The ledger is what both ask first.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// How many exits are remembered. A shim gives up repeating itself after seconds.
const REMEMBERED: usize = 16 << 10;

/// One end of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The namespace of the task.
    pub namespace: String,
    /// The task.
    pub container: String,
    /// The exec, or the task's own id for its init process.
    pub process: String,
    /// The process.
    pub pid: u32,
}

/// The exits that were published lately.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: Mutex<Entries>,
    entered: Notify,
}

#[derive(Debug, Default)]
struct Entries {
    /// The ends of each task's processes, by namespace and task, so that an id that is reused costs one look-up.
    tasks: HashMap<(String, String), HashSet<(String, u32)>>,
    /// All of them by age. Those of forgotten tasks stay until they are the oldest.
    order: VecDeque<Exit>,
}

impl Entries {
    fn contains(&self, exit: &Exit) -> bool {
        let ends = self.tasks.get(&exit.task());
        ends.is_some_and(|ends| ends.contains(&exit.end()))
    }

    fn evict(&mut self) {
        let Some(oldest) = self.order.pop_front() else {
            return;
        };
        let task = oldest.task();
        if let Some(ends) = self.tasks.get_mut(&task) {
            ends.remove(&oldest.end());
            if ends.is_empty() {
                self.tasks.remove(&task);
            }
        }
    }
}

impl Exit {
    fn task(&self) -> (String, String) {
        (self.namespace.clone(), self.container.clone())
    }

    fn end(&self) -> (String, u32) {
        (self.process.clone(), self.pid)
    }
}

impl Ledger {
    /// Enters `exit`; `false` when it is there already, and must not be published again.
    pub fn enter(&self, exit: Exit) -> bool {
        let mut entries = self.entries();
        if !entries.tasks.entry(exit.task()).or_default().insert(exit.end()) {
            return false;
        }
        entries.order.push_back(exit);
        if entries.order.len() > REMEMBERED {
            entries.evict();
        }
        drop(entries);
        self.entered.notify_waiters();
        true
    }

    /// Waits until `exit` is entered.
    pub async fn wait(&self, exit: &Exit) {
        loop {
            let entered = self.entered.notified();
            tokio::pin!(entered);
            // Registered before the look, so that an entry in between is not missed.
            entered.as_mut().enable();
            if self.entries().contains(exit) {
                return;
            }
            entered.await;
        }
    }

    /// Forgets the exits of a task whose id is about to be used again, since pids come round.
    pub fn forget(&self, namespace: &str, container: &str) {
        let task = (namespace.to_owned(), container.to_owned());
        self.entries().tasks.remove(&task);
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        // A panic half-way costs at worst one event that is told twice.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn exit(container: &str, pid: u32) -> Exit {
        Exit {
            namespace: "ns".to_owned(),
            container: container.to_owned(),
            process: container.to_owned(),
            pid,
        }
    }

    #[test]
    fn an_exit_is_told_once_until_its_id_is_reused() {
        let ledger = Ledger::default();
        assert!(ledger.enter(exit("a", 1)));
        assert!(!ledger.enter(exit("a", 1)));
        assert!(ledger.enter(exit("a", 2)));
        assert!(ledger.enter(exit("b", 1)));
        ledger.forget("ns", "a");
        assert!(ledger.enter(exit("a", 1)));
        assert!(!ledger.enter(exit("b", 1)));
    }

    #[test]
    fn memory_is_bounded() {
        let ledger = Ledger::default();
        for pid in 0..REMEMBERED as u32 + 10 {
            assert!(ledger.enter(exit("a", pid)));
        }
        assert_eq!(
            ledger.entries().tasks.values().map(HashSet::len).sum::<usize>(),
            REMEMBERED
        );
        assert_eq!(ledger.entries().order.len(), REMEMBERED);
    }

    #[tokio::test]
    async fn waiting_ends_with_the_entry() {
        let ledger = Ledger::default();
        let wanted = exit("a", 1);
        let waiting = ledger.wait(&wanted);
        tokio::pin!(waiting);
        let early = tokio::time::timeout(Duration::from_millis(5), waiting.as_mut()).await;
        assert!(early.is_err());
        ledger.enter(exit("a", 1));
        tokio::time::timeout(Duration::from_secs(1), waiting)
            .await
            .unwrap();
    }
}
