//! How a drain, a `stop` or a shutdown ends WebSockets: a Close where a frame ends, one tunnel after
//! the other, and a cut only where no frame does.
//!
//! Start at [`Stand`]. Both ends are bare sockets here. Times are those of the orders: what must not
//! be early is compared exactly, what may be late generously.

use std::time::{Duration, Instant};

use pintle::admin::view::DrainView;
use tokio::net::TcpListener;

use crate::support::websocket::{FIN, HANDSHAKE, MASK, SWITCH, frame};
use crate::support::{Config, Keys, Proxy, TlsClient, TlsWire, Wire, eventually, within};

/// Close 1012, as Pintle writes it to clients.
const CLOSE: [u8; 4] = [FIN | 8, 2, 0x03, 0xf4];

const SECOND: Duration = Duration::from_secs(1);

/// The client's answer to it.
fn answer() -> Vec<u8> {
    frame(FIN | 8, Some(MASK), &1012_u16.to_be_bytes())
}

/// A balancer with one thread in front of one bare socket, and somebody else for new clients.
struct Stand {
    proxy: Proxy,
    backend: TcpListener,
    begun: Instant,
}

impl Stand {
    async fn new(route: &str, pool: &str, server: &str) -> Self {
        Self::listening("", route, pool, server).await
    }

    async fn listening(listener: &str, route: &str, pool: &str, server: &str) -> Self {
        let backend = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let backends = [
            format!("{{ name = \"a\", address = \"{}\" }}", backend.local_addr().unwrap()),
            "{ name = \"b\", address = \"127.0.0.1:9\", backup = true }".to_owned(),
        ];
        let config = Config::default()
            .pool_of("app", &backends, pool)
            .route(&format!("pool = \"app\"\n{route}"))
            .listener(listener)
            .server(&format!("workers = 1\n{server}"));
        Self { proxy: Proxy::start(config).await, backend, begun: Instant::now() }
    }

    async fn accept(&self) -> Wire {
        let (stream, _) = within("a connection", self.backend.accept()).await.unwrap();
        let mut wire = Wire::new(stream);
        within("a head", wire.head()).await.expect("a head");
        wire
    }

    /// An open tunnel: the client's end and the backend's.
    async fn tunnel(&self) -> (Wire, Wire) {
        self.tunnel_by(HANDSHAKE, SWITCH).await
    }

    async fn tunnel_by(&self, ask: &str, switch: &str) -> (Wire, Wire) {
        let mut client = self.proxy.wire().await;
        client.send(ask).await;
        let mut backend = self.accept().await;
        backend.send(switch).await;
        assert_eq!(client.response_head().await.expect("a head").status, 101);
        (client, backend)
    }

    /// So many of them, all counted.
    async fn tunnels(&self, count: usize) -> Vec<(Wire, Wire)> {
        let mut tunnels = Vec::new();
        for _ in 0..count {
            tunnels.push(self.tunnel().await);
        }
        let there = async || self.proxy.backend("app/a").await.tunnels == count as u64;
        eventually("all tunnels", there).await;
        tunnels
    }

    /// Stops the backend; ready when its tunnels know, of which `witness` is an idle one.
    async fn stop(&mut self, witness: &mut Wire) {
        self.begun = Instant::now();
        self.proxy.stop("app/a").await.unwrap();
        assert_eq!(witness.bytes(4).await, CLOSE);
    }

    async fn drain(&self, deadline: Duration) -> DrainView {
        self.proxy.drain("app/a", Some(deadline)).await.unwrap()
    }

    /// The drain's report, once it is over.
    async fn report(&self) -> DrainView {
        let report = async || self.proxy.backend("app/a").await.drain;
        eventually("the drain is over", async || report().await.is_some_and(|view| view.state == "drained"))
            .await;
        report().await.expect("seen just now")
    }
}

/// The client reads until it is told to close, answers, and reads to the end; when it was told.
async fn told(client: &mut Wire, begun: Instant) -> Duration {
    assert_eq!(client.bytes(4).await, CLOSE);
    let after = begun.elapsed();
    client.send(answer()).await;
    assert_eq!(client.rest().await, b"");
    after
}

fn counts(view: &DrainView) -> (u64, u64, u64) {
    (view.websockets_closed, view.tunnels_cut, view.requests_cut)
}

