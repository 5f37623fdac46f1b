//! Users send files, ask every replica for them, and count what is missing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::{JoinHandle, JoinSet};

use super::client::{Content, Framing, Sent, User};
use super::{MIB, REPLICAS};
use crate::harness::memory::resident;
use crate::harness::{Outcome, Replica, Stage};

const USERS: [&str; 4] = ["ann", "ben", "cem", "dora"];
/// Each user has three: with the same names as everybody's, and not the same bytes.
const SMALL: [(&str, u64); 3] = [("photo.jpg", 200_000), ("notes.txt", 1_000), ("empty.txt", 0)];
/// How often memory is looked at.
const SAMPLE: Duration = Duration::from_millis(10);

/// What a trial showed.
#[derive(Debug, Default)]
pub struct Seen {
    pub files: usize,
    pub bytes: u64,
    pub largest: u64,
    /// Downloads answered by the replica that had taken the file, and by others.
    pub here: usize,
    pub elsewhere: usize,
    pub missing_here: usize,
    pub missing: usize,
    /// Downloads whose length or checksum was not what was sent.
    pub spoilt: usize,
    pub lists: usize,
    pub short_lists: usize,
    /// Attempts to see what belongs to others, and how many did.
    pub looks: usize,
    pub foreign: usize,
    pub took: BTreeSet<String>,
    pub gave: BTreeSet<String>,
    pub large: usize,
    pub large_accepted: usize,
    /// Resident memory at rest and at its peak.
    pub balancer: Option<(u64, u64)>,
    pub hungriest: Option<(u64, u64)>,
}

impl Seen {
    pub fn downloads(&self) -> usize {
        self.here + self.elsewhere
    }
}

/// A file, whose it is, and which replica took it.
struct Upload {
    user: User,
    name: String,
    content: Content,
    replica: String,
}

/// Sends `large` files and small ones, then asks for everything at every replica.
pub async fn try_out(stage: &Stage, front: &Replica, replicas: &[Replica], large: &[u64]) -> Outcome<Seen> {
    let mut seen = Seen { large: large.len(), ..Seen::default() };
    let watch = Watch::begin(front, replicas);
    let uploads = send(stage, front, large, &mut seen).await?;
    fetch(&uploads, &mut seen).await?;
    (seen.balancer, seen.hungriest) = watch.end().await?;
    list(front, &uploads, &mut seen).await?;
    snoop(front, &uploads, &mut seen).await?;
    Ok(seen)
}

/// Everybody sends at the same time.
async fn send(stage: &Stage, front: &Replica, large: &[u64], seen: &mut Seen) -> Outcome<Vec<Upload>> {
    let mut chance = stage.chance("uploads");
    let small = SMALL.map(|(name, bytes)| (name.to_owned(), bytes));
    let small =
        USERS.iter().flat_map(|user| small.iter().map(move |(name, bytes)| (*user, name.clone(), *bytes)));
    let film =
        |(number, bytes): (usize, &u64)| (USERS[number % USERS.len()], format!("film-{number}.mp4"), *bytes);
    let files = small.chain(large.iter().enumerate().map(film));
    let mut sending = JoinSet::new();
    for (number, (user, name, bytes)) in files.enumerate() {
        let user = User { name: user.into(), at: front.address };
        let content = Content { seed: chance.u64(..), bytes };
        let framing = if number % 2 == 0 { Framing::Length } else { Framing::Chunked };
        sending.spawn(async move {
            let sent = user.upload(&name, content, framing).await?;
            Outcome::Ok((Upload { user, name, content, replica: sent.replica }, sent.status))
        });
    }
    let mut uploads = Vec::new();
    while let Some(sent) = sending.join_next().await {
        let (upload, status) = sent??;
        let is_large = upload.name.starts_with("film");
        if status != 201 && !is_large {
            return Err(format!("{} was answered {status}", upload.name).into());
        }
        if status == 201 {
            seen.large_accepted += usize::from(is_large);
            seen.bytes += upload.content.bytes;
            seen.largest = seen.largest.max(upload.content.bytes);
            seen.took.insert(upload.replica.clone());
            uploads.push(upload);
        }
    }
    seen.files = uploads.len();
    Ok(uploads)
}

