//! A probe by gRPC: one call of `grpc.health.v1.Health/Check`, and what its answer means.
//!
//! Start at [`check`]. The two messages have one field each and are written and read by hand.

use std::borrow::Cow;
use std::time::Duration;

use http::header::{CONTENT_TYPE, TE, USER_AGENT};
use http::uri::Scheme;
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::{Driven, USER};
use crate::http::grpc::{self, GRPC_STATUS, GRPC_TIMEOUT, MEDIA_TYPE};
use crate::listen::stream::Stream;
use crate::upstream::is_nonsense;

const METHOD: &str = "/grpc.health.v1.Health/Check";

/// Of an answer this much is read; the message that is asked for has two bytes.
const MAX_ANSWER: usize = 4096;

/// What stands before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

type Why = Cow<'static, str>;

/// Passes where the backend says that `service` (empty: all of it) is serving.
pub async fn check(
    stream: Stream,
    scheme: Scheme,
    host: &str,
    service: &str,
    timeout: Duration,
) -> Result<(), Why> {
    let uri = Uri::builder().scheme(scheme).authority(host).path_and_query(METHOD).build();
    let request = Request::post(uri.map_err(|error| error.to_string())?)
        .header(CONTENT_TYPE, MEDIA_TYPE)
        .header(TE, "trailers")
        .header(USER_AGENT, USER)
        .header(&GRPC_TIMEOUT, grpc::timeout_value(timeout))
        .body(Full::new(Bytes::from(question(service))))
        .map_err(|error| error.to_string())?;
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(unanswered)?;
    let _driven = Driven(tokio::task::spawn_local(connection).abort_handle());
    read(sender.send_request(request).await.map_err(unanswered)?, service).await
}

fn unanswered(error: hyper::Error) -> Why {
    if is_nonsense(&error) {
        "an answer that is no HTTP/2".into()
    } else {
        "closed before it answered".into()
    }
}

async fn read(response: Response<Incoming>, service: &str) -> Result<(), Why> {
    let (head, mut body) = response.into_parts();
    if head.status != StatusCode::OK {
        return Err(format!("HTTP {} instead of gRPC", head.status.as_u16()).into());
    }
    if !head.headers.get(CONTENT_TYPE).is_some_and(|value| grpc::is_grpc(value.as_bytes())) {
        return Err("an answer that is no gRPC".into());
    }
    if head.headers.contains_key(&GRPC_STATUS) {
        return judge(&head.headers, &[], service);
    }
    let (mut answer, mut trailers) = (Vec::new(), HeaderMap::new());
    while let Some(frame) = body.frame().await {
        match frame.map_err(|_| "closed in the middle of its answer")?.into_data() {
            Ok(data) if answer.len() + data.len() > MAX_ANSWER => return Err("an answer without end".into()),
            Ok(data) => answer.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
        }
    }
    judge(&trailers, &answer, service)
}

/// What a whole answer means.
fn judge(trailers: &HeaderMap, answer: &[u8], service: &str) -> Result<(), Why> {
    let code = trailers.get(&GRPC_STATUS).ok_or("an answer without a grpc-status")?;
    match code.as_bytes() {
        b"0" => {}
        b"5" => return Err(format!("gRPC NOT_FOUND: it knows no service `{service}`").into()),
        b"12" => return Err("gRPC UNIMPLEMENTED: it has no health service".into()),
        other => {
            let code = std::str::from_utf8(other).ok().and_then(|code| code.parse::<usize>().ok());
            let name = code.and_then(|code| CODES.get(code)).ok_or("a grpc-status that is none")?;
            return Err(format!("gRPC {name}").into());
        }
    }
    match message(answer).and_then(status) {
        Some(1) => Ok(()),
        Some(0) => Err("UNKNOWN".into()),
        Some(2) => Err("NOT_SERVING".into()),
        Some(3) => Err("SERVICE_UNKNOWN".into()),
        _ => Err("an answer that is no HealthCheckResponse".into()),
    }
}

