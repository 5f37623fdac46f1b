//! From what is written to what is meant: defaults, references, and every check that needs more
//! than one value.
//!
//! Start at [`Compiler::plan`]. One file per part of the configuration; all of them report to the
//! same findings and go on, so that one run tells everything.

mod conflict;
mod listener;
mod pool;
mod route;
mod secret;
mod sticky;
mod tls;

pub(crate) use secret::bytes_of;

use std::path::{Path, PathBuf};

use super::findings::{Finding, Findings};
use super::place::Place;
use super::schema::{self, File};
use super::watch::ReadFile;
use crate::plan::{AccessLogPlan, AdminBind, AdminPlan, LogOutput, LogPlan, Plan, PoolPlan, ServerPlan};

pub(crate) struct Compiler<'a, 'f> {
    pub(crate) findings: &'f mut Findings<'a>,
    /// What relative paths are relative to.
    pub(crate) base: &'f Path,
    /// What is read besides the text, and to be watched.
    pub(crate) files: &'f mut Vec<ReadFile>,
}

impl Compiler<'_, '_> {
    /// The plan, which is worth something only when no error has been found.
    pub(crate) fn plan(&mut self, file: File) -> Plan {
        let top = Place::default();
        let server = self.server(file.server);
        let log = self.log(file.log);
        let admin = self.admin(file.admin, &top.at("admin"));
        let listeners = self.listeners(file.listener, &admin);
        let pools = self.pools(file.pool);
        let routes = self.routes(file.route, &pools);
        let plan = Plan { server, log, admin, listeners, routes, pools };
        self.across(&plan);
        plan
    }

    fn server(&self, server: schema::Server) -> ServerPlan {
        ServerPlan {
            state_dir: server.state_dir.map(|path| self.path(&path.value.0)),
            workers: server.workers,
            max_connections: server.max_connections,
            max_head_memory: usize::try_from(server.max_head_memory.value.0).unwrap_or(usize::MAX),
            watch: server.watch,
            trusted_proxies: server.trusted_proxies.into_iter().map(|net| net.value).collect(),
            client_ip_from: server.client_ip_from.0,
            drain_grace: server.drain_grace.map(|grace| grace.value),
            drain_timeout: server.drain_timeout.value,
        }
    }

    fn log(&self, log: schema::Log) -> LogPlan {
        let output = match log.access.output.value {
            LogOutput::File(path) => LogOutput::File(self.path(&path)),
            stream => stream,
        };
        LogPlan {
            level: log.level.value.0,
            format: log.format.0,
            access: AccessLogPlan {
                enabled: log.access.enabled,
                format: log.access.format.0,
                output,
                on_full: log.access.on_full.0,
            },
        }
    }

    fn admin(&mut self, admin: schema::Admin, place: &Place) -> AdminPlan {
        let place = place.at("token");
        let token = admin.token.and_then(|token| self.secret(&token, &place));
        if token.as_ref().is_some_and(|token| !token.0.iter().all(u8::is_ascii_graphic)) {
            let finding =
                Finding::error("secret", &place, "the token cannot stand in an Authorization header");
            self.findings.add(finding.label("printable ASCII without spaces"));
        }
        AdminPlan {
            socket: admin.socket.map(|path| self.path(&path.value.0)),
            bind: admin.bind.map_or(AdminBind::Default, |bind| bind.value),
            token,
            hosts: admin.hosts.into_iter().map(|host| host.value.0.to_ascii_lowercase()).collect(),
        }
    }

    fn path(&self, path: &Path) -> PathBuf {
        self.base.join(path)
    }

    /// What only the whole plan shows.
    fn across(&mut self, plan: &Plan) {
        self.cookies_do_not_meet(&plan.pools);
        self.cookies_reach_their_browser(plan);
        self.proxy_headers_are_trusted(plan);
        self.clients_are_told_apart(plan);
        self.pools_are_used(plan);
    }

    fn clients_are_told_apart(&mut self, plan: &Plan) {
        let public =
            plan.listeners.iter().flat_map(|listener| &listener.bind).any(|bind| !bind.ip().is_loopback());
        if !public || !plan.server.trusted_proxies.is_empty() {
            return;
        }
        let hashed = |pool: &&PoolPlan| !pool.sticky && pool.policy_name() == "ip_hash";
        for pool in plan.pools.iter().filter(hashed) {
            let place = pool_place(&pool.name).at("policy");
            let message = "ip_hash takes everybody behind one proxy for one client";
            self.findings.add(
                Finding::warning("client-address", &place, message)
                    .label("no `trusted_proxies` is set")
                    .say("behind another proxy: `trusted_proxies = [\"its address\"]` in [server]"),
            );
        }
    }

    fn pools_are_used(&mut self, plan: &Plan) {
        if self.findings.errors() > 0 {
            return;
        }
        for pool in &plan.pools {
            if !plan.routes.iter().any(|route| route::leads_to(route, &pool.name)) {
                let finding =
                    Finding::warning("unused", &pool_place(&pool.name), "no route leads to this pool");
                self.findings.add(finding.label("gets no requests"));
            }
        }
    }
}

fn pool_place(name: &str) -> Place {
    Place::default().at("pool").at(name)
}
