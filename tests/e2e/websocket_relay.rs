//! A tunnel is a pipe: what goes in comes out byte for byte, as soon as it is sent, and nothing
//! else does. Both ends are bare sockets here; every test runs in clear and in TLS.
//!
//! Start at [`Stand`]. The frames are well formed or not, as a test likes: Pintle judges none.

use std::io::{self, ErrorKind};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::websocket::{FIN, Form, HANDSHAKE, MASK, SWITCH, frame, frame_in};
use crate::support::{Config, DEADLINE, Keys, Proxy, TlsClient, Wire, eventually, within};

trait Socket: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Socket for S {}

/// One end, of whichever kind.
type End = Wire<Box<dyn Socket>>;

/// A balancer in front of one bare socket.
struct Stand {
    proxy: Proxy,
    backend: TcpListener,
    keys: Option<Keys>,
}

impl Stand {
    async fn new(keys: Option<Keys>) -> Self {
        let backend = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let pool = format!("[pool.app]\nbackends = [\"{}\"]", backend.local_addr().unwrap());
        let tls = keys.as_ref().map(|keys| keys.tls(&["site"])).unwrap_or_default();
        let proxy = Proxy::start(Config::from(pool.as_str()).listener(&tls)).await;
        Self { proxy, backend, keys }
    }

    /// One in clear and one in TLS.
    async fn both() -> [Self; 2] {
        [Self::new(None).await, Self::new(Some(Keys::for_names(&["shop.example"]))).await]
    }

    async fn client(&self) -> End {
        let stream: Box<dyn Socket> = match self.keys {
            None => Box::new(self.proxy.wire().await.stream),
            Some(_) => {
                let client = TlsClient::new(self.proxy.address).offering(&["http/1.1"]);
                Box::new(client.open("shop.example").await.stream)
            }
        };
        Wire { stream, buffer: Vec::new() }
    }

    /// The backend's next connection, its request's head read.
    async fn accept(&self) -> Wire {
        let (stream, _) = within("a connection", self.backend.accept()).await.unwrap();
        let mut wire = Wire::new(stream);
        let head = within("a head", wire.head()).await.expect("a head");
        assert!(String::from_utf8(head).unwrap().starts_with("GET /chat HTTP/1.1\r\n"));
        wire
    }

    /// An open tunnel: the client's end and the backend's, alike.
    async fn tunnel(&self) -> (End, End) {
        let mut client = self.client().await;
        client.send(HANDSHAKE).await;
        let mut backend = self.accept().await;
        backend.send(SWITCH).await;
        assert_eq!(client.response_head().await.expect("a head").status, 101);
        (client, Wire { stream: Box::new(backend.stream), buffer: backend.buffer })
    }

    /// No tunnel is left, and the last one ended by itself.
    async fn all_closed(&self) {
        eventually("no tunnel is left", async || self.proxy.status().await.totals.tunnels == 0).await;
        self.proxy.ended("tunnel_closed").await;
    }
}

/// Bytes that never repeat for long, the same for the same seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    std::iter::repeat_with(next).flat_map(u64::to_le_bytes).take(length).collect()
}

/// Exactly these bytes go in at one end and come out at the other, and only then does it return:
/// nothing waits for more to come.
async fn cross(from: &mut End, to: &mut End, bytes: &[u8]) {
    let sent = async {
        from.send(bytes).await;
        within("flush", from.stream.flush()).await.unwrap();
    };
    let (_, got) = tokio::join!(sent, to.bytes(bytes.len()));
    let differs = got.iter().zip(bytes).position(|(got, sent)| got != sent);
    assert!(
        got.len() == bytes.len() && differs.is_none(),
        "{} of {} bytes, other than sent from {differs:?}",
        got.len(),
        bytes.len()
    );
    assert!(to.buffer.is_empty(), "nobody sent {:?}", to.buffer);
}

/// The same in either direction.
async fn cross_both(client: &mut End, backend: &mut End, bytes: &[u8]) {
    cross(client, backend, bytes).await;
    cross(backend, client, bytes).await;
}

