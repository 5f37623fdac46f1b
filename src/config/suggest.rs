//! Did you mean: near misses, other proxies' words, keys that stand in another table, and keys
//! that a later version will have.

use serde_json::Value;

use super::place::Place;

/// Keys that other proxies, and other people, use for ours.
const KEYS: &[(&str, &str)] = &[
    ("server", "backends"),
    ("servers", "backends"),
    ("upstream", "backends"),
    ("upstreams", "backends"),
    ("members", "backends"),
    ("targets", "backends"),
    ("endpoints", "backends"),
    ("upstream", "pool"),
    ("backend", "backends"),
    ("backend", "pool"),
    ("cluster", "pool"),
    ("proxy_pass", "pool"),
    ("reverse_proxy", "pool"),
    ("use_backend", "pool"),
    ("default_backend", "pool"),
    ("service", "pool"),
    ("services", "pool"),
    ("clusters", "pool"),
    ("frontend", "listener"),
    ("entrypoints", "listener"),
    ("listen", "bind"),
    ("listen", "listener"),
    ("port", "bind"),
    ("addr", "address"),
    ("url", "address"),
    ("uri", "address"),
    ("target", "address"),
    ("id", "name"),
    ("balance", "policy"),
    ("algorithm", "policy"),
    ("lb_policy", "policy"),
    ("lb_algorithm", "policy"),
    ("strategy", "policy"),
    ("load_balancing", "policy"),
    ("session_affinity", "sticky"),
    ("affinity", "sticky"),
    ("stick", "sticky"),
    ("healthcheck", "health"),
    ("health_check", "health"),
    ("health_checks", "health"),
    ("check", "health"),
    ("location", "path"),
    ("uri", "path"),
    ("prefix", "path"),
    ("path_prefix", "path"),
    ("location", "route"),
    ("server_name", "hosts"),
    ("host", "hosts"),
    ("domains", "hosts"),
    ("domain", "hosts"),
    ("method", "methods"),
    ("rate_limit", "limit"),
    ("ratelimit", "limit"),
    ("limits", "limit"),
    ("limit_req", "limit"),
    ("throttle", "limit"),
    ("average", "rate"),
    ("requests", "rate"),
    ("zone", "key"),
    ("source", "key"),
    ("rate", "interval"),
    ("inter", "interval"),
    ("period", "interval"),
    ("healthy_threshold", "rise"),
    ("unhealthy_threshold", "fall"),
    ("passes", "rise"),
    ("fails", "fall"),
    ("max_fails", "fall"),
    ("expires", "max_idle"),
    ("ttl", "max_life"),
    ("httponly", "http_only"),
    ("samesite", "same_site"),
    ("keepalive", "max_idle"),
    ("keepalive_timeout", "idle_timeout"),
    ("client_max_body_size", "max_body"),
    ("max_body_size", "max_body"),
    ("client_header_timeout", "header_timeout"),
    ("proxy_connect_timeout", "connect"),
    ("proxy_read_timeout", "response"),
    ("set_real_ip_from", "trusted_proxies"),
    ("trusted_ips", "trusted_proxies"),
    ("real_ip_header", "client_ip_from"),
    ("worker_processes", "workers"),
    ("threads", "workers"),
    ("nbthread", "workers"),
    ("worker_connections", "max_connections"),
    ("maxconn", "max_connections"),
    ("max_connections_per_ip", "max_connections_per_client"),
    ("max_conns_per_ip", "max_connections_per_client"),
    ("limit_conn", "max_connections_per_client"),
    ("return", "respond"),
    ("to", "redirect"),
    ("location", "to"),
    ("url", "to"),
    ("code", "status"),
    ("disabled", "state"),
    ("drain", "state"),
    ("down", "state"),
    ("retries", "retry"),
    ("tries", "attempts"),
    ("add", "set"),
    ("delete", "remove"),
    ("kid", "id"),
    ("path", "file"),
    ("enable", "enabled"),
    ("ssl", "tls"),
    ("ssl_certificate", "certificates"),
    ("certs", "certificates"),
    ("crt", "cert"),
    ("certificate", "cert"),
    ("private_key", "key"),
    ("ssl_protocols", "min_version"),
    ("min_tls_version", "min_version"),
];

