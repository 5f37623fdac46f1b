//! A client's connection to the embedded store. Start at [`Session::talk`].
//!
//! Commands are answered in order. Several that come at once are answered at once, which is what
//! makes a pipeline cheap.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};

use super::commands::Refusal;
use super::hub::{CHANNELS_MAX, Ear, QUEUE_MAX, Topic};
use super::resp::{self, Broken, COMMAND_MAX, Reply};
use super::server::{Shared, State};
use super::waiting::Wish;

/// As much as is read at once, and answered before it is sent.
const CHUNK: usize = 64 << 10;
/// How many commands may be put aside between MULTI and EXEC.
const QUEUED_MAX: usize = 1024;

pub struct Session {
    shared: Arc<Shared>,
    client: u64,
    stream: TcpStream,
    /// What was read and not yet understood.
    input: Vec<u8>,
    /// What is to be sent.
    out: Vec<u8>,
    ear: Arc<Ear>,
    messages: mpsc::Receiver<Bytes>,
    queued: Option<Queued>,
    ends: bool,
}

/// Commands between MULTI and EXEC.
#[derive(Default)]
struct Queued {
    commands: Vec<Vec<Bytes>>,
    size: usize,
    refused: bool,
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.hub.leave(self.client);
        state.waiting.leave(self.client);
    }
}

impl Session {
    pub fn new(shared: Arc<Shared>, stream: TcpStream) -> Self {
        let (client, (queue, messages)) = (shared.client(), mpsc::channel(QUEUE_MAX));
        let ear = Arc::new(Ear { queue, cut: Notify::new() });
        let (input, out) = (Vec::new(), Vec::new());
        Self { shared, client, stream, input, out, ear, messages, queued: None, ends: false }
    }

    /// Until the client ends, or is cut off because it does not read what it subscribed to.
    pub async fn serve(mut self) -> io::Result<()> {
        let ear = self.ear.clone();
        tokio::select! {
            ended = self.talk() => ended,
            () = ear.cut.notified() => Ok(()),
        }
    }

    async fn talk(&mut self) -> io::Result<()> {
        loop {
            self.answer().await?;
            self.send().await?;
            if self.ends {
                return self.stream.shutdown().await;
            }
            tokio::select! {
                read = read(&mut self.stream, &mut self.input) => if read? == 0 {
                    return Ok(());
                },
                Some(message) = self.messages.recv() => self.out.extend_from_slice(&message),
            }
        }
    }

    /// Answers all commands that are here in full.
    async fn answer(&mut self) -> io::Result<()> {
        let mut done = 0;
        while !self.ends {
            match resp::parse(&self.input[done..]) {
                Ok(None) => break,
                Ok(Some((words, size))) => {
                    done += size;
                    self.obey(words).await?;
                }
                Err(Broken(why)) => {
                    self.say(Reply::Error(format!("ERR Protocol error: {why}")));
                    self.ends = true;
                }
            }
            if self.out.len() >= CHUNK {
                self.send().await?;
            }
        }
        self.input.drain(..done);
        // A large value must not stay in memory for as long as its connection lives.
        if self.input.is_empty() && self.input.capacity() > CHUNK {
            self.input = Vec::new();
        }
        Ok(())
    }

    /// Obeys one command: those that change what this connection is are here.
    async fn obey(&mut self, words: Vec<Bytes>) -> io::Result<()> {
        let Some((name, rest)) = words.split_first() else { return Ok(()) };
        let name = name.to_ascii_lowercase();
        match (name.as_slice(), rest) {
            (b"multi", []) if self.queued.is_none() => {
                self.queued = Some(Queued::default());
                self.say(Reply::OK);
            }
            (b"multi", []) => self.refuse("ERR MULTI calls can not be nested"),
            (b"exec", []) => self.exec(),
            (b"discard", []) => match self.queued.take() {
                Some(_) => self.say(Reply::OK),
                None => self.refuse("ERR DISCARD without MULTI"),
            },
            (b"quit", _) => {
                self.say(Reply::OK);
                self.ends = true;
            }
            _ if self.queued.is_some() => self.queue(words),
            (b"ping", message) if message.len() < 2 && self.listens() => {
                let message = message.first().cloned().unwrap_or_default();
                self.say(Reply::bulks([Bytes::from("pong"), message]));
            }
            (b"subscribe", [_, ..]) => self.subscribe(Topic::Channel, rest),
            (b"psubscribe", [_, ..]) => self.subscribe(Topic::Pattern, rest),
            (b"unsubscribe", _) => self.unsubscribe(Topic::Channel, rest),
            (b"punsubscribe", _) => self.unsubscribe(Topic::Pattern, rest),
            (b"subscribe" | b"psubscribe" | b"multi" | b"exec" | b"discard", _) => {
                self.say(Refusal::words(&name).into());
            }
            _ if self.listens() => {
                let name = String::from_utf8_lossy(&name[..name.len().min(64)]).into_owned();
                let text = format!(
                    "ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context"
                );
                self.say(Refusal(text.into()).into());
            }
            // Clients then stay with RESP2.
            (b"hello", _) => self.refuse("NOPROTO this store speaks RESP2 only"),
            (b"client", [option, ..])
                if option.eq_ignore_ascii_case(b"setinfo") || option.eq_ignore_ascii_case(b"setname") =>
            {
                self.say(Reply::OK);
            }
            (b"select", [number]) if **number == *b"0" => self.say(Reply::OK),
            (b"select", [_]) => self.refuse("ERR DB index is out of range"),
            _ => return self.run(&words).await,
        }
        Ok(())
    }

