//! A replica leaves while its members talk: drained with a deadline, or killed.

use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::member::{Account, END, Member, Return};
use super::replica::Way;
use super::{Accounts, Chat, STICKY};
use crate::harness::figures::share;
use crate::harness::{Findings, Lines, Outcome, Series, Stage, quote};
use crate::store::Store;

/// Who leaves.
const LEAVES: &str = "r2";
/// Signs of life that each member of the draining replica asks for.
const PINGS: usize = 3;
/// Between two messages of the speaker: the pace of the talk.
const PAUSE: Duration = Duration::from_millis(25);
/// How many messages were heard before a replica is killed.
const WARM: usize = 3;
/// How long all members may take to come back; more than any jitter here.
const PATIENCE: Duration = Duration::from_secs(6);
const BUCKET: Duration = Duration::from_millis(50);
const JITTER: Duration = Duration::from_secs(1);

/// Pintle leaves the sockets of a draining replica alone until this much of its time is left; up to
/// five seconds of it, that is what it keeps as closing time.
const CLOSING: Duration = Duration::from_secs(1);

/// Sockets are left alone until closing time, then closed one after the other; members come back
/// elsewhere.
pub async fn drained(
    stage: &Stage,
    store: &Store,
    findings: &mut Findings,
    accounts: &mut Accounts,
) -> Outcome<()> {
    let chat = Chat::open(stage, STICKY, Way::Log, Some(store), "drained").await?;
    let deadline = Duration::from_millis(stage.pick(1_800, 2_000, 4_000));
    let members = chat.members("drained", stage.pick(18, 45, 90)).await?;
    let speaker = chat.speaker("drained", LEAVES).await?;
    let (mut leaving, staying): (Vec<_>, Vec<_>) =
        members.into_iter().partition(|member| member.seat == LEAVES);
    let sockets = leaving.len();
    chat.balancer.wait_until(LEAVES, |view| view.tunnels == sockets as u64).await?;

    let begun = Instant::now();
    let talked = async {
        chat.balancer.wait_until(LEAVES, |view| view.state != "active").await?;
        let mut answered = 0;
        for _ in 0..PINGS {
            for member in &mut leaving {
                answered += usize::from(member.ping().await.is_ok());
            }
        }
        let members = leaving.into_iter().chain(staying).collect();
        let talk = Talk::begin(members, speaker, JITTER / 5, &mut stage.chance("drained")).await;
        Outcome::Ok((answered, talk.end(sockets).await?))
    };
    let (drain, talked) = tokio::join!(chat.balancer.drain("chat/r2", deadline), talked);
    let (drain, (answered, scene)) = (drain?, talked?);

    let noticed = scene.returns.iter().filter_map(|back| back.handshakes.first());
    let first = noticed.min().map(|at| at.saturating_duration_since(begun)).unwrap_or_default();
    findings.holds(
        "websocket.drain_leaves_sockets",
        quote("Strategy 1: Sticky Sessions", "Deployment requires draining"),
        format!(
            "{} answered by {LEAVES} while it was draining; the first member came back after {:.1} s, the \
             deadline was {deadline:?}",
            share(answered, sockets * PINGS),
            first.as_secs_f64()
        ),
        sockets * PINGS,
        answered == sockets * PINGS && sockets > 0 && first + CLOSING >= deadline,
        "A drain sends nobody new and leaves open sockets alone until its closing time.",
    );
    let on_it = scene.members.iter().filter(|member| member.seat == LEAVES).count();
    let account = accounts.add("drain, resumed by number", scene.account());
    findings.holds(
        "websocket.drain_moves_members",
        quote("Step 4: Verify Statelessness", "Can you restart any server without affecting users?"),
        format!(
            "{} sockets closed with 1012 and {} cut, {} came back, {on_it} of them to {LEAVES}; {account}",
            drain.websockets_closed,
            drain.tunnels_cut,
            share(scene.returns.len(), sockets)
        ),
        sockets,
        drain.websockets_closed == sockets as u64
            && drain.tunnels_cut == 0
            && scene.returns.len() == sockets
            && on_it == 0
            && account.exact(),
        "Before the deadline each socket is closed between two messages, with a code that says why; a \
         member shows its cookie, is dealt another replica, and resumes where it was.",
    );
    chat.close(scene.members).await;
    Ok(())
}

/// SIGKILL, twice from the same start: everybody comes back at once, or at moments of chance.
pub async fn killed(
    stage: &Stage,
    store: &Store,
    findings: &mut Findings,
    accounts: &mut Accounts,
) -> Outcome<()> {
    let at_once = kill(stage, store, "at-once", Duration::ZERO).await?;
    let spread = kill(stage, store, "spread", JITTER).await?;
    accounts.add("kill, everybody back at once", at_once.account);
    accounts.add("kill, back after a random pause", spread.account);
    let (sockets, back) = (at_once.sockets + spread.sockets, at_once.back + spread.back);
    findings.holds(
        "websocket.kill",
        quote("Key Concepts to Remember", "Test by restarting servers - users shouldn't notice"),
        format!("{} came back in two kills; {}; {}", share(back, sockets), at_once.account, spread.account),
        sockets,
        back == sockets && sockets > 0 && at_once.account.exact() && spread.account.exact(),
        "The sockets died with their replica, and what was said meanwhile was in the store.",
    );
    findings.weigh(
        "websocket.jitter",
        quote("Key Concepts to Remember", "WebSockets are inherently stateful - need special handling"),
        format!(
            "{} handshakes in the busiest 50 ms without jitter, {} with a random pause of up to 1 s",
            at_once.peak(),
            spread.peak()
        ),
        sockets,
        spread.peak() < at_once.peak(),
        "A replica's sockets all break in the same moment; a random pause keeps their return from being \
         a second blow.",
    );
    let series = |name: &str, kill: &Kill| Series { name: name.into(), points: kill.points() };
    findings.show(Lines {
        title: "Handshakes after a replica was killed".into(),
        note: format!(
            "The {} members of the killed replica come back: at once, or each after a random pause.",
            at_once.sockets
        ),
        x: "milliseconds after the kill".into(),
        y: "handshakes in 50 ms".into(),
        series: vec![series("without jitter", &at_once), series("with jitter of up to 1 s", &spread)],
        marks: vec![(0.0, format!("{LEAVES} is killed"))],
    });
    Ok(())
}

