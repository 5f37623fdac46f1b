//! Bytes that mean harm, or one thing to us and another to whoever reads them next.
//!
//! A file per theme, tables of bytes in each: what the client gets, and exactly what reached the
//! backend. Start at [`are_refused`] and [`are_passed`]. The plain rules are in `hygiene`; which
//! of these hyper alone upholds is not told apart, since an upgrade of it must not lose them.

mod chunks;
mod expectations;
mod headers;
mod hop_by_hop;
mod hosts;
mod http2;
mod lengths;
mod request_line;
mod responses;
mod trailers;
mod upgrades;

use tokio::net::TcpListener;

use crate::support::{Backend, Config, Proxy, Request, Response, Wire, within};

/// Follows what must end its connection: it must reach nobody.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";

/// As many bytes of a case as a message shows.
fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned()
}

/// Sends `bytes`, then what would be smuggled; what the client is answered first.
async fn first_answer(proxy: &Proxy, bytes: &[u8]) -> (Wire, Option<Response>) {
    let mut wire = proxy.wire().await;
    wire.send([bytes, SMUGGLED.as_bytes()].concat()).await;
    let answer = wire.response("GET").await;
    (wire, answer)
}

/// Each gets its status, the connection ends with it, and no backend hears of it.
async fn are_refused(rows: &[(u16, Vec<u8>)]) {
    let backend = Backend::start("a").await;
    let proxy = Proxy::over(&[&backend]).await;
    for (status, bytes) in rows {
        let (mut wire, answer) = first_answer(&proxy, bytes).await;
        assert_eq!(answer.map(|answer| answer.status), Some(*status), "{:?}", shown(bytes));
        assert!(wire.rest().await.is_empty(), "a second answer after {:?}", shown(bytes));
        // Whoever got through would be seen before a later request.
        assert_eq!(backend.count(), 0, "{:?} reached the backend", shown(bytes));
    }
}

fn rows(status: u16, table: &[&str]) -> Vec<(u16, Vec<u8>)> {
    table.iter().map(|text| (status, text.as_bytes().to_vec())).collect()
}

/// What is sent, and the head and body that reach the backend, the head as [`head`] writes it.
type Passed<'a> = (&'a [u8], &'a str, &'a str);

/// Each is answered, reaches the backend in exactly this form, and leaves the connection, if it
/// stays open, at the start of the next request.
async fn are_passed(table: &[Passed<'_>]) {
    let backend = Backend::start("a").await;
    let proxy = Proxy::over(&[&backend]).await;
    for (bytes, expected, body) in table {
        let before = backend.count();
        let mut wire = proxy.wire().await;
        wire.send(bytes).await;
        let method = if bytes.starts_with(b"HEAD") { "HEAD" } else { "GET" };
        let answer = wire.response(method).await.unwrap_or_else(|| panic!("no answer to {:?}", shown(bytes)));
        assert_eq!(answer.status, 200, "{:?}", shown(bytes));
        let seen = backend.received(before + 1).await;
        assert_eq!((head(&seen).as_str(), seen.text().as_str()), (*expected, *body), "{:?}", shown(bytes));
        wire.send("GET /next HTTP/1.1\r\nHost: h\r\n\r\n").await;
        if wire.response("GET").await.is_some() {
            assert_eq!(backend.received(before + 2).await.target, "/next", "after {:?}", shown(bytes));
        }
    }
}

/// The request line and the fields in order of their names, without those that every request gets.
fn head(request: &Request) -> String {
    let text = String::from_utf8_lossy(&request.head).into_owned();
    assert_eq!(text.matches(['\r', '\n']).count(), 2 * text.matches("\r\n").count(), "{text:?}");
    let mut lines = text.trim_end().split("\r\n").map(str::to_owned);
    let line = lines.next().unwrap_or_default();
    let ours =
        ["x-forwarded-for: 127.0.0.1", "x-forwarded-proto: http", "x-forwarded-host: ", "x-request-id: "];
    let mut fields: Vec<_> = lines.filter(|line| !ours.iter().any(|our| line.starts_with(our))).collect();
    fields.sort();
    fields.insert(0, line);
    fields.join("|")
}

/// A proxy before a backend that is a bare socket.
async fn over_a_socket(pool: &str) -> (TcpListener, Proxy) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let proxy = Proxy::start(Config::from(&*format!("[pool.app]\nbackends = [\"{address}\"]\n{pool}"))).await;
    (listener, proxy)
}

/// The next connection of the proxy, and the head that came by it.
async fn next_request(listener: &TcpListener) -> (Wire, String) {
    let (stream, _) = within("a connection", listener.accept()).await.unwrap();
    let mut wire = Wire::new(stream);
    let head = within("a head", wire.head()).await.expect("a head");
    (wire, String::from_utf8(head).unwrap())
}
