//! The hosts of the routes that ask for one scheme, or for none: exact, then the longest suffix,
//! then any.

use std::collections::HashMap;

use ::http::Method;

use super::paths::Paths;
use crate::plan::{HostPattern, PathPattern};

#[derive(Debug, Default)]
pub(super) struct Hosts {
    exact: HashMap<Box<str>, Paths>,
    suffix: HashMap<Box<str>, Paths>,
    any: Paths,
}

impl Hosts {
    pub(super) fn insert(
        &mut self,
        hosts: Vec<HostPattern>,
        path: &PathPattern,
        methods: &[Method],
        target: usize,
    ) {
        if hosts.is_empty() {
            self.any.insert(path, methods, target);
        }
        for host in hosts {
            let paths = match host {
                HostPattern::Exact(name) => self.exact.entry(name.into()).or_default(),
                HostPattern::Suffix(name) => self.suffix.entry(name.into()).or_default(),
            };
            paths.insert(path, methods, target);
        }
    }

    /// `host` in lower case; `None` fits no pattern.
    pub(super) fn find(&self, host: Option<&str>, path: &str, method: &Method) -> Option<usize> {
        host.and_then(|host| self.find_named(host, path, method)).or_else(|| self.any.find(path, method))
    }

    fn find_named(&self, host: &str, path: &str, method: &Method) -> Option<usize> {
        if self.exact.is_empty() && self.suffix.is_empty() {
            return None;
        }
        if let Some(target) = self.exact.get(host).and_then(|paths| paths.find(path, method)) {
            return Some(target);
        }
        if self.suffix.is_empty() {
            return None;
        }
        // From the left, so that the longest suffix comes first.
        let dots = host.match_indices('.').filter(|(at, _)| *at > 0);
        dots.filter_map(|(at, _)| self.suffix.get(&host[at + 1..])).find_map(|paths| paths.find(path, method))
    }
}
