//! Files on a disk of one machine: what a replica has for itself, and what the object store keeps.
//!
//! The files have no names on the disk: they go when their process does, however that ends, and
//! a run leaves nothing behind.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::{Body, Bytes};
use futures_util::stream;
use http_body_util::BodyExt;

use crate::harness::Outcome;

const CHUNK: usize = 64 * 1024;

type Shelf = BTreeMap<String, (Arc<File>, u64)>;

/// Cheap to clone; clones share the files.
#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<Shelf>>);

impl Disk {
    /// Writes a body as it comes, and keeps it when all of it has come. A write goes to the page
    /// cache and is short, so it is done in place.
    pub async fn put(&self, key: String, mut body: Body) -> Outcome<u64> {
        let mut file = unnamed()?;
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame?.into_data() {
                file.write_all(&data)?;
                bytes += data.len() as u64;
            }
        }
        self.with(|files| files.insert(key, (Arc::new(file), bytes)));
        Ok(bytes)
    }

    /// A file's length, and its bytes as they are read.
    pub fn get(&self, key: &str) -> Option<(u64, Body)> {
        let (file, bytes) = self.with(|files| files.get(key).cloned())?;
        let chunks = stream::try_unfold((file, 0), async |(file, at)| {
            let mut chunk = vec![0; CHUNK];
            let read = file.read_at(&mut chunk, at)?;
            chunk.truncate(read);
            let rest = (file, at + read as u64);
            std::io::Result::Ok((read > 0).then(|| (Bytes::from(chunk), rest)))
        });
        Some((bytes, Body::from_stream(chunks)))
    }

    /// The names behind a prefix.
    pub fn list(&self, prefix: &str) -> Vec<String> {
        let name = |key: &String| key.strip_prefix(prefix).map(str::to_owned);
        self.with(|files| files.keys().filter_map(name).collect())
    }

    fn with<T>(&self, act: impl FnOnce(&mut Shelf) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn unnamed() -> std::io::Result<File> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("pintle-lesson-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let path = std::env::temp_dir().join(name);
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(path)?;
    Ok(file)
}
