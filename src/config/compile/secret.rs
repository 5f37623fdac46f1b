//! Secrets: read from a file or the environment, never from the configuration.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::Compiler;
use crate::config::findings::Finding;
use crate::config::place::Place;
use crate::config::schema::Secret as SecretRef;
use crate::config::spelling::{EnvName, FilePath, Spelled};
use crate::plan::Secret;

/// No secret is longer; a file that is was named by mistake.
const MAX_SECRET: usize = 64 * 1024;

impl Compiler<'_, '_> {
    pub(crate) fn secret(&mut self, secret: &SecretRef, place: &Place) -> Option<Secret> {
        self.secret_from(secret.file.as_ref(), secret.env.as_ref(), place)
    }

    /// The bytes, without the newline that editors leave at the end.
    pub(crate) fn secret_from(
        &mut self,
        file: Option<&Spelled<FilePath>>,
        env: Option<&Spelled<EnvName>>,
        place: &Place,
    ) -> Option<Secret> {
        let (at, bytes) = match (file, env) {
            (Some(file), None) => (place.at("file"), read_file(&self.base.join(&file.value.0))),
            (None, Some(env)) => (place.at("env"), read_env(&env.text)),
            (Some(_), Some(_)) => {
                let finding =
                    Finding::error("conflict", &place.at("env"), "a secret has one source").on_key();
                self.findings.add(finding.label("`file` or `env`").with(&place.at("file"), "the other one"));
                return None;
            }
            (None, None) => {
                if self.findings.clear(place) {
                    let finding =
                        Finding::error("missing", place, "a secret needs a source").label("`file` or `env`");
                    self.findings.add(finding.say("`{ file = \"secret.key\" }` or `{ env = \"SECRET\" }`"));
                }
                return None;
            }
        };
        match bytes {
            Ok(bytes) => Some(Secret(bytes)),
            Err((message, label)) => {
                self.findings.add(Finding::error("secret", &at, message).label(label));
                None
            }
        }
    }
}

type Unread = (String, String);

fn read_file(path: &Path) -> Result<Vec<u8>, Unread> {
    let failed = |reason: String| (format!("cannot read the secret in `{}`", path.display()), reason);
    let bytes = bytes_of(path, MAX_SECRET).map_err(failed)?;
    trimmed(bytes).ok_or_else(|| failed("the file is empty".to_owned()))
}

/// A whole file, or why it cannot be had.
pub(crate) fn bytes_of(path: &Path, most: usize) -> Result<Vec<u8>, String> {
    let regular = path.metadata().map_err(|error| in_words(&error))?.is_file();
    if !regular {
        return Err("not a file".to_owned());
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| in_words(&error))?;
    file.take(most as u64 + 1).read_to_end(&mut bytes).map_err(|error| in_words(&error))?;
    if bytes.len() > most { Err(format!("longer than {most} bytes")) } else { Ok(bytes) }
}

fn read_env(name: &str) -> Result<Vec<u8>, Unread> {
    let failed =
        |reason: &str| (format!("cannot read the secret in the variable `{name}`"), reason.to_owned());
    let value = std::env::var_os(name).ok_or_else(|| failed("not set in this environment"))?;
    trimmed(value.into_encoded_bytes()).ok_or_else(|| failed("the variable is empty"))
}

fn trimmed(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    if bytes.ends_with(b"\n") {
        bytes.pop();
        if bytes.ends_with(b"\r") {
            bytes.pop();
        }
    }
    (!bytes.is_empty()).then_some(bytes)
}

/// The reason alone: the system's number says nothing to the operator.
fn in_words(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "this user may not read it".to_owned(),
        _ => error.to_string(),
    }
}
