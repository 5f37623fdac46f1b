//! The shop through real sockets.

use std::future::Future;
use std::rc::Rc;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, spawn_local};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::{MAX_CART, Shop, serve};

struct Stage {
    address: String,
    shop: Rc<Shop>,
    served: JoinHandle<()>,
}

/// A shop called b2, and a runtime as backends have it.
fn on_stage<F: Future<Output = ()>>(test: impl FnOnce(Stage) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
    runtime.unwrap().block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shop = Rc::new(Shop::new("b2"));
        let served = spawn_local(serve(listener, shop.clone()));
        test(Stage { address, shop, served }).await;
    });
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    /// The session cookie, as it is sent back.
    fn cookie(&self) -> String {
        let set = self.head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
        set.split(';').next().unwrap().to_owned()
    }
}

impl Stage {
    async fn send(&self, line: &str, headers: &[&str], body: &str) -> Answer {
        let mut io = TcpStream::connect(&self.address).await.unwrap();
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let head = format!("{line} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
        io.write_all(format!("{head}{headers}\r\n{body}").as_bytes()).await.unwrap();
        let mut text = String::new();
        io.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }

    async fn curl(&self, line: &str, cookie: &str, body: &str) -> Answer {
        self.send(line, &[&format!("cookie: {cookie}")], body).await
    }
}

#[test]
fn curl_logs_in_fills_a_cart_and_logs_out_in_single_lines() {
    on_stage(async |stage| {
        let nobody = stage.curl("GET /", "", "").await;
        assert_eq!(nobody.body, "b2 served you: hit 1 here, not logged in\n");

        let login = stage.curl("POST /login", "", "user=ann").await;
        assert_eq!(login.body, "b2 welcomes ann\n");
        assert!(login.head.contains("HttpOnly; SameSite=Lax; Path=/"), "{}", login.head);
        let ann = login.cookie();
        assert_eq!(
            stage.curl("GET /", &ann, "").await.body,
            "b2 served you: hit 2 here, ann's cart is empty\n"
        );

        stage.curl("POST /cart", &ann, "item=tea").await;
        let both = format!("theme=dark; {ann}");
        assert_eq!(stage.curl("POST /cart?item=a+cup", &both, "").await.body, "b2: ann's cart: tea, a cup\n");
        assert_eq!(stage.curl("GET /cart", &ann, "").await.body, "b2: ann's cart: tea, a cup\n");
        let home = stage.curl("GET /", &ann, "").await;
        assert_eq!(home.body, "b2 served you: hit 3 here, ann's cart: tea, a cup\n");

        let logout = stage.curl("POST /logout", &ann, "").await;
        assert_eq!(logout.body, "b2 says goodbye to ann\n");
        assert!(logout.head.contains("Max-Age=0"), "{}", logout.head);
        assert_eq!((stage.curl("GET /cart", &ann, "").await.status, stage.shop.sessions()), (401, 0));
    });
}

#[test]
fn a_session_of_another_backend_is_unknown_here() {
    on_stage(async |stage| {
        let cookie = "shop_session=0123456789abcdef0123456789abcdef";
        let home = stage.curl("GET /", cookie, "").await;
        assert_eq!(home.body, "b2 served you: hit 1 here, your session is unknown here\n");
        for line in ["GET /cart", "POST /cart?item=tea", "POST /logout"] {
            let answer = stage.curl(line, cookie, "").await;
            assert_eq!(answer.status, 401, "{line}");
            assert!(
                answer.body.starts_with("Not logged in at b2: your session is in another"),
                "{}",
                answer.body
            );
        }
        assert_eq!(stage.curl("GET /cart", "", "").await.body, "Not logged in at b2\n");
    });
}

#[test]
fn every_log_in_has_a_new_id_and_ends_the_old_one() {
    on_stage(async |stage| {
        let first = stage.curl("POST /login", "", "user=ann").await.cookie();
        let second = stage.curl("POST /login", &first, "user=bob").await.cookie();
        assert_ne!(first, second);
        assert_eq!(stage.curl("GET /cart", &first, "").await.status, 401);
        assert_eq!(stage.curl("GET /cart", &second, "").await.body, "b2: bob's cart is empty\n");
    });
}

#[test]
fn a_browser_gets_pages_and_comes_back_to_them_after_a_form() {
    on_stage(async |stage| {
        let html = "accept: text/html,*/*;q=0.8";
        let login = stage.send("POST /login", &[html], "user=%3Cb%3Eann").await;
        assert_eq!((login.status, login.head.contains("location: /\r\n")), (303, true));
        let cookie = format!("cookie: {}", login.cookie());
        assert_eq!(stage.send("POST /cart", &[html, &cookie], "item=tea").await.status, 303);
        let page = stage.send("GET /", &[html, &cookie], "").await;
        assert!(page.head.contains("content-type: text/html"), "{}", page.head);
        assert!(page.body.contains("&lt;b&gt;ann") && page.body.contains("<li>tea</li>"), "{}", page.body);

        let refused = stage.send("POST /cart", &[html], "item=tea").await;
        assert_eq!((refused.status, refused.body.contains("Not logged in at b2")), (401, true));
    });
}

#[test]
fn what_is_too_much_is_refused() {
    on_stage(async |stage| {
        let ann = stage.curl("POST /login", "", "user=ann").await.cookie();
        for _ in 0..MAX_CART {
            stage.curl("POST /cart", &ann, "item=tea").await;
        }
        assert_eq!(stage.curl("POST /cart", &ann, "item=tea").await.status, 409);
        let long = format!("user={}", "x".repeat(41));
        let huge = format!("user={}", "x".repeat(super::answer::MAX_BODY));
        for body in ["", "user=", "user=%0a", "user=a%0ab", "user=%zz", "name=ann", &long, &huge] {
            let answer = stage.curl("POST /login", "", body).await;
            assert_eq!((answer.status, answer.head.contains("set-cookie")), (400, false), "{body}");
        }
    });
}

#[test]
fn the_probe_fails_when_told_and_heals() {
    on_stage(async |stage| {
        assert_eq!(stage.curl("GET /healthz", "", "").await.body, "ok\n");
        stage.curl("POST /admin/fail", "", "").await;
        assert_eq!(stage.curl("GET /healthz", "", "").await.status, 503);
        assert_eq!(stage.curl("GET /", "", "").await.status, 200);
        stage.curl("POST /admin/heal", "", "").await;
        assert_eq!(stage.curl("GET /healthz", "", "").await.status, 200);
    });
}

#[test]
fn visitors_cannot_fail_a_backend_through_the_proxy_or_from_a_page() {
    on_stage(async |stage| {
        for header in ["x-forwarded-for: 127.0.0.1", "origin: http://127.0.0.1:8080"] {
            assert_eq!(stage.send("POST /admin/fail", &[header], "").await.status, 403);
        }
        assert!(stage.shop.is_well());
    });
}

#[test]
fn a_wrong_method_is_told_the_right_one() {
    on_stage(async |stage| {
        let answer = stage.curl("GET /login", "", "").await;
        assert_eq!((answer.status, answer.head.contains("allow: POST")), (405, true));
        assert_eq!(stage.curl("GET /nothing", "", "").await.status, 404);
        let head = stage.curl("HEAD /", "", "").await;
        assert_eq!((head.status, head.body.as_str()), (200, ""));
    });
}

#[test]
fn the_websocket_says_who_is_here_and_echoes() {
    on_stage(async |stage| {
        let url = format!("ws://{}/ws", stage.address);
        let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("b2 here"));
        for message in [Message::text("hello"), Message::binary(vec![0, 1, 2])] {
            socket.send(message.clone()).await.unwrap();
            assert_eq!(socket.next().await.unwrap().unwrap(), message);
        }
        socket.close(None).await.unwrap();
        assert!(matches!(socket.next().await, Some(Ok(Message::Close(None)))));
    });
}

