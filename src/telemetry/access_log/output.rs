//! Where lines go: [`Output`].

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;

use super::record::Format;
use crate::plan::{AccessFormat, LogOutput};

/// An open place for lines.
#[derive(Debug)]
pub(crate) enum Output {
    Stdout,
    Stderr,
    File(File),
}

impl Output {
    /// Files are appended to, and made where they are missing.
    pub(crate) fn open(to: &LogOutput) -> io::Result<Self> {
        Ok(match to {
            LogOutput::Stdout => Self::Stdout,
            LogOutput::Stderr => Self::Stderr,
            LogOutput::File(path) => {
                Self::File(OpenOptions::new().append(true).create(true).mode(0o640).open(path)?)
            }
        })
    }

    /// Fails rather than dies where the reader has gone: the runtime ignores SIGPIPE.
    pub(crate) fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(lines)?;
                stdout.flush()
            }
            Self::Stderr => io::stderr().lock().write_all(lines),
            Self::File(file) => file.write_all(lines),
        }
    }
}

/// What `auto` means for this place.
pub(crate) fn settle(format: AccessFormat, output: &LogOutput) -> Format {
    match format {
        AccessFormat::Json => Format::Json,
        AccessFormat::Logfmt => Format::Logfmt,
        AccessFormat::Combined => Format::Combined,
        AccessFormat::Auto => {
            let terminal = match output {
                LogOutput::Stdout => io::stdout().is_terminal(),
                LogOutput::Stderr => io::stderr().is_terminal(),
                LogOutput::File(_) => false,
            };
            if terminal { Format::Text } else { Format::Json }
        }
    }
}
