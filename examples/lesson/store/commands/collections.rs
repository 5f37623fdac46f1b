//! Hashes, sets and sorted sets.

use std::time::Instant;

use axum::body::Bytes;

use super::{Answer, Refusal, SYNTAX, integer, is};
use crate::store::keyspace::{Hash, Keyspace, Set, Sorted};
use crate::store::resp::Reply;

const NOT_A_FLOAT: Refusal = Refusal::new("ERR value is not a valid float");

pub fn hset(keys: &mut Keyspace, words: &[Bytes], now: Instant) -> Answer {
    let (pairs, []) = words[1..].as_chunks::<2>() else { return Err(Refusal::words(b"hset")) };
    let hash = keys.make::<Hash>(&words[0], now)?;
    let new = pairs.iter().filter(|[field, value]| hash.insert(field.clone(), value.clone()).is_none());
    Ok(Reply::count(new.count()))
}

pub fn hget(keys: &mut Keyspace, words: &[Bytes], now: Instant) -> Answer {
    let hash = keys.find::<Hash>(&words[0], now)?;
    Ok(Reply::maybe(hash.and_then(|hash| hash.get(&words[1]).cloned())))
}

pub fn hmget(keys: &mut Keyspace, words: &[Bytes], now: Instant) -> Answer {
    let hash = keys.find::<Hash>(&words[0], now)?;
    let field = |field| Reply::maybe(hash.as_ref().and_then(|hash| hash.get(field).cloned()));
    Ok(Reply::Array(words[1..].iter().map(field).collect()))
}

pub fn hdel(keys: &mut Keyspace, words: &[Bytes], now: Instant) -> Answer {
    let Some(hash) = keys.find::<Hash>(&words[0], now)? else { return Ok(Reply::Int(0)) };
    let removed = words[1..].iter().filter(|field| hash.remove(*field).is_some()).count();
    keys.tidy(&words[0]);
    Ok(Reply::count(removed))
}

pub fn hgetall(keys: &mut Keyspace, words: &[Bytes], now: Instant) -> Answer {
    let hash = keys.find::<Hash>(&words[0], now)?;
    let pairs = hash.into_iter().flat_map(|hash| hash.iter());
    Ok(Reply::bulks(pairs.flat_map(|(field, value)| [field.clone(), value.clone()])))
}

pub fn hincrby(keys: &mut Keyspace, words: &[Bytes], now: Instant) -> Answer {
    const NOT_AN_INTEGER: Refusal = Refusal::new("ERR hash value is not an integer");
    const OVERFLOW: Refusal = Refusal::new("ERR increment or decrement would overflow");
    let by = integer(&words[2])?;
    let old = match keys.find::<Hash>(&words[0], now)?.and_then(|hash| hash.get(&words[1])) {
        Some(value) => integer(value).map_err(|_| NOT_AN_INTEGER)?,
        None => 0,
    };
    let new = old.checked_add(by).ok_or(OVERFLOW)?;
    keys.make::<Hash>(&words[0], now)?.insert(words[1].clone(), new.to_string().into());
    Ok(Reply::Int(new))
}

pub fn hlen(keys: &mut Keyspace, words: &[Bytes], now: Instant) -> Answer {
    Ok(Reply::count(keys.find::<Hash>(&words[0], now)?.map_or(0, |hash| hash.len())))
}

pub fn sadd(keys: &mut Keyspace, words: &[Bytes], now: Instant) -> Answer {
    let set = keys.make::<Set>(&words[0], now)?;
    Ok(Reply::count(words[1..].iter().filter(|member| set.insert((*member).clone())).count()))
}

pub fn srem(keys: &mut Keyspace, words: &[Bytes], now: Instant) -> Answer {
    let Some(set) = keys.find::<Set>(&words[0], now)? else { return Ok(Reply::Int(0)) };
    let removed = words[1..].iter().filter(|member| set.remove(*member)).count();
    keys.tidy(&words[0]);
    Ok(Reply::count(removed))
}

pub fn smembers(keys: &mut Keyspace, words: &[Bytes], now: Instant) -> Answer {
    let set = keys.find::<Set>(&words[0], now)?;
    Ok(Reply::bulks(set.into_iter().flat_map(|set| set.iter().cloned())))
}

pub fn sismember(keys: &mut Keyspace, words: &[Bytes], now: Instant) -> Answer {
    let set = keys.find::<Set>(&words[0], now)?;
    Ok(Reply::Int(set.is_some_and(|set| set.contains(&words[1])).into()))
}

pub fn scard(keys: &mut Keyspace, words: &[Bytes], now: Instant) -> Answer {
    Ok(Reply::count(keys.find::<Set>(&words[0], now)?.map_or(0, |set| set.len())))
}

