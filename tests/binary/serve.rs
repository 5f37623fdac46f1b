//! `serve`: from flags, from variables, from a file; and what it refuses.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use rustix::process::Signal;

use crate::process::{Folder, Running, end, free, get, pool};
use crate::support::{Backend, Client, Keys, TlsClient, TlsFront};

fn list(backends: &[&Backend]) -> String {
    let addresses: Vec<_> = backends.iter().map(|backend| backend.address.to_string()).collect();
    addresses.join(",")
}

#[tokio::test]
async fn one_line_balances_over_two_backends() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let (listen, admin) = (free(), free().to_string());
    let (to, at) = (list(&[&a, &b]), listen.to_string());
    let arguments = ["serve", "--to", &to, "--listen", &at, "--admin-bind", &admin];
    let mut running = Running::start(Folder::new(), &arguments, &admin).await;
    let mut client = Client::new(listen);
    for _ in 0..10 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert_eq!((a.count(), b.count()), (5, 5));
    let metrics = get(&admin, "/metrics").await;
    assert!(metrics.contains("pintle_requests_total{") && metrics.contains("# HELP"), "{metrics}");
    assert!(get(&admin, "/v1/pools").await.contains("\"round_robin\""));
    let lines = running.folder.read("stdout");
    running.signal(Signal::TERM);
    assert!(running.ends().await.success());
    let all = running.folder.read("stdout");
    assert!(all.starts_with(&lines) && all.lines().count() == 10, "the access log is on stdout: {all}");
    let line: serde_json::Value = serde_json::from_str(all.lines().next().unwrap()).unwrap();
    assert_eq!(
        (line["pool"].as_str(), line["status"].as_u64(), line["end"].as_str()),
        (Some("app"), Some(200), Some("ok"))
    );
}

#[tokio::test]
async fn the_printed_config_is_the_same_thing_as_a_file() {
    let [a, b] = Backend::fleet(["a", "b"]).await;
    let (listen, admin) = (free(), free().to_string());
    let (to, at) = (list(&[&a, &b]), listen.to_string());
    let flags = [
        "serve",
        "--to",
        &to,
        "--sticky",
        "--policy",
        "round_robin",
        "--listen",
        &at,
        "--admin-bind",
        &admin,
    ];
    let folder = Folder::new();
    let printed = folder.run(&[&flags[..], &["--access-log", "off", "--print-config"]].concat()).await;
    assert_eq!((printed.exit, printed.stderr.as_str()), (Some(0), ""));
    folder.write("printed.toml", &printed.stdout);
    assert_eq!(folder.run(&["check", "printed.toml"]).await.exit, Some(0));
    let running = Running::start(folder, &["serve", "-c", "printed.toml"], &admin).await;
    let (mut one, mut two) = (Client::new(listen), Client::new(listen));
    let (first, second) = (one.get("/").await, two.get("/").await);
    assert!(first.header("set-cookie").is_some());
    assert_ne!(first.body, second.body);
    for _ in 0..4 {
        assert_eq!(
            (one.get("/").await.body, two.get("/").await.body),
            (first.body.clone(), second.body.clone())
        );
    }
    assert_eq!(running.folder.read("stdout"), "", "the access log is off");
}

#[tokio::test]
async fn a_certificate_and_its_key_make_it_speak_tls() {
    let (a, keys) = (Backend::start("a").await, Keys::for_names(&["shop.example"]));
    let (listen, admin) = (free(), free().to_string());
    let (to, at) = (list(&[&a]), listen.to_string());
    let (cert, key) = (keys.path("site.crt"), keys.path("site.key"));
    let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
    let flags = ["serve", "--to", &to, "--listen", &at, "--admin-bind", &admin, "--tls", cert, key];
    let _running = Running::start(Folder::new(), &flags, &admin).await;
    let mut wire = TlsClient::new(listen).open("shop.example").await;
    wire.send("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n").await;
    assert_eq!(wire.response("GET").await.unwrap().text(), "a");
    let half = Folder::new().run(&["serve", "--to", &to, "--tls", cert]).await;
    assert_eq!(half.exit, Some(2));
    assert!(half.stderr.contains("write `--tls CERT KEY`"), "{}", half.stderr);
    let status = Folder::new().run(&["status", "--admin", &admin]).await;
    let line = "certificate shop.example  ";
    assert!(status.stdout.contains(line) && status.stdout.contains(" days left"), "{}", status.stdout);
}

