//! What happens to containers and images, told to whoever listens.
//!
//! A hint, as every notice: a listener that is too slow loses the oldest, and asks for the state instead.

use crate::api::types::{Event, EventActor};
use std::collections::BTreeMap;
use tokio::sync::broadcast;

const KEPT: usize = 256;

/// The engine's events.
#[derive(Debug)]
pub struct Events {
    sender: broadcast::Sender<Event>,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            sender: broadcast::Sender::new(KEPT),
        }
    }
}

impl Events {
    /// Tells everyone that `action` happened to the object `id` of this kind.
    pub fn publish(&self, kind: &str, action: &str, id: &str, attributes: BTreeMap<String, String>) {
        if self.sender.receiver_count() == 0 {
            return;
        }
        let now = jiff::Timestamp::now();
        let container = kind == "container";
        let event = Event {
            status: action.to_owned(),
            id: id.to_owned(),
            from: if container {
                attributes.get("image").cloned().unwrap_or_default()
            } else {
                String::new()
            },
            kind: kind.to_owned(),
            action: action.to_owned(),
            actor: EventActor {
                id: id.to_owned(),
                attributes,
            },
            scope: "local".to_owned(),
            time: now.as_second(),
            time_nano: i64::try_from(now.as_nanosecond()).unwrap_or(i64::MAX),
        };
        // The last listener may have left since it was counted.
        self.sender.send(event).ok();
    }

    /// Listens from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.sender.subscribe()
    }
}
