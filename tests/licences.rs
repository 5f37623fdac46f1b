//! What a binary of Pintle is made of: permissive licences only, and each crate once.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

const PERMISSIVE: [&str; 15] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "OpenSSL",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crates of which two versions are built, and why that is not ours to change.
const TWICE: [(&str, &str); 4] = [
    ("syn", "parses code while building: some derive macros have moved to 3, others not yet"),
    ("synstructure", "derives code while building, with either syn"),
    ("base64", "the lesson's token library has not moved to 0.23, as all others have"),
    ("untrusted", "aws-lc-rs and rustls-webpki name different ones; it is 300 lines"),
];

#[test]
fn every_licence_is_permissive() {
    let packages = packages();
    assert!(packages.len() > 50);
    for package in &packages {
        let (name, licence) = (&package["name"], package["license"].as_str().unwrap_or("none"));
        assert!(permits(licence), "{name} comes under `{licence}`");
    }
}

#[test]
fn no_crate_is_built_in_two_versions_without_a_reason() {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in packages() {
        let text = |key: &str| package[key].as_str().expect("cargo says so").to_owned();
        versions.entry(text("name")).or_default().insert(text("version"));
    }
    versions.retain(|_, versions| versions.len() > 1);
    let twice: BTreeSet<&str> = versions.keys().map(String::as_str).collect();
    let excused: BTreeSet<&str> = TWICE.iter().map(|(name, _)| *name).collect();
    assert_eq!(twice, excused, "{versions:?}");
}

#[test]
fn a_licence_that_binds_is_not_permissive() {
    assert!(permits("MIT OR Apache-2.0") && permits("MIT/Apache-2.0") && permits("GPL-3.0 OR MIT"));
    assert!(permits("(MIT OR Apache-2.0) AND Unicode-3.0"));
    assert!(!permits("GPL-3.0") && !permits("MIT AND GPL-3.0") && !permits("none") && !permits(""));
    assert!(!permits("(MIT OR Apache-2.0) AND AGPL-3.0"));
}

/// Whether an SPDX expression leaves a permissive choice. `AND` binds closer than `OR`.
fn permits(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    any(&words, &mut at) && at == words.len()
}

fn any(words: &[&str], at: &mut usize) -> bool {
    let mut verdict = all(words, at);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        verdict |= all(words, at);
    }
    verdict
}

fn all(words: &[&str], at: &mut usize) -> bool {
    let mut verdict = one(words, at);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        verdict &= one(words, at);
    }
    verdict
}

fn one(words: &[&str], at: &mut usize) -> bool {
    let Some(word) = words.get(*at) else { return false };
    *at += 1;
    if *word == "(" {
        let verdict = any(words, at);
        *at += 1;
        return verdict;
    }
    let mut licence = (*word).to_owned();
    if let (Some(&"WITH"), Some(exception)) = (words.get(*at), words.get(*at + 1)) {
        *at += 2;
        licence = format!("{licence} WITH {exception}");
    }
    PERMISSIVE.contains(&&*licence)
}

/// Every package that is built for this machine.
fn packages() -> Vec<Value> {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let version = run(Command::new(rustc).arg("-vV"));
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc names its host");
    let mut metadata = Command::new(env!("CARGO"));
    metadata.current_dir(env!("CARGO_MANIFEST_DIR"));
    metadata.args(["metadata", "--format-version=1", "--locked", "--offline", "--filter-platform", host]);
    let mut metadata: Value = serde_json::from_str(&run(&mut metadata)).expect("cargo prints JSON");
    let Value::Array(mut packages) = metadata["packages"].take() else { panic!("cargo names no packages") };
    let built = built(host);
    packages.retain(|package| {
        let text = |key: &str| package[key].as_str().expect("cargo says so").to_owned();
        built.contains(&(text("name"), text("version")))
    });
    packages
}

/// Names and versions. The lock file also has what optional features would take.
fn built(host: &str) -> BTreeSet<(String, String)> {
    let mut tree = Command::new(env!("CARGO"));
    tree.current_dir(env!("CARGO_MANIFEST_DIR"));
    tree.args(["tree", "--locked", "--offline", "--target", host, "--prefix=none", "--format={p}"]);
    let tree = run(&mut tree);
    let package = |line: &str| {
        let (name, rest) = line.split_once(" v")?;
        Some((name.to_owned(), rest.split(' ').next()?.to_owned()))
    };
    tree.lines().filter_map(package).collect()
}

fn run(command: &mut Command) -> String {
    let output = command.output().expect("cargo and rustc are here, they have built this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}
