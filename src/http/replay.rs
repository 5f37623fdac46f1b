//! A request body that can be sent once more, as long as little of it has been read.
//!
//! Start at [`Replay`]. A backend may break off before it has answered, or say over HTTP/2 that it did
//! nothing with a request; by then the first bytes of its body may have gone. They are kept until the
//! answer's head has come, up to [`MAX_KEPT`]. Whether to send it again is not decided here.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use ::http::HeaderMap;

use super::upload::{Upload, UploadError};

/// Of a body of which more has been read nothing is kept.
pub const MAX_KEPT: usize = 64 * 1024;

/// Nor of one that comes in more pieces: each of them costs more than its bytes.
const MAX_PIECES: usize = 256;

/// A shorter piece is copied, unless it is the first: kept as it is it would hold on to the buffer
/// that it was read into, which may be many times as large.
const COPIED: usize = 4 * 1024;

/// An upload and what has been read of it. Read by one at a time: who began before the last
/// [`Replay::begin`] or [`Replay::detach`] is told that it is over.
pub struct Replay {
    rest: Upload,
    /// What has been read, and is kept or has yet to be read again.
    pieces: VecDeque<Piece>,
    bytes: usize,
    /// Still from its beginning.
    whole: bool,
    /// The last of it has been read.
    ended: bool,
    /// How many pieces the present reader has taken.
    taken: usize,
    reader: u64,
    waker: Option<Waker>,
}

enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Piece {
    fn frame(&self) -> Frame<Bytes> {
        match self {
            Self::Data(data) => Frame::data(data.clone()),
            Self::Trailers(trailers) => Frame::trailers(trailers.clone()),
        }
    }
}

impl Replay {
    pub fn new(upload: Upload) -> Self {
        match upload {
            Upload::Again(replay) => *replay,
            rest => Self::of(rest, VecDeque::new(), 0),
        }
    }

    fn of(rest: Upload, pieces: VecDeque<Piece>, bytes: usize) -> Self {
        Self { rest, pieces, bytes, whole: true, ended: false, taken: 0, reader: 0, waker: None }
    }

    /// A new reader, from the beginning. The one before gets nothing any more.
    pub fn begin(&mut self) -> u64 {
        self.taken = 0;
        self.reader += 1;
        self.reader
    }

    /// The body is wanted no longer: its reader is told so.
    pub fn detach(&mut self) {
        self.reader += 1;
        self.rest = Upload::Empty;
        self.whole = false;
        self.pieces.clear();
        self.taken = 0;
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// It will not be sent again: nothing need be kept.
    pub fn forget(&mut self) {
        self.whole = false;
        self.pieces.drain(..self.taken);
        self.taken = 0;
    }

    /// The whole body, to be sent elsewhere; `None` once too much of it has been read.
    pub fn take(&mut self) -> Option<Upload> {
        if !self.whole {
            return None;
        }
        self.reader += 1;
        let rest = std::mem::replace(&mut self.rest, Upload::Empty);
        if self.pieces.is_empty() {
            return Some(rest);
        }
        let (pieces, bytes) = (std::mem::take(&mut self.pieces), self.bytes);
        Some(Upload::Again(Box::new(Self { ended: self.ended, ..Self::of(rest, pieces, bytes) })))
    }

    /// Whether it can be sent from its beginning.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// Whether it will be kept to its end, however much of it has been read.
    pub fn fits(&self) -> bool {
        self.whole && fits(&self.rest, self.bytes)
    }

    /// The next frame for `reader`; an error when another has taken its place.
    pub fn poll_frame(
        &mut self,
        reader: u64,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        if reader != self.reader {
            return Poll::Ready(Some(Err(UploadError::Over)));
        }
        if self.taken < self.pieces.len() {
            let piece = self.pieces[self.taken].frame();
            if self.whole {
                self.taken += 1;
            } else {
                self.pieces.pop_front();
            }
            return Poll::Ready(Some(Ok(piece)));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        self.waker = Some(cx.waker().clone());
        let frame = ready!(Pin::new(&mut self.rest).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                self.ended = frame.is_trailers();
                self.keep(frame);
            }
            Some(Err(_)) => {}
            None => self.ended = true,
        }
        Poll::Ready(frame)
    }

    fn keep(&mut self, frame: &Frame<Bytes>) {
        if !self.whole {
            return;
        }
        let piece = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) if data.len() < COPIED && !self.pieces.is_empty() => {
                Piece::Data(Bytes::copy_from_slice(data))
            }
            (Some(data), _) => Piece::Data(data.clone()),
            (None, Some(trailers)) => Piece::Trailers(trailers.clone()),
            (None, None) => return,
        };
        self.bytes += frame.data_ref().map_or(0, Bytes::len);
        self.pieces.push_back(piece);
        self.taken += 1;
        if self.bytes > MAX_KEPT || self.pieces.len() > MAX_PIECES {
            self.forget();
        }
    }

    pub fn is_end_stream(&self) -> bool {
        self.taken >= self.pieces.len() && (self.ended || self.rest.is_end_stream())
    }

    pub fn size_hint(&self) -> SizeHint {
        // Of a body that begins again only its end is known; its head says how long it is.
        if self.bytes == 0 { self.rest.size_hint() } else { SizeHint::default() }
    }
}

/// Whether an upload is kept to its end, beside what has been read before: only one that says how
/// long it is is sure to be.
fn fits(upload: &Upload, read: usize) -> bool {
    upload.size_hint().upper().is_some_and(|rest| read as u64 + rest <= MAX_KEPT as u64)
}

