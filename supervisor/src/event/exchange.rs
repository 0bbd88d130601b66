//! The ordered log and its subscriptions.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prost::Message;
use prost_types::{Any, Timestamp};
use tokio::sync::watch;
use wharf_proto::containerd::types::Envelope;

use super::check;
use crate::error::Result;
use crate::filter::Filters;

/// How long after a restart a new subscription still receives what was recovered: time for clients to notice that the
/// daemon is back.
const RECOVERY: Duration = Duration::from_secs(60);

/// What can happen to a task without a client's doing, between a restart and the moment when clients are back.
const UNASKED: [&str; 3] = ["/tasks/exit", "/tasks/oom", "/tasks/delete"];

/// One event and its place in the order.
#[derive(Debug)]
pub struct Entry {
    /// Rises by one with each event of this process, from 1.
    pub sequence: u64,
    /// The event as clients receive it.
    pub envelope: Envelope,
}

/// Where a subscription begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the next event. Within the first minute after a restart also what [`Exchange::recover`] told, and what has
    /// become of tasks since ([`Exchange::await_clients`]).
    Now,
    /// With the event after this sequence number: 0 is the oldest one kept.
    #[cfg_attr(
        not(test),
        expect(
            dead_code,
            reason = "containerd's protocol cannot say it; readers in the same process can"
        )
    )]
    After(u64),
}

/// A subscriber was too slow: what it has not read yet is no longer kept.
#[derive(Debug, thiserror::Error)]
#[error("subscriber fell behind: {missed} events lost")]
pub struct Lagged {
    /// How many events, of all topics, lie between the last one read and the oldest one kept.
    pub missed: u64,
}

/// How much the log keeps. The oldest entries go first.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// At most that many entries.
    pub entries: usize,
    /// At most that many encoded bytes.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 8 << 10,
            bytes: 4 << 20,
        }
    }
}

/// The event log of one daemon.
///
/// Publishing never blocks and never fails for want of a reader: subscribers hold a position in the one log instead of
/// queues of their own, so memory is bounded by [`Limits`] however many there are and however slow.
#[derive(Debug)]
pub struct Exchange {
    log: Mutex<Log>,
    limits: Limits,
    /// The sequence number of the latest entry; dropped when the exchange is closed.
    latest: Mutex<Option<watch::Sender<u64>>>,
}

#[derive(Debug)]
struct Log {
    latest: u64,
    bytes: usize,
    entries: VecDeque<(Arc<Entry>, usize)>,
    recovered: Vec<Arc<Entry>>,
    recovery_ends: Option<Instant>,
    /// Until when new subscriptions begin with everything that is kept: see [`Exchange::replay_for`].
    replay_ends: Option<Instant>,
    /// The last entry that subscriptions still receive, once the exchange is closed.
    closed: Option<u64>,
}

impl Default for Exchange {
    fn default() -> Self {
        Self::with_limits(Limits::default())
    }
}

impl Exchange {
    /// An empty log with the default limits.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty log.
    pub fn with_limits(limits: Limits) -> Self {
        Self {
            log: Mutex::new(Log {
                latest: 0,
                bytes: 0,
                entries: VecDeque::new(),
                recovered: Vec::new(),
                recovery_ends: None,
                replay_ends: None,
                closed: None,
            }),
            limits,
            latest: Mutex::new(Some(watch::Sender::new(0))),
        }
    }

    /// Appends `event` under `topic` (`/images/create`) in `namespace`, stamped now. For events of this crate, whose
    /// topics and namespaces are known to be well-formed.
    pub fn publish(&self, namespace: &str, topic: &str, event: Any) {
        self.append(envelope(namespace, topic, event));
    }

    /// Appends an envelope that somebody else filled in.
    ///
    /// # Errors
    ///
    /// `InvalidArgument`: its namespace, topic or time is not acceptable.
    pub fn forward(&self, envelope: Envelope) -> Result<()> {
        check::envelope(&envelope)?;
        self.append(envelope);
        Ok(())
    }

    /// Like [`Exchange::publish`] for what happened, at `time`, while no daemon ran. Nobody can be subscribed when that
    /// is found out, so for a minute each new subscription begins with it.
    pub fn recover(&self, namespace: &str, topic: &str, event: Any, time: Option<Timestamp>) {
        let mut envelope = envelope(namespace, topic, event);
        envelope.timestamp = time.or(envelope.timestamp);
        self.await_clients();
        self.append(envelope);
    }

    /// Tasks run on from before a restart, and their clients were cut off: for a minute each new subscription begins
    /// with the ends of tasks that were published since. A client that hears of the restart only now would never hear
    /// of them, and would wait for ever.
    pub fn await_clients(&self) {
        self.log().recovery_ends = Some(Instant::now() + RECOVERY);
    }

