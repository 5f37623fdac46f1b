//! What the documents say, tried: every configuration compiles, every command and flag exists,
//! every link leads somewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use pintle::config::{self, Origin, Severity};

const README: &str = include_str!("../README.md");
const CHANGELOG: &str = include_str!("../CHANGELOG.md");

#[test]
fn every_configuration_in_the_readme_compiles_without_a_warning() {
    let blocks = blocks(README, "toml");
    assert!(blocks.len() >= 3, "the README shows {} configurations", blocks.len());
    for block in blocks {
        // Where the certificates are that it shows.
        compiles("README.md", "src/config/tests/keys", &block);
    }
}

#[test]
fn every_file_in_config_compiles_without_a_warning() {
    let mut seen = 0;
    for entry in std::fs::read_dir(root().join("config")).unwrap() {
        let path = entry.unwrap().path();
        compiles(&path.display().to_string(), "config", &std::fs::read_to_string(&path).unwrap());
        seen += 1;
    }
    assert!(seen >= 3);
}

fn compiles(name: &str, base: &str, text: &str) {
    let origin = Origin { name: name.to_owned(), base: root().join(base) };
    match config::compile(text, &origin) {
        Ok(compiled) => assert!(compiled.warnings.is_empty(), "{}", compiled.warnings.render(false)),
        Err(problems) => panic!("{}\n{text}", problems.render(false)),
    }
}

#[test]
fn every_command_and_flag_in_the_readme_exists() {
    let main = help(&[]);
    let known: BTreeSet<&str> = after(&main, "Commands:").map(first_word).collect();
    let mut pages: BTreeMap<String, String> = BTreeMap::new();
    let mut seen = 0;
    for command in commands(README) {
        let mut words = command.split_whitespace();
        let name = words.next().unwrap_or_default();
        assert!(known.contains(name), "`pintle {command}`: there is no command `{name}`");
        let page = pages.entry(name.to_owned()).or_insert_with(|| help(&[name]));
        for flag in words.filter(|word| word.starts_with('-') && word.len() > 1) {
            let flag = flag.split('=').next().unwrap_or_default();
            let listed = page.split([' ', ',', '\n']).any(|word| word == flag);
            assert!(listed, "`pintle {command}`: `{name}` has no flag `{flag}`");
        }
        seen += 1;
    }
    assert!(seen > 20, "only {seen} commands found");
    let said: BTreeSet<String> = pages.into_keys().chain(["demo".to_owned()]).collect();
    let unsaid: Vec<_> = known.iter().filter(|name| !said.contains(**name)).collect();
    assert!(unsaid.is_empty(), "the README does not name {unsaid:?}");
}

#[test]
fn every_flag_named_by_itself_belongs_to_some_command() {
    let main = help(&[]);
    let names: Vec<&str> = after(&main, "Commands:").map(first_word).collect();
    let pages: String = names.iter().map(|name| help(&[name])).collect();
    let flags: BTreeSet<&str> =
        inline(README).filter(|code| code.starts_with("--")).map(first_word).collect();
    assert!(flags.len() > 5);
    for flag in flags {
        assert!(pages.split([' ', ',', '\n']).any(|word| word == flag), "no command has `{flag}`");
    }
}

#[test]
fn every_environment_variable_in_the_readme_is_read_somewhere() {
    let main = help(&[]);
    let names: Vec<&str> = after(&main, "Commands:").map(first_word).collect();
    let mut known: String = names.iter().map(|name| help(&[name])).collect();
    known.push_str(include_str!("../src/cli/client.rs"));
    let named: BTreeSet<&str> = inline(README).filter(|code| code.starts_with("PINTLE_")).collect();
    assert!(named.len() > 5);
    for name in named {
        assert!(known.contains(name), "nothing reads `{name}`");
    }
}

#[test]
fn every_named_limit_is_in_the_source() {
    let mut source = String::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                source.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }
    let limits: BTreeSet<&str> = inline(README)
        .filter(|code| code.contains('_') && !code.starts_with("PINTLE_"))
        .filter(|code| code.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
        .collect();
    assert!(limits.len() > 5);
    for limit in limits {
        assert!(source.contains(&format!("const {limit}:")), "there is no limit `{limit}`");
    }
}

#[test]
fn every_link_to_a_file_leads_there() {
    let mut seen = 0;
    for document in [README, CHANGELOG, include_str!("../CONTRIBUTING.md")] {
        for link in document.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if !link.starts_with("http") && !link.starts_with('#') {
                assert!(root().join(link).exists(), "{link} is linked and not there");
                seen += 1;
            }
        }
    }
    assert!(seen > 5);
}

#[test]
fn the_changelog_says_what_is_not_released_yet() {
    let unreleased = CHANGELOG.split("\n## ").nth(1).expect("a first section");
    assert!(unreleased.starts_with("[Unreleased]"));
    assert!(unreleased.contains("\n- "));
}

#[test]
fn a_compile_error_in_a_document_would_be_seen() {
    let origin = Origin { name: "test".into(), base: root() };
    let problems = config::compile("[pool.app]\nbackends = ['a:1']\nstickyness = 1\n", &origin).unwrap_err();
    assert_eq!(problems.iter().filter(|problem| problem.severity == Severity::Error).count(), 1);
}

/// The text of every block in that language.
fn blocks(document: &str, language: &str) -> Vec<String> {
    let opens = format!("```{language}\n");
    let inner = |block: &str| block.split("\n```").next().unwrap_or_default().to_owned() + "\n";
    document.split(opens.as_str()).skip(1).map(inner).collect()
}

/// What stands in single back-quotes, outside blocks.
fn inline(document: &str) -> impl Iterator<Item = &str> {
    document.split("```").step_by(2).flat_map(|prose| prose.split('`').skip(1).step_by(2))
}

/// Every `pintle …` that could be typed, without the name: in blocks and in back-quotes.
fn commands(document: &str) -> Vec<String> {
    let shell =
        blocks(document, "sh").join("\n").replace("\\\n", " ").replace("cargo run --release --", "pintle");
    let lines = shell.lines().flat_map(|line| line.split(" #").next().unwrap_or_default().split("&&"));
    let typed = lines.map(str::to_owned).chain(inline(document).map(str::to_owned));
    let plain = |command: String| command.split([';', '|', '>']).next().unwrap_or_default().trim().to_owned();
    typed.map(plain).filter_map(|command| Some(command.strip_prefix("pintle ")?.to_owned())).collect()
}

fn help(of: &[&str]) -> String {
    let output =
        Command::new(env!("CARGO_BIN_EXE_pintle")).args(of).arg("--help").output().expect("it starts");
    assert!(output.status.success(), "pintle {of:?} --help");
    String::from_utf8(output.stdout).expect("help is UTF-8")
}

/// The lines of a section of a help page.
fn after<'t>(text: &'t str, title: &'t str) -> impl Iterator<Item = &'t str> {
    text.lines().skip_while(move |line| *line != title).skip(1).take_while(|line| !line.is_empty())
}

fn first_word(line: &str) -> &str {
    line.split_whitespace().next().unwrap_or_default()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}
