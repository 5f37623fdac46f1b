//! `[[route]]` as written.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::words::RetryOn;
use crate::config::spelling::{LimitKey, Name, OneOf, RequestRate, Spelled, Template, spelled};
use crate::plan::{HostPattern, PathPattern, Scheme};

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Route {
    /// Shown in logs and metrics; made from hosts and path where unset.
    pub(crate) name: Option<Spelled<Name>>,
    /// How the client came: http (in the clear) or https. Such a route is asked before all that name neither.
    pub(crate) scheme: Option<OneOf<Scheme>>,
    /// Exact names or `*.example.com`; none matches every host.
    pub(crate) hosts: Vec<Spelled<HostPattern>>,
    /// A prefix on segment borders; `=/login` is exact.
    pub(crate) path: Spelled<PathPattern>,
    /// None matches every method.
    pub(crate) methods: Vec<Spelled<Method>>,
    /// The pool that answers.
    pub(crate) pool: Option<String>,
    /// Pools and their shares, sticky per client.
    #[schemars(extend("additionalProperties" = { "type": "integer", "minimum": 1, "maximum": 10000 }))]
    pub(crate) split: Option<BTreeMap<String, u32>>,
    /// An answer made here.
    pub(crate) respond: Option<Respond>,
    /// Another place to go to.
    pub(crate) redirect: Option<Redirect>,
    /// How many requests each client may make.
    pub(crate) limit: Option<Limit>,
    /// The whole wait for a response head, all attempts together; 0s means no limit.
    #[schemars(extend("x-max" = "24h"))]
    pub(crate) timeout: Spelled<Duration>,
    /// When a failed attempt may go elsewhere.
    pub(crate) retry: Retry,
    /// Edits of what the backend receives.
    pub(crate) request_headers: Edits,
    /// Edits of what the client receives.
    pub(crate) response_headers: Edits,
    /// WebSockets and other upgrades.
    pub(crate) websocket: Websocket,
}

impl Default for Route {
    fn default() -> Self {
        Self {
            name: None,
            scheme: None,
            hosts: Vec::new(),
            path: spelled("/"),
            methods: Vec::new(),
            pool: None,
            split: None,
            respond: None,
            redirect: None,
            limit: None,
            timeout: spelled("0s"),
            retry: Retry::default(),
            request_headers: Edits::default(),
            response_headers: Edits::default(),
            websocket: Websocket::default(),
        }
    }
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limit {
    /// Requests in a second, a minute or an hour: `50/s`, `600/m`, `1000/h`. They may come evenly; what is more is a 429.
    pub(crate) rate: Spelled<RequestRate>,
    /// How many may come at once. Unset: as many as `rate` says.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) burst: Option<u32>,
    /// What clients are told apart by: client_ip (IPv6: /64), header:NAME or cookie:NAME; who lacks it, by its address.
    #[serde(default = "client_ip")]
    pub(crate) key: Spelled<LimitKey>,
}

fn client_ip() -> Spelled<LimitKey> {
    spelled("client_ip")
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Retry {
    /// How often a request may be sent in all.
    #[schemars(range(min = 1, max = 10))]
    pub(crate) attempts: u32,
    /// The failures after which it is sent again.
    pub(crate) on: Vec<OneOf<RetryOn>>,
    /// The share of the route's requests that may be sent again, over ten seconds.
    #[schemars(range(min = 0, max = 1))]
    pub(crate) budget: f64,
}

impl Default for Retry {
    fn default() -> Self {
        let on = vec![OneOf(RetryOn::Connect), OneOf(RetryOn::ResetBeforeResponse)];
        Self { attempts: 2, on, budget: 0.2 }
    }
}

#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Edits {
    /// Headers to set, in place of what was there.
    #[schemars(extend("propertyNames" = { "format": "header-name" }))]
    pub(crate) set: BTreeMap<String, Spelled<HeaderValue>>,
    /// Headers to take out.
    pub(crate) remove: Vec<Spelled<HeaderName>>,
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Websocket {
    /// How long a tunnel may be silent in both directions.
    #[schemars(extend("x-min" = "1s", "x-max" = "7d"))]
    pub(crate) idle_timeout: Spelled<Duration>,
}

impl Default for Websocket {
    fn default() -> Self {
        Self { idle_timeout: spelled("1h") }
    }
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Respond {
    /// The status code.
    #[schemars(range(min = 200, max = 599))]
    pub(crate) status: u16,
    /// The body, as text.
    #[schemars(length(max = 65536))]
    pub(crate) body: String,
    /// The headers.
    #[schemars(extend("propertyNames" = { "format": "header-name" }))]
    pub(crate) headers: BTreeMap<String, Spelled<HeaderValue>>,
}

impl Default for Respond {
    fn default() -> Self {
        Self { status: 200, body: String::new(), headers: BTreeMap::new() }
    }
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Redirect {
    /// Where to: text with {host} (without its port), {path}, {query} and {path_and_query}.
    pub(crate) to: Spelled<Template>,
    /// 301, 302, 303, 307 or 308.
    #[serde(default = "permanent")]
    #[schemars(extend("enum" = [301, 302, 303, 307, 308]))]
    pub(crate) status: u16,
}

fn permanent() -> u16 {
    308
}
