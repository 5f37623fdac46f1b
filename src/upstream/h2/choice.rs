//! Which connection takes the next stream. Pure.
//!
//! Streams are counted here and not left to the codec, which would let requests queue unseen:
//! a connection that is full gets none, however patient it would be.

use std::time::Duration;

/// As many streams as one connection carries, unless its backend allows fewer.
pub const STREAMS: usize = 100;

/// As many connections as one thread keeps to one backend; those that only finish what they
/// carry are not counted.
pub const CONNECTIONS: usize = 4;

/// A connection, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Later ones have greater ids.
    pub id: u64,
    pub streams: usize,
    /// What the backend allows.
    pub limit: usize,
    /// Since its last stream ended; zero while it carries one.
    pub quiet: Duration,
}

/// What a request asks of its connection.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// Rather one opened after this one, which was the newest when another was found broken.
    pub after: Option<u64>,
    /// No longer quiet than this.
    pub quiet: Duration,
}

/// Who is under way already.
#[derive(Clone, Copy, Debug)]
pub struct Queue {
    /// Connections that are being opened.
    pub opening: usize,
    /// Streams that each of them is expected to carry; one is its opener's.
    pub expected: usize,
    /// Requests that wait before this one.
    pub before: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// This one, by its place.
    Take(usize),
    /// A new one, in place of one that carries nothing.
    Open { instead: Option<usize> },
    /// One that is being opened will have room.
    Wait,
    /// All are taken.
    Full,
}

impl Seen {
    pub fn room(&self) -> usize {
        self.limit.min(STREAMS).saturating_sub(self.streams)
    }
}

