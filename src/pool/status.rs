//! Who may get a visit: one pure function of phase, health and ejection, and who is therefore
//! on the roster.
//!
//! Start at [`Facts::standing`]. The control thread computes standings and rosters; data threads
//! read a standing as one byte and ask [`admits`].

use std::time::Duration;

use crate::drain::Phase;
use crate::plan::HealthInit;
use crate::pool::health::Health;

/// What a backend may get. Fits a byte, see [`Standing::to_u8`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Standing {
    /// Everybody.
    Open = 0,
    /// Only visits whose token names it.
    Known = 1,
    /// Nobody.
    Shut = 2,
}

impl Standing {
    pub fn to_u8(self) -> u8 {
        self as u8
    }

    /// What [`Standing::to_u8`] gave; any other byte is the safe answer.
    pub fn from_u8(byte: u8) -> Self {
        match byte {
            0 => Self::Open,
            1 => Self::Known,
            _ => Self::Shut,
        }
    }
}

/// Whether a visit may go there; `returning` when its token names this backend.
pub fn admits(standing: Standing, returning: bool) -> bool {
    match standing {
        Standing::Open => true,
        Standing::Known => returning,
        Standing::Shut => false,
    }
}

/// Everything that decides about one backend's standing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    pub phase: Phase,
    pub health: Health,
    /// What no verdict means. [`HealthInit::Up`] in a pool without probes.
    pub init: HealthInit,
    /// Taken out for a while because its answers were bad.
    pub ejected: bool,
    /// Tokens hold while it drains: a sticky pool with `on_drain = "keep"`, and closing time has
    /// not begun.
    pub keeps_known: bool,
}

impl Facts {
    pub fn standing(self) -> Standing {
        let lives = match self.health {
            Health::Up => true,
            Health::Down => false,
            Health::Unknown => self.init == HealthInit::Up,
        };
        match self.phase {
            _ if !lives || self.ejected => Standing::Shut,
            Phase::Active => Standing::Open,
            Phase::Draining if self.keeps_known => Standing::Known,
            Phase::Draining | Phase::Drained | Phase::Stopped => Standing::Shut,
        }
    }
}

/// How the backends of a pool stand together; `None` is one that nothing can be sent to. The flag:
/// the healthy share of those that may be used is below `panic_threshold`, and so health is
/// ignored. Whoever waits for a first verdict does not count, for or against.
///
/// Ejections are ignored too while nobody would stand open for them.
pub fn standings(facts: &[Option<Facts>], panic_threshold: f64) -> (Vec<Standing>, bool) {
    let stand = |change: &dyn Fn(Facts) -> Facts| -> Vec<Standing> {
        facts.iter().map(|facts| facts.map_or(Standing::Shut, |facts| change(facts).standing())).collect()
    };
    let own = stand(&|facts| facts);
    let judged = |facts: &Facts| facts.health != Health::Unknown || facts.init == HealthInit::Up;
    let active = facts.iter().flatten().filter(|facts| facts.phase == Phase::Active && judged(facts));
    let (all, healthy) = active.fold((0, 0), |(all, healthy), facts| {
        (all + 1, healthy + u32::from(facts.standing() == Standing::Open))
    });
    if f64::from(healthy) < f64::from(all) * panic_threshold {
        let trusting = |facts: Facts| match judged(&facts) {
            true => Facts { health: Health::Up, ejected: false, ..facts },
            false => facts,
        };
        return (stand(&trusting), true);
    }
    if own.contains(&Standing::Open) {
        return (own, false);
    }
    (stand(&|facts| Facts { ejected: false, ..facts }), false)
}

/// The step of full weight. Effective weights are weight × step, so that they stay whole.
pub const SLOW_START_STEPS: u32 = 10;

/// How far a backend that has been back for `since` is through its slow start: 1 to 9, and from
/// the end of it on [`SLOW_START_STEPS`].
pub fn slow_start_step(since: Duration, slow_start: Duration) -> u32 {
    if since >= slow_start {
        return SLOW_START_STEPS;
    }
    let steps = u128::from(SLOW_START_STEPS - 1);
    1 + (since.as_nanos() * steps / slow_start.as_nanos()) as u32
}

/// A backend that may or may not be on the roster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub standing: Standing,
    pub backup: bool,
    /// As the file or the operator says.
    pub weight: u32,
    /// From [`slow_start_step`]; for the hash policies always [`SLOW_START_STEPS`], since a step
    /// would move keys.
    pub step: u32,
}

/// Places among candidates, with their effective weights.
pub type Seats = Vec<(usize, u32)>;

/// Who belongs on the roster, as places in `candidates`: the open primaries, or the open backups
/// while no primary is open. Then who is in reserve: the open backups while primaries are.
pub fn roster_members(candidates: &[Candidate]) -> (Seats, Seats) {
    let (primaries, backups) = (open(candidates, false), open(candidates, true));
    if primaries.is_empty() { (backups, primaries) } else { (primaries, backups) }
}

