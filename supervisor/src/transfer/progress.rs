//! Progress, as hints: whoever reads too slowly misses some, and nothing waits for anybody.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use wharf_proto::containerd::types::transfer;

use super::descriptor::Descriptor;

/// How often one blob reports how far it is.
const INTERVAL: Duration = Duration::from_millis(100);

/// Where the progress of an operation goes. Cheap to clone; by default nowhere.
#[derive(Clone, Default)]
pub(crate) struct Progress {
    sender: Option<mpsc::Sender<transfer::Progress>>,
}

impl Progress {
    /// Progress to `sender`.
    pub(crate) fn to(sender: mpsc::Sender<transfer::Progress>) -> Self {
        Self { sender: Some(sender) }
    }

    /// Says that something happened to the whole operation, or to the image `name`.
    pub(super) fn say(&self, event: impl Into<String>, name: &str, descriptor: Option<&Descriptor>) {
        self.send(transfer::Progress {
            event: event.into(),
            name: name.to_owned(),
            desc: descriptor.map(Descriptor::to_wire),
            ..transfer::Progress::default()
        });
    }

    /// The progress of one blob below `parent`.
    pub(super) fn blob(&self, descriptor: &Descriptor, parent: &str) -> Blob {
        Blob {
            progress: self.clone(),
            template: transfer::Progress {
                name: descriptor.reference(),
                parents: vec![parent.to_owned()],
                total: descriptor.size,
                desc: Some(descriptor.to_wire()),
                ..transfer::Progress::default()
            },
            last: None,
        }
    }

    fn send(&self, progress: transfer::Progress) {
        if let Some(sender) = &self.sender {
            // Full or gone: the state is what counts, and the next hint comes.
            drop(sender.try_send(progress));
        }
    }
}

/// The progress of one blob.
#[derive(Clone)]
pub(super) struct Blob {
    progress: Progress,
    template: transfer::Progress,
    last: Option<Instant>,
}

impl Blob {
    /// A change of state: `waiting`, `complete`, `already exists`, `extracted`.
    pub(super) fn state(&self, event: &str, offset: u64) {
        self.progress.send(transfer::Progress {
            event: event.to_owned(),
            progress: offset.cast_signed(),
            ..self.template.clone()
        });
    }

    /// How far `downloading` or `extracting` is; said only every so often.
    pub(super) fn at(&mut self, event: &str, offset: u64) {
        if self.last.is_none_or(|last| last.elapsed() >= INTERVAL) {
            self.last = Some(Instant::now());
            self.state(event, offset);
        }
    }
}
