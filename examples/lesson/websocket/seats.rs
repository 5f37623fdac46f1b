//! Who sits where: a socket, a room, a comeback with a cookie, and HTTP beside it.

use std::net::Ipv4Addr;

use super::member::{Account, Member};
use super::replica::Way;
use super::{Accounts, Chat, HYBRID, REPLICAS, texts};
use crate::harness::figures::share;
use crate::harness::{Browser, Findings, Outcome, Stage, quote};
use crate::store::Store;

/// A socket that is open is served by the replica that it was opened on, message after message.
pub async fn socket_stays(stage: &Stage, chat: &Chat, findings: &mut Findings) -> Outcome<()> {
    let (sockets, pings) = (stage.pick(12, 30, 90), stage.pick(10, 20, 40));
    let mut members = chat.members("stays", sockets).await?;
    for _ in 0..pings {
        for member in &mut members {
            member.ping().await?;
        }
    }
    let same = |member: &Member| member.pongs.get(&member.seat).copied().unwrap_or(0);
    let (same, all) = (members.iter().map(same).sum::<usize>(), sockets * pings);
    let seats = REPLICAS.map(|name| members.iter().filter(|member| member.seat == name).count());
    findings.holds(
        "websocket.stays",
        quote("WebSocket Connections", "Can't just switch servers mid-connection!"),
        format!("{} answered by the replica that opened the socket", share(same, all)),
        all,
        same == all && seats.iter().all(|seated| *seated > 0),
        "After the handshake a socket is a tunnel to one replica, and no balancer can move it.",
    );
    findings.concept(
        8,
        format!(
            "{sockets} sockets sat on 3 replicas, and {same} of {all} messages were answered where they sat"
        ),
    );
    Ok(())
}

/// A room in a replica's memory is three rooms.
pub async fn room_in_memory(
    stage: &Stage,
    chat: &Chat,
    findings: &mut Findings,
    accounts: &mut Accounts,
) -> Outcome<()> {
    let mut members = chat.members("memory", stage.pick(12, 30, 90)).await?;
    let said = texts("memory", stage.pick(10, 20, 40));
    for text in &said {
        members[0].say(text).await?;
    }
    for member in &mut members {
        member.ping().await?; // what its replica had for it came before the pong
    }
    let here = members.iter().filter(|member| member.seat == members[0].seat).count();
    let account = accounts.add("room in one replica's memory", Account::of(&members, &said));
    findings.holds(
        "websocket.memory_room",
        quote("Key Concepts to Remember", "WebSockets are inherently stateful - need special handling"),
        format!(
            "{} missed; the speaker's replica held {here} of {} members",
            share(account.lost, account.due),
            members.len()
        ),
        account.due,
        account.lost == (members.len() - here) * said.len() && account.lost > 0,
        "A replica can only pass a message on to sockets that it holds; members on the others hear nothing.",
    );
    Ok(())
}

/// Who comes back with its cookie sits where it sat.
pub async fn handshake_sticks(stage: &Stage, chat: &Chat, findings: &mut Findings) -> Outcome<()> {
    let (clients, times) = (stage.pick(20, 40, 100), 3);
    let mut members = chat.members("sticky", clients).await?;
    let same = come_back(stage, &mut members, times).await?;
    findings.holds(
        "websocket.sticky",
        quote("WebSocket Connections", "Same client → same server (for WebSocket)"),
        format!("{} reconnects came back to the replica of before", share(same, clients * times)),
        clients * times,
        same == clients * times,
        "The handshake is a plain HTTP request: it shows the cookie that the first answer set, and is \
         dealt by it.",
    );
    Ok(())
}

/// Everybody closes and reconnects, in an order of chance, so that taking turns cannot bring
/// anybody back by arithmetic. How often somebody got the same replica.
async fn come_back(stage: &Stage, members: &mut [Member], times: usize) -> Outcome<usize> {
    let (mut chance, mut same) = (stage.chance("come back"), 0);
    for _ in 0..times {
        chance.shuffle(members);
        for member in &mut *members {
            let before = member.seat.clone();
            member.leave();
            member.enter().await?;
            same += usize::from(member.seat == before);
        }
    }
    Ok(same)
}

/// The same people use HTTP and a WebSocket; the path decides what is sticky.
pub async fn hybrid(stage: &Stage, store: &Store, findings: &mut Findings) -> Outcome<()> {
    let chat = Chat::open(stage, HYBRID, Way::Log, Some(store), "hybrid").await?;
    let people = stage.pick(10, 20, 50);
    let (requests, reconnects) = (6, 3);
    let mut members = chat.members("hybrid", people).await?;
    members[0].say("hello").await?;

    let mut served = [0; REPLICAS.len()];
    let (mut fed_by_several, mut right) = (0, 0);
    for number in 0..people {
        let mut browser = Browser::new(chat.at(), Ipv4Addr::new(10, 8, 0, number as u8));
        let mut mine = [0; REPLICAS.len()];
        for _ in 0..requests {
            let answer = browser.get("/api/rooms/hybrid").await;
            right += usize::from(answer.json()[0]["Said"]["text"] == "hello");
            if let Some(place) = REPLICAS.iter().position(|name| *name == answer.replica()) {
                mine[place] += 1;
                served[place] += 1;
            }
        }
        fed_by_several += usize::from(mine.iter().filter(|times| **times > 0).count() == REPLICAS.len());
    }
    let same = come_back(stage, &mut members, reconnects).await?;

    let (all, back) = (people * requests, people * reconnects);
    let even = served.iter().all(|served| *served * 4 >= all);
    findings.holds(
        "websocket.hybrid",
        quote(
            "Pattern 2: Hybrid (Stateless HTTP + Stateful WebSocket)",
            "HTTP: Fully stateless, any pod. WebSocket: Sticky to specific pod, Redis for cross-pod messaging",
        ),
        format!(
            "HTTP {served:?} over r1, r2, r3, {} people by all three, {right} answers right; {} handshakes \
             back to their replica",
            share(fed_by_several, people),
            share(same, back)
        ),
        all + back,
        even && fed_by_several == people && right == all && same == back,
        "One replica plays both parts: a request needs no memory of the one before, a socket needs its seat.",
    );
    chat.close(members).await;
    Ok(())
}
