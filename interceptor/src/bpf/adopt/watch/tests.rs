use interceptor_common::{STATE_REFUSED, STATE_STEERED};

use super::{Watched, entries, path_key};
use crate::bpf::adopt::{Number, State};

fn whole(path: &str, workload: Number) -> Watched {
    Watched { path: path.into(), level: None, workload, state: State::Steered }
}

fn begins(path: &str, level: u32, workload: Number) -> Watched {
    Watched { path: path.into(), level: Some(level), workload, state: State::Refused }
}

/// Whose it is, what becomes of it, and the levels, a bit for each.
fn told(watched: &[Watched], path: &str, is_whole: bool) -> (Number, u32, u16) {
    let raw = entries(watched).unwrap().1[&path_key(path, is_whole).unwrap()];
    (raw.workload, raw.state.into(), raw.levels)
}

#[test]
fn only_the_level_at_which_something_may_fit_is_looked_for() {
    let watched = [whole("/a/b/c", 1), begins("/a/user-", 5, 1)];
    assert_eq!(entries(&watched).unwrap().0, (1 << 3) | (1 << 5));
    assert_eq!(told(&watched, "/a/b/c", true), (1, STATE_STEERED, 1 << 3));
    assert_eq!(told(&watched, "/a/user-", false), (1, STATE_REFUSED, 1 << 5));
}

#[test]
fn a_longer_beginning_has_the_levels_of_those_that_it_begins_with() {
    let watched = [begins("/a/out", 3, 1), begins("/a/outer-", 2, 2), begins("/a/outer-", 5, 1), begins("/b/", 4, 1)];
    assert_eq!(told(&watched, "/a/outer-", false), (2, STATE_REFUSED, (1 << 2) | (1 << 3) | (1 << 5)));
    assert_eq!(told(&watched, "/a/out", false), (1, STATE_REFUSED, 1 << 3));
    assert_eq!(told(&watched, "/b/", false), (1, STATE_REFUSED, 1 << 4));
}

#[test]
fn a_whole_path_that_an_earlier_workload_may_have_is_refused_at_first() {
    let (pattern, unit) = (begins("/s/mcp-", 2, 1), whole("/s/mcp-crm", 2));
    let at_first = |watched: &[Watched]| told(watched, "/s/mcp-crm", true).1;
    assert_eq!(at_first(&[pattern.clone(), unit.clone()]), STATE_REFUSED);
    assert_eq!(at_first(&[unit.clone(), pattern.clone()]), STATE_STEERED, "it is the unit's: that comes first");
    assert_eq!(at_first(&[Watched { workload: 2, ..pattern }, unit.clone()]), STATE_STEERED, "it is its own");
    assert_eq!(at_first(&[begins("/s/mcp-", 3, 1), unit.clone()]), STATE_STEERED, "it fits deeper only");
    assert_eq!(at_first(&[begins("/s/mcp-d", 2, 1), unit]), STATE_STEERED, "it begins otherwise");
}

#[test]
fn a_level_at_which_nothing_can_begin_so_is_an_error() {
    for (path, level) in [("/a/", 1), ("/a/b-", 1), ("/a/b-", 16)] {
        assert!(entries(&[begins(path, level, 1)]).is_err(), "{path} {level}");
    }
    assert!(entries(&[begins("/a/", 2, 1), begins("/a/b-", 15, 1)]).is_ok());
}
