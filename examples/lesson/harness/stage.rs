//! What a chapter is given: how large to be, what chance to use, which store, and a screen.

use std::time::Duration;

use super::chapter::Outcome;
use crate::store::{Source, Store};

/// How much is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Scale {
    /// For tests: about 30 s in all.
    Small,
    /// About 90 s.
    Normal,
    /// About 5 min.
    Full,
}

impl Scale {
    pub fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Normal => "normal",
            Self::Full => "full",
        }
    }
}

/// What to break on purpose, to see that the claims can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Spoil {
    /// Every `sticky_cookie` in a TOML becomes `round_robin`.
    Sticky,
    /// Every drain becomes a stop.
    Drain,
    /// Replicas that keep sessions in the store keep copies in their memory too.
    Cache,
}

/// Where a chapter plays.
pub struct Stage {
    pub scale: Scale,
    pub seed: u64,
    pub spoil: Option<Spoil>,
    pub source: Source,
    /// Progress goes to standard error when standard output carries JSON.
    pub json: bool,
}

impl Stage {
    /// What this scale asks for.
    pub fn pick<T>(&self, small: T, normal: T, full: T) -> T {
        match self.scale {
            Scale::Small => small,
            Scale::Normal => normal,
            Scale::Full => full,
        }
    }

    /// Chance that is the same for the same seed, and another for each purpose.
    pub fn chance(&self, purpose: &str) -> fastrand::Rng {
        let mix = |seed: u64, byte: u8| (seed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        fastrand::Rng::with_seed(purpose.bytes().fold(self.seed ^ 0xcbf2_9ce4_8422_2325, mix))
    }

    /// One line of progress.
    pub fn say(&self, line: impl AsRef<str>) {
        if self.json {
            eprintln!("  · {}", line.as_ref());
        } else {
            println!("  · {}", line.as_ref());
        }
    }

    /// An empty store of this run's kind.
    pub async fn store(&self) -> Outcome<Store> {
        Store::open(&self.source).await
    }

    /// An empty store that can be stopped and started while replicas use it.
    pub async fn stoppable_store(&self) -> Outcome<Store> {
        Store::open_stoppable(&self.source).await
    }
}

/// The lesson's times of hours, as this run keeps them.
pub mod scaled {
    use super::Duration;

    /// 15 minutes: the short life of a token.
    pub const QUARTER_HOUR: Duration = Duration::from_secs(2);
    /// 1 hour: how long a session lives after its last use.
    pub const HOUR: Duration = Duration::from_secs(8);
    /// 60 seconds: how long a local copy of a session is believed.
    pub const CACHE_MINUTE: Duration = Duration::from_millis(133);
}
