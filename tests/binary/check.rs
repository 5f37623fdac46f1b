//! `check`: every problem of a file at once, each with place, line, reason and correction.

use crate::process::Folder;

const FIVE: &str = "\
[listener.web]
bind = \"127.0.0.1:8080\"
idle_timeout = 75

[pool.app]
backends = [\"127.0.0.1:9001\", { address = \"127.0.0.1:9002\", weigth = 2 }]
policy = \"ip_hsah\"

[pool.app.health]
path = \"healthz\"

[[route]]
pool = \"ap\"
";

/// Place, source line, something of the reason, something of the correction.
const MISTAKES: [(usize, usize, &str, &str, &str); 5] = [
    (3, 16, "idle_timeout = 75", "unit", "\"75s\""),
    (
        6,
        61,
        "backends = [\"127.0.0.1:9001\", { address = \"127.0.0.1:9002\", weigth = 2 }]",
        "weigth",
        "weight = 2",
    ),
    (7, 10, "policy = \"ip_hsah\"", "ip_hsah", "ip_hash"),
    (10, 8, "path = \"healthz\"", "healthz", "\"/healthz\""),
    (13, 8, "pool = \"ap\"", "ap", "app"),
];

#[tokio::test]
async fn five_mistakes_are_told_at_once_with_place_line_reason_and_correction() {
    let folder = Folder::new();
    folder.write("pintle.toml", FIVE);
    let checked = folder.run(&["check"]).await;
    assert_eq!((checked.exit, checked.stdout.as_str()), (Some(3), ""));
    let text = checked.stderr;
    for (line, column, source, reason, correction) in MISTAKES {
        assert!(text.contains(&format!("pintle.toml:{line}:{column}")), "{line}:{column} in\n{text}");
        for part in [source, reason, correction] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }
    assert!(text.contains("5 errors"), "{text}");
    assert!(!text.contains('\x1b'), "no colours where nobody looks");
}

#[tokio::test]
async fn the_same_five_as_json() {
    let folder = Folder::new();
    folder.write("pintle.toml", FIVE);
    let checked = folder.run(&["check", "pintle.toml", "--json"]).await;
    assert_eq!(checked.exit, Some(3));
    let report = checked.json();
    let problems = report["problems"].as_array().unwrap();
    assert_eq!((report["ok"].as_bool(), problems.len()), (Some(false), 5), "{report}");
    for (problem, (line, column, source, reason, correction)) in problems.iter().zip(MISTAKES) {
        assert_eq!(
            (problem["line"].as_u64(), problem["column"].as_u64()),
            (Some(line as u64), Some(column as u64))
        );
        assert_eq!(
            (problem["severity"].as_str(), problem["file"].as_str()),
            (Some("error"), Some("pintle.toml"))
        );
        assert_eq!(problem["source_line"], source);
        let said = format!("{} {}", problem["message"], problem["label"]);
        assert!(said.contains(reason), "{problem}");
        let help = problem["help"].as_str().unwrap_or_default();
        assert!(help.contains(correction), "{problem}");
    }
}

#[tokio::test]
async fn a_good_file_is_ok_in_one_line() {
    let folder = Folder::new();
    folder.write("pintle.toml", "[pool.app]\nbackends = [\"127.0.0.1:9001\", \"127.0.0.1:9002\"]\n");
    let checked = folder.run(&["check"]).await;
    assert_eq!(checked.exit, Some(0));
    assert_eq!(checked.stdout, "pintle.toml: ok, 1 listener, 1 route, 1 pool, 2 backends\n");
    let json = folder.run(&["check", "--json"]).await.json();
    assert_eq!(json["ok"], true);
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_a_problem_too() {
    let folder = Folder::new();
    for (name, arguments) in [("nowhere.toml", &["check", "nowhere.toml"]), ("key", &["check", "key.toml"])] {
        folder.write(
            "key.toml",
            "[pool.app]\nbackends = [\"a:1\"]\nsticky.keys = [{ id = \"k\", file = \"no.key\" }]\n",
        );
        let checked = folder.run(arguments).await;
        assert_eq!(checked.exit, Some(3), "{checked:?}");
        assert!(checked.stderr.contains(name), "{}", checked.stderr);
    }
    let nothing = Folder::new().run(&["check"]).await;
    assert_eq!(nothing.exit, Some(2));
}

#[tokio::test]
async fn a_file_may_come_by_stdin() {
    let folder = Folder::new();
    let path = folder.write("other.toml", FIVE);
    let mut command = folder.command(["check", "-"]);
    command.stdin(std::fs::File::open(path).unwrap());
    let checked = crate::process::end(command).await;
    assert_eq!(checked.exit, Some(3));
    assert!(checked.stderr.contains("stdin:3:16"), "{}", checked.stderr);
}
