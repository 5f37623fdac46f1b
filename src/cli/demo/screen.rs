//! The demo's first screen: where everything is, and lines to paste.
//!
//! Start at [`screen`]. Every line is whole: the program's path and the admin socket are in it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::cli::output::{Cell, Paint, Style, table};

/// Where everything is.
pub struct Places {
    pub listener: SocketAddr,
    pub admin: SocketAddr,
    pub stage: SocketAddr,
    pub shops: Vec<SocketAddr>,
    /// Of the shop that can be added.
    pub spare: SocketAddr,
    pub folder: PathBuf,
    pub file: PathBuf,
    pub socket: PathBuf,
    pub program: PathBuf,
    /// Ports that were taken, and what is used instead.
    pub moved: Vec<(u16, u16)>,
}

impl Places {
    /// What `--json` prints first.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "listener": self.listener,
            "admin": self.admin,
            "stage": self.stage,
            "shops": self.shops,
            "spare": self.spare,
            "folder": self.folder,
            "file": self.file,
            "socket": self.socket,
            "program": self.program,
            "moved": self.moved,
        })
    }
}

pub fn screen(places: &Places, paint: Paint) -> String {
    let title = paint.with(Style::Title, "pintle demo: three session shops, and Pintle in front of them");
    // Two tables, because what is long in the one must not push the remarks of the other away.
    let mut text = format!("{title}\n\n{}{}", table(&doors(places), paint), table(&behind(places), paint));
    text += "\nPaste lines into another terminal; what they do is told here. Ctrl-C ends everything.\n";
    for (heading, lines) in lines(places) {
        text += &format!("\n{}\n", paint.with(Style::Faint, &format!("# {heading}")));
        text += &lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    }
    text + "\n"
}

fn doors(places: &Places) -> Vec<Vec<Cell>> {
    let row = |label: &str, value: String, remark: &str| {
        vec![Cell::new(label, Style::Faint), Cell::plain(value), Cell::new(remark, Style::Faint)]
    };
    vec![
        row(
            "open",
            format!("http://{}", places.listener),
            "in a browser too: log in, fill a cart, talk to the echo",
        ),
        row("admin", format!("http://{}", places.admin), "status and metrics"),
        row("file", places.file.display().to_string(), "what runs; a saved change holds within a second"),
    ]
}

fn behind(places: &Places) -> Vec<Vec<Cell>> {
    let shops = places.shops.iter().enumerate().map(|(index, shop)| format!("b{} {shop}", index + 1));
    let shops = shops.collect::<Vec<_>>().join("   ");
    let mut rows = vec![vec![Cell::new("shops", Style::Faint), Cell::plain(shops)]];
    rows.extend(places.moved.iter().map(|(wanted, got)| {
        let note = format!("port {wanted} is taken, so {got} is used");
        vec![Cell::new("note", Style::Warn), Cell::plain(note)]
    }));
    rows
}

