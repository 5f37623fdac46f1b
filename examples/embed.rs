//! Pintle inside a program: a text in, a running balancer out, and what an operator does, as calls.
//!
//! `cargo run --example embed`. Two small backends live in the same process.

use std::time::Duration;

use pintle::app::{Options, Pintle, Source};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (one, two) = (backend("one").await?, backend("two").await?);
    let text = format!(
        "[log.access]\nenabled = false\n\
         [listener.web]\nbind = '127.0.0.1:0'\n\
         [pool.app]\npolicy = 'round_robin'\n\
         backends = [{{ name = 'one', address = '{one}' }}, {{ name = 'two', address = '{two}' }}]\n"
    );
    let pintle = Pintle::start(Source::text(text.as_str()), Options::default()).await?;
    let address = pintle.address().ok_or("no listener")?.to_string();
    println!("round_robin: {} {}", get(&address).await?, get(&address).await?);

    let report = pintle.reload(text.replace("round_robin", "ip_hash")).await.map_err(|fault| fault.detail)?;
    println!("reload: {}", report.changed.join(", "));
    println!("ip_hash: {} {}", get(&address).await?, get(&address).await?);

    let drain = pintle.drain("app/one", Some(Duration::from_secs(5))).await.map_err(|fault| fault.detail)?;
    println!("drain: {}/{} {}, {} requests cut", drain.pool, drain.backend, drain.state, drain.requests_cut);
    println!("while one is drained: {} {}", get(&address).await?, get(&address).await?);

    let back = pintle.ready("app/one").await.map_err(|fault| fault.detail)?;
    println!("ready: {} {}", back.backend.name, back.backend.state);
    println!("status: {} requests", pintle.status().await?.totals.requests);
    println!("shutdown: {} requests cut", pintle.shutdown().await.requests_cut);
    Ok(())
}

/// A backend that says its name and closes.
async fn backend(name: &'static str) -> std::io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let length = name.len();
            let answer =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{name}");
            // Whoever only looks whether somebody listens sends nothing.
            if client.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {
                let _ = client.write_all(answer.as_bytes()).await;
            }
        }
    });
    Ok(address)
}

/// The body of `GET /`.
async fn get(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: example\r\nconnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.split_once("\r\n\r\n").map_or(answer.clone(), |(_, body)| body.to_owned()))
}