#[test]
fn a_broken_handshake_is_refused() {
    on_stage(async |stage| {
        assert_eq!(stage.curl("GET /ws", "", "").await.status, 400);
        let old = ["upgrade: websocket", "sec-websocket-version: 8", "sec-websocket-key: x"];
        let answer = stage.send("GET /ws", &[&["connection: upgrade"], &old[..]].concat(), "").await;
        assert_eq!((answer.status, answer.body.contains("Version: 13")), (400, true));
    });
}

#[test]
fn a_crash_answers_then_resets_every_connection_and_closes_the_listener() {
    on_stage(async |stage| {
        let mut idle = TcpStream::connect(&stage.address).await.unwrap();
        idle.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").await.unwrap();
        assert_ne!(idle.read(&mut [0; 1024]).await.unwrap(), 0);
        let url = format!("ws://{}/ws", stage.address);
        let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        socket.next().await.unwrap().unwrap();

        // A client that would keep its connection is told that this answer is the last.
        let mut order = TcpStream::connect(&stage.address).await.unwrap();
        order.write_all(b"POST /admin/crash HTTP/1.1\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        order.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("connection: close\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\nb2 crashes: its sessions are gone\n"), "{answer}");
        stage.served.await.unwrap();

        let reset = idle.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(reset.kind(), std::io::ErrorKind::ConnectionReset);
        assert!(matches!(socket.next().await, Some(Err(Error::Io(_) | Error::Protocol(_)))));
        let refused = TcpStream::connect(&stage.address).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    });
}
