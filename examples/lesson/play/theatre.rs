//! What is played with: replicas, a database, a store, and Pintle from a file that anybody may edit.

use std::fmt::Write;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use pintle::app::{Options, Pintle, Source};

use super::door::{Order, View};
use crate::harness::{Outcome, Replica, Stage};
use crate::shop::{self, Strategy, wait_for_peers};
use crate::store::Store;

/// More make the machine slow, not the shop fast.
const MAX_REPLICAS: usize = 9;

pub struct Theatre {
    pub pintle: Pintle,
    pub listener: SocketAddr,
    /// Where orders arrive, until somebody listens there.
    pub door: Option<TcpListener>,
    pub view: View,
    door_address: SocketAddr,
    admin: SocketAddr,
    file: PathBuf,
    strategy: Strategy,
    order: shop::Order,
    replicas: Vec<Replica>,
    store: Option<Store>,
    _database: Replica,
}

impl Theatre {
    pub async fn open(stage: &Stage, strategy: Strategy) -> Outcome<Self> {
        let store = match strategy {
            Strategy::Central => Some(stage.stoppable_store().await?),
            _ => None,
        };
        let database = Replica::start("database", "database", ()).await?;
        let order = shop::Order {
            database: database.address,
            store: store.as_ref().map(|store| store.url().to_owned()),
            ..shop::Order::new(strategy)
        };
        let mut replicas = Vec::new();
        for number in 1..=3 {
            replicas.push(Replica::start("shop", &format!("r{number}"), &order).await?);
        }
        wait_for_peers(strategy, &replicas).await?;

        // All are held until the last is chosen, so that no two are the same.
        let (web, desk, door) = (port(8080)?, port(9900)?, port(9000)?);
        let (listener, admin) = (web.local_addr()?, desk.local_addr()?);
        let file = crate::report::folder()?.join("play.toml");
        fs::write(&file, text(listener, admin, strategy, &replicas))?;
        drop((web, desk));
        let pintle = Pintle::start(Source::File(file.clone()), Options::default()).await?;
        Ok(Self {
            pintle,
            listener,
            door_address: door.local_addr()?,
            door: Some(door),
            view: View::default(),
            admin,
            file,
            strategy,
            order,
            replicas,
            store,
            _database: database,
        })
    }

    /// What can be done, as lines to paste.
    pub fn playbill(&self) -> String {
        let (door, admin, file) = (self.door_address, self.admin, self.file.display());
        let mut bill = format!(
            "\n{} users are shopping at 3 replicas; sessions: {}. Break something:\n\n\
             see      http://{door}/   who sits where, a dot per user\n\
             \x20        http://{admin}/   Pintle's own page\n\
             edit     {file}\n\
             \x20        change the policy line and save: sticky_cookie, ip_hash, round_robin …\n\
             kill     curl -X POST http://{door}/kill/r1\n\
             restart  curl -X POST http://{door}/restart/r1\n\
             add      curl -X POST http://{door}/add\n\
             drain    curl -X POST 'http://{door}/drain/r2?seconds=10'\n\
             ready    curl -X POST http://{door}/ready/r2\n",
            super::USERS,
            self.strategy.name(),
        );
        if self.store.is_some() {
            let _ = writeln!(bill, "store    curl -X POST http://{door}/store/stop");
            let _ = writeln!(bill, "         curl -X POST http://{door}/store/start");
        }
        bill + "end      Ctrl-C\n\nOther ways to keep a session: --play memory | replicated | central | token | client\n"
    }

    /// Does it, and says in a sentence what was done.
    pub async fn perform(&mut self, order: Order) -> String {
        self.try_to(order).await.unwrap_or_else(|error| format!("not done: {error}"))
    }

