//! Which store this run uses. Start at [`Source::from_env`].
//!
//! The lesson empties its store again and again, so it takes a Redis only when nothing is in it, and
//! nobody but this file can make a [`Source`] of one.

use redis::cmd;

use super::client::{Client, Link};
use super::relay;
use crate::harness::Outcome;

/// Where the store comes from.
#[derive(Clone, Debug)]
pub struct Source(Option<Redis>);

/// A database that was empty when the run began.
#[derive(Clone, Debug)]
struct Redis {
    url: String,
    /// `Redis 7.0.15 at 127.0.0.1:6379/9`
    described: String,
}

impl Source {
    /// A child of this example.
    pub const EMBEDDED: Self = Self(None);

    /// The Redis of `REDIS_URL`, if that is set and the database is empty.
    pub async fn from_env() -> Outcome<Self> {
        match std::env::var("REDIS_URL") {
            Ok(url) => Self::redis(&url).await,
            Err(_) => Ok(Self::EMBEDDED),
        }
    }

    /// A Redis whose database is empty; an error where it is not.
    pub async fn redis(url: &str) -> Outcome<Self> {
        let place = relay::Place::of(url)?;
        let at = format!("{}{}", place.address, if place.path == "/" { "" } else { &place.path });
        let client = Client::connect(url, Link::PerRequest).await?;
        let unreachable = |error| format!("the Redis of REDIS_URL at {at} does not answer: {error}");
        let keys: u64 = client.run(&cmd("DBSIZE")).await.map_err(unreachable)?;
        if keys > 0 {
            let other = format!("redis://{}/9", place.address);
            return Err(format!(
                "the database at {at} is not empty (keys in it: {keys}), and the lesson would delete them; \
                 set REDIS_URL to an empty one, such as {other}"
            )
            .into());
        }
        let info: String = client.run(cmd("INFO").arg("server")).await.map_err(unreachable)?;
        let described = match field(&info, "redis_version") {
            Some(version) => format!("Redis {version} at {at}"),
            None => format!("a Redis at {at}"),
        };
        Ok(Self(Some(Redis { url: url.into(), described })))
    }

    /// For the report.
    pub fn describe(&self) -> String {
        self.0.as_ref().map_or_else(|| "embedded RESP server".into(), |redis| redis.described.clone())
    }

    pub(super) fn url(&self) -> Option<&str> {
        self.0.as_ref().map(|redis| redis.url.as_str())
    }
}

/// The value of a line `name:value` in what INFO answers.
pub(super) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}
