//! What the restarts say about the lesson's claims.

use super::Told;
use crate::harness::figures::share;
use crate::harness::{Findings, Quote, Table, Text, quote};

const WORKS: Quote = quote("Step 4: Verify Statelessness", "4. Does it work? ✅ = Stateless!");

pub fn findings(told: &[Told; 6]) -> Findings {
    let mut findings = Findings::default();
    test(&mut findings, told);
    state(&mut findings, told);
    safety(&mut findings, told);
    concepts(&mut findings, told);
    findings.audit = told.iter().map(Told::audit).collect();
    show(&mut findings, told);
    findings
}

/// The lesson's test, a claim per strategy.
fn test(findings: &mut Findings, told: &[Told; 6]) {
    let cases = [
        ("restart.memory", false, "The session was in replica 1, and replica 2 has never heard of it."),
        (
            "restart.memory_sticky",
            false,
            "The cookie leads back to replica 1, whose memory is empty: affinity keeps users near their data \
             and does not keep the data.",
        ),
        (
            "restart.replicated",
            true,
            "Replica 2 has a copy. The servers are not stateless for that: see what happens when all restart.",
        ),
        ("restart.central", true, "Replica 2 reads from the store what replica 1 wrote there."),
        ("restart.jwt", true, "The token says who it is, and replica 2 can check the signature."),
        ("restart.client", true, "The signed cookie says who it is, and the cart comes along."),
    ];
    for (told, (id, passes, why)) in told.iter().zip(cases) {
        let measured = format!(
            "{}: {} logged in with their cart, answered by {}",
            told.name(),
            share(told.works, told.users),
            told.answered_by
        );
        let claim = if passes { Findings::holds } else { Findings::fails };
        claim(findings, id, WORKS, measured, told.users, told.passes(), why);
    }
}

/// Where state is, and what that means.
fn state(findings: &mut Findings, told: &[Told; 6]) {
    let [memory, sticky, replicated, stateless @ ..] = told;
    let in_each = |told: &Told| format!("{} {}", told.name(), told.held());
    let sessions: Vec<_> = told.iter().map(in_each).collect();
    findings.holds(
        "restart.no_user_data",
        quote("Stateless Server", "Server holds NO user data!"),
        format!("sessions in the memory of three replicas: {}", sessions.join(", ")),
        told.iter().map(|told| told.users).sum(),
        stateless.iter().all(|told| told.held() == 0) && memory.held() > 0 && sticky.held() > 0,
        "With a store, a token or a cookie, what a request needs comes with it or is fetched for it.",
    );
    findings.holds(
        "restart.sticky",
        quote(
            "Strategy 1: Sticky Sessions",
            "User always goes to Server 2. Server 2 has their session in memory",
        ),
        format!(
            "before any restart {} found their cart by cookie, and {} by round_robin",
            share(sticky.works_before, sticky.users),
            share(memory.works_before, memory.users)
        ),
        sticky.users + memory.users,
        sticky.works_before == sticky.users && memory.works_before < memory.users,
        "While nothing happens to replica 1, a cookie that leads there is all it takes.",
    );
    let known: Vec<_> = told.iter().map(|told| format!("{} {}", told.name(), told.known_by)).collect();
    let all_know = stateless.iter().chain([replicated]).all(|told| told.known_by == 3);
    findings.holds(
        "restart.any_server",
        quote("Stateless Server", "Request can go to ANY server because ALL servers are identical!"),
        format!("replicas of 3 that knew everybody who came straight to them: {}", known.join(", ")),
        told.iter().map(|told| told.users * 3).sum(),
        all_know && memory.known_by == 1 && sticky.known_by == 1,
        "Every user asked every replica directly, past the balancer, with the same cookie or token.",
    );
    findings.fails(
        "restart.all_replicated",
        quote("Strategy 2: Session Replication", "✅ Server failure = no data loss"),
        format!("{} kept their session when all three were restarted at once", {
            share(replicated.works_after_all, replicated.users)
        }),
        replicated.users,
        replicated.works_after_all == replicated.users,
        "It is so for one server at a time. Copies in memory go when the last process that holds one goes.",
    );
    let kept: usize = stateless.iter().map(|told| told.works_after_all).sum();
    let users: usize = stateless.iter().map(|told| told.users).sum();
    findings.holds(
        "restart.all_stateless",
        quote("Strategy 2: External Session Store", "✅ Sessions survive server restarts"),
        format!("{} kept their session when all three were restarted at once", share(kept, users)),
        users,
        kept == users,
        "Nothing of it was in the processes: it was in the store, in the token or in the cookie.",
    );
    let preferences: usize = told.iter().map(|told| told.preferences).sum();
    let users: usize = told.iter().map(|told| told.users).sum();
    findings.holds(
        "restart.preferences",
        quote("Strategy 1: Client-Side State", "Good for: UI preferences"),
        format!("{} have their dark mode and filters after four restarts", share(preferences, users)),
        users,
        preferences == users,
        "They stay with the client in every strategy, so no server can lose them.",
    );
}

