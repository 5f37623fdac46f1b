//! The pictures of the story: the seat map, what each event cost, how fast replica 4 is of use, and
//! the TOML.

use std::time::Duration;

use super::story::{Scene, Story};
use super::{Event, IP_HASH, ROUND_ROBIN, STICKY, WAYS};
use crate::harness::{Bars, Findings, Frame, Lines, Seat, SeatMap, SeatRow, Series, Stage, Table, Text};
use crate::shop::crowd::Sighting;

/// Every replica that ever is, so that a seat stays in its place from frame to frame.
const REPLICAS: [&str; 4] = ["r1", "r2", "r3", "r4"];
/// In which shares of the load are counted.
const BUCKET: Duration = Duration::from_millis(150);

impl Event {
    /// As a frame of the seat map calls it.
    fn caption(self) -> &'static str {
        match self {
            Self::Calm => "before",
            Self::NewAddresses => "some addresses changed",
            Self::Kill => "replica 1 was killed",
            Self::Return => "replica 1 came back",
            Self::Add => "replica 4 was added",
            Self::Remove => "replica 2 was stopped",
            Self::Drain => "replica 3 was drained",
            Self::StoreDown => "the store was lost",
        }
    }
}

pub fn show(findings: &mut Findings, stage: &Stage, stories: &[Story]) {
    findings.show(SeatMap {
        title: "Who sits where, and who lost their session".into(),
        note: "Each dot is a user, always in the same place, in the box of the replica that answers. It is \
               hollow when login and cart were lost since the frame before. In the upper rows the \
               session is in one replica's memory; in the lower ones it is not, and the dots move \
               about without losing anything."
            .into(),
        rows: stories.iter().map(seats).collect(),
    });
    findings.show(costs(stories));
    findings.show(shares(stories));
    if let Some(served) = served(stage, stories) {
        findings.show(served);
    }
    findings.show(Text {
        title: "The three policies".into(),
        note: "Only the policy differs. Every strategy but memory runs with the first.".into(),
        text: [ROUND_ROBIN, IP_HASH, STICKY].concat().trim().into(),
    });
}

fn seats(story: &Story) -> SeatRow {
    let mut frames: Vec<Frame> = Vec::new();
    for scene in &story.scenes {
        let before = frames.last().map(|frame| frame.seats.as_slice());
        let seat = |(user, seen): (usize, &Sighting)| {
            let replica = REPLICAS.iter().position(|name| *name == seen.replica).unwrap_or(REPLICAS.len());
            let moved = before.is_some_and(|before| before[user].replica != replica);
            Seat { replica, moved, kept: seen.kept }
        };
        frames.push(Frame {
            caption: scene.event.caption().into(),
            replicas: REPLICAS.map(str::to_owned).into(),
            seats: scene.seats.iter().enumerate().map(seat).collect(),
        });
    }
    SeatRow { name: story.way.name.into(), frames }
}

fn costs(stories: &[Story]) -> Table {
    let events = WAYS.iter().map(|way| way.events).max_by_key(|events| events.len()).unwrap_or_default();
    let cell = |scene: &Scene| format!("{} / {} / {}", scene.lost(), scene.log.noticed(), scene.log.failed());
    let row = |story: &Story| {
        let cells = events.iter().map(|event| story.scene(*event).map_or("–".into(), cell));
        [story.way.name.to_owned()].into_iter().chain(cells).collect()
    };
    Table {
        title: "What each event cost".into(),
        note:
            "Users who lost login and cart / users who noticed something while it happened / requests that \
               failed. A user noticed when a request failed, was answered 401, or showed a cart that \
               lacks what was put in. A dash: nothing there depends on it, or it was not tried."
                .into(),
        columns: ["shop"]
            .into_iter()
            .chain(events.iter().map(|event| event.caption()))
            .map(str::to_owned)
            .collect(),
        rows: stories.iter().map(row).collect(),
    }
}

/// Replica 4's share of the requests of those who were there before it.
fn shares(stories: &[Story]) -> Lines {
    let series = |story: &Story| {
        let scene = story.scene(Event::Add)?;
        let up = scene.found.done.as_secs_f64();
        let all = scene.log.shares(BUCKET);
        let points = match all.iter().find(|series| series.name == "r4") {
            Some(its) => its.points.clone(),
            None => all.first()?.points.iter().map(|(at, _)| (*at, 0.0)).collect(),
        };
        let points = points.into_iter().map(|(at, share)| (at - up, share)).collect();
        Some(Series { name: story.way.name.into(), points })
    };
    Lines {
        title: "How soon the fourth replica is of use".into(),
        note:
            "Its share of the requests of users who were there before it. Stateless shops give it a quarter \
               at once. Sticky users stay where they are, and it idles. ip_hash gives it a quarter \
               too, but each user who moves loses their session."
                .into(),
        x: "seconds since replica 4 was up".into(),
        y: "share of requests, %".into(),
        series: stories.iter().filter_map(series).collect(),
        marks: vec![(0.0, "replica 4 is up".into())],
    }
}

/// Served requests per second before and after the fourth replica.
fn served(stage: &Stage, stories: &[Story]) -> Option<Bars> {
    super::claims::compares_speed(stage).then_some(())?;
    let group = |story: &Story| {
        let [(before, _), (after, _)] = story.scene(Event::Add)?.served();
        let bars = vec![("3 replicas".to_owned(), before), ("4 replicas".to_owned(), after)];
        Some((story.way.name.to_owned(), bars))
    };
    Some(Bars {
        title: "What existing users gain from a fourth replica".into(),
        note: "Each replica has a stated capacity, 4 requests at once of 10 ms each: a model, because more \
               processes on one machine do no more work."
            .into(),
        unit: "answers per second".into(),
        groups: stories.iter().filter_map(group).collect(),
    })
}
