//! What is done to the backends, the file and the program while traffic flows.
//!
//! Start at [`act`]. Each fault leaves everything as it found it, and says whom it struck and when.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fleet::Backend;
use crate::rules::{Blow, Strike};
use crate::stage::Stage;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    Steady,
    Kill,
    Restart,
    Freeze,
    Hang,
    Reset,
    Refuse,
    Deploy,
    Rewrite,
    Broken,
    Upgrade,
    Hold,
}

impl Fault {
    pub const ALL: [Self; 12] = [
        Self::Steady,
        Self::Kill,
        Self::Restart,
        Self::Freeze,
        Self::Hang,
        Self::Reset,
        Self::Refuse,
        Self::Deploy,
        Self::Rewrite,
        Self::Broken,
        Self::Upgrade,
        Self::Hold,
    ];

    /// As it is asked for.
    pub fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Kill => "kill",
            Self::Restart => "restart",
            Self::Freeze => "freeze",
            Self::Hang => "hang",
            Self::Reset => "reset",
            Self::Refuse => "refuse",
            Self::Deploy => "deploy",
            Self::Rewrite => "rewrite",
            Self::Broken => "broken",
            Self::Upgrade => "upgrade",
            Self::Hold => "hold",
        }
    }

    pub fn title(self) -> &'static str {
        match self {
            Self::Steady => "none",
            Self::Kill => "kill -9, back after 1 s",
            Self::Restart => "killed and started again at once",
            Self::Freeze => "stands still for 3 s (SIGSTOP)",
            Self::Hang => "the same for 4 s, `response` = 1 s",
            Self::Reset => "resets its connections, three times",
            Self::Refuse => "refuses connections for 1.5 s",
            Self::Deploy => "rolling deploy of all, two at a time",
            Self::Rewrite => "file rewritten 50 times",
            Self::Broken => "broken files",
            Self::Upgrade => "binary upgraded twice",
            Self::Hold => "the only backend restarts",
        }
    }
}

/// What came of an act.
#[derive(Default)]
pub struct Done {
    pub strikes: Vec<Strike>,
    /// No GET may have taken longer.
    pub slowest: Option<Duration>,
}

/// What a wait for a backend that comes back may add.
const SLACK: Duration = Duration::from_secs(1);
/// What a busy machine may add to anything.
const NOISE: Duration = Duration::from_secs(2);
/// Short requests that began under another file are over by then.
const SETTLED: u64 = 300;

/// Does it, while the stage's traffic flows.
pub async fn act(fault: Fault, stage: &mut Stage) -> Result<Done, String> {
    match fault {
        Fault::Steady => {
            pause(1500).await;
            Ok(Done::default())
        }
        Fault::Kill => dies(stage, 1000).await,
        Fault::Restart => dies(stage, 0).await,
        Fault::Freeze => freezes(stage).await,
        Fault::Hang => hangs(stage).await,
        Fault::Reset => resets(stage).await,
        Fault::Refuse => refuses(stage).await,
        Fault::Deploy => deploys(stage).await,
        Fault::Rewrite => rewrites(stage).await,
        Fault::Broken => breaks(stage).await,
        Fault::Upgrade => upgrades(stage).await,
        Fault::Hold => holds(stage).await,
    }
}

