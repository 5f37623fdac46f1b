//! How a run is told: on the terminal while it goes on, as JSON, and as one page of HTML.
//!
//! Start at [`Screen`], which is what `main` holds. [`verdict`] turns a claim into a word,
//! [`words`] are the lesson's own, [`gather`] collects across chapters; [`terminal`], [`json`] and
//! [`html`] only lay out, and [`svg`] draws. Nothing is measured here.

mod gather;
mod html;
mod json;
mod svg;
mod terminal;
mod verdict;
mod words;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::Duration;

use terminal::layout::Page;

use crate::harness::{Chapter, Failure, Outcome, Run, SeatMap, Told};

/// What standard output carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    Prose,
    Questions,
    Json,
}

/// Where a run is told.
pub struct Screen {
    shown: Shown,
    page: Page,
}

impl Screen {
    pub fn new(json: bool, questions: bool) -> Self {
        let shown = match (json, questions) {
            (true, _) => Shown::Json,
            (false, true) => Shown::Questions,
            (false, false) => Shown::Prose,
        };
        Self { shown, page: Page::of_standard_output() }
    }

    /// Says what a chapter is about to do, and lets the reader guess.
    pub fn before(&self, chapter: &Chapter, number: usize, of: usize) {
        match self.shown {
            Shown::Prose => print!("{}", terminal::before(&self.page, chapter, number, of)),
            Shown::Questions => println!("{number}/{of} {}", chapter.title),
            Shown::Json => eprintln!("{number}/{of} {}", chapter.title),
        }
    }

    /// Says what a chapter found.
    pub fn after(&self, told: &Told) {
        match (self.shown, &told.failed) {
            (Shown::Prose, _) => print!("{}", terminal::after(&self.page, told)),
            (_, Some(error)) => eprintln!("lesson: {}: {error}", told.chapter.name),
            (_, None) => {}
        }
    }

    /// Writes the page, and says what the whole run found and where the page is.
    pub fn end(&self, run: &Run) -> Outcome<()> {
        // A disk that is full must not swallow what was measured.
        let written = write(run);
        match self.shown {
            Shown::Prose => print!("{}", terminal::ending::whole(&self.page, run)),
            Shown::Questions => print!("{}", terminal::ending::questions(&self.page, run)),
            Shown::Json => println!("{}", json::whole(run)?),
        }
        let address = address(&written?);
        match self.shown {
            Shown::Json => eprintln!("{address}"),
            _ => println!("{address}"),
        }
        Ok(())
    }
}

/// An error with what caused it, in one line.
pub fn chain(error: &Failure) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |told, cause| {
        let cause = cause.to_string();
        if told.contains(&cause) { told } else { format!("{told}: {cause}") }
    })
}

/// A page that shows one seat map, for a browser that looks every second.
pub fn live(map: &SeatMap) -> String {
    html::live(map)
}

/// Where this example writes: `lesson` in Cargo's folder.
pub fn folder() -> Outcome<PathBuf> {
    let folder = target().join("lesson");
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    Ok(folder.canonicalize()?)
}

fn write(run: &Run) -> Outcome<PathBuf> {
    let file = folder()?.join("report.html");
    std::fs::write(&file, html::whole(run)).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(file)
}

/// Cargo's folder for what it builds: the one this program lies in, as a rule.
fn target() -> PathBuf {
    let named = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let around = || {
        let program = std::env::current_exe().ok()?;
        program.ancestors().find(|folder| folder.ends_with("target")).map(Path::to_owned)
    };
    named.or_else(around).unwrap_or_else(|| "target".into())
}

/// A `file://` address that a terminal lets people click, whatever the folders are called.
fn address(file: &Path) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    let spell = |byte: u8| if plain(byte) { char::from(byte).into() } else { format!("%{byte:02X}") };
    let path: String = file.to_string_lossy().bytes().map(spell).collect();
    format!("file://{path}")
}

/// `4.2 s`, `1 min 32 s`: how long people waited.
fn lasted(took: Duration) -> String {
    match took.as_secs() {
        ..60 => format!("{:.1} s", took.as_secs_f64()),
        seconds => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}

/// What the figures were measured on, beside scale and seed.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    format!("{cores} {}, {build} build", if cores == 1 { "core" } else { "cores" })
}
