//! What a route does by itself: header edits, redirects and fixed answers.
//!
//! Start at [`edit_request`]. Names and values come checked from the plan; what comes from the
//! request (host, path, query) is made safe here before it becomes a header.

use ::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use bytes::Bytes;

use crate::plan::{HeaderEdits, TemplatePart};

/// Removes, then sets; a set replaces every line of that name. What the operator sets or removes is
/// also removed under its underscore spellings: CGI and WSGI backends read `x_tenant` and
/// `x-tenant` as one.
pub fn edit_request(edits: &HeaderEdits, headers: &mut HeaderMap) {
    if edits.set.is_empty() && edits.remove.is_empty() {
        return;
    }
    while let Some(twin) = headers.keys().find(|name| is_twin(edits, name)).cloned() {
        headers.remove(twin);
    }
    edit_response(edits, headers);
}

/// Removes, then sets; a set replaces every line of that name.
pub fn edit_response(edits: &HeaderEdits, headers: &mut HeaderMap) {
    for name in &edits.remove {
        headers.remove(name);
    }
    for (name, value) in &edits.set {
        headers.insert(name, value.clone());
    }
}

fn is_twin(edits: &HeaderEdits, name: &HeaderName) -> bool {
    let hyphened = |byte: u8| if byte == b'_' { b'-' } else { byte };
    let twin_of =
        |edited: &HeaderName| edited.as_str().bytes().map(hyphened).eq(name.as_str().bytes().map(hyphened));
    name.as_str().contains('_') && edits.set.iter().map(|(name, _)| name).chain(&edits.remove).any(twin_of)
}

/// The `Location` of a redirect. Always one valid line: whatever is not a visible ASCII character
/// is percent-encoded. A path never becomes a host: a leading `//`, which clients read as an
/// authority (RFC 3986 section 4.2), is made `/.//` unless the operator wrote it.
pub fn location(to: &[TemplatePart], host: &str, path: &str, query: Option<&str>) -> HeaderValue {
    let mut line = Vec::with_capacity(64 + path.len() + query.map_or(0, str::len));
    for part in to {
        match part {
            TemplatePart::Text(text) => push(&mut line, text),
            TemplatePart::Host => push(&mut line, host),
            TemplatePart::Path => push(&mut line, path),
            TemplatePart::Query => push(&mut line, query.unwrap_or_default()),
            TemplatePart::PathAndQuery => {
                push(&mut line, path);
                if let Some(query) = query {
                    line.push(b'?');
                    push(&mut line, query);
                }
            }
        }
    }
    let meant = matches!(to.first(), Some(TemplatePart::Text(text)) if text.starts_with("//"));
    if line.starts_with(b"//") && !meant {
        line.splice(..0, *b"/.");
    }
    HeaderValue::from_maybe_shared(Bytes::from(line)).expect("only visible ASCII is pushed")
}

