//! The paths of one host: a tree of segments, walked once from the left.
//!
//! Start at [`Paths::find`]. Work is bounded by the depth of what is configured, never by the
//! number of slashes in a request. Targets are indices; what they stand for is the router's.

use ::http::Method;

use crate::plan::PathPattern;

#[derive(Debug, Default)]
pub(super) struct Paths {
    root: Node,
}

/// One border between segments: the root, or the end of a segment.
#[derive(Debug, Default)]
struct Node {
    /// `=/a`: the path ends here.
    exact: Choices,
    /// `/a`: the path ends here or goes on with a slash.
    here: Choices,
    /// `/a/`: the path goes on with a slash. Longer than `here`, so it is preferred.
    below: Choices,
    /// Sorted by segment.
    children: Vec<(Box<str>, Node)>,
}

/// Who takes which method at one place.
#[derive(Debug, Default)]
struct Choices {
    named: Vec<(Method, usize)>,
    any: Option<usize>,
}

impl Paths {
    pub(super) fn insert(&mut self, path: &PathPattern, methods: &[Method], target: usize) {
        let choices = match path {
            PathPattern::Exact(path) => &mut self.root.descend(path).exact,
            PathPattern::Prefix(path) => match path.strip_suffix('/') {
                Some(parent) => &mut self.root.descend(parent).below,
                None => &mut self.root.descend(path).here,
            },
        };
        choices.insert(methods, target);
    }

    /// The target of the most specific pattern that fits path and method. `/` fits every path,
    /// `*` included; `/a/` does not fit `/a`.
    pub(super) fn find(&self, path: &str, method: &Method) -> Option<usize> {
        let mut node = &self.root;
        let mut rest = path;
        let mut best = self.root.below.of(method);
        loop {
            if rest.is_empty() {
                return node.exact.of(method).or_else(|| node.here.of(method)).or(best);
            }
            let Some(tail) = rest.strip_prefix('/') else { return best };
            best = node.below.of(method).or_else(|| node.here.of(method)).or(best);
            let segment = tail.split('/').next().unwrap_or(tail);
            let Some(child) = node.child(segment) else { return best };
            (node, rest) = (child, &tail[segment.len()..]);
        }
    }
}

impl Node {
    fn child(&self, segment: &str) -> Option<&Self> {
        let at = self.children.binary_search_by(|(name, _)| (**name).cmp(segment)).ok()?;
        Some(&self.children[at].1)
    }

    /// The node at `path`, made where it is missing; `path` is empty or begins with a slash.
    fn descend(&mut self, path: &str) -> &mut Self {
        path.split('/').skip(1).fold(self, |node, segment| {
            let at = match node.children.binary_search_by(|(name, _)| (**name).cmp(segment)) {
                Ok(at) => at,
                Err(at) => {
                    node.children.insert(at, (segment.into(), Self::default()));
                    at
                }
            };
            &mut node.children[at].1
        })
    }
}

impl Choices {
    fn insert(&mut self, methods: &[Method], target: usize) {
        if methods.is_empty() {
            self.any.get_or_insert(target);
        }
        for method in methods {
            if !self.named.iter().any(|(named, _)| named == method) {
                self.named.push((method.clone(), target));
            }
        }
    }