    async fn try_to(&mut self, order: Order) -> Outcome<String> {
        Ok(match order {
            Order::Kill(name) => {
                self.replica(&name)?.kill();
                format!("{name} is killed: no goodbye to anybody")
            }
            Order::Restart(name) => {
                let peers = self.strategy;
                self.replica(&name)?.restart().await?;
                wait_for_peers(peers, &self.replicas).await?;
                format!("{name} runs again, at its old address and with nothing remembered")
            }
            Order::Add if self.replicas.len() == MAX_REPLICAS => format!("{MAX_REPLICAS} are enough"),
            Order::Add => {
                let name = format!("r{}", self.replicas.len() + 1);
                self.replicas.push(Replica::start("shop", &name, &self.order).await?);
                wait_for_peers(self.strategy, &self.replicas).await?;
                let text = with_backends(&fs::read_to_string(&self.file)?, &self.replicas);
                fs::write(&self.file, text)?;
                self.pintle.reload_source().await.map_err(|fault| fault.detail)?;
                format!("{name} is added to {}", self.file.display())
            }
            Order::Drain(name, seconds) => {
                self.replica(&name)?;
                let deadline = Some(Duration::from_secs(seconds));
                let drain = self.pintle.drain(&format!("app/{name}"), deadline).await;
                let drain = drain.map_err(|fault| fault.detail)?;
                format!(
                    "{name} is {} after {:.1} s: {} sessions ended by themselves, {} are dealt anew; it is safe to stop it",
                    drain.state, drain.elapsed_seconds, drain.sessions_ended, drain.sessions_moved
                )
            }
            Order::Ready(name) => {
                self.pintle.ready(&format!("app/{name}")).await.map_err(|fault| fault.detail)?;
                format!("{name} takes new users again")
            }
            Order::StopStore => {
                self.store()?.stop()?;
                "the store is stopped".into()
            }
            Order::StartStore => {
                self.store()?.start_empty().await?;
                "the store runs again, empty".into()
            }
        })
    }

    fn replica(&mut self, name: &str) -> Outcome<&mut Replica> {
        let names: Vec<_> = self.replicas.iter().map(|replica| replica.name.clone()).collect();
        let found = self.replicas.iter_mut().find(|replica| replica.name == name);
        found.ok_or_else(|| format!("there is no {name}, only {}", names.join(", ")).into())
    }

    fn store(&mut self) -> Outcome<&mut Store> {
        self.store.as_mut().ok_or_else(|| "there is no store here: run --play central".into())
    }
}

/// The port that people expect, or a free one.
fn port(wanted: u16) -> Outcome<TcpListener> {
    let taken = |_| TcpListener::bind(("127.0.0.1", 0));
    Ok(TcpListener::bind(("127.0.0.1", wanted)).or_else(taken)?)
}

fn text(listener: SocketAddr, admin: SocketAddr, strategy: Strategy, replicas: &[Replica]) -> String {
    let policy = if strategy == Strategy::Memory { "sticky_cookie" } else { "round_robin" };
    let text = format!(
        r#"# Pintle in front of the lesson's shop. Edit and save: it holds within a second, nobody is cut.
[server]
workers = 1
trusted_proxies = ["127.0.0.0/8"]     # users are told apart by X-Forwarded-For
[log.access]
enabled = false
[admin]
bind = "{admin}"
[listener.web]
bind = "{listener}"

[pool.app]
policy = "{policy}"             # round_robin | ip_hash | sticky_cookie | least_conn | …
backends = []
health = {{ path = "/healthz", interval = "500ms" }}
"#
    );
    with_backends(&text, replicas)
}

/// The file with its line of backends replaced; what somebody has edited stays.
fn with_backends(text: &str, replicas: &[Replica]) -> String {
    let backend =
        |replica: &Replica| format!("{{ name = \"{}\", address = \"{}\" }}", replica.name, replica.address);
    let backends: Vec<_> = replicas.iter().map(backend).collect();
    let line = format!("backends = [{}]", backends.join(", "));
    let lines: Vec<_> =
        text.lines().map(|old| if old.starts_with("backends = ") { line.as_str() } else { old }).collect();
    lines.join("\n") + "\n"
}