fn push(line: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        match byte {
            b'"' | b'<' | b'>' | b'\\' | ..=b' ' | 0x7f.. => {
                line.extend([b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
            _ => line.push(byte),
        }
    }
}

/// A fixed answer; its body is plain text unless the route says otherwise.
pub fn respond(status: StatusCode, headers: &[(HeaderName, HeaderValue)], body: &Bytes) -> Response<Bytes> {
    let mut answer = Response::new(body.clone());
    *answer.status_mut() = status;
    if !body.is_empty() {
        let text = HeaderValue::from_static("text/plain; charset=utf-8");
        answer.headers_mut().insert(header::CONTENT_TYPE, text);
    }
    for (name, value) in headers {
        answer.headers_mut().insert(name, value.clone());
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn edits(set: &[(&'static str, &'static str)], remove: &[&'static str]) -> HeaderEdits {
        HeaderEdits {
            set: set
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
                .collect(),
            remove: remove.iter().map(|name| HeaderName::from_static(name)).collect(),
        }
    }

    #[test]
    fn a_set_replaces_every_line_and_a_removed_header_is_gone() {
        let mut map =
            headers(&[("x-tenant", "a"), ("x-tenant", "b"), ("x-internal", "1"), ("accept", "*/*")]);
        edit_request(&edits(&[("x-tenant", "shop")], &["x-internal"]), &mut map);
        assert_eq!(map, headers(&[("x-tenant", "shop"), ("accept", "*/*")]));
    }

    #[test]
    fn a_client_cannot_bring_back_an_edited_header_with_underscores() {
        let edits = edits(&[("x-tenant-id", "shop")], &["x-internal"]);
        let lines =
            &[("x_tenant_id", "evil"), ("x-tenant_id", "evil"), ("x_internal", "evil"), ("x_other", "1")];
        let mut map = headers(lines);
        edit_request(&edits, &mut map);
        assert_eq!(map, headers(&[("x-tenant-id", "shop"), ("x_other", "1")]));
    }

    #[test]
    fn a_header_that_the_operator_spells_with_underscores_is_kept() {
        let mut map = HeaderMap::new();
        edit_request(&edits(&[("x_tenant", "shop")], &[]), &mut map);
        assert_eq!(map, headers(&[("x_tenant", "shop")]));
    }

    #[test]
    fn a_response_is_edited_by_its_names_alone() {
        let mut map = headers(&[("server", "x"), ("x_tenant", "theirs")]);
        edit_response(&edits(&[("x-tenant", "ours")], &["server"]), &mut map);
        assert_eq!(map, headers(&[("x_tenant", "theirs"), ("x-tenant", "ours")]));
    }

    #[test]
    fn a_redirect_is_put_together_from_its_parts() {
        use TemplatePart::{Host, Path, PathAndQuery, Query, Text};
        let text = |text: &str| Text(text.to_owned());
        for (to, query, expected) in [
            (vec![text("https://"), Host, PathAndQuery], Some("a=1"), "https://h.example/p/q?a=1"),
            (vec![text("https://"), Host, PathAndQuery], None, "https://h.example/p/q"),
            (vec![text("https://"), Host, PathAndQuery], Some(""), "https://h.example/p/q?"),
            (vec![text("/new"), Path], Some("a=1"), "/new/p/q"),
            (vec![text("/search?"), Query], Some("a=1"), "/search?a=1"),
            (vec![text("/search?"), Query], None, "/search?"),
            (vec![text("/süß and new")], None, "/s%C3%BC%C3%9F%20and%20new"),
        ] {
            assert_eq!(location(&to, "h.example", "/p/q", query), expected);
        }
    }

    #[test]
    fn a_path_never_becomes_the_host_of_a_redirect() {
        use TemplatePart::{Path, PathAndQuery, Text};
        for (to, path, expected) in [
            (vec![Path], "//evil.example/x", "/.//evil.example/x"),
            (vec![PathAndQuery], "/\\evil.example", "/%5Cevil.example"),
            (vec![Text("/".to_owned()), Path], "/evil.example", "/.//evil.example"),
            (vec![Text("//cdn.example".to_owned()), Path], "//x", "//cdn.example//x"),
        ] {
            assert_eq!(location(&to, "h.example", path, None), expected);
        }
    }

    #[test]
    fn a_fixed_answer_is_plain_text_unless_it_says_otherwise() {
        let gone = respond(StatusCode::GONE, &[], &Bytes::from_static(b"gone"));
        assert_eq!(
            (gone.status(), &gone.headers()["content-type"]),
            (StatusCode::GONE, &HeaderValue::from_static("text/plain; charset=utf-8"))
        );
        let json = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        let answer = respond(StatusCode::OK, &json, &Bytes::from_static(b"{}"));
        assert_eq!(answer.headers(), &headers(&[("content-type", "application/json")]));
        assert!(respond(StatusCode::NO_CONTENT, &[], &Bytes::new()).headers().is_empty());
    }

    proptest! {
        #[test]
        fn a_redirect_is_always_one_valid_line(text in ".*", host in ".*", path in ".*", query in ".*") {
            let to = [TemplatePart::Text(text), TemplatePart::Host, TemplatePart::PathAndQuery, TemplatePart::Query];
            let line = location(&to, &host, &path, Some(&query));
            prop_assert!(line.as_bytes().iter().all(|byte| matches!(byte, 0x21..=0x7e)));
        }
    }
}