/// `ZADD key [NX | XX] [CH] score member ...`
pub fn zadd(keys: &mut Keyspace, words: &[Bytes], now: Instant) -> Answer {
    let (mut only_new, mut only_old, mut count_changed, mut at) = (false, false, false, 1);
    while let Some(option) = words.get(at) {
        match option {
            _ if is(option, "nx") => only_new = true,
            _ if is(option, "xx") => only_old = true,
            _ if is(option, "ch") => count_changed = true,
            _ => break,
        }
        at += 1;
    }
    let (pairs, []) = words[at..].as_chunks::<2>() else { return Err(SYNTAX) };
    if pairs.is_empty() {
        return Err(SYNTAX);
    }
    if only_new && only_old {
        return Err(Refusal::new("ERR XX and NX options at the same time are not compatible"));
    }
    // All scores are read before any is set.
    let scored = pairs.iter().map(|[score, member]| Ok((float(score).ok_or(NOT_A_FLOAT)?, member)));
    let scored = scored.collect::<Result<Vec<_>, Refusal>>()?;
    let sorted = keys.make::<Sorted>(&words[0], now)?;
    let (mut added, mut changed) = (0, 0);
    for (score, member) in scored {
        let old = sorted.score(member);
        if if old.is_some() { only_new } else { only_old } {
            continue;
        }
        sorted.set(member, score);
        added += usize::from(old.is_none());
        changed += usize::from(old != Some(score));
    }
    keys.tidy(&words[0]);
    Ok(Reply::count(if count_changed { changed } else { added }))
}

/// `ZRANGEBYSCORE key min max [WITHSCORES] [LIMIT offset count]`; `(5` leaves the 5 out.
pub fn zrangebyscore(keys: &mut Keyspace, words: &[Bytes], now: Instant) -> Answer {
    let ((min, above_min), (max, below_max)) = (bound(&words[1])?, bound(&words[2])?);
    let (mut with_scores, mut offset, mut count) = (false, 0, -1);
    let mut options = words[3..].iter();
    while let Some(option) = options.next() {
        if is(option, "withscores") {
            with_scores = true;
        } else if let (true, Some(first), Some(second)) =
            (is(option, "limit"), options.next(), options.next())
        {
            (offset, count) = (integer(first)?, integer(second)?);
        } else {
            return Err(SYNTAX);
        }
    }
    let Some(sorted) = keys.find::<Sorted>(&words[0], now)? else { return Ok(Reply::Array(Vec::new())) };
    let found = sorted.from(min).skip_while(|(_, score)| above_min && *score == min);
    let found = found.take_while(|(_, score)| if below_max { *score < max } else { *score <= max });
    // Redis answers a negative offset with nothing, and a negative count with all.
    let offset = usize::try_from(offset).unwrap_or(usize::MAX);
    let found = found.skip(offset).take(usize::try_from(count).unwrap_or(usize::MAX));
    let named = found.flat_map(|(member, score)| {
        let score = with_scores.then(|| Bytes::from(score.to_string()));
        std::iter::once(member.clone()).chain(score)
    });
    Ok(Reply::bulks(named))
}

fn float(word: &[u8]) -> Option<f64> {
    let number: f64 = std::str::from_utf8(word).ok()?.parse().ok()?;
    (!number.is_nan()).then_some(number)
}

/// A limit of a range, and whether it is itself left out.
fn bound(word: &[u8]) -> Result<(f64, bool), Refusal> {
    let (word, open) = word.strip_prefix(b"(").map_or((word, false), |word| (word, true));
    let limit = float(word).ok_or(Refusal::new("ERR min or max is not a float"))?;
    Ok((limit, open))
}

pub fn zrem(keys: &mut Keyspace, words: &[Bytes], now: Instant) -> Answer {
    let Some(sorted) = keys.find::<Sorted>(&words[0], now)? else { return Ok(Reply::Int(0)) };
    let removed = words[1..].iter().filter(|member| sorted.remove(member)).count();
    keys.tidy(&words[0]);
    Ok(Reply::count(removed))
}

pub fn zscore(keys: &mut Keyspace, words: &[Bytes], now: Instant) -> Answer {
    let sorted = keys.find::<Sorted>(&words[0], now)?;
    let score = sorted.and_then(|sorted| sorted.score(&words[1]));
    Ok(Reply::maybe(score.map(|score| score.to_string().into())))
}

pub fn zcard(keys: &mut Keyspace, words: &[Bytes], now: Instant) -> Answer {
    Ok(Reply::count(keys.find::<Sorted>(&words[0], now)?.map_or(0, |sorted| sorted.len())))
}