/// Values that other proxies use for ours.
const VALUES: &[(&str, &str)] = &[
    ("rr", "round_robin"),
    ("static-rr", "round_robin"),
    ("leastconn", "least_conn"),
    ("least_request", "least_conn"),
    ("least_connections", "least_conn"),
    ("ewma", "least_time"),
    ("peak_ewma", "least_time"),
    ("latency", "least_time"),
    ("random", "random_two"),
    ("p2c", "random_two"),
    ("power_of_two", "random_two"),
    ("source", "ip_hash"),
    ("source_ip", "ip_hash"),
    ("client_ip", "ip_hash"),
    ("hash", "consistent_hash"),
    ("uri_hash", "consistent_hash"),
    ("ring_hash", "consistent_hash"),
    ("ketama", "consistent_hash"),
    ("maglev", "consistent_hash"),
    ("cookie", "sticky_cookie"),
    ("sticky", "sticky_cookie"),
    ("drain", "draining"),
    ("down", "stopped"),
    ("maint", "stopped"),
    ("disabled", "stopped"),
    ("up", "active"),
    ("ready", "active"),
    ("enabled", "active"),
    ("xff", "x-forwarded-for"),
    ("http1", "http/1.1"),
    ("http/1", "http/1.1"),
    ("error", "connect"),
    ("timeout", "response_timeout"),
    ("plain", "text"),
];

/// Keys that come with a later version, by the kind of place they belong to.
const LATER_KEYS: &[(&str, &str)] = &[("route.websocket.drain", "pacing of drains")];

/// What brings a key that this version does not have.
pub(crate) fn later_key(place: &Place) -> Option<&'static str> {
    let kind = place.kind();
    LATER_KEYS.iter().find(|(key, _)| *key == kind).map(|(_, what)| *what)
}

/// The key that was meant among those of the same table.
pub(crate) fn key<'a>(typed: &str, known: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    meant(typed, known, KEYS)
}

/// The word that was meant among those allowed.
pub(crate) fn value<'a>(typed: &str, known: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    meant(typed, known, VALUES)
}

/// A name that was meant among those in the file.
pub(crate) fn name<'a>(typed: &str, known: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    meant(typed, known, &[])
}

fn meant<'a>(
    typed: &str,
    known: impl Iterator<Item = &'a str> + Clone,
    others: &[(&str, &str)],
) -> Option<&'a str> {
    let typed = typed.to_lowercase();
    let spelled = typed.replace('-', "_");
    let other = || {
        let words = others.iter().filter(|(word, _)| *word == typed || *word == spelled);
        words.filter_map(|(_, ours)| known.clone().find(|name| name == ours)).next()
    };
    let near = || near(&typed, known.clone());
    let prefix = || {
        let fits = |name: &str| {
            typed.len() >= 3 && (name.starts_with(&typed) || (name.len() >= 3 && typed.starts_with(name)))
        };
        known.clone().find(|name| fits(name))
    };
    known.clone().find(|name| *name == spelled).or_else(other).or_else(near).or_else(prefix)
}

fn near<'a>(typed: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let scored = known.filter_map(|name| {
        let distance = strsim::damerau_levenshtein(typed, &name.to_lowercase());
        (distance <= 1.max(name.len().min(typed.len()) / 3)).then_some((distance, name))
    });
    scored.min().map(|(_, name)| name)
}

/// The key that was meant and the headings of the tables that have it, seen from the table where
/// it was written: those inside it first, then those anywhere.
pub(crate) fn elsewhere<'a>(
    root: &'a Value,
    schema: &'a Value,
    place: &Place,
    key: &'a str,
) -> (&'a str, Vec<String>) {
    let exact = headings(root, schema, place, key);
    if !exact.is_empty() {
        return (key, exact);
    }
    let mut every = Vec::new();
    keys(root, &mut every);
    match near(key, every.into_iter()) {
        Some(meant) => (meant, headings(root, schema, place, meant)),
        None => (key, exact),
    }
}

