//! `init`: a first `pintle.toml` to edit.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::discover;
use super::outcome::{Exit, Failure};
use super::output::Output;
use crate::config;

#[derive(clap::Args)]
pub struct InitArgs {
    /// Where to write it; `-` is stdout
    #[arg(default_value = discover::FILES[0])]
    file: PathBuf,
    /// Every setting with its default, not only what most need
    #[arg(long)]
    full: bool,
}

pub fn run(args: InitArgs, output: &Output) -> Result<Exit, Failure> {
    let text = if args.full { config::REFERENCE } else { config::INIT };
    if args.file == Path::new("-") {
        output.print(text)?;
        return Ok(Exit::Done);
    }
    write(&args.file, text)?;
    let path = args.file.display();
    output.say(&format!(
        "wrote {path}; change its backends, then `pintle check {path}` and `pintle serve -c {path}`"
    ))?;
    Ok(Exit::Done)
}

/// Never over something that is there.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let written = File::create_new(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => Failure::failed(format!("`{}` exists and is left alone", path.display()))
            .help("`pintle init -` prints it instead"),
        _ => Failure::failed(format!("cannot write `{}`: {error}", path.display())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_exists_is_left_alone() {
        let path = std::env::temp_dir().join(format!("pintle-init-{}.toml", std::process::id()));
        write(&path, "one").unwrap();
        let failure = write(&path, "two").unwrap_err();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!((failure.exit, text.as_str()), (Exit::Failed, "one"));
    }
}