async fn pause(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

/// A backend at random.
fn pick(stage: &mut Stage) -> usize {
    stage.random.usize(..stage.backends.len())
}

fn strike(backend: &Backend, blow: Blow, from: Instant) -> Strike {
    let now = Instant::now();
    Strike { backend: backend.name.to_string(), blow, from, until: now, over: now }
}

/// The strikes are over once everybody is up again.
async fn well(stage: &Stage, mut strikes: Vec<Strike>) -> Result<Done, String> {
    stage.balancer.well().await;
    strikes.iter_mut().for_each(|strike| strike.over = Instant::now());
    Ok(Done { strikes, slowest: None })
}

async fn dies(stage: &mut Stage, away: u64) -> Result<Done, String> {
    let one = pick(stage);
    let from = Instant::now();
    stage.backends[one].kill().await;
    let strikes = vec![strike(&stage.backends[one], Blow::Died, from)];
    pause(away).await;
    stage.backends[one].begin(&stage.keeper).await;
    well(stage, strikes).await
}

async fn freezes(stage: &mut Stage) -> Result<Done, String> {
    let one = pick(stage);
    let (from, still) = (Instant::now(), Duration::from_secs(3));
    stage.backends[one].freeze();
    tokio::time::sleep(still).await;
    stage.backends[one].thaw();
    let strikes = vec![strike(&stage.backends[one], Blow::Frozen, from)];
    let done = well(stage, strikes).await?;
    Ok(Done { slowest: Some(still + NOISE), ..done })
}

async fn hangs(stage: &mut Stage) -> Result<Done, String> {
    let one = pick(stage);
    reload(stage, &stage.file.impatient().text()).await?;
    // Who came before keeps the patience that held then.
    pause(SETTLED).await;
    let from = Instant::now();
    stage.backends[one].freeze();
    pause(4000).await;
    stage.backends[one].thaw();
    let mut strike = strike(&stage.backends[one], Blow::Hung, from);
    // Once both pools have noticed, nobody is sent there any more.
    if let Some(noticed) = stage.noticed(&strike.backend, from).last() {
        strike.until = strike.until.min(from + *noticed + NOISE / 8);
    }
    let done = well(stage, vec![strike]).await?;
    reload(stage, &stage.file.text()).await?;
    // One wait for the hung backend, one for another.
    Ok(Done { slowest: Some(Duration::from_secs(2) + NOISE), ..done })
}

async fn resets(stage: &mut Stage) -> Result<Done, String> {
    let mut strikes = Vec::new();
    for _ in 0..3 {
        let one = pick(stage);
        let from = Instant::now();
        stage.backends[one].reset().await;
        strikes.push(strike(&stage.backends[one], Blow::Reset, from));
        pause(400).await;
    }
    well(stage, strikes).await
}

async fn refuses(stage: &mut Stage) -> Result<Done, String> {
    let one = pick(stage);
    let from = Instant::now();
    stage.backends[one].refuse().await;
    pause(1500).await;
    stage.backends[one].listen().await;
    let strikes = vec![strike(&stage.backends[one], Blow::Refused, from)];
    well(stage, strikes).await
}

/// Every backend is drained with a deadline, stopped, started and made ready, two at a time.
async fn deploys(stage: &mut Stage) -> Result<Done, String> {
    let deadline = format!("{}ms", stage.pace.deadline.as_millis());
    let mut order: Vec<usize> = (0..stage.backends.len()).collect();
    stage.random.shuffle(&mut order);
    let mut strikes: Vec<Strike> = Vec::new();
    for pair in order.chunks(2) {
        let from = Instant::now();
        let names: Vec<String> = pair
            .iter()
            .flat_map(|one| ["app", "pinned"].map(|pool| format!("{pool}/{}", stage.backends[*one].name)))
            .collect();
        let drain = |name: &String| {
            let arguments = ["drain".into(), name.clone(), "--deadline".into(), deadline.clone()];
            stage.command([&arguments[..], &["--wait".into(), "--json".into()]].concat())
        };
        let drains: Vec<_> = names.iter().map(drain).collect();
        let drains: Vec<_> = drains.into_iter().map(tokio::task::spawn_local).collect();
        for (drain, name) in drains.into_iter().zip(&names) {
            let ended = drain.await.expect("it is waited for");
            let view: Value = serde_json::from_str(&ended.stdout).unwrap_or_default();
            // Exit 5 says that the deadline ended something. It may have been tunnels.
            if !matches!(ended.exit, Some(0 | 5)) || view["requests_cut"] != 0 || view["state"] != "drained" {
                return Err(format!("drain {name} exits with {:?}: {view} {}", ended.exit, ended.stderr));
            }
        }
        let first = strikes.len();
        for one in pair {
            strikes.push(strike(&stage.backends[*one], Blow::Drained, from));
            // Nothing is there any more that a kill could cut.
            stage.backends[*one].kill().await;
            stage.backends[*one].begin(&stage.keeper).await;
        }
        for name in &names {
            let ended = stage.command(vec!["ready".into(), name.clone()]).await;
            if ended.exit != Some(0) {
                return Err(format!("ready {name} exits with {:?}: {}", ended.exit, ended.stderr));
            }
        }
        stage.balancer.well().await;
        strikes[first..].iter_mut().for_each(|strike| strike.over = Instant::now());
    }
    Ok(Done { strikes, slowest: None })
}

async fn reload(stage: &Stage, text: &str) -> Result<(), String> {
    stage.balancer.edit(text);
    match stage.balancer.reload().await {
        (200, _) => Ok(()),
        (status, body) => Err(format!("a reload was answered with {status}: {body}")),
    }
}

async fn rewrites(stage: &mut Stage) -> Result<Done, String> {
    for _ in 0..50 {
        let edited = stage.file.edited(&mut stage.random).text();
        reload(stage, &edited).await?;
        pause(stage.random.u64(20..80)).await;
    }
    // The last one is found by itself.
    let before = stage.balancer.generation().await;
    stage.balancer.edit(&stage.file.text());
    stage.balancer.eventually("the file is read again", async |it| it.generation().await > before).await;
    Ok(Done::default())
}

async fn breaks(stage: &mut Stage) -> Result<Done, String> {
    let good = stage.file.text();
    let before = stage.balancer.generation().await;
    let half: String = good.chars().take(good.len() / 2).collect();
    let broken =
        [half, good.replace("policy", "polizy"), good.replace("/healthz", "healthz"), "\u{7f}".into()];
    for text in broken {
        stage.balancer.edit(&text);
        let (status, body) = stage.balancer.reload().await;
        if status != 422 || stage.balancer.generation().await != before {
            return Err(format!("a broken file was answered with {status}: {body}\n{text}"));
        }
        // The watch finds it too.
        pause(300).await;
    }
    if stage.balancer.generation().await != before {
        return Err("a broken file was applied".into());
    }
    reload(stage, &good).await?;
    Ok(Done::default())
}

async fn upgrades(stage: &mut Stage) -> Result<Done, String> {
    for _ in 0..2 {
        let before = stage.balancer.pid().await;
        let ended = stage.command(vec!["upgrade".to_owned()]).await;
        if ended.exit != Some(0) || stage.balancer.pid().await == before {
            return Err(format!("upgrade exits with {:?}: {}{}", ended.exit, ended.stdout, ended.stderr));
        }
        pause(1000).await;
    }
    well(stage, Vec::new()).await
}

async fn holds(stage: &mut Stage) -> Result<Done, String> {
    let from = Instant::now();
    stage.solo.leave().await;
    pause(500).await;
    stage.solo.begin(&stage.keeper).await;
    let restart = from.elapsed();
    let strikes = vec![strike(&stage.solo, Blow::Left, from)];
    let done = well(stage, strikes).await?;
    Ok(Done { slowest: Some(restart + SLACK), ..done })
}
