//! What the lesson says of revocation, and what was seen of the four thefts.

use std::time::Duration;

use super::{BEFORE, Seen, Theft};
use crate::harness::figures::time;
use crate::harness::{Aspect, Column, Findings, Lines, Quote, Series, Table, quote};

pub fn report(seen: &Seen, findings: &mut Findings) {
    let Seen { thefts: [plain, short, deny, version], refresh, denied, issued } = seen;
    windows(plain, short, deny, version, findings);
    lookups(&seen.thefts, findings);
    let states = [
        "nothing".to_owned(),
        format!("{refresh} refresh tokens in the store"),
        format!("{denied} denied tokens, {issued} lists of issued ones"),
        "a version with each user in the database".to_owned(),
    ];
    picture(&seen.thefts, states, findings);
    answers(plain, short, deny, version, findings);
}

const PROBLEM: &str = "The Revocation Problem";

fn windows(plain: &Theft, short: &Theft, deny: &Theft, version: &Theft, findings: &mut Findings) {
    let n = plain.after.len();
    let hours = plain.left.as_secs_f64() / 3600.0;
    findings.holds(
        "jwt.plain_cannot_be_revoked",
        quote(
            PROBLEM,
            "Attacker can use stolen JWT until 11:00 AM! Server has no way to know password changed!",
        ),
        format!(
            "{} of {n} requests of the thief got through; {hours:.1} of 24 h remain (read from exp)",
            plain.through()
        ),
        n,
        plain.changed && plain.before == BEFORE && plain.through() == n && plain.left > Duration::ZERO,
        "The signature is as good as before, and nobody is asked anything else.",
    );
    let stopped = short.after.iter().filter(|(when, _)| *when > short.window()).count();
    let (tries, renewed) = short.refreshes;
    findings.holds(
        "jwt.short_expiry_closes_the_window",
        quote(PROBLEM, "Short expiry (15 min) + refresh tokens"),
        format!(
            "{} requests got through, the last after {}; then {stopped} of {stopped} were refused; \
             {renewed} of {tries} refreshes worked",
            short.through(),
            time(short.window()),
        ),
        short.after.len(),
        short.changed
            && short.before == BEFORE
            && short.through() > 0
            && stopped > 0
            && renewed == 0
            && short.others.0 == short.others.1,
        "The token works until it expires (15 min are 2 s here, to the nearest second); the refresh \
         token was \
         deleted, so there is no next one. Everybody else was renewed without noticing.",
    );
    let at_once: [(&str, Quote, &Theft, &str); 2] = [
        (
            "jwt.deny_list_revokes_at_once",
            quote(PROBLEM, "Token blacklist (adds state back!)"),
            deny,
            "Every replica asks the store about every token, and the list is there before the answer is.",
        ),
        (
            "jwt.version_revokes_at_once",
            quote(PROBLEM, "Token versioning in database"),
            version,
            "Every replica asks the database for the user's version, which the password change raised.",
        ),
    ];
    for (id, lesson, theft, why) in at_once {
        let figure =
            format!("{} of {} requests of the thief got through", theft.through(), theft.after.len());
        let holds = theft.changed
            && theft.before == BEFORE
            && theft.through() == 0
            && theft.others.0 == theft.others.1;
        findings.holds(id, lesson, figure, theft.after.len(), holds, why);
    }
}

/// Look-ups of a scheme for every thousand requests.
fn per_thousand(count: u64, theft: &Theft) -> u64 {
    (count * 1_000) / theft.counted.requests.max(1)
}

fn lookups(thefts: &[Theft; 4], findings: &mut Findings) {
    let [plain, short, deny, version] = thefts;
    let total = |theft: &Theft| theft.counted.store + theft.counted.database;
    let requests: u64 = thefts.iter().map(|theft| theft.counted.requests).sum();
    let free =
        total(plain) == 0 && short.counted.database == 0 && short.counted.store == short.counted.refreshes;
    findings.holds(
        "jwt.no_lookup_per_request",
        quote("Strategy 3: Token-Based Authentication (JWT)", "No database lookup per request"),
        format!(
            "per 1,000 requests: plain {}, short {} (one per refresh), deny-list {}, version {}",
            per_thousand(total(plain), plain),
            per_thousand(total(short), short),
            per_thousand(total(deny), deny),
            per_thousand(total(version), version),
        ),
        requests as usize,
        free && total(deny) > 0 && total(version) > 0,
        "It is true of tokens that cannot be revoked at once. Those that can cost a look-up each time, \
         which is what a session costs.",
    );
}

