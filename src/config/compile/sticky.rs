//! The sticky cookie: its keys, and the attributes that browsers insist on.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::GeneralPurposeConfig;

use super::{Compiler, pool_place};
use crate::config::findings::Finding;
use crate::config::place::Place;
use crate::config::schema::{Key, SecureWord, Sticky};
use crate::config::spelling::default_cookie;
use crate::plan::{Plan, PoolPlan, SameSite, Secret, Secure, StickyKey, StickyPlan};

/// Bytes of a key.
const KEY: usize = 32;

/// Either alphabet would do; people paste what `openssl rand -base64 32` prints.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl Compiler<'_, '_> {
    pub(crate) fn sticky(&mut self, sticky: Sticky, pool: &str, place: &Place) -> StickyPlan {
        let secure = match sticky.secure {
            SecureWord::Auto(_) => Secure::Auto,
            SecureWord::Flag(true) => Secure::Always,
            SecureWord::Flag(false) => Secure::Never,
        };
        let plan = StickyPlan {
            cookie: sticky.cookie.map_or_else(|| default_cookie(pool), |cookie| cookie.value.0),
            keys: self.keys(&sticky.keys, &place.at("keys")),
            max_idle: sticky.max_idle.value,
            max_life: sticky.max_life.value,
            path: sticky.path.value.0,
            domain: sticky.domain.value.0,
            secure,
            http_only: sticky.http_only,
            same_site: sticky.same_site.0,
            on_down: sticky.on_down.0,
            on_drain: sticky.on_drain.0,
        };
        self.attributes_agree(&plan, place);
        plan
    }

    fn keys(&mut self, written: &[Key], list: &Place) -> Vec<StickyKey> {
        let mut ids: BTreeMap<&str, Place> = BTreeMap::new();
        let mut secrets: Vec<(Vec<u8>, Place)> = Vec::new();
        let mut keys = Vec::new();
        for (index, key) in written.iter().enumerate() {
            let place = self.findings.element(list, index);
            let id = key.id.text.as_str();
            if let Some(first) = ids.get(id) {
                let finding =
                    Finding::error("duplicate", &place.at("id"), format!("two keys have the id `{id}`"));
                self.findings.add(finding.label("again here").with(&first.at("id"), "first here"));
            }
            ids.entry(id).or_insert_with(|| place.clone());
            let Some(Secret(text)) = self.secret_from(key.file.as_ref(), key.env.as_ref(), &place) else {
                continue;
            };
            let Some(secret) = key_bytes(&text) else {
                let finding = Finding::error("secret", &place, format!("key `{id}` is not 32 bytes"));
                let label = format!("{} bytes that are neither 64 hex digits nor base64 of 32", text.len());
                self.findings.add(finding.label(label).say("make one with `openssl rand -hex 32`"));
                continue;
            };
            if let Some((_, first)) = secrets.iter().find(|(known, _)| *known == secret) {
                let finding = Finding::error("duplicate", &place, "two keys are the same bytes");
                self.findings.add(finding.label("again here").with(first, "first here"));
            }
            secrets.push((secret.clone(), place));
            keys.push(StickyKey { id: id.to_owned(), secret: Secret(secret) });
        }
        keys
    }

    /// RFC 6265bis, 4.1.3: what the prefixes of a name promise, and what `SameSite=None` needs.
    fn attributes_agree(&mut self, sticky: &StickyPlan, place: &Place) {
        let name = place.at("cookie");
        let starts = |prefix: &str| {
            sticky.cookie.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix))
        };
        let host = starts("__Host-");
        if sticky.same_site == SameSite::None && sticky.secure == Secure::Never {
            let finding = Finding::error("conflict", &place.at("same_site"), "browsers refuse this cookie");
            self.findings.add(
                finding
                    .label("SameSite=None needs Secure")
                    .with(&place.at("secure"), "not Secure")
                    .say("write `secure = true`"),
            );
        }
        let mut refuse = |at: &Place, label: &str, help: &str| {
            let finding = Finding::error("conflict", at, format!("browsers refuse `{}`", sticky.cookie));
            self.findings.add(finding.label(label).say(help));
        };
        if host && sticky.path != "/" {
            refuse(&place.at("path"), "a `__Host-` cookie has the path `/`", "write `path = \"/\"`");
        }
        if host && !sticky.domain.is_empty() {
            refuse(&place.at("domain"), "a `__Host-` cookie has no domain", "leave `domain` out");
        }
        if (host || starts("__Secure-")) && sticky.secure != Secure::Always {
            let help = "write `secure = true` if TLS ends in front of Pintle, or choose another name";
            refuse(&name, "its prefix needs Secure, and every listener is clear", help);
        }
    }

    /// A clear listener answers with a Secure cookie only where something in front speaks TLS.
    pub(crate) fn cookies_reach_their_browser(&mut self, plan: &Plan) {
        if !plan.server.trusted_proxies.is_empty() {
            return;
        }
        for pool in plan.pools.iter().filter(|pool| pool.cookie.secure == Secure::Always) {
            let place = pool_place(&pool.name).at("sticky").at("secure");
            let message = "browsers send this cookie over TLS only, and every listener is clear";
            let finding =
                Finding::warning("cookie", &place, message).label("fine where TLS ends in front of Pintle");
            self.findings.add(
                finding.say("then name what stands there in `trusted_proxies`, or write `secure = \"auto\"`"),
            );
        }
    }

    pub(crate) fn cookies_do_not_meet(&mut self, pools: &[PoolPlan]) {
        let meets = |a: &str, b: &str| {
            let within = |path: &str, prefix: &str| {
                let rest = path.strip_prefix(prefix);
                rest.is_some_and(|rest| rest.is_empty() || prefix.ends_with('/') || rest.starts_with('/'))
            };
            within(a, b) || within(b, a)
        };
        for (index, pool) in pools.iter().enumerate() {
            let same = |other: &&PoolPlan| {
                other.cookie.cookie == pool.cookie.cookie && meets(&other.cookie.path, &pool.cookie.path)
            };
            if let Some(first) = pools[..index].iter().find(same) {
                let place = |pool: &PoolPlan| pool_place(&pool.name).at("sticky").at("cookie");
                let message =
                    format!("two pools set the cookie `{}` on overlapping paths", pool.cookie.cookie);
                let finding =
                    Finding::warning("cookie", &place(pool), message).label("each replaces the other's");
                self.findings.add(finding.with(&place(first), "first here"));
            }
        }
    }
}

