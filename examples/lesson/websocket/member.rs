//! A member of a chat room: one socket, one cookie, and an exact account of what was heard.
//!
//! Start at [`Member::stay`], how a good client behaves when its socket breaks: it waits a random
//! moment, comes back with its cookie, and says which message it heard last.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::http::header;
use cookie::Cookie;
use futures_util::{SinkExt, StreamExt};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use super::replica::{Ask, Word};
use crate::harness::Outcome;
use crate::harness::websocket::{Socket, connect};

/// Longer than any word takes; what has not come by then counts as lost.
const LIMIT: Duration = Duration::from_secs(8);
/// Between two attempts to come back, and how many there are.
const RETRY: Duration = Duration::from_millis(50);
const ATTEMPTS: usize = 60;
/// The last message of a scene: who has heard it has heard all that will come.
pub const END: &str = "end";

pub struct Member {
    pub user: String,
    pub room: String,
    /// The replica that holds the socket.
    pub seat: String,
    /// How often each message was shown.
    pub shown: HashMap<String, usize>,
    /// Pongs, by the replica that sent them.
    pub pongs: HashMap<String, usize>,
    at: SocketAddr,
    cookie: Option<String>,
    socket: Option<Socket>,
    /// The number of the last message shown: what a resume asks to continue after.
    last: u64,
    /// Messages that overtook others on their way between replicas. They wait for their turn, and
    /// are forgotten with the socket: the resume brings them again.
    early: BTreeMap<u64, String>,
}

/// A comeback, as the member saw it.
#[derive(Debug)]
pub struct Return {
    /// When its handshakes were sent; the last one was accepted.
    pub handshakes: Vec<Instant>,
}

impl Member {
    pub async fn join(at: SocketAddr, room: &str, user: &str) -> Outcome<Self> {
        let mut member = Self {
            user: user.into(),
            room: room.into(),
            seat: String::new(),
            shown: HashMap::new(),
            pongs: HashMap::new(),
            at,
            cookie: None,
            socket: None,
            last: 0,
            early: BTreeMap::new(),
        };
        member.enter().await?;
        Ok(member)
    }

    /// Opens the socket, with the cookie if there is one, and waits for the replica's welcome: from
    /// then on the room's messages reach this member.
    pub async fn enter(&mut self) -> Outcome<()> {
        let path = format!("/ws?room={}&user={}&after={}", self.room, self.user, self.last);
        let cookie = self.cookie.clone();
        let headers: Vec<_> = cookie.iter().map(|cookie| ("cookie", cookie.as_str())).collect();
        let (socket, answer) = timeout(LIMIT, connect(self.at, &path, &headers)).await??;
        self.early.clear();
        self.socket = Some(socket);
        let set = answer.get(header::SET_COOKIE).and_then(|line| line.to_str().ok());
        if let Some(cookie) = set.and_then(|line| Cookie::parse(line).ok()) {
            self.cookie = Some(format!("{}={}", cookie.name(), cookie.value()));
        }
        self.seat.clear();
        self.hear_until(|member| !member.seat.is_empty()).await
    }

    /// Goes away without a word, as a telephone in a tunnel does.
    pub fn leave(&mut self) {
        self.socket = None;
    }

    pub async fn ask(&mut self, ask: &Ask) -> Outcome<()> {
        let socket = self.socket.as_mut().ok_or("there is no socket")?;
        Ok(socket.send(Message::text(serde_json::to_string(ask)?)).await?)
    }

    /// Says something, and waits until it comes back: then the room has it.
    pub async fn say(&mut self, text: &str) -> Outcome<()> {
        self.ask(&Ask::Say(text.into())).await?;
        self.hear_until(|member| member.shown.contains_key(text)).await
    }

    /// Asks the replica for a sign of life. All that it had for this member came before.
    pub async fn ping(&mut self) -> Outcome<()> {
        let before: usize = self.pongs.values().sum();
        self.ask(&Ask::Ping).await?;
        self.hear_until(|member| member.pongs.values().sum::<usize>() > before).await
    }

    /// Listens until something is so; an error when the socket breaks or too much time passes.
    pub async fn hear_until(&mut self, so: impl Fn(&Self) -> bool) -> Outcome<()> {
        let listening = async {
            while !so(self) {
                let socket = self.socket.as_mut().ok_or("there is no socket")?;
                let frame = socket.next().await.ok_or("the socket has ended")??;
                match frame {
                    Message::Text(text) => self.heard(serde_json::from_str(&text)?),
                    Message::Close(_) => return Err("the socket was closed".into()),
                    _ => {}
                }
            }
            Ok(())
        };
        timeout(LIMIT, listening).await?
    }

    fn heard(&mut self, word: Word) {
        match word {
            Word::Welcome { by } => self.seat = by,
            Word::Pong { by } => *self.pongs.entry(by).or_default() += 1,
            Word::Told { text } | Word::Said { seq: 0, text } => self.show(text),
            // Its number was shown before: a double, and counted as one.
            Word::Said { seq, text } if seq <= self.last => self.show(text),
            Word::Said { seq, text } => {
                self.early.insert(seq, text);
                while let Some(text) = self.early.remove(&(self.last + 1)) {
                    self.last += 1;
                    self.show(text);
                }
            }
        }
    }

    fn show(&mut self, text: String) {
        *self.shown.entry(text).or_default() += 1;
    }

    /// Listens until the scene's last message, and comes back whenever the socket breaks: after a
    /// pause of its own, so that not everybody knocks at the same moment.
    pub async fn stay(mut self, pause: Duration, returns: UnboundedSender<Return>) -> Self {
        let patience = Instant::now() + LIMIT;
        while self.hear_until(|member| member.shown.contains_key(END)).await.is_err() {
            if Instant::now() > patience {
                break;
            }
            tokio::time::sleep(pause).await;
            let mut handshakes = vec![Instant::now()];
            while self.enter().await.is_err() && handshakes.len() < ATTEMPTS {
                tokio::time::sleep(RETRY).await;
                handshakes.push(Instant::now());
            }
            let _ = returns.send(Return { handshakes });
        }
        self
    }
}

/// What a group was sent and what it heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    pub due: usize,
    pub received: usize,
    pub lost: usize,
    pub doubled: usize,
}

impl Account {
    /// Every member should have been shown each of `texts` exactly once.
    pub fn of<'a>(members: impl IntoIterator<Item = &'a Member>, texts: &[String]) -> Self {
        let mut account = Self::default();
        for member in members {
            for text in texts {
                let times = member.shown.get(text).copied().unwrap_or(0);
                account.due += 1;
                account.received += times.min(1);
                account.lost += usize::from(times == 0);
                account.doubled += times.saturating_sub(1);
            }
        }
        account
    }

    pub fn exact(self) -> bool {
        self.due > 0 && self.lost == 0 && self.doubled == 0
    }
}

impl std::iter::Sum for Account {
    fn sum<I: Iterator<Item = Self>>(accounts: I) -> Self {
        accounts.fold(Self::default(), |sum, next| Self {
            due: sum.due + next.due,
            received: sum.received + next.received,
            lost: sum.lost + next.lost,
            doubled: sum.doubled + next.doubled,
        })
    }
}

impl std::fmt::Display for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { due, received, lost, doubled } = self;
        write!(f, "{received} of {due} received, {lost} lost, {doubled} doubled")
    }
}
