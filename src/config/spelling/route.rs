//! What routes match, where redirects lead, and what probes ask for.

use std::net::IpAddr;

use super::address::dns_name;
use super::{Fault, Spelling};
use crate::plan::{HostPattern, PathPattern, TemplatePart};

/// A redirect's `to`, in parts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Template(pub(crate) Vec<TemplatePart>);

/// What a probe asks for: a path, with a query where the backend wants one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ProbePath(pub(crate) String);

/// A service that a gRPC probe asks about; empty for all of the backend's.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ServiceName(pub(crate) String);

/// A probe's request stays one small frame.
const MAX_SERVICE_NAME: usize = 255;

impl Spelling for HostPattern {
    const FORMAT: &'static str = "host-pattern";
    const WHAT: &'static str = "a host";
    const EXAMPLE: &'static str = "shop.example.com";

    fn read(text: &str) -> Result<Self, Fault> {
        if text == "*" {
            return Err(Fault::new("a route without `hosts` matches every host"));
        }
        if let Some((_, rest)) = text.split_once("://") {
            let host = rest.split(['/', ':']).next().unwrap_or(rest);
            return Err(Fault::new("a host has no scheme and no path").write(host));
        }
        let v6 = text.strip_prefix('[').and_then(|inner| inner.strip_suffix(']'));
        if v6.is_some_and(|v6| v6.parse::<IpAddr>().is_ok()) {
            return Ok(Self::Exact(text.to_ascii_lowercase()));
        }
        if let Some((host, port)) = text.rsplit_once(':')
            && port.bytes().all(|b| b.is_ascii_digit())
        {
            return Err(Fault::new("hosts are matched without the port").write(host));
        }
        let (suffix, host) = match text.strip_prefix("*.") {
            Some(host) => (true, host),
            None => (false, text),
        };
        if host.contains('*') {
            return Err(Fault::new("`*` stands for whole labels at the beginning, as in `*.example.com`"));
        }
        dns_name(host)?;
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        Ok(if suffix { Self::Suffix(host) } else { Self::Exact(host) })
    }
}

impl Spelling for PathPattern {
    const FORMAT: &'static str = "path-pattern";
    const WHAT: &'static str = "a path";
    const EXAMPLE: &'static str = "/cart";

    /// A prefix matches on segment borders, so `/a/` is kept as `/a`.
    fn read(text: &str) -> Result<Self, Fault> {
        let (exact, path) = match text.strip_prefix('=') {
            Some(path) => (true, path),
            None => (false, text),
        };
        if let Some(prefix) = path.strip_suffix('*') {
            let fault = Fault::new("a path is a prefix already, on segment borders");
            let meant = prefix.trim_end_matches('/');
            return Err(if prefix.ends_with('/') && !meant.contains('*') {
                fault.write(if meant.is_empty() { "/" } else { meant })
            } else {
                fault
            });
        }
        if !path.starts_with('/') {
            let sign = if exact { "=" } else { "" };
            return Err(Fault::new("a path begins with `/`, an exact one with `=/`")
                .write(format!("{sign}/{}", path.trim())));
        }
        if let Some(odd) = path.chars().find(|c| !c.is_ascii_graphic() || "?#".contains(*c)) {
            return Err(Fault::new(match odd {
                '?' | '#' => "a path ends before `?` and `#`",
                _ => "a path is printable ASCII; the rest is written as `%20`",
            }));
        }
        Ok(match path.trim_end_matches('/') {
            _ if exact => Self::Exact(path.to_owned()),
            "" => Self::Prefix("/".to_owned()),
            prefix => Self::Prefix(prefix.to_owned()),
        })
    }
}

impl Spelling for ProbePath {
    const FORMAT: &'static str = "probe-path";
    const WHAT: &'static str = "a path to ask for";
    const EXAMPLE: &'static str = "/healthz";

