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
    /// There is no body, or nothing of it has been read.
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
        What::Reset | What::Timeout => Verdict::GiveUp,
    }
}

impl From<&SendErrorKind> for What {
    fn from(kind: &SendErrorKind) -> Self {
        match kind {
            SendErrorKind::Connect(_) => Self::Connect,
            SendErrorKind::Reset(_) => Self::Reset,
            SendErrorKind::Timeout => Self::Timeout,
            SendErrorKind::BadResponse(_)
            | SendErrorKind::Upload
            | SendErrorKind::Full { .. }
            | SendErrorKind::Cut => Self::Final,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plan() -> RetryPlan {
        RetryPlan { attempts: 2, connect: true, reset_before_response: true, response_timeout: false }
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
        for what in [What::Reset, What::Timeout, What::Final] {
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

    proptest! {
        #[test]
        fn nothing_that_may_have_been_seen_is_sent_again_unless_it_is_idempotent_and_whole(
            what in prop_oneof![Just(What::Reset), Just(What::Timeout), Just(What::Final)],
            reused: bool, idempotent: bool, body_whole: bool, bound: bool, attempts in 1..12_u32,
            response_timeout: bool, reset_before_response: bool,
        ) {
            let failure = Failure { what, unsent: false, reused, idempotent, body_whole, bound, attempts };
            let plan = RetryPlan { attempts: 10, connect: true, reset_before_response, response_timeout };
            if decide(&failure, &plan) != Verdict::GiveUp {
                prop_assert!(idempotent && body_whole);
            }
        }
    }
}