#[tokio::test]
async fn every_opcode_crosses_with_every_reserved_bit_masked_or_not() {
    for stand in Stand::both().await {
        let (mut client, mut backend) = stand.tunnel().await;
        for first in 0..=u8::MAX {
            for mask in [None, Some(MASK)] {
                cross_both(&mut client, &mut backend, &frame(first, mask, b"hello")).await;
            }
        }
    }
}

#[tokio::test]
async fn every_form_of_length_crosses_the_wasteful_ones_too() {
    for stand in Stand::both().await {
        let (mut client, mut backend) = stand.tunnel().await;
        let forms = [(Form::Bits7, 0..126), (Form::Bits16, 0..65_536), (Form::Bits64, 0..usize::MAX)];
        let lengths =
            [0, 1, 2, 124, 125, 126, 127, 128, 255, 256, 16_384, 32_768, 65_535, 65_536, 65_537, 200_000];
        let mut tried = 0;
        for (form, range) in forms {
            for length in lengths.into_iter().filter(|length| range.contains(length)) {
                for mask in [None, Some(MASK)] {
                    let payload = noise(length as u64, length);
                    cross_both(&mut client, &mut backend, &frame_in(form, FIN | 2, mask, &payload)).await;
                    tried += 1;
                }
            }
        }
        assert_eq!(tried, 2 * (5 + 13 + 16));
    }
}

#[tokio::test]
async fn a_length_that_is_never_made_good_is_not_waited_for() {
    for stand in Stand::both().await {
        let (mut client, mut backend) = stand.tunnel().await;
        // 2^63 bytes are announced, the top bit is set where it must not be, and what follows is
        // as much as there is.
        for length in [1u64 << 62, u64::MAX] {
            let mut head = vec![FIN | 2, 127];
            head.extend(length.to_be_bytes());
            cross_both(&mut client, &mut backend, &head).await;
            cross_both(&mut client, &mut backend, b"as much as there is").await;
        }
    }
}

/// Where a frame of so many bytes is split: everywhere in its head, at both ends of what follows,
/// and here and there in between.
fn places(length: usize) -> Vec<usize> {
    let every = |range: Range<usize>| range.filter(|at| (1..length).contains(at));
    let mut places: Vec<_> = every(1..160).chain(every(length.saturating_sub(3)..length)).collect();
    places.extend([4_096, 16_383, 16_384, 16_385, 32_768].iter().filter(|at| **at < length));
    places.dedup();
    places
}

#[tokio::test]
async fn a_frame_split_at_any_byte_arrives_in_the_pieces_that_were_sent() {
    for stand in Stand::both().await {
        let (mut client, mut backend) = stand.tunnel().await;
        for (form, length) in [
            (Form::Bits7, 0),
            (Form::Bits7, 5),
            (Form::Bits16, 3),
            (Form::Bits16, 130),
            (Form::Bits64, 3),
            (Form::Bits64, 65_536),
        ] {
            let frame = frame_in(form, FIN | 1, Some(MASK), &noise(9, length));
            for at in places(frame.len()) {
                for piece in [&frame[..at], &frame[at..]] {
                    cross_both(&mut client, &mut backend, piece).await;
                }
            }
        }
    }
}

#[tokio::test]
async fn frames_sent_byte_by_byte_and_all_at_once_are_the_same_stream() {
    for stand in Stand::both().await {
        let (mut client, mut backend) = stand.tunnel().await;
        let mut stream = Vec::new();
        for (first, length) in [(1, 3), (FIN | 9, 0), (0, 0), (FIN | 10, 125), (FIN, 200), (FIN | 2, 1)] {
            stream.extend(frame(first, Some(MASK), &noise(3, length)));
        }
        for byte in &stream {
            cross_both(&mut client, &mut backend, &[*byte]).await;
        }
        cross_both(&mut client, &mut backend, &stream).await;
    }
}

