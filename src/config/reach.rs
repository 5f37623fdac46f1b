//! Where the `[admin]` table of a file says that its Pintle can be reached.
//!
//! Lenient where the rest of this room is strict: the command line asks this of files with
//! mistakes too, because `pintle reload` is how somebody hears about them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

/// The admin addresses that a file gives; empty where it says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    pub socket: Option<PathBuf>,
    pub bind: Option<SocketAddr>,
}

/// What can be read of `[admin]` in this text; `base` is the folder of its file.
pub fn reach(text: &str, base: &Path) -> Reach {
    // An open bracket further up can swallow the table, so its own lines are the second try.
    let own = text.find("\n[admin]").map_or("", |at| &text[at..]);
    [text, own].iter().find_map(|text| in_table(text, base)).unwrap_or_default()
}

fn in_table(text: &str, base: &Path) -> Option<Reach> {
    let (table, _) = DeTable::parse_recoverable(text);
    let DeValue::Table(admin) = table.get_ref().get("admin")?.get_ref() else { return None };
    let setting = |key: &str| admin.get(key)?.get_ref().as_str();
    Some(Reach {
        socket: setting("socket").map(|path| base.join(path)),
        bind: setting("bind").and_then(|address| address.parse().ok()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_socket_is_beside_its_file() {
        let reach = reach("[admin]\nsocket = \"run/admin.sock\"\nbind = \"off\"", Path::new("/etc/pintle"));
        assert_eq!(reach, Reach { socket: Some("/etc/pintle/run/admin.sock".into()), bind: None });
    }

    #[test]
    fn a_file_with_mistakes_still_says_where() {
        let there = Some("127.0.0.1:9901".parse().unwrap());
        for mistake in
            ["policy = round\n", "backends = [1,\n", "name = \"open\nkey\n", "a = 1\na = 2\n", "[pool\n"]
        {
            let text = format!("[pool.app]\n{mistake}[admin]\nsockt = 3\nbind = \"127.0.0.1:9901\"\n");
            assert_eq!(reach(&text, Path::new("")).bind, there, "{mistake}");
        }
        assert_eq!(reach("admin = 4", Path::new("")), Reach::default());
    }
}
