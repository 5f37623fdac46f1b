//! `drain`, `ready` and `stop`: orders about one backend, and waiting until it is gone.
//!
//! Start at [`drain`]. How the wait looks is in `progress`, how a name is found in `names`.

use std::time::Duration;

use tokio::time::Instant;

use super::client::Client;
use super::outcome::{Exit, Failure};
use super::output::{Output, span};
use super::progress::{Progress, ending, opening, remaining};
use super::{duration, names};
use crate::admin::view::{BackendView, DrainView, StateAnswer, StateOrder, Status};

/// How long `--wait` waits for a drain that has no deadline; the drain goes on.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long after its deadline a drain must be over.
const SETTLE: Duration = Duration::from_secs(10);
/// Between two looks at a drain.
const LOOK: Duration = Duration::from_millis(250);
/// Looks in a row that may fail before the wait ends.
const MAX_MISSES: u32 = 3;

#[derive(clap::Args)]
pub struct DrainArgs {
    /// The backend: any ending of POOL/BACKEND that fits only one
    #[arg(value_name = "POOL/BACKEND")]
    backend: String,
    /// End what is left by then, such as `60s`; without it nothing is ever cut
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    deadline: Option<Duration>,
    /// Wait until it is drained: exit 0 when nothing was cut, 5 when something was
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    order: OrderArgs,
}

#[derive(clap::Args)]
pub struct StopArgs {
    /// The backend: any ending of POOL/BACKEND that fits only one
    #[arg(value_name = "POOL/BACKEND")]
    backend: String,
    #[command(flatten)]
    order: OrderArgs,
}

#[derive(clap::Args)]
pub struct ReadyArgs {
    /// The backend: any ending of POOL/BACKEND that fits only one
    #[arg(value_name = "POOL/BACKEND")]
    backend: String,
}

#[derive(clap::Args)]
struct OrderArgs {
    /// Why, for whoever reads `status`
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Even when no backend would be left
    #[arg(long)]
    force: bool,
}

impl OrderArgs {
    fn order(self, state: &str, deadline: Option<Duration>) -> StateOrder {
        let deadline_seconds = deadline.map(|deadline| deadline.as_secs_f64());
        StateOrder { state: state.into(), deadline_seconds, reason: self.reason, force: self.force }
    }
}

pub async fn drain(args: DrainArgs, client: &Client, output: &Output) -> Result<Exit, Failure> {
    let answer = give(client, &args.backend, args.order.order("draining", args.deadline)).await?;
    notes(&answer, output);
    let (Some(id), true) = (drain_id(&answer), args.wait) else {
        if output.json {
            output.print_json(&answer)?;
        } else {
            output.say(&standing(&answer.backend))?;
        }
        let waited_in_vain = args.wait && !gone(&answer.backend);
        return Ok(if waited_in_vain { Exit::Failed } else { Exit::Done });
    };

    let mut screen = Screen { output, progress: Progress::default(), grown: false };
    let limit = args.deadline.map_or(PATIENCE, |deadline| deadline.saturating_add(SETTLE));
    let followed = follow(client, id, limit, interrupted(), |view| screen.show(view)).await;
    screen.end_line()?;
    conclude(followed?, output)
}

pub async fn stop(args: StopArgs, client: &Client, output: &Output) -> Result<Exit, Failure> {
    let answer = give(client, &args.backend, args.order.order("stopped", None)).await?;
    notes(&answer, output);
    let followed = match drain_id(&answer) {
        Some(id) => Some(follow(client, id, SETTLE, interrupted(), |_| Ok(())).await?),
        None => None,
    };
    match followed {
        Some(Followed::Drained(view)) if output.json => output.print_json(&view)?,
        Some(Followed::Drained(view)) => output.say(&ending(&view, "stopped"))?,
        _ if output.json => output.print_json(&answer)?,
        _ => output.say(&standing(&answer.backend))?,
    }
    Ok(Exit::Done)
}

pub async fn ready(args: ReadyArgs, client: &Client, output: &Output) -> Result<Exit, Failure> {
    let order = StateOrder { state: "active".into(), ..StateOrder::default() };
    let answer = give(client, &args.backend, order).await?;
    notes(&answer, output);
    if output.json {
        output.print_json(&answer)?;
    } else {
        output.say(&standing(&answer.backend))?;
    }
    Ok(if answer.backend.state == "active" { Exit::Done } else { Exit::Failed })
}

