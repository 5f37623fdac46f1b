//! Clients that wait for something to be pushed onto a list, the first to come served first.
//!
//! Start at [`Waiting::serve`]. A value is taken only for a client that still waits: one that gives
//! up, or whose connection ends, leaves under the same lock under which it would have been served.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use tokio::sync::oneshot;

use super::commands::{End, Refusal, shift};
use super::keyspace::Keyspace;
use super::resp::Reply;

/// What a client waits for.
pub enum Wish {
    /// `BRPOP key ... timeout`: one value of the first of these lists that has any.
    Pop { keys: Vec<Bytes>, end: End },
    /// `BLMOVE from to LEFT|RIGHT LEFT|RIGHT timeout`
    Move { from: Bytes, from_end: End, to: Bytes, to_end: End },
}

impl Wish {
    /// The wish in a command and how long it is held; `None` for a command that does not wait.
    /// 0 seconds means for ever, as in Redis.
    pub fn read(words: &[Bytes]) -> Result<Option<(Self, Option<Duration>)>, Refusal> {
        let Some((name, words)) = words.split_first() else { return Ok(None) };
        let name = name.to_ascii_lowercase();
        let wish = match (name.as_slice(), words) {
            (b"blpop", [keys @ .., _]) if !keys.is_empty() => {
                Self::Pop { keys: keys.to_vec(), end: End::Left }
            }
            (b"brpop", [keys @ .., _]) if !keys.is_empty() => {
                Self::Pop { keys: keys.to_vec(), end: End::Right }
            }
            (b"blmove", [from, to, from_end, to_end, _]) => {
                let (from_end, to_end) = (End::named(from_end)?, End::named(to_end)?);
                Self::Move { from: from.clone(), from_end, to: to.clone(), to_end }
            }
            (b"blpop" | b"brpop" | b"blmove", _) => return Err(Refusal::words(&name)),
            _ => return Ok(None),
        };
        Ok(Some((wish, patience(words.last().expect("each of them has a timeout"))?)))
    }

    /// Answers it if that can be done now.
    pub fn grant(&self, keys: &mut Keyspace, now: Instant) -> Result<Option<Reply>, Refusal> {
        match self {
            Self::Pop { keys: names, end } => {
                for name in names {
                    if let Some(value) = end.take(keys, name, now)? {
                        return Ok(Some(Reply::bulks([name.clone(), value])));
                    }
                }
                Ok(None)
            }
            Self::Move { from, from_end, to, to_end } => {
                Ok(shift(keys, (from, *from_end), (to, *to_end), now)?.map(Reply::Bulk))
            }
        }
    }

    /// What is answered when there was nothing.
    pub fn nothing(&self) -> Reply {
        match self {
            Self::Pop { .. } => Reply::NilArray,
            Self::Move { .. } => Reply::Nil,
        }
    }
}

fn patience(word: &[u8]) -> Result<Option<Duration>, Refusal> {
    const NO_FLOAT: Refusal = Refusal::new("ERR timeout is not a float or out of range");
    let seconds: f64 = std::str::from_utf8(word).ok().and_then(|word| word.parse().ok()).ok_or(NO_FLOAT)?;
    if seconds < 0.0 {
        return Err(Refusal::new("ERR timeout is negative"));
    }
    let patience = Duration::try_from_secs_f64(seconds).map_err(|_| NO_FLOAT)?;
    Ok((!patience.is_zero()).then_some(patience))
}

/// Everybody who waits, in the order in which they came. A client waits at most once.
#[derive(Default)]
pub struct Waiting(VecDeque<Waiter>);

struct Waiter {
    client: u64,
    wish: Wish,
    reply: oneshot::Sender<Reply>,
}

impl Waiting {
    pub fn join(&mut self, client: u64, wish: Wish) -> oneshot::Receiver<Reply> {
        let (reply, answer) = oneshot::channel();
        self.0.push_back(Waiter { client, wish, reply });
        answer
    }

    pub fn leave(&mut self, client: u64) {
        self.0.retain(|waiter| waiter.client != client);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Serves whom it can. What is moved for one may be what another waits for, so it begins again
    /// after each; every round removes a waiter, so it ends.
    pub fn serve(&mut self, keys: &mut Keyspace, now: Instant) {
        let mut at = 0;
        while let Some(waiter) = self.0.get(at) {
            // A key that became something else is none of a waiter's business: it waits on.
            let Ok(Some(reply)) = waiter.wish.grant(keys, now) else {
                at += 1;
                continue;
            };
            let waiter = self.0.remove(at).expect("it was just looked at");
            let _ = waiter.reply.send(reply);
            at = 0;
        }
    }
}