fn headings(root: &Value, schema: &Value, place: &Place, key: &str) -> Vec<String> {
    let mut found = Vec::new();
    tables(schema, place, key, &mut found);
    if found.is_empty() {
        tables(root, &Place::default(), key, &mut found);
    }
    found
}

/// Every key of every table.
fn keys<'a>(schema: &'a Value, found: &mut Vec<&'a str>) {
    for (name, inner) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        found.push(name);
        keys(inner, found);
    }
    for inner in ["additionalProperties", "items"].into_iter().filter_map(|word| schema.get(word)) {
        keys(inner, found);
    }
}

fn tables(schema: &Value, place: &Place, key: &str, found: &mut Vec<String>) {
    let properties = schema.get("properties").and_then(Value::as_object);
    for (name, inner) in properties.into_iter().flatten() {
        let place = place.at(name);
        if inner.pointer("/properties").and_then(|known| known.get(key)).is_some() {
            found.push(place.heading());
        }
        tables(inner, &place, key, found);
        if let Some(named) = inner.get("additionalProperties").filter(|named| named.is_object()) {
            tables_of(named, &place.at("NAME"), key, found);
        }
        if let Some(items) = inner.get("items") {
            tables_of(items, &place.at(0), key, found);
        }
    }
}

/// As [`tables`], for the elements of a map or list.
fn tables_of(schema: &Value, place: &Place, key: &str, found: &mut Vec<String>) {
    if schema.pointer("/properties").and_then(|known| known.get(key)).is_some() {
        found.push(place.heading());
    }
    tables(schema, place, key, found);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::schema::Policy;
    use crate::config::schema::annotated;
    use crate::config::spelling::Words;

    #[test]
    fn near_misses_prefixes_and_other_proxies_words_are_understood() {
        let policies = || Policy::WORDS.iter().map(|(word, _)| *word);
        assert_eq!(value("least_con", policies()), Some("least_conn"));
        assert_eq!(value("roundrobin", policies()), Some("round_robin"));
        assert_eq!(value("round-robin", policies()), Some("round_robin"));
        assert_eq!(value("leastconn", policies()), Some("least_conn"));
        assert_eq!(value("maglev", policies()), Some("consistent_hash"));
        assert_eq!(value("ewma", policies()), Some("least_time"));
        assert_eq!(value("whatever", policies()), None);
        let keys = ["backends", "policy", "sticky", "timeouts"];
        assert_eq!(key("servers", keys.into_iter()), Some("backends"));
        assert_eq!(key("stickyness", keys.into_iter()), Some("sticky"));
        assert_eq!(key("balance", keys.into_iter()), Some("policy"));
        assert_eq!(name("ap", ["app", "other"].into_iter()), Some("app"));
    }

    #[test]
    fn a_key_in_the_wrong_table_is_sent_to_the_right_one() {
        let root = annotated();
        let pool = root.pointer("/properties/pool/additionalProperties").unwrap();
        let app = Place::default().at("pool").at("app");
        assert_eq!(elsewhere(root, pool, &app, "cookie").1, ["[pool.app.sticky]"]);
        assert_eq!(elsewhere(root, pool, &app, "trusted_proxies").1, ["[server]"]);
        assert_eq!(elsewhere(root, root, &Place::default(), "methods").1, ["[[route]]"]);
        assert_eq!(
            elsewhere(root, pool, &app, "max_conections"),
            ("max_connections", vec!["[server]".to_owned()])
        );
        assert_eq!(elsewhere(root, root, &Place::default(), "nonsense").1, Vec::<String>::new());
    }

    #[test]
    fn the_words_of_others_lead_to_words_of_ours() {
        let schema = annotated().to_string();
        for (word, ours) in KEYS.iter().chain(VALUES) {
            assert!(schema.contains(&format!("\"{ours}\"")), "{word} leads to {ours}, which is nothing");
        }
    }
}
