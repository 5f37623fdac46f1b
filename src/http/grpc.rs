//! gRPC, as far as a proxy has to know it: which requests are calls, how long a call may take, and
//! what its client reads where another would read a status.
//!
//! Start at [`Rpc::of`]. Pure. Which of our errors is which [`Status`] is said in `proxy::error`;
//! messages pass as bytes, and nothing here reads them.

use std::time::{Duration, Instant};

use ::http::header::CONTENT_TYPE;
use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};

use super::headers::percent_encoded;

pub const MEDIA_TYPE: &str = "application/grpc";

pub static GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
pub static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub static GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// How much longer than its client a call is waited for, so that a backend which keeps the time
/// itself, as most do, says so in its own words.
pub const GRACE: Duration = Duration::from_millis(500);

/// The largest number that `grpc-timeout` can hold.
const MAX_TIMEOUT: u128 = 99_999_999;

/// A request that is a gRPC call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rpc {
    /// When its client gives it up; `None` where it waits as long as it takes.
    pub deadline: Option<Instant>,
}

impl Rpc {
    /// What a request says of itself. gRPC-Web is none: browsers get HTTP's answers.
    ///
    /// A `grpc-timeout` that cannot be read is none, as for Envoy: it goes on as it is, and the
    /// backend says what it thinks of it.
    pub fn of(method: &Method, headers: &HeaderMap, now: Instant) -> Option<Self> {
        if method != Method::POST || !is_grpc(headers.get(CONTENT_TYPE)?.as_bytes()) {
            return None;
        }
        let timeout = headers.get(&GRPC_TIMEOUT).and_then(|value| parse_timeout(value.as_bytes()));
        Some(Self { deadline: timeout.and_then(|timeout| now.checked_add(timeout)) })
    }

    pub fn left(self, now: Instant) -> Duration {
        self.deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(now))
    }

    pub fn is_late(self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// Until when a backend is waited for.
    pub fn until(self) -> Option<Instant> {
        self.deadline.and_then(|deadline| deadline.checked_add(GRACE))
    }
}

/// `application/grpc`, alone or followed by a format (`+proto`) or parameters.
pub fn is_grpc(content_type: &[u8]) -> bool {
    let Some((start, rest)) = content_type.split_at_checked(MEDIA_TYPE.len()) else { return false };
    start.eq_ignore_ascii_case(MEDIA_TYPE.as_bytes())
        && matches!(rest.trim_ascii_start().first(), None | Some(b'+' | b';'))
}

/// One to eight digits and a unit.
fn parse_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = std::str::from_utf8(digits).ok()?.parse::<u64>().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// What is left of a call's time, in the finest unit that can say it. Never more than is left, but
/// for the smallest that can be said.
pub fn timeout_value(left: Duration) -> HeaderValue {
    let seconds = u128::from(left.as_secs());
    let units = [
        (left.as_nanos(), 'n'),
        (left.as_micros(), 'u'),
        (left.as_millis(), 'm'),
        (seconds, 'S'),
        (seconds / 60, 'M'),
    ];
    let fine = units.into_iter().find(|(number, _)| *number <= MAX_TIMEOUT);
    let (number, unit) = fine.unwrap_or(((seconds / 3600).min(MAX_TIMEOUT), 'H'));
    HeaderValue::try_from(format!("{}{unit}", number.max(1))).expect("digits and a letter")
}

/// How a call ended, where we say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Unknown = 2,
    DeadlineExceeded = 4,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

impl Status {
    /// As clients do by themselves with a status that comes without a `grpc-status` (gRPC's
    /// http-grpc-status-mapping).
    pub fn of_http(status: StatusCode) -> Self {
        match status.as_u16() {
            400 => Self::Internal,
            401 => Self::Unauthenticated,
            403 => Self::PermissionDenied,
            404 => Self::Unimplemented,
            429 | 502 | 503 | 504 => Self::Unavailable,
            _ => Self::Unknown,
        }
    }
}