    /// A subscription to the events that one of `filters` matches.
    pub fn subscribe(self: &Arc<Self>, filters: Filters, start: Start) -> Subscription {
        let latest = self.latest().as_ref().map(watch::Sender::subscribe);
        let mut log = self.log();
        log.end_recovery();
        if log.replay_ends.is_some_and(|end| end <= Instant::now()) {
            log.replay_ends = None;
        }
        let (position, backlog) = match start {
            // What was recovered is in the log as well.
            Start::Now if log.replay_ends.is_some() => (log.dropped(), VecDeque::new()),
            Start::Now => (log.latest, log.recovered.iter().cloned().collect()),
            // Before the oldest entry, 0 included, means everything that is kept, not a subscriber that fell behind.
            Start::After(sequence) => (sequence.clamp(log.dropped(), log.latest), VecDeque::new()),
        };
        drop(log);
        Subscription {
            exchange: Arc::clone(self),
            filters,
            latest,
            backlog,
            position,
        }
    }

    /// Lets every subscription that begins within `time` begin with everything that is kept. For a daemon that took over
    /// from another: the subscribers of that one come back at different moments, and none must miss what is published
    /// until then.
    pub fn replay_for(&self, time: Duration) {
        self.log().replay_ends = Some(Instant::now() + time);
    }

    /// Ends all subscriptions after what was published before.
    pub fn close(&self) {
        {
            let mut log = self.log();
            let latest = log.latest;
            log.closed.get_or_insert(latest);
        }
        self.latest().take();
    }

    /// What was published since the exchange was closed, and is kept: no subscriber has received it.
    pub fn unheard(&self) -> Vec<Arc<Entry>> {
        let log = self.log();
        let closed = log.closed.unwrap_or(log.latest);
        let entries = log.entries.iter().map(|(entry, _)| entry);
        entries.filter(|entry| entry.sequence > closed).cloned().collect()
    }

