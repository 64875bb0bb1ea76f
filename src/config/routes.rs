//! Which route a host and path belong to.
//!
//! The lookup is indexed by host and by path segment: each spelling of a path costs one walk over the segments that it
//! shares with a route, however many routes there are.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use super::model::Route;

/// The routes and their index.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    all: Vec<Arc<Route>>,
    exact: HashMap<String, Paths>,
    suffixes: HashMap<String, Paths>,
    /// Length of the longest key of `suffixes`: longer endings of a host are not looked up.
    longest_suffix: usize,
    any: Paths,
}

impl Routes {
    /// Builds the index.
    pub fn new(all: Vec<Arc<Route>>) -> Self {
        let mut routes = Self::default();
        for (index, route) in all.iter().enumerate() {
            for host in &route.hosts {
                let paths = match host {
                    HostPattern::Exact(host) => routes.exact.entry(host.clone()).or_default(),
                    HostPattern::Suffix(suffix) => {
                        routes.longest_suffix = routes.longest_suffix.max(suffix.len());
                        routes.suffixes.entry(suffix.clone()).or_default()
                    }
                    HostPattern::Any => &mut routes.any,
                };
                paths.insert(&route.path, route.ignore_case, index);
            }
        }
        Self { all, ..routes }
    }

    /// Returns the most specific route: the exact host before the longest suffix before any host, then the longest path.
    ///
    /// A host without a route for the path leaves it to the less specific hosts. `host` is in lower case.
    pub fn find(&self, host: &str, path: &str) -> Option<&Arc<Route>> {
        self.find_counted(host, path, &mut 0)
    }

    /// `steps` is raised by one for each lookup in a map.
    fn find_counted(&self, host: &str, path: &str, steps: &mut usize) -> Option<&Arc<Route>> {
        let mut find = |paths: Option<&Paths>| {
            *steps += 1;
            paths.and_then(|paths| paths.find(path, steps)).and_then(|index| self.all.get(index))
        };
        // An ending that is longer than all suffixes begins before this byte.
        let first = host.len().saturating_sub(self.longest_suffix + 1);
        let tail = host.get(first..).unwrap_or_default();
        let dots = tail.match_indices('.').filter(|(at, _)| first + at > 0);
        let mut endings = dots.filter_map(|(at, dot)| tail.get(at + dot.len()..));
        find(self.exact.get(host))
            .or_else(|| endings.find_map(|ending| find(self.suffixes.get(ending))))
            .or_else(|| find(Some(&self.any)))
    }

    /// All of them, in the order of the file.
    pub fn all(&self) -> &[Arc<Route>] {
        &self.all
    }
}

/// Which hosts a route takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// This one.
    Exact(String),
    /// Every host below this one: `*.example.com`.
    Suffix(String),
    /// Every host.
    Any,
}

/// The paths of one host pattern.
#[derive(Clone, Debug, Default)]
struct Paths {
    cased: Node,
    /// Those that ignore case, in lower case.
    uncased: Node,
}

/// One segment of configured paths.
#[derive(Clone, Debug, Default)]
struct Node {
    /// The route whose path ends with this segment.
    here: Option<usize>,
    /// The route whose path ends with the slash after it.
    below: Option<usize>,
    children: HashMap<String, Node>,
}

/// An index of a route, and how long its path is.
type Hit = (usize, usize);

impl Paths {
    fn insert(&mut self, path: &str, ignore_case: bool, index: usize) {
        let (root, path) = if ignore_case {
            (&mut self.uncased, Cow::Owned(path.to_ascii_lowercase()))
        } else {
            (&mut self.cased, Cow::Borrowed(path))
        };
        let mut node = root;
        let mut segments = path.strip_prefix('/').unwrap_or(&path).split('/').peekable();
        while let Some(segment) = segments.next() {
            if segment.is_empty() && segments.peek().is_none() {
                node.below.get_or_insert(index);
                return;
            }
            node = node.children.entry(segment.to_owned()).or_default();
        }
        node.here.get_or_insert(index);
    }