    fn read(text: &str) -> Result<Self, Fault> {
        if !text.starts_with('/') {
            return Err(Fault::new("a path begins with `/`").write(format!("/{}", text.trim())));
        }
        if text.chars().any(|c| !c.is_ascii_graphic() || c == '#') {
            return Err(Fault::new("a path is printable ASCII without spaces and `#`"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl Spelling for ServiceName {
    const FORMAT: &'static str = "grpc-service";
    const WHAT: &'static str = "a gRPC service";
    const EXAMPLE: &'static str = "shop.v1.Cart";

    fn read(text: &str) -> Result<Self, Fault> {
        if let Some(service) = text.trim_start_matches('/').split('/').next().filter(|name| *name != text) {
            return Err(Fault::new("a service's full name, without its methods").write(service));
        }
        if text.len() > MAX_SERVICE_NAME {
            return Err(Fault::new(format!("a service's name has at most {MAX_SERVICE_NAME} bytes")));
        }
        if text.chars().any(|c| !c.is_ascii_graphic()) {
            return Err(Fault::new("a service's name is printable ASCII without spaces"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl Spelling for Template {
    const FORMAT: &'static str = "template";
    const WHAT: &'static str = "a place to redirect to";
    const EXAMPLE: &'static str = "https://{host}{path_and_query}";

    fn read(text: &str) -> Result<Self, Fault> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            let close = rest[open..].find('}').map(|at| open + at);
            let close = close.ok_or_else(|| Fault::new("`{` has no `}`"))?;
            if open > 0 {
                parts.push(TemplatePart::Text(rest[..open].to_owned()));
            }
            parts.push(placeholder(&rest[open + 1..close], text)?);
            rest = &rest[close + 1..];
        }
        if !rest.is_empty() {
            parts.push(TemplatePart::Text(rest.to_owned()));
        }
        let fixed = parts.iter().filter_map(|part| match part {
            TemplatePart::Text(text) => Some(text.as_str()),
            _ => None,
        });
        if fixed.flat_map(str::chars).any(|c| !c.is_ascii_graphic() || c == '}') {
            return Err(Fault::new("printable ASCII without spaces, and `{` before each `}`"));
        }
        let led = text.starts_with('/') || text.starts_with("{path") || text.contains("://");
        match led {
            true => Ok(Self(parts)),
            false => Err(Fault::new("begins with a scheme or with `/`").write(format!("https://{text}"))),
        }
    }
}

fn placeholder(name: &str, template: &str) -> Result<TemplatePart, Fault> {
    Ok(match name {
        "host" => TemplatePart::Host,
        "path" => TemplatePart::Path,
        "query" => TemplatePart::Query,
        "path_and_query" => TemplatePart::PathAndQuery,
        _ => {
            let fault = Fault::new(format!(
                "`{{{name}}}` is none of {{host}}, {{path}}, {{query}}, {{path_and_query}}"
            ));
            let meant = match name {
                "uri" | "request_uri" | "http.request.uri" => Some("path_and_query"),
                "hostname" | "http.request.host" => Some("host"),
                _ => ["host", "path", "query", "path_and_query"]
                    .into_iter()
                    .find(|known| strsim::damerau_levenshtein(known, name) <= 1 + known.len() / 6),
            };
            return Err(match meant {
                Some(meant) => fault.write(template.replace(&format!("{{{name}}}"), &format!("{{{meant}}}"))),
                None => fault,
            });
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_lower_cased_and_have_no_port() {
        assert_eq!(HostPattern::read("Shop.Example.com"), Ok(HostPattern::Exact("shop.example.com".into())));
        assert_eq!(HostPattern::read("*.example.com"), Ok(HostPattern::Suffix("example.com".into())));
        assert_eq!(HostPattern::read("[::1]"), Ok(HostPattern::Exact("[::1]".into())));
        assert_eq!(
            HostPattern::read("a.example.com:443").unwrap_err().write.as_deref(),
            Some("a.example.com")
        );
        assert_eq!(HostPattern::read("https://a.b/c").unwrap_err().write.as_deref(), Some("a.b"));
        for text in ["", "*", "a.*.b", "*a.b", "a b", "*."] {
            assert!(HostPattern::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn paths_are_prefixes_on_segment_borders_or_exact() {
        assert_eq!(PathPattern::read("/a/"), Ok(PathPattern::Prefix("/a".into())));
        assert_eq!(PathPattern::read("/"), Ok(PathPattern::Prefix("/".into())));
        assert_eq!(PathPattern::read("=/a/"), Ok(PathPattern::Exact("/a/".into())));
        assert_eq!(PathPattern::read("/api/*").unwrap_err().write.as_deref(), Some("/api"));
        assert_eq!(PathPattern::read("login").unwrap_err().write.as_deref(), Some("/login"));
        assert_eq!(PathPattern::read("=login").unwrap_err().write.as_deref(), Some("=/login"));
        for text in ["", "=", "/a?b", "/a b", "/é"] {
            assert!(PathPattern::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_service_has_a_name_or_none_and_no_methods() {
        for name in ["", "shop.v1.Cart", "cart"] {
            assert_eq!(ServiceName::read(name), Ok(ServiceName(name.into())));
        }
        for path in ["/shop.v1.Cart/Add", "shop.v1.Cart/Add", "/shop.v1.Cart"] {
            assert_eq!(ServiceName::read(path).unwrap_err().write.as_deref(), Some("shop.v1.Cart"));
        }
        for text in ["a b", "é", &"a".repeat(MAX_SERVICE_NAME + 1)] {
            assert!(ServiceName::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_template_knows_four_placeholders() {
        let to = Template::read("https://{host}{path_and_query}").unwrap();
        assert_eq!(
            to.0,
            [TemplatePart::Text("https://".into()), TemplatePart::Host, TemplatePart::PathAndQuery]
        );
        assert_eq!(
            Template::read("https://{host}{uri}").unwrap_err().write.as_deref(),
            Some("https://{host}{path_and_query}")
        );
        for text in ["", "https://{nothing}", "https://{host", "https://a}b", "https://a b", "{host}"] {
            assert!(Template::read(text).is_err(), "{text}");
        }
    }
}
