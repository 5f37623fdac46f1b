//! More requests than backends can answer: some are answered in good time, and the rest at once.

use std::time::{Duration, Instant};

use crate::support::{Ask, Backend, Config, Proxy, Reply, Response, eventually, within};

/// What backends and line can have at a time.
const IN_FLIGHT: usize = 4;
const IN_LINE: usize = 8;

fn pool(timeout: &str) -> String {
    format!("max_in_flight = {IN_FLIGHT}\nhold = {{ max = {IN_LINE}, timeout = \"{timeout}\" }}")
}

/// What a request was answered with, and after how long.
async fn ask(proxy: &Proxy, target: &str) -> tokio::task::JoinHandle<(Response, Duration)> {
    let mut client = proxy.client();
    let begun = Instant::now();
    client.send(&Ask::get(target)).await;
    tokio::spawn(async move {
        let answer = client.read("GET").await.expect("a response");
        (answer, begun.elapsed())
    })
}

#[tokio::test]
async fn who_finds_backends_and_line_full_is_answered_while_the_others_still_wait() {
    const REST: usize = 2 * (IN_FLIGHT + IN_LINE);
    let a = Backend::start("a").await;
    a.hold();
    let proxy = Proxy::start(Config::app(&[&a], &pool("9s"))).await;
    let mut accepted = Vec::new();
    for place in 1..=IN_FLIGHT + IN_LINE {
        accepted.push(ask(&proxy, "/").await);
        if place <= IN_FLIGHT {
            a.parked(place).await;
        }
    }
    let full = async || proxy.status().await.pools[0].held == IN_LINE as u64;
    eventually("the line is full", full).await;
    // Nobody is let go of meanwhile: these answers wait for nothing.
    for _ in 0..REST {
        let (answer, _) = within("a refusal", ask(&proxy, "/").await).await.unwrap();
        assert_eq!(answer.status, 503);
        assert!(answer.text().starts_with("503 no_backend"), "{}", answer.text());
    }
    assert_eq!(a.count(), IN_FLIGHT);
    a.release();
    for accepted in accepted {
        assert_eq!(within("an answer", accepted).await.unwrap().0.status, 200);
    }
    assert_eq!(a.count(), IN_FLIGHT + IN_LINE);
}

#[tokio::test]
async fn at_three_times_the_capacity_those_who_are_accepted_are_answered_in_time() {
    /// One request is done in each of these: with four in flight, each takes four.
    const STEP: Duration = Duration::from_millis(12);
    const HOLD: Duration = Duration::from_millis(300);
    const STEPS: usize = 100;
    /// For a machine that does other things, too. Without a limit the last would wait for seconds more.
    const SLACK: Duration = Duration::from_millis(1200);
    let a = Backend::start("a").await;
    a.hold();
    let proxy = Proxy::start(Config::app(&[&a], &pool("300ms"))).await;
    let mut asked = Vec::new();
    let mut clock = tokio::time::interval(STEP);
    for _ in 0..STEPS {
        clock.tick().await;
        a.release_one();
        for _ in 0..3 {
            asked.push(ask(&proxy, "/").await);
        }
    }
    let (mut served, mut refused) = (Vec::new(), Vec::new());
    let finish = async {
        for asked in asked {
            while !asked.is_finished() {
                clock.tick().await;
                a.release_one();
            }
            let (answer, took) = asked.await.unwrap();
            match answer.status {
                200 => served.push(took),
                503 => refused.push(took),
                status => panic!("{status}: {}", answer.text()),
            }
        }
    };
    within("all answers", finish).await;
    let p99 = |took: &mut Vec<Duration>| {
        took.sort();
        took[(took.len() * 99 / 100).min(took.len() - 1)]
    };
    assert!(served.len() >= IN_FLIGHT + IN_LINE, "{} served", served.len());
    assert!(refused.len() >= STEPS, "{} refused of {}", refused.len(), 3 * STEPS);
    assert_eq!(served.len() + refused.len(), 3 * STEPS);
    let service = STEP * IN_FLIGHT as u32;
    let (slow, late) = (p99(&mut served), p99(&mut refused));
    assert!(slow <= HOLD + service + SLACK, "served after {slow:?}");
    assert!(late <= HOLD + SLACK, "refused after {late:?}");
    assert_eq!(proxy.status().await.pools[0].held, 0);
}

#[tokio::test]
async fn who_leaves_the_line_with_a_body_that_nobody_has_read_frees_its_place() {
    let a = Backend::start("a").await;
    a.hold();
    let pool = "max_in_flight = 1\nhold = { max = 1, timeout = \"60s\" }";
    let proxy = Proxy::start(Config::app(&[&a], pool)).await;
    let mut first = proxy.client();
    first.send(&Ask::get("/1")).await;
    a.parked(1).await;
    let waits = async |count| proxy.status().await.pools[0].held == count;
    let bodies = [
        "Content-Length: 4\r\n\r\nbody",
        "Content-Length: 9000\r\n\r\nhalf of it",
        "Content-Length: 9000\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
    ];
    for body in bodies {
        let mut wire = proxy.wire().await;
        wire.send(format!("POST /2 HTTP/1.1\r\nHost: h\r\n{body}")).await;
        eventually(&format!("it waits, {body:?}"), async || waits(1).await).await;
        drop(wire);
        eventually(&format!("its place is free, {body:?}"), async || waits(0).await).await;
    }
    a.release();
    assert_eq!(first.read("GET").await.unwrap().status, 200);
    assert_eq!(a.count(), 1);
}

#[tokio::test]
async fn a_body_of_which_a_piece_was_read_in_line_arrives_whole() {
    let a = Backend::start("a").await;
    a.answer(|request| Reply::text(request.body.clone()));
    let pool = "max_in_flight = 1\nhold = { max = 9, timeout = \"9s\" }";
    let proxy = Proxy::start(Config::app(&[&a], pool)).await;
    let large = "large ".repeat(50_000);
    let bodies = [
        "Content-Length: 4\r\n\r\nbody".to_owned(),
        format!("Content-Length: {}\r\n\r\n{large}", large.len()),
        "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n2\r\ny!\r\n0\r\n\r\n".to_owned(),
        "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
    ];
    for (body, expected) in bodies.iter().zip(["body", &large, "bodyy!", ""]) {
        a.hold();
        let mut first = proxy.client();
        first.send(&Ask::get("/1")).await;
        a.parked(1).await;
        let mut wire = proxy.wire().await;
        let request = format!("POST /2 HTTP/1.1\r\nHost: h\r\n{body}");
        let (read, write) = tokio::join!(
            async {
                eventually("it waits", async || proxy.status().await.pools[0].held == 1).await;
                a.release();
            },
            wire.try_send(request),
        );
        let ((), ()) = (read, write.unwrap());
        let answer = wire.response("POST").await.unwrap();
        assert_eq!((answer.status, answer.text().len()), (200, expected.len()));
        assert!(answer.text() == expected);
        assert_eq!(first.read("GET").await.unwrap().status, 200);
    }
    let lengths: Vec<_> = a
        .requests()
        .iter()
        .filter(|request| request.method == "POST")
        .map(|request| request.header("content-length").map(str::to_owned))
        .collect();
    assert_eq!(lengths, [Some("4".to_owned()), Some(large.len().to_string()), None, None]);
}