#[tokio::test]
async fn control_frames_inside_a_fragmented_message_cross_in_their_order() {
    for stand in Stand::both().await {
        let (mut client, mut backend) = stand.tunnel().await;
        for mask in [None, Some(MASK)] {
            for (first, payload) in [
                (1, &b"a text in"[..]),
                (FIN | 9, b"are you there"),
                (0, b" three"),
                (0, b""),
                (FIN | 10, b"nobody asked"),
                (FIN | 9, b""),
                (FIN, b" parts"),
                // A message that never ends, and a fragmented control frame: not for us to judge.
                (2, b"more"),
                (9, b"pi"),
                (FIN, b"ng"),
            ] {
                cross_both(&mut client, &mut backend, &frame(first, mask, payload)).await;
            }
        }
    }
}

#[tokio::test]
async fn a_close_of_every_kind_crosses_and_the_tunnel_stays_until_its_ends_leave() {
    let long = noise(1, 123);
    for stand in Stand::both().await {
        let (mut client, mut backend) = stand.tunnel().await;
        let mut closes = vec![Vec::new(), vec![3]];
        for code in [
            0u16, 1, 999, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1008, 1009, 1010, 1011, 1012, 1013,
            1014, 1015, 1016, 2999, 3000, 3999, 4000, 4999, 5000, 65_535,
        ] {
            for reason in [&b""[..], b"bye", "ad\u{ed}\u{f3}s \u{1f44b}".as_bytes(), b"\xff\xfe", &long] {
                closes.push([&code.to_be_bytes(), reason].concat());
            }
        }
        for payload in &closes {
            cross(&mut client, &mut backend, &frame(FIN | 8, Some(MASK), payload)).await;
            cross(&mut backend, &mut client, &frame(FIN | 8, None, payload)).await;
        }
        // After a Close nothing should come, and what comes all the same is passed on.
        cross_both(&mut client, &mut backend, &frame(FIN | 1, Some(MASK), b"one more thing")).await;
        assert_eq!(stand.proxy.status().await.totals.tunnels, 1);
        backend.finish().await;
        assert_eq!(client.rest().await, b"");
        client.finish().await;
        assert_eq!(backend.rest().await, b"");
        stand.all_closed().await;
    }
}

/// Frames of all sizes, one after the other.
fn conversation(seed: u64, total: usize) -> Vec<u8> {
    let mut stream = Vec::new();
    for (turn, size) in noise(seed, 1 << 16).chunks_exact(4).enumerate() {
        let size = u32::from_le_bytes(size.try_into().unwrap()) as usize;
        // Small ones mostly, some of the 16-bit form, a few of the 64-bit form.
        let length = size % [20, 126, 2_000, 20, 130, 70_000][turn % 6];
        let mask = turn.is_multiple_of(2).then_some(MASK);
        stream.extend(frame((turn % 256) as u8, mask, &noise(size as u64, length)));
        if stream.len() >= total {
            return stream;
        }
    }
    stream
}

/// Writes in pieces of all sizes.
async fn pour(mut into: impl AsyncWrite + Unpin, stream: &[u8], seed: u64) {
    let sizes = noise(seed, 4096);
    let mut rest = stream;
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let size = (1 + usize::from(*size) * usize::from(*size) / 4).min(rest.len());
        into.write_all(&rest[..size]).await.unwrap();
        rest = &rest[size..];
    }
    into.flush().await.unwrap();
}

#[tokio::test]
async fn both_directions_carry_a_conversation_at_once() {
    const TOTAL: usize = 3 << 20;
    let (up, down) = (conversation(5, TOTAL), conversation(6, TOTAL));
    assert!(up.len() >= TOTAL && down.len() >= TOTAL && up != down);
    for stand in Stand::both().await {
        let (client, backend) = stand.tunnel().await;
        let (mut client_reads, mut client_writes) = tokio::io::split(client.stream);
        let (mut backend_reads, mut backend_writes) = tokio::io::split(backend.stream);
        let (mut at_client, mut at_backend) = (vec![0; down.len()], vec![0; up.len()]);
        within("the conversation", async {
            tokio::join!(
                pour(&mut client_writes, &up, 7),
                pour(&mut backend_writes, &down, 8),
                async { client_reads.read_exact(&mut at_client).await.unwrap() },
                async { backend_reads.read_exact(&mut at_backend).await.unwrap() },
            )
        })
        .await;
        assert!(at_backend == up && at_client == down, "what arrives is what was sent");
        within("the end", client_writes.shutdown()).await.unwrap();
        assert_eq!(backend_reads.read(&mut [0]).await.unwrap(), 0);
        within("the end", backend_writes.shutdown()).await.unwrap();
        assert_eq!(client_reads.read(&mut [0]).await.unwrap(), 0);
        stand.all_closed().await;
    }
}

