//! A stand-in for a running Pintle in tests: answers the calls it gets, in order, from a script.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::task::JoinHandle;

pub(super) struct Scripted {
    socket: PathBuf,
    serving: JoinHandle<Vec<String>>,
}

impl Scripted {
    pub(super) fn start(script: Vec<(u16, &'static str)>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("pintle-cli-{}-{}.sock", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let socket = std::env::temp_dir().join(name);
        let listener = UnixListener::bind(&socket).unwrap();
        let serving = tokio::spawn(async move {
            let mut seen = Vec::new();
            for (status, body) in script {
                let (mut stream, _) = listener.accept().await.unwrap();
                // Requests here are small enough to come in one piece.
                let mut request = vec![0; 4096];
                let length = stream.read(&mut request).await.unwrap();
                seen.push(String::from_utf8_lossy(&request[..length]).into_owned());
                let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            seen
        });
        Self { socket, serving }
    }

    /// What to give as `--admin`.
    pub(super) fn address(&self) -> String {
        self.socket.display().to_string()
    }

    /// The requests as they came, once the script is played.
    pub(super) async fn finish(mut self) -> Vec<String> {
        (&mut self.serving).await.unwrap()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.serving.abort();
        let _ = std::fs::remove_file(&self.socket);
    }
}
