//! HTTP's own words: methods, headers, sets of status codes, and what is read from a request.

use http::{HeaderName, HeaderValue, Method};

use super::{CookieName, Fault, HostName, Spelling};
use crate::plan::{HashOn, HostHeader, StatusSet};

/// A header value longer than this would not fit into the head of a message.
const MAX_HEADER_VALUE: usize = 8 * 1024;

impl Spelling for Method {
    const FORMAT: &'static str = "method";
    const WHAT: &'static str = "a method";
    const EXAMPLE: &'static str = "GET";

    fn read(text: &str) -> Result<Self, Fault> {
        if text == "CONNECT" {
            return Err(Fault::new(
                "CONNECT asks a forward proxy for a tunnel; a reverse proxy answers it with 501",
            ));
        }
        if text.bytes().any(|b| b.is_ascii_lowercase()) {
            return Err(Fault::new("methods are upper-case").write(text.to_ascii_uppercase()));
        }
        Self::from_bytes(text.as_bytes()).map_err(|_| Fault::new("one word of letters, as in `GET`"))
    }
}

impl Spelling for HeaderName {
    const FORMAT: &'static str = "header-name";
    const WHAT: &'static str = "a header's name";
    const EXAMPLE: &'static str = "x-tenant";

    fn read(text: &str) -> Result<Self, Fault> {
        Self::from_bytes(text.as_bytes()).map_err(|_| {
            let fault = Fault::new("letters, digits and `-`, without `:` and spaces");
            let bare = text.trim_end_matches(':').trim();
            if bare != text && Self::from_bytes(bare.as_bytes()).is_ok() { fault.write(bare) } else { fault }
        })
    }
}

impl Spelling for HeaderValue {
    const FORMAT: &'static str = "header-value";
    const WHAT: &'static str = "a header's value";
    const EXAMPLE: &'static str = "shop";

    fn read(text: &str) -> Result<Self, Fault> {
        if text.len() > MAX_HEADER_VALUE {
            return Err(Fault::new(format!("a header's value has at most {MAX_HEADER_VALUE} bytes")));
        }
        if text.trim() != text {
            return Err(Fault::new("no space at either end").write(text.trim()));
        }
        Self::from_str(text).map_err(|_| Fault::new("printable ASCII on one line"))
    }
}

impl Spelling for StatusSet {
    const FORMAT: &'static str = "status-set";
    const WHAT: &'static str = "a set of status codes";
    const EXAMPLE: &'static str = "200-399";

    fn read(text: &str) -> Result<Self, Fault> {
        let shape =
            || Fault::new("codes, classes and ranges joined by commas: `200`, `2xx`, `200-399`, `200,204`");
        let mut ranges = Vec::new();
        for part in text.split(',').map(str::trim) {
            let (low, high) = match (part.strip_suffix("xx"), part.split_once('-')) {
                (Some(class), _) => {
                    let class: u16 = class.parse().map_err(|_| shape())?;
                    (class.saturating_mul(100), class.saturating_mul(100).saturating_add(99))
                }
                (None, Some((low, high))) => {
                    (low.trim().parse().map_err(|_| shape())?, high.trim().parse().map_err(|_| shape())?)
                }
                (None, None) => part.parse().map(|code| (code, code)).map_err(|_| shape())?,
            };
            if low < 100 || high > 599 {
                return Err(Fault::new("status codes are 100 to 599"));
            }
            if low > high {
                return Err(Fault::new("the smaller code comes first")
                    .write(text.replace(part, &format!("{high}-{low}"))));
            }
            ranges.push((low, high));
        }
        Ok(Self(ranges))
    }
}

impl Spelling for HashOn {
    const FORMAT: &'static str = "hash-on";
    const WHAT: &'static str = "a part of a request";
    const EXAMPLE: &'static str = "client_ip";

    fn read(text: &str) -> Result<Self, Fault> {
        let shape = "one of client_ip, path, cookie:NAME, header:NAME, query:NAME";
        match text.split_once(':') {
            None => match text {
                "client_ip" => Ok(Self::ClientIp),
                "path" => Ok(Self::Path),
                "ip" | "source" | "remote_addr" => Err(Fault::new(shape).write("client_ip")),
                "uri" | "url" => Err(Fault::new(shape).write("path")),
                _ => Err(Fault::new(shape)),
            },
            Some(("cookie", name)) => CookieName::read(name).map(|name| Self::Cookie(name.0)),
            Some(("header", name)) => HeaderName::read(name).map(Self::Header),
            Some(("query", "")) => Err(Fault::new("`query:` is followed by the parameter's name")),
            Some(("query", name)) => Ok(Self::Query(name.to_owned())),
            Some(_) => Err(Fault::new(shape)),
        }
    }
}

impl Spelling for HostHeader {
    const FORMAT: &'static str = "host-header";
    const WHAT: &'static str = "a Host header";
    const EXAMPLE: &'static str = "preserve";

    fn read(text: &str) -> Result<Self, Fault> {
        match text {
            "preserve" => Ok(Self::Preserve),
            "backend" => Ok(Self::Backend),
            "" => Err(Fault::new("`preserve`, `backend` or a host name")),
            _ => {
                HostName::read(text)?;
                HeaderValue::read(text).map(Self::Literal)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_set_is_codes_classes_and_ranges() {
        assert_eq!(StatusSet::read("2xx"), Ok(StatusSet(vec![(200, 299)])));
        assert_eq!(StatusSet::read("200-399"), Ok(StatusSet(vec![(200, 399)])));
        assert_eq!(StatusSet::read("200, 204"), Ok(StatusSet(vec![(200, 200), (204, 204)])));
        assert_eq!(StatusSet::read("399-200").unwrap_err().write.as_deref(), Some("200-399"));
        for text in ["", "2x", "xx", "9xx", "20", "600", "-", "200-", "70000", "200,,204", "999xx"] {
            assert!(StatusSet::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_hash_may_be_on_five_parts_of_a_request() {
        assert_eq!(HashOn::read("cookie:sid"), Ok(HashOn::Cookie("sid".into())));
        assert_eq!(HashOn::read("header:X-User"), Ok(HashOn::Header(HeaderName::from_static("x-user"))));
        assert_eq!(HashOn::read("query:u"), Ok(HashOn::Query("u".into())));
        for text in ["", "cookie:", "header:a b", "query:", "client-ip", "jwt:sub"] {
            assert!(HashOn::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn header_values_stay_on_one_line() {
        assert!(HeaderValue::read("a\r\nb").is_err());
        assert!(HeaderValue::read("max-age=31536000; includeSubDomains").is_ok());
        assert_eq!(HeaderName::read("X-Tenant:").unwrap_err().write.as_deref(), Some("X-Tenant"));
    }
}
