//! The operator's side: what can be typed, and who does it.
//!
//! Start at [`Command`]: every command is a file of its own. Those that speak to a running Pintle
//! do it through `client`, over the admin API and nothing else.

use std::process::ExitCode;
use std::time::Duration;

use clap::{ColorChoice, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use serde_json::json;

use client::Client;
use outcome::{Exit, Failure};
use output::Output;

pub mod check;
pub mod client;
pub mod demo;
pub mod discover;
pub mod drain;
pub mod flags;
pub mod init;
pub mod names;
pub mod outcome;
pub mod output;
pub mod progress;
pub mod reload;
pub mod self_signed;
pub mod serve;
pub mod status;
pub mod upgrade;

#[cfg(test)]
mod samples;
#[cfg(test)]
mod scripted;

const EXAMPLES: &str = "\
Examples:
  pintle serve --to 127.0.0.1:9001,127.0.0.1:9002        balance over two backends, no file
  pintle serve --to :9001,:9002 --sticky --print-config  the same, sticky, as a file
  pintle check && pintle reload                          after editing pintle.toml
  pintle drain app/9001 --deadline 60s --wait            before stopping a backend
  pintle ready app/9001                                  when it is back

Exit codes: 0 done, 1 failed, 2 usage, 3 configuration invalid, 4 no Pintle answers,
            5 deadline passed, 6 refused (would leave no backend)";

const SERVE_EXAMPLES: &str = "\
Examples:
  pintle serve -c /etc/pintle/pintle.toml
  pintle serve --to :9001,:9002*2 --listen :8080 --health /healthz
  PINTLE_TO=app-1:9000,app-2:9000 PINTLE_LISTEN=:8080 pintle serve

Signals: HUP reloads, TERM and INT finish what is in flight (a second one ends at once),
         USR1 opens the access log again, USR2 upgrades";

const DRAIN_EXAMPLES: &str = "\
Examples:
  pintle drain app/a2 --deadline 60s --wait && systemctl stop app@2
  pintle drain app/9001                     any ending of POOL/BACKEND that fits only one

Without --deadline nothing is ever cut; --wait then gives up after 5 minutes with exit 5
while the drain goes on. Ctrl-C ends the wait, not the drain.";

const UPGRADE_HELP: &str = "\
The running Pintle starts the program that stands where its own was found, with the same words and
environment, and hands it its sockets. When that one serves, the old one finishes what it has, for at
most `drain_timeout`, and exits. If it does not come to serve, the old one goes on as if nothing had
happened, and this exits with 1. Over the admin socket only.";

/// A layer-7 load balancer and reverse proxy: pins sessions, steers traffic
#[derive(Parser)]
#[command(name = "pintle", version, after_help = EXAMPLES, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Args)]
#[command(next_help_heading = "Everywhere")]
struct Globals {
    /// Where the running Pintle is [default: looked for in the file and the usual places]
    #[arg(long, global = true, value_name = "ADDR|PATH", env = "PINTLE_ADMIN", hide_env_values = true)]
    admin: Option<String>,
    /// Print JSON for programs
    #[arg(long, global = true)]
    json: bool,
    /// Only results and errors
    #[arg(short, long, global = true)]
    quiet: bool,
    /// auto: on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", hide_possible_values = true)]
    color: ColorChoice,
}

#[derive(Subcommand)]
enum Command {
    /// Run a balancer, from a file or from flags
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(serve::ServeArgs),
    /// Run a balancer with three backends of its own, to try everything
    Demo(demo::DemoArgs),
    /// Check a file and report every problem in it
    Check(check::CheckArgs),
    /// Apply the file to the running Pintle; answers when done
    Reload,
    /// Show pools, backends and the last reload
    Status(status::StatusArgs),
    /// Send a backend nobody new, and wait until it can be stopped
    #[command(after_help = DRAIN_EXAMPLES)]
    Drain(drain::DrainArgs),
    /// Bring a backend back
    Ready(drain::ReadyArgs),
    /// Take a backend out at once: WebSockets get a Close, the rest is cut
    Stop(drain::StopArgs),
    /// Replace the running Pintle by the binary that is there now, without a gap
    #[command(after_help = UPGRADE_HELP)]
    Upgrade(upgrade::UpgradeArgs),
    /// Finish what is in flight, then end the running Pintle
    Shutdown(reload::ShutdownArgs),
    /// Write a first pintle.toml
    Init(init::InitArgs),
    /// Print the JSON Schema of the file, for editors
    Schema,
    /// Print the completions of a shell
    Completions { shell: Shell },
    /// Print the version
    Version,
}

/// The whole program: argv in, exit code out.
pub fn main() -> ExitCode {
    let Cli { globals, command } = Cli::parse();
    let output = Output::new(globals.json, globals.quiet, globals.color);
    let ended = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let ended = runtime.block_on(run(command, globals.admin, &output));
            // A name look-up that hangs must not keep a command that has given up on it.
            runtime.shutdown_background();
            ended
        }
        Err(error) => Err(Failure::failed(format!("cannot start a runtime: {error}"))),
    };
    ended
        .unwrap_or_else(|failure| {
            output.fail(&failure);
            failure.exit
        })
        .into()
}