#[tokio::test]
async fn every_flag_is_also_a_variable() {
    let folder = Folder::new();
    let flags = [
        ("--to", "PINTLE_TO", "10.0.0.1:9001,10.0.0.2:9002*2"),
        ("--listen", "PINTLE_LISTEN", "127.0.0.1:8081"),
        ("--policy", "PINTLE_POLICY", "least_time"),
        ("--health", "PINTLE_HEALTH", "/up"),
        ("--admin-bind", "PINTLE_ADMIN_BIND", "off"),
        ("--access-log", "PINTLE_ACCESS_LOG", "off"),
    ];
    let mut by_flags = folder.command(["serve", "--print-config", "--sticky"]);
    let mut by_variables = folder.command(["serve", "--print-config"]);
    by_variables.env("PINTLE_STICKY", "true");
    by_flags.args(["--tls", "a.crt", "a.key"]);
    by_variables.env("PINTLE_TLS", "a.crt,a.key");
    for (flag, variable, value) in flags {
        by_flags.args([flag, value]);
        by_variables.env(variable, value);
    }
    let (by_flags, by_variables) = (end(by_flags).await, end(by_variables).await);
    assert_eq!((by_flags.exit, by_variables.exit), (Some(0), Some(0)), "{by_variables:?}");
    assert_eq!(by_flags.stdout, by_variables.stdout);
    assert!(by_flags.stdout.contains(r#"tls.certificates = [{ cert = "a.crt", key = "a.key" }]"#));
    assert!(by_flags.stdout.contains("sticky_cookie") && by_flags.stdout.contains("weight = 2"));
}

#[tokio::test]
async fn flags_and_a_file_are_not_mixed() {
    let folder = Folder::new();
    folder.write("pintle.toml", "");
    let both = folder.run(&["serve", "--to", ":9001", "-c", "pintle.toml"]).await;
    assert_eq!(both.exit, Some(2));
    assert!(
        both.stderr.contains("`--to` is a whole configuration, and so is `-c pintle.toml`"),
        "{}",
        both.stderr
    );
    assert!(both.stderr.contains("help: "), "{}", both.stderr);
    let stray = folder.run(&["serve", "--sticky"]).await;
    assert_eq!(stray.exit, Some(2));
    assert!(
        stray.stderr.contains("`--sticky`") && stray.stderr.contains("begins with `--to`"),
        "{}",
        stray.stderr
    );
    let unknown = folder.run(&["serve", "--tow", ":9001"]).await;
    assert_eq!(unknown.exit, Some(2));
}

#[tokio::test]
async fn a_file_that_is_not_there_or_not_right_starts_nothing() {
    let folder = Folder::new();
    let missing = folder.run(&["serve", "-c", "nowhere.toml"]).await;
    assert_eq!(missing.exit, Some(3));
    assert!(missing.stderr.contains("nowhere.toml"), "{}", missing.stderr);
    let none = folder.run(&["serve"]).await;
    assert_eq!(none.exit, Some(2));
    assert!(none.stderr.contains("there is no `./pintle.toml`"), "{}", none.stderr);
    folder.write("bad.toml", "[pool.app]\nbackends = [\"127.0.0.1:9001\"]\npolcy = \"ip_hash\"\n");
    let bad = folder.run(&["serve", "-c", "bad.toml"]).await;
    assert_eq!((bad.exit, bad.stdout.as_str()), (Some(3), ""));
    assert!(
        bad.stderr.contains("bad.toml:3:1") && bad.stderr.contains("policy = \"ip_hash\""),
        "{}",
        bad.stderr
    );
}

#[tokio::test]
async fn the_file_in_the_folder_is_read_when_nothing_is_named() {
    let a = Backend::start("a").await;
    let folder = Folder::new();
    folder.write("pintle.toml", &folder.config(&pool(&[&a], "")));
    let socket = folder.path("admin.sock").display().to_string();
    let running = Running::start(folder, &["serve"], &socket).await;
    let doors = running.tells("listening: web at 127.0.0.1:").await;
    assert!(doors.contains(&format!("admin socket at {socket}")), "{doors}");
    assert_eq!(running.client().await.get("/").await.status, 200);
    // Commands in that folder find it by the file.
    let found = running.folder.run(&["status", "--json"]).await.json();
    assert_eq!(found["pid"], running.status().await["pid"]);
}

#[tokio::test]
async fn a_second_instance_on_the_same_address_is_refused() {
    let a = Backend::start("a").await;
    let listen = free();
    let text = |folder: &Folder| folder.config(&pool(&[&a], "")).replace("127.0.0.1:0", &listen.to_string());
    let folder = Folder::new();
    folder.write("pintle.toml", &text(&folder));
    let socket = folder.path("admin.sock").display().to_string();
    let _running = Running::start(folder, &["serve"], &socket).await;
    let other = Folder::new();
    other.write("pintle.toml", &text(&other));
    let second = other.run(&["serve"]).await;
    assert_eq!(second.exit, Some(1));
    let stderr = second.stderr.to_lowercase();
    assert!(stderr.contains(&format!("cannot listen on {listen}")) && stderr.contains("in use"), "{stderr}");
    assert!(!other.path("admin.sock").exists());
    for _ in 0..10 {
        assert_eq!(Client::new(listen).get("/").await.status, 200);
    }
}

#[tokio::test]
async fn the_admin_socket_is_its_owners_alone_and_a_dead_one_is_replaced() {
    let a = Backend::start("a").await;
    let folder = Folder::new();
    drop(UnixListener::bind(folder.path("admin.sock")).unwrap());
    assert!(folder.path("admin.sock").exists(), "what a killed process leaves behind");
    folder.write("pintle.toml", &folder.config(&pool(&[&a], "")));
    let socket = folder.path("admin.sock").display().to_string();
    let mut running = Running::start(folder, &["serve"], &socket).await;
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let second = running.folder.run(&["serve"]).await;
    assert_eq!(second.exit, Some(1));
    assert!(second.stderr.contains("admin.sock is in use"), "{}", second.stderr);
    assert_eq!(running.status().await["state"], "active", "the first one keeps it");

    running.signal(Signal::TERM);
    running.ends().await;
    assert!(!running.folder.path("admin.sock").exists(), "it is tidied away");
}

#[tokio::test]
async fn with_flags_the_file_in_the_folder_is_left_alone() {
    let a = Backend::start("a").await;
    let folder = Folder::new();
    folder.write("pintle.toml", "this is no TOML");
    let (to, listen, admin) = (list(&[&a]), free().to_string(), free().to_string());
    let arguments = ["serve", "--to", &to, "--listen", &listen, "--admin-bind", &admin];
    let mut running = Running::start(folder, &arguments, &admin).await;
    running.tells("`pintle.toml` is left alone").await;
    running.signal(Signal::TERM);
    assert!(running.ends().await.success());
}

#[tokio::test]
async fn a_self_signed_certificate_is_made_told_of_and_taken_away() {
    let a = Backend::start("a").await;
    let (to, listen, admin) = (list(&[&a]), free(), free().to_string());
    let at = listen.to_string();
    let arguments = ["serve", "--to", &to, "--listen", &at, "--admin-bind", &admin, "--tls-self-signed"];
    let mut running = Running::start(Folder::new(), &arguments, &admin).await;
    running.tells(&format!("try it: curl -k https://{listen}/")).await;

    let mut wire = TlsClient::new(listen).open("localhost").await;
    let shown = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &wire.shown());
    let shown: Vec<_> = shown.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    running.tells(&format!("its SHA-256 fingerprint: {}", shown.join(":"))).await;
    let names = running.tells("a certificate for this run: ").await;
    for name in ["localhost", "127.0.0.1", "::1"] {
        assert!(names.contains(name), "{names}");
    }
    wire.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(wire.response("GET").await.unwrap().text(), "a");

    // Its temporary directory is the test's folder.
    let entries = std::fs::read_dir(running.folder.path("")).unwrap().map(|entry| entry.unwrap().path());
    let made: Vec<_> = entries.filter(|path| path.display().to_string().contains("/pintle-tls-")).collect();
    let [folder] = &made[..] else { panic!("{made:?}") };
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(folder), mode(&folder.join("self-signed.key"))), (0o700, 0o600));

    // A reload finds it where it was.
    running.signal(Signal::HUP);
    running.tells("reloaded --to: generation 1 → 2").await;
    running.signal(Signal::TERM);
    drop(wire);
    assert!(running.ends().await.success());
    assert!(!folder.exists());
}

