//! A file to start the balancer with: what every test shares, and what one test adds.

use std::fmt::Write as _;
use std::path::Path;

use super::backend::Backend;

/// Starts with two data threads, one listener on a free port, an admin address and a log file.
#[derive(Clone, Default)]
pub struct Config {
    server: String,
    listener: String,
    log: String,
    text: String,
}

impl Config {
    /// A pool named `app`, with further lines such as `policy = "least_conn"`.
    pub fn app(backends: &[&Backend], lines: &str) -> Self {
        Self::default().pool("app", backends, lines)
    }

    pub fn pool(self, name: &str, backends: &[&Backend], lines: &str) -> Self {
        let backends: Vec<_> = backends.iter().map(|backend| backend.toml("")).collect();
        self.pool_of(name, &backends, lines)
    }

    /// A pool whose backends are written out, each as [`Backend::toml`] does.
    pub fn pool_of(self, name: &str, backends: &[String], lines: &str) -> Self {
        self.text(&format!("[pool.{name}]\nbackends = [{}]\n{lines}\n", backends.join(", ")))
    }

    /// Lines of `[server]`.
    pub fn server(mut self, lines: &str) -> Self {
        writeln!(self.server, "{lines}").unwrap();
        self
    }

    /// Lines of `[listener.web]`.
    pub fn listener(mut self, lines: &str) -> Self {
        writeln!(self.listener, "{lines}").unwrap();
        self
    }

    /// Lines of `[log.access]`.
    pub fn log(mut self, lines: &str) -> Self {
        writeln!(self.log, "{lines}").unwrap();
        self
    }

    /// Lines of one more `[[route]]`.
    pub fn route(self, lines: &str) -> Self {
        self.text(&format!("[[route]]\n{lines}\n"))
    }

    /// Whole tables.
    pub fn text(mut self, text: &str) -> Self {
        writeln!(self.text, "{text}").unwrap();
        self
    }

    pub fn render(&self, folder: &Path) -> String {
        let Self { server, listener, log, text } = self;
        let workers = if server.contains("workers") { "" } else { "workers = 2\n" };
        let output = folder.join("access.log");
        format!(
            "[server]\n{workers}{server}\n[log.access]\nformat = \"json\"\noutput = {output:?}\n{log}\
             [admin]\nbind = \"127.0.0.1:0\"\n[listener.web]\nbind = \"127.0.0.1:0\"\n{listener}\n{text}"
        )
    }
}

impl From<&str> for Config {
    fn from(text: &str) -> Self {
        Self::default().text(text)
    }
}
