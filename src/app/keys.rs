//! The sticky keys that nobody configured: generated once per pool, kept while the process
//! lives, and in `state_dir` where there is one.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use tracing::warn;

use crate::plan::{Plan, Secret, StickyKey};
use crate::pool::affinity::Sealer;

/// A key for every pool of the plan that names none: the one it had, the one on disk, or a
/// new one. Pools that use other policies keep theirs, so that switching back finds it.
pub fn ring(plan: &Plan, known: &HashMap<String, StickyKey>) -> HashMap<String, StickyKey> {
    let mut ring = known.clone();
    for pool in plan.pools.iter().filter(|pool| pool.cookie.keys.is_empty()) {
        if ring.contains_key(&pool.name) {
            continue;
        }
        let key = match &plan.server.state_dir {
            Some(folder) => stored(folder, &pool.name),
            None => {
                if pool.sticky {
                    warn!(
                        event = "process",
                        pool = pool.name,
                        "the key of pool {}'s cookie lives in memory: a restart deals its clients anew; \
                         set [server] state_dir, or keys in [pool.{}.sticky]",
                        pool.name,
                        pool.name
                    );
                }
                Sealer::generated(&pool.name).key().clone()
            }
        };
        ring.insert(pool.name.clone(), key);
    }
    ring
}

/// The key in `folder`, made and written there if there is none.
fn stored(folder: &Path, pool: &str) -> StickyKey {
    let path = folder.join(format!("sticky-{pool}.key"));
    if let Some(key) = read(&path) {
        return key;
    }
    let key = Sealer::generated(pool).key().clone();
    if let Err(error) = write(folder, &path, &key) {
        warn!(event = "process", pool, %error, "cannot keep the sticky key in {}: a restart deals clients anew", path.display());
    }
    key
}

/// One line: the id, a colon, and the secret in hexadecimal.
fn read(path: &PathBuf) -> Option<StickyKey> {
    let text = fs::read_to_string(path).ok()?;
    let (id, hex) = text.trim().split_once(':')?;
    let secret: Option<Vec<u8>> = hex
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    let secret = secret.filter(|secret| secret.len() == 32)?;
    Some(StickyKey { id: id.to_owned(), secret: Secret(secret) })
}

fn write(folder: &Path, path: &PathBuf, key: &StickyKey) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    let hex: String = key.secret.0.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    writeln!(file, "{}:{hex}", key.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_key_is_found_again_and_readable_by_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let folder = std::env::temp_dir().join(format!("pintle-keys-{}", std::process::id()));
        let first = stored(&folder, "app");
        assert_eq!(stored(&folder, "app"), first);
        assert_ne!(stored(&folder, "other"), first);
        let mode = fs::metadata(folder.join("sticky-app.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::remove_dir_all(folder).unwrap();
    }
}