struct Kill {
    account: Account,
    sockets: usize,
    back: usize,
    /// Handshakes in each [`BUCKET`] after the kill.
    buckets: Vec<usize>,
}

impl Kill {
    fn peak(&self) -> usize {
        self.buckets.iter().copied().max().unwrap_or(0)
    }

    fn points(&self) -> Vec<(f64, f64)> {
        let at = |bucket: usize| (bucket as u128 * BUCKET.as_millis()) as f64;
        self.buckets.iter().enumerate().map(|(bucket, count)| (at(bucket), *count as f64)).collect()
    }
}

async fn kill(stage: &Stage, store: &Store, room: &str, jitter: Duration) -> Outcome<Kill> {
    let mut chat = Chat::open(stage, STICKY, Way::Log, Some(store), room).await?;
    let members = chat.members(room, stage.pick(60, 180, 450)).await?;
    let speaker = chat.speaker(room, LEAVES).await?;
    let sockets = members.iter().filter(|member| member.seat == LEAVES).count();

    let talk = Talk::begin(members, speaker, jitter, &mut stage.chance(room)).await;
    let killed = Instant::now();
    chat.replicas.iter_mut().filter(|replica| replica.name == LEAVES).for_each(|replica| replica.kill());
    let scene = talk.end(sockets).await?;

    let span = (JITTER + 4 * BUCKET).as_millis() / BUCKET.as_millis();
    let mut buckets = vec![0; span as usize];
    for handshake in scene.returns.iter().flat_map(|back| &back.handshakes) {
        let bucket = handshake.saturating_duration_since(killed).as_millis() / BUCKET.as_millis();
        let last = buckets.len() - 1;
        buckets[last.min(bucket as usize)] += 1;
    }
    let back = scene.members.iter().filter(|member| member.seat != LEAVES).count();
    let stayed = scene.members.len() - sockets;
    let kill = Kill { account: scene.account(), sockets, back: back - stayed, buckets };
    chat.close(scene.members).await;
    Ok(kill)
}

/// Members who listen and come back, and one who speaks all the while.
struct Talk {
    members: JoinSet<Member>,
    returns: UnboundedReceiver<Return>,
    speaker: tokio::task::JoinHandle<Outcome<Vec<String>>>,
    stop: watch::Sender<bool>,
}

/// What is left when everybody has heard the last word.
struct Scene {
    members: Vec<Member>,
    said: Vec<String>,
    returns: Vec<Return>,
}

impl Scene {
    fn account(&self) -> Account {
        Account::of(&self.members, &self.said)
    }
}

impl Talk {
    /// Begins to listen and to speak; ready when the first messages were said. Each member that
    /// comes back waits for a random part of `jitter` first.
    async fn begin(
        members: Vec<Member>,
        speaker: Member,
        jitter: Duration,
        chance: &mut fastrand::Rng,
    ) -> Self {
        let (sender, returns) = unbounded_channel();
        let (stop, stopped) = watch::channel(false);
        let (warm, mut warmed) = watch::channel(0);
        let mut stay = |member: Member| member.stay(jitter.mul_f64(chance.f64()), sender.clone());
        let members = members.into_iter().map(&mut stay).collect();
        let speaker = tokio::spawn(speak(speaker, warm, stopped));
        let _ = warmed.wait_for(|said| *said >= WARM).await;
        Self { members, returns, speaker, stop }
    }

    /// Lets everybody who lost a socket come back, has the last word said, and waits until all
    /// have heard it.
    async fn end(mut self, expected: usize) -> Outcome<Scene> {
        let mut returns = Vec::new();
        let coming = async {
            while returns.len() < expected {
                let Some(back) = self.returns.recv().await else { break };
                returns.push(back);
            }
        };
        let _ = tokio::time::timeout(PATIENCE, coming).await;
        self.stop.send_replace(true);
        let said = self.speaker.await??;
        let members = self.members.join_all().await;
        while let Ok(back) = self.returns.try_recv() {
            returns.push(back);
        }
        Ok(Scene { members, said, returns })
    }
}

async fn speak(
    mut speaker: Member,
    warm: watch::Sender<usize>,
    stopped: watch::Receiver<bool>,
) -> Outcome<Vec<String>> {
    let mut said = Vec::new();
    while !*stopped.borrow() {
        let text = format!("{}-{}", speaker.room, said.len() + 1);
        speaker.say(&text).await?;
        said.push(text);
        warm.send_replace(said.len());
        tokio::time::sleep(PAUSE).await;
    }
    speaker.say(END).await?;
    said.push(END.into());
    Ok(said)
}
