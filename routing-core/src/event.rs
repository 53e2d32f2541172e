//! What happened to the cluster, for people.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use crate::token::UnixMillis;

/// How many are kept.
const KEPT: usize = 64;

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EventKind {
    /// A node joined.
    Joined,
    /// A node left.
    Left,
    /// A node may not serve any more.
    Refused,
    /// A node may serve.
    Serves,
    /// A replica exceeds `max_staleness`.
    Stale,
    /// A replica that exceeded it is fresh again.
    Fresh,
    /// Another node or timeline was accepted as the primary.
    Primary,
    /// No node is proven to be the primary.
    PrimaryLost,
    /// The primary is proven again, the same as before.
    PrimaryBack,
    /// The primary turned read-only.
    PrimaryReadOnly,
    /// Several nodes claim to be the primary, and nothing tells them apart.
    Ambiguous,
    /// An operator did something.
    Control,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// Rises by one with each event of this cluster; whoever saw an earlier one knows what is new.
    pub number: u64,
    /// When, by this machine's clock: milliseconds since 1970.
    pub unix_millis: u64,
    /// What kind of thing.
    pub kind: EventKind,
    /// The node that it happened to.
    pub node: Option<Arc<str>>,
    /// What happened, in one line.
    pub message: String,
}

/// The last events, and the only place that makes them: each is logged once.
#[derive(Debug, Default)]
pub(crate) struct Events(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    last: VecDeque<Event>,
    next: u64,
}

impl Events {
    /// Logs and keeps an event.
    pub(crate) fn tell(&self, kind: EventKind, node: Option<&Arc<str>>, message: String) {
        let name = node.map(|node| &**node);
        match kind {
            EventKind::Ambiguous => tracing::error!(node = name, "{message}"),
            EventKind::Refused | EventKind::Stale | EventKind::PrimaryLost | EventKind::PrimaryReadOnly => {
                tracing::warn!(node = name, "{message}")
            }
            // What an operator does is looked for later: a target of its own.
            EventKind::Control => tracing::info!(target: "routing_core::audit", node = name, "{message}"),
            EventKind::Joined
            | EventKind::Left
            | EventKind::Serves
            | EventKind::Fresh
            | EventKind::Primary
            | EventKind::PrimaryBack => tracing::info!(node = name, "{message}"),
        }
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = kept.next;
        kept.next += 1;
        if kept.last.len() == KEPT {
            kept.last.pop_front();
        }
        let unix_millis = UnixMillis::now().0;
        kept.last.push_back(Event { number, unix_millis, kind, node: node.cloned(), message });
    }

    /// The last ones, the oldest first.
    pub(crate) fn last(&self) -> Vec<Event> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).last.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_events_are_kept_in_order_and_numbered() {
        let events = Events::default();
        for number in 0..KEPT + 10 {
            events.tell(EventKind::Serves, Some(&"a".into()), format!("event {number}"));
        }
        let last = events.last();
        assert_eq!(last.len(), KEPT);
        assert_eq!((last[0].number, last[0].message.as_str()), (10, "event 10"));
        assert!(last.windows(2).all(|pair| pair[0].number + 1 == pair[1].number));
        assert!(last.windows(2).all(|pair| pair[0].unix_millis <= pair[1].unix_millis));
    }
}
