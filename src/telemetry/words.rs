//! The words that logs and metrics use, each a closed set: [`End`], [`Stick`] and the labels of
//! single metrics. They are a stable interface.

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident { $($(#[$note:meta])* $variant:ident = $word:literal,)+ })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$note])* $variant,)+ }

        impl $name {
            pub const COUNT: usize = [$($word),+].len();
            /// In the order in which they are declared, so that `ALL[word as usize] == word`.
            pub const ALL: [Self; Self::COUNT] = [$(Self::$variant),+];

            /// As logs and metrics spell it.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }
    )+};
}

words! {
    /// How an exchange ended.
    End {
        Ok = "ok",
        ClientAbort = "client_abort",
        ConnectRefused = "connect_refused",
        ConnectTimeout = "connect_timeout",
        TlsError = "tls_error",
        ResetBeforeResponse = "reset_before_response",
        ResetDuringResponse = "reset_during_response",
        ResponseTimeout = "response_timeout",
        IdleTimeout = "idle_timeout",
        NoBackend = "no_backend",
        HoldTimeout = "hold_timeout",
        RateLimited = "rate_limited",
        BadRequest = "bad_request",
        TooLarge = "too_large",
        /// Ended by force at a drain's deadline.
        Drained = "drained",
        /// A tunnel opened; it is logged once more when it closes.
        Upgraded = "upgraded",
        TunnelClosed = "tunnel_closed",
    }

    /// What the sticky token was worth.
    Stick {
        Valid = "valid",
        New = "new",
        MovedDown = "moved_down",
        MovedDrain = "moved_drain",
        Expired = "expired",
        Forged = "forged",
        UnknownKey = "unknown_key",
        /// The pool honours no tokens.
        None = "none",
    }

    /// Why a request was sent again.
    RetryReason {
        Connect = "connect",
        ResetBeforeResponse = "reset_before_response",
        ResponseTimeout = "response_timeout",
        /// A 502, 503 or 504 that the route does not take for an answer.
        Status = "status",
        /// A reused connection was dead: the same backend on a fresh one, which is no attempt.
        StaleConnection = "stale_connection",
    }

    /// Why a backend was ejected.
    EjectionReason {
        ConsecutiveErrors = "consecutive_errors",
        Consecutive5xx = "consecutive_5xx",
    }

    /// How a connect to a backend went.
    ConnectResult {
        Ok = "ok",
        Refused = "refused",
        Timeout = "timeout",
        TlsError = "tls_error",
        /// Unreachable, unresolved, or out of descriptors.
        Error = "error",
    }

    /// What a probe's answer meant.
    ProbeResult {
        Pass = "pass",
        Fail = "fail",
        /// A `drain_on` status: neither pass nor fail.
        Drain = "drain",
    }

    /// How a drain of a backend finished.
    DrainOutcome {
        /// Nothing was left by itself.
        Drained = "drained",
        /// The deadline ended what was left.
        Forced = "forced",
        /// By `ready` or a later order.
        Ended = "ended",
    }

    /// Why a listener turned a connection or a request head away before any route saw it.
    Rejection {
        BadRequest = "bad_request",
        TooLarge = "too_large",
        FirstByteTimeout = "first_byte_timeout",
        TlsHandshake = "tls_handshake",
        /// No PROXY header where there must be one.
        ProxyHeader = "proxy_header",
        /// Whoever sent it, or would have, is none of `trusted_proxies`.
        UntrustedProxy = "untrusted_proxy",
        HeaderTimeout = "header_timeout",
        MaxConnections = "max_connections",
        /// Its client has as many as it may have.
        MaxConnectionsPerClient = "max_connections_per_client",
        /// Heads that have not come whole hold all the memory that they may.
        MaxHeadMemory = "max_head_memory",
        Flood = "flood",
    }

    /// What became of a reload.
    ReloadResult {
        Applied = "applied",
        Rejected = "rejected",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_words_place_is_its_number() {
        for (place, end) in End::ALL.into_iter().enumerate() {
            assert_eq!(end as usize, place, "{}", end.name());
        }
        assert_eq!(Stick::ALL.map(Stick::name).len(), Stick::COUNT);
        assert_eq!(Stick::ALL[Stick::UnknownKey as usize], Stick::UnknownKey);
    }
}
