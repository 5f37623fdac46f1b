//! The file as written: TOML text in, a [`Plan`] or all of its problems out.
//!
//! Start at [`compile()`]: `syntax` reads TOML, `check` holds it against the `schema` types and the
//! `spelling` of single values, and the `compile` rooms give it meaning. `watch` says when the
//! file has changed. Nothing outside this room knows TOML or how a key is spelled.

mod check;
mod compile;
mod findings;
mod kind;
mod place;
mod problem;
pub mod reach;
mod scalar;
mod schema;
mod spelling;
mod suggest;
mod syntax;
pub mod watch;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

pub use problem::{Problem, Problems, Related, Severity};

use crate::plan::Plan;
use check::Check;
use compile::Compiler;
use findings::{Finding, Findings};
use place::Place;
use watch::ReadFile;

/// The smallest useful file, with comments: what `pintle init` writes.
pub const INIT: &str = include_str!("../../config/minimal.toml");
/// Every key with its default: what `pintle init --full` writes.
pub const REFERENCE: &str = include_str!("../../config/reference.toml");

/// No configuration is longer; a file that is was named by mistake.
pub const MAX_TEXT: usize = 4 * 1024 * 1024;

/// Where a text came from: how messages name it, and what relative paths are relative to.
#[derive(Clone, Debug, PartialEq)]
pub struct Origin {
    pub name: String,
    pub base: PathBuf,
}

/// A text without errors.
#[derive(Clone, Debug, PartialEq)]
pub struct Compiled {
    pub plan: Plan,
    /// Warnings only.
    pub warnings: Problems,
    /// The certificates and keys that went into the plan.
    pub files: Vec<ReadFile>,
}

/// Makes a plan of a text, or lists everything that is wrong with it. Reads the secrets and
/// certificates that the text refers to, and nothing else.
pub fn compile(text: &str, origin: &Origin) -> Result<Compiled, Problems> {
    let parsed = syntax::parse(text);
    let mut findings = Findings::new(&parsed.root);
    findings.add_drafts(parsed.drafts);
    if !parsed.readable {
        return Err(findings.into_problems(&origin.name, text));
    }
    let mut root = parsed.root.clone();
    let schema = schema::annotated();
    Check { text, schema, unread: &parsed.unread, findings: &mut findings }.file(&mut root);
    let mut files = Vec::new();
    let plan =
        match schema::File::deserialize(toml::de::Deserializer::from(Spanned::new(0..text.len(), root))) {
            Ok(file) => {
                Some(Compiler { findings: &mut findings, base: &origin.base, files: &mut files }.plan(file))
            }
            // What `check` lets through always fits; should it not, that is a problem and no panic.
            Err(error) => {
                findings.add(Finding::error("internal", &Place::default(), error.message().to_owned()));
                None
            }
        };
    let errors = findings.errors();
    let problems = findings.into_problems(&origin.name, text);
    match plan {
        Some(plan) if errors == 0 => Ok(Compiled { plan, warnings: problems, files }),
        _ => Err(problems),
    }
}

/// Compiles a file; one that cannot be read is a problem too. Relative paths in it are relative to
/// the folder it was named in, whatever links lead from there.
pub fn load(path: &Path) -> Result<Compiled, Problems> {
    compile(&text_of(path)?, &origin_of(path))
}

/// The text of a file; one that cannot be read is a problem too.
pub fn text_of(path: &Path) -> Result<String, Problems> {
    read(path).map_err(|error| {
        let name = path.display().to_string();
        let help =
            (error.kind() == io::ErrorKind::NotFound).then(|| format!("`pintle init {name}` writes one"));
        Problems::unreadable(&name, format!("cannot read `{name}`: {}", reason(&error)), help)
    })
}

/// How messages name a file, and what paths in it are relative to.
pub fn origin_of(path: &Path) -> Origin {
    let base = path.parent().map(Path::to_path_buf).unwrap_or_default();
    Origin { name: path.display().to_string(), base }
}

/// The text of a file, if it is one that could be a configuration.
pub fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_TEXT as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_TEXT {
        return Err(io::Error::other(format!("longer than {MAX_TEXT} bytes")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
        io::Error::new(io::ErrorKind::InvalidData, format!("line {line} is not UTF-8"))
    })
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "this user may not read it".to_owned(),
        io::ErrorKind::IsADirectory => "it is a folder".to_owned(),
        _ => error.to_string(),
    }
}

/// The JSON Schema of the file, for editors.
pub fn schema() -> serde_json::Value {
    schema::published()
}
