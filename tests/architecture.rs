//! The map in `src/ARCHITECTURE.md` and the rules of the code, held against the code itself.
//!
//! Start at the tests; each is one rule. [`Source`] is how they see a file: without its comments
//! and without its tests, which may look anywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const MAP: &str = include_str!("../src/ARCHITECTURE.md");
const MANIFEST: &str = include_str!("../Cargo.toml");

/// What may be imported from everywhere; they import none but each other.
const LEAVES: [&str; 5] = ["plan", "drain", "telemetry", "certificate", "sync"];
/// Past this many lines, tests not counted, a file is asked whether a second idea moved in.
const LONG: usize = 400;
/// Those that were asked, and what they answered.
const LONG_AND_ONE_IDEA: [(&str, &str); 1] =
    [("plan.rs", "every plan type, plain values with a line of meaning each")];
/// Crates that Pintle is built on.
const BUILT_ON: [&str; 8] =
    ["hyper", "hyper-util", "tokio", "cookie", "siphasher", "arc-swap", "serde", "toml"];
/// Where a task or a thread may begin; each place owns what it starts.
const SPAWN_HOMES: [&str; 8] = [
    "app/",
    "admin/serve.rs",
    "cli/demo/",
    "http/serve/http2.rs",
    "proxy/tunnel.rs",
    "telemetry/access_log/mod.rs",
    "upstream/h2/connection.rs",
    "upstream/alone.rs",
];

#[test]
fn every_room_is_on_the_map_and_the_map_shows_no_other() {
    let rooms: BTreeSet<String> =
        sources().iter().filter(|file| !file.is_root()).map(|file| file.room.clone()).collect();
    let drawn: BTreeSet<String> = map().into_iter().map(|(room, _)| room).collect();
    assert_eq!(rooms, drawn);
}

