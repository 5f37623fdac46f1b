//! Bytes both ways after an upgrade.
//!
//! Start at [`run`]. An idle tunnel holds its two ends and no buffer: all tunnels of a thread
//! read into one scratch buffer, and only what the other side would not take is kept.
//! Half-close works: the end of one direction is passed on while the other goes on. So do last
//! words: what a side said before it would take no more is still passed on.
//!
//! A WebSocket is followed from frame to frame, so that it can be told to end: then the bytes to
//! the client stop where a message does, or at the last a frame, and `farewell` says goodbye.

mod farewell;
mod pipe;

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub use self::pipe::Pipe;
use super::timer::{Timer, Wake};
use super::websocket::Frames;

/// The most that is read before it must have been written.
const SCRATCH: usize = 32 * 1024;

/// How long after a drain's deadline, or a shutdown's, the frame that is on its way to the client
/// may take to end.
pub const FRAME_GRACE: Duration = Duration::from_secs(1);

/// The buffer that all tunnels of one thread read into. Borrowed only inside a poll.
#[derive(Clone)]
pub struct Scratch(Rc<RefCell<Vec<u8>>>);

impl Default for Scratch {
    fn default() -> Self {
        Self(Rc::new(RefCell::new(vec![0; SCRATCH])))
    }
}

/// One side of a tunnel, and what was already read from it.
pub struct Side {
    pub pipe: Pipe,
    pub early: Bytes,
}

pub struct Sides {
    pub client: Side,
    pub backend: Side,
}

/// What flows through a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    WebSocket,
    /// Bytes of which nothing is known.
    Other,
}

/// How a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelEnd {
    /// Both directions came to their end.
    Closed,
    /// Nothing moved for the route's `websocket.idle_timeout`.
    Idle,
    /// A drain or a shutdown, and the client was told with a Close.
    Told,
    /// The same, and it was not.
    Cut,
    /// One side reset the connection.
    Broken,
}

/// Bytes carried, and why it ended.
pub struct Carried {
    pub to_backend: u64,
    pub to_client: u64,
    pub end: TunnelEnd,
}

/// Carries bytes until both directions have ended, `idle` passes in silence, or `timer` is cut or
/// told. The sides are left for the caller to close.
pub async fn run(
    sides: &mut Sides,
    content: Content,
    idle: Duration,
    timer: &Timer,
    scratch: &Scratch,
) -> Carried {
    let Sides { client, backend } = sides;
    let mut up = Half::new(std::mem::take(&mut client.early), content);
    let mut down = Half::new(std::mem::take(&mut backend.early), content);
    let (mut carried, mut late) = (0, false);
    timer.set(Instant::now(), idle);
    let end = std::future::poll_fn(|cx| {
        let mut scratch = scratch.0.borrow_mut();
        loop {
            if timer.is_told() && down.until == Until::End && down.may_stop() && up.is_followed() {
                down.until = Until::Message;
            }
            let first = up.poll(cx, &mut client.pipe, &mut backend.pipe, &mut scratch);
            let second = down.poll(cx, &mut backend.pipe, &mut client.pipe, &mut scratch);
            match (first, second) {
                (Poll::Ready(Over::Lost), _) | (_, Poll::Ready(Over::Lost)) => {
                    return Poll::Ready(Some(TunnelEnd::Broken));
                }
                (_, Poll::Ready(Over::Stopped)) => return Poll::Ready(None),
                (Poll::Ready(Over::Ended), Poll::Ready(Over::Ended)) => {
                    return Poll::Ready(Some(TunnelEnd::Closed));
                }
                (Poll::Ready(_), Poll::Ready(_)) => return Poll::Ready(Some(TunnelEnd::Broken)),
                _ => {}
            }
            if up.bytes + down.bytes != carried && !late {
                carried = up.bytes + down.bytes;
                timer.set(Instant::now(), idle);
            }
            match ready!(timer.poll(cx)) {
                Wake::Cut if !late && down.may_stop() && up.is_followed() => {
                    (late, down.until) = (true, Until::Frame);
                    timer.clear();
                    timer.set(Instant::now(), FRAME_GRACE);
                }
                Wake::Due if !late => return Poll::Ready(Some(TunnelEnd::Idle)),
                _ => return Poll::Ready(Some(TunnelEnd::Cut)),
            }
        }
    })
    .await;
    let end = match end {
        Some(end) => end,
        // Boxed: an idle tunnel need not be large enough for it.
        None => {
            Box::pin(farewell::say(&mut client.pipe, &mut backend.pipe, &mut up, &mut down, timer, scratch))
                .await
        }
    };
    Carried { to_backend: up.bytes, to_client: down.bytes, end }
}

