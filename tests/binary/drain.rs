//! `status`, `drain`, `ready` and `stop` as they are typed: what they print and how they exit.

use crate::process::{Folder, Running};
use crate::support::websocket::HANDSHAKE;
use crate::support::{Ask, Backend, Reply, eventually};

#[tokio::test]
async fn status_shows_how_everything_stands() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let running = Running::over(&[&a, &b], "policy = \"sticky_cookie\"").await;
    let mut client = running.client().await;
    client.get("/").await;
    let shown = running.command(&["status"]).await;
    assert_eq!((shown.exit, shown.stderr.as_str()), (Some(0), ""));
    for part in [
        "pintle 0.1.0",
        "generation 1 of pintle.toml",
        "pool app   sticky_cookie   2 of 2 up",
        "BACKEND",
        "HEALTH",
    ] {
        assert!(shown.stdout.contains(part), "{part} in\n{}", shown.stdout);
    }
    let status = running.status().await;
    let backends = status["pools"][0]["backends"].as_array().unwrap();
    assert_eq!(backends.iter().map(|backend| backend["sessions"].as_u64().unwrap()).sum::<u64>(), 1);
    assert_eq!(running.command(&["status", "app"]).await.exit, Some(0));
    let unknown = running.command(&["status", "ap"]).await;
    assert!(unknown.exit == Some(1) && unknown.stderr.contains("app"), "{unknown:?}");
    assert_eq!(running.command(&["status", "--drift"]).await.stdout, "no drift from pintle.toml\n");
}

#[tokio::test]
async fn a_rolling_deploy_drains_waits_and_brings_back() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let running = Running::over(&[&a, &b], "policy = \"sticky_cookie\"\nsticky.max_idle = \"1s\"").await;
    let mut client = running.client().await;
    while client.get("/").await.served_by() != "a" {
        client.cookies.clear();
    }
    let drained =
        running.command(&["drain", "app/a", "--deadline", "8s", "--wait", "--reason", "deploy 42"]).await;
    assert_eq!((drained.exit, drained.stderr.as_str()), (Some(0), ""), "{drained:?}");
    for part in [
        "app/a draining, deadline 8s, sticky clients stay, no new ones",
        "in flight 0",
        "sessions seen in the last 1s",
        "app/a drained in ",
        "ended by ",
        "0 requests cut",
    ] {
        assert!(drained.stdout.contains(part), "{part} in\n{}", drained.stdout);
    }
    let shown = running.command(&["status"]).await.stdout;
    assert!(shown.contains("drained (operator: deploy 42)"), "{shown}");
    let drift = running.command(&["status", "--drift"]).await.stdout;
    assert!(
        drift.contains("app/a is draining by an operator") && drift.contains("the file says active"),
        "{drift}"
    );

    let ready = running.command(&["ready", "a"]).await;
    assert_eq!((ready.exit, ready.stdout.as_str()), (Some(0), "app/a ready\n"), "{ready:?}");
    let json = running.command(&["drain", "app/a", "--wait", "--json"]).await;
    assert_eq!((json.exit, json.json()["state"].as_str()), (Some(0), Some("drained")));
}

#[tokio::test]
async fn a_deadline_that_cuts_exits_with_5() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    a.reply(Reply::stall());
    b.reply(Reply::stall());
    let running = Running::over(&[&a, &b], "").await;
    let mut clients = [running.client().await, running.client().await];
    for client in &mut clients {
        client.send(&Ask::post("/", "once")).await;
    }
    a.seen(1).await;
    let drained = running.command(&["drain", "app/a", "--deadline", "1s", "--wait"]).await;
    assert_eq!(drained.exit, Some(5), "{drained:?}");
    assert!(
        drained.stdout.contains("in flight 1") && drained.stdout.contains("1 request cut"),
        "{}",
        drained.stdout
    );
}