fn picture(thefts: &[Theft; 4], states: [String; 4], findings: &mut Findings) {
    let names =
        ["plain, 24 h", "short expiry + refresh", "deny-list in the store", "version in the database"];
    let rows = thefts.iter().zip(names).zip(states).map(|((theft, name), state)| {
        let window = match theft.through() {
            0 => "none".to_owned(),
            through if through == theft.after.len() => {
                format!("until exp: {:.1} h", theft.left.as_secs_f64() / 3600.0)
            }
            _ => time(theft.window()),
        };
        let got = format!("{} of {}", theft.through(), theft.after.len());
        let store = per_thousand(theft.counted.store, theft).to_string();
        vec![
            name.to_owned(),
            window,
            got,
            store,
            per_thousand(theft.counted.database, theft).to_string(),
            state,
        ]
    });
    findings.show(Table {
        title: "Taking a token back".into(),
        note: "Look-ups are for 1,000 requests to the dashboard. Short: 15 min are 2 s here, so in \
               earnest a refresh is some 450 times rarer."
            .into(),
        columns: [
            "",
            "window",
            "thief got through",
            "store look-ups",
            "database look-ups",
            "state it brings back",
        ]
        .map(Into::into)
        .into(),
        rows: rows.collect(),
    });
    let series = thefts.iter().zip(names).map(|(theft, name)| {
        let mut through = 0.0;
        let points = theft.after.iter().map(|(when, ok)| {
            through += f64::from(u8::from(*ok));
            (when.as_secs_f64(), through)
        });
        Series { name: name.into(), points: points.collect() }
    });
    findings.show(Lines {
        title: "Requests that a stolen token got through".into(),
        note: "All four passwords were changed at 0. Deny-list and version lie on the axis.".into(),
        x: "seconds since the password was changed".into(),
        y: "requests".into(),
        series: series.collect(),
        marks: Vec::new(),
    });
}

fn answers(plain: &Theft, short: &Theft, deny: &Theft, version: &Theft, findings: &mut Findings) {
    let hours = plain.left.as_secs_f64() / 3600.0;
    findings.answer(
        2,
        format!(
            "A plain token cannot be revoked: {} of {} requests got through after the password change, \
         and {hours:.1} h remained.",
            plain.through(),
            plain.after.len(),
        ),
    );
    findings.answer(
        2,
        format!(
            "To revoke at once, list the token in the store or count versions in the database: {} and \
         {} requests got through.",
            deny.through(),
            version.through(),
        ),
    );
    findings.answer(
        2,
        format!(
            "The trade-off: {} look-ups per 1,000 requests and state again; short expiry needs one per \
         refresh, and left the thief {}.",
            per_thousand(deny.counted.store, deny),
            time(short.window()),
        ),
    );
    findings.cell(
        Aspect::Revocation,
        Column::Jwt,
        format!(
            "24 h token: not within the run, {} of {} got through, 0 look-ups",
            plain.through(),
            plain.after.len()
        ),
        Some(plain.through() == plain.after.len()),
    );
    findings.cell(
        Aspect::Revocation,
        Column::Jwt,
        format!("15 min (2 s here) + refresh: after {}", time(short.window())),
        Some(short.through() > 0),
    );
    for (name, theft, count) in
        [("deny-list", deny, deny.counted.store), ("version", version, version.counted.database)]
    {
        findings.cell(
            Aspect::Revocation,
            Column::Jwt,
            format!("{name}: at once, {} look-ups per 1,000 requests", per_thousand(count, theft)),
            Some(theft.through() == 0 && count > 0),
        );
    }
    findings.concept(
        5,
        format!(
            "A token needed no look-up in {} requests, and worked on after the password had changed; {} \
         per 1,000 is what revoking at once costs.",
            plain.counted.requests,
            per_thousand(deny.counted.store, deny),
        ),
    );
    findings.left_out(
        "The lesson calls revocation in a central store instant, and also proposes to keep sessions \
         in a local \
         cache for 60 s: with that cache, a revoked session works for up to 60 s. Here nobody keeps copies.",
    );
}
