//! The event stream: a snapshot, what was missed, then what comes (server-sent events).
//!
//! Start at [`stream()`]. It is pulled: a reader that does not read is not buffered for, it falls
//! behind in the broadcast and is cut off there.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::StatusCode;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time;

use super::events::Subscription;
use super::reply::{Reply, dress};
use super::view::{EventView, Status};

/// How long a stream may be silent before a comment shows that it lives.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);

struct Reader {
    snapshot: Option<Bytes>,
    subscription: Subscription,
    /// Held as long as the stream lives.
    _seat: OwnedSemaphorePermit,
}

/// The answer to `GET /v1/events`. The status must be taken after the subscription, so that
/// nothing falls between the two.
pub(crate) fn stream(status: &Status, subscription: Subscription, seat: OwnedSemaphorePermit) -> Reply {
    let snapshot = frame("snapshot", subscription.after, &json(status));
    let reader = Reader { snapshot: Some(snapshot), subscription, _seat: seat };
    let frames = stream::unfold(reader, |mut reader| async {
        let bytes = reader.next().await?;
        Some((Ok::<_, Infallible>(Frame::data(bytes)), reader))
    });
    dress(StatusCode::OK, "text/event-stream", StreamBody::new(frames).boxed_unsync())
}

impl Reader {
    /// The next bytes; `None` ends the stream: the reader is too far behind, or the process ends.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(snapshot) = self.snapshot.take() {
            return Some(snapshot);
        }
        if let Some(event) = self.subscription.missed.pop_front() {
            return Some(event_frame(&event));
        }
        match time::timeout(KEEP_ALIVE, self.subscription.coming.recv()).await {
            Ok(received) => received.ok().map(|event: Arc<EventView>| event_frame(&event)),
            Err(_silence) => Some(Bytes::from_static(b": still here\n\n")),
        }
    }
}

fn event_frame(event: &EventView) -> Bytes {
    frame(&event.kind, event.id, &json(event))
}

/// `data` is JSON on one line, so it needs no splitting.
fn frame(kind: &str, id: u64, data: &str) -> Bytes {
    format!("event: {kind}\nid: {id}\ndata: {data}\n\n").into()
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("the views have string keys only")
}