/// A key as it may stand in its file: raw, in hex or in base64.
fn key_bytes(text: &[u8]) -> Option<Vec<u8>> {
    if text.len() == KEY {
        return Some(text.to_vec());
    }
    let text = std::str::from_utf8(text).ok()?.trim();
    let digit = |at: usize| text.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    if text.len() == 2 * KEY && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return (0..KEY).map(|index| digit(2 * index)).collect();
    }
    let standard = text.replace('-', "+").replace('_', "/");
    BASE64.decode(standard).ok().filter(|bytes| bytes.len() == KEY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_raw_or_hex_or_base64() {
        let raw: Vec<u8> = (0..32).map(|n| n * 7).collect();
        let hex: String = raw.iter().map(|byte| format!("{byte:02x}")).collect();
        let base64 = BASE64.encode(&raw);
        for text in [
            raw.clone(),
            hex.to_uppercase().into(),
            base64.trim_end_matches('=').into(),
            base64.clone().into(),
        ] {
            assert_eq!(key_bytes(&text).as_ref(), Some(&raw));
        }
        assert_eq!(key_bytes(base64.replace('+', "-").replace('/', "_").as_bytes()), Some(raw));
        for text in [b"short".as_slice(), &[0xff; 31], &[b'g'; 64], &[0xc3; 64]] {
            assert_eq!(key_bytes(text), None);
        }
    }
}
