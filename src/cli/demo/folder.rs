//! The demo's temporary folder, which goes when the demo goes, and the file in it.
//!
//! Start at [`Folder::make`]; what the file says is [`file()`].

use std::fs::{self, DirBuilder};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Exists as long as this does, for this user alone.
pub struct Folder(PathBuf);

impl Folder {
    /// A short name if nobody has it, so that lines to paste stay short.
    pub fn make(within: &Path) -> io::Result<Self> {
        let make = |name: String| {
            let path = within.join(name);
            DirBuilder::new().mode(0o700).create(&path).map(|()| Self(path))
        };
        make("pintle-demo".to_owned()).or_else(|_| make(format!("pintle-demo-{}", std::process::id())))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is left to whoever cleans the temporary directory.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What the demo's Pintle runs from: a file like any other.
pub fn file(listener: SocketAddr, admin: SocketAddr, shops: &[SocketAddr], spare: SocketAddr) -> String {
    let backend =
        |index: usize, address| format!("{{ name = \"b{}\", address = \"{address}\" }},\n", index + 1);
    let shops_now: String =
        shops.iter().enumerate().map(|(index, shop)| format!("  {}", backend(index, shop))).collect();
    let added = backend(shops.len(), &spare);
    format!(
        "\
# The demo's file. A change that is saved holds within a second; one with a mistake changes nothing.

[listener.web]
bind = \"{listener}\"

[admin]
socket = \"admin.sock\"
bind = \"{admin}\"

[log.access]
enabled = false

[server]
drain_timeout = \"1s\"    # how long Ctrl-C waits for what is in flight

[pool.app]
# The daily edit: round_robin, ip_hash, sticky_cookie, least_conn, least_time, random_two, consistent_hash
policy = \"round_robin\"
backends = [
{shops_now}  # {added}]

[pool.app.health]
path = \"/healthz\"
interval = \"500ms\"      # short, so that there is something to see
timeout = \"500ms\"
fall = 2
drain_on = \"503\"        # a shop that answers so keeps its sessions and gets nobody new
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_private_and_goes_with_its_owner() {
        use std::os::unix::fs::PermissionsExt;
        let within = std::env::temp_dir().join(format!("folder-test-{}", std::process::id()));
        let within = Folder(within);
        fs::create_dir(within.path()).unwrap();
        let first = Folder::make(within.path()).unwrap();
        let second = Folder::make(within.path()).unwrap();
        assert!(first.path().ends_with("pintle-demo") && first.path() != second.path());
        assert_eq!(fs::metadata(first.path()).unwrap().permissions().mode() & 0o777, 0o700);
        fs::write(first.path().join("jar"), "").unwrap();
        let path = first.path().to_owned();
        drop(first);
        assert!(!path.exists() && second.path().exists());
    }

    #[test]
    fn the_file_is_valid_before_and_after_each_edit_that_the_demo_prints() {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let text = file(at(8080), at(9900), &[at(9001), at(9002), at(9003)], at(9004));
        let origin = crate::config::Origin { name: "demo".into(), base: "/tmp".into() };
        let backends = |text: &str| {
            let compiled =
                crate::config::compile(text, &origin).unwrap_or_else(|p| panic!("{}", p.render(false)));
            compiled.plan.pools[0].backends.len()
        };
        assert_eq!(backends(&text), 3);
        assert_eq!(backends(&text.replace("\"round_robin\"", "\"sticky_cookie\"")), 3);
        assert_eq!(backends(&text.replace("\"round_robin\"", "\"ip_hash\"")), 3);
        assert_eq!(backends(&text.replace("# { name", "{ name")), 4);
    }
}
