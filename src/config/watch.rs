//! When the file has changed: polled, because notifications miss bind mounts, symlink swaps and
//! network file systems.
//!
//! Start at [`Watch::poll`]. [`Decision`] is the pure part: when to look, and whether what was
//! seen may be read. What to do with the new text is the caller's. [`FilesWatch`] does the same for
//! the files that the text names.

mod files;

use std::fs::Metadata;
use std::hash::Hasher;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use siphasher::sip128::{Hasher128, SipHasher13};

pub use self::files::{FilesWatch, ReadFile};

/// From one look to the next while nothing changes.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Two looks this far apart must agree before a changed file is read.
const SETTLE: Duration = Duration::from_millis(100);

/// Watches one file, through whatever links lead to it.
#[derive(Debug)]
pub struct Watch {
    path: PathBuf,
    decision: Decision,
    /// The hash of the text that is in force, or was refused last.
    known: Option<(u64, u64)>,
}

impl Watch {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), decision: Decision::default(), known: None }
    }

    /// Call every 100 ms. A text is returned once: when it is new and the file has settled.
    pub fn poll(&mut self, now: Instant) -> Option<String> {
        if !self.decision.due(now) {
            return None;
        }
        let look = look(&self.path);
        if !self.decision.saw(now, look) {
            return None;
        }
        let text = super::read(&self.path).ok();
        // Somebody who writes while we read shows in a second look.
        let settled = self::look(&self.path) == look;
        let Some(text) = text.filter(|_| settled) else {
            self.decision.forget();
            return None;
        };
        let hash = hash(text.as_bytes());
        (self.known.replace(hash) != Some(hash)).then_some(text)
    }

    /// Tells what is already in force, so that a reload by other means is not done again.
    pub fn applied(&mut self, text: &str) {
        self.known = Some(hash(text.as_bytes()));
    }
}

fn hash(bytes: &[u8]) -> (u64, u64) {
    let mut hasher = SipHasher13::new();
    hasher.write(bytes);
    let hash = hasher.finish128();
    (hash.h1, hash.h2)
}

/// What tells one state of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl From<Metadata> for Look {
    fn from(meta: Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
        }
    }
}

/// Follows links. An empty file is one that is being written, and as good as none.
fn look(path: &Path) -> Option<Look> {
    let meta = path.metadata().ok()?;
    (meta.is_file() && meta.size() > 0).then(|| meta.into())
}

/// When to look and when to read, without doing either.
#[derive(Debug, Default)]
pub struct Decision {
    last: Option<Instant>,
    /// The state that has been read.
    read: Option<Look>,
    /// A new state, and when it was first seen.
    pending: Option<(Look, Instant)>,
}

impl Decision {
    /// Whether it is time for a look.
    pub fn due(&self, now: Instant) -> bool {
        let wait = if self.pending.is_some() { SETTLE } else { LOOK_EVERY };
        self.last.is_none_or(|last| now.saturating_duration_since(last) >= wait)
    }

    /// Takes a look's result; true means the file is to be read now. A file that is gone is waited
    /// for.
    pub fn saw(&mut self, now: Instant, look: Option<Look>) -> bool {
        self.last = Some(now);
        let Some(look) = look else {
            self.pending = None;
            return false;
        };
        match self.pending {
            _ if self.read == Some(look) => {
                self.pending = None;
                false
            }
            Some((pending, since)) if pending == look => {
                let settled = now.saturating_duration_since(since) >= SETTLE;
                if settled {
                    (self.read, self.pending) = (Some(look), None);
                }
                settled
            }
            _ => {
                self.pending = Some((look, now));
                false
            }
        }
    }