/// Whether it is worth keeping what is read of an upload.
pub fn may_fit(upload: &Upload) -> bool {
    upload.size_hint().lower() <= MAX_KEPT as u64
}

/// The upload, from its beginning, to whom it goes out now.
pub struct Reader {
    body: Rc<RefCell<Replay>>,
    number: u64,
}

impl Reader {
    /// Takes the place of whoever read it before.
    pub fn new(body: &Rc<RefCell<Replay>>) -> Self {
        let number = body.borrow_mut().begin();
        Self { body: body.clone(), number }
    }

    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        self.body.borrow_mut().poll_frame(self.number, cx)
    }

    pub fn is_end_stream(&self) -> bool {
        self.body.borrow().is_end_stream()
    }

    pub fn size_hint(&self) -> SizeHint {
        self.body.borrow().size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(replay: &mut Replay, reader: u64) -> Vec<u8> {
        let mut cx = Context::from_waker(Waker::noop());
        let mut all = Vec::new();
        while let Poll::Ready(Some(frame)) = replay.poll_frame(reader, &mut cx) {
            all.extend_from_slice(&frame.unwrap().into_data().unwrap());
        }
        all
    }

    /// A replay of which these pieces have been read.
    fn after(pieces: &[&'static [u8]]) -> Replay {
        let mut replay = Replay::new(Upload::Empty);
        for piece in pieces {
            replay.keep(&Frame::data(Bytes::from_static(piece)));
        }
        replay
    }

    #[test]
    fn what_was_read_is_read_again_from_its_beginning() {
        let mut replay = after(&[b"one ", b"two"]);
        let reader = replay.begin();
        assert_eq!(read(&mut replay, reader), b"one two");
        let Some(Upload::Again(mut again)) = replay.take() else { panic!("it is whole") };
        assert_eq!(read(&mut again, 0), b"one two");
        let mut third = Replay::new(Upload::Again(again));
        let reader = third.begin();
        assert_eq!(read(&mut third, reader), b"one two");
    }

    #[test]
    fn what_is_forgotten_half_way_is_still_read_to_its_end() {
        let mut replay = after(&[b"one ", b"two"]);
        let reader = replay.begin();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(replay.poll_frame(reader, &mut cx).is_ready());
        replay.forget();
        assert_eq!(read(&mut replay, reader), b"two");
        assert!(replay.take().is_none());
    }

    #[test]
    fn of_too_much_nothing_is_kept() {
        static PIECE: [u8; MAX_KEPT / 2] = [0; MAX_KEPT / 2];
        let mut replay = after(&[&PIECE, &PIECE]);
        assert_eq!(replay.pieces.len(), 2, "just as much as may be");
        replay.keep(&Frame::data(Bytes::from_static(b"x")));
        assert!(replay.pieces.is_empty());
        assert!(replay.take().is_none());
    }

    #[test]
    fn of_too_many_pieces_nothing_is_kept() {
        let mut replay = after(&[b"x".as_slice(); MAX_PIECES]);
        assert!(replay.is_whole());
        replay.keep(&Frame::data(Bytes::from_static(b"x")));
        assert!(replay.pieces.is_empty() && !replay.is_whole());
    }

    #[test]
    fn a_short_piece_does_not_hold_on_to_the_buffer_it_came_in() {
        let mut replay = after(&[b"first"]);
        let buffer = Bytes::from(vec![b'x'; MAX_KEPT]);
        replay.keep(&Frame::data(buffer.slice(..COPIED - 1)));
        assert!(buffer.is_unique());
        replay.keep(&Frame::data(buffer.slice(..COPIED)));
        assert!(!buffer.is_unique(), "a long one is not copied");
    }

    #[test]
    fn what_has_been_read_to_its_trailers_is_not_asked_for_more_when_it_goes_out_again() {
        let mut sent = after(&[b"one"]);
        sent.keep(&Frame::trailers(HeaderMap::new()));
        let sent = Rc::new(RefCell::new(sent));
        let mut replay = Replay::new(Upload::Kept(Reader::new(&sent)));
        let (reader, mut cx) = (replay.begin(), Context::from_waker(Waker::noop()));
        for ended in [false, true] {
            assert!(replay.poll_frame(reader, &mut cx).is_ready());
            assert_eq!(replay.is_end_stream(), ended);
        }
        // Whoever read it before gets nothing any more.
        sent.borrow_mut().detach();
        let Some(Upload::Again(mut again)) = replay.take() else { panic!("it is whole") };
        for _ in 0..2 {
            assert!(matches!(again.poll_frame(0, &mut cx), Poll::Ready(Some(Ok(_)))));
        }
        assert!(matches!(again.poll_frame(0, &mut cx), Poll::Ready(None)));
    }

    #[test]
    fn who_came_before_the_last_reader_is_told_that_it_is_over() {
        let mut replay = after(&[b"one"]);
        let (first, second) = (replay.begin(), replay.begin());
        let mut cx = Context::from_waker(Waker::noop());
        let frame = replay.poll_frame(first, &mut cx);
        assert!(matches!(frame, Poll::Ready(Some(Err(UploadError::Over)))));
        replay.detach();
        let frame = replay.poll_frame(second, &mut cx);
        assert!(matches!(frame, Poll::Ready(Some(Err(UploadError::Over)))));
    }
}
