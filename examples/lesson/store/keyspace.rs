//! What the store holds: values of five kinds under keys, some of which expire. No sockets, and the
//! time is always passed in. Start at [`Keyspace`].

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Instant;

use axum::body::Bytes;

pub type Text = Vec<u8>;
pub type Hash = HashMap<Bytes, Bytes>;
pub type Set = HashSet<Bytes>;
pub type List = VecDeque<Bytes>;

/// What a key, or a member of a collection, takes besides its bytes: table slots, lengths, pointers.
/// An estimate, close to what Redis says of small values.
const OVERHEAD: usize = 56;

pub enum Value {
    Text(Text),
    Hash(Hash),
    Set(Set),
    List(List),
    Sorted(Sorted),
}

/// A key holds another kind of value than the command is for.
#[derive(Debug, PartialEq)]
pub struct WrongKind;

/// The keys of the store.
///
/// `expiries` holds exactly the keys that have an expiry, each once. A collection that becomes empty
/// is no longer there, as in Redis; whoever takes something out calls [`Keyspace::tidy`].
#[derive(Default)]
pub struct Keyspace {
    entries: HashMap<Bytes, Entry>,
    expiries: BTreeSet<(Instant, Bytes)>,
}

struct Entry {
    value: Value,
    expires: Option<Instant>,
}

impl Keyspace {
    /// The value of a key that is there and has not expired. What has expired goes at this moment.
    pub fn get(&mut self, key: &Bytes, now: Instant) -> Option<&mut Value> {
        self.expire(key, now);
        self.entries.get_mut(key).map(|entry| &mut entry.value)
    }

    /// The value of a key, if it is of this kind.
    pub fn find<K: Kind>(&mut self, key: &Bytes, now: Instant) -> Result<Option<&mut K>, WrongKind> {
        match self.get(key, now) {
            None => Ok(None),
            Some(value) => K::of(value).map(Some).ok_or(WrongKind),
        }
    }

    /// The value of a key, empty when there was none.
    pub fn make<K: Kind>(&mut self, key: &Bytes, now: Instant) -> Result<&mut K, WrongKind> {
        self.expire(key, now);
        let new = || Entry { value: K::default().wrap(), expires: None };
        K::of(&mut self.entries.entry(key.clone()).or_insert_with(new).value).ok_or(WrongKind)
    }

    /// Replaces whatever a key held. Its expiry is no longer there.
    pub fn put(&mut self, key: &Bytes, value: Value) {
        self.remove(key);
        self.entries.insert(key.clone(), Entry { value, expires: None });
    }

    pub fn remove(&mut self, key: &Bytes) -> Option<Value> {
        let entry = self.entries.remove(key)?;
        if let Some(expires) = entry.expires {
            self.expiries.remove(&(expires, key.clone()));
        }
        Some(entry.value)
    }

    /// Removes a collection that has become empty.
    pub fn tidy(&mut self, key: &Bytes) {
        if self.entries.get(key).is_some_and(|entry| entry.value.is_empty()) {
            self.remove(key);
        }
    }

    /// When a key expires: `None` where there is no such key, `Some(None)` where it never does.
    pub fn expiry(&mut self, key: &Bytes, now: Instant) -> Option<Option<Instant>> {
        self.expire(key, now);
        self.entries.get(key).map(|entry| entry.expires)
    }

    /// Sets or takes away an expiry. A key that is not there has none.
    pub fn set_expiry(&mut self, key: &Bytes, expires: Option<Instant>) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        if let Some(old) = std::mem::replace(&mut entry.expires, expires) {
            self.expiries.remove(&(old, key.clone()));
        }
        if let Some(new) = expires {
            self.expiries.insert((new, key.clone()));
        }
    }

    /// Removes keys that have expired and that nobody asked for, at most `limit`.
    pub fn sweep(&mut self, now: Instant, limit: usize) {
        for _ in 0..limit {
            let Some((expires, key)) = self.expiries.first().cloned() else { break };
            if expires > now {
                break;
            }
            self.remove(&key);
        }
    }

    fn expire(&mut self, key: &Bytes, now: Instant) {
        if self.entries.get(key).is_some_and(|entry| entry.expires.is_some_and(|expires| expires <= now)) {
            self.remove(key);
        }
    }

    /// All keys, in no order.
    pub fn keys(&mut self, now: Instant) -> impl Iterator<Item = &Bytes> {
        self.sweep(now, usize::MAX);
        self.entries.keys()
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// What a key and its value take, in bytes.
    pub fn usage(&mut self, key: &Bytes, now: Instant) -> Option<usize> {
        self.get(key, now).map(|value| key.len() + OVERHEAD + value.size())
    }

    /// What all keys and values take, in bytes. It counts, so it is not for every request.
    pub fn used(&self) -> usize {
        let sizes = self.entries.iter().map(|(key, entry)| key.len() + OVERHEAD + entry.value.size());
        sizes.sum::<usize>() + self.expiries.len() * OVERHEAD
    }
}