/// The names of gRPC's codes, each at its number.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// A `HealthCheckRequest` (field 1: the service) behind its prefix.
fn question(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(1 << 3 | 2);
        let mut length = service.len();
        while length > 0x7f {
            message.push(length as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let mut framed = vec![0];
    framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
    framed.extend_from_slice(&message);
    framed
}

/// The one message of an answer, which nobody was allowed to compress.
fn message(answer: &[u8]) -> Option<&[u8]> {
    let (prefix, message) = answer.split_at_checked(PREFIX)?;
    let length = u32::from_be_bytes(prefix[1..].try_into().ok()?);
    (prefix[0] == 0 && usize::try_from(length) == Ok(message.len())).then_some(message)
}

/// The status (field 1) of a `HealthCheckResponse`; 0 where none is written. Other fields are read over.
fn status(mut message: &[u8]) -> Option<u64> {
    let mut status = 0;
    while !message.is_empty() {
        let key = varint(&mut message)?;
        let skipped = match (key & 7, key >> 3) {
            (0, 1) => {
                status = varint(&mut message)?;
                0
            }
            (0, _) => {
                varint(&mut message)?;
                0
            }
            (1, _) => 8,
            (2, _) => usize::try_from(varint(&mut message)?).ok()?,
            (5, _) => 4,
            _ => return None,
        };
        message = message.get(skipped..)?;
    }
    Some(status)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.split_off_first()?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use prost::Message;
    use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

    fn framed(message: &[u8]) -> Vec<u8> {
        let mut framed = vec![0];
        framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
        framed.extend_from_slice(message);
        framed
    }

    fn judged(code: &'static str, answer: &[u8]) -> Result<(), String> {
        let mut trailers = HeaderMap::new();
        trailers.insert(&GRPC_STATUS, http::HeaderValue::from_static(code));
        judge(&trailers, answer, "shop.v1.Cart").map_err(Cow::into_owned)
    }

    #[test]
    fn only_who_says_serving_passes() {
        for (status, expected) in [
            (1, Ok(())),
            (0, Err("UNKNOWN")),
            (2, Err("NOT_SERVING")),
            (3, Err("SERVICE_UNKNOWN")),
            (4, Err("an answer that is no HealthCheckResponse")),
        ] {
            let answer = framed(&HealthCheckResponse { status }.encode_to_vec());
            assert_eq!(judged("0", &answer), expected.map_err(str::to_owned), "{status}");
        }
    }

    #[test]
    fn a_failure_is_told_in_words() {
        let serving = framed(&HealthCheckResponse { status: 1 }.encode_to_vec());
        for (code, why) in [
            ("5", "gRPC NOT_FOUND: it knows no service `shop.v1.Cart`"),
            ("12", "gRPC UNIMPLEMENTED: it has no health service"),
            ("14", "gRPC UNAVAILABLE"),
            ("17", "a grpc-status that is none"),
            ("", "a grpc-status that is none"),
        ] {
            assert_eq!(judged(code, &serving), Err(why.to_owned()), "{code}");
        }
        assert!(judge(&HeaderMap::new(), &serving, "").is_err(), "no status");
        let compressed = [&[1], &serving[1..]].concat();
        for answer in [&b""[..], &serving[..6], &compressed, &[&serving[..], b"x"].concat()] {
            assert_eq!(judged("0", answer), Err("an answer that is no HealthCheckResponse".to_owned()));
        }
    }

    #[test]
    fn fields_of_later_versions_are_read_over() {
        let later = [0x12, 2, 9, 9, 0x19, 0, 0, 0, 0, 0, 0, 0, 0, 0x25, 0, 0, 0, 0, 0x28, 0x80, 1, 8, 1];
        assert_eq!(status(&later), Some(1));
        assert_eq!(status(&later[..4]), Some(0), "none is written");
        assert_eq!(status(&[0x12, 3, 9]), None, "cut short");
        assert_eq!(status(&[0x0b]), None, "a group");
    }

    proptest! {
        #[test]
        fn a_question_is_as_others_write_it(service in "[ -~]{0,255}") {
            let other = HealthCheckRequest { service: service.clone() }.encode_to_vec();
            prop_assert_eq!(question(&service), framed(&other));
        }

        #[test]
        fn no_answer_is_too_strange(answer in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Some(message) = message(&answer) {
                prop_assert!(message.len() + PREFIX == answer.len());
            }
            let own = status(&answer);
            if let Ok(other) = HealthCheckResponse::decode(&*answer) {
                prop_assert!(own.is_none() || own.map(|own| own as i32) == Some(other.status));
            }
        }
    }
}
