//! Where a request goes: hosts, paths, methods, and what a route does by itself.

use crate::support::{Ask, Backend, Config, Proxy, Reply};

#[tokio::test]
async fn a_request_goes_to_the_backend_and_its_answer_comes_back() {
    let backend = Backend::start("a").await;
    backend.answer(|request| Reply::text(format!("{} {}", request.method, request.text())));
    let proxy = Proxy::over(&[&backend]).await;
    let answer = proxy.client().post("/x", "body").await;
    assert_eq!((answer.status, answer.served_by(), answer.text()), (200, "a", "POST body".to_owned()));
    assert_eq!(backend.received(1).await.target, "/x");
}

#[tokio::test]
async fn an_unknown_place_is_a_404_that_names_host_and_path() {
    let backend = Backend::start("a").await;
    let config =
        Config::app(&[&backend], "").route("hosts = [\"known.example\"]\npath = \"/in\"\npool = \"app\"");
    let proxy = Proxy::start(config).await;
    let answer = proxy.client().ask(Ask::get("/out?q=1").header("Host", "other.example:81")).await;
    assert_eq!(answer.status, 404);
    let text = answer.text();
    assert!(
        text.contains("404 no_route") && text.contains("`other.example`") && text.contains("`/out`"),
        "{text}"
    );
    assert!(text.contains(answer.header("x-request-id").unwrap()), "{text}");
    assert_eq!(backend.count(), 0);
}