#[tokio::test]
async fn the_printed_config_of_a_self_signed_certificate_works_once_one_is_made() {
    let folder = Folder::new();
    let printed = folder.run(&["serve", "--to", ":9001", "--tls-self-signed", "--print-config"]).await;
    assert_eq!(printed.exit, Some(0));
    assert!(printed.stderr.contains("its certificate has to be made first"), "{}", printed.stderr);
    assert!(printed.stdout.contains("\n# openssl req -x509 "), "{}", printed.stdout);
    folder.write("pintle.toml", &printed.stdout);
    assert_eq!(folder.run(&["check"]).await.exit, Some(3), "it is not there yet");
    let keys = Keys::for_names(&["localhost"]);
    for file in ["crt", "key"] {
        let to = folder.path(&format!("self-signed.{file}"));
        std::fs::copy(keys.path(&format!("site.{file}")), to).unwrap();
    }
    let checked = folder.run(&["check"]).await;
    assert_eq!(checked.exit, Some(0), "{checked:?}");
}

#[tokio::test]
async fn one_certificate_is_given_or_made_but_not_both() {
    let folder = Folder::new();
    let mut command =
        folder.command(["serve", "--to", ":9001", "--tls", "site.crt", "site.key", "--print-config"]);
    command.env("PINTLE_TLS_SELF_SIGNED", "1");
    let both = end(command).await;
    assert_eq!(both.exit, Some(2));
    assert!(both.stderr.contains("`--tls` and `--tls-self-signed`"), "{}", both.stderr);
    let stray = folder.run(&["serve", "--tls-self-signed"]).await;
    assert_eq!(stray.exit, Some(2));
    assert!(stray.stderr.contains("`--tls-self-signed`"), "{}", stray.stderr);
}