    fn find(&self, path: &str, steps: &mut usize) -> Option<usize> {
        let cased = self.cased.find(path, steps);
        if self.uncased.is_empty() {
            return cased.map(|(index, _)| index);
        }
        let lower = if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(path.to_ascii_lowercase())
        } else {
            Cow::Borrowed(path)
        };
        let uncased = self.uncased.find(&lower, steps);
        let longest = cased.into_iter().chain(uncased).max_by_key(|(_, length)| *length);
        longest.map(|(index, _)| index)
    }
}

impl Node {
    fn is_empty(&self) -> bool {
        self.here.is_none() && self.below.is_none() && self.children.is_empty()
    }

    /// The longest configured path that `path` begins with, on a segment border.
    fn find(&self, path: &str, steps: &mut usize) -> Option<Hit> {
        let mut rest = path.strip_prefix('/')?;
        let mut node = self;
        let mut best = node.below.map(|index| (index, 1));
        loop {
            let (segment, after) = rest.split_once('/').map_or((rest, None), |(segment, after)| (segment, Some(after)));
            *steps += 1;
            let Some(child) = node.children.get(segment) else { return best };
            node = child;
            let end = path.len() - after.map_or(0, |after| after.len() + 1);
            best = node.here.map(|index| (index, end)).or(best);
            let Some(after) = after else { return best };
            best = node.below.map(|index| (index, end + 1)).or(best);
            rest = after;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        config::{
            model::{Endpoint, HostHeader, OtherUpgrades, PathReading, Protocol, Upstream},
            route_limits::RouteLimits,
        },
        protocol::{origin::OriginPolicy, websocket::Waivers},
    };

    /// A path that ends with `(?i)` ignores case.
    fn routes(rules: &[(&str, &str)]) -> Routes {
        let upstream = Arc::new(Upstream {
            name: "u".into(),
            endpoint: Endpoint::BuiltinEcho,
            dial_timeout: Duration::from_secs(1),
            response_timeout: None,
            body_timeout: None,
            event_stream_timeout: None,
            host_header: HostHeader::Preserve,
            paths: PathReading::Any,
            protocol: Protocol::Http1,
            proxy_protocol: None,
            pool_idle_timeout: Duration::from_secs(1),
            pool_max_idle: 1,
        });
        let route = |(host, path): &(&str, &str)| {
            let pattern = match host.strip_prefix("*.") {
                _ if *host == "*" => HostPattern::Any,
                Some(suffix) => HostPattern::Suffix(suffix.into()),
                None => HostPattern::Exact((*host).into()),
            };
            let bare = path.strip_suffix("(?i)");
            Arc::new(Route {
                name: format!("{host}{path}"),
                hosts: vec![pattern],
                path: bare.unwrap_or(path).to_string(),
                ignore_case: bare.is_some(),
                upstream: Arc::clone(&upstream),
                websocket: true,
                other_upgrades: OtherUpgrades::Drop,
                waivers: Waivers::default(),
                origin: OriginPolicy::default(),
                limits: RouteLimits::default(),
                relay: Arc::default(),
            })
        };
        Routes::new(rules.iter().map(route).collect())
    }

    #[test]
    fn the_most_specific_route_wins_on_segment_borders() {
        let routes = routes(&[
            ("*", "/"),
            ("*.example.com", "/"),
            ("*.b.example.com", "/"),
            ("a.example.com", "/app"),
            ("a.example.com", "/app/deep"),
            ("c.test", "/dir/"),
        ]);
        for (host, path, expected) in [
            ("other", "/x", Some("*/")),
            ("z.example.com", "/x", Some("*.example.com/")),
            ("example.com", "/x", Some("*/")),
            ("evilexample.com", "/x", Some("*/")),
            ("a.b.example.com", "/x", Some("*.b.example.com/")),
            ("a.example.com", "/app", Some("a.example.com/app")),
            ("a.example.com", "/app/", Some("a.example.com/app")),
            ("a.example.com", "/app/deep/er", Some("a.example.com/app/deep")),
            ("a.example.com", "/app/deeper", Some("a.example.com/app")),
            ("a.example.com", "/apple", Some("*.example.com/")),
            ("c.test", "/dir", Some("*/")),
            ("c.test", "/dir/x", Some("c.test/dir/")),
        ] {
            assert_eq!(routes.find(host, path).map(|route| route.name.as_str()), expected, "{host}{path}");
        }
        assert!(routes.all().len() == 6);
    }

    #[test]
    fn a_route_that_ignores_case_takes_all_cases_of_its_path() {
        let routes = routes(&[("*", "/"), ("*", "/api/Admin(?i)"), ("*", "/api"), ("a.test", "/Dir/(?i)")]);
        for (host, path, expected) in [
            ("x", "/api/admin", Some("*/api/Admin(?i)")),
            ("x", "/API/ADMIN/x", Some("*/api/Admin(?i)")),
            ("x", "/api/administrator", Some("*/api")),
            ("x", "/API/other", Some("*/")),
            ("a.test", "/dIR/x", Some("a.test/Dir/(?i)")),
            ("a.test", "/dir", Some("*/")),
        ] {
            assert_eq!(routes.find(host, path).map(|route| route.name.as_str()), expected, "{host}{path}");
        }
    }

    /// The rule that the index stands for, by comparing with every route.
    fn slowly<'a>(rules: &[(&'a str, &'a str)], host: &str, path: &str) -> Option<String> {
        let takes = |(pattern, prefix): &&(&str, &str)| {
            let host = match pattern.strip_prefix('*') {
                Some(suffix) => host.ends_with(suffix) && host.len() > suffix.len(),
                None => host == *pattern,
            };
            let rest = path.strip_prefix(*prefix);
            host && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || prefix.ends_with('/'))
        };
        let rank = |(pattern, prefix): &&(&str, &str)| (!pattern.starts_with('*'), pattern.len(), prefix.len());
        rules.iter().filter(takes).max_by_key(rank).map(|(host, path)| format!("{host}{path}"))
    }

    #[test]
    fn the_index_finds_what_comparing_with_every_route_finds() {
        let hosts = ["*", "*.test", "*.a.test", "a.test", "b.a.test", "c.b.a.test", "other"];
        let paths = ["/", "/a", "/a/", "/a/b", "/a/b/", "/a/b/c", "/b", "/ab"];
        let all: Vec<(&str, &str)> = hosts.iter().flat_map(|host| paths.map(|path| (*host, path))).collect();
        for kept in 1..40usize {
            // Another part of them each time; neither number divides the other.
            let rules: Vec<_> =
                all.iter().enumerate().filter(|(at, _)| at * 7 % 41 < kept).map(|(_, rule)| *rule).collect();
            let index = routes(&rules);
            for host in ["a.test", "b.a.test", "c.b.a.test", "d.c.b.a.test", "test", "xa.test", "other", "y"] {
                for path in ["/", "/a", "/a/", "/a/b", "/a/b/", "/a/b/x", "/a/bc", "/abc", "/b/a", "//a", "/a//b", ""] {
                    let found = index.find(host, path).map(|route| route.name.clone());
                    assert_eq!(found, slowly(&rules, host, path), "{kept} {host}{path}");
                }
            }
        }
    }

    #[test]
    fn lookups_do_not_grow_with_the_routes_nor_with_what_no_route_has() {
        let paths: Vec<String> = (0..2000).map(|number| format!("/team/{number}/app")).collect();
        let names: Vec<String> = (0..2000).map(|number| format!("*.h{number}.test")).collect();
        let mut rules: Vec<(&str, &str)> = paths.iter().map(|path| ("*", path.as_str())).collect();
        rules.extend(names.iter().map(|host| (host.as_str(), "/x")));
        let index = routes(&rules);
        for (host, path, most) in [
            ("gate.test", "/team/1999/app/room".to_owned(), 8),
            ("gate.test", "/a".repeat(30_000), 5),
            ("gate.test", "/".repeat(60_000), 5),
            (&"a.".repeat(30_000), "/team".to_owned(), 16),
        ] {
            let mut steps = 0;
            index.find_counted(host, &path, &mut steps);
            assert!(steps <= most, "{steps} for {host:.20}{path:.20}");
        }
    }
}
