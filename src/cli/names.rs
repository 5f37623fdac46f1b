//! From what somebody typed to the backend or pool that is meant.
//!
//! A name is found by itself, by an ending that begins at a border (`9001` of `127.0.0.1:9001`,
//! not of `127.0.0.1:19001`), or by any ending; the best of these that fits anything decides, and
//! it must fit one thing only.

use super::outcome::Failure;
use crate::admin::view::{BackendView, PoolView, Status};

/// The backend meant by `app/a2`, `app/9001` or `a2`.
pub fn backend<'a>(status: &'a Status, typed: &str) -> Result<&'a BackendView, Failure> {
    let (pool, name) = typed.split_once('/').map_or((None, typed), |(pool, name)| (Some(pool), name));
    let all: Vec<&BackendView> = status.pools.iter().flat_map(|pool| &pool.backends).collect();
    let rank = |backend: &&BackendView| {
        let pool = pool.map_or(Some(0), |typed| rank(&backend.pool, typed))?;
        Some((rank(&backend.name, name)?, pool))
    };
    let full = |backend: &BackendView| format!("{}/{}", backend.pool, backend.name);
    one("backend", typed, &all, |backend| full(backend), rank)
}

pub fn pool<'a>(status: &'a Status, typed: &str) -> Result<&'a PoolView, Failure> {
    let all: Vec<&PoolView> = status.pools.iter().collect();
    one("pool", typed, &all, |pool| pool.name.clone(), |pool| rank(&pool.name, typed))
}

/// How well an ending fits a name: 0 is the whole of it. `None` is not at all.
fn rank(name: &str, typed: &str) -> Option<u8> {
    let rest = name.strip_suffix(typed).filter(|_| !typed.is_empty())?;
    Some(match rest.chars().next_back() {
        None => 0,
        Some(last) if !last.is_alphanumeric() => 1,
        Some(_) => 2,
    })
}

fn one<'a, T, R: Ord>(
    kind: &str,
    typed: &str,
    all: &[&'a T],
    full: impl Fn(&T) -> String,
    rank: impl Fn(&&'a T) -> Option<R>,
) -> Result<&'a T, Failure> {
    let best = all.iter().filter_map(&rank).min();
    let fits: Vec<&T> = all.iter().filter(|thing| best.is_some() && rank(thing) == best).copied().collect();
    let names = |things: &[&T]| things.iter().map(|thing| full(thing)).collect::<Vec<_>>();
    match fits[..] {
        [only] => Ok(only),
        [] => Err(unknown(kind, typed, &names(all))),
        _ => Err(Failure::failed(format!("`{typed}` could be any of {}", listed(&names(&fits))))
            .help("type more of the name")),
    }
}

fn unknown(kind: &str, typed: &str, names: &[String]) -> Failure {
    let failure = Failure::failed(format!("there is no {kind} `{typed}`"));
    // What follows the slash says more than the pool before it.
    let likeness = |name: &str| {
        let tail = |name: &str| name.rsplit('/').next().map(str::to_owned).unwrap_or_default();
        strsim::jaro_winkler(name, typed).max(strsim::jaro_winkler(&tail(name), &tail(typed)))
    };
    let closest = names.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match closest.filter(|name| likeness(name) > 0.8) {
        Some(name) => failure.help(format!("did you mean `{name}`? `pintle status` shows all")),
        None if names.is_empty() => failure,
        None => failure.help(format!("there are {}", listed(names))),
    }
}

/// A few names, and how many more.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 8;
    let shown = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN { format!("{shown} and {} more", names.len() - SHOWN) } else { shown }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    fn found(typed: &str) -> String {
        let status = samples::status(&[
            ("app", &["127.0.0.1:9001", "127.0.0.1:19001", "a2", "b-a2"]),
            ("chat", &["a2", "10.0.0.7:7000"]),
        ]);
        match backend(&status, typed) {
            Ok(backend) => format!("{}/{}", backend.pool, backend.name),
            Err(failure) => format!("{}; {}", failure.message, failure.help.unwrap_or_default()),
        }
    }

    #[test]
    fn a_whole_name_beats_an_ending_and_a_border_beats_any_ending() {
        assert_eq!(found("app/a2"), "app/a2");
        assert_eq!(found("app/9001"), "app/127.0.0.1:9001");
        assert_eq!(found("19001"), "app/127.0.0.1:19001");
        assert_eq!(found("t/a2"), "chat/a2");
        assert_eq!(found("000"), "chat/10.0.0.7:7000");
    }

    #[test]
    fn an_ambiguous_ending_names_the_candidates() {
        assert_eq!(found("a2"), "`a2` could be any of `app/a2`, `chat/a2`; type more of the name");
        assert_eq!(
            found("app/01"),
            "`app/01` could be any of `app/127.0.0.1:9001`, `app/127.0.0.1:19001`; type more of the name"
        );
    }

    #[test]
    fn an_unknown_name_gets_the_likeliest_one() {
        assert_eq!(
            found("app/a3"),
            "there is no backend `app/a3`; did you mean `app/a2`? `pintle status` shows all"
        );
        assert!(found("zzz").ends_with("there are `app/127.0.0.1:9001`, `app/127.0.0.1:19001`, `app/a2`, `app/b-a2`, `chat/a2`, `chat/10.0.0.7:7000`"));
        assert!(found("app/").starts_with("there is no backend `app/`"));
    }

    #[test]
    fn pools_are_found_the_same_way() {
        let status = samples::status(&[("app", &["a"]), ("app-next", &["b"])]);
        assert_eq!(pool(&status, "app").unwrap().name, "app");
        assert_eq!(pool(&status, "next").unwrap().name, "app-next");
        assert_eq!(
            pool(&status, "apq").unwrap_err().help.unwrap(),
            "did you mean `app`? `pintle status` shows all"
        );
    }
}
