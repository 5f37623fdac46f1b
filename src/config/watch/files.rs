//! The files that a plan was read from besides its text: certificates and their keys.
//!
//! Start at [`FilesWatch::poll`]. The files of a pair are written one after the other, so nothing
//! is said while one of them still changes. Should that not be enough, the pair is refused, what
//! runs stays, and the second file is news again.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::{Decision, hash, look};
use crate::config::compile::bytes_of;

/// No watched file is longer.
const MAX_FILE: usize = 1024 * 1024;

/// A file that went into a plan, as it was then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadFile {
    path: PathBuf,
    hash: (u64, u64),
}

impl ReadFile {
    pub fn new(path: &Path, bytes: &[u8]) -> Self {
        Self { path: path.to_owned(), hash: hash(bytes) }
    }
}

/// Watches the files of the plan in force.
#[derive(Debug, Default)]
pub struct FilesWatch {
    files: Vec<(ReadFile, Decision)>,
    /// Something new was read and not yet told.
    news: bool,
}

impl FilesWatch {
    /// Goes on with the files of a new plan.
    pub fn follow(&mut self, files: Vec<ReadFile>) {
        let mut known = std::mem::take(&mut self.files);
        for file in files {
            let decision = known.iter_mut().find(|(before, _)| before.path == file.path);
            let decision = decision.map(|(_, decision)| std::mem::take(decision)).unwrap_or_default();
            if !self.files.iter().any(|(other, _)| other.path == file.path) {
                self.files.push((file, decision));
            }
        }
        self.news = false;
    }

    /// Call every 100 ms. True once for each change, when all files have settled.
    pub fn poll(&mut self, now: Instant) -> bool {
        for (file, decision) in &mut self.files {
            if !decision.due(now) {
                continue;
            }
            let seen = look(&file.path);
            if !decision.saw(now, seen) {
                continue;
            }
            // Somebody who writes while we read shows in a second look.
            match bytes_of(&file.path, MAX_FILE).ok().filter(|_| look(&file.path) == seen) {
                None => decision.forget(),
                Some(bytes) => {
                    let hash = hash(&bytes);
                    self.news |= std::mem::replace(&mut file.hash, hash) != hash;
                }
            }
        }
        let settled = !self.files.iter().any(|(_, decision)| decision.is_pending());
        settled && std::mem::take(&mut self.news)
    }
}

#[cfg(test)]
mod tests {
    use super::super::SETTLE;
    use super::*;
    use std::fs;

    struct Pair {
        folder: PathBuf,
        watch: FilesWatch,
        now: Instant,
    }

    impl Pair {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("pintle-files-{name}-{}", std::process::id()));
            fs::create_dir_all(&folder).unwrap();
            let mut pair = Self { folder, watch: FilesWatch::default(), now: Instant::now() };
            ["crt", "key"].iter().for_each(|file| pair.write(file, "one"));
            pair.watch.follow(["crt", "key", "key"].map(|file| pair.read(file)).to_vec());
            assert_eq!(pair.steps(20), 0, "nothing has changed yet");
            pair
        }

        fn read(&self, file: &str) -> ReadFile {
            let path = self.folder.join(file);
            ReadFile::new(&path, &fs::read(&path).unwrap())
        }

        fn write(&self, file: &str, text: &str) {
            fs::write(self.folder.join(file), text).unwrap();
        }

        /// How often a change was told in so many steps of 100 ms.
        fn steps(&mut self, steps: usize) -> usize {
            let step = |pair: &mut Self| {
                pair.now += SETTLE;
                usize::from(pair.watch.poll(pair.now))
            };
            (0..steps).map(|_| step(self)).sum()
        }
    }

    impl Drop for Pair {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }

    #[test]
    fn a_pair_that_changes_is_told_once() {
        let mut pair = Pair::new("once");
        pair.write("crt", "two, longer");
        pair.write("key", "two, longer");
        assert_eq!(pair.steps(10), 1);
        assert_eq!(pair.steps(20), 0);
        // What is in force now is no news, nor is what is written again.
        pair.watch.follow(vec![pair.read("crt"), pair.read("key")]);
        pair.write("crt", "two, longer");
        assert_eq!(pair.steps(20), 0);
    }

    #[test]
    fn nothing_is_told_while_a_file_still_changes() {
        let mut pair = Pair::new("growing");
        pair.write("crt", "two, longer");
        let mut text = "key".to_owned();
        for _ in 0..20 {
            text.push('.');
            pair.write("key", &text);
            assert_eq!(pair.steps(1), 0);
        }
        assert_eq!(pair.steps(10), 1);
    }

    #[test]
    fn the_second_file_is_news_after_the_first() {
        let mut pair = Pair::new("second");
        pair.write("crt", "two, longer");
        assert_eq!(pair.steps(10), 1);
        pair.write("key", "two, longer");
        assert_eq!(pair.steps(10), 1);
    }

    #[test]
    fn a_file_that_is_gone_is_waited_for() {
        let mut pair = Pair::new("gone");
        fs::remove_file(pair.folder.join("crt")).unwrap();
        assert_eq!(pair.steps(20), 0);
        pair.write("crt", "back");
        assert_eq!(pair.steps(10), 1);
    }

    #[test]
    fn what_changed_between_the_reading_and_the_first_look_is_news() {
        let mut pair = Pair::new("between");
        let before = pair.read("crt");
        pair.write("crt", "two, longer");
        pair.watch = FilesWatch::default();
        pair.watch.follow(vec![before]);
        assert_eq!(pair.steps(10), 1);
    }
}
