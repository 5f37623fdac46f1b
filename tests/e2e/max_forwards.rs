//! OPTIONS, and how far it may go.

use crate::support::{Ask, Backend, Proxy};

#[tokio::test]
async fn options_that_may_go_no_further_is_answered_here() {
    let a = Backend::start("a").await;
    let proxy = Proxy::over(&[&a]).await;
    let mut client = proxy.client();
    for target in ["*", "/x"] {
        let ask = Ask::new("OPTIONS", target).header("Max-Forwards", "0");
        let answer = client.ask(ask).await;
        assert_eq!((answer.status, answer.served_by(), answer.body.len()), (204, "", 0), "{target}");
        assert!(answer.header("allow").unwrap().split(", ").any(|method| method == "OPTIONS"));
        assert_eq!(answer.header("content-length"), None);
    }
    assert_eq!((a.count(), client.get("/").await.status), (0, 200), "the connection goes on");
    let line = &proxy.logged(1).await[0];
    assert_eq!((line["method"].as_str(), line["status"].as_u64()), (Some("OPTIONS"), Some(204)));
}

#[tokio::test]
async fn options_is_passed_on_with_one_hop_less() {
    let a = Backend::start("a").await;
    let proxy = Proxy::over(&[&a]).await;
    let mut client = proxy.client();
    for (n, (method, said, passed)) in
        [("OPTIONS", "2", "1"), ("OPTIONS", "1", "0"), ("OPTIONS", "many", "many"), ("GET", "0", "0")]
            .into_iter()
            .enumerate()
    {
        let answer = client.ask(Ask::new(method, "/").header("Max-Forwards", said)).await;
        assert_eq!(answer.served_by(), "a", "{method} {said}");
        assert_eq!(a.seen(n + 1).await.header("max-forwards"), Some(passed), "{method} {said}");
    }
}
