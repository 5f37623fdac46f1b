//! Placeholder of the demo.

use super::outcome::{Exit, Failure};
use super::output::Output;

#[derive(clap::Args)]
pub struct DemoArgs {}

pub async fn run(_args: DemoArgs, _output: &Output) -> Result<Exit, Failure> {
    Err(Failure::new(Exit::Failed, "the demo is not part of this build"))
}