impl Value {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Text(_) => "string",
            Self::Hash(_) => "hash",
            Self::Set(_) => "set",
            Self::List(_) => "list",
            Self::Sorted(_) => "zset",
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Text(_) => false,
            Self::Hash(hash) => hash.is_empty(),
            Self::Set(set) => set.is_empty(),
            Self::List(list) => list.is_empty(),
            Self::Sorted(sorted) => sorted.len() == 0,
        }
    }

    fn size(&self) -> usize {
        let member = |bytes: &Bytes| bytes.len() + OVERHEAD;
        match self {
            Self::Text(text) => text.len(),
            Self::Hash(hash) => hash.iter().map(|(name, value)| member(name) + member(value)).sum(),
            Self::Set(set) => set.iter().map(member).sum(),
            Self::List(list) => list.iter().map(member).sum(),
            Self::Sorted(sorted) => sorted.order.iter().map(|(_, name)| member(name) + OVERHEAD).sum(),
        }
    }
}

/// A kind of value that a command is for.
pub trait Kind: Default {
    fn of(value: &mut Value) -> Option<&mut Self>;
    fn wrap(self) -> Value;
}

macro_rules! kinds {
    ($($kind:ident)*) => { $(
        impl Kind for $kind {
            fn of(value: &mut Value) -> Option<&mut Self> {
                match value {
                    Value::$kind(inner) => Some(inner),
                    _ => None,
                }
            }

            fn wrap(self) -> Value {
                Value::$kind(self)
            }
        }
    )* };
}

kinds! { Text Hash Set List Sorted }

/// Members in the order of their scores, and of their bytes where scores are equal.
///
/// `scores` and `order` hold the same members. A score is never NaN.
#[derive(Default)]
pub struct Sorted {
    scores: HashMap<Bytes, Score>,
    order: BTreeSet<(Score, Bytes)>,
}

#[derive(Clone, Copy, PartialEq)]
pub struct Score(pub f64);

impl Eq for Score {}

impl Ord for Score {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Score {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Sorted {
    /// Gives a member a score and returns the one that it had.
    pub fn set(&mut self, member: &Bytes, score: f64) -> Option<f64> {
        // -0 is 0 to everybody who compares numbers.
        let score = Score(score + 0.0);
        let old = self.scores.insert(member.clone(), score);
        if let Some(old) = old {
            self.order.remove(&(old, member.clone()));
        }
        self.order.insert((score, member.clone()));
        old.map(|old| old.0)
    }

    pub fn score(&self, member: &Bytes) -> Option<f64> {
        self.scores.get(member).map(|score| score.0)
    }

    pub fn remove(&mut self, member: &Bytes) -> bool {
        let old = self.scores.remove(member);
        old.is_some_and(|old| self.order.remove(&(old, member.clone())))
    }

    /// From this score on, upwards.
    pub fn from(&self, score: f64) -> impl Iterator<Item = (&Bytes, f64)> {
        let from = (Score(score + 0.0), Bytes::new());
        self.order.range(from..).map(|(score, member)| (member, score.0))
    }

    pub fn len(&self) -> usize {
        self.order.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn filled(keys: &[&'static str], now: Instant) -> Keyspace {
        let mut store = Keyspace::default();
        for (number, key) in keys.iter().enumerate() {
            let key = Bytes::from(*key);
            store.put(&key, Value::Text(vec![b'x'; 10]));
            store.set_expiry(&key, Some(now + Duration::from_secs(1 + number as u64)));
        }
        store
    }

    #[test]
    fn a_key_is_gone_at_the_moment_it_expires() {
        let now = Instant::now();
        let (mut store, key) = (filled(&["cat"], now), Bytes::from("cat"));
        assert!(store.get(&key, now + Duration::from_millis(999)).is_some());
        assert!(store.get(&key, now + Duration::from_secs(1)).is_none());
        assert_eq!((store.len(), store.expiries.len(), store.used()), (0, 0, 0));
    }

    #[test]
    fn the_sweep_takes_what_has_expired_and_no_more_than_it_may() {
        let now = Instant::now();
        let mut store = filled(&["a", "b", "c"], now);
        store.sweep(now + Duration::from_secs(2), 1);
        assert_eq!(store.len(), 2);
        store.sweep(now + Duration::from_secs(2), 100);
        assert_eq!(store.len(), 1);
    }

    #[test]
    fn a_new_value_has_no_expiry_and_another_kind_is_an_error() {
        let now = Instant::now();
        let (mut store, key) = (filled(&["cat"], now), Bytes::from("cat"));
        store.put(&key, Value::Text(Vec::new()));
        assert_eq!(store.expiry(&key, now), Some(None));
        assert!(store.expiries.is_empty());
        assert_eq!(store.find::<List>(&key, now).err(), Some(WrongKind));
        assert_eq!(store.make::<Hash>(&key, now).err(), Some(WrongKind));
    }

    #[test]
    fn members_are_in_the_order_of_their_scores() {
        let mut sorted = Sorted::default();
        let names = ["late", "early", "soon"].map(Bytes::from);
        for (name, score) in names.iter().zip([9.0, -1.0, 3.5]) {
            assert_eq!(sorted.set(name, score), None);
        }
        assert_eq!(sorted.set(&names[0], 0.0), Some(9.0));
        let found: Vec<_> = sorted.from(-0.0).map(|(name, _)| name.clone()).collect();
        assert_eq!(found, ["late", "soon"]);
        assert!(sorted.remove(&names[2]) && !sorted.remove(&names[2]));
        assert_eq!(sorted.len(), 2);
    }
}
