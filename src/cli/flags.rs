//! `serve --to …`: flags that describe a whole configuration, and the file that says the same.
//!
//! Start at [`Flags::toml`]. It checks what only a flag can get wrong; everything else is
//! `config`'s business, which compiles the text like any other.

use std::net::{IpAddr, SocketAddr};

use clap::builder::{BoolishValueParser, FalseyValueParser, PossibleValuesParser};

use super::outcome::Failure;
use super::self_signed;

const HEAD: &str =
    "# What the flags said. Run it with `pintle serve -c FILE`; a saved change holds within a second.\n";
const HTTPS: &str = "https://";
const STICKY: &str = "sticky_cookie";
const POLICIES: [&str; 7] =
    ["round_robin", "least_conn", "least_time", "random_two", "ip_hash", "consistent_hash", STICKY];

/// Each is also an environment variable, so that a container needs no file.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Instead of a file")]
pub struct Flags {
    /// Backends: `host:port`, `:port` for this machine, `https://host` for TLS, `*N` after it for a weight
    #[arg(long, value_name = "LIST", value_delimiter = ',', env = "PINTLE_TO", hide_env_values = true)]
    pub to: Vec<String>,
    /// Where to listen: `:8080` for all interfaces [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR", value_delimiter = ',', env = "PINTLE_LISTEN", hide_env_values = true)]
    pub listen: Vec<String>,
    /// Speak TLS with this certificate and key, as PEM files; `CERT,KEY` in the variable
    #[arg(long, value_names = ["CERT", "KEY"], num_args = 1..=2, value_delimiter = ',', env = "PINTLE_TLS", hide_env_values = true)]
    pub tls: Vec<String>,
    /// For a try-out: speak TLS with a certificate that is made now and goes when Pintle ends
    #[arg(long, env = "PINTLE_TLS_SELF_SIGNED", hide_env_values = true, value_parser = FalseyValueParser::new())]
    pub tls_self_signed: bool,
    /// How a backend is chosen [default: round_robin]
    #[arg(long, value_name = "NAME", env = "PINTLE_POLICY", hide_env_values = true, value_parser = PossibleValuesParser::new(POLICIES))]
    pub policy: Option<String>,
    /// Keep each client on its backend, by a cookie
    #[arg(long, env = "PINTLE_STICKY", hide_env_values = true, value_parser = FalseyValueParser::new())]
    pub sticky: bool,
    /// Probe this path; without it a backend is down when it refuses connections
    #[arg(long, value_name = "PATH", env = "PINTLE_HEALTH", hide_env_values = true)]
    pub health: Option<String>,
    /// Where status, metrics and the API are read [default: 127.0.0.1:9900]
    #[arg(long, value_name = "ADDR|off", env = "PINTLE_ADMIN_BIND", hide_env_values = true)]
    pub admin_bind: Option<String>,
    /// One line per exchange on stdout [default: on]
    #[arg(long, value_name = "on|off", env = "PINTLE_ACCESS_LOG", hide_env_values = true, value_parser = BoolishValueParser::new(), hide_possible_values = true)]
    pub access_log: Option<bool>,
    /// Print the same thing as a file, and end
    #[arg(long)]
    pub print_config: bool,
}

impl Flags {
    /// Whether these flags are the configuration.
    pub fn given(&self) -> bool {
        items(&self.to).next().is_some()
    }