#[tokio::test]
async fn a_message_that_is_on_its_way_arrives_whole_before_the_close() {
    let message = frame(FIN | 2, None, &vec![7; 200_000]);
    let (first, rest) = message.split_at(100_000);
    for next in [frame(FIN | 1, None, b"one more thing"), frame(FIN | 8, None, &1000_u16.to_be_bytes())] {
        let mut stand = Stand::new("", "", "").await;
        let (mut witness, _idle) = stand.tunnel().await;
        let (mut client, mut backend) = stand.tunnel().await;
        backend.send(first).await;
        assert_eq!(client.bytes(first.len()).await, first);
        stand.stop(&mut witness).await;
        // A ping that comes with the end is passed on; what is begun after it is not.
        let ping = frame(FIN | 9, None, b"there?");
        backend.send([rest, &ping, &next[..3]].concat()).await;
        let expected = [rest, &ping, &CLOSE].concat();
        assert!(client.bytes(expected.len()).await == expected);
        backend.send(&next[3..]).await;
        client.send(answer()).await;
        assert_eq!(client.rest().await, b"", "nothing follows a Close");
        assert_eq!(counts(&stand.report().await), (2, 0, 0));
    }
}

#[tokio::test]
async fn at_the_deadline_a_close_comes_between_fragments_too() {
    let mut stand = Stand::new("", "", "").await;
    let (mut witness, _idle) = stand.tunnel().await;
    let (mut client, mut backend) = stand.tunnel().await;
    let fragments = [frame(1, None, b"in "), frame(FIN | 9, None, b""), frame(0, None, b"parts")].concat();
    backend.send(&fragments).await;
    assert_eq!(client.bytes(fragments.len()).await, fragments);
    stand.stop(&mut witness).await;
    told(&mut client, stand.begun).await;
    assert_eq!(counts(&stand.report().await), (2, 0, 0));
}

#[tokio::test]
async fn before_the_deadline_a_message_of_fragments_comes_to_its_end() {
    let stand = Stand::new("", "", "").await;
    let mut tunnels = stand.tunnels(2).await;
    let begun = Instant::now();
    let (mut witness, _idle) = tunnels.pop().unwrap();
    let (mut client, mut backend) = tunnels.pop().unwrap();
    let talk = async {
        backend.send(frame(1, None, b"in ")).await;
        assert_eq!(client.bytes(5).await, frame(1, None, b"in "));
        // Its turn is at half the time.
        tokio::time::sleep_until((begun + 3 * SECOND).into()).await;
        let end = frame(FIN, None, b"parts");
        backend.send([&end[..], &frame(1, None, b"more")[..3]].concat()).await;
        assert_eq!(client.bytes(end.len()).await, end);
        told(&mut client, begun).await
    };
    let (view, after, _) = tokio::join!(stand.drain(4 * SECOND), talk, told(&mut witness, begun));
    assert!(after < Duration::from_millis(3_800), "{after:?}");
    assert_eq!(counts(&view), (2, 0, 0));
}

#[tokio::test]
async fn half_a_frame_is_cut_a_second_after_the_deadline() {
    let mut stand = Stand::new("", "", "").await;
    let (mut witness, _idle) = stand.tunnel().await;
    let (mut client, mut backend) = stand.tunnel().await;
    backend.send(&frame(FIN | 1, None, b"hello")[..4]).await;
    assert_eq!(client.bytes(4).await.len(), 4);
    stand.stop(&mut witness).await;
    witness.send(answer()).await;
    assert_eq!(client.rest().await, b"");
    let after = stand.begun.elapsed();
    assert!((SECOND..3 * SECOND).contains(&after), "{after:?}");
    assert_eq!(backend.rest().await, b"", "it hears of no Close that its client did not get");
    assert_eq!(counts(&stand.report().await), (1, 1, 0));
    assert_eq!(stand.proxy.ended("drained").await["status"], 101);
    for reason in ["cut", "drained"] {
        let closed = format!("pintle_websockets_closed_total{{pool=\"app\",reason=\"{reason}\"}}");
        assert_eq!(stand.proxy.metric(&closed).await, 1.0, "{reason}");
    }
}

#[tokio::test]
async fn what_is_no_websocket_is_cut_at_the_deadline_and_not_before() {
    let own = "GET /raw HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: own/1\r\n\r\n";
    let switch = "HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: own/1\r\n\r\n";
    // The second says that it is one, and sends no frames.
    for (ask, switch) in [(own, switch), (HANDSHAKE, SWITCH)] {
        let stand = Stand::new("", "", "").await;
        let (mut client, mut backend) = stand.tunnel_by(ask, switch).await;
        backend.send("GET / HTTP/1.1").await;
        assert_eq!(client.bytes(14).await, b"GET / HTTP/1.1");
        let begun = Instant::now();
        let (view, after) = tokio::join!(stand.drain(2 * SECOND), async {
            assert_eq!(client.rest().await, b"");
            begun.elapsed()
        });
        assert!((2 * SECOND..Duration::from_millis(2_900)).contains(&after), "{after:?}");
        assert_eq!(backend.rest().await, b"");
        assert_eq!(counts(&view), (0, 1, 0));
    }
}

