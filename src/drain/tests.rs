//! Whose word counts, and how a drain goes on to its end.

use super::*;
use proptest::prelude::*;

fn phase() -> impl Strategy<Value = Phase> {
    prop_oneof![Just(Phase::Active), Just(Phase::Draining), Just(Phase::Drained), Just(Phase::Stopped)]
}

#[test]
fn an_operators_word_holds_until_the_files_changes() {
    let mut words = Words { operator: Some(Phase::Draining), ..Words::default() };
    words.file_says(Phase::Active);
    assert_eq!(words.phase(), Phase::Draining);
    words.file_says(Phase::Stopped);
    assert_eq!((words.phase(), words.operator), (Phase::Stopped, None));
}

#[test]
fn ready_over_a_file_that_says_draining_is_drift_and_holds() {
    let mut words = Words { file: Phase::Draining, ..Words::default() };
    assert_eq!(words.ready(), Ok(()));
    assert!(words.drifts());
    words.file_says(Phase::Draining);
    assert_eq!(words.phase(), Phase::Active);
}

#[test]
fn a_drain_of_an_earlier_process_waits_for_whom_that_one_knew() {
    let began = Instant::now();
    let at = |seconds| began + Duration::from_secs(seconds);
    let mut drain = Drain::begin(true, Some(at(600)), began);
    drain.expect_strangers(at(300));
    acknowledged(&mut drain);
    assert_eq!(drain.step(Left::default(), at(299)), None);
    assert!(drain.holds_tokens());
    assert_eq!(drain.step(Left { sessions: 1, ..Left::default() }, at(301)), None);
    assert_eq!(drain.step(Left::default(), at(302)), Some(Step::CloseIdle));
}

#[test]
fn a_drain_that_another_process_began_keeps_its_closing_time_and_its_end() {
    let began = Instant::now();
    let at = |seconds| began + Duration::from_secs(seconds);
    let mut drain = Drain::resume(true, Some(at(60)), began, false);
    acknowledged(&mut drain);
    let left = Left { sessions: 1, ..Left::default() };
    assert_eq!(drain.step(left, at(40)), None);
    assert_eq!(drain.step(left, at(48)), Some(Step::CloseTokens));
    let mut drain = Drain::resume(true, None, began, true);
    assert!(drain.is_over() && !drain.holds_tokens());
    assert_eq!(drain.step(left, at(1)), None);
}

#[test]
fn ready_cannot_overrule_the_health_answer() {
    let mut words = Words { health: Phase::Draining, operator: Some(Phase::Stopped), ..Words::default() };
    assert_eq!(words.ready(), Err(Source::Health));
    assert_eq!(words.phase(), Phase::Draining);
}

proptest! {
    #[test]
    fn the_source_named_always_holds_the_phase(file in phase(), operator in proptest::option::of(phase()), health in phase()) {
        let words = Words { file, operator, health };
        let held = match words.source() {
            Source::File => words.file,
            Source::Operator => words.operator.expect("the operator has a word when it is the source"),
            Source::Health => words.health,
        };
        prop_assert_eq!(held, words.phase());
    }
}

const HALF_AN_HOUR: u64 = 1800;

fn acknowledged(drain: &mut Drain) {
    let asked = drain.ask();
    drain.acknowledge(asked);
}

fn left(in_flight: u64, sessions: u64) -> Left {
    Left { in_flight, tunnels: 0, sessions }
}

#[test]
fn in_flight_zero_means_nothing_before_every_thread_knows() {
    let now = Instant::now();
    let mut drain = Drain::begin(false, None, now);
    assert_eq!(drain.step(left(0, 0), now), None);
    acknowledged(&mut drain);
    assert_eq!(drain.step(left(1, 0), now), None);
    assert_eq!(
        drain.step(left(0, 9), now),
        Some(Step::CloseIdle),
        "a pool without sessions does not wait for any"
    );
    assert!(!drain.is_over());
    drain.emptied(left(1, 0), now);
    assert!(!drain.is_over(), "somebody has come meanwhile");
    assert_eq!(drain.step(left(0, 9), now), Some(Step::CloseIdle));
    drain.emptied(left(0, 9), now);
    assert!(drain.is_over());
}

