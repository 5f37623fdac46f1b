//! The admin side's sockets: opened or taken over, served, and left to the process that comes next.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::watch;
use tracing::warn;

use super::StartError;
use super::inherited::Inherited;
use super::start::cannot;
use crate::admin::desk::Desk;
use crate::admin::door::Door;
use crate::admin::socket::{Socket, adopt_socket, open_socket};
use crate::admin::{places, serve};
use crate::config;
use crate::plan::{AdminBind, AdminPlan};

/// The admin side's sockets, open but not yet served.
pub struct AdminSockets {
    socket: Option<Socket>,
    /// With the address that was asked for.
    tcp: Option<(SocketAddr, TcpListener)>,
}

/// The same, served. Dropping them ends that.
pub struct Doors {
    socket: Option<Arc<Socket>>,
    /// Another handle on the one that is served.
    tcp: Option<(SocketAddr, TcpListener)>,
    _open: watch::Sender<()>,
}

impl AdminSockets {
    /// What the plan names must open. What is only a convention may not, and a warning says so.
    pub fn open(
        plan: &AdminPlan,
        conventional: bool,
        inherited: &mut Inherited,
        warnings: &mut Vec<String>,
    ) -> Result<Self, StartError> {
        let socket = match &plan.socket {
            Some(path) => {
                let socket = match inherited.take_admin_socket(path) {
                    Some(listener) => adopt_socket(listener, path),
                    None => open_socket(path),
                };
                Some(socket.map_err(cannot(format!("open the admin socket {}", path.display())))?)
            }
            None if conventional => conventional_socket(inherited, warnings),
            None => None,
        };
        let tcp = match plan.bind {
            AdminBind::At(address) => Some(
                open_tcp(address, inherited)
                    .map_err(cannot(format!("listen on the admin address {address}")))?,
            ),
            AdminBind::Default if conventional => match open_tcp(places::TCP, inherited) {
                Ok(listener) => Some(listener),
                Err(error) => {
                    warnings.push(format!("no admin address: {} cannot be had ({error})", places::TCP));
                    None
                }
            },
            AdminBind::Default | AdminBind::Off => None,
        };
        Ok(Self { socket, tcp })
    }

    pub fn address(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().and_then(|(_, tcp)| tcp.local_addr().ok())
    }

    pub fn path(&self) -> Option<PathBuf> {
        self.socket.as_ref().map(|socket| socket.path().to_owned())
    }

    /// Serves both on this thread.
    pub fn serve(self, desk: Desk, plan: &AdminPlan) -> Doors {
        let door = Rc::new(Door::new(desk, plan, &config::schema()));
        let (open, stopped) = watch::channel(());
        let until =
            |mut stopped: watch::Receiver<()>| async move { while stopped.changed().await.is_ok() {} };
        let socket = self.socket.map(Arc::new);
        if let Some(socket) = socket.clone() {
            let serving = serve::serve_unix(socket, door.clone(), until(stopped.clone()));
            tokio::task::spawn_local(async move {
                if let Err(error) = serving.await {
                    warn!(event = "process", %error, "the admin socket is not served");
                }
            });
        }
        let mut tcp = None;
        if let Some((asked, listener)) = self.tcp {
            tcp = listener.try_clone().ok().map(|clone| (asked, clone));
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => {
                    drop(tokio::task::spawn_local(serve::serve_tcp(listener, door, until(stopped))));
                }
                Err(error) => warn!(event = "process", %error, "the admin address is not served"),
            }
        }
        Doors { socket, tcp, _open: open }
    }
}

impl Doors {
    /// The socket and its path, for another process.
    pub fn socket(&self) -> std::io::Result<Option<(PathBuf, OwnedFd)>> {
        let Some(socket) = &self.socket else { return Ok(None) };
        Ok(Some((socket.path().to_owned(), socket.listener()?.into())))
    }

    /// The TCP socket and the address that was asked for, for another process.
    pub fn tcp(&self) -> std::io::Result<Option<(SocketAddr, OwnedFd)>> {
        let Some((asked, tcp)) = &self.tcp else { return Ok(None) };
        Ok(Some((*asked, tcp.try_clone()?.into())))
    }

    /// Closes them, and leaves the socket's file to the process that has it now.
    pub fn leave(self) {
        if let Some(socket) = &self.socket {
            socket.leave();
        }
    }
}

fn open_tcp(asked: SocketAddr, inherited: &mut Inherited) -> std::io::Result<(SocketAddr, TcpListener)> {
    let listener = match inherited.take_admin_tcp(asked) {
        Some(listener) => listener,
        None => TcpListener::bind(asked)?,
    };
    listener.set_nonblocking(true)?;
    Ok((asked, listener))
}

/// The first of the conventional places that can be had.
fn conventional_socket(inherited: &mut Inherited, warnings: &mut Vec<String>) -> Option<Socket> {
    let mut reasons = Vec::new();
    for path in places::sockets() {
        let opened = match inherited.take_admin_socket(&path) {
            Some(listener) => adopt_socket(listener, &path),
            None => places::prepare(&path).and_then(|()| open_socket(&path)),
        };
        match opened {
            Ok(socket) => return Some(socket),
            Err(error) => reasons.push(format!("{} ({error})", path.display())),
        }
    }
    warnings.push(format!("no admin socket: {}", reasons.join(", ")));
    None
}