    /// A flag that means nothing without `--to`.
    pub fn stray(&self) -> Option<&'static str> {
        let flags = [
            ("--listen", items(&self.listen).next().is_some()),
            ("--tls", items(&self.tls).next().is_some()),
            ("--tls-self-signed", self.tls_self_signed),
            ("--policy", self.policy.is_some()),
            ("--sticky", self.sticky),
            ("--health", self.health.is_some()),
            ("--admin-bind", self.admin_bind.is_some()),
            ("--access-log", self.access_log.is_some()),
            ("--print-config", self.print_config),
        ];
        flags.into_iter().find_map(|(flag, given)| (given && !self.given()).then_some(flag))
    }

    /// The file that says what the flags say, and no more than a reader needs.
    pub fn toml(&self) -> Result<String, Failure> {
        let parts = [
            Some(HEAD.to_owned()),
            Some(self.listener()?),
            Some(self.pool()?),
            self.secure()?.then(|| {
                let verify =
                    commented("verify = true", "held against the system's authorities; `ca` names others");
                format!("[pool.app.tls]\n{verify}")
            }),
            self.fallback().map(|policy| {
                let fallback =
                    commented(&format!("fallback = \"{policy}\""), "who picks for somebody without a cookie");
                format!("[pool.app.sticky]\n{fallback}")
            }),
            self.health.as_deref().map(health).transpose()?,
            self.admin_bind.as_deref().map(admin).transpose()?,
            self.access_log.map(|enabled| format!("[log.access]\nenabled = {enabled}\n")),
        ];
        Ok(parts.into_iter().flatten().collect::<Vec<_>>().join("\n"))
    }

    fn listener(&self) -> Result<String, Failure> {
        let addresses = items(&self.listen)
            .map(|typed| address("--listen", typed).map(|address| format!("\"{address}\"")))
            .collect::<Result<Vec<_>, _>>()?;
        let bind = match &addresses[..] {
            [] => commented(
                "bind = \"127.0.0.1:8080\"",
                "this machine only; \"0.0.0.0:8080\" is all interfaces",
            ),
            [one] => format!("bind = {one}\n"),
            several => format!("bind = [{}]\n", several.join(", ")),
        };
        Ok(format!("[listener.web]\n{bind}{}", self.tls()?))
    }

    fn tls(&self) -> Result<String, Failure> {
        let pair = |cert: &str, key: &str| {
            let (cert, key) = (quoted(cert), quoted(key));
            format!("tls.certificates = [{{ cert = {cert}, key = {key} }}]\n")
        };
        match items(&self.tls).collect::<Vec<_>>()[..] {
            [] if self.tls_self_signed => {
                let by_hand = self_signed::BY_HAND;
                let comment =
                    format!("# --tls-self-signed makes these for one run; for good:\n# {by_hand}\n");
                Ok(comment + &pair(self_signed::CERT, self_signed::KEY))
            }
            [] => Ok(String::new()),
            _ if self.tls_self_signed => {
                Err(Failure::usage("`--tls` and `--tls-self-signed` both say which certificate to show")
                    .help("keep one of the two"))
            }
            [cert, key] => Ok(pair(cert, key)),
            _ => {
                Err(Failure::usage("`--tls` takes a certificate and its key").help("write `--tls CERT KEY`"))
            }
        }
    }

    fn pool(&self) -> Result<String, Failure> {
        let policy = if self.sticky { STICKY } else { self.policy.as_deref().unwrap_or("round_robin") };
        let policy = commented(&format!("policy = \"{policy}\""), &format!("one of {}", POLICIES.join(", ")));
        let backends = items(&self.to)
            .map(|typed| backend(typed).map(|backend| format!("  {backend},\n")))
            .collect::<Result<String, _>>()?;
        Ok(format!("[pool.app]\n{policy}backends = [\n{backends}]\n"))
    }

    /// The addresses that `--listen` names.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let addresses = items(&self.listen).filter_map(|typed| address("--listen", typed).ok());
        addresses.map(|address| address.ip()).collect()
    }

    /// Whether TLS is spoken with the backends: with all of them or with none.
    fn secure(&self) -> Result<bool, Failure> {
        let secure = items(&self.to).filter(|typed| typed.starts_with(HTTPS)).count();
        match items(&self.to).find(|typed| !typed.starts_with(HTTPS)) {
            Some(clear) if secure > 0 => Err(Failure::usage(format!(
                "`--to {clear}`: TLS is spoken with all backends of a pool or with none"
            ))
            .help(format!("write `{HTTPS}` before each, or before none"))),
            _ => Ok(secure > 0),
        }
    }

    /// Beside `--sticky`, `--policy` says who picks the first backend.
    fn fallback(&self) -> Option<&str> {
        self.policy.as_deref().filter(|policy| self.sticky && *policy != STICKY)
    }
}

