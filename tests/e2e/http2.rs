//! HTTP/2 from clients: how it is chosen, what it carries, and when a client is told to leave.

use bytes::Bytes;
use http::{HeaderMap, Request};
use pintle::admin::view::StateOrder;

use crate::support::h2_client::{END_STREAM, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM, get, read, request};
use crate::support::{
    Backend, Config, Frame, FrameWire, H2Backend, H2Client, H2Reply, Keys, Proxy, Reply, TlsClient, Wire,
    eventually, within,
};

const BOTH: &str = "protocols = [\"h2c\", \"http/1.1\"]";

fn config(backends: &[&Backend], listener: &str) -> Config {
    Config::app(backends, "").listener(&format!("{BOTH}\n{listener}"))
}

async fn over(backend: &Backend, listener: &str) -> Proxy {
    Proxy::start(config(&[backend], listener)).await
}

#[tokio::test]
async fn both_protocols_are_spoken_on_one_clear_port() {
    let backend = Backend::start("a").await;
    let proxy = over(&backend, "").await;
    assert_eq!(proxy.client().get("/one").await.text(), "a");
    let answer = H2Client::open(proxy.address).await.get("/two").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "a"));
    let request = backend.seen(2).await;
    assert_eq!(request.header("host"), Some("test.example"));
    assert_eq!(request.header("x-forwarded-proto"), Some("http"));
    let lines = proxy.logged(2).await;
    let spoken: Vec<_> = lines.iter().map(|line| line["proto"].as_str().unwrap()).collect();
    assert!(spoken.contains(&"h2") && spoken.contains(&"http/1.1"), "{spoken:?}");
}

#[tokio::test]
async fn a_preface_in_pieces_is_waited_for_and_one_that_stops_is_cut() {
    let backend = Backend::start("a").await;
    let proxy = over(&backend, "first_byte_timeout = \"300ms\"").await;
    let mut wire = FrameWire::silent(proxy.address).await;
    for byte in PREFACE {
        wire.write([*byte]).await;
    }
    wire.send(&[Frame::new(4, 0, 0, []), Frame::get(1, "/")]).await;
    assert_eq!(wire.read_until(HEADERS).await.unwrap().stream, 1);
    for part in [0, 3, PREFACE.len() - 1] {
        let mut wire = FrameWire::silent(proxy.address).await;
        wire.write(&PREFACE[..part]).await;
        assert_eq!(wire.rest().await, []);
    }
    let silent = "pintle_listener_rejected_total{listener=\"web\",reason=\"first_byte_timeout\"}";
    eventually("three are counted", async || proxy.metric(silent).await == 3.0).await;
}

#[tokio::test]
async fn a_listener_speaks_what_it_is_told_to_and_nothing_else() {
    let backend = Backend::start("a").await;
    let old = Proxy::over(&[&backend]).await;
    let answer = old.raw(PREFACE).await;
    assert_eq!(String::from_utf8_lossy(&answer), "", "hyper closes on a preface that it does not expect");
    let new = Proxy::start(Config::app(&[&backend], "").listener("protocols = [\"h2c\"]")).await;
    assert_eq!(H2Client::open(new.address).await.get("/").await.status, 200);
    let answer = new.raw("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(!answer.starts_with(b"HTTP/1.1"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn tls_chooses_by_what_is_offered() {
    let (backend, keys) = (Backend::start("a").await, Keys::for_names(&["a.example"]));
    let proxy = Proxy::start(Config::app(&[&backend], "").listener(&keys.tls(&["site"]))).await;
    let client = TlsClient::new(proxy.address);
    let wire = client.clone().offering(&["http/1.1", "h2"]).open("a.example").await;
    assert_eq!(wire.spoken().as_deref(), Some("h2"), "ours goes first");
    let answer = H2Client::over(wire.stream).await.get("/").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "a"));
    assert_eq!(backend.seen(1).await.header("x-forwarded-proto"), Some("https"));
    let mut wire = client.clone().offering(&[]).open("a.example").await;
    wire.send("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
    assert_eq!(wire.response("GET").await.unwrap().status, 200, "who offers nothing speaks HTTP/1.1");
    assert!(client.offering(&["spdy/3"]).try_open("a.example").await.is_err());
    let line = &proxy.logged(1).await[0];
    assert_eq!((&line["proto"], &line["tls"]), (&"h2".into(), &"1.3".into()));
}

