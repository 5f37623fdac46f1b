//! The four kinds of calls: what goes in comes out, message by message.

use std::collections::BTreeMap;

use tokio::sync::mpsc;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request};

use super::backend::{GrpcBackend, failure};
use super::client::GrpcClient;
use super::{LARGE, Note, config, over};
use crate::support::{Config, Keys, Proxy, TlsClient, TlsFront, eventually};

#[tokio::test]
async fn a_call_passes_with_its_metadata_and_so_do_answer_and_trailers() {
    let a = GrpcBackend::start("a").await;
    let (proxy, client) = over(&[&a], "").await;
    let mut request = Request::new(Note::text("hello"));
    request.metadata_mut().insert("x-tenant", "shop".parse().unwrap());
    request.metadata_mut().insert_bin("x-trace-bin", MetadataValue::from_bytes(&[0, 128, 255]));
    let answer = client.unary("Echo", request).await.unwrap();
    let fields = answer.metadata();
    assert_eq!(fields.get("x-served-by").unwrap(), "a");
    assert_eq!(fields.get_bin("x-raw-bin").unwrap().to_bytes().unwrap(), &[0, 255, b'\n'][..]);
    assert_eq!((answer.get_ref().text.as_str(), answer.get_ref().from.as_str()), ("hello", "a"));
    let seen = a.seen().calls.remove(0);
    assert_eq!(seen.get("x-tenant").unwrap(), "shop");
    assert_eq!(seen.get_bin("x-trace-bin").unwrap().to_bytes().unwrap(), &[0, 128, 255][..]);
    assert_eq!(seen.get("te").unwrap(), "trailers");
    assert_eq!(seen.get("x-forwarded-for").unwrap(), "127.0.0.1");
    let line = &proxy.logged(1).await[0];
    assert_eq!((line["proto"].as_str(), line["end"].as_str()), (Some("h2"), Some("ok")));
    assert_eq!((line["method"].as_str(), line["path"].as_str()), (Some("POST"), Some("/test.Notes/Echo")));
}