    /// Whether a new state has been seen that has not settled yet.
    pub fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// The reading failed: what was seen is to be looked at again.
    pub fn forget(&mut self) {
        self.read = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn state(size: u64) -> Option<Look> {
        Some(Look { device: 1, inode: 1, size, modified: (0, 0) })
    }

    /// A folder of its own that ends with the test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("pintle-watch-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn file(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// Steps of 100 ms on a clock of its own.
    struct Clock(Instant);

    impl Clock {
        fn steps(&mut self, watch: &mut Watch, steps: u32) -> Vec<String> {
            let mut seen = Vec::new();
            for _ in 0..steps {
                self.0 += SETTLE;
                seen.extend(watch.poll(self.0));
            }
            seen
        }
    }

    fn watched(name: &str) -> (Folder, PathBuf, Watch, Clock) {
        let folder = Folder::new(name);
        let path = folder.file("pintle.toml");
        fs::write(&path, "one").unwrap();
        let mut watch = Watch::new(&path);
        watch.applied("one");
        let mut clock = Clock(Instant::now());
        assert_eq!(clock.steps(&mut watch, 20), Vec::<String>::new());
        (folder, path, watch, clock)
    }

    #[test]
    fn a_changed_file_is_read_when_two_looks_agree() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut decision = Decision::default();
        assert!(decision.due(at(0)));
        assert!(!decision.saw(at(0), state(1)));
        assert!(!decision.due(at(50)));
        assert!(decision.due(at(100)));
        assert!(!decision.saw(at(100), state(2)), "it still grows");
        assert!(!decision.saw(at(150), state(2)), "too soon to agree");
        assert!(decision.saw(at(200), state(2)));
        assert!(!decision.due(at(600)));
        assert!(decision.due(at(700)));
        assert!(!decision.saw(at(700), state(2)), "it was read");
    }

    #[test]
    fn a_file_that_vanishes_for_a_moment_is_waited_for() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut decision = Decision::default();
        decision.saw(at(0), state(1));
        assert!(decision.saw(at(100), state(1)));
        assert!(!decision.saw(at(600), None));
        assert!(!decision.saw(at(1100), state(3)));
        assert!(decision.saw(at(1200), state(3)));
    }

    #[test]
    fn an_edit_is_seen_within_a_second_and_told_once() {
        let (_folder, path, mut watch, mut clock) = watched("edit");
        fs::write(&path, "two, longer").unwrap();
        assert_eq!(clock.steps(&mut watch, 10), ["two, longer"]);
        assert_eq!(clock.steps(&mut watch, 20), Vec::<String>::new());
    }

    #[test]
    fn renames_and_swapped_links_are_seen() {
        let (folder, path, mut watch, mut clock) = watched("links");
        fs::write(folder.file("new"), "renamed").unwrap();
        fs::rename(folder.file("new"), &path).unwrap();
        assert_eq!(clock.steps(&mut watch, 10), ["renamed"]);

        fs::write(folder.file("v1"), "first version").unwrap();
        fs::write(folder.file("v2"), "second version").unwrap();
        symlink(folder.file("v1"), folder.file("link")).unwrap();
        fs::rename(folder.file("link"), &path).unwrap();
        assert_eq!(clock.steps(&mut watch, 10), ["first version"]);
        symlink(folder.file("v2"), folder.file("link")).unwrap();
        fs::rename(folder.file("link"), &path).unwrap();
        assert_eq!(clock.steps(&mut watch, 10), ["second version"]);

        fs::remove_file(&path).unwrap();
        assert_eq!(clock.steps(&mut watch, 10), Vec::<String>::new());
        fs::write(&path, "back").unwrap();
        assert_eq!(clock.steps(&mut watch, 10), ["back"]);
    }

    #[test]
    fn the_same_content_in_a_new_file_is_no_change() {
        let (folder, path, mut watch, mut clock) = watched("same");
        fs::write(folder.file("new"), "one").unwrap();
        fs::rename(folder.file("new"), &path).unwrap();
        assert_eq!(clock.steps(&mut watch, 20), Vec::<String>::new());
        fs::write(&path, "by hand").unwrap();
        watch.applied("by hand");
        assert_eq!(clock.steps(&mut watch, 20), Vec::<String>::new());
    }

    #[test]
    fn an_empty_or_unreadable_file_is_waited_for() {
        let (_folder, path, mut watch, mut clock) = watched("empty");
        fs::write(&path, "").unwrap();
        assert_eq!(clock.steps(&mut watch, 10), Vec::<String>::new());
        fs::write(&path, [0xff, 0xfe]).unwrap();
        assert_eq!(clock.steps(&mut watch, 10), Vec::<String>::new());
        fs::write(&path, "whole").unwrap();
        assert_eq!(clock.steps(&mut watch, 10), ["whole"]);
    }

    proptest! {
        #[test]
        fn nothing_is_read_that_has_not_stood_still(sizes in proptest::collection::vec(proptest::option::of(1u64..4), 1..60)) {
            let mut decision = Decision::default();
            let mut now = Instant::now();
            let mut before = None;
            for size in sizes {
                now += SETTLE;
                let look = size.and_then(state);
                if !decision.due(now) {
                    continue;
                }
                let read = decision.saw(now, look);
                prop_assert!(!read || (look.is_some() && look == before));
                before = look;
            }
        }
    }
}
