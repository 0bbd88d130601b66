//! Every method of every gRPC service, sent bad input: `wharfd` answers with the code that containerd answers with to the
//! same request, and holds afterwards what it held before.
//!
//! The methods are those of the wire definitions: one that is new fails the test until it has cases. The peer is Debian's
//! containerd; what it does not serve is compared with [`expected::NEWER`], which was learned from a 2.x. With
//! `WHARF_CONTAINERD=PROGRAM` the peer is that one, and the list is checked against it. Where `wharfd` answers otherwise,
//! [`expected::DIFFERENCES`] says why.

mod call;
mod case;
mod expected;
mod methods;
mod side;
mod streams;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use integration_tests::containerd::Containerd;
use integration_tests::wharf::Wharfd;
use integration_tests::{Scratch, binaries};
use tonic::Code;

use call::Outcome;
use case::Method;
use side::Side;

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
    scratch: Scratch,
    is_newer: bool,
}

impl Pair {
    async fn start() -> Pair {
        let scratch = Scratch::new();
        let newer = std::env::var_os("WHARF_CONTAINERD");
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
            scratch,
            is_newer: newer.is_some(),
        }
    }

    /// Sends all cases to both; gives what is wrong.
    async fn walk(&self, methods: Vec<Method>) -> String {
        let mut faults = String::new();
        let mut before = self.ours.holdings().await;
        for method in methods {
            for case in &method.cases {
                let (theirs, their_words) = self.theirs.ask(&method.path, case).await;
                let (ours, our_words) = self.ours.ask(&method.path, case).await;
                let expected = self.expected(&method.path, &case.name, theirs, &their_words);
                if expected != ours {
                    writeln!(
                        faults,
                        "{} with {}: ours {ours:?} ({our_words:.200}), expected {expected:?}, theirs {theirs:?} ({their_words:.200})",
                        method.path, case.name
                    )
                    .expect("write to a string");
                }
                let after = self.ours.holdings().await;
                if !matches!(ours, Outcome::Ended(Code::Ok)) && after != before {
                    let gone: Vec<_> = before.difference(&after).collect();
                    let new: Vec<_> = after.difference(&before).collect();
                    writeln!(
                        faults,
                        "{} with {}: left {new:?}, took {gone:?}",
                        method.path, case.name
                    )
                    .expect("write to a string");
                }
                before = after;
            }
        }
        faults
    }

    /// What is to be answered where the peer answers `theirs`.
    fn expected(&self, method: &str, case: &str, theirs: Outcome, words: &str) -> Outcome {
        let is_missing = theirs == Outcome::Ended(Code::Unimplemented) && words.starts_with("unknown ");
        let peer = match expected::newer(method, case).filter(|_| is_missing && !self.is_newer) {
            Some(newer) => newer,
            None => theirs,
        };
        expected::difference(method, case).unwrap_or(peer)
    }
}

fn check(methods: Vec<Method>) {
    assert!(!methods.is_empty());
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
