//! What changed, for whoever watches: the last events in a ring, the coming ones by broadcast.
//!
//! Start at [`Events::subscribe`]. How they are written on the wire is `sse`'s.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tokio::sync::broadcast;

use super::view::EventView;

/// Events kept for a reader that comes back.
pub const RING: usize = 1_000;
/// Events a reader may be behind before it is cut off.
pub const MAX_BEHIND: usize = 256;

/// Shared by all who publish and all who watch.
#[derive(Clone, Debug)]
pub struct Events(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    past: Mutex<Past>,
    coming: broadcast::Sender<Arc<EventView>>,
}

/// Ids count up from 1 without a gap, so the ring holds `newest - len + 1 ..= newest`.
#[derive(Debug, Default)]
struct Past {
    newest: u64,
    ring: VecDeque<Arc<EventView>>,
}

/// A place in the stream: what was missed, then what comes.
#[derive(Debug)]
pub struct Subscription {
    /// The id before the first event of this subscription.
    pub after: u64,
    pub missed: VecDeque<Arc<EventView>>,
    pub coming: broadcast::Receiver<Arc<EventView>>,
}

impl Default for Events {
    fn default() -> Self {
        let (coming, _) = broadcast::channel(MAX_BEHIND);
        Self(Arc::new(Inner { past: Mutex::default(), coming }))
    }
}

impl Events {
    /// Tells everybody. `kind` is one of those that [`EventView`] lists.
    pub fn publish(&self, kind: &str, pool: Option<&str>, backend: Option<&str>, message: impl Into<String>) {
        // The lock covers the broadcast too: else two publishers could send in another order
        // than they numbered, and a subscriber could fall between the ring and the broadcast.
        let mut past = self.past();
        past.newest += 1;
        let event = Arc::new(EventView {
            id: past.newest,
            at: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            kind: kind.to_owned(),
            pool: pool.map(str::to_owned),
            backend: backend.map(str::to_owned),
            message: message.into(),
        });
        if past.ring.len() == RING {
            past.ring.pop_front();
        }
        past.ring.push_back(event.clone());
        // An error says that nobody watches.
        let _ = self.0.coming.send(event);
    }

    /// From now on, or from the event after `last_seen`. Of what has left the ring nothing can be
    /// told; an id that was never given out (of an earlier process) counts as none.
    pub fn subscribe(&self, last_seen: Option<u64>) -> Subscription {
        let past = self.past();
        let after = last_seen.filter(|id| *id <= past.newest).unwrap_or(past.newest);
        Subscription {
            after,
            missed: past.ring.iter().filter(|event| event.id > after).cloned().collect(),
            coming: self.0.coming.subscribe(),
        }
    }

    fn past(&self) -> std::sync::MutexGuard<'_, Past> {
        // Every change leaves the ring whole, so a panic elsewhere is no reason to stop telling.
        self.0.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(missed: &VecDeque<Arc<EventView>>) -> Vec<u64> {
        missed.iter().map(|event| event.id).collect()
    }

    #[test]
    fn a_reader_that_comes_back_gets_what_it_missed_and_then_what_comes() {
        let events = Events::default();
        for n in 1..=3 {
            events.publish("health", Some("app"), None, format!("event {n}"));
        }
        let mut subscription = events.subscribe(Some(1));
        events.publish("health", None, None, "event 4");
        assert_eq!(ids(&subscription.missed), [2, 3]);
        assert_eq!(subscription.coming.try_recv().unwrap().id, 4);
        assert!(subscription.coming.try_recv().is_err());
    }

    #[test]
    fn a_new_reader_and_one_from_an_earlier_process_start_now() {
        let events = Events::default();
        events.publish("process", None, None, "started");
        for last_seen in [None, Some(77)] {
            let subscription = events.subscribe(last_seen);
            assert_eq!((subscription.after, subscription.missed.len()), (1, 0));
        }
    }

    #[test]
    fn the_ring_keeps_the_last_thousand() {
        let events = Events::default();
        for _ in 0..RING + 5 {
            events.publish("health", None, None, "");
        }
        let missed = ids(&events.subscribe(Some(0)).missed);
        assert_eq!((missed.len(), missed[0], missed[RING - 1]), (RING, 6, RING as u64 + 5));
    }
}
