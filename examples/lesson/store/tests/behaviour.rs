//! Time, other clients, outages.

use std::time::{Duration, Instant};

use redis::pipe;

use super::{Place, command, run, until};
use crate::harness::Outcome;
use crate::store::client::subscription::Message;
use crate::store::client::{Client, Link};
use crate::store::hub::QUEUE_MAX;
use crate::store::{Relay, Source, Store};

const LINKS: [Link; 3] = [Link::PerRequest, Link::POOL, Link::Multiplexed];
const LONG: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_key_expires_and_is_removed_though_nobody_asks() {
    for place in Place::all() {
        let client = place.client(Link::Multiplexed).await;
        let () = run(&client, "SET asked 1 PX 30").await.unwrap();
        let () = run(&client, "SET unasked 1").await.unwrap();
        let () = run(&client, "PEXPIRE unasked 30").await.unwrap();
        until("the key to expire", async || !run::<bool>(&client, "EXISTS asked").await.unwrap()).await;
        until("the sweep", async || run::<u64>(&client, "DBSIZE").await.unwrap() == 0).await;
    }
}

#[tokio::test]
async fn a_push_wakes_who_waited_first() {
    for place in Place::all() {
        let client = place.client(Link::Multiplexed).await;
        let mut waiting = Vec::new();
        for number in 1..=3 {
            let own = client.clone();
            waiting.push(tokio::spawn(async move {
                let line = "BLMOVE queue busy RIGHT LEFT 10";
                (own.wait::<String>(&command(line), LONG).await.unwrap(), own)
            }));
            blocked(&client, number).await;
        }
        for (number, waiter) in waiting.into_iter().enumerate() {
            let () = run(&client, &format!("LPUSH queue job{number}")).await.unwrap();
            assert_eq!(waiter.await.unwrap().0, format!("job{number}"), "{}", place.name);
        }
        let busy: Vec<String> = run(&client, "LRANGE busy 0 -1").await.unwrap();
        assert_eq!(busy, ["job2", "job1", "job0"]);
    }
}

/// Until this many clients wait.
async fn blocked(client: &Client, number: usize) {
    let enough = format!("blocked_clients:{number}\r");
    let ask = async || run::<String>(client, "INFO clients").await.unwrap().contains(&enough);
    until("clients to wait", ask).await;
}

#[tokio::test]
async fn what_is_moved_for_one_wakes_the_next_and_a_transaction_wakes_too() {
    for place in Place::all() {
        let client = place.client(Link::Multiplexed).await;
        let second = tokio::spawn({
            let client = client.clone();
            async move { client.wait::<(String, String)>(&command("BRPOP later middle 10"), LONG).await.unwrap() }
        });
        let first = tokio::spawn({
            let client = client.clone();
            async move { client.wait::<String>(&command("BLMOVE begin middle LEFT LEFT 10"), LONG).await.unwrap() }
        });
        blocked(&client, 2).await;
        let mut both = pipe();
        both.atomic().lpush("begin", "job").ignore().set("done", 1).ignore();
        let () = client.pipeline(&both).await.unwrap();
        assert_eq!(first.await.unwrap(), "job");
        assert_eq!(second.await.unwrap(), ("middle".into(), "job".into()));
    }
}

#[tokio::test]
async fn a_client_that_is_gone_gets_no_job() {
    for place in Place::all() {
        let client = place.client(Link::Multiplexed).await;
        let gone = tokio::spawn({
            let client = client.clone();
            async move { client.wait::<Vec<String>>(&command("BRPOP queue 10"), LONG).await }
        });
        blocked(&client, 1).await;
        gone.abort();
        let _ = gone.await;
        blocked(&client, 0).await;
        let () = run(&client, "LPUSH queue job").await.unwrap();
        assert_eq!(run::<String>(&client, "LPOP queue").await.unwrap(), "job", "{}", place.name);
    }
}

#[tokio::test]
async fn subscribers_hear_channels_and_patterns() {
    for place in Place::all() {
        let client = place.client(Link::Multiplexed).await;
        let mut rooms = client.subscribe(["room:*", "news"]).await.unwrap();
        let told: u64 = run(&client, "PUBLISH room:1 hi").await.unwrap();
        let unheard: u64 = run(&client, "PUBLISH lobby hi").await.unwrap();
        let () = run(&client, "PUBLISH news today").await.unwrap();
        assert_eq!((told, unheard), (1, 0), "{}", place.name);
        let message =
            |channel: &str, payload: &str| Message { channel: channel.into(), payload: payload.into() };
        assert_eq!(rooms.next().await, Some(message("room:1", "hi")));
        assert_eq!(rooms.next().await, Some(message("news", "today")));
        drop(rooms);
        until("the subscriber to be gone", async || {
            run::<u64>(&client, "PUBLISH news late").await.unwrap() == 0
        })
        .await;
    }
}

