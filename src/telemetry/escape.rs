//! Bytes from strangers made safe to print: no line of a log can be forged, no terminal steered.
//!
//! Each function appends to a buffer and allocates nothing beyond it.

/// `text` as a JSON string, quotes included (RFC 8259). DEL and the C1 controls are escaped too,
/// since terminals obey them.
pub(crate) fn json(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut plain_from = 0;
    let mut at = 0;
    while at < bytes.len() {
        let (control, width) = match bytes[at] {
            b'"' | b'\\' | 0..0x20 | 0x7f => (bytes[at], 1),
            // The two-byte form of U+0080 to U+009F.
            0xc2 if bytes[at + 1] < 0xa0 => (bytes[at + 1], 2),
            _ => {
                at += 1;
                continue;
            }
        };
        out.extend_from_slice(&bytes[plain_from..at]);
        match control {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', control]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            other => out.extend_from_slice(&[b'\\', b'u', b'0', b'0', hex(other >> 4), hex(other & 15)]),
        }
        at += width;
        plain_from = at;
    }
    out.extend_from_slice(&bytes[plain_from..]);
    out.push(b'"');
}

/// `bytes` with everything but visible ASCII and spaces as `\xHH`, as nginx does it. Quotes and
/// backslashes too, so the result may stand between quotes.
pub(crate) fn plain(out: &mut Vec<u8>, bytes: &[u8]) {
    for &byte in bytes {
        match byte {
            b'"' | b'\\' | 0..0x20 | 0x7f.. => {
                out.extend_from_slice(&[b'\\', b'x', hex(byte >> 4), hex(byte & 15)])
            }
            visible => out.push(visible),
        }
    }
}

/// `text` for a person's terminal: letters of every script stay, controls and the invisible marks
/// that reorder text become `\u{…}`.
pub(crate) fn sentence(out: &mut Vec<u8>, text: &str) {
    for letter in text.chars() {
        let reorders =
            matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if letter.is_control() || reorders {
            out.extend(letter.escape_default().map(|ascii| ascii as u8));
        } else {
            out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
}

pub(crate) fn decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[first..]);
}

fn hex(digit: u8) -> u8 {
    b"0123456789abcdef"[usize::from(digit)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn done(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("escaped text is UTF-8")
    }

    #[test]
    fn hostile_text_is_escaped_each_way() {
        let text = "a\"\\\n\u{1b}[31m\u{7f}\u{9b}é\u{202e}";
        assert_eq!(
            done(|out| json(out, text)),
            r#""a\"\\\n\u001b[31m\u007f\u009bé"#.to_owned() + "\u{202e}\""
        );
        assert_eq!(
            done(|out| plain(out, text.as_bytes())),
            r"a\x22\x5c\x0a\x1b[31m\x7f\xc2\x9b\xc3\xa9\xe2\x80\xae"
        );
        assert_eq!(done(|out| sentence(out, text)), r#"a"\\n\u{1b}[31m\u{7f}\u{9b}é\u{202e}"#);
        assert_eq!(done(|out| plain(out, b"\xff\xfe ok")), r"\xff\xfe ok");
    }

    proptest! {
        #[test]
        fn a_json_reader_gets_back_what_went_in(text in any::<String>()) {
            let written = done(|out| json(out, &text));
            prop_assert_eq!(serde_json::from_str::<String>(&written).expect("valid JSON"), text);
            prop_assert!(!written.contains(char::is_control));
        }

        #[test]
        fn decimals_are_as_the_standard_library_writes_them(number in any::<u64>()) {
            prop_assert_eq!(done(|out| decimal(out, number)), number.to_string());
        }
    }
}