/// Finds the backend and gives the order.
async fn give(client: &Client, typed: &str, order: StateOrder) -> Result<StateAnswer, Failure> {
    let status: Status = client.get("/v1/status").await?;
    let backend = names::backend(&status, typed)?;
    let path = format!("/v1/pools/{}/backends/{}", backend.pool, backend.name);
    let refused = |failure: Failure| match failure.exit {
        Exit::Refused if failure.help.is_none() => failure.help("`--force` does it all the same"),
        _ => failure,
    };
    client.patch(&path, &order).await.map_err(refused)
}

fn notes(answer: &StateAnswer, output: &Output) {
    for note in &answer.notes {
        output.note(&format!("note: {note}"));
    }
}

fn drain_id(answer: &StateAnswer) -> Option<u64> {
    answer.drain.or(answer.backend.drain.as_ref().map(|drain| drain.id))
}

fn gone(backend: &BackendView) -> bool {
    ["drained", "stopped"].contains(&backend.state.as_str())
}

/// Where a backend is after an order, and who holds it there.
fn standing(backend: &BackendView) -> String {
    let BackendView { pool, name, state, health, .. } = backend;
    match (&backend.drain, state.as_str()) {
        (Some(drain), "draining") => format!("{}\nfollow it with `pintle status {pool}`", opening(drain)),
        (_, "active") if health.status == "up" => format!("{pool}/{name} ready"),
        (_, "active") => format!("{pool}/{name} ready; it is {} ({})", health.status, health.detail),
        (_, "draining") if backend.state_source == "health" => {
            format!("{pool}/{name} draining: its own health answer asks for it ({})", health.detail)
        }
        _ => format!("{pool}/{name} {state}, as the {} says", backend.state_source),
    }
}

/// How following a drain ended.
#[derive(Debug, PartialEq)]
enum Followed {
    Drained(DrainView),
    /// `ready` or a later order took its place.
    Replaced(DrainView),
    GaveUp(DrainView),
    Interrupted(DrainView),
}

/// Looks at a drain until it is over, `limit` has passed or `interrupted` happens.
async fn follow(
    client: &Client,
    id: u64,
    limit: Duration,
    interrupted: impl Future<Output = ()>,
    mut seen: impl FnMut(&DrainView) -> Result<(), Failure>,
) -> Result<Followed, Failure> {
    let path = format!("/v1/drains/{id}");
    // A deadline so far away that the clock cannot name it is none.
    let until = Instant::now().checked_add(limit);
    let mut interrupted = std::pin::pin!(interrupted);
    let mut view: DrainView = client.get(&path).await?;
    let mut misses = 0;
    loop {
        seen(&view)?;
        match view.state.as_str() {
            "drained" => return Ok(Followed::Drained(view)),
            "ended" => return Ok(Followed::Replaced(view)),
            _ if until.is_some_and(|until| Instant::now() >= until) => return Ok(Followed::GaveUp(view)),
            _ => {}
        }
        tokio::select! {
            () = &mut interrupted => return Ok(Followed::Interrupted(view)),
            () = tokio::time::sleep(LOOK) => {}
        }
        match client.get(&path).await {
            Ok(next) => (view, misses) = (next, 0),
            Err(failure) if failure.exit == Exit::Unreachable && misses < MAX_MISSES => misses += 1,
            Err(failure) => return Err(failure),
        }
    }
}

fn conclude(followed: Followed, output: &Output) -> Result<Exit, Failure> {
    let (view, sentence, exit) = match followed {
        Followed::Drained(view) => {
            let cut = view.tunnels_cut + view.requests_cut > 0;
            let sentence = ending(&view, "drained");
            (view, sentence, if cut { Exit::DeadlinePassed } else { Exit::Done })
        }
        Followed::Replaced(view) => {
            let (pool, backend, elapsed) = (&view.pool, &view.backend, span(view.elapsed_seconds));
            let sentence = format!(
                "{pool}/{backend} is no longer draining, after {elapsed}: `ready` or a later order came"
            );
            (view, sentence, Exit::Failed)
        }
        Followed::GaveUp(view) => {
            let sentence = format!("no longer waiting: {}", remaining(&view));
            (view, sentence, Exit::DeadlinePassed)
        }
        Followed::Interrupted(view) => {
            let sentence = format!("interrupted: {}; `pintle ready` ends that", remaining(&view));
            (view, sentence, Exit::DeadlinePassed)
        }
    };
    if output.json {
        output.print_json(&view)?;
    } else {
        output.say(&sentence)?;
    }
    Ok(exit)
}

