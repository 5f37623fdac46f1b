//! How a command ends: an exit code that scripts can rely on, and what went wrong in words.
//!
//! Start at [`Exit`]. How words reach the terminal is in `output`.

use std::process::ExitCode;

use crate::admin::view::{Fault, ProblemView};

/// The exit codes of every command. 2 is also what clap ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    ConfigInvalid = 3,
    Unreachable = 4,
    /// A wait gave up, or a deadline cut something.
    DeadlinePassed = 5,
    /// Would leave no backend.
    Refused = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// Why a command did not do what was asked, ready to print.
#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    /// Empty where there is nobody to read it.
    pub message: String,
    /// The problems of a file as printed for a person.
    pub text: Option<String>,
    /// A command to type, or what to write instead.
    pub help: Option<String>,
    pub problems: Vec<ProblemView>,
}

impl Failure {
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), text: None, help: None, problems: Vec::new() }
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        let exit = match fault.code.as_str() {
            "config_invalid" => Exit::ConfigInvalid,
            "would_leave_none" => Exit::Refused,
            _ => Exit::Failed,
        };
        let message = if fault.detail.is_empty() { fault.title } else { fault.detail };
        Self { exit, message, text: fault.text, help: fault.hint, problems: fault.errors }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(code: &str) -> Fault {
        Fault {
            title: "Refused".into(),
            status: 409,
            code: code.into(),
            detail: String::new(),
            hint: Some("add --force".into()),
            errors: Vec::new(),
            text: None,
        }
    }

    #[test]
    fn exit_codes_are_the_documented_ones() {
        use Exit::*;
        let all = [Done, Failed, Usage, ConfigInvalid, Unreachable, DeadlinePassed, Refused];
        assert_eq!(all.map(|exit| exit as u8), [0, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn a_fault_ends_with_the_code_of_its_kind_and_keeps_its_hint() {
        assert_eq!(Failure::from(fault("would_leave_none")).exit, Exit::Refused);
        assert_eq!(Failure::from(fault("config_invalid")).exit, Exit::ConfigInvalid);
        let other = Failure::from(fault("unknown_backend"));
        assert_eq!((other.exit, other.message.as_str()), (Exit::Failed, "Refused"));
        assert_eq!(other.help.as_deref(), Some("add --force"));
    }
}