#[tokio::test]
async fn a_large_message_waits_for_its_reader_while_the_other_direction_goes_on() {
    /// More than the sockets on the way can take.
    const LENGTH: usize = 32 << 20;
    let payload = noise(11, LENGTH);
    let message = Arc::new(frame(FIN | 2, Some(MASK), &payload));
    for stand in Stand::both().await {
        for up in [true, false] {
            let (client, backend) = stand.tunnel().await;
            let (from, to) = if up { (client, backend) } else { (backend, client) };
            let (mut from_reads, mut from_writes) = tokio::io::split(from.stream);
            let (mut to_reads, mut to_writes) = tokio::io::split(to.stream);
            let written = Arc::new(AtomicUsize::new(0));
            let writer = tokio::spawn({
                let (message, written) = (message.clone(), written.clone());
                async move {
                    for piece in message.chunks(64 * 1024) {
                        from_writes.write_all(piece).await.unwrap();
                        written.fetch_add(piece.len(), Ordering::Relaxed);
                    }
                    from_writes.flush().await.unwrap();
                    from_writes
                }
            });
            // Nobody reads. Pings the other way arrive, until a hundred have passed without the
            // message moving.
            let (mut still, mut before) = (0, 0);
            let ping = frame(FIN | 9, None, b"ping");
            within("the message stalls", async {
                while still < 100 {
                    to_writes.write_all(&ping).await.unwrap();
                    to_writes.flush().await.unwrap();
                    let mut got = vec![0; ping.len()];
                    from_reads.read_exact(&mut got).await.unwrap();
                    assert_eq!(got, ping);
                    let now = written.load(Ordering::Relaxed);
                    still = if now == before { still + 1 } else { 0 };
                    before = now;
                }
            })
            .await;
            assert!(before > 0 && before < LENGTH, "{before} of {LENGTH} bytes were taken, and nobody reads");
            let mut got = vec![0; message.len()];
            within("the message", to_reads.read_exact(&mut got)).await.unwrap();
            assert!(got == **message, "what arrives is what was sent");
            drop(within("the writer", writer).await.unwrap());
        }
    }
}

#[tokio::test]
async fn either_side_may_end_first_in_the_middle_of_a_frame() {
    for stand in Stand::both().await {
        for client_first in [true, false] {
            let (mut client, mut backend) = stand.tunnel().await;
            let (first, other) =
                if client_first { (&mut client, &mut backend) } else { (&mut backend, &mut client) };
            let cut = &frame(FIN | 1, Some(MASK), b"half of it")[..7];
            first.send(cut).await;
            first.finish().await;
            assert_eq!(other.rest().await, cut);
            cross(other, first, &frame(FIN | 1, None, &noise(2, 70_000))).await;
            assert_eq!(stand.proxy.status().await.totals.tunnels, 1);
            other.finish().await;
            assert_eq!(first.rest().await, b"");
            stand.all_closed().await;
        }
    }
}

