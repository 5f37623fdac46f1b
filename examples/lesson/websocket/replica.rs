//! The app: a replica of the chat, in three ways that differ in a line or two, see [`Way`].
//!
//! Start at [`talk`], the life of one socket. Whatever the way, the socket itself stays here: it is
//! the one piece of state that cannot be put elsewhere. A store can only carry what is said.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{Request, StatusCode};
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use futures_util::{SinkExt, StreamExt};
use redis::cmd;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::{Receiver, Sender, WeakSender, channel};
use tokio_tungstenite::tungstenite::Message;

use crate::harness::child::{self, Setup};
use crate::harness::websocket::{Accepted, accept};
use crate::harness::{Boxed, Outcome};
use crate::store::{Client, Link};

/// What the replicas share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    /// Nothing: a room is who sits here.
    Memory,
    /// What is said is published in the store, and every replica listens.
    PubSub,
    /// The same, and the store keeps the room's last messages with a number each.
    Log,
}

/// What a replica is told at its start.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    pub way: Way,
    /// Where the store is; needed by all ways but [`Way::Memory`].
    pub store: Option<String>,
    /// Before every key and channel, so that two scenes can share a store.
    pub space: String,
}

/// What a member asks over the socket.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Ask {
    Ping,
    Say(String),
    /// A direct message, sent to the replica that the registry names.
    Tell {
        to: String,
        text: String,
    },
    /// The same without a registry: every replica must look.
    Shout {
        to: String,
        text: String,
    },
}

/// What a member hears. A room's message has the number 0 where nothing numbers them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Word {
    Welcome { by: String },
    Pong { by: String },
    Said { seq: u64, text: String },
    Told { text: String },
}

/// What replicas send each other through the store.
#[derive(Debug, Serialize, Deserialize)]
enum Letter {
    Room { room: String, word: Word },
    User { user: String, word: Word },
}

/// How many words may wait for a slow member before it is cut off.
const INBOX: usize = 1024;
const TOO_SLOW: &str = "this member does not take its words in time";
/// How many messages of a room the store keeps.
pub const KEPT: isize = 500;

#[derive(Clone, Deserialize)]
struct Guest {
    room: String,
    user: String,
    /// The number of the last message that it was shown.
    after: u64,
}

struct Chat {
    name: String,
    order: Order,
    store: Option<Client>,
    /// The members that sit here, by ticket.
    seats: Mutex<HashMap<u64, (Guest, Sender<Word>)>>,
    tickets: AtomicU64,
    /// Direct messages that this replica had to look at.
    handled: AtomicUsize,
}

pub fn role(setup: Setup) -> Boxed<'static, Outcome<()>> {
    Box::pin(async {
        let order: Order = setup.order()?;
        let store = match &order.store {
            Some(url) => Some(Client::connect(url, Link::Multiplexed).await?),
            None => None,
        };
        let (name, seats) = (setup.name.clone(), Mutex::default());
        let (tickets, handled) = (AtomicU64::new(0), AtomicUsize::new(0));
        let chat = Arc::new(Chat { name, order, store, seats, tickets, handled });
        chat.clone().listen().await?;
        let app = Router::new()
            .route("/ws", get(open))
            .route("/api/rooms/{room}", get(read))
            .route(
                "/handled",
                get(async |State(chat): State<Arc<Chat>>| Json(chat.handled.load(Ordering::Relaxed))),
            )
            .with_state(chat);
        child::serve(setup, app).await
    })
}

async fn open(State(chat): State<Arc<Chat>>, Query(guest): Query<Guest>, request: Request<Body>) -> Response {
    accept(request, async move |socket| drop(talk(chat, guest, socket).await))
}

/// The room as anybody can read it over plain HTTP, from any replica.
async fn read(
    State(chat): State<Arc<Chat>>,
    Path(room): Path<String>,
) -> Result<Json<Vec<Word>>, StatusCode> {
    chat.history(&room, 0).await.map(Json).map_err(|_| StatusCode::BAD_GATEWAY)
}

