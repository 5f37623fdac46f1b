//! Pub/sub: who listens to which channel. Start at [`Hub::publish`].
//!
//! Nothing is kept for those who are away, and nobody waits for a slow subscriber: one whose queue
//! is full is cut off, as in Redis. It comes back, and has missed what was said meanwhile.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use axum::body::Bytes;
use tokio::sync::{Notify, mpsc};

use super::commands::matches;
use super::resp::Reply;

/// How many messages may wait for a subscriber.
pub const QUEUE_MAX: usize = 1024;
/// How many channels and patterns one client may listen to.
pub const CHANNELS_MAX: usize = 4096;

/// Where a client gets its messages.
pub struct Ear {
    pub queue: mpsc::Sender<Bytes>,
    /// Its connection ends when this is told.
    pub cut: Notify,
}

/// Channels are exact names or patterns with a `*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    Channel,
    Pattern,
}

#[derive(Default)]
pub struct Hub {
    listeners: HashMap<(Topic, Bytes), HashMap<u64, Arc<Ear>>>,
    patterns: HashSet<Bytes>,
    /// What each client listens to, in the order in which it began.
    topics: HashMap<u64, Vec<(Topic, Bytes)>>,
}

impl Hub {
    /// Tells everybody who listens, and returns how many that are.
    pub fn publish(&self, channel: &Bytes, message: &Bytes) -> usize {
        let name = |name: &Bytes| Reply::Bulk(name.clone());
        let plain = [Reply::bulk("message"), name(channel), name(message)];
        let mut told = self.tell(&(Topic::Channel, channel.clone()), &Reply::Array(plain.into()));
        for pattern in self.patterns.iter().filter(|pattern| matches(pattern, channel)) {
            let like = [Reply::bulk("pmessage"), name(pattern), name(channel), name(message)];
            told += self.tell(&(Topic::Pattern, pattern.clone()), &Reply::Array(like.into()));
        }
        told
    }

    fn tell(&self, topic: &(Topic, Bytes), reply: &Reply) -> usize {
        let Some(listeners) = self.listeners.get(topic) else { return 0 };
        let mut wire = Vec::new();
        reply.write(&mut wire);
        let wire = Bytes::from(wire);
        for ear in listeners.values() {
            if ear.queue.try_send(wire.clone()).is_err() {
                ear.cut.notify_one();
            }
        }
        listeners.len()
    }

    /// Returns how much this client listens to now; `None` where that is all it may.
    pub fn subscribe(&mut self, client: u64, ear: &Arc<Ear>, topic: (Topic, Bytes)) -> Option<usize> {
        let topics = self.topics.entry(client).or_default();
        if !topics.contains(&topic) {
            if topics.len() == CHANNELS_MAX {
                return None;
            }
            topics.push(topic.clone());
            if topic.0 == Topic::Pattern {
                self.patterns.insert(topic.1.clone());
            }
            self.listeners.entry(topic).or_default().insert(client, ear.clone());
        }
        Some(topics.len())
    }

    pub fn unsubscribe(&mut self, client: u64, topic: &(Topic, Bytes)) -> usize {
        if let Some(listeners) = self.listeners.get_mut(topic) {
            listeners.remove(&client);
            if listeners.is_empty() {
                self.listeners.remove(topic);
                if topic.0 == Topic::Pattern {
                    self.patterns.remove(&topic.1);
                }
            }
        }
        let Some(topics) = self.topics.get_mut(&client) else { return 0 };
        topics.retain(|known| known != topic);
        let left = topics.len();
        if left == 0 {
            self.topics.remove(&client);
        }
        left
    }

    /// What a client listens to.
    pub fn topics(&self, client: u64) -> &[(Topic, Bytes)] {
        self.topics.get(&client).map_or(&[], Vec::as_slice)
    }

    pub fn leave(&mut self, client: u64) {
        for topic in self.topics(client).to_vec() {
            self.unsubscribe(client, &topic);
        }
    }
}
