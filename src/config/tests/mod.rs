//! The room as a whole: files in, plans or problems out.

mod defaults;
mod fuzz;
mod mutations;
mod problems;
mod reference;

use super::*;

/// A text as if it stood in `pintle.toml` beside the keys of this folder.
fn origin() -> Origin {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/tests/keys");
    Origin { name: "pintle.toml".to_owned(), base }
}

/// The plan of a text that has no errors.
fn plan(text: &str) -> Plan {
    compile(text, &origin()).unwrap_or_else(|problems| panic!("{problems}")).plan
}