#[tokio::test]
async fn many_requests_share_a_connection_and_none_waits_for_another() {
    let backend = Backend::start("a").await;
    let proxy = over(&backend, "").await;
    backend.hold();
    let mut client = H2Client::open(proxy.address).await;
    let mut answers = Vec::new();
    for n in 0..20 {
        answers.push(client.send(get(&format!("/{n}")), true).await.0);
    }
    backend.parked(20).await;
    backend.release();
    for answer in answers {
        assert_eq!(within("an answer", answer).await.unwrap().status(), 200);
    }
    assert_eq!(client.get("/last").await.status, 200);
}

#[tokio::test]
async fn one_stream_more_than_the_limit_is_refused_and_can_come_again() {
    let backend = Backend::start("a").await;
    let proxy = over(&backend, "http2.max_streams = 2").await;
    backend.hold();
    let mut wire = FrameWire::open(proxy.address).await;
    wire.send(&[Frame::get(1, "/1"), Frame::get(3, "/3"), Frame::get(5, "/5")]).await;
    let reset = wire.read_until(RST_STREAM).await.unwrap();
    assert_eq!((reset.stream, reset.error()), (5, 7), "REFUSED_STREAM");
    backend.parked(2).await;
    backend.release();
    assert!(wire.read_until(HEADERS).await.is_some());
    assert!(wire.read_until(HEADERS).await.is_some());
    wire.send(&[Frame::get(7, "/7")]).await;
    assert_eq!(wire.read_until(HEADERS).await.unwrap().stream, 7);
    assert!(backend.requests().iter().all(|request| request.target != "/5"));
}

#[tokio::test]
async fn bodies_of_megabytes_pass_both_ways() {
    let backend = Backend::start("a").await;
    let body: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    backend.answer(|request| Reply::text(request.body.clone()));
    let proxy = over(&backend, "").await;
    let mut client = H2Client::open(proxy.address).await;
    let answer = client.post("/", body.clone()).await;
    assert_eq!((answer.status, answer.body.len()), (200, body.len()));
    assert!(answer.body == body);
    assert_eq!(answer.header("content-length"), Some("3000000"));
}

#[tokio::test]
async fn trailers_pass_both_ways_between_http_2_and_http_2() {
    let backend = H2Backend::start("a").await;
    backend.answer(|request| {
        let sum = request.trailers.get("x-sum").unwrap_or("none").to_owned();
        H2Reply::text("body").trailer("x-echo", &sum)
    });
    let file = Config::default().listener(BOTH).pool_of("app", &[backend.toml()], "protocol = \"h2c\"");
    let proxy = Proxy::start(file).await;
    let mut client = H2Client::open(proxy.address).await;
    let (answer, mut upload) = client.send(Request::post("http://a/").body(()).unwrap(), false).await;
    upload.send_data(Bytes::from_static(b"abc"), false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "42".parse().unwrap());
    upload.send_trailers(trailers).unwrap();
    let mut incoming = within("an answer", answer).await.unwrap().into_body();
    assert_eq!(read(&mut incoming).await.unwrap(), b"body");
    let trailers = within("trailers", incoming.trailers()).await.unwrap().unwrap();
    assert_eq!(trailers["x-echo"], "42");
}

#[tokio::test]
async fn a_backends_answer_cut_short_is_a_reset_and_no_end() {
    let backend = Backend::start("a").await;
    let proxy = over(&backend, "").await;
    let mut client = H2Client::open(proxy.address).await;
    for cut in [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabc",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ] {
        for end in [Reply::raw(cut).then_close(), Reply::raw(cut).then_reset()] {
            backend.reply(end);
            let answer = client.try_ask(get("/").map(|()| Bytes::new())).await;
            let error = answer.expect_err(cut);
            assert!(error.is_reset() && error.is_remote(), "{error}");
        }
    }
    backend.reply(Reply::text("whole"));
    assert_eq!(client.get("/").await.text(), "whole", "the connection's other streams are unharmed");
}

