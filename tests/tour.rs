//! The README's ten-minute tour, typed into a shell against the real binary.
//!
//! Start at [`the_tour_goes_as_the_readme_shows`]. A ```` ```console ```` block is commands
//! (`$ …`) with what they print; a ```` ```text ```` block is what the demo's own terminal tells.
//!
//! What differs from run to run, and what is made of it before both sides are compared:
//! - ports, the temporary folder, the program's path: the README's are replaced by this run's;
//! - which of three shops the first person gets: people are renamed so that they sit as in the
//!   README, and the lines of a loop are compared in any order;
//! - hit counters, process ids, dates, lengths of time, the latency of a probe, and how many
//!   requests there were: see [`normal`]. A `60s` that was typed is compared.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long an effect may take before it counts as missing.
const PATIENCE: Duration = Duration::from_secs(15);
/// The whole tour.
const LIMIT: Duration = Duration::from_secs(90);
const MARK: &str = "-- end of output --";

enum Step {
    Typed { command: String, prints: Vec<String> },
    Told(Vec<String>),
}

#[test]
fn the_tour_goes_as_the_readme_shows() {
    let begun = Instant::now();
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let mut steps = steps(&readme).into_iter();
    let Some(Step::Typed { command, prints: first_screen }) = steps.next() else {
        panic!("the tour begins with a command");
    };
    assert_eq!(command, "cargo run --release -- demo");

    let mut demo = Demo::start(first_screen.len());
    let mut names = demo.names();
    let head = demo.screen.lines().take(first_screen.len()).collect::<Vec<_>>();
    assert_same(&command, &names.here(&first_screen), &head);

    let mut shell = Shell::open();
    let mut typed = Vec::new();
    for step in steps {
        assert!(begun.elapsed() < LIMIT, "the tour takes longer than {LIMIT:?}");
        match step {
            Step::Typed { command, prints } => {
                let command = names.here_line(&command);
                shell.until_it_prints(&command, &prints, &mut names);
                typed.push(command);
            }
            Step::Told(lines) => {
                if lines[0].starts_with("ended") {
                    demo.interrupt();
                }
                demo.tells(&names.here(&lines));
            }
        }
    }
    assert!(demo.child.wait().unwrap().success());
    assert!(!demo.folder.is_empty() && !Path::new(&demo.folder).exists(), "{} is left", demo.folder);

    let offered: Vec<_> = demo
        .screen
        .lines()
        .filter(|line| ["for ", "sed ", "curl ", &demo.program].iter().any(|start| line.starts_with(start)))
        .collect();
    assert!(offered.len() >= 15, "{offered:#?}");
    for line in offered {
        assert!(typed.iter().any(|typed| typed == line), "the README does not show: {line}");
    }
}

/// The blocks of the section, in order.
fn steps(readme: &str) -> Vec<Step> {
    let section = readme.split("\n## ").find(|section| section.starts_with("Ten-minute tour")).unwrap();
    let mut steps = Vec::new();
    for (index, block) in section.split("```").enumerate().filter(|(index, _)| index % 2 == 1) {
        let (kind, body) = block.split_once('\n').unwrap();
        match kind {
            "console" => {
                for line in body.lines() {
                    match (line.strip_prefix("$ "), steps.last_mut()) {
                        (Some(command), _) => {
                            steps.push(Step::Typed { command: command.to_owned(), prints: Vec::new() });
                        }
                        (None, Some(Step::Typed { prints, .. })) => prints.push(line.to_owned()),
                        (None, _) => panic!("output before any command: {line}"),
                    }
                }
            }
            "text" => steps.push(Step::Told(body.lines().map(str::to_owned).collect())),
            other => panic!("block {index} is neither console nor text but `{other}`"),
        }
    }
    steps
}

/// The demo as a child, and what it has said. Killed with the test.
struct Demo {
    child: Child,
    screen: String,
    told: Receiver<String>,
    folder: String,
    program: String,
}

