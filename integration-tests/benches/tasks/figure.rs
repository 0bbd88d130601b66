//! Times of the candidates, and their table.

use std::fs;
use std::time::Duration;

use super::subject::Subject;

/// Rounds that do not count, before those that do.
const WARM_UP: usize = 3;

/// The times of one operation, by candidate.
pub(crate) struct Figures {
    title: String,
    times: Vec<Vec<Duration>>,
}

impl Figures {
    pub(crate) fn new(title: String, candidates: usize) -> Self {
        Self {
            title,
            times: vec![Vec::new(); candidates],
        }
    }

    pub(crate) fn add(&mut self, candidate: usize, time: Duration) {
        self.times[candidate].push(time);
    }

    /// The table; ratios are the first one's median divided by theirs.
    pub(crate) fn print(&self, subjects: &[Subject]) {
        println!("\n{}", self.title);
        println!(
            "{:<24} {:>10} {:>10} {:>10} {:>8}",
            "", "median ms", "best ms", "p95 ms", "ratio"
        );
        let ours = at(&self.times[0], 50);
        for (subject, times) in subjects.iter().zip(&self.times) {
            println!(
                "{:<24} {:>10.2} {:>10.2} {:>10.2} {:>8.3}",
                subject.name,
                at(times, 50),
                at(times, 0),
                at(times, 95),
                ours / at(times, 50)
            );
        }
    }
}

/// The time below which so many percent are, in milliseconds.
fn at(times: &[Duration], percent: usize) -> f64 {
    let mut times: Vec<Duration> = times.iter().skip(WARM_UP).copied().collect();
    times.sort_unstable();
    let index = (times.len() * percent / 100).min(times.len().saturating_sub(1));
    times
        .get(index)
        .map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
}

/// The machine's load, without which no figure means anything.
pub(crate) fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("unknown").to_owned()
}
