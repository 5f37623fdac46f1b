//! Files that are wrong and everything that is said about them, in `cases/*.txt`.
//!
//! A case begins with `### its name`; its text ends at `---`, after which stand the expected
//! problems. `UPDATE_CASES=1 cargo test` writes them anew: read the difference before keeping it.

use std::fmt::Write;
use std::fs;

use super::*;

/// One line for place and message, the rest below it.
fn told(text: &str) -> String {
    let problems = match compile(text, &origin()) {
        Ok(compiled) => compiled.warnings,
        Err(problems) => problems,
    };
    let mut told = String::new();
    for problem in &problems {
        let (line, column, severity) = (problem.line, problem.column, problem.severity.name());
        writeln!(told, "{line}:{column} {severity}[{}] {}", problem.code, problem.message).unwrap();
        writeln!(told, "     ^ {}", problem.label).unwrap();
        for related in &problem.related {
            writeln!(told, "     {}:{} {}", related.line, related.column, related.label).unwrap();
        }
        if let Some(help) = &problem.help {
            writeln!(told, "     help: {}", help.replace('\n', "\n     ").replace("     \n", "\n")).unwrap();
        }
    }
    // The only part of a message that depends on where the project lies.
    told.replace(&format!("{}/", origin().base.display()), "…/")
}

#[test]
fn every_mistake_is_told_once_with_its_place_and_its_correction() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/tests/cases");
    let update = std::env::var_os("UPDATE_CASES").is_some();
    let mut seen = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let old = fs::read_to_string(&path).unwrap();
        let mut new = String::new();
        for case in old.split("### ").skip(1) {
            let (name, rest) = case.split_once('\n').unwrap();
            let (text, expected) = rest.split_once("---\n").unwrap_or((rest, ""));
            let told = told(text);
            assert!(!told.is_empty(), "{name}: nothing is wrong with it");
            if !update {
                assert_eq!(told.trim_end(), expected.trim_end(), "{name}");
            }
            write!(new, "### {name}\n{text}---\n{told}\n").unwrap();
            seen += 1;
        }
        if update {
            fs::write(&path, new).unwrap();
        }
    }
    assert!(seen > 30, "{seen}");
}

#[test]
fn five_mistakes_are_shown_with_their_lines() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/tests");
    let text = fs::read_to_string(folder.join("five-mistakes.toml")).unwrap();
    let problems = compile(&text, &origin()).unwrap_err();
    assert_eq!(problems.summary(), "pintle.toml: 5 errors");
    if std::env::var_os("UPDATE_CASES").is_some() {
        fs::write(folder.join("five-mistakes.txt"), problems.render(false)).unwrap();
    }
    assert_eq!(problems.render(false), fs::read_to_string(folder.join("five-mistakes.txt")).unwrap());
    assert!(problems.render(true).contains("\u{1b}["));
}

#[test]
fn a_file_that_cannot_be_read_is_a_problem() {
    let problems = load(Path::new("/nowhere/pintle.toml")).unwrap_err();
    assert_eq!(problems.errors(), 1);
    let shown = problems.render(false);
    assert!(shown.contains("cannot read `/nowhere/pintle.toml`: no such file"), "{shown}");
    assert!(shown.contains("pintle init"), "{shown}");
    assert!(load(Path::new("/")).unwrap_err().render(false).contains("it is a folder"));
}

#[test]
fn a_file_is_found_through_a_link_and_its_paths_are_relative_to_where_it_was_named() {
    let folder = std::env::temp_dir().join(format!("pintle-load-{}", std::process::id()));
    fs::create_dir_all(folder.join("deep")).unwrap();
    fs::write(
        folder.join("deep/real.toml"),
        "[pool.app]\nbackends = [\"a:1\"]\n[admin]\nsocket = \"a.sock\"",
    )
    .unwrap();
    std::os::unix::fs::symlink(folder.join("deep/real.toml"), folder.join("pintle.toml")).unwrap();
    let plan = load(&folder.join("pintle.toml")).unwrap().plan;
    assert_eq!(plan.admin.socket, Some(folder.join("a.sock")));
    fs::remove_dir_all(folder).unwrap();
}
