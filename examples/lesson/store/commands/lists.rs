//! Lists, used as queues. Start at [`shift`], which hands a job from a queue to a worker in one step.

use std::time::Instant;

use axum::body::Bytes;

use super::{Answer, NOT_POSITIVE, Refusal, SYNTAX, integer, is};
use crate::store::keyspace::{Keyspace, List};
use crate::store::resp::Reply;

/// Of a list.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    Left,
    Right,
}

impl End {
    pub fn named(word: &[u8]) -> Result<Self, Refusal> {
        if is(word, "left") {
            Ok(Self::Left)
        } else if is(word, "right") {
            Ok(Self::Right)
        } else {
            Err(SYNTAX)
        }
    }

    fn push(self, list: &mut List, value: Bytes) {
        match self {
            Self::Left => list.push_front(value),
            Self::Right => list.push_back(value),
        }
    }

    fn pop(self, list: &mut List) -> Option<Bytes> {
        match self {
            Self::Left => list.pop_front(),
            Self::Right => list.pop_back(),
        }
    }

    /// Takes one from the list under a key.
    pub fn take(self, keys: &mut Keyspace, key: &Bytes, now: Instant) -> Result<Option<Bytes>, Refusal> {
        let value = keys.find::<List>(key, now)?.and_then(|list| self.pop(list));
        keys.tidy(key);
        Ok(value)
    }
}

/// Takes one from a list and puts it in another, or in the same. At no time is it in neither.
pub fn shift(
    keys: &mut Keyspace,
    (from, from_end): (&Bytes, End),
    (to, to_end): (&Bytes, End),
    now: Instant,
) -> Result<Option<Bytes>, Refusal> {
    if keys.find::<List>(from, now)?.is_none() {
        return Ok(None);
    }
    keys.find::<List>(to, now)?; // A target of another kind is refused before anything is taken.
    let list = keys.find::<List>(from, now)?;
    let Some(value) = list.and_then(|list| from_end.pop(list)) else { return Ok(None) };
    to_end.push(keys.make(to, now)?, value.clone());
    keys.tidy(from);
    Ok(Some(value))
}

/// `LMOVE from to LEFT|RIGHT LEFT|RIGHT`
pub fn lmove(keys: &mut Keyspace, words: &[Bytes], now: Instant) -> Answer {
    let (from, to) = ((&words[0], End::named(&words[2])?), (&words[1], End::named(&words[3])?));
    Ok(Reply::maybe(shift(keys, from, to, now)?))
}

pub fn lpush(keys: &mut Keyspace, words: &[Bytes], now: Instant) -> Answer {
    push(keys, words, End::Left, now)
}

pub fn rpush(keys: &mut Keyspace, words: &[Bytes], now: Instant) -> Answer {
    push(keys, words, End::Right, now)
}

fn push(keys: &mut Keyspace, words: &[Bytes], end: End, now: Instant) -> Answer {
    let list = keys.make::<List>(&words[0], now)?;
    words[1..].iter().for_each(|value| end.push(list, value.clone()));
    Ok(Reply::count(list.len()))
}

pub fn lpop(keys: &mut Keyspace, words: &[Bytes], now: Instant) -> Answer {
    pop(keys, words, End::Left, now)
}

pub fn rpop(keys: &mut Keyspace, words: &[Bytes], now: Instant) -> Answer {
    pop(keys, words, End::Right, now)
}

/// One value, or an array where a number is given.
fn pop(keys: &mut Keyspace, words: &[Bytes], end: End, now: Instant) -> Answer {
    let Some(count) = words.get(1) else { return Ok(Reply::maybe(end.take(keys, &words[0], now)?)) };
    let count = integer(count).ok().and_then(|count| usize::try_from(count).ok()).ok_or(NOT_POSITIVE)?;
    let Some(list) = keys.find::<List>(&words[0], now)? else { return Ok(Reply::NilArray) };
    let taken: Vec<_> = (0..count.min(list.len())).filter_map(|_| end.pop(list)).collect();
    keys.tidy(&words[0]);
    Ok(Reply::bulks(taken))
}

pub fn lrange(keys: &mut Keyspace, words: &[Bytes], now: Instant) -> Answer {
    let (first, last) = (integer(&words[1])?, integer(&words[2])?);
    let Some(list) = keys.find::<List>(&words[0], now)? else { return Ok(Reply::Array(Vec::new())) };
    Ok(Reply::bulks(list.range(span(first, last, list.len())).cloned()))
}

pub fn ltrim(keys: &mut Keyspace, words: &[Bytes], now: Instant) -> Answer {
    let (first, last) = (integer(&words[1])?, integer(&words[2])?);
    if let Some(list) = keys.find::<List>(&words[0], now)? {
        let span = span(first, last, list.len());
        list.truncate(span.end);
        list.drain(..span.start);
    }
    keys.tidy(&words[0]);
    Ok(Reply::OK)
}

/// From the first to the last, which is part of it; numbers below zero count from the end.
fn span(first: i64, last: i64, len: usize) -> std::ops::Range<usize> {
    let len = len as i64;
    let from = |index: i64| if index < 0 { len.saturating_add(index) } else { index };
    let end = from(last).saturating_add(1).clamp(0, len);
    let start = from(first).clamp(0, end);
    start as usize..end as usize
}

pub fn llen(keys: &mut Keyspace, words: &[Bytes], now: Instant) -> Answer {
    Ok(Reply::count(keys.find::<List>(&words[0], now)?.map_or(0, |list| list.len())))
}

/// `LREM key count value`: below zero it looks from the right, at zero it removes all.
pub fn lrem(keys: &mut Keyspace, words: &[Bytes], now: Instant) -> Answer {
    let count = integer(&words[1])?;
    let Some(list) = keys.find::<List>(&words[0], now)? else { return Ok(Reply::Int(0)) };
    let most = if count == 0 { list.len() } else { count.unsigned_abs() as usize };
    let mut removed = 0;
    let mut keep = |value: &Bytes| {
        let remove = removed < most && *value == words[2];
        removed += usize::from(remove);
        !remove
    };
    if count < 0 {
        let mut kept: List = list.drain(..).rev().filter(|value| keep(value)).collect();
        kept.make_contiguous().reverse();
        *list = kept;
    } else {
        list.retain(keep);
    }
    keys.tidy(&words[0]);
    Ok(Reply::count(removed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_counts_from_either_end_and_is_never_outside() {
        assert_eq!(span(0, -1, 3), 0..3);
        assert_eq!(span(-2, -2, 3), 1..2);
        assert_eq!(span(-9, 9, 3), 0..3);
        assert_eq!(span(2, 1, 3), 2..2);
        assert_eq!(span(5, 9, 3), 3..3);
        assert_eq!(span(i64::MIN, i64::MAX, 3), 0..3);
        assert!(span(0, -9, 3).is_empty());
    }
}