/// One direction.
struct Half {
    kept: Bytes,
    bytes: u64,
    state: State,
    until: Until,
    /// Where the source stands, in a WebSocket.
    frames: Option<Frames>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The source has ended; what is kept must still be written.
    Ending,
    /// Its [`Until`] is reached; what is kept must still be written.
    Stopping,
    Over(Over),
}

/// How far a direction goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    /// The end of its source.
    End,
    /// The end of a message.
    Message,
    /// The end of a frame.
    Frame,
    /// The source's Close, which is not passed on.
    Close,
}

/// How one direction ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Over {
    Ended,
    /// It came as far as it was to go.
    Stopped,
    /// The other side takes no more. What it has said before is still to be read.
    Refused,
    /// There is nobody to read from any more.
    Lost,
}

impl Half {
    fn new(early: Bytes, content: Content) -> Self {
        let mut frames = (content == Content::WebSocket).then(Frames::default);
        if let Some(frames) = &mut frames {
            frames.feed(&early);
        }
        // Even of no bytes, a slice keeps the buffer that hyper read into.
        let kept = if early.is_empty() { Bytes::new() } else { early };
        Self { kept, bytes: 0, state: State::Open, until: Until::End, frames }
    }

    /// Whether it is known where its source stands.
    fn is_followed(&self) -> bool {
        self.frames.is_some_and(|frames| !frames.is_lost())
    }

    /// Whether it can end anywhere before its source does.
    fn may_stop(&self) -> bool {
        self.is_followed() && self.state == State::Open
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Pipe,
        to: &mut Pipe,
        scratch: &mut [u8],
    ) -> Poll<Over> {
        loop {
            if let State::Over(over) = self.state {
                return Poll::Ready(over);
            }
            if let Err(over) = ready!(self.turn(cx, from, to, scratch)) {
                (self.state, self.kept) = (State::Over(over), Bytes::new());
            }
        }
    }

    /// One read and what follows from it; `Err` when the direction is over.
    fn turn(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Pipe,
        to: &mut Pipe,
        scratch: &mut [u8],
    ) -> Poll<Result<(), Over>> {
        while !self.kept.is_empty() {
            let written = ready!(Pin::new(&mut *to).poll_write(cx, &self.kept)).map_err(|_| Over::Refused)?;
            self.kept.advance(written);
            self.bytes += written as u64;
        }
        if self.state == State::Ending {
            // The other side may be gone already: then there is nobody to tell.
            let _ = ready!(Pin::new(&mut *to).poll_shutdown(cx));
            return Poll::Ready(Err(Over::Ended));
        }
        if self.state == State::Stopping || self.stands_there() {
            return Poll::Ready(Err(Over::Stopped));
        }
        let mut buffer = ReadBuf::new(scratch);
        match Pin::new(&mut *from).poll_read(cx, &mut buffer) {
            Poll::Ready(read) => read.map_err(|_| Over::Lost)?,
            Poll::Pending => {
                // TLS may hold on to a record that the socket had no room for.
                if let Poll::Ready(Err(_)) = Pin::new(&mut *to).poll_flush(cx) {
                    return Poll::Ready(Err(Over::Refused));
                }
                return Poll::Pending;
            }
        }
        let read = buffer.filled();
        if read.is_empty() {
            self.state = State::Ending;
            return Poll::Ready(Ok(()));
        }
        let read = &read[..self.follow(read)];
        if read.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let written = match Pin::new(&mut *to).poll_write(cx, read) {
            Poll::Ready(written) => written.map_err(|_| Over::Refused)?,
            Poll::Pending => 0,
        };
        self.bytes += written as u64;
        if written < read.len() {
            self.kept = Bytes::copy_from_slice(&read[written..]);
        }
        Poll::Ready(Ok(()))
    }

    /// Whether the next byte of the source is past where this direction is to end.
    fn stands_there(&self) -> bool {
        let Some(frames) = &self.frames else { return false };
        match self.until {
            Until::End => false,
            Until::Message => frames.is_between_messages(),
            Until::Frame => frames.is_between_frames(),
            Until::Close => frames.has_closed(),
        }
    }

    /// Follows the source over what was read, and says how much of it is passed on.
    fn follow(&mut self, read: &[u8]) -> usize {
        let Some(frames) = &mut self.frames else { return read.len() };
        let seen = frames.feed(read);
        let stop = match self.until {
            Until::End => None,
            Until::Message => seen.message,
            Until::Frame => seen.frame,
            Until::Close => seen.close,
        };
        if stop.is_some() {
            self.state = State::Stopping;
        }
        stop.unwrap_or(read.len())
    }
}