/// When all of them are in slow start none is: somebody has to carry the load.
fn open(candidates: &[Candidate], backup: bool) -> Seats {
    let open = || {
        let of_kind = move |c: &Candidate| c.standing == Standing::Open && c.backup == backup;
        candidates.iter().enumerate().filter(move |(_, candidate)| of_kind(candidate))
    };
    let all_slow = open().all(|(_, candidate)| candidate.step < SLOW_START_STEPS);
    open()
        .map(|(at, candidate)| {
            let step = if all_slow { SLOW_START_STEPS } else { candidate.step };
            (at, candidate.weight * step)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHASES: [Phase; 4] = [Phase::Active, Phase::Draining, Phase::Drained, Phase::Stopped];

    #[test]
    fn the_whole_truth_table_of_standings() {
        // phase, then what a living, not ejected backend may get: tokens not kept, tokens kept.
        let table = [
            (Phase::Active, Standing::Open, Standing::Open),
            (Phase::Draining, Standing::Shut, Standing::Known),
            (Phase::Drained, Standing::Shut, Standing::Shut),
            (Phase::Stopped, Standing::Shut, Standing::Shut),
        ];
        assert_eq!(table.map(|(phase, ..)| phase), PHASES);
        let healths = [
            (Health::Up, HealthInit::Probe, true),
            (Health::Up, HealthInit::Up, true),
            (Health::Down, HealthInit::Probe, false),
            (Health::Down, HealthInit::Up, false),
            (Health::Unknown, HealthInit::Probe, false),
            (Health::Unknown, HealthInit::Up, true),
        ];
        for (phase, moves, keeps) in table {
            for (health, init, lives) in healths {
                for ejected in [false, true] {
                    for (keeps_known, standing) in [(false, moves), (true, keeps)] {
                        let facts = Facts { phase, health, init, ejected, keeps_known };
                        let expected = if lives && !ejected { standing } else { Standing::Shut };
                        assert_eq!(facts.standing(), expected, "{facts:?}");
                    }
                }
            }
        }
    }

    fn facts(phase: Phase, health: Health, ejected: bool) -> Option<Facts> {
        Some(Facts { phase, health, init: HealthInit::Probe, ejected, keeps_known: false })
    }

    #[test]
    fn below_the_threshold_health_is_ignored_and_phases_are_not() {
        let (up, down) = (facts(Phase::Active, Health::Up, false), facts(Phase::Active, Health::Down, false));
        let out = facts(Phase::Active, Health::Up, true);
        let drained = facts(Phase::Drained, Health::Down, false);
        let (open, shut) = (Standing::Open, Standing::Shut);
        assert_eq!(
            standings(&[up, down, out, drained, None], 0.5),
            (vec![open, open, open, shut, shut], true)
        );
        assert_eq!(standings(&[up, down], 0.5), (vec![open, shut], false), "half is not below a half");
        assert_eq!(standings(&[down, down], 0.0), (vec![shut, shut], false));
        let unknown = facts(Phase::Active, Health::Unknown, false);
        assert_eq!(standings(&[unknown, unknown], 0.9), (vec![shut, shut], false), "nothing is known yet");
        assert_eq!(standings(&[down, unknown], 0.9), (vec![open, shut], true));
        assert_eq!(standings(&[], 1.0), (vec![], false));
    }

    #[test]
    fn an_ejection_does_not_take_the_last_backend() {
        let (down, out) = (facts(Phase::Active, Health::Down, false), facts(Phase::Active, Health::Up, true));
        let up = facts(Phase::Active, Health::Up, false);
        assert_eq!(standings(&[down, out], 0.0).0, [Standing::Shut, Standing::Open]);
        assert_eq!(standings(&[up, out], 0.0).0, [Standing::Open, Standing::Shut]);
    }

    #[test]
    fn a_known_standing_admits_only_those_who_return() {
        for (standing, new, returning) in
            [(Standing::Open, true, true), (Standing::Known, false, true), (Standing::Shut, false, false)]
        {
            assert_eq!((admits(standing, false), admits(standing, true)), (new, returning));
            assert_eq!(Standing::from_u8(standing.to_u8()), standing);
        }
        assert_eq!(Standing::from_u8(255), Standing::Shut);
    }

    #[test]
    fn slow_start_takes_ten_even_steps() {
        let slow_start = Duration::from_secs(9);
        let steps: Vec<u32> = (0..=10).map(|s| slow_start_step(Duration::from_secs(s), slow_start)).collect();
        assert_eq!(steps, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10]);
        assert_eq!(slow_start_step(Duration::ZERO, Duration::ZERO), 10);
        assert_eq!(slow_start_step(slow_start - Duration::from_nanos(1), slow_start), 9);
    }

    fn candidate(standing: Standing, backup: bool, step: u32) -> Candidate {
        Candidate { standing, backup, weight: 2, step }
    }

    #[test]
    fn backups_are_on_the_roster_only_while_no_primary_is_open() {
        let backup = candidate(Standing::Open, true, 10);
        let with = |primary| roster_members(&[candidate(primary, false, 10), backup]);
        assert_eq!(with(Standing::Open), (vec![(0, 20)], vec![(1, 20)]), "in reserve");
        assert_eq!(with(Standing::Known), (vec![(1, 20)], vec![]));
        assert_eq!(with(Standing::Shut), (vec![(1, 20)], vec![]));
        assert_eq!(roster_members(&[candidate(Standing::Shut, true, 10)]), (vec![], vec![]));
    }

    #[test]
    fn slow_start_lowers_a_weight_unless_all_would_be_in_it() {
        let at = |step| candidate(Standing::Open, false, step);
        assert_eq!(roster_members(&[at(10), at(3)]).0, [(0, 20), (1, 6)]);
        assert_eq!(roster_members(&[at(4), at(3)]).0, [(0, 20), (1, 20)]);
        let shut = candidate(Standing::Shut, false, 10);
        assert_eq!(roster_members(&[shut, at(3)]).0, [(1, 20)]);
    }
}