/// One request after the other, so that round_robin shows each small file to every replica. A
/// large one is fetched once.
async fn fetch(uploads: &[Upload], seen: &mut Seen) -> Outcome<()> {
    for upload in uploads {
        let checksum = upload.content.checksum();
        let times = if upload.content.bytes < MIB { REPLICAS } else { 1 };
        for _ in 0..times {
            let got = upload.user.download(&upload.name).await?;
            let here = got.replica == upload.replica;
            let (asked, missing) = match here {
                true => (&mut seen.here, &mut seen.missing_here),
                false => (&mut seen.elsewhere, &mut seen.missing),
            };
            *asked += 1;
            match got.status {
                200 if got.bytes == upload.content.bytes && got.checksum == checksum => {
                    seen.gave.insert(got.replica);
                }
                200 => seen.spoilt += 1,
                _ => *missing += 1,
            }
        }
    }
    Ok(())
}

/// Everybody asks every replica for their list.
async fn list(front: &Replica, uploads: &[Upload], seen: &mut Seen) -> Outcome<()> {
    for name in USERS {
        let user = User { name: name.into(), at: front.address };
        let mine = uploads.iter().filter(|upload| upload.user.name == name);
        let mine: BTreeSet<_> = mine.map(|upload| upload.name.clone()).collect();
        for _ in 0..REPLICAS {
            let listed: BTreeSet<_> = user.list().await?.into_iter().collect();
            seen.lists += 1;
            seen.short_lists += usize::from(!mine.is_subset(&listed));
            seen.looks += 1;
            seen.foreign += usize::from(!listed.is_subset(&mine));
        }
    }
    Ok(())
}

/// Each user puts one file that has a name of its own, and all others ask every replica for it.
async fn snoop(front: &Replica, uploads: &[Upload], seen: &mut Seen) -> Outcome<()> {
    let secret = Content { seed: uploads.len() as u64, bytes: 5_000 };
    for owner in USERS {
        let user = User { name: owner.into(), at: front.address };
        let name = format!("diary-of-{owner}.txt");
        user.upload(&name, secret, Framing::Length).await?;
        for other in USERS.into_iter().filter(|other| *other != owner) {
            let other = User { name: other.into(), at: front.address };
            for path in [name.clone(), format!("..%2F{owner}%2F{name}")] {
                for _ in 0..REPLICAS {
                    seen.looks += 1;
                    seen.foreign += usize::from(other.download(&path).await?.status == 200);
                }
            }
        }
    }
    Ok(())
}

/// What became of files that are one byte too large.
#[derive(Debug)]
pub struct Edge {
    pub told: Sent,
    pub chunked: Sent,
    /// How many of the two are listed.
    pub kept: usize,
}

pub async fn edge(front: &Replica, limit: u64) -> Outcome<Edge> {
    let user = User { name: "edith".into(), at: front.address };
    let content = Content { seed: 1, bytes: limit + 1 };
    let told = user.upload("told.bin", content, Framing::Length).await?;
    let chunked = user.upload("chunked.bin", content, Framing::Chunked).await?;
    let kept = user.list().await?.len();
    Ok(Edge { told, chunked, kept })
}

/// Looks at the memory of processes until it is ended.
struct Watch {
    done: Arc<AtomicBool>,
    watching: JoinHandle<Vec<Option<(u64, u64)>>>,
}

impl Watch {
    fn begin(front: &Replica, replicas: &[Replica]) -> Self {
        let pids: Vec<_> = std::iter::once(front).chain(replicas).map(Replica::pid).collect();
        let done = Arc::new(AtomicBool::new(false));
        let ended = done.clone();
        let mut peaks: Vec<_> = pids.iter().map(|pid| resident(*pid).map(|rest| (rest, rest))).collect();
        let watching = tokio::spawn(async move {
            while !ended.load(Ordering::Relaxed) {
                for (pid, peak) in pids.iter().zip(&mut peaks) {
                    if let (Some(now), Some((_, peak))) = (resident(*pid), peak) {
                        *peak = now.max(*peak);
                    }
                }
                tokio::time::sleep(SAMPLE).await;
            }
            peaks
        });
        Self { done, watching }
    }

    /// Rest and peak of the first process, and of the one among the others that grew most.
    async fn end(self) -> Outcome<(Option<(u64, u64)>, Option<(u64, u64)>)> {
        self.done.store(true, Ordering::Relaxed);
        let peaks = self.watching.await?;
        let (first, others) = peaks.split_first().expect("the balancer is watched");
        Ok((*first, others.iter().copied().flatten().max_by_key(|(rest, peak)| peak - rest)))
    }
}
