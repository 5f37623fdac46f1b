use super::*;
use std::time::UNIX_EPOCH;

fn cart() -> Record<'static> {
    Record {
        at: UNIX_EPOCH + Duration::from_millis(1_795_435_471_207),
        id: "01JD8Z6Q4T9W",
        trace: Some("4bf92f3577b34da6a3ce929d0e0e4736"),
        client: IpAddr::from([203, 0, 113, 9]),
        listener: "web",
        proto: "h2",
        tls: Some("1.3"),
        method: "GET",
        host: "shop.example.com",
        path: "/cart",
        query: None,
        status: 200,
        route: "shop",
        pool: "app",
        backend: "a2",
        stick: Some(Stick::Valid),
        attempts: 1,
        reused: true,
        duration: Duration::from_micros(3120),
        ttfb: Some(Duration::from_micros(2810)),
        proxy: Some(Duration::from_nanos(140_900)),
        req_bytes: 412,
        resp_bytes: 1204,
        end: End::Ok,
        user_agent: Some(b"curl/8.9"),
        referer: None,
    }
}

/// Refused before a route was found, with everything that a client can spoil spoilt.
fn hostile() -> Record<'static> {
    Record {
        trace: None,
        client: "2001:db8::1".parse().expect("an address"),
        proto: "http/1.1",
        tls: None,
        method: "G\"ET",
        host: "a b=\u{9b}",
        path: "/x\n\"\\\u{1b}[2Jé",
        query: Some("q=\r\n1"),
        status: 400,
        route: "",
        pool: "",
        backend: "",
        stick: None,
        attempts: 0,
        reused: false,
        duration: Duration::from_millis(61_250),
        ttfb: None,
        proxy: None,
        resp_bytes: 0,
        end: End::BadRequest,
        user_agent: Some(b"\xff\xfe\" \x1b[31m\n"),
        referer: Some(b"http://x/\"\\"),
        ..cart()
    }
}

fn line(format: Format, record: &Record<'_>) -> String {
    let mut out = Vec::new();
    write(format, record, &mut StampCache::default(), &mut out);
    String::from_utf8(out).expect("lines are UTF-8")
}

#[test]
fn json_has_the_names_and_the_order_that_are_promised() {
    assert_eq!(
        line(Format::Json, &cart()),
        concat!(
            r#"{"ts":"2026-11-23T12:04:31.207Z","id":"01JD8Z6Q4T9W","trace":"4bf92f3577b34da6a3ce929d0e0e4736","#,
            r#""client":"203.0.113.9","listener":"web","proto":"h2","tls":"1.3","method":"GET","#,
            r#""host":"shop.example.com","path":"/cart","status":200,"route":"shop","pool":"app","backend":"a2","#,
            r#""stick":"valid","attempts":1,"reused":true,"dur_ms":3.12,"ttfb_ms":2.81,"proxy_ms":0.14,"#,
            r#""req_bytes":412,"resp_bytes":1204,"end":"ok"}"#,
            "\n"
        )
    );
}

#[test]
fn hostile_json_is_one_line_that_a_reader_takes_back() {
    let line = line(Format::Json, &hostile());
    assert_eq!(
        line,
        concat!(
            r#"{"ts":"2026-11-23T12:04:31.207Z","id":"01JD8Z6Q4T9W","client":"2001:db8::1","listener":"web","#,
            r#""proto":"http/1.1","method":"G\"ET","host":"a b=\u009b","path":"/x\n\"\\\u001b[2Jé","#,
            r#""query":"q=\r\n1","status":400,"attempts":0,"reused":false,"dur_ms":61250,"#,
            r#""req_bytes":412,"resp_bytes":0,"end":"bad_request"}"#,
            "\n"
        )
    );
    let read: serde_json::Value = serde_json::from_str(&line).expect("valid JSON");
    assert_eq!(read["path"], hostile().path);
}

#[test]
fn logfmt_has_the_same_keys_and_quotes_what_needs_it() {
    assert_eq!(
        line(Format::Logfmt, &hostile()),
        concat!(
            r#"ts=2026-11-23T12:04:31.207Z id=01JD8Z6Q4T9W client=2001:db8::1 listener=web "#,
            r#"proto=http/1.1 method="G\"ET" host="a b=\u009b" path="/x\n\"\\\u001b[2Jé" "#,
            r#"query="q=\r\n1" status=400 attempts=0 reused=false dur_ms=61250 "#,
            r#"req_bytes=412 resp_bytes=0 end=bad_request"#,
            "\n"
        )
    );
}

#[test]
fn combined_is_what_apache_writes() {
    assert_eq!(
        line(Format::Combined, &Record { query: Some("id=7"), ..cart() }),
        "203.0.113.9 - - [23/Nov/2026:12:04:31 +0000] \"GET /cart?id=7 HTTP/2.0\" 200 1204 \"-\" \"curl/8.9\"\n"
    );
    assert_eq!(
        line(Format::Combined, &hostile()),
        concat!(
            r#"2001:db8::1 - - [23/Nov/2026:12:04:31 +0000] "G\x22ET /x\x0a\x22\x5c\x1b[2J\xc3\xa9?q=\x0d\x0a1 HTTP/1.1" "#,
            r#"400 0 "http://x/\x22\x5c" "\xff\xfe\x22 \x1b[31m\x0a""#,
            "\n"
        )
    );
}

#[test]
fn text_is_for_people() {
    assert_eq!(
        line(Format::Text, &cart()),
        "12:04:31.207 GET 200 shop → app/a2  3.1ms (2.8) 1.2kB 203.0.113.9 /cart\n"
    );
    assert_eq!(
        line(Format::Text, &hostile()),
        concat!(
            r"12:04:31.207 G\x22ET 400 - bad_request  61.2s 0B 2001:db8::1 ",
            r"/x\x0a\x22\x5c\x1b[2J\xc3\xa9?q=\x0d\x0a1",
            "\n"
        )
    );
}

#[test]
fn milliseconds_lose_their_trailing_zeros_only() {
    let written = |number| {
        let mut out = Vec::new();
        thousandths(&mut out, number);
        String::from_utf8(out).expect("ASCII")
    };
    assert_eq!(
        [0, 7, 100, 1000, 10_050, 123_456].map(written),
        ["0", "0.007", "0.1", "1", "10.05", "123.456"]
    );
}
