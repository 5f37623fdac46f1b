//! Header lines: what is no line, and what hides in one.

use super::{are_passed, are_refused};

fn with(line: &[u8]) -> Vec<u8> {
    [b"GET / HTTP/1.1\r\nHost: h\r\n", line, b"\r\nX-After: 1\r\n\r\n"].concat()
}

#[tokio::test]
async fn every_control_character_in_a_value_is_refused() {
    let bytes = (0..0x20).chain([0x7f]).filter(|byte| !b"\t\n".contains(byte));
    let table: Vec<_> = bytes.map(|byte| (400, with(&[b"X: a", &[byte][..], b"b"].concat()))).collect();
    assert_eq!(table.len(), 31);
    are_refused(&table).await;
}

#[tokio::test]
async fn every_byte_that_makes_no_name_is_refused() {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let bytes = (0..=255).filter(|byte| !token(*byte) && !b":\n".contains(byte));
    let table: Vec<_> = bytes.map(|byte| (400, with(&[b"X", &[byte][..], b"y: a"].concat()))).collect();
    assert_eq!(table.len(), 177);
    are_refused(&table).await;
}

#[tokio::test]
async fn a_line_that_is_no_field_is_refused() {
    let lines: &[&[u8]] = &[
        b": a",
        b":",
        b" : a",
        b"X",
        b"X y",
        b"X : a",
        b"X\t: a",
        b" X: a",
        b"\tX: a",
        b"X: a\r\n b",
        b"X: a\r\n\tb",
        b"X: a\r\n ",
        b"X:\r\n a",
        b"X: a\n b",
        b"X: a\r\r\nY: b",
        b"\rX: a",
        b"X: a\r",
        b"\0",
    ];
    are_refused(&lines.iter().map(|line| (400, with(line))).collect::<Vec<_>>()).await;
}

/// Also where the first line after the request line is folded, which once hid a `Host`.
#[tokio::test]
async fn a_head_that_begins_with_a_blank_is_refused() {
    are_refused(&[
        (400, b"GET / HTTP/1.1\r\n Host: h\r\n\r\n".to_vec()),
        (400, b"GET / HTTP/1.1\r\n\tHost: h\r\nHost: h\r\n\r\n".to_vec()),
        (400, b"GET / HTTP/1.1\r\n \r\nHost: h\r\n\r\n".to_vec()),
        (400, b"GET / HTTP/1.1\r\n: h\r\nHost: h\r\n\r\n".to_vec()),
    ])
    .await;
}

#[tokio::test]
async fn what_is_clear_goes_out_in_one_form() {
    are_passed(&[
        (b"GET / HTTP/1.1\r\nhOST:h\r\nX:a\r\n\r\n", "GET / HTTP/1.1|host: h|x: a", ""),
        (b"GET / HTTP/1.1\r\nHost: \t h \t \r\nX: \ta b\t\r\n\r\n", "GET / HTTP/1.1|host: h|x: a b", ""),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX:\r\nY: \r\n\r\n", "GET / HTTP/1.1|host: h|x: |y: ", ""),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: a:b: c\r\n\r\n", "GET / HTTP/1.1|host: h|x: a:b: c", ""),
        ("GET / HTTP/1.1\r\nHost: h\r\nX: \u{e9}\r\n\r\n".as_bytes(), "GET / HTTP/1.1|host: h|x: \u{e9}", ""),
        (b"\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", "GET / HTTP/1.1|host: h", ""),
        // A lone line feed ends a line (RFC 9112 section 2.2); it goes out as CRLF.
        (b"GET / HTTP/1.1\nHost: h\nX: a\n\n", "GET / HTTP/1.1|host: h|x: a", ""),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: a\nY: b\r\n\r\n", "GET / HTTP/1.1|host: h|x: a|y: b", ""),
    ])
    .await;
}

#[tokio::test]
async fn a_name_without_end_is_refused() {
    let long = [&vec![b'x'; 40_000][..], b": a"].concat();
    are_refused(&[(431, with(&long)), (431, with(&[b"X: ", &vec![b'x'; 40_000][..]].concat()))]).await;
}
