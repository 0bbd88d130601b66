//! `ctr events`: what clients are told, in which order.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use integration_tests::eventually;

use crate::subject::{SOON, Subject};

/// `ctr events` in the background.
pub(crate) struct Events {
    child: Child,
    path: PathBuf,
}

impl Subject {
    pub(crate) fn events(&self) -> Events {
        let path = self.scratch.join("events");
        let file = fs::File::create(&path).expect("a file for events");
        let child = self
            .command(&["events"])
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(Stdio::null())
            .spawn()
            .expect("start ctr events");
        let events = Events { child, path };
        // `ctr` says nothing when it has subscribed: make events until one arrives.
        eventually("ctr events has subscribed", SOON, || {
            self.ctr(&["containers", "create", "--rootfs", &self.root, "canary"])
                .ok();
            self.ctr(&["containers", "delete", "canary"]).ok();
            (!events.lines().is_empty()).then_some(())
        });
        events
    }
}

impl Events {
    pub(crate) fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.path).expect("read the events");
        text.lines().map(str::to_owned).collect()
    }

    /// The topics of the events that name `id`, in their order.
    pub(crate) fn of(&self, id: &str) -> Vec<String> {
        self.lines()
            .iter()
            .filter(|line| line.contains(&format!("\"{id}\"")))
            .filter_map(|line| {
                line.split(' ')
                    .find(|word| word.starts_with("/tasks/"))
                    .map(str::to_owned)
            })
            .collect()
    }

    pub(crate) fn until(&self, id: &str, topic: &str) -> Vec<String> {
        eventually(&format!("{topic} of {id}"), SOON, || {
            let topics = self.of(id);
            topics.iter().any(|seen| seen == topic).then_some(topics)
        })
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        // It runs until it is told not to; only one that has ended refuses.
        drop(self.child.kill());
        self.child.wait().expect("wait for ctr events");
    }
}