fn commented(setting: &str, comment: &str) -> String {
    format!("{setting:<26} # {comment}\n")
}

/// The pieces of a list: commas have split it, an empty variable leaves an empty piece.
fn items(list: &[String]) -> impl Iterator<Item = &str> {
    list.iter().map(|item| item.trim()).filter(|item| !item.is_empty())
}

/// One `--to`: an address, and a weight where one is given.
fn backend(typed: &str) -> Result<String, Failure> {
    let wrong = |why: &str| Failure::usage(format!("`--to {typed}`: {why}"));
    let (address, weight) = match typed.rsplit_once('*') {
        None => (typed, None),
        Some((address, weight)) => {
            let weight = weight.parse::<u32>().ok().filter(|weight| (1..=256).contains(weight));
            (address, Some(weight.ok_or_else(|| wrong("a weight is 1 to 256").help("write `HOST:PORT*2`"))?))
        }
    };
    let address = [HTTPS, "http://"]
        .iter()
        .find_map(|scheme| address.strip_prefix(scheme))
        .map_or(address, |rest| rest.strip_suffix('/').unwrap_or(rest));
    if address.is_empty() || address.contains(['/', '"']) || address.contains(char::is_whitespace) {
        return Err(wrong("a backend is a host and a port").help("write `HOST:PORT`"));
    }
    if address.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(
            wrong("a port alone could be a host").help(format!("write `:{address}` for this machine"))
        );
    }
    let address =
        quoted(&if address.starts_with(':') { format!("127.0.0.1{address}") } else { address.to_owned() });
    Ok(weight.map_or(address.clone(), |weight| format!("{{ address = {address}, weight = {weight} }}")))
}

/// An address to listen on: `:8080` is all interfaces, as in most programs.
fn address(flag: &str, typed: &str) -> Result<SocketAddr, Failure> {
    let spelled = match typed.split_once(':') {
        Some(("", port)) => format!("0.0.0.0:{port}"),
        Some(("localhost", port)) => format!("127.0.0.1:{port}"),
        _ => typed.to_owned(),
    };
    spelled.parse().map_err(|_| {
        Failure::usage(format!("`{flag} {typed}` is not an IP address and a port"))
            .help(format!("write `{flag} 127.0.0.1:8080`, or `{flag} :8080` for all interfaces"))
    })
}

fn health(path: &str) -> Result<String, Failure> {
    if !path.starts_with('/') {
        return Err(Failure::usage(format!("`--health {path}` is not a path"))
            .help(format!("write `--health /{path}`")));
    }
    Ok(format!("[pool.app.health]\npath = {}\n", quoted(path)))
}

