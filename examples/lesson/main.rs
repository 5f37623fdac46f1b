//! The lesson "Stateless vs Stateful Architecture", proven: real users, real replicas, real
//! sockets, and Pintle in front of them.
//!
//! `cargo run --release --example lesson`. Each chapter is a file of its own and shows its app, its
//! strategy and its TOML; what they share is in [`harness`]. Start at [`scaling`].

mod cache;
mod chat;
mod game;
mod harness;
mod jobs;
mod jwt;
mod mistakes;
mod report;
mod restart;
mod rolling;
mod scaling;
mod shop;
mod store;
mod uploads;
mod websocket;

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;

use crate::harness::child::{self, CHILD, Role};
use crate::harness::{Chapter, Outcome, Run, Scale, Spoil, Stage, Told};
use crate::store::Source;

/// In the order in which they are told.
const CHAPTERS: [&Chapter; 11] = [
    &scaling::CHAPTER,
    &rolling::CHAPTER,
    &restart::CHAPTER,
    &jwt::CHAPTER,
    &websocket::CHAPTER,
    &jobs::CHAPTER,
    &cache::CHAPTER,
    &uploads::CHAPTER,
    &mistakes::CHAPTER,
    &game::CHAPTER,
    &chat::CHAPTER,
];

/// Measures what state costs and what statelessness buys, on this machine.
#[derive(Parser)]
#[command(name = "lesson")]
struct Options {
    /// How much is done: about 30 s, 90 s or 5 min in a release build on two cores.
    #[arg(long, value_enum, default_value = "normal")]
    scale: Scale,
    /// Run only this chapter; may be given several times.
    #[arg(long, value_name = "NAME")]
    chapter: Vec<String>,
    /// Name the chapters and end.
    #[arg(long)]
    list: bool,
    /// Answer the lesson's practice questions with this run's figures.
    #[arg(long)]
    questions: bool,
    /// Users, pauses and choices are drawn from this number.
    #[arg(long, default_value_t = 9)]
    seed: u64,
    /// Print the claims as JSON instead of prose.
    #[arg(long)]
    json: bool,
    /// Break something on purpose, to see the claims fail.
    #[arg(long, value_enum)]
    spoil: Option<Spoil>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let told = if arguments.next().as_deref() == Some(CHILD) {
        child::run(&arguments.next().unwrap_or_default(), role).await.map(|()| ExitCode::SUCCESS)
    } else {
        tell(Options::parse()).await
    };
    told.unwrap_or_else(|error| {
        eprintln!("lesson: {error}");
        ExitCode::from(2)
    })
}

/// What a child of this name does.
fn role(name: &str) -> Option<Role> {
    let of_chapters = CHAPTERS.iter().flat_map(|chapter| chapter.roles);
    let roles = shop::ROLES.iter().chain(store::ROLES).chain(of_chapters);
    roles.copied().find(|(role, _)| *role == name).map(|(_, role)| role)
}

async fn tell(options: Options) -> Outcome<ExitCode> {
    if options.list {
        for chapter in CHAPTERS {
            println!("{:<10} {}", chapter.name, chapter.title);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let chapters = chosen(&options.chapter)?;
    let source = Source::from_env().await?;
    let stage =
        Stage { scale: options.scale, seed: options.seed, spoil: options.spoil, source, json: options.json };
    let began = Instant::now();
    let mut told = Vec::new();
    for chapter in chapters {
        let began = Instant::now();
        let findings = (chapter.run)(&stage).await.map_err(|error| format!("{}: {error}", chapter.name))?;
        told.push(Told { chapter, findings, took: began.elapsed() });
    }
    let run = Run {
        seed: stage.seed,
        scale: stage.scale,
        store: stage.source.describe(),
        told,
        took: began.elapsed(),
    };
    Ok(if run.unexpected().next().is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The chapters that were asked for; all when none was.
fn chosen(names: &[String]) -> Outcome<Vec<&'static Chapter>> {
    if names.is_empty() {
        return Ok(CHAPTERS.to_vec());
    }
    let find = |name: &String| {
        let known: Vec<_> = CHAPTERS.iter().map(|chapter| chapter.name).collect();
        let chapter = CHAPTERS.iter().find(|chapter| chapter.name == name);
        chapter.copied().ok_or_else(|| format!("no chapter `{name}`; there are {}", known.join(", ")).into())
    };
    names.iter().map(find).collect()
}
