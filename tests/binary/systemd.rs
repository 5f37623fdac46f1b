//! What passes between systemd and Pintle: sockets that are open already, and what it is told.
//! Linux only. The test is the manager.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::net::UnixDatagram;

use crate::process::{Folder, Running, free, pool};
use crate::support::{Ask, Backend, Client, within};

/// A file that listens at `bind`.
fn config(folder: &Folder, bind: &str, text: &str) {
    folder.write("pintle.toml", &folder.config(text).replace("127.0.0.1:0", bind));
}

/// The command, with `socket` as its descriptor 3, as `sd_listen_fds(3)` has it.
fn activated(folder: &Folder, socket: TcpListener, name: &str) -> Command {
    let serve = folder.command(["serve", "-c", "pintle.toml"]);
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "LISTEN_PID=$$ exec \"$0\" \"$@\" 3<&0 </dev/null"]).arg(serve.get_program());
    shell.args(serve.get_args()).current_dir(folder.path(""));
    for (name, value) in serve.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell.env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", name);
    shell.stdin(Stdio::from(OwnedFd::from(socket)));
    shell
}

async fn start(folder: Folder, command: Command) -> Running {
    let socket = folder.path("admin.sock").display().to_string();
    Running::spawn(folder, command, &socket).await
}

#[tokio::test]
async fn a_socket_that_is_open_already_is_used_by_its_address() {
    let a = Backend::start("a").await;
    let folder = Folder::new();
    // It listens all the time: nobody could bind that address anew.
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let (ours, address) = (socket.try_clone().unwrap(), socket.local_addr().unwrap());
    config(&folder, &address.to_string(), &pool(&[&a], ""));
    let command = activated(&folder, socket, "something");
    let running = start(folder, command).await;
    for _ in 0..8 {
        assert_eq!(Client::new(address).get("/").await.status, 200);
    }
    assert!(!running.told().contains("is not used"), "{}", running.told());
    // It goes on to the next process as any other does.
    running.upgrade().await;
    for _ in 0..8 {
        assert_eq!(Client::new(address).get("/").await.status, 200);
    }
    drop(ours);
}

#[tokio::test]
async fn a_socket_is_used_by_its_name_and_a_stranger_is_told_of() {
    let a = Backend::start("a").await;
    for (name, used) in [("web", true), ("other", false)] {
        let folder = Folder::new();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let (bind, address) = (free().to_string(), socket.local_addr().unwrap());
        config(&folder, &bind, &pool(&[&a], ""));
        let command = activated(&folder, socket, name);
        let running = start(folder, command).await;
        let listens = running.status().await["listeners"][0]["addresses"][0].clone();
        let at: SocketAddr = listens.as_str().unwrap().parse().unwrap();
        assert_eq!(at == address, used, "{name}");
        assert_eq!(Client::new(at).get("/").await.status, 200);
        let complaint =
            format!("a socket that was passed is not used: no listener has {address} named other");
        assert_eq!(running.told().contains(&complaint), !used, "{}", running.told());
    }
}

/// The manager's ear.
struct Manager(UnixDatagram);

impl Manager {
    fn listen(folder: &Folder) -> Self {
        Self(UnixDatagram::bind(folder.path("notify.sock")).unwrap())
    }

    /// The next message that is no sign of life.
    async fn hears(&self) -> String {
        loop {
            let message = self.next().await;
            if message != "WATCHDOG=1" {
                return message;
            }
        }
    }

    async fn next(&self) -> String {
        let mut message = [0; 4096];
        let length = within("a message", self.0.recv(&mut message)).await.unwrap();
        String::from_utf8_lossy(&message[..length]).into_owned()
    }
}

fn managed(folder: &Folder) -> Command {
    let mut command = folder.command(["serve", "-c", "pintle.toml"]);
    command.env("NOTIFY_SOCKET", folder.path("notify.sock"));
    command
}

#[tokio::test]
async fn systemd_is_told_of_every_turn() {
    let a = Backend::start("a").await;
    let folder = Folder::new();
    config(&folder, "127.0.0.1:0", &pool(&[&a], ""));
    let manager = Manager::listen(&folder);
    let command = managed(&folder);
    let mut running = start(folder, command).await;
    let ready = manager.hears().await;
    assert!(ready.starts_with("READY=1\nSTATUS=generation 1 of "), "{ready}");
    assert!(ready.ends_with("1 of 1 backend up"), "{ready}");

    running.edit(&pool(&[&a], "policy = \"ip_hash\""));
    let reloading = manager.hears().await;
    let since = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("when it began");
    assert!(since.parse::<u64>().is_ok_and(|micros| micros > 0), "{since}");
    let ready = manager.hears().await;
    assert!(ready.starts_with("READY=1\nSTATUS=generation 2 of "), "{ready}");

    let upgraded = running.command(&["upgrade", "--json"]).await.json();
    let pid = upgraded["pid"].as_i64().unwrap();
    assert_eq!(manager.hears().await, format!("MAINPID={pid}"));
    assert!(manager.hears().await.starts_with("READY=1\n"));
    assert!(running.ends().await.success());
    // The one that went has said nothing of stopping.
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::TERM).unwrap();
    assert_eq!(manager.hears().await, "STOPPING=1");
}

#[tokio::test]
async fn a_data_thread_that_is_stuck_silences_the_watchdog() {
    let a = Backend::start("a").await;
    let folder = Folder::new();
    config(&folder, "127.0.0.1:0", &format!("{}\n[log.access]\non_full = \"block\"", pool(&[&a], "")));
    let manager = Manager::listen(&folder);
    // A pipe that nobody reads: when it is full the access log blocks, as the file wishes.
    let (_reader, writer) = std::io::pipe().unwrap();
    let mut command = managed(&folder);
    command.env("WATCHDOG_USEC", "400000");
    let socket = folder.path("admin.sock").display().to_string();
    let running = Running::spawn_to(folder, command, &socket, writer.into()).await;
    assert!(manager.hears().await.starts_with("READY=1"));
    for _ in 0..3 {
        assert_eq!(manager.next().await, "WATCHDOG=1");
    }
    let mut client = running.client().await;
    let long = Ask::get(&format!("/{}", "x".repeat(8000)));
    let mut stuck = false;
    for _ in 0..2000 {
        match tokio::time::timeout(Duration::from_secs(2), client.try_ask(&long)).await {
            Ok(answer) => assert_eq!(answer.expect("an answer").status, 200),
            Err(_) => {
                stuck = true;
                break;
            }
        }
    }
    assert!(stuck, "the log never filled");
    let mut old = [0; 64];
    while manager.0.try_recv(&mut old).is_ok() {}
    let sign = tokio::time::timeout(Duration::from_millis(1500), manager.next()).await;
    assert!(sign.is_err(), "it says that it lives: {sign:?}");
}