#[tokio::test]
async fn a_route_that_waits_keeps_its_websockets_until_the_deadline() {
    let stand = Stand::new("websocket.drain = \"wait\"", "", "").await;
    let mut tunnels = stand.tunnels(4).await;
    let begun = Instant::now();
    let clients = tunnels.iter_mut().map(|(client, _)| told(client, begun));
    let (view, times) = tokio::join!(stand.drain(2 * SECOND), futures_util::future::join_all(clients));
    assert!(times.iter().all(|after| (2 * SECOND..3 * SECOND).contains(after)), "{times:?}");
    assert_eq!(counts(&view), (4, 0, 0));
}

#[tokio::test]
async fn where_no_sessions_are_kept_tunnels_end_one_after_the_other_over_all_the_time() {
    let stand = Stand::new("", "", "").await;
    let mut tunnels = stand.tunnels(12).await;
    let begun = Instant::now();
    let clients = tunnels.iter_mut().map(|(client, _)| told(client, begun));
    let (view, mut times) = tokio::join!(stand.drain(3 * SECOND), futures_util::future::join_all(clients));
    times.sort();
    // One is due every 233 ms, and looked after every 100 ms.
    for (place, after) in times.iter().enumerate() {
        let due = Duration::from_millis(2_800) * (place as u32 + 1) / 12;
        let early = Duration::from_millis(250);
        assert!(*after + early >= due, "number {place} at {after:?}, due at {due:?}: {times:?}");
    }
    assert!(times[11] < 4 * SECOND && times[0] < 2 * SECOND, "{times:?}");
    assert_eq!(counts(&view), (12, 0, 0));
}

#[tokio::test]
async fn where_sessions_are_kept_tunnels_stay_until_closing_time() {
    let stand = Stand::new("", "policy = \"sticky_cookie\"", "").await;
    let mut tunnels = stand.tunnels(6).await;
    let begun = Instant::now();
    let clients = tunnels.iter_mut().map(|(client, _)| told(client, begun));
    let (view, mut times) = tokio::join!(stand.drain(4 * SECOND), futures_util::future::join_all(clients));
    times.sort();
    assert!(times[0] >= 3 * SECOND && times[5] < 5 * SECOND, "{times:?}");
    assert!(times[5] - times[0] >= Duration::from_millis(400), "{times:?}");
    assert_eq!(counts(&view), (6, 0, 0));
}

#[tokio::test]
async fn without_a_deadline_nothing_is_closed() {
    let stand = Stand::new("", "", "").await;
    let (mut client, mut backend) = stand.tunnels(1).await.pop().unwrap();
    let order = pintle::admin::view::StateOrder { state: "draining".into(), ..Default::default() };
    stand.proxy.set_state("app/a", order).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let hello = frame(FIN | 1, None, b"hello");
    backend.send(&hello).await;
    assert_eq!(client.bytes(hello.len()).await, hello);
    assert_eq!(stand.proxy.backend("app/a").await.tunnels, 1);
}

#[tokio::test]
async fn a_shutdown_leaves_websockets_alone_until_the_last_part_of_its_time() {
    let stand = Stand::new("", "", "drain_timeout = \"3s\"").await;
    let mut tunnels = stand.tunnels(5).await;
    let begun = Instant::now();
    let clients = tunnels.iter_mut().map(|(client, _)| told(client, begun));
    let (report, mut times) = tokio::join!(stand.proxy.shutdown(), futures_util::future::join_all(clients));
    times.sort();
    assert!(times[0] >= 2 * SECOND && times[4] < 4 * SECOND, "{times:?}");
    assert!(times[4] - times[0] >= Duration::from_millis(400), "{times:?}");
    assert_eq!((report.websockets_closed, report.tunnels_cut), (5, 0));
}