/// One socket, until either side is gone.
async fn talk(chat: Arc<Chat>, guest: Guest, socket: Accepted) -> Outcome<()> {
    let (sender, inbox) = channel(INBOX);
    let ticket = chat.tickets.fetch_add(1, Ordering::Relaxed);
    // First the seat, then the past: what is said in between comes both ways, and is sent once.
    let to_self = sender.downgrade();
    chat.seats().insert(ticket, (guest.clone(), sender));
    let end = converse(&chat, &guest, socket, to_self, inbox).await;
    chat.seats().remove(&ticket);
    chat.strike(&guest).await?;
    end
}

async fn converse(
    chat: &Chat,
    guest: &Guest,
    mut socket: Accepted,
    to_self: WeakSender<Word>,
    mut inbox: Receiver<Word>,
) -> Outcome<()> {
    chat.register(guest).await?;
    socket.send(frame(&Word::Welcome { by: chat.name.clone() })).await?;
    let mut replayed = HashSet::new();
    for word in chat.history(&guest.room, guest.after).await? {
        replayed.extend(word.seq());
        socket.send(frame(&word)).await?;
    }
    loop {
        tokio::select! {
            word = inbox.recv() => {
                let word = word.ok_or(TOO_SLOW)?;
                if !word.seq().is_some_and(|seq| replayed.remove(&seq)) {
                    socket.send(frame(&word)).await?;
                }
            }
            asked = socket.next() => match asked {
                Some(Ok(Message::Text(ask))) => match serde_json::from_str(&ask)? {
                    // After what already waits, so that a pong says that all before it was sent.
                    Ask::Ping => {
                        let inbox = to_self.upgrade().ok_or(TOO_SLOW)?;
                        inbox.try_send(Word::Pong { by: chat.name.clone() })?;
                    }
                    Ask::Say(text) => chat.say(&guest.room, text).await?,
                    Ask::Tell { to, text } => chat.tell(to, text).await?,
                    Ask::Shout { to, text } => chat.shout(to, text).await?,
                },
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Ok(()),
                Some(Ok(_)) => {}
            },
        }
    }
}

fn frame(word: &Word) -> Message {
    Message::text(serde_json::to_string(word).expect("a word can be written as JSON"))
}

impl Word {
    fn seq(&self) -> Option<u64> {
        match self {
            Self::Said { seq, .. } if *seq > 0 => Some(*seq),
            _ => None,
        }
    }
}

impl Chat {
    /// To everybody in the room, wherever they sit; with [`Way::Memory`], to those who sit here.
    async fn say(&self, room: &str, text: String) -> Outcome<()> {
        let seq = match self.order.way {
            Way::Memory | Way::PubSub => 0,
            Way::Log => self.run(cmd("INCR").arg(self.key(&["count", room]))).await?,
        };
        let word = Word::Said { seq, text };
        if self.order.way == Way::Log {
            // Stored before it is published: who joins in between finds it in one of the two. A
            // replica that dies between number and message leaves a gap; where that matters, one
            // step does both (a stream's XADD, or a script).
            let log = self.key(&["log", room]);
            self.run::<i64>(cmd("RPUSH").arg(&log).arg(serde_json::to_string(&word)?)).await?;
            self.run::<()>(cmd("LTRIM").arg(&log).arg(-KEPT).arg(-1)).await?;
        }
        self.send("all", Letter::Room { room: room.into(), word }).await
    }

    /// What was said in a room after a number, as far as the store keeps it.
    async fn history(&self, room: &str, after: u64) -> Outcome<Vec<Word>> {
        if self.order.way != Way::Log {
            return Ok(Vec::new());
        }
        let log: Vec<String> = self.run(cmd("LRANGE").arg(self.key(&["log", room])).arg(0).arg(-1)).await?;
        let words = log.iter().map(|word| serde_json::from_str(word)).collect::<Result<Vec<Word>, _>>()?;
        Ok(words.into_iter().filter(|word| word.seq() > Some(after)).collect())
    }