/// A call's answer without a message: its trailers alone, as a head that ends the stream.
pub fn refusal(status: Status, message: &str) -> Response<()> {
    let mut response = Response::new(());
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    fields.insert(&GRPC_STATUS, HeaderValue::from(status as u16));
    fields.insert(&GRPC_MESSAGE, percent_encoded(message));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rpc(method: Method, content_type: &str, timeout: Option<&str>) -> Option<Rpc> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, content_type.parse().unwrap());
        if let Some(timeout) = timeout {
            headers.insert(&GRPC_TIMEOUT, timeout.parse().unwrap());
        }
        Rpc::of(&method, &headers, Instant::now())
    }

    #[test]
    fn a_call_is_a_post_of_grpc_and_not_of_its_relatives() {
        for content_type in [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc;charset=utf-8",
            "application/grpc ; x=y",
            "Application/gRPC+json",
        ] {
            assert!(rpc(Method::POST, content_type, None).is_some(), "{content_type}");
            assert!(rpc(Method::GET, content_type, None).is_none(), "{content_type}");
        }
        for content_type in [
            "",
            "application/grp",
            "application/grpc-web",
            "application/grpc-web+proto",
            "application/grpcx",
            "application/json; application/grpc",
            "text/plain",
        ] {
            assert!(rpc(Method::POST, content_type, None).is_none(), "{content_type}");
        }
        assert_eq!(Rpc::of(&Method::POST, &HeaderMap::new(), Instant::now()), None);
    }

    #[test]
    fn a_timeout_is_up_to_eight_digits_and_a_unit() {
        for (value, seconds) in [
            ("1H", 3600.0),
            ("2M", 120.0),
            ("3S", 3.0),
            ("400m", 0.4),
            ("50u", 0.000_05),
            ("6n", 0.000_000_006),
            ("00000001S", 1.0),
            ("0S", 0.0),
        ] {
            assert_eq!(parse_timeout(value.as_bytes()), Some(Duration::from_secs_f64(seconds)), "{value}");
        }
        for value in
            ["", "1", "S", "1s", "1h", "100000000S", "-1S", "+1S", "1.5S", " 1S", "1S ", "1 S", "1SS"]
        {
            assert_eq!(parse_timeout(value.as_bytes()), None, "{value:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_as_a_timeout_limits_nothing() {
        for timeout in [None, Some("soon"), Some("1s")] {
            let rpc = rpc(Method::POST, MEDIA_TYPE, timeout).unwrap();
            assert_eq!((rpc.deadline, rpc.until()), (None, None), "{timeout:?}");
            assert_eq!(rpc.left(Instant::now()), Duration::MAX);
            assert!(!rpc.is_late(Instant::now()));
        }
        let longest = rpc(Method::POST, MEDIA_TYPE, Some("99999999H")).unwrap();
        assert!(!longest.is_late(Instant::now()));
    }

    #[test]
    fn a_call_is_late_from_its_deadline_on() {
        let now = Instant::now();
        let rpc = Rpc { deadline: Some(now + Duration::from_secs(1)) };
        assert_eq!(rpc.left(now), Duration::from_secs(1));
        assert!(!rpc.is_late(now) && rpc.is_late(now + Duration::from_secs(1)));
        assert_eq!(rpc.left(now + Duration::from_secs(2)), Duration::ZERO);
    }

    #[test]
    fn a_refusal_is_all_trailers_and_its_message_printable() {
        let response = refusal(Status::Unavailable, "50% of pöol\r\n");
        assert_eq!(response.status(), 200);
        let field = |name: &str| response.headers()[name].to_str().unwrap();
        assert_eq!((field("content-type"), field("grpc-status")), ("application/grpc", "14"));
        assert_eq!(field("grpc-message"), "50%25 of p%C3%B6ol%0D%0A");
    }

    #[test]
    fn statuses_of_http_mean_what_clients_take_them_for() {
        for (http, grpc) in [
            (400, 13),
            (401, 16),
            (403, 7),
            (404, 12),
            (429, 14),
            (502, 14),
            (503, 14),
            (504, 14),
            (500, 2),
            (421, 2),
        ] {
            assert_eq!(Status::of_http(StatusCode::from_u16(http).unwrap()) as u16, grpc, "{http}");
        }
    }

    /// Undoes what a client does not see.
    fn decoded(value: &HeaderValue) -> Vec<u8> {
        let mut bytes = value.as_bytes().iter().copied();
        let mut decoded = Vec::new();
        while let Some(byte) = bytes.next() {
            let mut digit = || char::from(bytes.next().unwrap()).to_digit(16).unwrap() as u8;
            decoded.push(if byte == b'%' { digit() * 16 + digit() } else { byte });
        }
        decoded
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange_for_a_timeout(value in proptest::collection::vec(any::<u8>(), 0..12)) {
            if let Some(timeout) = parse_timeout(&value) {
                prop_assert!(timeout <= Duration::from_secs(MAX_TIMEOUT as u64 * 3600));
            }
        }

        #[test]
        fn what_is_left_is_told_as_exactly_as_eight_digits_can(nanos in 1..u64::MAX) {
            let left = Duration::from_nanos(nanos);
            let told = parse_timeout(timeout_value(left).as_bytes()).unwrap();
            prop_assert!(told <= left);
            prop_assert!(left - told <= left / 10_000);
        }

        #[test]
        fn any_message_comes_out_as_it_went_in(message: String) {
            let response = refusal(Status::Unknown, &message);
            let value = &response.headers()["grpc-message"];
            prop_assert!(value.as_bytes().iter().all(|byte| (b' '..=b'~').contains(byte)));
            prop_assert_eq!(decoded(value), message.as_bytes());
        }
    }
}
