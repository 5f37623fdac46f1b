//! What a balancer does by itself in its first moments.

use std::time::Duration;

use pintle::app::{Options, Pintle, Source};

/// Longer than the watcher takes to look at a file twice.
const A_FEW_LOOKS: Duration = Duration::from_millis(900);

#[tokio::test]
async fn a_file_that_nobody_touched_is_not_reloaded() {
    let path = std::env::temp_dir().join(format!("pintle-start-{}.toml", std::process::id()));
    std::fs::write(&path, "[listener.web]\nbind = '127.0.0.1:0'\n[pool.app]\nbackends = ['127.0.0.1:9']\n")
        .unwrap();
    let pintle = Pintle::start(Source::File(path.clone()), Options::default()).await.unwrap();
    tokio::time::sleep(A_FEW_LOOKS).await;
    let untouched = pintle.status().await.unwrap();
    pintle.shutdown().await;
    std::fs::remove_file(&path).unwrap();
    assert_eq!((untouched.generation, untouched.last_reload), (1, None));
}