/// Once a backend has reset, writing to it fails; whether that is noticed before its last words are
/// read is a race, which a client that never stops talking makes likely.
#[tokio::test]
async fn last_words_before_a_reset_arrive_although_the_other_side_still_talks() {
    let stand = Stand::new(None).await;
    let goodbye = frame(FIN | 8, None, b"\x03\xeaI do not like this");
    for _ in 0..300 {
        let mut client = stand.proxy.wire().await;
        client.send(HANDSHAKE).await;
        let mut backend = stand.accept().await;
        backend.send(SWITCH).await;
        assert_eq!(client.response_head().await.expect("a head").status, 101);
        let (mut reads, writes) = client.stream.into_split();
        let begun = Instant::now();
        let talking = tokio::task::spawn_blocking(move || {
            let silenced = |error: io::Error| error.kind() != ErrorKind::WouldBlock;
            while begun.elapsed() < DEADLINE && !writes.try_write(b"x").is_err_and(silenced) {}
        });
        backend.send(&goodbye).await;
        backend.reset();
        let mut heard = client.buffer;
        while within("the end", reads.read_buf(&mut heard)).await.is_ok_and(|read| read > 0) {}
        assert!(heard == goodbye, "{heard:?} instead of {goodbye:?}");
        within("the talk", talking).await.unwrap();
    }
}

#[tokio::test]
async fn early_frames_cross_whole_and_only_after_the_backends_101() {
    for stand in Stand::both().await {
        for length in [0, 5, 70_000, 400_000] {
            let early = frame(FIN | 2, Some(MASK), &noise(13, length));
            let client = stand.client().await;
            let (client_reads, mut client_writes) = tokio::io::split(client.stream);
            // All in one write, as far as the sockets take it.
            let all = [HANDSHAKE.as_bytes(), &early].concat();
            let writer = tokio::spawn(async move {
                client_writes.write_all(&all).await.unwrap();
                client_writes.flush().await.unwrap();
                client_writes
            });
            let backend = stand.accept().await;
            // Another request is answered from start to end meanwhile: what would be sent early
            // has been sent by then.
            let mut other = stand.client().await;
            other.send("GET /chat HTTP/1.1\r\nHost: shop.example\r\n\r\n").await;
            stand.accept().await.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            assert_eq!(other.response("GET").await.expect("an answer").status, 200);
            let read = backend.stream.try_read(&mut [0]);
            assert!(backend.buffer.is_empty() && read.is_err(), "{read:?} before the 101");
            let mut backend: End = Wire { stream: Box::new(backend.stream), buffer: backend.buffer };

            let hello = frame(FIN | 1, None, b"welcome");
            backend.send([SWITCH.as_bytes(), &hello].concat()).await;
            assert!(backend.bytes(early.len()).await == early, "what arrives is what was sent");
            let mut client: End = Wire {
                stream: Box::new(client_reads.unsplit(within("the writer", writer).await.unwrap())),
                buffer: Vec::new(),
            };
            assert_eq!(client.response_head().await.expect("a head").status, 101);
            assert_eq!(client.bytes(hello.len()).await, hello);
            cross_both(&mut client, &mut backend, b"and so on").await;
        }
    }
}

#[tokio::test]
async fn a_handshake_that_is_refused_leaves_a_connection_for_requests_and_for_another_try() {
    for stand in Stand::both().await {
        let mut client = stand.client().await;
        for (status, lines) in [
            (403, "Content-Length: 2\r\n\r\nno"),
            (200, "Content-Length: 2\r\n\r\nno"),
            (426, "Upgrade: other\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n"),
        ] {
            client.send(HANDSHAKE).await;
            let mut backend = stand.accept().await;
            backend.send(format!("HTTP/1.1 {status} Because\r\nConnection: close\r\n{lines}")).await;
            let answer = client.response("GET").await.expect("an answer");
            assert_eq!((answer.status, answer.text().as_str(), answer.whole), (status, "no", true));
            assert_eq!(stand.proxy.status().await.totals.tunnels, 0);
        }
        client.send(HANDSHAKE).await;
        let mut backend = stand.accept().await;
        backend.send(SWITCH).await;
        let mut backend: End = Wire { stream: Box::new(backend.stream), buffer: backend.buffer };
        assert_eq!(client.response_head().await.expect("a head").status, 101);
        cross_both(&mut client, &mut backend, &frame(FIN | 1, Some(MASK), b"at last")).await;
    }
}
