//! Affinity: a client keeps its backend by a cookie that only Pintle can write and read.
//!
//! Start at [`Affinity`], the cookie of one pool. `token` is what it says and for how long,
//! `sealer` how that is sealed. Which backend to choose, and what a token's backend may still get, is
//! decided elsewhere.

mod sealer;
mod token;

use std::time::Duration;

use cookie::{Cookie, time};
use http::{HeaderMap, HeaderValue, header};

use crate::http::cookies::CookieName;
use crate::plan::{SameSite, Secure, StickyPlan};

pub use sealer::Sealer;
pub use token::{Refused, TOKEN_MAX, Token, new_session};

/// One pool's sticky cookie: finding, opening, writing and removing it.
#[derive(Debug)]
pub struct Affinity {
    name: CookieName,
    sealer: Sealer,
    plan: StickyPlan,
}

impl Affinity {
    /// `sealer` holds the plan's keys, or generated ones where it has none.
    pub fn new(plan: &StickyPlan, sealer: Sealer) -> Self {
        Self { name: CookieName::new(&plan.cookie), sealer, plan: plan.clone() }
    }

    pub fn sealer(&self) -> &Sealer {
        &self.sealer
    }

    /// The first value of this pool's cookie that could be a token. Not opened yet.
    pub fn find<'h>(&self, headers: &'h HeaderMap) -> Option<&'h [u8]> {
        headers
            .get_all(header::COOKIE)
            .iter()
            .flat_map(|value| self.name.values(value.as_bytes()))
            .find(|value| token::is_spelled_well(value))
    }

    /// What the cookie says, if we sealed it for this pool and it still holds.
    pub fn open(&self, text: &[u8], now: u64) -> Result<Token, Refused> {
        let token = self.sealer.open(text)?;
        if self.expired(&token, now) { Err(Refused::Expired) } else { Ok(token) }
    }

    /// For a token that was opened before: its times are checked at every visit.
    pub fn expired(&self, token: &Token, now: u64) -> bool {
        token::expired(token, now, self.plan.max_idle, self.plan.max_life)
    }

    /// Whether a valid token should be written again with [`Token::seen_at`].
    pub fn renew_due(&self, token: &Token, now: u64) -> bool {
        token::renew_due(token, now, self.plan.max_idle)
    }

    /// Removes this pool's cookie from a request and leaves the others as they are.
    pub fn strip(&self, headers: &mut HeaderMap) {
        let header::Entry::Occupied(mut entry) = headers.entry(header::COOKIE) else { return };
        let mut emptied = false;
        for value in entry.iter_mut() {
            if let Some(rest) = self.name.without(value.as_bytes()) {
                emptied |= rest.is_empty();
                *value = HeaderValue::from_bytes(&rest).expect("a part of a header value is one");
            }
        }
        if emptied {
            let rest: Vec<HeaderValue> = entry.iter().filter(|value| !value.is_empty()).cloned().collect();
            entry.remove();
            for value in rest {
                headers.append(header::COOKIE, value);
            }
        }
    }

    /// The `Set-Cookie` that gives a client this token. The plan's cookie name, path and domain
    /// are printable ASCII without `;`.
    pub fn set_cookie(&self, token: &Token, now: u64, came_by_tls: bool) -> HeaderValue {
        let plan = &self.plan;
        let host_prefix = plan.cookie.starts_with("__Host-");
        // A browser throws such names away without `Secure`, so it cannot be wrong to write it.
        let prefixed = host_prefix || plan.cookie.starts_with("__Secure-");
        let secure = match plan.secure {
            Secure::Auto => came_by_tls || prefixed,
            Secure::Always => true,
            Secure::Never => prefixed,
        };
        let mut cookie = Cookie::new(&plan.cookie, self.sealer.seal(token));
        cookie.set_path(&plan.path);
        cookie.set_http_only(plan.http_only);
        cookie.set_same_site(match plan.same_site {
            SameSite::Lax => cookie::SameSite::Lax,
            SameSite::Strict => cookie::SameSite::Strict,
            SameSite::None => cookie::SameSite::None,
        });
        if secure {
            cookie.set_secure(true);
        }
        if !plan.domain.is_empty() && !host_prefix {
            cookie.set_domain(&plan.domain);
        }
        if let Some(left) = token::remaining(token, now, plan.max_idle, plan.max_life) {
            let left = left.min(LONGEST);
            cookie.set_max_age(time::Duration::seconds(left.as_secs() as i64));
            let end = now.saturating_add(left.as_secs()) as i64;
            // Out of range only when the clock is thousands of years off.
            if let Ok(end) = time::OffsetDateTime::from_unix_timestamp(end) {
                cookie.set_expires(end);
            }
        }
        HeaderValue::try_from(cookie.to_string()).expect("the plan's cookie attributes are printable")
    }
}

/// Browsers keep no cookie longer than 400 days (RFC 6265bis 5.5).
const LONGEST: Duration = Duration::from_secs(400 * 86_400);

/// Tells caches that a response which sets the cookie is for one client alone, unless it has
/// said so itself.
pub fn mark_private(headers: &mut HeaderMap) {
    let said = headers
        .get_all(header::CACHE_CONTROL)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .map(|directive| directive.trim_ascii())
        .any(|said| said.eq_ignore_ascii_case(b"private") || said.eq_ignore_ascii_case(b"no-store"));
    if !said {
        headers.append(header::CACHE_CONTROL, HeaderValue::from_static("private"));
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
