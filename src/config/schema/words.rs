//! Keys whose value is one word from a list.

use crate::config::spelling::Words;
use crate::plan::{
    AccessFormat, ClientAuth, ClientIpFrom, EventFormat, FileState, HealthInit, OnDown, OnDrain, OnFull,
    PoolProtocol, ProxyProtocol, SameSite, Scheme, SendProxy, TlsVersion, TunnelDrain,
};

macro_rules! words {
    ($name:ty: $($word:literal => $value:ident),+ $(,)?) => {
        impl Words for $name {
            const WORDS: &'static [(&'static str, Self)] = &[$(($word, <$name>::$value)),+];
        }
    };
}

/// What the file may say for `policy`; in the plan `sticky_cookie` is a flag beside its fallback.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Policy {
    RoundRobin,
    LeastConn,
    LeastTime,
    RandomTwo,
    IpHash,
    ConsistentHash,
    StickyCookie,
}

/// A policy that may place somebody who has no cookie.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Fallback(pub(crate) Policy);

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Protocol {
    Http1,
    H2,
    H2c,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum RetryOn {
    Connect,
    ResetBeforeResponse,
    ResponseTimeout,
    BadGateway,
    Unavailable,
    GatewayTimeout,
}

/// The word that `secure` takes besides true and false.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Auto {
    Auto,
}

/// `secure`, as written.
#[derive(serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
#[serde(untagged)]
pub(crate) enum SecureWord {
    Flag(bool),
    Auto(crate::config::spelling::OneOf<Auto>),
}

words!(Policy:
    "round_robin" => RoundRobin, "least_conn" => LeastConn, "least_time" => LeastTime, "random_two" => RandomTwo,
    "ip_hash" => IpHash, "consistent_hash" => ConsistentHash, "sticky_cookie" => StickyCookie);
words!(Protocol: "h2" => H2, "http/1.1" => Http1, "h2c" => H2c);
words!(PoolProtocol: "http/1.1" => Http1, "h2" => H2, "h2c" => H2c, "auto" => Auto);
words!(SendProxy: "off" => Off, "v2" => V2);
words!(ProxyProtocol: "off" => Off, "v1" => V1, "v2" => V2, "any" => Any);
words!(Scheme: "http" => Http, "https" => Https);
words!(RetryOn:
    "connect" => Connect, "reset_before_response" => ResetBeforeResponse, "response_timeout" => ResponseTimeout,
    "502" => BadGateway, "503" => Unavailable, "504" => GatewayTimeout);
words!(Auto: "auto" => Auto);
words!(EventFormat: "auto" => Auto, "text" => Text, "json" => Json);
words!(AccessFormat: "auto" => Auto, "json" => Json, "logfmt" => Logfmt, "combined" => Combined);
words!(OnFull: "drop" => Drop, "block" => Block);
words!(ClientIpFrom: "x-forwarded-for" => XForwardedFor, "forwarded" => Forwarded);
words!(FileState: "active" => Active, "draining" => Draining, "stopped" => Stopped);
words!(SameSite: "lax" => Lax, "strict" => Strict, "none" => None);
words!(OnDown: "repick" => Repick, "fail" => Fail);
words!(OnDrain: "keep" => Keep, "move" => Move);
words!(TunnelDrain: "close" => Close, "wait" => Wait);
words!(ClientAuth: "off" => Off, "optional" => Optional, "required" => Required);
words!(TlsVersion: "1.2" => V12, "1.3" => V13);
words!(HealthInit: "probe" => Probe, "up" => Up);

impl Words for Fallback {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("round_robin", Self(Policy::RoundRobin)),
        ("least_conn", Self(Policy::LeastConn)),
        ("least_time", Self(Policy::LeastTime)),
        ("random_two", Self(Policy::RandomTwo)),
        ("ip_hash", Self(Policy::IpHash)),
        ("consistent_hash", Self(Policy::ConsistentHash)),
    ];
}
