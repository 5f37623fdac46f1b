//! Keys of any kind: how long they live, which there are, what they take.

use std::time::Instant;

use axum::body::Bytes;

use super::{Answer, Refusal, SYNTAX, deadline, integer, is, matches};
use crate::store::keyspace::Keyspace;
use crate::store::resp::Reply;

pub fn del(keys: &mut Keyspace, words: &[Bytes], now: Instant) -> Answer {
    // What has expired does not count as deleted.
    let deleted = words.iter().filter(|key| keys.get(key, now).is_some() && keys.remove(key).is_some());
    Ok(Reply::count(deleted.count()))
}

pub fn exists(keys: &mut Keyspace, words: &[Bytes], now: Instant) -> Answer {
    Ok(Reply::count(words.iter().filter(|key| keys.get(key, now).is_some()).count()))
}

pub fn expire(keys: &mut Keyspace, words: &[Bytes], now: Instant) -> Answer {
    expire_in(keys, words, 1000, "expire", now)
}

pub fn pexpire(keys: &mut Keyspace, words: &[Bytes], now: Instant) -> Answer {
    expire_in(keys, words, 1, "pexpire", now)
}

fn expire_in(keys: &mut Keyspace, words: &[Bytes], unit: u64, name: &str, now: Instant) -> Answer {
    let expires = deadline(&words[1], unit, name, now)?;
    if keys.get(&words[0], now).is_none() {
        return Ok(Reply::Int(0));
    }
    if expires.is_some() {
        keys.set_expiry(&words[0], expires);
    } else {
        keys.remove(&words[0]);
    }
    Ok(Reply::Int(1))
}

pub fn persist(keys: &mut Keyspace, words: &[Bytes], now: Instant) -> Answer {
    let had_one = keys.expiry(&words[0], now).flatten().is_some();
    keys.set_expiry(&words[0], None);
    Ok(Reply::Int(had_one.into()))
}

/// -2 without a key, -1 without an expiry.
pub fn ttl(keys: &mut Keyspace, words: &[Bytes], now: Instant) -> Answer {
    left(keys, words, 1000, now)
}

pub fn pttl(keys: &mut Keyspace, words: &[Bytes], now: Instant) -> Answer {
    left(keys, words, 1, now)
}

/// Rounded to the nearest unit, as Redis does.
fn left(keys: &mut Keyspace, words: &[Bytes], unit: u128, now: Instant) -> Answer {
    Ok(Reply::Int(match keys.expiry(&words[0], now) {
        None => -2,
        Some(None) => -1,
        Some(Some(expires)) => (((expires - now).as_millis() + unit / 2) / unit) as i64,
    }))
}

pub fn kind(keys: &mut Keyspace, words: &[Bytes], now: Instant) -> Answer {
    Ok(Reply::Status(keys.get(&words[0], now).map_or("none", |value| value.name())))
}

pub fn keys(keys: &mut Keyspace, words: &[Bytes], now: Instant) -> Answer {
    Ok(Reply::bulks(keys.keys(now).filter(|key| matches(&words[0], key)).cloned()))
}

/// `SCAN 0 [MATCH pattern] [COUNT number]` answers with all keys at once, so the cursor that it
/// gives is always 0: the end.
pub fn scan(keys: &mut Keyspace, words: &[Bytes], now: Instant) -> Answer {
    const INVALID: Refusal = Refusal::new("ERR invalid cursor");
    integer(&words[0]).map_err(|_| INVALID)?;
    let mut pattern = Bytes::from_static(b"*");
    let (options, []) = words[1..].as_chunks::<2>() else { return Err(SYNTAX) };
    for [option, value] in options {
        if is(option, "match") {
            pattern = value.clone();
        } else if !is(option, "count") || integer(value)? < 1 {
            return Err(SYNTAX);
        }
    }
    let found = Reply::bulks(keys.keys(now).filter(|key| matches(&pattern, key)).cloned());
    Ok(Reply::Array(vec![Reply::bulk("0"), found]))
}

/// Redis counts what has expired and was not yet removed too.
pub fn dbsize(keys: &mut Keyspace, _words: &[Bytes], _now: Instant) -> Answer {
    Ok(Reply::count(keys.len()))
}

pub fn flushdb(keys: &mut Keyspace, words: &[Bytes], _now: Instant) -> Answer {
    if words.first().is_some_and(|word| !is(word, "sync") && !is(word, "async")) {
        return Err(SYNTAX);
    }
    keys.clear();
    Ok(Reply::OK)
}

/// `MEMORY USAGE key`
pub fn memory(keys: &mut Keyspace, words: &[Bytes], now: Instant) -> Answer {
    match words {
        [word, key] if is(word, "usage") => Ok(keys.usage(key, now).map_or(Reply::Nil, Reply::count)),
        _ => Err(Refusal::new("ERR only MEMORY USAGE key is known here")),
    }
}