    fn of(&self, method: &Method) -> Option<usize> {
        let named = self.named.iter().find(|(named, _)| named == method);
        named.map(|(_, target)| *target).or(self.any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::http::Uri;

    fn paths(patterns: &[&str]) -> Paths {
        let mut paths = Paths::default();
        for (index, pattern) in patterns.iter().enumerate() {
            let pattern = match pattern.strip_prefix('=') {
                Some(exact) => PathPattern::Exact(exact.to_owned()),
                None => PathPattern::Prefix((*pattern).to_owned()),
            };
            paths.insert(&pattern, &[], index);
        }
        paths
    }

    fn found<'a>(patterns: &[&'a str], path: &str) -> Option<&'a str> {
        paths(patterns).find(path, &Method::GET).map(|index| patterns[index])
    }

    #[test]
    fn a_prefix_matches_on_segment_borders_only() {
        for (pattern, fits, misses) in [
            ("/a", vec!["/a", "/a/", "/a/b", "/a//"], vec!["/ab", "/", "/b/a", "*"]),
            ("/a/", vec!["/a/", "/a/b", "/a//b"], vec!["/a", "/ab", "/"]),
            ("/", vec!["/", "/a", "//", "/a/b", "*"], vec![]),
            ("//", vec!["//", "//a"], vec!["/", "/a"]),
            ("/a//b", vec!["/a//b", "/a//b/c"], vec!["/a/b"]),
            ("=/a", vec!["/a"], vec!["/a/", "/a/b", "/"]),
            ("=/a/", vec!["/a/"], vec!["/a", "/a/b"]),
            ("=/", vec!["/"], vec!["//", "/a", "*"]),
        ] {
            for path in fits {
                assert_eq!(found(&[pattern], path), Some(pattern), "{pattern} {path}");
            }
            for path in misses {
                assert_eq!(found(&[pattern], path), None, "{pattern} {path}");
            }
        }
    }

    #[test]
    fn an_exact_path_wins_and_then_the_longest_prefix() {
        let table = ["/", "/a", "/a/", "/a/b", "=/a/b", "/a/b/c/d"];
        for (path, expected) in [
            ("/", "/"),
            ("/x", "/"),
            ("/a", "/a"),
            ("/a/", "/a/"),
            ("/a/x", "/a/"),
            ("/a/b", "=/a/b"),
            ("/a/b/", "/a/b"),
            ("/a/b/c", "/a/b"),
            ("/a/b/c/d/e", "/a/b/c/d"),
        ] {
            assert_eq!(found(&table, path), Some(expected), "{path}");
        }
    }

    #[test]
    fn a_route_that_names_the_method_wins_on_its_path_only() {
        let mut paths = Paths::default();
        let prefix = |path: &str| PathPattern::Prefix(path.to_owned());
        paths.insert(&prefix("/"), &[Method::POST], 0);
        paths.insert(&prefix("/a"), &[], 1);
        paths.insert(&prefix("/a"), &[Method::GET, Method::PUT], 2);
        paths.insert(&prefix("/a/b"), &[Method::DELETE], 3);
        assert_eq!(paths.find("/a", &Method::GET), Some(2));
        assert_eq!(paths.find("/a", &Method::POST), Some(1));
        assert_eq!(paths.find("/a/b", &Method::PUT), Some(2));
        assert_eq!(paths.find("/a/b", &Method::DELETE), Some(3));
        assert_eq!(paths.find("/x", &Method::POST), Some(0));
        assert_eq!(paths.find("/x", &Method::GET), None);
    }

    /// What is matched is what is sent: a route that guards `/admin` is not reached, nor passed by,
    /// through a spelling that only a later reader would resolve, and the URI goes out unchanged.
    #[test]
    fn encoded_dotted_and_cased_paths_are_matched_as_they_are_sent() {
        let table = ["/", "/admin", "/app", "/a%2Fb"];
        for (path, expected) in [
            ("/admin", "/admin"),
            ("/admin/x", "/admin"),
            ("/Admin", "/"),
            ("/%61dmin", "/"),
            ("/admin%2Fx", "/"),
            ("/admin%2fx", "/"),
            ("/app/../admin", "/app"),
            ("/app/%2e%2e/admin", "/app"),
            ("/app/..%2fadmin", "/app"),
            ("/./admin", "/"),
            ("//admin", "/"),
            ("/admin;x", "/"),
            ("/admin\\x", "/"),
            ("/admin/..;/x", "/admin"),
            ("/a%2Fb/c", "/a%2Fb"),
            ("/a%2fb", "/"),
            ("/a/b", "/"),
        ] {
            assert_eq!(found(&table, path), Some(expected), "{path}");
            let sent = path.parse::<Uri>().unwrap().to_string();
            assert_eq!((found(&table, &sent), sent.as_str()), (Some(expected), path));
        }
    }

    #[test]
    fn a_path_of_slashes_alone_costs_no_more_than_the_tree_is_deep() {
        let long = "/".repeat(16 * 1024);
        assert_eq!(found(&["/", "///"], &long), Some("///"));
    }
}
