//! What is a PROXY header and what is none, byte by byte.

use proptest::prelude::*;
use proptest::sample::select;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

const EVERY: [ProxyProtocol; 3] = [ProxyProtocol::V1, ProxyProtocol::V2, ProxyProtocol::Any];

/// A version 2 header from its parts.
fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [PREFIX_V2, &[command, family], &length, rest].concat()
}

/// 192.0.2.1:5000 to 192.0.2.2:443.
const V4: [u8; 12] = [192, 0, 2, 1, 192, 0, 2, 2, 0x13, 0x88, 1, 0xbb];

fn v6() -> Vec<u8> {
    let source = "2001:db8::1".parse::<std::net::Ipv6Addr>().unwrap().octets();
    [&source[..], &source, &V4[8..]].concat()
}

fn done(header: &[u8], source: Option<&str>) -> Parsed {
    Parsed::Done { consumed: header.len(), source: source.map(|source| source.parse().unwrap()) }
}

/// Every header that is accepted, and whom it tells of.
fn valid() -> Vec<(Vec<u8>, Option<&'static str>)> {
    let longest = format!(
        "PROXY UNKNOWN {} {} 65535 65535\r\n",
        "ffff:".repeat(7) + "ffff",
        "ffff:".repeat(7) + "ffff"
    );
    assert_eq!(longest.len(), MAX_V1);
    let tlvs = [&V4[..], &[0x03, 0, 4, 1, 2, 3, 4], &[0xe0, 0, 2, 0xff, 0xfe]].concat();
    vec![
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 443\r\n".to_vec(), Some("192.0.2.1:5000")),
        (b"PROXY TCP6 2001:db8::1 ::1 5000 443\r\n".to_vec(), Some("[2001:db8::1]:5000")),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (b"PROXY UNKNOWN whatever 1 2\r\n".to_vec(), None),
        (longest.into_bytes(), None),
        (v2(0x21, 0x11, &V4), Some("192.0.2.1:5000")),
        (v2(0x21, 0x21, &v6()), Some("[2001:db8::1]:5000")),
        (v2(0x21, 0x11, &tlvs), Some("192.0.2.1:5000")),
        // A TLV that runs past the end is skipped like any other.
        (v2(0x21, 0x11, &[&V4[..], &[1, 0xff, 0xff]].concat()), Some("192.0.2.1:5000")),
        // Datagrams and unix sockets: an address of no connection, or none.
        (v2(0x21, 0x12, &V4), None),
        (v2(0x21, 0x31, &[b'/'; 216]), None),
        // Unspecified, with and without something to skip.
        (v2(0x21, 0x00, &[]), None),
        (v2(0x21, 0x00, &[7; 20]), None),
        // The proxy's own connection, whatever it says of a family.
        (v2(0x20, 0x00, &[]), None),
        (v2(0x20, 0x11, &[]), None),
        (v2(0x20, 0x11, &V4), None),
        (v2(0x20, 0xff, &[1, 2, 3]), None),
        (v2(0x21, 0x00, &[0; MAX_REST_V2]), None),
    ]
}

#[test]
fn every_kind_of_header_is_read_to_its_end_and_no_further() {
    for (header, source) in valid() {
        for after in [&b""[..], b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b"\r\n\r\n", &header] {
            let bytes = [&header, after].concat();
            assert_eq!(parse(&bytes, ProxyProtocol::Any), done(&header, source), "{header:?}");
        }
    }
}

#[test]
fn every_beginning_of_a_header_waits_for_the_rest() {
    for (header, _) in valid() {
        for end in 0..header.len() {
            assert_eq!(parse(&header[..end], ProxyProtocol::Any), Parsed::NeedMore, "{end} of {header:?}");
        }
    }
}

#[test]
fn a_version_that_is_not_accepted_is_refused_at_its_first_byte() {
    for (accepted, other) in [(ProxyProtocol::V1, &b"\r"[..]), (ProxyProtocol::V2, b"P")] {
        assert_eq!(parse(other, accepted), Parsed::Refused);
        assert_eq!(parse(b"", accepted), Parsed::NeedMore);
    }
    let (text, binary) = (&valid()[0].0, &valid()[5].0);
    assert!(matches!(parse(text, ProxyProtocol::V1), Parsed::Done { .. }));
    assert!(matches!(parse(binary, ProxyProtocol::V2), Parsed::Done { .. }));
    for header in [text, binary] {
        assert_eq!(parse(header, ProxyProtocol::Off), Parsed::Refused);
    }
}

