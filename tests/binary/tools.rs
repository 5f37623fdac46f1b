//! The commands that need no running Pintle.

use crate::process::Folder;

#[tokio::test]
async fn schema_prints_a_json_schema() {
    let printed = Folder::new().run(&["schema"]).await;
    assert_eq!(printed.exit, Some(0));
    let schema = printed.json();
    assert!(schema["$schema"].as_str().is_some_and(|dialect| dialect.contains("json-schema.org")));
    assert!(schema["properties"]["pool"].is_object(), "{schema}");
}

#[tokio::test]
async fn init_writes_a_file_that_is_right_and_never_over_another() {
    let folder = Folder::new();
    let first = folder.run(&["init"]).await;
    assert_eq!(first.exit, Some(0), "{first:?}");
    assert!(first.stdout.starts_with("wrote pintle.toml"), "{}", first.stdout);
    assert_eq!(folder.run(&["check"]).await.exit, Some(0));
    let text = folder.read("pintle.toml");
    let second = folder.run(&["init"]).await;
    assert_eq!((second.exit, folder.read("pintle.toml")), (Some(1), text));
    assert!(second.stderr.contains("`pintle.toml` exists and is left alone"), "{}", second.stderr);
    let full = folder.run(&["init", "--full", "-"]).await;
    assert!(full.stdout.contains("[pool.app.sticky]"));
}

#[tokio::test]
async fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let printed = Folder::new().run(&["completions", shell]).await;
        assert_eq!(printed.exit, Some(0));
        assert!(printed.stdout.contains("drain") && printed.stdout.contains("pintle"), "{shell}");
    }
}

#[tokio::test]
async fn help_and_version_are_there() {
    let folder = Folder::new();
    let version = folder.run(&["version"]).await;
    assert_eq!(version.stdout, format!("pintle {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(folder.run(&["--version"]).await.stdout, version.stdout);
    let help = folder.run(&["--help"]).await;
    assert!(help.exit == Some(0) && help.stdout.contains("Exit codes:"));
    assert_eq!(folder.run(&[]).await.exit, Some(2));
}