#[tokio::test]
async fn websockets_that_were_closed_are_counted_and_are_no_failure() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    a.reply(Reply::websocket());
    b.reply(Reply::websocket());
    let running = Running::over(&[&a, &b], "").await;
    let mut clients = [running.client().await, running.client().await];
    for client in &mut clients {
        let wire = client.wire().await;
        wire.send(HANDSHAKE).await;
        assert_eq!(wire.response_head().await.expect("a head").status, 101);
    }
    let opened = async || running.status().await["totals"]["tunnels"] == 2;
    eventually("both are open", opened).await;
    let drained = running.command(&["drain", "app/a", "--deadline", "1s", "--wait"]).await;
    assert_eq!((drained.exit, drained.stderr.as_str()), (Some(0), ""), "{drained:?}");
    assert!(
        drained.stdout.contains("tunnels 1")
            && drained.stdout.contains(": 1 WebSocket closed with 1012, 0 requests cut"),
        "{}",
        drained.stdout
    );
    running.tells("0 moved, 1 WebSocket closed with 1012, 0 requests cut").await;
    let stopped = running.command(&["stop", "app/b", "--force", "--json"]).await;
    let counts = stopped.json();
    assert_eq!((&counts["websockets_closed"], &counts["tunnels_cut"]), (&1.into(), &0.into()), "{stopped:?}");
}

#[tokio::test]
async fn without_wait_it_says_how_to_follow() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let running = Running::over(&[&a, &b], "").await;
    let begun = running.command(&["drain", "app/a"]).await;
    assert_eq!(begun.exit, Some(0));
    assert!(
        begun.stdout.contains("app/a draining, no deadline, its clients go elsewhere from now on"),
        "{}",
        begun.stdout
    );
    assert!(begun.stdout.contains("`pintle status app`"), "{}", begun.stdout);
}

#[tokio::test]
async fn the_last_backend_is_refused_with_6_unless_forced() {
    let a = Backend::start("a").await;
    let running = Running::over(&[&a], "").await;
    for command in ["drain", "stop"] {
        let refused = running.command(&[command, "app/a"]).await;
        assert_eq!((refused.exit, refused.stdout.as_str()), (Some(6), ""));
        assert!(
            refused.stderr.contains("no other backend of pool app takes new clients"),
            "{}",
            refused.stderr
        );
        assert!(
            refused.stderr.contains("help: ") && refused.stderr.contains("--force"),
            "{}",
            refused.stderr
        );
    }
    assert_eq!(running.client().await.get("/").await.status, 200);
    let forced = running.command(&["stop", "app/a", "--force"]).await;
    assert_eq!(forced.exit, Some(0));
    assert!(forced.stdout.contains("app/a stopped in "), "{}", forced.stdout);
}

#[tokio::test]
async fn a_name_that_fits_nobody_or_several_is_refused_with_the_names() {
    let [a, b] = Backend::fleet(["x1", "y1"]).await;
    let running = Running::over(&[&a, &b], "").await;
    let nobody = running.command(&["drain", "app/z"]).await;
    assert!(nobody.exit == Some(1) && nobody.stderr.contains("did you mean `app/"), "{nobody:?}");
    let several = running.command(&["drain", "1"]).await;
    assert!(several.exit == Some(1) && several.stderr.contains("app/y1"), "{several:?}");
}

#[tokio::test]
async fn where_nobody_answers_the_exit_is_4() {
    let folder = Folder::new();
    for arguments in [&["status"][..], &["drain", "app/a"], &["reload"], &["ready", "app/a"], &["shutdown"]] {
        let arguments = [&["--admin", "nobody.sock"][..], arguments].concat();
        let failed = folder.run(&arguments).await;
        assert_eq!(failed.exit, Some(4), "{arguments:?}: {failed:?}");
        assert!(failed.stderr.contains("nobody.sock"), "{}", failed.stderr);
    }
    let json = folder.run(&["--admin", "nobody.sock", "status", "--json"]).await;
    assert_eq!((json.exit, json.json()["exit"].as_u64()), (Some(4), Some(4)));
}

#[tokio::test]
async fn ready_over_a_health_answer_exits_with_1() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    a.answer(|request| Reply::status(if request.target == "/healthz" { 503 } else { 200 }));
    let health = "[pool.app.health]\npath = \"/healthz\"\ninterval = \"100ms\"\ndrain_on = \"503\"";
    let running = Running::over(&[&a, &b], health).await;
    let held = async || running.status().await["pools"][0]["backends"][0]["state_source"] == "health";
    eventually("it drains by itself", held).await;
    let ready = running.command(&["ready", "app/a"]).await;
    assert_eq!(ready.exit, Some(1), "{ready:?}");
    assert!(ready.stderr.contains("by health"), "{}", ready.stderr);
}