#[test]
fn what_is_no_header_is_refused() {
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_V1));
    let table: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\n".to_vec(),
        b"\x16\x03\x01".to_vec(),
        b"PROXYTCP4 ".to_vec(),
        b"PROXYxTCP4 192.0.2.1 192.0.2.2 5000 443\r\n".to_vec(),
        b"proxy TCP4 192.0.2.1 192.0.2.2 5000 443\r\n".to_vec(),
        b"PROXY \r\n".to_vec(),
        b"PROXY TCP4\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.1\r\nGET / HTTP/1.1\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 65536\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 443 1\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.1 192.0.2.2  5000 443\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.256 192.0.2.2 5000 443\r\n".to_vec(),
        b"PROXY TCP4 2001:db8::1 ::1 5000 443\r\n".to_vec(),
        b"PROXY TCP6 192.0.2.1 192.0.2.2 5000 443\r\n".to_vec(),
        b"PROXY UDP4 192.0.2.1 192.0.2.2 5000 443\r\n".to_vec(),
        b"PROXY UNKNOWN a\rb\r\n".to_vec(),
        long.as_bytes()[..MAX_V1].to_vec(),
        long.into_bytes(),
        // Another version, another command, a family or a transport that there is none of.
        v2(0x11, 0x11, &V4),
        v2(0x31, 0x11, &V4),
        v2(0x22, 0x11, &V4),
        v2(0x21, 0x13, &V4),
        v2(0x21, 0x41, &V4),
        v2(0x21, 0x01, &V4),
        // Too short for its addresses.
        v2(0x21, 0x11, &V4[..11]),
        v2(0x21, 0x11, &[]),
        v2(0x21, 0x21, &V4),
        v2(0x21, 0x31, &[0; 215]),
        // Longer than anybody may make us wait for.
        [PREFIX_V2, &[0x21, 0x11, 0x10, 0x01]].concat(),
        [PREFIX_V2, &[0x20, 0x00, 0xff, 0xff]].concat(),
    ];
    for bytes in table {
        assert_eq!(parse(&bytes, ProxyProtocol::Any), Parsed::Refused, "{}", bytes.escape_ascii());
    }
}

/// Bytes that begin as headers do, and go on as they like.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let begin = select(vec![
        Vec::new(),
        PREFIX_V1.to_vec(),
        PREFIX_V2.to_vec(),
        b"PROXY TCP4 ".to_vec(),
        b"PROXY UNKNOWN".to_vec(),
        v2(0x21, 0x11, &V4),
        v2(0x21, 0x21, &v6()),
    ]);
    let byte = prop_oneof![any::<u8>(), select(b" .:19af\r\n\x20\x21\x11\x00".to_vec())];
    (begin, prop::collection::vec(byte, 0..140), 0usize..24).prop_map(|(mut begin, rest, cut)| {
        begin.truncate(begin.len().saturating_sub(cut));
        [begin, rest].concat()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_bytes_panic_and_no_more_is_consumed_than_was_given(bytes in bytes()) {
        for accepted in EVERY {
            match parse(&bytes, accepted) {
                Parsed::Done { consumed, .. } => prop_assert!((15..=bytes.len()).contains(&consumed)),
                Parsed::NeedMore => prop_assert!(bytes.first() != Some(&b'P') || bytes.len() < MAX_V1),
                Parsed::Refused => {}
            }
        }
    }

    /// What was decided of a beginning stands, whatever comes after it.
    #[test]
    fn more_bytes_never_change_a_verdict(bytes in bytes(), cut in any::<prop::sample::Index>()) {
        let cut = cut.index(bytes.len() + 1);
        let before = parse(&bytes[..cut], ProxyProtocol::Any);
        if before != Parsed::NeedMore {
            prop_assert_eq!(parse(&bytes, ProxyProtocol::Any), before);
        }
    }
}

#[tokio::test]
async fn however_a_header_is_split_what_follows_it_stays_on_the_socket() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (header, after) = (v2(0x21, 0x11, &V4), b"\x16GET");
    let bytes = [&header[..], after].concat();
    for cut in 0..=bytes.len() {
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        client.write_all(&bytes[..cut]).await.unwrap();
        let receiving = tokio::spawn(async move {
            let received = receive(&server, ProxyProtocol::Any).await;
            let mut rest = [0; 4];
            server.read_exact(&mut rest).await.unwrap();
            (received, rest)
        });
        // Lets the first part be taken before the second is there.
        tokio::task::yield_now().await;
        client.write_all(&bytes[cut..]).await.unwrap();
        let (received, rest) = receiving.await.unwrap();
        assert_eq!((received, &rest), (Ok(Some("192.0.2.1:5000".parse().unwrap())), after), "{cut}");
    }
}
