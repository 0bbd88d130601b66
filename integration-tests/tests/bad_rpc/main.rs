//! Every method of every gRPC service, sent bad input: `wharfd` answers with the code that containerd answers with to the
//! same request, and holds afterwards what it held before.
//!
//! The methods are those of the wire definitions: one that is new fails the test until it has cases. The peer is Debian's
//! containerd; what it does not serve is compared with `newer.txt`, the answers of a 2.3. With `WHARF_CONTAINERD=PROGRAM` the
//! peer is that program, asked for those methods alone; its answers are printed, as the list has them. Where `wharfd` answers
//! otherwise, `DIFFERENCES` in [`expected`] says why.

mod call;
mod case;
mod expected;
mod methods;
mod side;
mod streams;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use integration_tests::Scratch;
use integration_tests::containerd::Containerd;
use integration_tests::wharf::Wharfd;
use tonic::Code;

use call::Outcome;
use case::Method;
use side::{Holdings, Side};

/// The variable that names a newer containerd.
const NEWER: &str = "WHARF_CONTAINERD";

/// Services that shims serve over ttrpc.
const TTRPC: [&str; 4] = [
    "containerd.runtime.sandbox.v1.Sandbox",
    "containerd.services.events.ttrpc.v1.Events",
    "containerd.task.v2.Task",
    "containerd.task.v3.Task",
];

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("an async runtime")
}

/// `package.Service/Method` of all that is served over gRPC.
fn served() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/proto");
    let entries = std::fs::read_dir(&root).expect("list the wire definitions");
    let files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    let descriptors = protox::compile(&files, [&root]).expect("compile the wire definitions");
    let mut methods = BTreeSet::new();
    for file in &descriptors.file {
        for service in &file.service {
            let name = format!("{}.{}", file.package(), service.name());
            if TTRPC.contains(&name.as_str()) {
                continue;
            }
            methods.extend(
                service
                    .method
                    .iter()
                    .map(|method| format!("{name}/{}", method.name())),
            );
        }
    }
    methods
}

#[test]
fn every_method_has_cases() {
    let with_cases: BTreeSet<String> = methods::all().into_iter().map(|method| method.path).collect();
    assert_eq!(with_cases, served());
}

/// Both daemons, furnished alike.
struct Pair {
    _containerd: Containerd,
    _wharfd: Wharfd,
    theirs: Side,
    ours: Side,
    _scratch: Scratch,
    is_newer: bool,
}

impl Pair {
    async fn start() -> Pair {
        let scratch = Scratch::new();
        let newer = std::env::var_os(NEWER);
        let home = scratch.directory("containerd");
        let containerd = match &newer {
            Some(program) => {
                let program = Path::new(program);
                let programs = program.parent().expect("a program in a directory");
                Containerd::start_program(&home, program, programs)
            }
            None => Containerd::start(&scratch),
        };
        let wharfd = Wharfd::start(&scratch);
        let name = |letter: char| format!("{}-{letter}", scratch.unique());
        let theirs = Side::furnish(containerd.socket(), &home, &name('t')).await;
        let ours = Side::furnish(&wharfd.socket(), wharfd.home(), &name('o')).await;
        Pair {
            _containerd: containerd,
            _wharfd: wharfd,
            theirs,
            ours,
            _scratch: scratch,
            is_newer: newer.is_some(),
        }
    }

    /// Sends all cases to both; gives what is wrong.
    async fn walk(&self, methods: Vec<Method>) -> String {
        let mut faults = String::new();
        let mut before = self.holdings().await;
        for method in methods {
            for case in &method.cases {
                let is_deadly = expected::is_deadly(&method.path, &case.name);
                let (theirs, their_words) = match is_deadly {
                    true => (Outcome::Open, "not asked: it would end".to_owned()),
                    false => self.theirs.ask(&method.path, case).await,
                };
                let (ours, our_words) = self.ours.ask(&method.path, case).await;
                if self.is_newer && !is_deadly {
                    println!("{}\t{}\t{theirs:?}", method.path, case.name);
                }
                let expected = self.expected(&method.path, &case.name, theirs, &their_words);
                if expected != ours {
                    writeln!(
                        faults,
                        "{} with {}: ours {ours:?} ({our_words:.200}), expected {expected:?}, theirs {theirs:?} ({their_words:.200})",
                        method.path, case.name
                    )
                    .expect("write to a string");
                }
                let after = self.holdings().await;
                let (our_left, their_left) = (left(&before.0, &after.0), left(&before.1, &after.1));
                // What the peer keeps may be kept: an ingest that can be gone on with, say.
                if ours != Outcome::Ended(Code::Ok) && !our_left.is_subset(&their_left) {
                    writeln!(
                        faults,
                        "{} with {}: left {our_left:?}, theirs {their_left:?}",
                        method.path, case.name
                    )
                    .expect("write to a string");
                }
                before = after;
            }
        }
        faults
    }

    /// What both hold, ours first.
    async fn holdings(&self) -> (Holdings, Holdings) {
        (self.ours.holdings().await, self.theirs.holdings().await)
    }

    /// What is to be answered where the peer answers `theirs`.
    fn expected(&self, method: &str, case: &str, theirs: Outcome, words: &str) -> Outcome {
        let is_missing = theirs == Outcome::Ended(Code::Unimplemented) && words.starts_with("unknown ");
        let newer = expected::newer(method, case);
        if self.is_newer && newer.is_some_and(|newer| newer != theirs) {
            println!("the list says {newer:?} of {method} with {case}");
        }
        let peer = newer.filter(|_| is_missing).unwrap_or(theirs);
        expected::difference(method, case).unwrap_or(peer)
    }
}

/// What came (`true`), and what went.
fn left(before: &Holdings, after: &Holdings) -> BTreeSet<(bool, String)> {
    let came = after.difference(before).map(|line| (true, line.clone()));
    let went = before.difference(after).map(|line| (false, line.clone()));
    came.chain(went).collect()
}

fn check(mut methods: Vec<Method>) {
    assert!(!methods.is_empty());
    if std::env::var_os(NEWER).is_some() {
        methods.retain(|method| expected::is_newer(&method.path));
    }
    runtime().block_on(async {
        let pair = Pair::start().await;
        let faults = pair.walk(methods).await;
        assert!(faults.is_empty(), "{} faults:\n{faults}", faults.lines().count());
    });
}

/// A test for each service, so that they run side by side.
macro_rules! services {
    ($($name:ident: $methods:expr;)*) => {
        $(
            #[test]
            fn $name() {
                check($methods);
            }
        )*
    };
}

services! {
    content: methods::content::content();
    containers: methods::records::containers();
    images: methods::records::images();
    leases: methods::records::leases();
    mounts: methods::mounts::mounts();
    namespaces: methods::records::namespaces();
    snapshots: methods::snapshots::snapshots();
    diff: methods::snapshots::diff();
    events: methods::other::events();
    introspection: methods::other::introspection();
    probes: methods::other::probes();
    sandbox_store: methods::sandboxes::store();
    sandbox_controller: methods::sandboxes::controller();
    transfer: methods::transfer::transfer();
}

#[test]
fn tasks() {
    runtime().block_on(async {
        let pair = Pair::start().await;
        for side in [&pair.theirs, &pair.ours] {
            side.task(methods::tasks::LIVE);
        }
        let faults = pair.walk(methods::tasks::tasks()).await;
        for side in [&pair.theirs, &pair.ours] {
            side.end_tasks(&[methods::tasks::LIVE]);
        }
        assert!(faults.is_empty(), "{} faults:\n{faults}", faults.lines().count());
    });
}
