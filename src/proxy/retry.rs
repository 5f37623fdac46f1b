//! Whether a request that got no answer may be sent again, and where. Pure.

use crate::plan::RetryPlan;
use crate::upstream::SendErrorKind;

/// What is known of a failed attempt.
#[derive(Clone, Copy, Debug)]
pub struct Failure {
    pub what: What,
    /// Nothing of the request was written.
    pub unsent: bool,
    /// On a connection that had carried another request before.
    pub reused: bool,
    /// RFC 9110 section 9.2.2.
    pub idempotent: bool,
    /// There is no body, or it can still be sent from its beginning.
    pub body_whole: bool,
    /// The backend was named by a valid token.
    pub bound: bool,
    /// Sends so far, this one included; connects that failed are none.
    pub attempts: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Connect,
    Reset,
    Timeout,
    /// An answer that the route does not take for one.
    Status,
    /// The backend has to let go of it: it was stopped, or its drain is over.
    Cut,
    /// Something that no other backend would do better.
    Final,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// To the same backend on a fresh connection: the old one was dead, which says nothing of
    /// the backend.
    SameFresh,
    Elsewhere,
    GiveUp,
}

pub fn decide(failure: &Failure, plan: &RetryPlan) -> Verdict {
    let replayable = failure.idempotent && failure.body_whole;
    let left = failure.attempts < plan.attempts;
    match failure.what {
        What::Final => Verdict::GiveUp,
        // Every backend is asked for a connection at most once, so this ends.
        What::Connect if plan.connect => Verdict::Elsewhere,
        What::Connect => Verdict::GiveUp,
        What::Reset if failure.reused && (failure.unsent || replayable) => Verdict::SameFresh,
        What::Reset if left && plan.reset_before_response && (failure.unsent || replayable) => {
            Verdict::Elsewhere
        }
        What::Timeout if left && plan.response_timeout && replayable && !failure.bound => Verdict::Elsewhere,
        What::Status if left && replayable && !failure.bound => Verdict::Elsewhere,
        What::Cut if failure.unsent || (left && plan.reset_before_response && replayable) => {
            Verdict::Elsewhere
        }
        What::Reset | What::Timeout | What::Status | What::Cut => Verdict::GiveUp,
    }
}

/// Whether a verdict sends more than was asked for, which the budget has to allow. A connect that
/// failed has sent nothing, a dead connection says nothing of how much there is to do, and what an
/// operator cuts is cut once.
pub fn costs(verdict: Verdict, what: What) -> bool {
    verdict == Verdict::Elsewhere && !matches!(what, What::Connect | What::Cut)
}

impl From<&SendErrorKind> for What {
    fn from(kind: &SendErrorKind) -> Self {
        match kind {
            SendErrorKind::Connect(_) => Self::Connect,
            SendErrorKind::Reset(_) => Self::Reset,
            SendErrorKind::Timeout => Self::Timeout,
            SendErrorKind::Cut => Self::Cut,
            SendErrorKind::BadResponse(_) | SendErrorKind::Upload | SendErrorKind::Full { .. } => Self::Final,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plan() -> RetryPlan {
        RetryPlan {
            attempts: 2,
            connect: true,
            reset_before_response: true,
            response_timeout: false,
            statuses: Vec::new(),
            budget: 0.2,
        }
    }

    fn failure(what: What) -> Failure {
        Failure {
            what,
            unsent: false,
            reused: false,
            idempotent: false,
            body_whole: true,
            bound: false,
            attempts: 1,
        }
    }

    #[test]
    fn a_post_that_a_backend_may_have_seen_is_never_repeated() {
        for what in [What::Reset, What::Timeout, What::Status, What::Cut, What::Final] {
            for reused in [false, true] {
                let failure = Failure { reused, ..failure(what) };
                let plan = RetryPlan { response_timeout: true, attempts: 10, ..plan() };
                assert_eq!(decide(&failure, &plan), Verdict::GiveUp, "{failure:?}");
            }
        }
    }

    #[test]
    fn a_post_of_which_nothing_was_written_goes_to_the_same_backend_afresh() {
        let failure = Failure { unsent: true, reused: true, ..failure(What::Reset) };
        assert_eq!(decide(&failure, &plan()), Verdict::SameFresh);
    }

    #[test]
    fn a_get_on_a_dead_reused_connection_stays_and_on_a_fresh_one_goes_elsewhere_once() {
        let get = Failure { idempotent: true, ..failure(What::Reset) };
        assert_eq!(decide(&Failure { reused: true, ..get }, &plan()), Verdict::SameFresh);
        assert_eq!(decide(&get, &plan()), Verdict::Elsewhere);
        assert_eq!(decide(&Failure { attempts: 2, ..get }, &plan()), Verdict::GiveUp);
    }

    #[test]
    fn a_slow_answer_never_moves_a_client_away_from_its_token() {
        let plan = RetryPlan { response_timeout: true, ..plan() };
        let get = Failure { idempotent: true, ..failure(What::Timeout) };
        assert_eq!(decide(&get, &plan), Verdict::Elsewhere);
        assert_eq!(decide(&Failure { bound: true, ..get }, &plan), Verdict::GiveUp);
    }

    #[test]
    fn a_bad_answer_is_asked_for_elsewhere_once_and_never_away_from_a_token() {
        let get = Failure { idempotent: true, ..failure(What::Status) };
        assert_eq!(decide(&get, &plan()), Verdict::Elsewhere);
        assert_eq!(decide(&Failure { attempts: 2, ..get }, &plan()), Verdict::GiveUp);
        assert_eq!(decide(&Failure { bound: true, ..get }, &plan()), Verdict::GiveUp);
        assert_eq!(decide(&Failure { body_whole: false, ..get }, &plan()), Verdict::GiveUp);
    }

    #[test]
    fn what_a_stop_cuts_goes_elsewhere_where_it_can_be_repeated() {
        let get = Failure { idempotent: true, ..failure(What::Cut) };
        assert_eq!(decide(&get, &plan()), Verdict::Elsewhere);
        assert_eq!(decide(&Failure { attempts: 2, ..get }, &plan()), Verdict::GiveUp);
        assert_eq!(decide(&failure(What::Cut), &plan()), Verdict::GiveUp);
        let unsent = Failure { unsent: true, attempts: 2, ..failure(What::Cut) };
        assert_eq!(decide(&unsent, &plan()), Verdict::Elsewhere);
    }

    #[test]
    fn the_budget_pays_for_what_a_backend_has_to_do_twice_over() {
        for what in [What::Reset, What::Timeout, What::Status] {
            assert!(costs(Verdict::Elsewhere, what), "{what:?}");
            assert!(!costs(Verdict::SameFresh, what), "{what:?}");
        }
        assert!(!costs(Verdict::Elsewhere, What::Connect) && !costs(Verdict::Elsewhere, What::Cut));
    }

    proptest! {
        #[test]
        fn nothing_that_may_have_been_seen_is_sent_again_unless_it_is_idempotent_and_whole(
            what in prop::sample::select(vec![
                What::Reset, What::Timeout, What::Status, What::Cut, What::Final,
            ]),
            reused: bool, idempotent: bool, body_whole: bool, bound: bool, attempts in 1..12_u32,
            response_timeout: bool, reset_before_response: bool,
        ) {
            let failure = Failure { what, unsent: false, reused, idempotent, body_whole, bound, attempts };
            let plan = RetryPlan { attempts: 10, reset_before_response, response_timeout, ..plan() };
            if decide(&failure, &plan) != Verdict::GiveUp {
                prop_assert!(idempotent && body_whole);
            }
        }
    }
}