/// Ctrl-C ends the wait, not the drain.
async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending().await
    }
}

/// The wait on a terminal, where one line grows, or in a log, where lines follow.
struct Screen<'a> {
    output: &'a Output,
    progress: Progress,
    /// Whether the cursor stands in the growing line.
    grown: bool,
}

impl Screen<'_> {
    fn show(&mut self, view: &DrainView) -> Result<(), Failure> {
        if self.output.silent() {
            return Ok(());
        }
        if self.progress.is_new() {
            self.output.say(&opening(view))?;
        }
        if !self.progress.look(view) {
            return Ok(());
        }
        match self.output.width {
            Some(width) => {
                self.grown = true;
                self.output.print(&format!("\r{}\x1b[K", self.progress.line(width)))
            }
            None => self.output.say(&self.progress.latest()),
        }
    }

    fn end_line(&mut self) -> Result<(), Failure> {
        if std::mem::take(&mut self.grown) { self.output.print("\n") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::super::scripted::Scripted;
    use super::*;
    use clap::ColorChoice;

    fn text(view: DrainView) -> (u16, &'static str) {
        (200, serde_json::to_string(&view).unwrap().leak())
    }

    async fn followed(
        script: Vec<(u16, &'static str)>,
        limit: Duration,
        stopped: bool,
    ) -> Result<Followed, Failure> {
        let mut all = vec![(200, "{}")];
        all.extend(script);
        let pintle = Scripted::start(all);
        let client = Client::find(Some(&pintle.address())).await.unwrap();
        let interrupted = async move {
            if !stopped {
                std::future::pending().await
            }
        };
        follow(&client, 7, limit, interrupted, |_| Ok(())).await
    }

    fn exit(followed: Followed) -> Exit {
        conclude(followed, &Output::new(false, true, ColorChoice::Never)).unwrap()
    }

    #[tokio::test]
    async fn a_wait_ends_with_the_drain() {
        let over = DrainView { state: "drained".into(), ..samples::drain() };
        let script = vec![text(samples::drain()), text(samples::drain()), text(over.clone())];
        assert_eq!(followed(script, PATIENCE, false).await.unwrap(), Followed::Drained(over));
    }

    #[tokio::test]
    async fn a_wait_ends_before_the_drain_when_patience_or_the_person_does() {
        let gave_up = followed(vec![text(samples::drain())], Duration::ZERO, false).await.unwrap();
        assert_eq!(gave_up, Followed::GaveUp(samples::drain()));
        let interrupted = followed(vec![text(samples::drain())], PATIENCE, true).await.unwrap();
        assert_eq!(interrupted, Followed::Interrupted(samples::drain()));
    }

    #[tokio::test]
    async fn a_pintle_that_went_away_ends_the_wait_with_exit_4() {
        let failure = followed(vec![text(samples::drain())], PATIENCE, false).await.unwrap_err();
        assert_eq!(failure.exit, Exit::Unreachable);
    }

    #[test]
    fn a_drain_that_cut_something_is_not_a_success() {
        let cut = DrainView { tunnels_cut: 1, ..samples::drain() };
        assert_eq!(exit(Followed::Drained(samples::drain())), Exit::Done);
        assert_eq!(exit(Followed::Drained(cut)), Exit::DeadlinePassed);
        assert_eq!(exit(Followed::GaveUp(samples::drain())), Exit::DeadlinePassed);
        assert_eq!(exit(Followed::Replaced(samples::drain())), Exit::Failed);
    }

    #[test]
    fn a_backend_that_stays_drained_says_who_holds_it() {
        let mut backend = samples::backend("app", "a2");
        assert_eq!(standing(&backend), "app/a2 ready");
        backend.state = "draining".into();
        backend.state_source = "health".into();
        backend.health.detail = "503".into();
        assert_eq!(standing(&backend), "app/a2 draining: its own health answer asks for it (503)");
        backend.state_source = "file".into();
        assert_eq!(standing(&backend), "app/a2 draining, as the file says");
    }
}
