//! Messages from replica to replica: published to all, sent where the registry says, and what
//! becomes of those that are said while a member is away.

use super::member::{Account, Member};
use super::replica::{Ask, Way};
use super::{Accounts, Chat, REPLICAS, STICKY, texts};
use crate::harness::figures::share;
use crate::harness::http::Http;
use crate::harness::{Findings, Outcome, Stage, quote};
use crate::store::Store;

/// Speakers on all three replicas; everybody must be shown everything once.
pub async fn published(
    stage: &Stage,
    chat: &Chat,
    findings: &mut Findings,
    accounts: &mut Accounts,
) -> Outcome<()> {
    let mut members = chat.members("published", stage.pick(15, 30, 90)).await?;
    let said = texts("published", stage.pick(12, 45, 120));
    for (number, text) in said.iter().enumerate() {
        members[number % REPLICAS.len()].say(text).await?;
    }
    settle(&mut members, &said).await;
    let account = accounts.add("pub/sub, everybody connected", Account::of(&members, &said));
    findings.holds(
        "websocket.pubsub",
        quote(
            "WebSocket Connections",
            "Servers publish/subscribe through Redis. Messages reach correct client",
        ),
        format!("{} messages × {} members: {account}", said.len(), members.len()),
        account.due,
        account.exact(),
        "Each replica hears what any replica publishes, and passes it on to the sockets that it holds.",
    );
    Ok(())
}

/// Each member listens until it has been shown all of `texts`, then asks for a sign of life: a
/// double that is on its way comes before the pong. Who hears less gives up and is counted as such.
async fn settle(members: &mut [Member], texts: &[String]) {
    for member in members {
        let _ = member.hear_until(|member| texts.iter().all(|text| member.shown.contains_key(text))).await;
        let _ = member.ping().await;
    }
}

/// Direct messages, with the registry and without.
pub async fn registry(
    stage: &Stage,
    chat: &Chat,
    findings: &mut Findings,
    accounts: &mut Accounts,
) -> Outcome<()> {
    let mut members = chat.members("registry", stage.pick(12, 30, 90)).await?;
    let count = members.len();
    let http = Http::default();

    let before = handled(chat, &http).await?;
    let account = direct(&mut members, |to, text| Ask::Tell { to, text }).await?;
    let between = handled(chat, &http).await?;
    let to_all = direct(&mut members, |to, text| Ask::Shout { to, text }).await?;
    let after = handled(chat, &http).await?;
    accounts.add("direct, by the registry", account);
    accounts.add("direct, sent to all replicas", to_all);

    let (by_registry, by_all) = (between - before, after - between);
    findings.holds(
        "websocket.registry",
        quote(
            "WebSocket Connections",
            "Track which server holds which connection. Route messages accordingly",
        ),
        format!(
            "{count} direct messages: {account}; replicas looked at them {by_registry} times, and {by_all} \
             times without the registry"
        ),
        count,
        account.exact() && to_all.exact() && by_registry == count && by_all == count * REPLICAS.len(),
        "The store knows which replica holds the member: one replica does the work, however many there are.",
    );
    Ok(())
}

/// Everybody writes to the one two seats on, who sits on another replica. Whoever was shown
/// anything else than the own message makes it a double.
async fn direct(members: &mut [Member], ask: impl Fn(String, String) -> Ask) -> Outcome<Account> {
    let count = members.len();
    for number in 0..count {
        let to = members[(number + 2) % count].user.clone();
        let text = format!("for {to}");
        members[number].ask(&ask(to, text)).await?;
    }
    let mut accounts = Vec::new();
    for member in members {
        let text = [format!("for {}", member.user)];
        settle(std::slice::from_mut(member), &text).await;
        let mut account = Account::of([&*member], &text);
        account.doubled = member.shown.values().sum::<usize>() - account.received;
        member.shown.clear();
        accounts.push(account);
    }
    Ok(accounts.into_iter().sum())
}

/// How many direct messages the replicas had to look at.
async fn handled(chat: &Chat, http: &Http) -> Outcome<usize> {
    let mut sum = 0;
    for replica in &chat.replicas {
        sum += http.get(replica.address, "/handled").await?.as_u64().ok_or("a number is expected")?;
    }
    Ok(sum as usize)
}

/// Half the members are away while something is said; with pub/sub alone, and with the room's
/// last messages in the store.
pub async fn away(
    stage: &Stage,
    store: &Store,
    findings: &mut Findings,
    accounts: &mut Accounts,
) -> Outcome<()> {
    let scene = "pub/sub alone, half the members away for a while";
    let (account, missed) = absence(stage, store, Way::PubSub, "forgets").await?;
    accounts.add(scene, account);
    findings.fails(
        "websocket.pubsub_away",
        quote("WebSocket Connections", "Messages reach correct client"),
        format!("{} lost; {missed} were said to members who were away", share(account.lost, account.due)),
        account.due,
        account.lost == 0,
        "Pub/sub keeps nothing: a message goes to who listens at that moment, and to nobody later.",
    );
    let scene = "pub/sub and the room's log, half away, resumed by number";
    let (account, missed) = absence(stage, store, Way::Log, "resumes").await?;
    accounts.add(scene, account);
    findings.holds(
        "websocket.resume",
        quote("Step 2: Externalize State", "WebSocket → Add Pub/Sub layer"),
        format!("{account}; {missed} of them were said to members who were away"),
        account.due,
        account.exact() && missed > 0,
        "Each message has a number and the store keeps the last 500 of a room: a member says which it \
         was shown last, and gets what came after.",
    );
    Ok(())
}

/// The account, and how many (message, member) pairs fell into an absence.
async fn absence(stage: &Stage, store: &Store, way: Way, room: &str) -> Outcome<(Account, usize)> {
    let chat = Chat::open(stage, STICKY, way, Some(store), room).await?;
    let mut members = chat.members(room, stage.pick(12, 30, 90)).await?;
    let each = stage.pick(6, 15, 40);
    let (before, during, after) = (texts("before", each), texts("during", each), texts("after", each));
    let half = members.len() / 2;
    talk(&mut members[0], &before).await?;
    settle(&mut members, &before).await;
    for member in &mut members[half..] {
        member.leave();
    }
    talk(&mut members[0], &during).await?;
    for member in &mut members[half..] {
        member.enter().await?;
    }
    talk(&mut members[0], &after).await?;
    // One replica publishes in order: who was shown the last has been shown all that will come.
    settle(&mut members, &after).await;
    let all: Vec<_> = before.into_iter().chain(during).chain(after).collect();
    let account = Account::of(&members, &all);
    let missed = (members.len() - half) * each;
    chat.close(members).await;
    Ok((account, missed))
}

async fn talk(speaker: &mut Member, texts: &[String]) -> Outcome<()> {
    for text in texts {
        speaker.say(text).await?;
    }
    Ok(())
}