#[tokio::test]
async fn https_in_to_is_tls_held_against_whom_the_system_trusts() {
    let (keys, a) = (Keys::new(), Backend::start("a").await);
    let authority = keys.authority("ca.pem");
    keys.signed("site", &["localhost"], &authority, (2020, 4000));
    let front = TlsFront::start(&keys, "site", &[("http/1.1", a.address)]).await;
    let (listen, admin, folder) = (free(), free().to_string(), Folder::new());
    let (to, at) = (format!("https://localhost:{}", front.address.port()), listen.to_string());
    let arguments = ["serve", "--to", &to, "--listen", &at, "--admin-bind", &admin];
    let trusting = |file: &str| {
        let mut command = folder.command(arguments);
        command.env("SSL_CERT_FILE", keys.path(file)).env_remove("SSL_CERT_DIR");
        command
    };
    let nobody = end(trusting("missing.pem")).await;
    assert_eq!(nobody.exit, Some(3), "{nobody:?}");
    assert!(nobody.stderr.contains("this system has no authorities"), "{}", nobody.stderr);
    let command = trusting("ca.pem");
    let _running = Running::spawn(folder, command, &admin).await;
    assert_eq!(Client::new(listen).get("/").await.text(), "a");
    assert_eq!(front.shaken(1).await.sni.as_deref(), Some("localhost"));
}
