//! A file that changes under a running Pintle: by an editor, a signal or a command.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::process::{Folder, Running, pool};
use crate::support::{Backend, eventually};

const BY_HAND: &str = "watch = false\n";

async fn reaches(running: &Running, generation: u64) {
    eventually(&format!("generation {generation}"), async || running.generation().await == generation).await;
}

async fn policy(running: &Running) -> String {
    running.status().await["pools"][0]["policy"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_saved_change_holds_within_a_second_and_the_log_says_what_it_did() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let running = Running::over(&[&a, &b], "policy = \"sticky_cookie\"").await;
    let mut client = running.client().await;
    client.get("/").await;
    let begun = Instant::now();
    running.edit(&pool(&[&a, &b], "policy = \"ip_hash\""));
    reaches(&running, 2).await;
    assert!(begun.elapsed() < Duration::from_millis(1500), "{:?}", begun.elapsed());
    assert_eq!(policy(&running).await, "ip_hash");
    let line = running.tells("reloaded pintle.toml: generation 1 → 2").await;
    for part in [
        "kept 1 pool, 2 backends",
        "changed pool app: policy sticky_cookie → ip_hash",
        "moves: pool app: every client moves",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
    assert_eq!(client.get("/").await.status, 200, "the connection is the same");
}

#[tokio::test]
async fn a_hangup_reloads() {
    let a = Backend::start("a").await;
    let running = Running::file(&format!("{BY_HAND}{}", pool(&[&a], ""))).await;
    running.edit(&format!("{BY_HAND}{}", pool(&[&a], "policy = \"ip_hash\"")));
    running.signal(Signal::HUP);
    reaches(&running, 2).await;
    assert_eq!(policy(&running).await, "ip_hash");
}

#[tokio::test]
async fn the_command_answers_when_it_is_done() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let file = |text: &str| format!("{BY_HAND}{text}");
    let running = Running::file(&file(&pool(&[&a], ""))).await;
    running.edit(&file(&pool(&[&a, &b], "policy = \"sticky_cookie\"")));
    let done = running.command(&["reload"]).await;
    assert_eq!((done.exit, running.generation().await), (Some(0), 2), "{done:?}");
    for part in [
        "reloaded pintle.toml  generation 1 → 2",
        "1 pool, 1 backend with their health and connections",
        "pool app: policy round_robin → sticky_cookie",
        &format!("pool app: b at {}", b.address),
        "nobody moves",
    ] {
        assert!(done.stdout.contains(part), "{part} in\n{}", done.stdout);
    }
    running.edit(&file(&pool(&[&b], "")));
    let done = running.command(&["reload", "--json"]).await.json();
    assert_eq!((done["from_generation"].as_u64(), done["generation"].as_u64()), (Some(2), Some(3)));
    assert!(done["draining"][0].as_str().unwrap().contains("a left the file"), "{done}");
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_says_everything() {
    let a = Backend::start("a").await;
    let running = Running::file(&format!("{BY_HAND}{}", pool(&[&a], ""))).await;
    running.edit(&format!("{BY_HAND}{}\n[[route]]\npool = \"ap\"", pool(&[&a], "polcy = \"ip_hash\"")));
    let refused = running.command(&["reload"]).await;
    assert_eq!((refused.exit, running.generation().await), (Some(3), 1), "{refused:?}");
    for part in [
        "not reloaded",
        "generation 1 stays",
        "polcy = \"ip_hash\"",
        "policy = \"ip_hash\"",
        "pool = \"app\"",
    ] {
        assert!(refused.stderr.contains(part), "{part} in\n{}", refused.stderr);
    }
    let json = running.command(&["reload", "--json"]).await;
    assert_eq!((json.exit, json.json()["problems"].as_array().map(Vec::len)), (Some(3), Some(2)));
    let status = running.command(&["status"]).await.stdout;
    assert!(status.contains("last reload") && status.contains("refused: "), "{status}");
    running.tells("polcy").await;
    assert_eq!(running.client().await.get("/").await.status, 200);
}

#[tokio::test]
async fn a_bad_file_that_is_saved_is_told_once_and_the_next_good_one_holds() {
    let a = Backend::start("a").await;
    let running = Running::over(&[&a], "").await;
    running.edit(&pool(&[&a], "polcy = \"ip_hash\""));
    running.tells("generation 1 stays").await;
    // Longer than the file is looked at: it is not tried again and again.
    tokio::time::sleep(Duration::from_millis(1300)).await;
    assert_eq!(running.told().matches("generation 1 stays").count(), 1, "{}", running.told());
    assert_eq!(running.generation().await, 1);
    running.edit(&pool(&[&a], "policy = \"ip_hash\""));
    reaches(&running, 2).await;
}

#[tokio::test]
async fn a_half_written_file_is_not_applied() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let running = Running::over(&[&a], "").await;
    let whole = running.folder.config(&pool(&[&a, &b], "policy = \"ip_hash\"\nslow_start = \"1s\""));
    let mut file =
        OpenOptions::new().write(true).truncate(true).open(running.folder.path("pintle.toml")).unwrap();
    for part in whole.as_bytes().chunks(whole.len() / 24 + 1) {
        file.write_all(part).unwrap();
        file.flush().unwrap();
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    drop(file);
    reaches(&running, 2).await;
    let told = running.told();
    assert!(!told.contains("not reloaded") && told.matches("reloaded pintle.toml").count() == 1, "{told}");
    assert_eq!(running.status().await["pools"][0]["backends"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn editors_that_rename_are_followed() {
    let a = Backend::start("a").await;
    let running = Running::over(&[&a], "").await;
    for (generation, policy) in [(2, "ip_hash"), (3, "least_conn")] {
        let text = running.folder.config(&pool(&[&a], &format!("policy = {policy:?}")));
        let new = running.folder.write(".pintle.toml.swp", &text);
        std::fs::rename(new, running.folder.path("pintle.toml")).unwrap();
        reaches(&running, generation).await;
    }
    // Some move the old file away first.
    std::fs::rename(running.folder.path("pintle.toml"), running.folder.path("pintle.toml~")).unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;
    running.edit(&pool(&[&a], "policy = \"random_two\""));
    reaches(&running, 4).await;
}

#[tokio::test]
async fn a_symlink_that_is_swapped_is_followed() {
    let a = Backend::start("a").await;
    let folder = Folder::new();
    for (version, policy) in [("v1", "round_robin"), ("v2", "ip_hash")] {
        std::fs::create_dir(folder.path(version)).unwrap();
        let text = folder.config(&pool(&[&a], &format!("policy = {policy:?}")));
        folder.write(&format!("{version}/pintle.toml"), &text);
    }
    // As a mounted ConfigMap does: the file is a link through a folder that is swapped.
    symlink("v1", folder.path("data")).unwrap();
    symlink("data/pintle.toml", folder.path("pintle.toml")).unwrap();
    let socket = folder.path("admin.sock").display().to_string();
    let running = Running::start(folder, &["serve"], &socket).await;
    symlink("v2", running.folder.path("data.new")).unwrap();
    std::fs::rename(running.folder.path("data.new"), running.folder.path("data")).unwrap();
    reaches(&running, 2).await;
    assert_eq!(policy(&running).await, "ip_hash");
}

#[tokio::test]
async fn a_file_that_is_only_touched_changes_nothing() {
    let a = Backend::start("a").await;
    let running = Running::over(&[&a], "").await;
    running.edit(&pool(&[&a], ""));
    tokio::time::sleep(Duration::from_millis(1300)).await;
    assert_eq!(running.generation().await, 1);
}
