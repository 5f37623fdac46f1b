//! `--play`: the shop stays open and 300 users shop in it, while you kill, restart, add and drain
//! replicas, stop the store, or edit Pintle's file. After each it says who noticed.
//!
//! Start at [`play`]. [`door`] is what the pasted lines reach, [`theatre`] what they do.

mod door;
mod theatre;

use std::time::Duration;

use tokio::sync::mpsc;

use self::theatre::Theatre;
use crate::harness::figures::share;
use crate::harness::{Outcome, Stage};
use crate::shop::Strategy;
use crate::shop::crowd::{Crowd, Log, Moment};

const USERS: usize = 300;
/// How often it is looked who noticed something.
const ROUND: Duration = Duration::from_secs(1);
/// For how many rounds after something happened it is also said that nobody noticed.
const AFTERMATH: u32 = 2;
/// Orders that may wait for the one before.
const ORDERS: usize = 16;

/// Runs until Ctrl-C.
pub async fn play(stage: &Stage, strategy: Strategy) -> Outcome<()> {
    let (orders_tx, mut orders) = mpsc::channel(ORDERS);
    let mut theatre = Theatre::open(stage, strategy).await?;
    let view = theatre.view.clone();
    let door = door::open(theatre.door.take(), orders_tx, view.clone())?;
    let mut crowd = Crowd::new(theatre.listener, strategy, USERS, stage.chance("play"));
    crowd.arrive().await?;
    println!("{}", theatre.playbill());

    let mut told = theatre.pintle.events().subscribe(None);
    let (mut aftermath, mut log) = (0, Log::default());
    let mut show = async || loop {
        let next = async {
            tokio::select! {
                order = orders.recv() => order,
                () = tokio::time::sleep(ROUND) => None,
            }
        };
        let (order, during) = crowd.shop_while(next).await?;
        append(&mut log, during);
        if let Some((order, answer)) = order {
            let (said, during) = crowd.shop_while(theatre.perform(order)).await?;
            append(&mut log, during);
            println!("\n> {said}");
            let _ = answer.send(said);
            aftermath = AFTERMATH;
        }
        while let Ok(event) = told.coming.try_recv() {
            println!("  Pintle: {}", event.message);
            aftermath = AFTERMATH;
        }
        if log.lasted < ROUND {
            continue;
        }
        let (log, lost) = (std::mem::take(&mut log), crowd.lost());
        if lost > 0 || log.noticed() > 0 || aftermath > 0 {
            println!("  {}", who_noticed(&log, lost));
        }
        aftermath = aftermath.saturating_sub(1);
        view.show(&crowd, &log);
    };
    let ended: Outcome<()> = tokio::select! {
        ended = show() => ended,
        ended = door => ended,
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
    };
    ended
}

fn append(log: &mut Log, later: Log) {
    let before = log.lasted;
    log.moments.extend(later.moments.into_iter().map(|moment| Moment { at: before + moment.at, ..moment }));
    log.lasted += later.lasted;
}

/// One sentence on what the users saw in a round.
fn who_noticed(log: &Log, lost: usize) -> String {
    let mut replicas: Vec<_> = log.shares(log.lasted.max(ROUND) * 2);
    replicas.sort_by(|one, other| one.name.cmp(&other.name));
    let shares: Vec<_> = replicas
        .iter()
        .filter_map(|series| Some(format!("{} {:.0} %", series.name, series.points.first()?.1)))
        .collect();
    let served = format!("{:.0} answers/s: {}", log.served_per_second(), shares.join(", "));
    match log.noticed() {
        0 => format!("nobody noticed ({served})"),
        noticed => format!(
            "{} users noticed: {lost} lost their session or cart, {} requests failed ({served})",
            share(noticed, USERS),
            log.failed()
        ),
    }
}
