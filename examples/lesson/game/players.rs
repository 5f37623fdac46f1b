//! Players: they step around in their matches, and count what a server has forgotten.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::task::JoinSet;

use super::server::{Direction, Position};
use crate::harness::{Browser, Outcome};

/// How many play in a match.
pub const PLAYERS: usize = 4;
/// How many connections carry them all.
const LINES: usize = 8;

/// Four players in a match, and what they believe.
#[derive(Clone, Debug)]
pub struct Party {
    pub name: String,
    players: Vec<Player>,
}

#[derive(Clone, Debug)]
struct Player {
    name: String,
    /// Each comes from an address of their own.
    ip: Ipv4Addr,
    position: Position,
    server: String,
}

/// What became of a match after something happened to the servers.
#[derive(Clone, Debug, Default)]
pub struct Fate {
    /// Its players were answered by another server than before.
    pub moved: bool,
    /// The server remembered nothing of it.
    pub anew: bool,
    /// Players who lost steps, all of these, and the most that one of them lost.
    pub players: usize,
    pub steps: u64,
    pub worst: u64,
    /// Steps that were not answered.
    pub failed: usize,
    /// By how many servers its players were answered.
    pub servers: usize,
}

impl Party {
    pub fn new(number: usize, name: String) -> Self {
        let player = |seat| Player {
            name: format!("p{seat}"),
            ip: Ipv4Addr::from_bits(0x0a02_0000 + (number * PLAYERS + seat) as u32),
            position: Position::default(),
            server: String::new(),
        };
        Self { name, players: (0..PLAYERS).map(player).collect() }
    }

    /// Where the match is played; the first player's server when they are scattered.
    pub fn server(&self) -> &str {
        &self.players[0].server
    }

    /// Everybody takes so many steps in turn. The first of them shows what the server remembers.
    async fn play(
        &mut self,
        browser: &mut Browser,
        rounds: usize,
        chance: &mut fastrand::Rng,
    ) -> Outcome<Fate> {
        let mut fate = Fate::default();
        let (mut servers, mut remembered) = (BTreeSet::new(), 0);
        let had: u64 = self.players.iter().map(|player| player.position.steps).sum();
        for round in 0..rounds {
            for player in &mut self.players {
                let direction = Direction { x: chance.i64(-1..=1), y: chance.i64(-1..=1) };
                let path = format!("/step?match={}&player={}", self.name, player.name);
                browser.ip = player.ip;
                let answer = browser.post(&path, &direction).await;
                if !answer.ok() {
                    fate.failed += 1;
                    continue;
                }
                let now: Position = answer.body()?;
                if round == 0 {
                    let lost = (player.position.steps + 1).saturating_sub(now.steps);
                    remembered += now.steps - 1;
                    fate.players += usize::from(lost > 0);
                    fate.steps += lost;
                    fate.worst = fate.worst.max(lost);
                    fate.moved |= !player.server.is_empty() && player.server != answer.replica();
                }
                servers.insert(answer.replica().to_owned());
                player.server = answer.replica().into();
                player.position = now;
            }
        }
        fate.anew = had > 0 && remembered == 0;
        fate.servers = servers.len();
        Ok(fate)
    }
}

/// All matches at once, over a few connections. Fates come in the order of the matches.
pub async fn play(
    at: SocketAddr,
    parties: &mut [Party],
    rounds: usize,
    chance: &mut fastrand::Rng,
) -> Outcome<Vec<Fate>> {
    let mut playing = JoinSet::new();
    let size = parties.len().div_ceil(LINES).max(1);
    for (line, some) in parties.chunks(size).enumerate() {
        let (mut some, mut chance) = (some.to_vec(), chance.fork());
        playing.spawn(async move {
            let mut browser = Browser::new(at, Ipv4Addr::LOCALHOST);
            let mut fates = Vec::new();
            for party in &mut some {
                fates.push(party.play(&mut browser, rounds, &mut chance).await?);
            }
            Outcome::Ok((line, some, fates))
        });
    }
    let mut lines = Vec::new();
    while let Some(line) = playing.join_next().await {
        lines.push(line??);
    }
    lines.sort_by_key(|(line, ..)| *line);
    let (mut fates, mut seats) = (Vec::new(), parties.iter_mut());
    for (_, some, theirs) in lines {
        some.into_iter().zip(&mut seats).for_each(|(party, seat)| *seat = party);
        fates.extend(theirs);
    }
    Ok(fates)
}

/// Which server each match id leads to, asked of the balancer.
pub async fn places(at: SocketAddr, ids: &[String]) -> Outcome<Vec<String>> {
    let mut asking = JoinSet::new();
    for (line, some) in ids.chunks(ids.len().div_ceil(LINES).max(1)).enumerate() {
        let some = some.to_vec();
        asking.spawn(async move {
            let mut browser = Browser::new(at, Ipv4Addr::LOCALHOST);
            let mut places = Vec::new();
            for id in some {
                places.push(browser.get(&format!("/where?match={id}")).await.replica().to_owned());
            }
            (line, places)
        });
    }
    let mut lines = asking.join_all().await;
    lines.sort_unstable();
    Ok(lines.into_iter().flat_map(|(_, places)| places).collect())
}
