//! What the story adds to the lesson's comparison table and its key concepts, and what it leaves
//! out.

use super::Event;
use super::claims::{A_QUARTER, compares_speed, fourth, outage, part};
use super::story::{REPLICAS, Scene, Story};
use crate::harness::figures::share;
use crate::harness::{Aspect, Column, Findings, Stage, quote};
use crate::shop::{Capacity, Strategy};

pub fn fill(findings: &mut Findings, stage: &Stage, stories: &[Story]) {
    for story in stories {
        served(findings, stage, story);
        cells(findings, story);
    }
    remember(findings, stories);
}

fn column(story: &Story) -> Option<Column> {
    match story.way.id {
        "memory-sticky" => Some(Column::Sticky),
        "replicated" => Some(Column::Replication),
        "central" => Some(Column::Store),
        "jwt" => Some(Column::Jwt),
        _ => None,
    }
}

/// What the fourth replica adds, in answers per second: a time, and so it is only weighed.
fn served(findings: &mut Findings, stage: &Stage, story: &Story) {
    let (Some(column), Some(scene)) = (column(story), story.scene(Event::Add)) else { return };
    let id = format!("scaling.served.{}", story.way.id);
    let (words, wanted): (_, fn(f64) -> bool) = match column {
        Column::Sticky => ("Scalability: Poor", |gain| gain < 1.1),
        Column::Replication => ("Scalability: Limited", |gain| gain > 1.1),
        Column::Store | Column::Jwt => ("Scalability: Excellent", |gain| gain > 1.1),
    };
    let ([(before, three), (after, four)], (its, requests)) = (scene.served(), fourth(scene));
    let gain = after / before.max(1.0);
    let lesson = quote("Comparison Table", words);
    let mut figure =
        format!("replica 4 takes {:.0} % of existing users' requests", 100.0 * part(its, requests));
    // A sticky replica that came back empty serves nobody, so it is not waited for.
    let full = before > 0.7 * capacity(three);
    if compares_speed(stage) && full {
        let text = format!(
            "{before:.0} answers/s from {three} of 3 replicas, {after:.0} from {four} of 4 (× {gain:.2})"
        );
        let why = "Replicas have a modelled capacity of 4 requests at once, 10 ms each. Only a replica that \
                   existing users may use adds to what they are served.";
        findings.weigh(&id, lesson, text, scene.log.requests(), wanted(gain), why);
        figure = format!("{figure}, served/s × {gain:.2}");
    } else if compares_speed(stage) {
        let why = format!(
            "This machine was busy: it served {before:.0} of the {:.0} requests per second that {three} \
             modelled replicas can take, so a fourth could not be seen in them.",
            capacity(three)
        );
        findings.untested(&id, lesson, &why);
    } else {
        let why =
            "At this scale the shops share the processors and are not full; `--scale normal` compares them.";
        findings.untested(&id, lesson, why);
    }
    let share = part(its, requests);
    let holds = match column {
        Column::Sticky => Some(its == 0),
        // Its limit shows with many replicas; four are few.
        Column::Replication => None,
        Column::Store | Column::Jwt => Some(A_QUARTER.contains(&share)),
    };
    findings.cell(Aspect::Scalability, column, figure, holds);
}

fn cells(findings: &mut Findings, story: &Story) {
    let (Some(column), Some(kill)) = (column(story), story.scene(Event::Kill)) else { return };
    let all = story.users();
    let poor = column == Column::Sticky;
    let figure = format!("{} sessions lost with a replica", share(kill.lost(), all));
    findings.cell(Aspect::Availability, column, figure, Some((kill.lost() > 0) == poor));
    if let Some(down) = story.scene(Event::StoreDown) {
        let (failed, requests) = outage(down);
        let lost = share(down.lost(), all);
        let figure = format!("store down: {} requests failed, {lost} sessions lost", share(failed, requests));
        findings.cell(Aspect::Availability, column, figure, None);
    }
    let lines = story.way.strategy.source().lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with("//")).count();
    // Among N replicas, or from each to the store.
    let n = REPLICAS;
    let (processes, links) = match story.way.strategy {
        Strategy::Replicated => (0, n * (n - 1) / 2),
        Strategy::Central => (1, n),
        Strategy::Memory | Strategy::Token | Strategy::Client => (0, 0),
    };
    let figure = format!("{lines} lines, {processes} more processes, {links} links at {n} replicas");
    findings.cell(Aspect::Complexity, column, figure, None);
}

/// What so many modelled replicas can serve in a second.
fn capacity(replicas: usize) -> f64 {
    let Capacity { at_once, each } = Capacity::default();
    (replicas * at_once) as f64 / each.as_secs_f64()
}

/// The lesson's key concepts, and what is left out.
fn remember(findings: &mut Findings, stories: &[Story]) {
    let lost = |stateful: bool, event: Event| {
        let which = stories.iter().filter(|story| story.way.is_stateful() == stateful);
        let scenes: Vec<_> = which.filter_map(|story| story.scene(event)).collect();
        let seats = scenes.iter().map(|scene| scene.seats.len()).sum();
        share(scenes.iter().map(|scene| scene.lost()).sum(), seats)
    };
    let (with, without) = (lost(true, Event::Kill), lost(false, Event::Kill));
    findings.concept(
        2,
        format!(
            "sessions in one replica's memory: {with} were lost when a replica died; elsewhere {without}"
        ),
    );
    let useful: Vec<_> = stories
        .iter()
        .filter_map(|story| Some((story, fourth(story.scene(Event::Add)?))))
        .map(|(story, (its, all))| format!("{} {:.0} %", story.way.name, 100.0 * part(its, all)))
        .collect();
    findings.concept(3, format!("replica 4's share of existing users' requests: {}", useful.join(", ")));
    if let Some(sticky) = stories.iter().find(|story| story.way.is_sticky()) {
        let lost = |event| sticky.scene(event).map_or(0, Scene::lost);
        findings.concept(
            7,
            format!(
                "sticky_cookie lost {} sessions while nothing happened, {} to a kill and {} to a removal; \
                 replica 4 answered {} requests of those who were there before it",
                lost(Event::Calm),
                lost(Event::Kill),
                lost(Event::Remove),
                sticky.scene(Event::Add).map_or(0, |add| fourth(add).0)
            ),
        );
    }
    let Capacity { at_once, each } = Capacity::default();
    findings.left_out(format!(
        "Replicas do not compute: each works on {at_once} requests at once for {each:?}. That is a model, \
         because two cores cannot show that more processes do more work."
    ));
    findings.left_out(
        "There is no network: everybody is on loopback, and the only way in which a replica fails here is \
         that its process dies. A lost link or a slow replica is not tried.",
    );
}
