//! Thousands of executions and containers, eight at a time: what `wharfd` and its shims hold stays what it was.
//!
//! Here with small numbers; `cargo xtask soak` runs it with the release programs and large ones. The work is done in
//! rounds, and after each, when nothing is under way, everything that could grow is counted.

#[path = "../../benches/tasks/memory.rs"]
mod memory;
mod sample;
#[path = "../../benches/tasks/subject.rs"]
#[expect(dead_code, reason = "shared with the bench of daemons, which uses it all")]
mod subject;

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use integration_tests::wharf::Wharfd;
use integration_tests::{Scratch, binaries};

use sample::Sample;
use subject::{Kind, Network, Subject};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// How many at a time.
const ABREAST: usize = 8;
/// The containers that are executed in, for as long as the soak lasts.
const CONTAINERS: usize = 4;
/// After the first two rounds, which fill caches and pools, nothing grows.
const ROUNDS: usize = 10;

/// What is asked for in the environment.
fn number(name: &str, otherwise: usize) -> usize {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
}

/// Does `count` times what `work` does with a client of its own, so many abreast.
async fn abreast<F>(count: usize, work: impl Fn(usize) -> F)
where
    F: Future<Output = std::result::Result<(), String>> + Send + 'static,
{
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = tokio::task::JoinSet::new();
    let mut under_way = 0;
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number < count {
            workers.spawn(work(number));
            under_way += 1;
        }
        if under_way == 0 {
            return;
        }
        if under_way == ABREAST || number >= count {
            let done = workers.join_next().await.expect("one is under way");
            done.expect("it does not panic").expect("it succeeds");
            under_way -= 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_grows() {
    if let Some(directory) = std::env::var_os("WHARF_PROGRAMS") {
        binaries::use_directory(directory.into());
    }
    let (execs, cycles) = (number("WHARF_SOAK_EXECS", 240), number("WHARF_SOAK_CYCLES", 60));
    let scratch = Scratch::new();
    let wharfd = Wharfd::start(&scratch);
    let socket = wharfd.socket();
    let mut subject = Subject::new("soak", &scratch, &socket, Kind::Ours(wharfd))
        .await
        .expect("a daemon with an image");
    let mut shims = Vec::new();
    for number in 0..CONTAINERS {
        let id = format!("long{number}");
        let pid = subject.run_detached(&id).await.expect("a container");
        shims.push(sample::parent(pid));
    }
    let begin = Instant::now();
    let mut samples = Vec::new();
    println!("{}", Sample::HEAD);
    for round in 0..ROUNDS {
        abreast(execs / ROUNDS, |number| {
            let mut client = subject.again();
            let id = format!("long{}", number % CONTAINERS);
            async move {
                let done = client.execute(&id).await;
                done.map(drop).map_err(|error| format!("exec in {id}: {error}"))
            }
        })
        .await;
        abreast(cycles / ROUNDS, |_| {
            let mut client = subject.again();
            async move {
                let done = client.cycle(Network::Own).await;
                done.map(drop).map_err(|error| format!("container: {error}"))
            }
        })
        .await;
        let sample = Sample::settled(&scratch, subject.pid, &shims).await;
        println!(
            "{}{sample}",
            format_args!("{round:>2} {:>6.1} s ", begin.elapsed().as_secs_f64())
        );
        samples.push(sample);
    }
    let (first, last) = (&samples[1], &samples[ROUNDS - 1]);
    last.assert_no_more_than(first);
    // By the half of them what is bounded by a number has come to its bound.
    last.assert_memory_is_flat_since(&samples[ROUNDS / 2]);
    for number in 0..CONTAINERS {
        subject.remove(&format!("long{number}")).await.expect("removed");
    }
    integration_tests::eventually("the shims are gone", Duration::from_secs(20), || {
        shims.iter().all(|shim| !sample::exists(*shim)).then_some(())
    });
}
