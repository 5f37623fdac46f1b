//! The chaos run: real processes, steady traffic, and everything that can happen to a backend, the
//! file or the program, one after another. What could safely have been answered is answered; what
//! failed has a reason in `rules`, or the run fails.
//!
//!     cargo test --test chaos                                  every fault once, then the leak test
//!     cargo test --test chaos -- --minutes 10 --seed 7         again and again, in another order each time
//!     cargo test --test chaos -- kill --pintle target/release/pintle
//!
//! Start at [`stage::Stage::phase`]. `traffic` is what flows, `faults` what is done, `rules` what may fail.

mod backend;
mod balancer;
mod client;
mod faults;
mod file;
mod fleet;
mod keeper;
mod leaks;
mod pattern;
mod report;
mod rules;
mod stage;
mod traffic;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use faults::Fault;

/// The name of the leak test among the faults.
const LEAKS: &str = "leaks";

struct Options {
    minutes: f64,
    seed: u64,
    pintle: PathBuf,
    /// Parts of the names of what to do; none is all.
    only: Vec<String>,
    list: bool,
}

impl Options {
    fn parse() -> Result<Self, String> {
        let mut options = Self {
            minutes: 0.0,
            seed: 1,
            pintle: env!("CARGO_BIN_EXE_pintle").into(),
            only: Vec::new(),
            list: false,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} takes a value"));
            match argument.as_str() {
                "--minutes" => {
                    let minutes = value()?.parse().ok().filter(|minutes| (0.0..=10_000.0).contains(minutes));
                    options.minutes = minutes.ok_or("--minutes takes a number")?;
                }
                "--seed" => options.seed = value()?.parse().map_err(|_| "--seed takes a whole number")?,
                "--pintle" => {
                    let path = value()?;
                    options.pintle =
                        std::fs::canonicalize(&path).map_err(|error| format!("{path}: {error}"))?;
                }
                "--list" => options.list = true,
                // Those of the usual harness, which `cargo test` passes to everybody.
                "--skip" | "--format" | "--test-threads" | "--color" | "-Z" => drop(value()?),
                other if other.starts_with('-') => {}
                other => options.only.push(other.to_owned()),
            }
        }
        Ok(options)
    }

    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| name.contains(part.as_str()) || part == "chaos")
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some(keeper::ROLE) => keeper::run(),
        Some(backend::ROLE) => backend::run(&arguments[1..]),
        _ => {}
    }
    let options = match Options::parse() {
        Ok(options) => options,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::from(2);
        }
    };
    let names = Fault::ALL.iter().map(|fault| fault.name()).chain([LEAKS]);
    let wanted: Vec<&str> = names.filter(|name| options.wants(name)).collect();
    if options.list {
        wanted.iter().for_each(|name| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    // Elsewhere there is no /proc, and no address of one's own without asking for it.
    if wanted.is_empty() || !cfg!(target_os = "linux") {
        println!("test result: ok. 0 passed; 0 failed; {} filtered out", Fault::ALL.len() + 1);
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
    runtime.expect("a runtime").block_on(run(options, &wanted))
}

async fn run(options: Options, wanted: &[&str]) -> ExitCode {
    let begun = Instant::now();
    println!("\nchaos: seed {}, {}", options.seed, options.pintle.display());
    let (mut passed, mut failed) = (0_u64, 0_u64);
    let faults: Vec<_> = Fault::ALL.into_iter().filter(|fault| wanted.contains(&fault.name())).collect();
    if !faults.is_empty() {
        let rows = stage::run(&options, &faults).await;
        report::table(&rows);
        for (fault, row) in &rows {
            row.violations.iter().for_each(|violation| println!("\n  {}: {violation}", fault.name()));
            let bad = !row.violations.is_empty();
            (passed, failed) = (passed + u64::from(!bad), failed + u64::from(bad));
        }
    }
    if wanted.contains(&LEAKS) {
        match leaks::run(&options.pintle, options.minutes > 0.0).await {
            Ok(()) => passed += 1,
            Err(why) => {
                println!("\n  {LEAKS}: {why}");
                failed += 1;
            }
        }
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    let took = begun.elapsed().as_secs_f64();
    println!("\ntest result: {word}. {passed} passed; {failed} failed; finished in {took:.1} s\n");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