fn admin(typed: &str) -> Result<String, Failure> {
    let bind = if typed.eq_ignore_ascii_case("off") {
        "off".into()
    } else {
        address("--admin-bind", typed)?.to_string()
    };
    Ok(format!("[admin]\nbind = \"{bind}\"\n"))
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Origin};

    fn list(items: &[&str]) -> Vec<String> {
        items.iter().map(|item| (*item).to_owned()).collect()
    }

    fn to(items: &[&str]) -> Flags {
        Flags { to: list(items), ..Flags::default() }
    }

    fn everything() -> Flags {
        Flags {
            to: list(&["10.0.0.1:9001*2", ":9002", "http://app.internal/", "[::1]:9003"]),
            listen: list(&[":8080", "localhost:8081"]),
            tls: list(&["src/config/tests/keys/tls/site.crt", "src/config/tests/keys/tls/site.key"]),
            tls_self_signed: false,
            policy: Some("least_conn".into()),
            sticky: true,
            health: Some("/healthz".into()),
            admin_bind: Some("OFF".into()),
            access_log: Some(false),
            print_config: false,
        }
    }

    #[test]
    fn two_backends_make_a_short_file() {
        let expected = r#"# What the flags said. Run it with `pintle serve -c FILE`; a saved change holds within a second.

[listener.web]
bind = "127.0.0.1:8080"    # this machine only; "0.0.0.0:8080" is all interfaces

[pool.app]
policy = "round_robin"     # one of round_robin, least_conn, least_time, random_two, ip_hash, consistent_hash, sticky_cookie
backends = [
  "127.0.0.1:9001",
  "127.0.0.1:9002",
]
"#;
        assert_eq!(to(&["127.0.0.1:9001", "", ":9002"]).toml().unwrap(), expected);
    }

    #[test]
    fn every_flag_has_its_place_in_the_file() {
        let expected = r#"# What the flags said. Run it with `pintle serve -c FILE`; a saved change holds within a second.

[listener.web]
bind = ["0.0.0.0:8080", "127.0.0.1:8081"]
tls.certificates = [{ cert = "src/config/tests/keys/tls/site.crt", key = "src/config/tests/keys/tls/site.key" }]

[pool.app]
policy = "sticky_cookie"   # one of round_robin, least_conn, least_time, random_two, ip_hash, consistent_hash, sticky_cookie
backends = [
  { address = "10.0.0.1:9001", weight = 2 },
  "127.0.0.1:9002",
  "app.internal",
  "[::1]:9003",
]

[pool.app.sticky]
fallback = "least_conn"    # who picks for somebody without a cookie

[pool.app.health]
path = "/healthz"

[admin]
bind = "off"

[log.access]
enabled = false
"#;
        assert_eq!(everything().toml().unwrap(), expected);
    }

    #[test]
    fn https_is_tls_for_the_whole_pool() {
        let text = to(&["https://a.example", "https://b.example:8443/*2"]).toml().unwrap();
        let tail = r#"backends = [
  "a.example",
  { address = "b.example:8443", weight = 2 },
]

[pool.app.tls]
verify = true              # held against the system's authorities; `ca` names others
"#;
        assert!(text.ends_with(tail), "{text}");
    }

    #[test]
    fn what_the_flags_make_compiles() {
        let each_policy = POLICIES.map(|policy| Flags { policy: Some(policy.into()), ..to(&[":9001"]) });
        for flags in each_policy.into_iter().chain([everything()]) {
            let origin = Origin { name: "--to".into(), base: ".".into() };
            let compiled = config::compile(&flags.toml().unwrap(), &origin);
            let compiled = compiled.unwrap_or_else(|problems| panic!("{}", problems.render(false)));
            let policy = compiled.plan.pools[0].policy_name();
            assert_eq!(policy, if flags.sticky { STICKY } else { flags.policy.as_deref().unwrap() });
        }
    }

    #[test]
    fn what_cannot_be_meant_is_a_usage_error_that_says_what_to_write() {
        let cases = [
            (to(&["9001"]), "write `:9001` for this machine"),
            (to(&["https://a:443", "b:80"]), "write `https://` before each, or before none"),
            (to(&["https://a:443/path"]), "write `HOST:PORT`"),
            (to(&["a:1*0"]), "write `HOST:PORT*2`"),
            (to(&["a:1/path"]), "write `HOST:PORT`"),
            (Flags { health: Some("up".into()), ..to(&["a:1"]) }, "write `--health /up`"),
            (Flags { tls: list(&["site.crt"]), ..to(&["a:1"]) }, "write `--tls CERT KEY`"),
            (Flags { tls: list(&["c", "k"]), tls_self_signed: true, ..to(&["a:1"]) }, "keep one of the two"),
            (
                Flags { listen: list(&["8080"]), ..to(&["a:1"]) },
                "write `--listen 127.0.0.1:8080`, or `--listen :8080` for all interfaces",
            ),
        ];
        for (flags, help) in cases {
            let failure = flags.toml().unwrap_err();
            assert_eq!((failure.exit as u8, failure.help.as_deref()), (2, Some(help)));
        }
    }

    #[test]
    fn a_flag_without_to_is_named() {
        assert_eq!(Flags { sticky: true, ..Flags::default() }.stray(), Some("--sticky"));
        assert_eq!(
            Flags { to: list(&["", " "]), listen: list(&[":1"]), ..Flags::default() }.stray(),
            Some("--listen")
        );
        assert_eq!(everything().stray(), None);
        assert_eq!(Flags { listen: list(&[""]), ..Flags::default() }.stray(), None);
    }
}
