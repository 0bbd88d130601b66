//! Waiting for a condition, never for a time.

use std::thread;
use std::time::{Duration, Instant};

/// Polls `condition` every 10 ms until it gives a value; panics with `what` after `limit`.
///
/// # Panics
///
/// The condition gave nothing within the limit.
pub fn eventually<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}