async fn run(command: Command, admin: Option<String>, output: &Output) -> Result<Exit, Failure> {
    let running = async || Client::find(admin.as_deref().filter(|asked| !asked.is_empty())).await;
    match command {
        Command::Serve(args) => serve::run(args, output).await,
        Command::Demo(args) => demo::run(args, output).await,
        Command::Check(args) => check::run(args, output),
        Command::Reload => reload::run(&running().await?, output).await,
        Command::Status(args) => status::run(args, &running().await?, output).await,
        Command::Drain(args) => drain::drain(args, &running().await?, output).await,
        Command::Ready(args) => drain::ready(args, &running().await?, output).await,
        Command::Stop(args) => drain::stop(args, &running().await?, output).await,
        Command::Upgrade(args) => upgrade::run(args, &running().await?, output).await,
        Command::Shutdown(args) => reload::shutdown(args, &running().await?, output).await,
        Command::Init(args) => init::run(args, output),
        Command::Schema => output.print_json(&crate::config::schema()).map(|()| Exit::Done),
        Command::Completions { shell } => completions(shell, output),
        Command::Version => version(output),
    }
}

fn completions(shell: Shell, output: &Output) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "pintle", &mut script);
    output.print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}

fn version(output: &Output) -> Result<Exit, Failure> {
    let version = env!("CARGO_PKG_VERSION");
    if output.json {
        output.print_json(&json!({ "version": version }))?;
    } else {
        output.print(&format!("pintle {version}\n"))?;
    }
    Ok(Exit::Done)
}

/// A length of time as it is typed: `30s`, `1m30s`.
fn duration(typed: &str) -> Result<Duration, String> {
    /// Longer than any drain, short enough for every clock.
    const MAX: Duration = Duration::from_secs(365 * 86_400);
    if typed.parse::<f64>().is_ok() {
        return Err(format!("a unit is missing; write `{typed}s` for seconds"));
    }
    let duration =
        humantime::parse_duration(typed).map_err(|error| format!("{error}; write it as `60s` or `1m30s`"))?;
    if duration > MAX { Err("a year is the most".into()) } else { Ok(duration) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_the_help_shows_can_be_typed() {
        let examples = [EXAMPLES, SERVE_EXAMPLES, DRAIN_EXAMPLES].concat();
        let mut parsed = 0;
        for line in examples.lines().filter_map(|line| line.strip_prefix("  ")) {
            let typed = line.split("  ").next().unwrap_or_default();
            for command in typed.split(" && ").filter_map(|part| part.find("pintle ").map(|at| &part[at..])) {
                Cli::try_parse_from(command.split_whitespace())
                    .unwrap_or_else(|error| panic!("{command}: {error}"));
                parsed += 1;
            }
        }
        assert!(parsed >= 10, "{parsed}");
    }

    #[test]
    fn global_flags_may_follow_the_command() {
        let cli = Cli::try_parse_from(["pintle", "status", "--json", "--admin", "/tmp/a.sock"]).unwrap();
        assert!(cli.globals.json);
        assert_eq!(cli.globals.admin.as_deref(), Some("/tmp/a.sock"));
    }

    #[test]
    fn a_duration_without_a_unit_is_told_which_to_write() {
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("60").unwrap_err(), "a unit is missing; write `60s` for seconds");
        assert!(duration("2 centuries").is_err() && duration("9000 days").is_err());
    }

    #[test]
    fn every_shell_gets_completions_that_know_the_commands() {
        for shell in <Shell as clap::ValueEnum>::value_variants() {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "pintle", &mut script);
            assert!(String::from_utf8_lossy(&script).contains("drain"), "{shell}");
        }
    }
}