#[tokio::test]
async fn a_subscriber_that_does_not_read_is_cut_off() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let place = Place::embedded();
    let client = place.client(Link::Multiplexed).await;
    let mut slow = tokio::net::TcpStream::connect(place.address).await.unwrap();
    slow.write_all(b"*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\nc\r\n").await.unwrap();
    let _ = slow.read(&mut [0; 64]).await.unwrap();
    let message = "x".repeat(64 << 10);
    let (mut sent, began) = (0, Instant::now());
    while run::<u64>(&client, &format!("PUBLISH c {message}")).await.unwrap() > 0 {
        sent += 1;
        assert!(sent < 4 * QUEUE_MAX, "it was never cut off");
    }
    assert!(sent >= QUEUE_MAX && began.elapsed() < LONG, "{sent}");
    let mut left = Vec::new();
    let _ = slow.read_to_end(&mut left).await;
}

#[tokio::test]
async fn the_three_ways_to_connect_open_as_many_connections_as_they_say() {
    for place in Place::all() {
        for (link, expected) in LINKS.into_iter().zip([100..=100, 5..=20, 1..=1]) {
            let client = place.client(link).await;
            let calls: Vec<_> = (0..100)
                .map(|_| {
                    let client = client.clone();
                    tokio::spawn(async move { run::<u64>(&client, "INCR calls").await.unwrap() })
                })
                .collect();
            for call in calls {
                call.await.unwrap();
            }
            let opened = client.connections_opened();
            assert!(expected.contains(&opened), "{} {link:?}: {opened}", place.name);
        }
    }
}

#[tokio::test]
async fn an_outage_ends_in_errors_in_time_and_the_first_call_after_it_works() {
    for place in Place::all() {
        let mut store = Store::open_stoppable(&Source::redis(&place.url).await.unwrap()).await.unwrap();
        for link in LINKS {
            let client = Client::connect(store.url(), link).await.unwrap();
            let mut news = client.subscribe(["news"]).await.unwrap();
            let () = run(&client, "SET cat black").await.unwrap();
            store.stop().unwrap();
            let began = Instant::now();
            for _ in 0..3 {
                assert!(run::<String>(&client, "GET cat").await.is_err());
            }
            assert!(began.elapsed() < Duration::from_secs(4), "{link:?}");
            store.start_empty().await.unwrap();
            let cat: Option<String> = run(&client, "GET cat").await.unwrap();
            assert_eq!(cat, None, "it came back empty");
            until("the subscription", async || run::<u64>(&client, "PUBLISH news back").await.unwrap() == 1)
                .await;
            assert_eq!(news.next().await.map(|message| message.payload), Some(b"back".to_vec()));
        }
        let client = Client::connect(store.url(), Link::PerRequest).await.unwrap();
        let before = store.memory().await.unwrap();
        let () = run(&client, &format!("SET large {}", "x".repeat(1 << 20))).await.unwrap();
        assert!(store.memory().await.unwrap() >= before + (1 << 20), "{}", place.name);
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn an_outage_that_nobody_was_there_for_costs_no_call() {
    for place in Place::all() {
        let mut relay = Relay::to(&place.url, Duration::ZERO).await.unwrap();
        for link in LINKS {
            let client = Client::connect(&relay.url_for(&place.url).unwrap(), link).await.unwrap();
            let () = run(&client, "SET cat black").await.unwrap();
            relay.stop();
            // Nobody calls, so nobody tells when the reading tasks have seen the end.
            tokio::time::sleep(Duration::from_millis(50)).await;
            relay.start().await.unwrap();
            assert_eq!(run::<String>(&client, "GET cat").await.unwrap(), "black", "{link:?}");
        }
    }
}

#[tokio::test]
async fn a_relay_makes_each_answer_later_and_not_each_byte() {
    const DELAY: Duration = Duration::from_millis(20);
    let place = Place::embedded();
    let relay = Relay::to(&place.url, DELAY).await.unwrap();
    let client = Client::connect(&relay.url_for(&place.url).unwrap(), Link::Multiplexed).await.unwrap();
    let began = Instant::now();
    let () = run(&client, "SET cat black").await.unwrap();
    assert!(began.elapsed() >= DELAY);
    let value = vec![7u8; 4 << 20];
    let () = client.run(&redis::Cmd::set("large", &value)).await.unwrap();
    let began = Instant::now();
    let back: Vec<u8> = client.run(&redis::Cmd::get("large")).await.unwrap();
    let chunks = (back.len() / (64 << 10)) as u32;
    assert!(back == value && began.elapsed() < DELAY * chunks);
}

#[tokio::test]
async fn a_redis_that_holds_something_is_not_taken() {
    for place in Place::all() {
        let source = Source::redis(&place.url).await.unwrap();
        assert!(source.describe().contains(&place.address.to_string()));
        let client = place.client(Link::PerRequest).await;
        let () = run(&client, "SET mine 1").await.unwrap();
        let refused: Outcome<Source> = Source::redis(&place.url).await;
        let why = refused.err().unwrap().to_string();
        assert!(why.contains("keys in it: 1") && why.contains("/9"), "{why}");
        assert_eq!(run::<u64>(&client, "GET mine").await.unwrap(), 1);
        assert!(Source::redis("http://127.0.0.1").await.is_err());
    }
}