    fn append(&self, envelope: Envelope) {
        let size = envelope.encoded_len();
        let mut log = self.log();
        log.latest += 1;
        let entry = Arc::new(Entry {
            sequence: log.latest,
            envelope,
        });
        log.end_recovery();
        if log.recovery_ends.is_some()
            && log.recovered.len() < self.limits.entries
            && UNASKED.contains(&entry.envelope.topic.as_str())
        {
            log.recovered.push(Arc::clone(&entry));
        }
        log.entries.push_back((entry, size));
        log.bytes += size;
        // The newest one always stays: a subscriber that is on time loses nothing.
        while log.entries.len() > 1
            && (log.entries.len() > self.limits.entries || log.bytes > self.limits.bytes)
        {
            if let Some((_, size)) = log.entries.pop_front() {
                log.bytes -= size;
            }
        }
        let sequence = log.latest;
        drop(log);
        if let Some(latest) = self.latest().as_ref() {
            // Publishers race to here; a number must not fall back.
            latest.send_if_modified(|seen| {
                let risen = *seen < sequence;
                *seen = (*seen).max(sequence);
                risen
            });
        }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        // Every critical section leaves the log consistent, so a panicked holder spoils nothing.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn latest(&self) -> MutexGuard<'_, Option<watch::Sender<u64>>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    /// Forgets what was kept for clients that come back when their time is over.
    fn end_recovery(&mut self) {
        if self.recovery_ends.is_some_and(|end| end <= Instant::now()) {
            self.recovered = Vec::new();
            self.recovery_ends = None;
        }
    }

    /// The sequence number of the last entry that is not kept any more.
    fn dropped(&self) -> u64 {
        self.latest - self.entries.len() as u64
    }

    /// The entry after `position`, if there is one yet.
    fn after(&self, position: u64) -> Result<Option<Arc<Entry>>, Lagged> {
        if self.closed.is_some_and(|closed| position >= closed) {
            return Ok(None);
        }
        let dropped = self.dropped();
        let Some(index) = position.checked_sub(dropped) else {
            return Err(Lagged {
                missed: dropped - position,
            });
        };
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        Ok(self.entries.get(index).map(|(entry, _)| Arc::clone(entry)))
    }
}

fn envelope(namespace: &str, topic: &str, event: Any) -> Envelope {
    Envelope {
        timestamp: Some(crate::time::now()),
        namespace: namespace.to_owned(),
        topic: topic.to_owned(),
        event: Some(event),
    }
}

/// A reader's place in the log.
#[derive(Debug)]
pub struct Subscription {
    exchange: Arc<Exchange>,
    filters: Filters,
    latest: Option<watch::Receiver<u64>>,
    backlog: VecDeque<Arc<Entry>>,
    position: u64,
}

impl Subscription {
    /// Waits for the next event that a filter matches; `None` when the exchange was closed. Dropping the future
    /// loses nothing.
    ///
    /// # Errors
    ///
    /// The log has moved on past this reader. The next call goes on with the oldest event that is kept.
    pub async fn next(&mut self) -> Result<Option<Arc<Entry>>, Lagged> {
        while let Some(entry) = self.backlog.pop_front() {
            if self.filters.matches(&*entry) {
                return Ok(Some(entry));
            }
        }
        loop {
            let next = self.exchange.log().after(self.position);
            match next {
                Ok(Some(entry)) => {
                    self.position = entry.sequence;
                    if self.filters.matches(&*entry) {
                        return Ok(Some(entry));
                    }
                }
                Ok(None) => {
                    let position = self.position;
                    let Some(latest) = &mut self.latest else {
                        return Ok(None);
                    };
                    if latest.wait_for(|latest| *latest > position).await.is_err() {
                        // Closed; what came in before that is still read.
                        self.latest = None;
                    }
                }
                Err(lagged) => {
                    self.position += lagged.missed;
                    return Err(lagged);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(entries: usize, bytes: usize) -> Arc<Exchange> {
        Arc::new(Exchange::with_limits(Limits { entries, bytes }))
    }

    fn everything() -> Filters {
        Filters::parse::<&str>(&[]).unwrap()
    }

    fn publish(exchange: &Exchange, topics: &[&str]) {
        for topic in topics {
            exchange.publish("ns", topic, Any::default());
        }
    }

    async fn next(subscription: &mut Subscription) -> Result<Option<String>, Lagged> {
        let next = tokio::time::timeout(Duration::from_secs(1), subscription.next());
        let entry = next.await.expect("an event within a second")?;
        Ok(entry.map(|entry| entry.envelope.topic.clone()))
    }

    #[tokio::test]
    async fn each_subscriber_reads_everything_in_order_from_where_it_began() {
        let exchange = exchange(10, 1 << 20);
        publish(&exchange, &["/a"]);
        let mut now = exchange.subscribe(everything(), Start::Now);
        let mut all = exchange.subscribe(everything(), Start::After(0));
        publish(&exchange, &["/b", "/c"]);
        let mut resumed = exchange.subscribe(everything(), Start::After(2));
        for (subscription, expected) in [
            (&mut now, &["/b", "/c"][..]),
            (&mut all, &["/a", "/b", "/c"]),
            (&mut resumed, &["/c"]),
        ] {
            for topic in expected {
                assert_eq!(next(subscription).await.unwrap().as_deref(), Some(*topic));
            }
            let more = tokio::time::timeout(Duration::from_millis(5), subscription.next()).await;
            assert!(more.is_err(), "more than was published");
        }
    }

    #[tokio::test]
    async fn a_waiting_subscriber_wakes_with_what_its_filter_matches() {
        let exchange = exchange(10, 1 << 20);
        let filters = Filters::parse(&["topic==/tasks/exit,namespace==ns"]).unwrap();
        let mut subscription = exchange.subscribe(filters, Start::Now);
        let publisher = Arc::clone(&exchange);
        tokio::spawn(async move {
            publish(&publisher, &["/tasks/start", "/tasks/exit"]);
        });
        assert_eq!(
            next(&mut subscription).await.unwrap().as_deref(),
            Some("/tasks/exit")
        );
    }

    #[tokio::test]
    async fn who_falls_behind_is_told_how_far_and_goes_on_with_what_is_kept() {
        for exchange in [exchange(2, 1 << 20), exchange(100, 50)] {
            let mut subscription = exchange.subscribe(everything(), Start::Now);
            publish(&exchange, &["/a", "/b", "/c", "/d"]);
            assert_eq!(subscription.next().await.unwrap_err().missed, 2);
            assert_eq!(next(&mut subscription).await.unwrap().as_deref(), Some("/c"));
            assert_eq!(next(&mut subscription).await.unwrap().as_deref(), Some("/d"));
            let mut fresh = exchange.subscribe(everything(), Start::After(0));
            assert_eq!(next(&mut fresh).await.unwrap().as_deref(), Some("/c"));
        }
    }

    #[tokio::test]
    async fn an_event_larger_than_the_log_still_reaches_those_on_time() {
        let exchange = exchange(10, 1);
        let mut subscription = exchange.subscribe(everything(), Start::Now);
        publish(&exchange, &["/a"]);
        assert_eq!(next(&mut subscription).await.unwrap().as_deref(), Some("/a"));
    }

    #[tokio::test]
    async fn what_happened_while_the_daemon_was_down_is_told_to_each_new_subscriber_once() {
        let exchange = exchange(10, 1 << 20);
        exchange.recover("ns", "/tasks/exit", Any::default(), None);
        publish(&exchange, &["/other"]);
        for _ in 0..2 {
            let mut subscription = exchange.subscribe(everything(), Start::Now);
            assert_eq!(
                next(&mut subscription).await.unwrap().as_deref(),
                Some("/tasks/exit")
            );
            let more = tokio::time::timeout(Duration::from_millis(5), subscription.next()).await;
            assert!(more.is_err());
        }
        exchange.log().recovery_ends = Some(Instant::now());
        let mut late = exchange.subscribe(everything(), Start::Now);
        let more = tokio::time::timeout(Duration::from_millis(5), late.next()).await;
        assert!(more.is_err());
    }

    #[tokio::test]
    async fn a_client_that_comes_back_late_hears_of_the_ends_since_the_restart() {
        let exchange = exchange(10, 1 << 20);
        publish(&exchange, &["/tasks/exit"]);
        exchange.await_clients();
        publish(&exchange, &["/tasks/exit", "/tasks/start", "/tasks/delete"]);
        exchange.recover("ns", "/tasks/exit", Any::default(), None);
        let mut subscription = exchange.subscribe(everything(), Start::Now);
        for topic in ["/tasks/exit", "/tasks/delete", "/tasks/exit"] {
            assert_eq!(next(&mut subscription).await.unwrap().as_deref(), Some(topic));
        }
        let more = tokio::time::timeout(Duration::from_millis(5), subscription.next()).await;
        assert!(more.is_err());
        exchange.log().recovery_ends = Some(Instant::now());
        publish(&exchange, &["/tasks/exit"]);
        assert_eq!(exchange.log().recovered.len(), 0);
    }

    #[tokio::test]
    async fn closing_ends_subscriptions_after_the_last_event() {
        let exchange = exchange(10, 1 << 20);
        let mut subscription = exchange.subscribe(everything(), Start::Now);
        publish(&exchange, &["/a"]);
        exchange.close();
        assert_eq!(next(&mut subscription).await.unwrap().as_deref(), Some("/a"));
        assert_eq!(next(&mut subscription).await.unwrap(), None);
        let mut late = exchange.subscribe(everything(), Start::Now);
        assert_eq!(next(&mut late).await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_is_published_after_the_end_is_kept_for_the_next_daemon() {
        let old = exchange(10, 1 << 20);
        let mut subscription = old.subscribe(everything(), Start::Now);
        publish(&old, &["/a"]);
        old.close();
        publish(&old, &["/b", "/c"]);
        assert_eq!(next(&mut subscription).await.unwrap().as_deref(), Some("/a"));
        assert_eq!(next(&mut subscription).await.unwrap(), None);
        let unheard = old.unheard();
        let topics: Vec<_> = unheard
            .iter()
            .map(|entry| entry.envelope.topic.as_str())
            .collect();
        assert_eq!(topics, ["/b", "/c"]);
    }

    #[tokio::test]
    async fn within_the_replay_each_subscriber_begins_with_everything_once() {
        let exchange = exchange(10, 1 << 20);
        exchange.replay_for(Duration::from_secs(60));
        publish(&exchange, &["/a"]);
        exchange.recover("ns", "/tasks/exit", Any::default(), None);
        for _ in 0..2 {
            let mut subscription = exchange.subscribe(everything(), Start::Now);
            for topic in ["/a", "/tasks/exit"] {
                assert_eq!(next(&mut subscription).await.unwrap().as_deref(), Some(topic));
            }
            let more = tokio::time::timeout(Duration::from_millis(5), subscription.next()).await;
            assert!(more.is_err());
        }
        exchange.replay_for(Duration::ZERO);
        publish(&exchange, &["/b"]);
        let mut late = exchange.subscribe(everything(), Start::Now);
        publish(&exchange, &["/c"]);
        // What was recovered goes on being told for its own minute.
        assert_eq!(next(&mut late).await.unwrap().as_deref(), Some("/tasks/exit"));
        assert_eq!(next(&mut late).await.unwrap().as_deref(), Some("/c"));
    }

    #[test]
    fn a_malformed_envelope_is_not_forwarded() {
        let exchange = exchange(10, 1 << 20);
        let refused = exchange.forward(Envelope::default()).unwrap_err();
        assert_eq!(refused.kind(), crate::error::Kind::InvalidArgument);
        assert_eq!(exchange.log().latest, 0);
    }
}
