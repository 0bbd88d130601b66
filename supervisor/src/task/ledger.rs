//! Which exits were published: an exit is told once, whoever finds out first.
//!
//! A shim publishes the exits of its processes, and tries again when the daemon does not answer; the daemon publishes
//! those that no shim can tell any more. The ledger is what both ask first.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// How many exits are remembered. A shim repeats itself when it has heard no answer, and gives up after a minute.
const REMEMBERED: usize = 8 << 10;

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

/// A name as 128 bits of keyed hash: sixteen bytes instead of some strings, and no two names have ever the same.
type Mark = u128;

#[derive(Debug, Default)]
struct Entries {
    keys: [RandomState; 2],
    /// The ends of each task's processes, so that an id that is reused costs one look-up.
    tasks: HashMap<Mark, Vec<Mark>>,
    /// All of them by age, with their tasks. Those of forgotten tasks stay until they are the oldest.
    order: VecDeque<(Mark, Mark)>,
}

impl Entries {
    fn mark(&self, name: impl Hash) -> Mark {
        let [high, low] = &self.keys;
        Mark::from(high.hash_one(&name)) << 64 | Mark::from(low.hash_one(&name))
    }

    fn task(&self, namespace: &str, container: &str) -> Mark {
        self.mark((namespace, container))
    }

    /// The marks of the task and of the end.
    fn marks(&self, exit: &Exit) -> (Mark, Mark) {
        (
            self.task(&exit.namespace, &exit.container),
            self.mark((&exit.process, exit.pid)),
        )
    }

    fn contains(&self, exit: &Exit) -> bool {
        let (task, end) = self.marks(exit);
        self.tasks.get(&task).is_some_and(|ends| ends.contains(&end))
    }

    fn evict(&mut self) {
        let Some((task, end)) = self.order.pop_front() else {
            return;
        };
        if let Some(ends) = self.tasks.get_mut(&task) {
            // The oldest is among the first.
            if let Some(place) = ends.iter().position(|other| *other == end) {
                ends.remove(place);
            }
            if ends.is_empty() {
                self.tasks.remove(&task);
            }
        }
    }
}

impl Ledger {
    /// Enters `exit`; `false` when it is there already, and must not be published again.
    pub fn enter(&self, exit: &Exit) -> bool {
        let mut entries = self.entries();
        let (task, end) = entries.marks(exit);
        let ends = entries.tasks.entry(task).or_default();
        if ends.contains(&end) {
            return false;
        }
        ends.push(end);
        entries.order.push_back((task, end));
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
        let mut entries = self.entries();
        let task = entries.task(namespace, container);
        entries.tasks.remove(&task);
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
        assert!(ledger.enter(&exit("a", 1)));
        assert!(!ledger.enter(&exit("a", 1)));
        assert!(ledger.enter(&exit("a", 2)));
        assert!(ledger.enter(&exit("b", 1)));
        ledger.forget("ns", "a");
        assert!(ledger.enter(&exit("a", 1)));
        assert!(!ledger.enter(&exit("b", 1)));
    }

    #[test]
    fn memory_is_bounded() {
        let ledger = Ledger::default();
        for pid in 0..REMEMBERED as u32 + 10 {
            assert!(ledger.enter(&exit("a", pid)));
        }
        assert_eq!(
            ledger.entries().tasks.values().map(Vec::len).sum::<usize>(),
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
        ledger.enter(&exit("a", 1));
        tokio::time::timeout(Duration::from_secs(1), waiting)
            .await
            .unwrap();
    }
}