#[tokio::test]
async fn a_client_that_takes_back_a_request_cancels_it_at_the_backend() {
    let backend = Backend::start("a").await;
    let proxy = over(&backend, "").await;
    backend.hold();
    let mut client = H2Client::open(proxy.address).await;
    let (answer, _) = client.send(get("/slow"), true).await;
    backend.parked(1).await;
    drop(answer);
    eventually("the backend's connection ends", async || backend.open() == 0).await;
    assert_eq!(proxy.ended("client_abort").await["path"], "/slow");
    backend.release();
    assert_eq!(client.get("/next").await.status, 200);
}

#[tokio::test]
async fn a_connection_that_breaks_cancels_all_that_it_carried() {
    let backend = Backend::start("a").await;
    let proxy = over(&backend, "").await;
    backend.hold();
    let mut client = H2Client::open(proxy.address).await;
    let answers = [client.send(get("/1"), true).await.0, client.send(get("/2"), true).await.0];
    backend.parked(2).await;
    client.hang_up();
    eventually("the backend's connections end", async || backend.open() == 0).await;
    drop(answers);
    eventually("nothing is under way", async || proxy.status().await.pools[0].backends[0].in_flight == 0)
        .await;
}

#[tokio::test]
async fn an_idle_connection_is_told_to_leave_in_two_steps() {
    let backend = Backend::start("a").await;
    let proxy = over(&backend, "idle_timeout = \"300ms\"").await;
    let mut wire = FrameWire::open(proxy.address).await;
    wire.send(&[Frame::get(1, "/")]).await;
    let first = wire.read_until(GOAWAY).await.unwrap();
    assert_eq!(first.payload[..8], [0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    let ping = wire.read_until(PING).await.unwrap();
    wire.send(&[Frame::new(PING, 1, 0, ping.payload)]).await;
    let last = wire.read_until(GOAWAY).await.unwrap();
    assert_eq!(last.payload[..8], [0, 0, 0, 1, 0, 0, 0, 0]);
    assert_eq!(wire.rest().await, []);
}

#[tokio::test]
async fn an_idle_client_that_does_not_answer_is_closed_all_the_same() {
    let backend = Backend::start("a").await;
    let proxy = over(&backend, "idle_timeout = \"300ms\"").await;
    let mut wire = FrameWire::open(proxy.address).await;
    assert!(wire.read_until(GOAWAY).await.is_some());
    wire.rest().await;
}

#[tokio::test]
async fn a_shutdown_lets_streams_end_and_takes_those_that_are_on_their_way() {
    let backend = Backend::start("a").await;
    let proxy = over(&backend, "").await;
    backend.hold();
    let mut wire = FrameWire::open(proxy.address).await;
    wire.send(&[Frame::get(1, "/1")]).await;
    backend.parked(1).await;
    let shutdown = tokio::spawn(proxy.shutdown());
    let first = wire.read_until(GOAWAY).await.unwrap();
    assert_eq!(first.payload[..4], [0x7f, 0xff, 0xff, 0xff]);
    wire.send(&[Frame::get(3, "/3")]).await;
    let ping = wire.read_until(PING).await.unwrap();
    wire.send(&[Frame::new(PING, 1, 0, ping.payload)]).await;
    assert_eq!(wire.read_until(GOAWAY).await.unwrap().payload[..4], [0, 0, 0, 3]);
    backend.parked(2).await;
    backend.release();
    let heads = wire.rest().await.iter().filter(|frame| frame.kind == HEADERS).count();
    assert_eq!(heads, 2);
    let report = within("the shutdown", shutdown).await.unwrap();
    assert_eq!(report.requests_cut, 0, "{report:?}");
}

#[tokio::test]
async fn half_a_head_is_cut_in_time_and_harms_no_other_connection() {
    let backend = Backend::start("a").await;
    let proxy = over(&backend, "header_timeout = \"300ms\"").await;
    let head = Frame::get(1, "/").bytes();
    let mut open = Frame::get(1, "/");
    open.flags = END_STREAM;
    for half in [&head[..5], &head[..9], &head[..head.len() - 1], &open.bytes()[..]] {
        let mut wire = FrameWire::open(proxy.address).await;
        wire.write(half).await;
        wire.rest().await;
    }
    let slow = "pintle_listener_rejected_total{listener=\"web\",reason=\"header_timeout\"}";
    eventually("all are counted", async || proxy.metric(slow).await == 4.0).await;
    assert_eq!(backend.count(), 0);
}

#[tokio::test]
async fn an_answer_that_nobody_takes_is_given_up_and_its_neighbours_go_on() {
    let backend = Backend::start("a").await;
    backend.answer(|request| match request.target.as_str() {
        "/large" => Reply::text(vec![b'x'; 3_000_000]),
        _ => Reply::text("small"),
    });
    let proxy = over(&backend, "idle_timeout = \"500ms\"").await;
    let mut client = H2Client::with_window(proxy.address, 1000).await;
    let (answer, _) = client.send(get("/large"), true).await;
    let mut incoming = within("a head", answer).await.unwrap().into_body();
    let ended = async {
        // Read, but never given back: the window stays shut.
        loop {
            match incoming.data().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => return error,
                None => panic!("it looks whole"),
            }
        }
    };
    let mut neighbour = client.send(get("/small"), true).await.0;
    assert_eq!(within("a neighbour", &mut neighbour).await.unwrap().status(), 200);
    let error = within("a reset", ended).await;
    assert!(error.is_reset(), "{error}");
    eventually("the backend is free", async || backend.open() == 0).await;
    assert_eq!(proxy.ended("client_abort").await["path"], "/large");
}

#[tokio::test]
async fn a_drain_that_cuts_reaches_a_stream_whose_client_takes_nothing() {
    let backend = Backend::start("a").await;
    backend.answer(|_| Reply::text(vec![b'x'; 3_000_000]));
    let proxy = over(&backend, "").await;
    let mut client = H2Client::with_window(proxy.address, 1000).await;
    let (answer, _) = client.send(get("/large"), true).await;
    let mut incoming = within("a head", answer).await.unwrap().into_body();
    within("a piece", incoming.data()).await.unwrap().unwrap();
    let stop = StateOrder { state: "stopped".into(), deadline_seconds: Some(0.0), reason: None, force: true };
    proxy.set_state("app/a", stop).await.unwrap();
    let cut = async { while incoming.data().await.is_some_and(|data| data.is_ok()) {} };
    within("the cut", cut).await;
    eventually("the backend is free", async || backend.open() == 0).await;
}

#[tokio::test]
async fn a_body_that_is_not_read_holds_up_its_own_stream_alone() {
    let backend = Backend::start("a").await;
    backend.answer_early(|request| match request.target.as_str() {
        "/stuck" => Reply::stall(),
        _ => Reply::text("b"),
    });
    let proxy = over(&backend, "").await;
    let mut client = H2Client::open(proxy.address).await;
    let (_answer, mut upload) = client.send(Request::post("http://a/stuck").body(()).unwrap(), false).await;
    upload.send_data(Bytes::from(vec![0; 10_000_000]), true).unwrap();
    for n in 0..10 {
        assert_eq!(client.get(&format!("/{n}")).await.status, 200);
    }
}

#[tokio::test]
async fn an_answer_that_comes_first_tells_its_client_to_send_no_more() {
    let backend = Backend::start("a").await;
    backend.answer_early(|_| Reply::text("enough"));
    let proxy = over(&backend, "").await;
    let mut wire = FrameWire::open(proxy.address).await;
    wire.send(&[Frame::head(1, &request("POST", "/"), 0), Frame::new(0, 0, 1, *b"some of it")]).await;
    assert!(wire.read_until(HEADERS).await.is_some());
    let reset = wire.read_until(RST_STREAM).await.unwrap();
    assert_eq!((reset.stream, reset.error()), (1, 0), "NO_ERROR");
    wire.send(&[Frame::get(3, "/")]).await;
    assert_eq!(wire.read_until(HEADERS).await.unwrap().stream, 3);
}

#[tokio::test]
async fn cookie_crumbs_reach_the_policy_and_the_backend_as_one_line() {
    let backends = Backend::fleet(["a", "b", "c"]).await;
    let backends: Vec<&Backend> = backends.iter().collect();
    let file = Config::app(&backends, "policy = \"sticky_cookie\"").listener(BOTH);
    let proxy = Proxy::start(file).await;
    let mut client = H2Client::open(proxy.address).await;
    let first = client.get("/").await;
    let cookie = first.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    for _ in 0..6 {
        let request = Request::get("http://test.example/").header("cookie", "one=1");
        let request = request.header("cookie", &cookie).header("cookie", "two=2").body(Bytes::new()).unwrap();
        assert_eq!(client.ask(request).await.text(), first.text());
    }
    let backend = backends.iter().find(|backend| backend.name == first.text()).unwrap();
    assert_eq!(backend.requests().last().unwrap().header("cookie"), Some("one=1; two=2"));
}

#[tokio::test]
async fn what_speaks_of_the_connection_stays_on_it() {
    let backend = Backend::start("a").await;
    backend.reply(Reply::raw(
        "HTTP/1.1 200 OK\r\nconnection: keep-alive, x-mine\r\nkeep-alive: timeout=5\r\nx-mine: 1\r\n\
         x-kept: 1\r\ncontent-length: 0\r\n\r\n",
    ));
    let proxy = over(&backend, "").await;
    let mut client = H2Client::open(proxy.address).await;
    let request = Request::get("http://test.example/").header("te", "trailers").body(Bytes::new()).unwrap();
    let answer = client.ask(request).await;
    assert_eq!(answer.header("x-kept"), Some("1"));
    for gone in ["connection", "keep-alive", "x-mine", "transfer-encoding"] {
        assert_eq!(answer.header(gone), None, "{gone}");
    }
    assert_eq!(backend.seen(1).await.header("te"), Some("trailers"));
}

#[tokio::test]
async fn an_answer_of_ours_is_an_answer_and_closes_nothing() {
    let backend = Backend::start("a").await;
    let routes = config(&[&backend], "").route("path = \"/here\"\npool = \"app\"");
    let proxy = Proxy::start(routes).await;
    let mut client = H2Client::open(proxy.address).await;
    let answer = client.get("/nowhere").await;
    assert_eq!(answer.status, 404);
    assert_eq!(answer.header("x-request-id").map(str::len), Some(12));
    assert_eq!(answer.header("connection"), None);
    assert_eq!(client.get("/here").await.status, 200);
}

#[tokio::test]
async fn a_reload_cuts_no_stream() {
    let backend = Backend::start("a").await;
    let proxy = over(&backend, "").await;
    backend.hold();
    let mut client = H2Client::open(proxy.address).await;
    let (answer, _) = client.send(get("/"), true).await;
    backend.parked(1).await;
    proxy.reload(Config::app(&[&backend], "policy = \"ip_hash\"").listener(BOTH)).await.unwrap();
    backend.release();
    assert_eq!(within("an answer", answer).await.unwrap().status(), 200);
    assert_eq!(client.get("/next").await.status, 200);
}

#[tokio::test]
async fn an_upgrade_to_h2c_is_no_way_in() {
    let backend = Backend::start("a").await;
    let proxy = over(&backend, "").await;
    let mut wire = Wire::open(proxy.address).await;
    wire.send(
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\n\
         http2-settings: AAMAAABkAAQAAP__\r\n\r\n",
    )
    .await;
    assert_eq!(wire.response("GET").await.unwrap().status, 200);
    assert_eq!(backend.seen(1).await.header("upgrade"), None);
}

#[tokio::test]
async fn a_request_may_send_its_body_late_and_end_it_with_an_empty_frame() {
    let backend = Backend::start("a").await;
    backend.answer(|request| Reply::text(request.body.clone()));
    let proxy = over(&backend, "").await;
    let mut wire = FrameWire::open(proxy.address).await;
    wire.send(&[Frame::head(1, &request("POST", "/"), 0)]).await;
    wire.send(&[Frame::new(0, 0, 1, *b"late"), Frame::new(0, END_STREAM, 1, [])]).await;
    assert!(wire.read_until(HEADERS).await.is_some());
    assert_eq!(wire.read_until(0).await.unwrap().payload, b"late");
}