impl Demo {
    fn start(head: usize) -> Self {
        let program = fs::canonicalize(env!("CARGO_BIN_EXE_pintle")).unwrap().display().to_string();
        let mut child = Command::new(&program)
            .args(["demo", "--free-ports"])
            .env_remove("PINTLE_ADMIN")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let told = lines_of(child.stdout.take().unwrap());
        let mut demo = Self { child, screen: String::new(), told, folder: String::new(), program };
        // The last thing to paste ends the screen.
        while demo.screen.lines().count() < head || !demo.screen.contains("name = \"b4\"") {
            let line = demo.told.recv_timeout(PATIENCE).expect("the first screen comes");
            demo.screen += &(line + "\n");
        }
        let file = demo.screen.split_whitespace().find(|word| word.ends_with("/pintle.toml")).unwrap();
        demo.folder = file.trim_end_matches("/pintle.toml").to_owned();
        demo
    }

    /// The README's names of everything that is called otherwise in this run.
    fn names(&self) -> Names {
        let file = fs::read_to_string(format!("{}/pintle.toml", self.folder)).unwrap();
        let mut here: Vec<String> = Vec::new();
        for address in addresses(&self.screen).into_iter().chain(addresses(&file)) {
            if !here.contains(&address) {
                here.push(address);
            }
        }
        let readme = [8080, 9900, 9001, 9002, 9003, 9000, 9004];
        assert_eq!(here.len(), readme.len(), "{here:?}");
        here.push(TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string());
        let ports = readme.iter().chain(&[8081]).map(|port| format!("127.0.0.1:{port}"));
        let mut names: Vec<_> = ports.zip(here).collect();
        names.push(("target/release/pintle".into(), self.program.clone()));
        names.push(("/tmp/pintle-demo".into(), self.folder.clone()));
        Names { names, people: HashMap::new() }
    }

    /// Waits until the lines have been told, in this order; others may come between.
    fn tells(&self, lines: &[String]) {
        let (until, mut seen) = (Instant::now() + PATIENCE, Vec::new());
        for line in lines {
            loop {
                let left = until.saturating_duration_since(Instant::now());
                let Ok(told) = self.told.recv_timeout(left) else {
                    panic!("the demo does not tell\n  {line}\nbut\n{seen:#?}");
                };
                if normal(&told) == normal(line) {
                    break;
                }
                seen.push(told);
            }
        }
    }

    fn interrupt(&self) {
        let sent = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // SIGTERM, so that a test that failed leaves no folder either.
            let _ = Command::new("kill").arg(self.child.id().to_string()).status();
            let _ = self.child.wait();
        }
    }
}

/// From the README's world to this run's.
struct Names {
    names: Vec<(String, String)>,
    people: HashMap<String, String>,
}

impl Names {
    fn here_line(&self, line: &str) -> String {
        self.names.iter().fold(line.to_owned(), |line, (readme, here)| line.replace(readme, here))
    }

    fn here(&self, lines: &[String]) -> Vec<String> {
        let person = |word: &str| {
            let (name, rest) = word.split_at(word.len().min(3));
            self.people.get(name).map_or(word.to_owned(), |here| format!("{here}{rest}"))
        };
        let people = |line: String| {
            if line.ends_with("cart is empty") || line.contains(" welcomes ") {
                line.split(' ').map(person).collect::<Vec<_>>().join(" ")
            } else {
                line
            }
        };
        lines.iter().map(|line| people(self.here_line(line))).collect()
    }

    /// Who sits where the README has somebody else: learnt once, when they log in.
    fn meet(&mut self, readme: &[String], here: &[String]) {
        let guest = |line: &String| {
            let (shop, guest) = line.split_once(" welcomes ")?;
            Some((shop.to_owned(), guest.to_owned()))
        };
        let here: HashMap<_, _> = here.iter().filter_map(guest).collect();
        for (shop, guest) in readme.iter().filter_map(guest) {
            if let Some(other) = here.get(&shop) {
                self.people.insert(guest, other.clone());
            }
        }
    }
}

/// One shell for the whole tour, as a person has it. Killed with the test.
struct Shell {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Shell {
    fn open() -> Self {
        let mut child = Command::new("bash")
            .args(["--noprofile", "--norc"])
            .env_remove("PINTLE_ADMIN")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(b"exec 2>&1; trap 'kill $(jobs -p)' EXIT\n").unwrap();
        let lines = lines_of(child.stdout.take().unwrap());
        Self { child, input, lines }
    }