#[test]
fn imports_follow_the_map() {
    let map: BTreeMap<String, Vec<String>> = map().into_iter().collect();
    let mut wrong = Vec::new();
    for file in sources().iter().filter(|file| !file.is_root()) {
        for room in file.imports() {
            let allowed = room == file.room || LEAVES.contains(&&*room) || map[&file.room].contains(&room);
            if !allowed {
                wrong.push(format!("src/{} imports {room}", file.path));
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn imports_point_up_the_map_only_so_that_there_are_no_circles() {
    let mut above = Vec::new();
    for (room, imports) in map() {
        for import in imports {
            assert!(above.contains(&import), "{room} may import {import}, which stands below it");
        }
        above.push(room);
    }
}

#[test]
fn every_arrow_on_the_map_is_used() {
    let files = sources();
    for (room, imports) in map() {
        let used: BTreeSet<String> =
            files.iter().filter(|file| file.room == room).flat_map(Source::imports).collect();
        for import in imports.iter().filter(|_| room != "app") {
            assert!(used.contains(import), "{room} may import {import} and does not: take it off the map");
        }
    }
}

#[test]
fn no_room_is_entered_through_super() {
    for file in sources() {
        for supers in file.code.split("super::").collect::<Vec<_>>().split(|part| !part.is_empty()) {
            // A run of n `super::` shows as n - 1 empty parts.
            let climbs = supers.len() + 1;
            assert!(file.is_root() || climbs <= file.depth, "src/{} climbs out of its room", file.path);
        }
        assert!(file.depth > 1 || !file.code.contains("super::"), "src/{} climbs out of its room", file.path);
    }
}

#[test]
fn a_policy_imports_only_the_plan_and_what_threads_share() {
    let policies: Vec<_> =
        sources().into_iter().filter(|file| file.path.starts_with("pool/policy/")).collect();
    assert!(policies.len() > 4);
    for policy in policies {
        let mut imports = policy.imports();
        imports.retain(|room| room != "plan" && room != "sync");
        assert_eq!(imports, BTreeSet::new(), "src/{}", policy.path);
    }
}

#[test]
fn serialisable_types_live_at_the_edges() {
    holds_outside(&["config/", "admin/"], |line| {
        line.contains("derive(") && (line.contains("Serialize") || line.contains("Deserialize"))
    });
}

#[test]
fn an_error_becomes_a_gateway_status_in_one_file() {
    holds_outside(&["proxy/error.rs"], |line| line.contains("StatusCode::BAD_GATEWAY"));
}

#[test]
fn tasks_and_threads_begin_where_somebody_owns_them() {
    let begins = ["tokio::spawn(", "spawn_local(", "spawn_blocking(", "thread::spawn(", "thread::Builder"];
    holds_outside(&SPAWN_HOMES, |line| begins.iter().any(|begin| line.contains(begin)));
}

#[test]
fn nothing_is_unwrapped_outside_tests() {
    holds_outside(&[], |line| line.contains(".unwrap()"));
}

#[test]
fn every_file_says_what_lives_in_it() {
    for file in sources() {
        let opens = file.text.starts_with("//!") || file.text.starts_with("#![doc = include_str!");
        assert!(opens, "src/{} does not open with `//!`", file.path);
    }
}

#[test]
fn a_file_past_400_lines_has_been_asked_whether_it_is_one_idea() {
    let long: BTreeSet<String> = sources()
        .into_iter()
        .filter(|file| file.lines() > LONG)
        .map(|file| format!("{} ({} lines)", file.path, file.lines()))
        .filter(|file| !LONG_AND_ONE_IDEA.iter().any(|(asked, _)| file.starts_with(&format!("{asked} "))))
        .collect();
    assert_eq!(long, BTreeSet::new());
}

#[test]
fn what_pintle_is_built_on_is_a_direct_dependency_and_in_use() {
    let direct = dependencies();
    let files = sources();
    for name in BUILT_ON {
        assert!(direct.iter().any(|(dependency, _)| dependency == name), "{name} is not in Cargo.toml");
        let path = format!("{}::", name.replace('-', "_"));
        assert!(files.iter().any(|file| names(&file.code, &path)), "src never names {path}");
    }
}

#[test]
fn every_dependency_says_what_it_is_for() {
    let dependencies = dependencies();
    assert!(dependencies.len() > 20);
    for (name, line) in dependencies {
        let reason = line.split_once(" # ").map_or("", |(_, reason)| reason.trim());
        assert!(!reason.is_empty(), "{name} comes without a reason");
    }
}

/// No line outside `homes` is such a line, and at least one home holds one, or the rule is blind.
fn holds_outside(homes: &[&str], is: impl Fn(&str) -> bool) {
    let mut seen = false;
    let mut wrong = Vec::new();
    for file in sources() {
        for line in file.code.lines().filter(|line| is(line)) {
            let home = homes.iter().any(|home| file.path.starts_with(home));
            seen |= home;
            if !home {
                wrong.push(format!("src/{}: {}", file.path, line.trim()));
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
    assert!(seen || homes.is_empty(), "none of {homes:?} holds what this rule is about");
}

/// A file of `src`, as the rules see it.
struct Source {
    /// Relative to `src`.
    path: String,
    /// Its first folder, or its own name.
    room: String,
    /// How many `super::` lead to the crate.
    depth: usize,
    text: String,
    /// The text without comments and tests.
    code: String,
}

impl Source {
    fn is_root(&self) -> bool {
        ["lib.rs", "main.rs"].contains(&&*self.path)
    }

    /// The rooms that the code names: `crate::a`, `crate::{a, b::c}`.
    fn imports(&self) -> BTreeSet<String> {
        let starts = self.code.match_indices("crate::").filter(|(at, _)| {
            !self.code[..*at].ends_with(|before: char| before.is_alphanumeric() || "_$:".contains(before))
        });
        starts.flat_map(|(at, found)| firsts(&self.code[at + found.len()..])).collect()
    }

    fn lines(&self) -> usize {
        without_tests(&self.text).lines().count()
    }
}

/// The first name of each path in `a::…` or `{a::…, b}`.
fn firsts(path: &str) -> Vec<String> {
    let name = |path: &str| path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = path.strip_prefix('{') else { return vec![name(path)] };
    let mut depth = 0;
    let mut firsts = vec![name(group.trim_start())];
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => firsts.push(name(group[at + 1..].trim_start())),
            _ => {}
        }
    }
    firsts.retain(|first| !first.is_empty());
    firsts
}

/// Whether a path that begins with `path` is named, and not as the end of a longer name.
fn names(code: &str, path: &str) -> bool {
    code.match_indices(path)
        .any(|(at, _)| !code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_'))
}

/// Every file of `src` that is no test.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("src can be read") {
            let path = entry.expect("src can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push((path.clone(), fs::read_to_string(&path).expect("source is UTF-8")));
            }
        }
    }
    let tests: Vec<PathBuf> = files.iter().flat_map(|(path, text)| test_files(path, text)).collect();
    files.retain(|(path, _)| {
        !tests.iter().any(|test| path == test || path.starts_with(test.with_extension("")))
    });
    assert!(files.len() > 50, "only {} files in src", files.len());
    files.sort();
    files.into_iter().map(|(path, text)| source(path.strip_prefix(&root).expect("in src"), text)).collect()
}

fn source(path: &Path, text: String) -> Source {
    let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    let depth = if path.ends_with("mod.rs") { parts.len() - 1 } else { parts.len() };
    let room = parts[0].trim_end_matches(".rs").to_owned();
    let code: String = without_tests(&text)
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| [line.split(" // ").next().unwrap_or(line), "\n"])
        .collect();
    Source { path: parts.join("/"), room, depth, text, code }
}

/// The files of `#[cfg(test)] mod name;` in the file at `path`.
fn test_files(path: &Path, text: &str) -> Vec<PathBuf> {
    let folder = match path.file_name().is_some_and(|name| name == "mod.rs" || name == "lib.rs") {
        true => path.parent().expect("in src").to_path_buf(),
        false => path.with_extension(""),
    };
    let lines: Vec<&str> = text.lines().collect();
    let module = |pair: &[&str]| Some(pair[1].strip_prefix("mod ")?.strip_suffix(';')?.to_owned());
    let tests = lines.windows(2).filter(|pair| pair[0] == "#[cfg(test)]").filter_map(module);
    tests.map(|name| folder.join(name + ".rs")).collect()
}

/// The text without its `#[cfg(test)] mod … { … }`, which rustfmt closes in the first column.
fn without_tests(text: &str) -> String {
    let mut kept = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let tests = line == "#[cfg(test)]" && lines.peek().is_some_and(|next| next.starts_with("mod "));
        if tests {
            lines.by_ref().find(|line| *line == "}" || line.ends_with(';') && line.starts_with("mod "));
            continue;
        }
        kept.extend([line, "\n"]);
    }
    kept
}

/// The table of the map: each room, in order, with what it may import.
fn map() -> Vec<(String, Vec<String>)> {
    let mut map: Vec<(String, Vec<String>)> = Vec::new();
    for row in MAP.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let rooms = quoted(cells[0]);
        let imports = match cells[2].strip_prefix("everything but ") {
            Some(_) => map.iter().map(|(room, _)| room.clone()).collect(),
            None => quoted(cells[2]),
        };
        map.extend(rooms.into_iter().map(|room| (room, imports.clone())));
    }
    assert!(map.len() > 10, "the map has lost its table");
    map
}

fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Each dependency of Cargo.toml with its line.
fn dependencies() -> Vec<(String, &'static str)> {
    let mut within = false;
    let mut found = Vec::new();
    for line in MANIFEST.lines() {
        if line.starts_with('[') {
            within = line.ends_with("dependencies]");
        } else if let (true, Some((name, _))) = (within && !line.starts_with('#'), line.split_once(" = ")) {
            found.push((name.trim().to_owned(), line));
        }
    }
    found
}
