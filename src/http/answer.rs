//! What a backend's answer must be before a client sees it.
//!
//! Start at [`check`]. Obs-fold, control characters and lengths that differ are refused by hyper.

use ::http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use ::http::response::Parts;
use ::http::{HeaderMap, StatusCode};

use super::headers::{Coding, coding};
use super::upgrade::Upgrade;

/// Why an answer is not passed on. Its connection is not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BadAnswer {
    /// No final status, or none that HTTP knows.
    Status,
    /// A 101 that nobody asked for, or to another protocol.
    Switched,
    /// A 101 that does not answer the key.
    Accept,
    /// Granted without a 101, where the client asked by CONNECT and would take it for a tunnel.
    Granted,
    /// hyper reads `gzip` to the end of the connection and `gzip, chunked` as chunked; either way
    /// the coding's name would be lost.
    TransferEncoding,
    ContentLength,
}

impl BadAnswer {
    /// For the log.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Status => "the status is not a final one between 200 and 599",
            Self::Switched => "101 to a protocol that was not asked for",
            Self::Accept => "101 without the Sec-WebSocket-Accept that belongs to the key",
            Self::Granted => "2xx without a tunnel, which over HTTP/2 would mean one",
            Self::TransferEncoding => "the Transfer-Encoding is not exactly `chunked`",
            Self::ContentLength => "the Content-Length is not exactly one number",
        }
    }
}

/// `asked` is the upgrade that was sent on. Leaves at most one length: hyper keeps `Content-Length`
/// beside `Transfer-Encoding`, and a client that believed it would be served a truncated body.
/// Answers to HEAD and 304 keep theirs.
pub fn check(parts: &mut Parts, asked: Option<&Upgrade>) -> Result<(), BadAnswer> {
    match parts.status.as_u16() {
        101 if !asked.is_some_and(|upgrade| upgrade.accepted(parts)) => return Err(BadAnswer::Switched),
        101 if !asked.is_some_and(|upgrade| upgrade.proved(parts)) => return Err(BadAnswer::Accept),
        200..=299 if asked.is_some_and(Upgrade::is_connect) => return Err(BadAnswer::Granted),
        101 | 200..=599 => {}
        _ => return Err(BadAnswer::Status),
    }
    content_length(&parts.headers)?;
    let bodyless = [StatusCode::SWITCHING_PROTOCOLS, StatusCode::NO_CONTENT].contains(&parts.status);
    match coding(&parts.headers) {
        Coding::None if !bodyless => {}
        // RFC 9110 section 8.6: no length in a 1xx or 204; RFC 9112 section 6.3: nor beside a coding.
        Coding::None | Coding::Chunked => {
            parts.headers.remove(CONTENT_LENGTH);
            parts.headers.remove(TRANSFER_ENCODING);
        }
        Coding::Unknown | Coding::Malformed => return Err(BadAnswer::TransferEncoding),
    }
    Ok(())
}

/// hyper takes equal lengths for one and does not look at all where there is no body.
fn content_length(headers: &HeaderMap) -> Result<(), BadAnswer> {
    let mut lines = headers.get_all(CONTENT_LENGTH).iter();
    let (Some(line), further) = (lines.next(), lines.next()) else { return Ok(()) };
    let number = line.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let valid = further.is_none() && number.is_some_and(|number| number.parse::<u64>().is_ok());
    if valid { Ok(()) } else { Err(BadAnswer::ContentLength) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::http::{HeaderValue, Request, Response};

    fn checked(status: u16, lines: &[(&'static str, &'static str)]) -> Result<Vec<String>, BadAnswer> {
        let mut response = Response::builder().status(status);
        for (name, value) in lines {
            response = response.header(*name, *value);
        }
        let mut parts = response.body(()).unwrap().into_parts().0;
        check(&mut parts, None)?;
        Ok(parts.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect())
    }

    #[test]
    fn a_status_is_final_and_known_to_http() {
        for status in [200, 204, 206, 299, 304, 404, 500, 599] {
            assert!(checked(status, &[]).is_ok(), "{status}");
        }
        for status in [100, 102, 103, 199, 600, 999] {
            assert_eq!(checked(status, &[]), Err(BadAnswer::Status), "{status}");
        }
    }

    #[test]
    fn a_101_that_nobody_asked_for_is_refused() {
        assert_eq!(checked(101, &[("upgrade", "websocket")]), Err(BadAnswer::Switched));
    }

    #[test]
    fn a_101_that_was_asked_for_passes_without_a_length() {
        let ask = Request::builder().header("connection", "upgrade").header("upgrade", "websocket");
        let upgrade = super::super::upgrade::requested(&ask.body(()).unwrap().into_parts().0).unwrap();
        let switch = |protocol: &'static str| {
            let switch =
                Response::builder().status(101).header("upgrade", protocol).header("content-length", "5");
            switch.body(()).unwrap().into_parts().0
        };
        let mut granted = switch("WebSocket");
        assert_eq!(check(&mut granted, upgrade.as_ref()), Ok(()));
        assert!(!granted.headers.contains_key("content-length"));
        assert_eq!(check(&mut switch("chat"), upgrade.as_ref()), Err(BadAnswer::Switched));
        let mut declined = Response::new(()).into_parts().0;
        assert_eq!(check(&mut declined, upgrade.as_ref()), Ok(()));
    }

    #[test]
    fn a_length_beside_chunked_is_dropped() {
        assert_eq!(checked(200, &[("content-length", "5"), ("transfer-encoding", "Chunked")]), Ok(vec![]));
    }

    #[test]
    fn a_coding_other_than_chunked_is_refused() {
        for coding in
            ["gzip", "gzip, chunked", "identity", "chunked, chunked", "chunked,", "", "\u{a0}chunked"]
        {
            assert_eq!(
                checked(200, &[("transfer-encoding", coding)]),
                Err(BadAnswer::TransferEncoding),
                "{coding}"
            );
        }
        let twice = [("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")];
        assert_eq!(checked(200, &twice), Err(BadAnswer::TransferEncoding));
        assert_eq!(checked(304, &[("transfer-encoding", "gzip")]), Err(BadAnswer::TransferEncoding));
    }

    #[test]
    fn a_length_is_exactly_one_number() {
        assert_eq!(checked(200, &[("content-length", "5")]), Ok(vec!["content-length: 5".to_owned()]));
        for bad in ["", "-1", "+5", "5, 5", "5 5", "0x5", "5.0", "99999999999999999999"] {
            assert_eq!(checked(200, &[("content-length", bad)]), Err(BadAnswer::ContentLength), "{bad}");
            assert_eq!(checked(304, &[("content-length", bad)]), Err(BadAnswer::ContentLength), "{bad}");
        }
        let twice = [("content-length", "5"), ("content-length", "5")];
        assert_eq!(checked(200, &twice), Err(BadAnswer::ContentLength));
    }

    #[test]
    fn a_204_has_no_length_and_a_304_may() {
        assert_eq!(checked(204, &[("content-length", "5")]), Ok(vec![]));
        assert_eq!(checked(204, &[("transfer-encoding", "chunked")]), Ok(vec![]));
        assert_eq!(checked(304, &[("content-length", "5")]), Ok(vec!["content-length: 5".to_owned()]));
    }

    #[test]
    fn a_length_that_is_not_text_is_no_panic() {
        let mut parts = Response::new(()).into_parts().0;
        parts.headers.insert(CONTENT_LENGTH, HeaderValue::from_bytes(b"\xff").unwrap());
        assert_eq!(check(&mut parts, None), Err(BadAnswer::ContentLength));
    }
}
