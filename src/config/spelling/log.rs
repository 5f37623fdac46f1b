//! What is logged and where to.

use super::{Fault, Spelling};
use crate::plan::LogOutput;

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// A level, or levels by module: `info,pintle::pool=debug`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LogLevel(pub(crate) String);

impl Spelling for LogLevel {
    const FORMAT: &'static str = "log-level";
    const WHAT: &'static str = "a log level";
    const EXAMPLE: &'static str = "info";

    fn read(text: &str) -> Result<Self, Fault> {
        for part in text.split(',') {
            let (module, level) = part.rsplit_once('=').unwrap_or(("", part));
            if !module.bytes().all(|b| b.is_ascii_alphanumeric() || b"_:".contains(&b)) {
                return Err(Fault::new("a module's name is words joined by `::`"));
            }
            if !LEVELS.contains(&level) {
                let fault = Fault::new("the levels are error, warn, info, debug, trace and off");
                let meant = match level.to_ascii_lowercase().as_str() {
                    "warning" => Some("warn"),
                    "err" | "critical" | "fatal" => Some("error"),
                    "none" => Some("off"),
                    lower => LEVELS.into_iter().find(|known| strsim::damerau_levenshtein(known, lower) <= 1),
                };
                return Err(match meant {
                    Some(meant) if !level.is_empty() => fault.write(text.replace(level, meant)),
                    _ => fault,
                });
            }
        }
        Ok(Self(text.to_owned()))
    }
}

impl Spelling for LogOutput {
    const FORMAT: &'static str = "log-output";
    const WHAT: &'static str = "a place for the log";
    const EXAMPLE: &'static str = "stdout";

    fn read(text: &str) -> Result<Self, Fault> {
        match text {
            "stdout" => Ok(Self::Stdout),
            "stderr" => Ok(Self::Stderr),
            "-" => Err(Fault::new("`stdout`, `stderr` or a path").write("stdout")),
            _ => super::FilePath::read(text).map(|path| Self::File(path.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_level_is_not_taken_for_a_module() {
        assert!(LogLevel::read("info,pintle::pool=debug").is_ok());
        assert_eq!(LogLevel::read("inof").unwrap_err().write.as_deref(), Some("info"));
        assert_eq!(LogLevel::read("WARNING").unwrap_err().write.as_deref(), Some("warn"));
        for text in ["", "a=b", "info,", "a b=info"] {
            assert!(LogLevel::read(text).is_err(), "{text}");
        }
    }
}
