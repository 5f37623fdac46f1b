//! The examples run, and say what the README says they do.

use std::path::Path;
use std::process::Command;

#[test]
fn a_program_starts_reloads_drains_and_ends_a_balancer_of_its_own() {
    let printed = run("embed");
    let line = |label: &str| {
        let found = printed.lines().find_map(|line| line.strip_prefix(label)?.strip_prefix(": "));
        found.unwrap_or_else(|| panic!("no line `{label}` in\n{printed}"))
    };
    let pair = |label: &str| line(label).split_once(' ').expect("two answers");

    let mut first_two = <[&str; 2]>::from(pair("round_robin"));
    first_two.sort_unstable();
    assert_eq!(first_two, ["one", "two"], "round_robin takes turns");
    assert!(line("reload").contains("ip_hash"), "{printed}");
    assert_eq!(pair("ip_hash").0, pair("ip_hash").1, "one address, one backend");
    assert_eq!(line("drain"), "app/one drained, 0 requests cut");
    assert_eq!(pair("while one is drained"), ("two", "two"));
    assert_eq!(line("ready"), "one active");
    assert_eq!(line("status"), "6 requests");
    assert_eq!(line("shutdown"), "0 requests cut");
}

/// Builds an example into the folder that this test was built into, and runs it.
fn run(name: &str) -> String {
    let this = std::env::current_exe().expect("a test knows where it is");
    let profile = this.ancestors().nth(2).expect("target/PROFILE/deps/test");
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--locked", "--offline", "--example", name]);
    build.arg("--target-dir").arg(profile.parent().expect("target"));
    if profile.ends_with("release") {
        build.arg("--release");
    }
    succeed(build.current_dir(env!("CARGO_MANIFEST_DIR")));
    succeed(&mut Command::new(Path::new(profile).join("examples").join(name)))
}

fn succeed(command: &mut Command) -> String {
    let output = command.output().expect("it can be started");
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}