/// What no strategy may get wrong.
fn safety(findings: &mut Findings, told: &[Told; 6]) {
    let sum = |of: fn(&super::Safety) -> usize| told.iter().map(|told| of(&told.safety)).sum::<usize>();
    let log_in = quote("Strategy 2: External Session Store", "const sessionId = generateId()");
    let (log_ins, ids) = (sum(|safety| safety.log_ins), sum(|safety| safety.ids));
    findings.holds(
        "restart.new_id",
        log_in,
        format!("{ids} different session ids in {log_ins} log-ins"),
        log_ins,
        ids == log_ins && log_ins > 0,
        "Every log-in begins a new session, also in a browser that had one. Tokens and signed cookies have \
         no id.",
    );
    let (planted, hijacked) = (sum(|safety| safety.planted), sum(|safety| safety.hijacked));
    findings.holds(
        "restart.planted",
        log_in,
        format!("{hijacked} of {planted} planted ids and sessions were the victim's after the log-in"),
        planted,
        hijacked == 0,
        "An id that somebody else put into the browser is never the one that is logged in.",
    );
    let (cookies, guarded) = (sum(|safety| safety.cookies), sum(|safety| safety.guarded));
    findings.holds(
        "restart.cookies",
        quote("Strategy 1: Client-Side State", "❌ Security concerns (client can tamper)"),
        format!("{} cookies are HttpOnly and SameSite", share(guarded, cookies)),
        cookies,
        guarded == cookies && cookies > 0,
        "No script reads them, and no other site sends them along; Pintle's own is among them.",
    );
    let (refusals, refused) = (sum(|safety| safety.refusals), sum(|safety| safety.refused));
    let admitted = told.iter().filter(|told| told.safety.admitted).count();
    findings.holds(
        "restart.refusals",
        quote("Strategy 3: Token-Based Authentication (JWT)", "res.status(401).json({error: 'Invalid token'})"),
        format!("{} were refused as they should be; the admin was let in by {admitted} of 6", {
            share(refused, refusals)
        }),
        refusals + told.len(),
        refused == refusals && admitted == told.len(),
        "Strangers get 401, `Not logged in` or `Invalid token`; a customer gets 403 where only admins may be.",
    );
}

fn concepts(findings: &mut Findings, told: &[Told; 6]) {
    let [memory, _, replicated, central, token, client] = told;
    findings.concept(
        1,
        format!(
            "Of {} users, three replicas held {} in memory with a store, {} with a JWT, {} with a signed \
             cookie, and {} with sessions in memory.",
            central.users,
            central.held(),
            token.held(),
            client.held(),
            memory.held()
        ),
    );
    findings.concept(
        9,
        format!(
            "Replication passes the test of one restart (kept: {}) and not that of all three (kept: {}): what is kept in \
             memory comes back as work later.",
            share(replicated.works, replicated.users),
            share(replicated.works_after_all, replicated.users)
        ),
    );
    let passed: Vec<_> = told.iter().filter(|told| told.passes()).map(Told::name).collect();
    findings.concept(
        10,
        format!(
            "{} of 6 shops were restarted without anybody noticing: {}.",
            passed.len(),
            passed.join(", ")
        ),
    );
}

fn show(findings: &mut Findings, told: &[Told; 6]) {
    let row = |told: &Told| {
        let works = |works: usize| format!("{works} of {}", told.users);
        vec![
            told.name(),
            told.answered_by.clone(),
            works(told.works),
            if told.passes() { "✅".into() } else { "❌".into() },
            works(told.works_after_all),
        ]
    };
    let columns = [
        "sessions",
        "3. next request went to",
        "4. it worked for",
        "the test's verdict",
        "after all three restarted",
    ];
    findings.show(Table {
        title: "Can you restart any server?".into(),
        note: "Everybody had logged in through replica 1, which was then restarted. It worked when the user was logged in and the cart was whole."
            .into(),
        columns: columns.map(Into::into).to_vec(),
        rows: told.iter().map(row).collect(),
    });
    findings.show(Text {
        title: "The balancer's file".into(),
        note: "POLICY is round_robin, and once sticky_cookie. Where the next request goes is forced by \
               stopping the other replicas in Pintle; they run on."
            .into(),
        text: super::TOML.trim().into(),
    });
}