#[test]
fn who_looked_before_closing_time_has_not_seen_it() {
    let began = Instant::now();
    let closing = began + Duration::from_secs(48);
    let mut drain = Drain::begin(true, Some(began + Duration::from_secs(60)), began);
    let early = drain.ask();
    assert_eq!(drain.step(left(0, 1), closing), Some(Step::CloseTokens));
    let late = drain.ask();
    drain.acknowledge(early);
    assert_eq!(drain.step(left(0, 1), closing), None);
    drain.acknowledge(late);
    assert_eq!(drain.step(left(0, 1), closing), Some(Step::CloseIdle));
}

#[test]
fn sessions_hold_a_drain_until_closing_time_and_requests_until_the_deadline() {
    let began = Instant::now();
    let at = |secs| began + Duration::from_secs(secs);
    let mut drain = Drain::begin(true, Some(at(60)), began);
    acknowledged(&mut drain);
    assert_eq!(drain.step(left(0, 3), at(47)), None);
    assert!(drain.holds_tokens());
    assert_eq!(drain.step(left(1, 3), at(48)), Some(Step::CloseTokens));
    assert!(!drain.holds_tokens());
    acknowledged(&mut drain);
    assert_eq!(drain.step(left(1, 3), at(59)), None);
    assert_eq!(drain.step(left(1, 3), at(60)), Some(Step::Cut));
    assert_eq!(drain.step(left(1, 3), at(60)), None);
    assert_eq!(drain.step(left(0, 3), at(60)), Some(Step::CloseIdle));
}

#[test]
fn tunnels_are_told_in_closing_time_where_sessions_are_kept_and_all_the_while_where_not() {
    let began = Instant::now();
    let at = |secs| began + Duration::from_secs(secs);
    let told = |drain: &mut Drain, untold: &mut u64, secs| {
        drain.step(Left { tunnels: 12, ..left(0, 3) }, at(secs));
        let due = drain.tunnels_due(*untold, at(secs));
        *untold -= due;
        due
    };
    let (mut keeps, mut untold) = (Drain::begin(true, Some(at(60)), began), 12);
    assert_eq!((0..=48).map(|secs| told(&mut keeps, &mut untold, secs)).sum::<u64>(), 0);
    assert!((49..60).all(|secs| told(&mut keeps, &mut untold, secs) <= 2) && untold <= 1);
    // At the deadline they are cut, which tells the rest.
    assert_eq!(told(&mut keeps, &mut untold, 60), 0);

    let (mut moves, mut untold) = (Drain::begin(false, Some(at(60)), began), 12);
    assert_eq!((0..=30).map(|secs| told(&mut moves, &mut untold, secs)).sum::<u64>(), 6);
    let mut endless = Drain::begin(false, None, began);
    assert_eq!(endless.tunnels_due(12, at(1_000_000)), 0);
}

proptest! {
    /// Whatever happens, a drain with a deadline is over soon after it, tokens hold only
    /// before closing time, and nothing is cut before the deadline.
    #[test]
    fn a_deadline_makes_it_true_by_force(
        keeps: bool, secs in 0..HALF_AN_HOUR,
        looks in proptest::collection::vec((0..4_u64, 0..3_u64, 0..120_u64, any::<bool>()), 1..200),
    ) {
        let began = Instant::now();
        let deadline = began + Duration::from_secs(secs);
        let mut drain = Drain::begin(keeps, Some(deadline), began);
        let mut now = began;
        for (in_flight, sessions, wait, acknowledge) in looks {
            now += Duration::from_secs(wait);
            if acknowledge { acknowledged(&mut drain); }
            match drain.step(left(in_flight, sessions), now) {
                Some(Step::Cut) => prop_assert!(now >= deadline),
                Some(Step::CloseIdle) => drain.emptied(left(in_flight, sessions), now),
                _ => {}
            }
            prop_assert!(!drain.holds_tokens() || now < deadline || secs == 0);
        }
        for _ in 0..4 {
            now = now.max(deadline) + TUNNELS_GRACE;
            let left = Left { tunnels: 1, ..left(1, 1) };
            if drain.step(left, now) == Some(Step::CloseIdle) { drain.emptied(left, now); }
        }
        prop_assert!(drain.is_over());
    }
}
