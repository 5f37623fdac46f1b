//! Processes of their own: this program, started again in a role.
//!
//! What is killed with SIGKILL or has its memory measured must not share this process. A child
//! announces its address on its standard output and ends when its standard input does, so none
//! outlives the run, however that ends: done, Ctrl-C or panic.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::HeaderValue;
use axum::response::Response;
use axum::routing::get;
use axum::serve::ListenerExt;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::TcpListener;

use super::chapter::{Boxed, Outcome};

/// What a child does until it is ended.
pub type Role = fn(Setup) -> Boxed<'static, Outcome<()>>;

/// The first argument of a child.
pub const CHILD: &str = "--child";

/// How long an address may be taken by a connection that ends, when a replica comes back to it.
const BIND_PATIENCE: Duration = Duration::from_secs(2);

/// What a child is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setup {
    pub role: String,
    /// What it calls itself in `x-replica`.
    pub name: String,
    /// 0 at first; the same as before when it is restarted.
    pub port: u16,
    pub order: Value,
}

impl Setup {
    /// What the role needs to know.
    pub fn order<T: DeserializeOwned>(&self) -> Outcome<T> {
        Ok(serde_json::from_value(self.order.clone())?)
    }

    /// Binds the address and tells the parent.
    pub async fn listen(&self) -> Outcome<TcpListener> {
        let patience = Instant::now() + BIND_PATIENCE;
        let listener = loop {
            match TcpListener::bind(("127.0.0.1", self.port)).await {
                Ok(listener) => break listener,
                Err(error) if Instant::now() > patience => return Err(error.into()),
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        println!("{}", listener.local_addr()?);
        Ok(listener)
    }
}

/// Serves an app as the replica that `setup` describes: every answer names it in `x-replica`, and
/// `/healthz` answers 200.
pub async fn serve(setup: Setup, app: Router) -> Outcome<()> {
    let listener = setup.listen().await?.tap_io(|stream| drop(stream.set_nodelay(true)));
    let name = HeaderValue::from_str(&setup.name)?;
    let named = axum::middleware::map_response(move |mut response: Response| {
        let name = name.clone();
        async move {
            response.headers_mut().insert("x-replica", name);
            response
        }
    });
    let app = app.route("/healthz", get(async || "well")).layer(named);
    Ok(axum::serve(listener, app).await?)
}

/// Runs as a child until the parent ends. `text` is the second argument, a [`Setup`].
pub async fn run(text: &str, role: impl Fn(&str) -> Option<Role>) -> Outcome<()> {
    let setup: Setup = serde_json::from_str(text)?;
    let role = role(&setup.role).ok_or_else(|| format!("no role is called {}", setup.role))?;
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    role(setup).await
}

/// A running child.
pub struct Replica {
    pub name: String,
    pub address: SocketAddr,
    setup: Setup,
    process: Child,
}

impl Replica {
    pub async fn start(role: &str, name: &str, order: impl Serialize) -> Outcome<Self> {
        let order = serde_json::to_value(order)?;
        Self::begin(Setup { role: role.into(), name: name.into(), port: 0, order }).await
    }

    async fn begin(mut setup: Setup) -> Outcome<Self> {
        let text = serde_json::to_string(&setup)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args([CHILD, &text]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn()?;
        let out = process.stdout.take().expect("it is piped");
        let said = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            BufReader::new(out).read_line(&mut line).map(|_| line)
        });
        let said = said.await??;
        let address: SocketAddr =
            said.trim().parse().map_err(|_| format!("{} did not start: it said {said:?}", setup.name))?;
        setup.port = address.port();
        Ok(Self { name: setup.name.clone(), address, setup, process })
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// SIGKILL: no goodbye to anybody, and nothing of its memory is left.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Ends it, if it runs, and starts it again at its old address with nothing remembered.
    pub async fn restart(&mut self) -> Outcome<()> {
        self.kill();
        *self = Self::begin(self.setup.clone()).await?;
        Ok(())
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.kill();
    }
}