/// The busiest connection that has room, so that what is not needed falls quiet and is closed.
pub fn choose(seen: &[Seen], wish: Wish, queue: Queue) -> Choice {
    let lively = |seen: &Seen| seen.streams > 0 || seen.quiet < wish.quiet;
    let fresh = |seen: &Seen| wish.after.is_none_or(|after| seen.id > after);
    // What those who came before will take is not there for who comes now.
    let room: usize = seen.iter().filter(|seen| lively(seen)).map(Seen::room).sum();
    let served = room > queue.before;
    let busiest = |fits: &dyn Fn(&Seen) -> bool| {
        let fit = seen.iter().enumerate().filter(|(_, seen)| seen.room() > 0 && lively(seen) && fits(seen));
        fit.max_by_key(|(place, seen)| (seen.streams, usize::MAX - place)).map(|(place, _)| place)
    };
    if let Some(place) = busiest(&fresh).filter(|_| served) {
        return Choice::Take(place);
    }
    if queue.before < queue.opening * queue.expected.saturating_sub(1) {
        return Choice::Wait;
    }
    if seen.len() + queue.opening < CONNECTIONS {
        return Choice::Open { instead: None };
    }
    let unfit = |seen: &Seen| seen.streams == 0 && !(lively(seen) && fresh(seen));
    if let Some(place) = seen.iter().position(unfit) {
        return Choice::Open { instead: Some(place) };
    }
    match busiest(&|_| true).filter(|_| served) {
        Some(place) => Choice::Take(place),
        None => Choice::Full,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ANY: Wish = Wish { after: None, quiet: Duration::MAX };

    fn busy(id: u64, streams: usize) -> Seen {
        Seen { id, streams, limit: 10, quiet: Duration::ZERO }
    }

    fn idle(id: u64, seconds: u64) -> Seen {
        Seen { quiet: Duration::from_secs(seconds), ..busy(id, 0) }
    }

    fn queue(opening: usize, before: usize) -> Queue {
        Queue { opening, expected: 10, before }
    }

    fn now(seen: &[Seen], wish: Wish) -> Choice {
        choose(seen, wish, queue(0, 0))
    }

    #[test]
    fn the_busiest_with_room_takes_it() {
        assert_eq!(now(&[busy(1, 3), busy(2, 9), busy(3, 10)], ANY), Choice::Take(1));
        assert_eq!(now(&[busy(1, 3), busy(2, 3)], ANY), Choice::Take(0));
    }

    #[test]
    fn another_is_opened_only_when_all_are_full_and_there_are_few() {
        assert_eq!(now(&[], ANY), Choice::Open { instead: None });
        assert_eq!(now(&[busy(1, 10)], ANY), Choice::Open { instead: None });
        assert_eq!(now(&[busy(1, 10); CONNECTIONS], ANY), Choice::Full);
        assert_eq!(choose(&[busy(1, 10)], ANY, queue(1, 8)), Choice::Wait, "one is on its way");
        assert_eq!(choose(&[busy(1, 10)], ANY, queue(1, 9)), Choice::Open { instead: None });
        assert_eq!(choose(&[busy(1, 10)], ANY, queue(3, 27)), Choice::Full);
    }

    #[test]
    fn our_own_limit_holds_where_the_backend_has_none() {
        let generous = Seen { limit: usize::MAX, ..busy(1, STREAMS) };
        assert_eq!(now(&[generous], ANY), Choice::Open { instead: None });
    }

    #[test]
    fn who_cannot_be_sent_again_takes_no_quiet_one() {
        let wish = Wish { quiet: Duration::from_secs(1), ..ANY };
        assert_eq!(now(&[idle(1, 2)], wish), Choice::Open { instead: None });
        assert_eq!(now(&[idle(1, 0)], wish), Choice::Take(0));
        let four = [idle(1, 2), idle(2, 3), busy(3, 10), busy(4, 10)];
        assert_eq!(now(&four, wish), Choice::Open { instead: Some(0) });
    }

    #[test]
    fn after_a_break_a_newer_one_is_preferred_and_none_refused_for_good() {
        let wish = Wish { after: Some(2), ..ANY };
        assert_eq!(now(&[busy(2, 1), busy(3, 0)], wish), Choice::Take(1));
        assert_eq!(now(&[busy(1, 1), busy(2, 1)], wish), Choice::Open { instead: None });
        assert_eq!(now(&[busy(1, 1), busy(2, 2), busy(1, 1), busy(1, 1)], wish), Choice::Take(1));
    }

    #[test]
    fn newcomers_stand_behind_those_who_wait() {
        let four = [busy(1, 9), busy(2, 10), busy(3, 10), busy(4, 10)];
        assert_eq!(choose(&four, ANY, queue(0, 1)), Choice::Full);
        assert_eq!(choose(&four, ANY, queue(0, 0)), Choice::Take(0));
    }

    proptest! {
        #[test]
        fn nothing_is_taken_beyond_a_limit_nor_opened_beyond_the_cap_nor_refused_while_there_is_room(
            seen in prop::collection::vec(
                (0..9_u64, 0..130_usize, 0..130_usize, 0..3_u64).prop_map(|(id, streams, limit, quiet)| {
                    let quiet = Duration::from_secs(if streams > 0 { 0 } else { quiet });
                    Seen { id, streams, limit, quiet }
                }), 0..=CONNECTIONS),
            after in prop::option::of(0..9_u64), quiet in prop_oneof![Just(Duration::MAX), Just(Duration::from_secs(1))],
            opening in 0..3_usize, before in 0..200_usize,
        ) {
            prop_assume!(seen.len() + opening <= CONNECTIONS);
            match choose(&seen, Wish { after, quiet }, queue(opening, before)) {
                Choice::Take(place) => {
                    let taken = seen[place];
                    prop_assert!(taken.streams < taken.limit && taken.streams < STREAMS);
                    prop_assert!(taken.streams > 0 || taken.quiet < quiet);
                }
                Choice::Open { instead: None } => prop_assert!(seen.len() + opening < CONNECTIONS),
                Choice::Open { instead: Some(place) } => prop_assert_eq!(seen[place].streams, 0),
                Choice::Wait => prop_assert!(opening > 0),
                Choice::Full => {
                    prop_assert_eq!(seen.len() + opening, CONNECTIONS);
                    let fit = |seen: &&Seen| seen.streams > 0 || seen.quiet < quiet;
                    let room: usize = seen.iter().filter(fit).map(Seen::room).sum();
                    prop_assert!(room <= before);
                }
            }
        }
    }
}