    /// Types a command, again and again if need be, until it prints what the README shows.
    fn until_it_prints(&mut self, command: &str, prints: &[String], names: &mut Names) {
        let until = Instant::now() + PATIENCE;
        loop {
            let printed = self.run(command);
            if names.people.is_empty() {
                names.meet(prints, &printed);
            }
            let expected = names.here(prints);
            let looped = command.starts_with("for ");
            if comparable(&expected, looped) == comparable(&printed, looped) {
                return;
            }
            if Instant::now() >= until {
                assert_same(command, &expected, &printed);
                panic!("{command}: the same lines in another order");
            }
        }
    }

    fn run(&mut self, command: &str) -> Vec<String> {
        writeln!(self.input, "{command}\necho '{MARK}'").unwrap();
        let mut printed: Vec<String> = Vec::new();
        loop {
            let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("`{command}` hangs"));
            if line == MARK {
                // The empty line after a head is no part of the output that a README shows.
                if printed.last().is_some_and(String::is_empty) {
                    printed.pop();
                }
                return printed;
            }
            printed.push(line);
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.input.write_all(b"exit\n");
        let _ = self.child.wait();
    }
}

fn lines_of(from: impl Read + Send + 'static) -> Receiver<String> {
    let (lines, read) = channel();
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if lines.send(line.trim_end().to_owned()).is_err() {
                return;
            }
        }
    });
    read
}

/// Every `127.0.0.1:PORT` in order.
fn addresses(text: &str) -> Vec<String> {
    text.match_indices("127.0.0.1:")
        .map(|(at, start)| {
            let port: String = text[at + start.len()..].chars().take_while(char::is_ascii_digit).collect();
            format!("{start}{port}")
        })
        .collect()
}

fn comparable<L: AsRef<str>>(lines: &[L], in_any_order: bool) -> Vec<String> {
    let mut lines: Vec<_> = lines.iter().map(|line| normal(line.as_ref())).collect();
    if in_any_order {
        lines.sort();
    }
    lines
}

#[track_caller]
fn assert_same<L: AsRef<str>>(command: &str, expected: &[String], printed: &[L]) {
    let printed: Vec<&str> = printed.iter().map(AsRef::as_ref).collect();
    let same = comparable(expected, false) == comparable(&printed, false);
    assert!(same, "$ {command}\nREADME:\n{}\n\nhere:\n{}\n", expected.join("\n"), printed.join("\n"));
}

/// A line without what must differ. Spaces count as one: a wider number moves a table's columns.
fn normal(line: &str) -> String {
    if line.starts_with("date: ") {
        return "date: …".to_owned();
    }
    if let Some((_, errors)) = line.split_once(" so far, ") {
        return format!("… so far, {errors}");
    }
    let backend = line.starts_with("  b") && line.contains(" up, ");
    let (mut out, mut numbers, mut before) = (Vec::new(), 0, "");
    for word in line.split_whitespace() {
        let bare = word.trim_end_matches([',', ';', ':']);
        let number = bare.parse::<u64>().is_ok();
        numbers += u64::from(number);
        let varies = match before {
            "deadline" | "last" => false,
            "hit" | "pid" => true,
            _ if number => backend && numbers == REQUESTS_COLUMN,
            _ => is_span(bare) || is_time(bare),
        };
        // `drained in 4 s`
        if bare == "s" && before.parse::<u64>().is_ok() {
            out.pop();
        }
        out.push(if varies || bare == "s" { "…" } else { word });
        before = bare;
    }
    out.join(" ")
}

/// Of the numbers in a backend's row of `status`: weight, in flight, tunnels, sessions, this.
const REQUESTS_COLUMN: u64 = 5;

/// `24ms`, `0.3ms`, `4s`, `5m`
fn is_span(word: &str) -> bool {
    let unit = word.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    unit.len() < word.len() && ["ms", "s", "m"].contains(&unit)
}

/// RFC 3339
fn is_time(word: &str) -> bool {
    word.ends_with('Z') && word.contains('T') && word.starts_with("20")
}