/// What to try, in the order in which it makes sense: a heading, and lines to paste.
fn lines(places: &Places) -> Vec<(&'static str, Vec<String>)> {
    let Places { listener, stage, shops, .. } = places;
    let b2 = shops[1];
    let (file, folder) = (quoted(&places.file), quoted(&places.folder));
    let pintle =
        |command: &str| format!("{} {command} --admin {}", quoted(&places.program), quoted(&places.socket));
    let policy = |policy: &str| format!("sed -i.bak 's/^policy = .*/policy = \"{policy}\"/' {file}");
    let upgrade = "-H 'Connection: Upgrade' -H 'Upgrade: websocket' -H 'Sec-WebSocket-Version: 13' \
                   -H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=='";
    vec![
        (
            "round_robin: the shops take turns",
            vec![format!("for i in 1 2 3 4 5 6; do curl -s http://{listener}/; done")],
        ),
        (
            "another policy: save one line; the reload will say that nobody moves",
            vec![policy("sticky_cookie")],
        ),
        (
            "sticky_cookie: log in with a cookie jar each, and stay with your shop",
            vec![
                format!(
                    "for u in ann bob cyd; do curl -s -c {folder}/$u.jar -d user=$u http://{listener}/login; done"
                ),
                format!("for u in ann bob cyd; do curl -s -b {folder}/$u.jar http://{listener}/; done"),
            ],
        ),
        (
            "ip_hash: each client address has its shop; the reload will say whom that moves",
            vec![
                policy("ip_hash"),
                format!("curl -s --interface 127.0.0.2 http://{listener}/"),
                format!(
                    "for i in 2 3 4 5 2 3 4 5; do curl -s --interface 127.0.0.$i http://{listener}/; done"
                ),
            ],
        ),
        (
            "back again: the cookies still hold",
            vec![
                policy("sticky_cookie"),
                format!("for u in ann bob cyd; do curl -s -b {folder}/$u.jar http://{listener}/; done"),
            ],
        ),
        (
            "a WebSocket handshake, which follows the cookie too; the echo itself is on the page",
            vec![format!(
                "curl -s -o /dev/null -D - -m 1 -b {folder}/bob.jar {upgrade} http://{listener}/ws"
            )],
        ),
        (
            "a rolling deploy: nobody new for b2, whom it knows may stay; then it comes back",
            vec![
                pintle("drain app/b2"),
                pintle("status"),
                pintle("ready app/b2"),
                pintle("drain app/b2 --deadline 5s --wait"),
                pintle("ready app/b2"),
            ],
        ),
        (
            "b2's probe answers 503, and it drains itself; then it is well again",
            vec![
                format!("curl -s -X POST http://{b2}/admin/fail"),
                format!("curl -s -X POST http://{b2}/admin/heal"),
            ],
        ),
        (
            "b2 crashes, and starts again",
            vec![
                format!("curl -s -X POST http://{b2}/admin/crash"),
                format!("curl -s -X POST http://{stage}/start/b2"),
            ],
        ),
        (
            "a fourth: start it, then take the # from its line",
            vec![
                format!("curl -s -X POST http://{stage}/start/b4"),
                format!("sed -i.bak 's/# {{ name = \"b4\"/{{ name = \"b4\"/' {file}"),
            ],
        ),
    ]
}

/// A path as a shell takes it.
pub fn quoted(path: &Path) -> String {
    let path = path.display().to_string();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+:@%".contains(&byte);
    if path.bytes().all(plain) { path } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> Places {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Places {
            listener: at(40123),
            admin: at(9900),
            stage: at(9000),
            shops: vec![at(9001), at(9002), at(9003)],
            spare: at(9004),
            folder: "/tmp/pintle-demo".into(),
            file: "/tmp/pintle-demo/pintle.toml".into(),
            socket: "/tmp/pintle-demo/admin.sock".into(),
            program: "/home/ann/my tools/pintle".into(),
            moved: vec![(8080, 40123)],
        }
    }

    #[test]
    fn a_replaced_port_is_said_and_used() {
        let screen = screen(&places(), Paint(false));
        let head = "  open   http://127.0.0.1:40123        in a browser";
        assert!(screen.contains(head), "{screen}");
        assert!(screen.contains("port 8080 is taken, so 40123 is used"), "{screen}");
        assert!(!screen.contains("127.0.0.1:8080"), "{screen}");
    }

    #[test]
    fn every_command_of_pintle_can_be_pasted_as_it_is() {
        let places = places();
        let commands: Vec<_> = lines(&places).into_iter().flat_map(|(_, lines)| lines).collect();
        let ours: Vec<_> = commands.iter().filter(|line| line.contains("my tools")).collect();
        assert_eq!(ours.len(), 5);
        for line in ours {
            assert!(line.starts_with("'/home/ann/my tools/pintle' "), "{line}");
            assert!(line.ends_with(" --admin /tmp/pintle-demo/admin.sock"), "{line}");
        }
    }

    #[test]
    fn a_path_survives_the_shell() {
        assert_eq!(quoted(Path::new("/tmp/a-b_1.toml")), "/tmp/a-b_1.toml");
        assert_eq!(quoted(Path::new("/tmp/it's")), r"'/tmp/it'\''s'");
    }
}