    async fn run(&mut self, words: &[Bytes]) -> io::Result<()> {
        match Wish::read(words) {
            Err(refusal) => self.say(refusal.into()),
            Ok(Some((wish, patience))) => return self.wait(wish, patience).await,
            Ok(None) => {
                for reply in self.shared.run([words]) {
                    self.say(reply);
                }
            }
        }
        Ok(())
    }

    /// Waits until a wish is granted, its time is over, or the client has gone.
    async fn wait(&mut self, wish: Wish, patience: Option<Duration>) -> io::Result<()> {
        let nothing = wish.nothing();
        let answer = {
            let (mut state, now) = (self.shared.lock(), std::time::Instant::now());
            let State { keys, waiting, .. } = &mut *state;
            match wish.grant(keys, now) {
                Ok(None) => Ok(waiting.join(self.client, wish)),
                granted => {
                    waiting.serve(keys, now);
                    Err(granted.map(|reply| reply.expect("the other case came first")))
                }
            }
        };
        let mut answer = match answer {
            Ok(answer) => answer,
            Err(now) => {
                self.say(now.unwrap_or_else(Reply::from));
                return Ok(());
            }
        };
        self.send().await?;
        let over = async {
            match patience {
                Some(patience) => tokio::time::sleep(patience).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(over);
        let reply = loop {
            tokio::select! {
                reply = &mut answer => break reply.ok(),
                () = &mut over => {
                    // It may have been granted until the lock was ours.
                    self.shared.lock().waiting.leave(self.client);
                    break answer.try_recv().ok();
                }
                read = read(&mut self.stream, &mut self.input) => if read? == 0 {
                    self.ends = true;
                    return Ok(());
                },
            }
        };
        self.say(reply.unwrap_or(nothing));
        Ok(())
    }

    /// Puts a command aside until EXEC, or refuses it, and EXEC with it.
    fn queue(&mut self, words: Vec<Bytes>) {
        let Some(queued) = &mut self.queued else { return };
        let size: usize = words.iter().map(Bytes::len).sum();
        let fits = queued.commands.len() < QUEUED_MAX && queued.size + size <= COMMAND_MAX;
        let check = if fits { State::check(&words) } else { Err(Refusal::new("ERR too much in one MULTI")) };
        let reply = match check {
            Ok(()) => {
                queued.size += size;
                queued.commands.push(words);
                Reply::Status("QUEUED")
            }
            Err(refusal) => {
                queued.refused = true;
                refusal.into()
            }
        };
        self.say(reply);
    }

    fn exec(&mut self) {
        let reply = match self.queued.take() {
            None => Refusal::new("ERR EXEC without MULTI").into(),
            Some(queued) if queued.refused => {
                Refusal::new("EXECABORT Transaction discarded because of previous errors.").into()
            }
            Some(queued) => Reply::Array(self.shared.run(queued.commands.iter().map(Vec::as_slice))),
        };
        self.say(reply);
    }

    fn subscribe(&mut self, kind: Topic, names: &[Bytes]) {
        let word = if kind == Topic::Channel { "subscribe" } else { "psubscribe" };
        for name in names {
            let count = self.shared.lock().hub.subscribe(self.client, &self.ear, (kind, name.clone()));
            self.say(match count {
                Some(count) => {
                    Reply::Array(vec![Reply::bulk(word), Reply::Bulk(name.clone()), Reply::count(count)])
                }
                None => Reply::Error(format!("ERR one client may listen to {CHANNELS_MAX} channels")),
            });
        }
    }

    /// From these, or from all of this kind.
    fn unsubscribe(&mut self, kind: Topic, names: &[Bytes]) {
        let word = if kind == Topic::Channel { "unsubscribe" } else { "punsubscribe" };
        let shared = self.shared.clone();
        let mut state = shared.lock();
        let mut topics: Vec<_> = names.iter().map(|name| (kind, name.clone())).collect();
        if names.is_empty() {
            topics.extend(state.hub.topics(self.client).iter().filter(|topic| topic.0 == kind).cloned());
        }
        if topics.is_empty() {
            let left = Reply::count(state.hub.topics(self.client).len());
            self.say(Reply::Array(vec![Reply::bulk(word), Reply::Nil, left]));
        }
        for topic in topics {
            let left = Reply::count(state.hub.unsubscribe(self.client, &topic));
            self.say(Reply::Array(vec![Reply::bulk(word), Reply::Bulk(topic.1), left]));
        }
    }

    fn listens(&self) -> bool {
        !self.shared.lock().hub.topics(self.client).is_empty()
    }

    fn refuse(&mut self, text: &'static str) {
        self.say(Refusal::new(text).into());
    }

    fn say(&mut self, reply: Reply) {
        reply.write(&mut self.out);
    }

    async fn send(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.out).await?;
        self.out.clear();
        self.out.shrink_to(CHUNK);
        Ok(())
    }
}

/// Reads what has come; 0 at the end, and where a client sends far more than is taken from it.
async fn read(stream: &mut TcpStream, input: &mut Vec<u8>) -> io::Result<usize> {
    if input.len() > COMMAND_MAX + CHUNK {
        return Ok(0);
    }
    input.reserve(CHUNK);
    stream.read_buf(input).await
}
