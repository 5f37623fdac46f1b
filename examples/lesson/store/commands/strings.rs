//! Texts and counters. Start at [`set`].

use std::time::Instant;

use axum::body::Bytes;

use super::{Answer, NOT_AN_INTEGER, Refusal, SYNTAX, deadline, integer, is};
use crate::store::keyspace::{Keyspace, Text, Value};
use crate::store::resp::Reply;

const OVERFLOW: Refusal = Refusal::new("ERR increment or decrement would overflow");

/// `SET key value [NX | XX] [GET] [EX seconds | PX milliseconds | KEEPTTL]`
pub fn set(keys: &mut Keyspace, words: &[Bytes], now: Instant) -> Answer {
    let (key, value) = (&words[0], &words[1]);
    let (mut only_new, mut only_old, mut keep, mut get, mut expires) = (false, false, false, false, None);
    let mut options = words[2..].iter();
    while let Some(option) = options.next() {
        let unit = unit(option);
        if is(option, "nx") && !only_old {
            only_new = true;
        } else if is(option, "xx") && !only_new {
            only_old = true;
        } else if is(option, "get") {
            get = true;
        } else if is(option, "keepttl") && expires.is_none() {
            keep = true;
        } else if let (Some(unit), None, false) = (unit, expires, keep) {
            let word = options.next().ok_or(SYNTAX)?;
            expires = Some(deadline(word, unit, "set", now)?.ok_or_else(|| Refusal::lifetime("set"))?);
        } else {
            return Err(SYNTAX);
        }
    }
    let old = if get { text(keys, key, now)? } else { None };
    let expiry = keys.expiry(key, now);
    let refused = if expiry.is_some() { only_new } else { only_old };
    if !refused {
        keys.put(key, Value::Text(value.to_vec()));
        keys.set_expiry(key, if keep { expiry.flatten() } else { expires });
    }
    Ok(match (get, refused) {
        (true, _) => Reply::maybe(old),
        (false, true) => Reply::Nil,
        (false, false) => Reply::OK,
    })
}

/// How many milliseconds the number behind `EX` or `PX` counts.
fn unit(option: &[u8]) -> Option<u64> {
    if is(option, "ex") {
        Some(1000)
    } else if is(option, "px") {
        Some(1)
    } else {
        None
    }
}

pub fn setex(keys: &mut Keyspace, words: &[Bytes], now: Instant) -> Answer {
    set_for(keys, words, 1000, "setex", now)
}

pub fn psetex(keys: &mut Keyspace, words: &[Bytes], now: Instant) -> Answer {
    set_for(keys, words, 1, "psetex", now)
}

fn set_for(keys: &mut Keyspace, words: &[Bytes], unit: u64, name: &str, now: Instant) -> Answer {
    let expires = deadline(&words[1], unit, name, now)?.ok_or_else(|| Refusal::lifetime(name))?;
    keys.put(&words[0], Value::Text(words[2].to_vec()));
    keys.set_expiry(&words[0], Some(expires));
    Ok(Reply::OK)
}

fn text(keys: &mut Keyspace, key: &Bytes, now: Instant) -> Result<Option<Bytes>, Refusal> {
    Ok(keys.find::<Text>(key, now)?.map(|text| Bytes::copy_from_slice(text)))
}

pub fn get(keys: &mut Keyspace, words: &[Bytes], now: Instant) -> Answer {
    Ok(Reply::maybe(text(keys, &words[0], now)?))
}

/// `GETEX key [EX seconds | PX milliseconds | PERSIST]`: a session that is used lives on.
pub fn getex(keys: &mut Keyspace, words: &[Bytes], now: Instant) -> Answer {
    let expiry = match &words[1..] {
        [] => None,
        [option] if is(option, "persist") => Some(None),
        [option, number] => {
            let unit = unit(option).ok_or(SYNTAX)?;
            let expires = deadline(number, unit, "getex", now)?;
            Some(Some(expires.ok_or_else(|| Refusal::lifetime("getex"))?))
        }
        _ => return Err(SYNTAX),
    };
    let found = text(keys, &words[0], now)?;
    if let Some(expiry) = expiry {
        keys.set_expiry(&words[0], expiry);
    }
    Ok(Reply::maybe(found))
}

pub fn getdel(keys: &mut Keyspace, words: &[Bytes], now: Instant) -> Answer {
    let found = text(keys, &words[0], now)?;
    if found.is_some() {
        keys.remove(&words[0]);
    }
    Ok(Reply::maybe(found))
}

pub fn mget(keys: &mut Keyspace, words: &[Bytes], now: Instant) -> Answer {
    // A key of another kind counts as missing here, in Redis too.
    let found = words.iter().map(|key| Reply::maybe(text(keys, key, now).ok().flatten()));
    Ok(Reply::Array(found.collect()))
}

pub fn mset(keys: &mut Keyspace, words: &[Bytes], _now: Instant) -> Answer {
    let (pairs, []) = words.as_chunks::<2>() else { return Err(Refusal::words(b"mset")) };
    for [key, value] in pairs {
        keys.put(key, Value::Text(value.to_vec()));
    }
    Ok(Reply::OK)
}

pub fn incr(keys: &mut Keyspace, words: &[Bytes], now: Instant) -> Answer {
    add(keys, &words[0], 1, now)
}

pub fn decr(keys: &mut Keyspace, words: &[Bytes], now: Instant) -> Answer {
    add(keys, &words[0], -1, now)
}

pub fn incrby(keys: &mut Keyspace, words: &[Bytes], now: Instant) -> Answer {
    add(keys, &words[0], integer(&words[1])?, now)
}

pub fn decrby(keys: &mut Keyspace, words: &[Bytes], now: Instant) -> Answer {
    let by = integer(&words[1])?.checked_neg();
    add(keys, &words[0], by.ok_or(Refusal::new("ERR decrement would overflow"))?, now)
}

fn add(keys: &mut Keyspace, key: &Bytes, by: i64, now: Instant) -> Answer {
    // Only what succeeds makes a key.
    let old = match keys.find::<Text>(key, now)? {
        Some(text) => integer(text).map_err(|_| NOT_AN_INTEGER)?,
        None => 0,
    };
    let new = old.checked_add(by).ok_or(OVERFLOW)?;
    *keys.make::<Text>(key, now)? = new.to_string().into_bytes();
    Ok(Reply::Int(new))
}

pub fn strlen(keys: &mut Keyspace, words: &[Bytes], now: Instant) -> Answer {
    Ok(Reply::count(keys.find::<Text>(&words[0], now)?.map_or(0, |text| text.len())))
}

pub fn append(keys: &mut Keyspace, words: &[Bytes], now: Instant) -> Answer {
    let text = keys.make::<Text>(&words[0], now)?;
    if text.len() + words[1].len() > crate::store::resp::BULK_MAX {
        return Err(Refusal::new("ERR string exceeds maximum allowed size (proto-max-bulk-len)"));
    }
    text.extend_from_slice(&words[1]);
    Ok(Reply::count(text.len()))
}
