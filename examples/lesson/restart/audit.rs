//! The audit sheet of step 1, each answer found and not known: what replicas count, what the store
//! has, what a client holds, and who knows somebody who comes straight to them.

use super::THINGS;
use crate::harness::{AuditRow, Browser, Outcome};
use crate::shop::shopper::Shopper;
use crate::shop::{Stand, Strategy};
use crate::store::{Client, Link, Store};

/// How many sessions each replica has in its memory.
pub async fn in_memory(stand: &Stand) -> Outcome<Vec<u64>> {
    let counts = stand.counts().await?;
    Ok(counts.iter().map(|counts| counts["sessions"].as_u64().unwrap_or(0)).collect())
}

/// How many of these users have a session in the store.
pub async fn in_store(store: Option<&Store>, shoppers: &[Shopper]) -> Outcome<usize> {
    let Some(store) = store else { return Ok(0) };
    let mut exists = redis::cmd("EXISTS");
    for id in shoppers.iter().filter_map(|shopper| shopper.browser.cookies.get("sessionId")) {
        exists.arg(format!("session:{id}"));
    }
    Client::connect(store.url(), Link::PerRequest).await?.run(&exists).await
}

/// What the first client holds, with its size.
pub fn with_client(strategy: Strategy, shoppers: &[Shopper]) -> Vec<String> {
    let Some(shopper) = shoppers.first() else { return Vec::new() };
    let cookies = shopper.browser.cookies.iter();
    let mut held: Vec<_> = cookies.map(|(name, value)| format!("cookie {name}, {} B", value.len())).collect();
    held.extend(shopper.token.as_ref().map(|token| format!("token, {} B", token.len())));
    if strategy.keeps_cart_with_client() {
        held.push(format!("cart, {} things", shopper.cart.len()));
    }
    held
}

/// How many replicas know everybody who comes straight to them with what the client holds.
pub async fn known_by(stand: &Stand, shoppers: &mut [Shopper]) -> usize {
    let mut known_by = 0;
    for replica in &stand.replicas {
        let mut knows = 0;
        for shopper in &mut *shoppers {
            let mut straight = Browser::new(replica.address, shopper.browser.ip);
            straight.cookies = shopper.browser.cookies.clone();
            let usual = std::mem::replace(&mut shopper.browser, straight);
            let visit = shopper.look().await;
            shopper.browser = usual;
            knows += usize::from(visit.notice.is_none() && shopper.cart.len() == THINGS);
        }
        known_by += usize::from(knows == shoppers.len());
    }
    known_by
}

impl super::Told {
    /// The sheet, filled in.
    pub fn audit(&self) -> AuditRow {
        AuditRow {
            strategy: self.name(),
            where_sessions_live: self.where_sessions_live(),
            in_memory: match self.held() {
                0 => "nothing of a user".into(),
                _ => format!("sessions: {}", self.per_replica()),
            },
            on_restart: format!(
                "one: {} of {} log in again; all at once: {} of {}",
                self.users - self.works,
                self.users,
                self.users - self.works_after_all,
                self.users
            ),
            any_server: match self.known_by {
                3 => "yes: 3 of 3 knew everybody".into(),
                known_by => format!("no: {known_by} of 3 knew everybody"),
            },
        }
    }

    /// Sessions in the memory of all replicas together.
    pub fn held(&self) -> u64 {
        self.in_memory.iter().sum()
    }

    fn per_replica(&self) -> String {
        let each = self.in_memory.iter().enumerate();
        each.map(|(index, count)| format!("r{} {count}", index + 1)).collect::<Vec<_>>().join(", ")
    }

    fn where_sessions_live(&self) -> String {
        let holders = self.in_memory.iter().enumerate().filter(|(_, count)| **count > 0);
        let holders: Vec<_> = holders.map(|(index, _)| format!("r{}", index + 1)).collect();
        let mut places = Vec::new();
        if !holders.is_empty() {
            places.push(format!("memory of {}", holders.join(", ")));
        }
        if self.in_store > 0 {
            places.push(format!("store, {} keys", self.in_store));
        }
        places.push(format!("client: {}", self.with_client.join("; ")));
        places.join(" · ")
    }
}