    /// The registry: one look-up says which replica holds the member, and only that one is asked.
    async fn tell(&self, to: String, text: String) -> Outcome<()> {
        let replica: Option<String> = self.run(cmd("HGET").arg(self.key(&["where"])).arg(&to)).await?;
        match replica {
            Some(replica) => self.send(&replica, Letter::User { user: to, word: Word::Told { text } }).await,
            None => Ok(()), // Not here at the moment: a real chat would keep it in an inbox.
        }
    }

    /// No registry: everybody is asked.
    async fn shout(&self, to: String, text: String) -> Outcome<()> {
        self.send("all", Letter::User { user: to, word: Word::Told { text } }).await
    }

    async fn register(&self, guest: &Guest) -> Outcome<()> {
        if self.store.is_none() {
            return Ok(());
        }
        self.run(cmd("HSET").arg(self.key(&["where"])).arg(&guest.user).arg(&self.name)).await
    }

    /// Takes a member off the registry, unless it has come back, here or elsewhere. (Between the
    /// look and the removal it could; where that matters, a script does both.)
    async fn strike(&self, guest: &Guest) -> Outcome<()> {
        if self.store.is_none() || self.seats().values().any(|(other, _)| other.user == guest.user) {
            return Ok(());
        }
        let places = self.key(&["where"]);
        let replica: Option<String> = self.run(cmd("HGET").arg(&places).arg(&guest.user)).await?;
        if replica.as_deref() == Some(&*self.name) {
            self.run::<i64>(cmd("HDEL").arg(&places).arg(&guest.user)).await?;
        }
        Ok(())
    }

    /// To one replica, or to `all`.
    async fn send(&self, replica: &str, letter: Letter) -> Outcome<()> {
        if self.store.is_none() {
            self.deliver(letter);
            return Ok(());
        }
        let text = serde_json::to_string(&letter)?;
        self.run::<i64>(cmd("PUBLISH").arg(self.key(&["to", replica])).arg(text)).await.map(drop)
    }

    /// Takes in what is sent to this replica and to all, from before its first guest.
    async fn listen(self: Arc<Self>) -> Outcome<()> {
        let Some(store) = &self.store else { return Ok(()) };
        let channels = [self.key(&["to", "all"]), self.key(&["to", &self.name])];
        let mut letters = store.subscribe(channels).await?;
        tokio::spawn(async move {
            while let Some(message) = letters.next().await {
                if let Ok(letter) = serde_json::from_slice(&message.payload) {
                    self.deliver(letter);
                }
            }
        });
        Ok(())
    }

    /// To those who sit here. Who does not take its words in time is cut off by the drop of its
    /// inbox, rather than kept in memory.
    fn deliver(&self, letter: Letter) {
        let mut seats = self.seats();
        match letter {
            Letter::Room { room, word } => {
                seats.retain(|_, (guest, inbox)| guest.room != room || inbox.try_send(word.clone()).is_ok());
            }
            Letter::User { user, word } => {
                self.handled.fetch_add(1, Ordering::Relaxed);
                seats.retain(|_, (guest, inbox)| guest.user != user || inbox.try_send(word.clone()).is_ok());
            }
        }
    }

    fn seats(&self) -> MutexGuard<'_, HashMap<u64, (Guest, Sender<Word>)>> {
        self.seats.lock().expect("nobody panics while holding the seats")
    }

    fn key(&self, parts: &[&str]) -> String {
        format!("{}:{}", self.order.space, parts.join(":"))
    }

    async fn run<T: redis::FromRedisValue>(&self, command: &mut redis::Cmd) -> Outcome<T> {
        let store = self.store.as_ref().ok_or("this way of chatting has no store")?;
        store.run(command).await
    }
}