#[tokio::test]
async fn a_stream_of_answers_comes_whole_and_in_order() {
    let a = GrpcBackend::start("a").await;
    let (_proxy, client) = over(&[&a], "").await;
    let mut answers = client.server_streaming("Count", &"x".repeat(500)).await.unwrap();
    let mut heard = Vec::new();
    while let Some(note) = answers.message().await.unwrap() {
        heard.push(note.text);
    }
    assert_eq!(heard, (0..500).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn each_message_of_an_upload_arrives_before_the_next_is_sent() {
    let a = GrpcBackend::start("a").await;
    let (_proxy, client) = over(&[&a], "").await;
    let (say, notes) = mpsc::channel(1);
    let talk = async {
        for number in 1..=20 {
            say.send(Note::text("x")).await.unwrap();
            a.until("a message", |seen| seen.heard.len() == number).await;
        }
        drop(say);
    };
    let (answer, ()) = tokio::join!(client.client_streaming("Sum", notes), talk);
    assert_eq!(answer.unwrap().text, "x".repeat(20));
}

#[tokio::test]
async fn messages_of_both_directions_take_turns() {
    let a = GrpcBackend::start("a").await;
    let (_proxy, client) = over(&[&a], "").await;
    // Opened before a word is said: the answer's head waits for no message.
    let mut talk = client.talk("Echo").await.unwrap();
    for number in 0..50 {
        assert_eq!(talk.exchange(&number.to_string()).await.from, "a");
    }
    talk.say = None;
    assert_eq!(talk.hear().await.unwrap(), None);
    let trailers = talk.hear.trailers().await.unwrap().expect("trailers");
    assert_eq!(trailers.get("x-served-by").unwrap(), "a");
    assert_eq!(trailers.get_bin("x-raw-bin").unwrap().to_bytes().unwrap(), &[0, 255, b'\n'][..]);
}

#[tokio::test]
async fn a_backends_own_status_passes_with_all_that_it_has() {
    let a = GrpcBackend::start("a").await;
    let (proxy, client) = over(&[&a], "").await;
    let early = client.say("Fail", "x").await.unwrap_err();
    let mut answers = client.server_streaming("FailLate", "x").await.unwrap();
    assert_eq!(answers.message().await.unwrap().unwrap().from, "a");
    let late = answers.message().await.unwrap_err();
    for status in [early, late] {
        let wanted = failure();
        assert_eq!((status.code(), status.message()), (Code::FailedPrecondition, wanted.message()));
        assert_eq!(status.details(), wanted.details());
        assert_eq!(status.metadata().get("x-why"), wanted.metadata().get("x-why"));
        assert_eq!(status.metadata().get_bin("x-why-bin"), wanted.metadata().get_bin("x-why-bin"));
    }
    for line in proxy.logged(2).await {
        assert_eq!((line["status"].as_u64(), line["end"].as_str()), (Some(200), Some("ok")));
    }
}

#[tokio::test]
async fn calls_and_probes_pass_over_tls_on_both_sides() {
    let (a, keys) = (GrpcBackend::start("a").await, Keys::for_names(&["a.example"]));
    let front = TlsFront::start(&keys, "site", &[("h2", a.address)]).await;
    let pool = "protocol = \"h2\"\ntls.verify = false\n[pool.app.health]\ngrpc = \"\"\ninterval = \"100ms\"";
    let pool = Config::default().pool_of("app", &[front.toml("a")], pool);
    let proxy = Proxy::start(pool.listener(&keys.tls(&["site"]))).await;
    eventually("a pass", async || proxy.backend("app/a").await.health.detail == "SERVING").await;
    let tls = TlsClient::new(proxy.address).offering(&["h2"]);
    let client = GrpcClient::by_tls(tls, "a.example").await;
    let mut talk = client.talk("Echo").await.unwrap();
    for number in 0..10 {
        talk.exchange(&number.to_string()).await;
    }
    assert_eq!(client.say("Fail", "x").await.unwrap_err().code(), Code::FailedPrecondition);
    talk.say = None;
    assert_eq!(talk.hear().await.unwrap(), None);
    assert_eq!(talk.hear.trailers().await.unwrap().unwrap().get("x-served-by").unwrap(), "a");
    assert_eq!(a.seen().calls[0].get("x-forwarded-proto").unwrap(), "https");
    let line = &proxy.logged(2).await[1];
    assert_eq!((line["proto"].as_str(), line["tls"].as_str()), (Some("h2"), Some("1.3")));
}

#[tokio::test]
async fn a_large_message_passes_both_ways() {
    let a = GrpcBackend::start("a").await;
    let (_proxy, client) = over(&[&a], "").await;
    let data: Vec<u8> = (0..LARGE - 64).map(|number| (number % 251) as u8).collect();
    let note = Note { data: data.clone(), ..Note::default() };
    let answer = client.unary("Echo", Request::new(note)).await.unwrap();
    assert!(answer.get_ref().data == data);
}

#[tokio::test]
async fn calls_of_one_connection_are_spread_over_all_backends() {
    let (a, b) = (GrpcBackend::start("a").await, GrpcBackend::start("b").await);
    let (_proxy, client) = over(&[&a, &b], "").await;
    let mut served = BTreeMap::new();
    for _ in 0..20 {
        *served.entry(client.say("Echo", "x").await.unwrap().into_inner().from).or_insert(0) += 1;
    }
    assert_eq!(served, BTreeMap::from([("a".to_owned(), 10), ("b".to_owned(), 10)]));
}

#[tokio::test]
async fn least_conn_counts_streams_and_not_connections() {
    let (a, b) = (GrpcBackend::start("a").await, GrpcBackend::start("b").await);
    let config = config(&[&a, &b], "policy = \"least_conn\"").server("workers = 1");
    let proxy = Proxy::start(config).await;
    let client = GrpcClient::new(proxy.address).await;
    let mut talks = Vec::new();
    for number in 1..=10 {
        talks.push(client.talk("Echo").await.unwrap());
        assert_eq!(a.seen().open + b.seen().open, number);
        assert!(a.seen().open.abs_diff(b.seen().open) <= 1);
    }
    // Those at one backend end: the next ones go there until both have as many again.
    let mut kept = Vec::new();
    for mut talk in talks {
        match talk.exchange("who").await.from.as_str() {
            "a" => drop(talk),
            _ => kept.push(talk),
        }
    }
    a.until("no stream", |seen| seen.open == 0).await;
    eventually("none is counted", async || proxy.backend("app/a").await.in_flight == 0).await;
    for _ in 0..5 {
        let mut talk = client.talk("Echo").await.unwrap();
        assert_eq!(talk.exchange("who").await.from, "a");
        kept.push(talk);
    }
    assert_eq!((a.seen().open, b.seen().open), (5, 5));
}