#[tokio::test]
async fn a_shutdown_closes_at_its_deadline_what_waits_and_cuts_what_is_half_said() {
    let stand = Stand::new("websocket.drain = \"wait\"", "", "drain_timeout = \"500ms\"").await;
    let mut tunnels = stand.tunnels(2).await;
    let (client, backend) = &mut tunnels[0];
    backend.send(&frame(FIN | 1, None, b"hello")[..4]).await;
    assert_eq!(client.bytes(4).await.len(), 4);
    let begun = Instant::now();
    let [(half, _), (idle, _)] = &mut tunnels[..] else { panic!("two") };
    let (report, after, rest) =
        tokio::join!(stand.proxy.shutdown(), told(idle, begun), async { half.rest().await });
    assert!(rest.is_empty() && after >= SECOND / 2, "{after:?}");
    assert!((3 * SECOND / 2..4 * SECOND).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert_eq!((report.websockets_closed, report.tunnels_cut), (1, 1));
}

/// What the client says before it answers goes to the backend, and then a Close that is not its own.
#[tokio::test]
async fn the_backend_hears_its_client_out_and_then_of_the_end() {
    let keys = Keys::for_names(&["shop.example"]);
    let mut stand = Stand::listening(&keys.tls(&["site"]), "", "", "").await;
    let mut client: TlsWire =
        TlsClient::new(stand.proxy.address).offering(&["http/1.1"]).open("shop.example").await;
    client.send(HANDSHAKE).await;
    let mut backend = stand.accept().await;
    backend.send(SWITCH).await;
    assert_eq!(client.response_head().await.expect("a head").status, 101);
    let half = frame(FIN | 1, Some(MASK), b"in two pieces");
    client.send(&half[..5]).await;
    assert_eq!(backend.bytes(5).await, half[..5]);
    stand.begun = Instant::now();
    stand.proxy.stop("app/a").await.unwrap();
    assert_eq!(client.bytes(4).await, CLOSE);
    let last = frame(FIN | 2, Some(MASK), b"last words");
    client.send([&half[5..], &last, &answer()[..1]].concat()).await;
    client.send(&answer()[1..]).await;
    let heard = backend.bytes(half.len() - 5 + last.len() + 8).await;
    let (words, close) = heard.split_at(heard.len() - 8);
    assert_eq!(words, [&half[5..], &last].concat());
    let [head, length, a, b, c, d, high, low] = close.try_into().unwrap();
    assert_eq!((head, length), (FIN | 8, 0x82));
    assert_eq!(u16::from_be_bytes([high ^ a, low ^ b]), 1001, "{c} {d}");
    // It is waited for until it has answered.
    assert_eq!(stand.proxy.backend("app/a").await.tunnels, 1);
    backend.send(frame(FIN | 8, None, &1001_u16.to_be_bytes())).await;
    assert_eq!(backend.rest().await, b"");
    assert!(client.ends_properly().await);
    assert!(stand.begun.elapsed() < SECOND, "{:?}", stand.begun.elapsed());
    assert_eq!(counts(&stand.report().await), (1, 0, 0));
}

#[tokio::test]
async fn nobody_waits_long_for_a_client_that_does_not_answer() {
    let mut stand = Stand::new("", "", "").await;
    let (mut client, mut backend) = stand.tunnel().await;
    stand.stop(&mut client).await;
    let close = backend.bytes(8).await;
    let after = stand.begun.elapsed();
    assert!((SECOND..3 * SECOND).contains(&after), "{after:?}");
    assert_eq!(close[..2], [FIN | 8, 0x82]);
    assert_eq!((client.rest().await, backend.rest().await), (Vec::new(), Vec::new()));
    assert_eq!(counts(&stand.report().await), (1, 0, 0), "it was told");
}

#[tokio::test]
async fn a_side_that_is_closing_already_gets_no_second_close() {
    let mut stand = Stand::new("", "", "").await;
    let (mut witness, _idle) = stand.tunnel().await;
    let (mut client, mut backend) = stand.tunnel().await;
    let (mut other, mut theirs) = stand.tunnel().await;
    // Here the client was first, there the backend.
    let own = frame(FIN | 8, Some(MASK), &1000_u16.to_be_bytes());
    client.send(&own).await;
    assert_eq!(backend.bytes(own.len()).await, own);
    let done = frame(FIN | 8, None, &1000_u16.to_be_bytes());
    theirs.send(&done).await;
    assert_eq!(other.bytes(done.len()).await, done);
    stand.stop(&mut witness).await;
    assert_eq!(client.bytes(4).await, CLOSE);
    other.send(&own).await;
    assert_eq!(theirs.bytes(8).await.len(), 8);
    assert_eq!((backend.rest().await, other.rest().await), (Vec::new(), Vec::new()));
    assert_eq!(counts(&stand.report().await), (3, 0, 0));
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut() {
    let mut stand = Stand::new("", "", "").await;
    let (mut witness, _idle) = stand.tunnel().await;
    let (client, mut backend) = stand.tunnel().await;
    let message = frame(FIN | 2, None, &vec![7; 60_000]);
    let flood = async {
        // More than the sockets on the way take.
        for _ in 0..1_000 {
            let written = tokio::time::timeout(SECOND / 2, backend.try_send(&message)).await;
            if !written.is_ok_and(|written| written.is_ok()) {
                return;
            }
        }
        panic!("nobody reads, and all of it was taken");
    };
    flood.await;
    stand.stop(&mut witness).await;
    assert_eq!(counts(&stand.report().await), (1, 1, 0));
    assert!(stand.begun.elapsed() < 5 * SECOND, "{:?}", stand.begun.elapsed());
    drop(client);
}
