use clap::Parser;

use super::*;

#[derive(Debug, clap::Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

fn parsed(words: &[&str]) -> Result<Search, clap::Error> {
    Line::try_parse_from(["search"].iter().chain(words)).map(|line| line.args.search())
}

#[test]
fn a_word_or_a_filter_has_to_be_given() {
    for nothing in [&[][..], &["--json"], &["--limit", "3"], &["--verdict", "maybe"], &["--since", "yesterday"]] {
        assert_eq!(parsed(nothing).unwrap_err().exit_code(), 2, "{nothing:?}");
    }
    let search = parsed(&["get", "users", "--verdict", "deny", "--since", "2026-11-25T09:00:00Z"]).unwrap();
    assert_eq!(
        (search.text.as_deref(), search.verdict.as_deref(), search.limit),
        (Some("get users"), Some("deny"), 50)
    );
    assert_eq!(search.since, Some("2026-11-25T09:00:00Z".parse().unwrap()));
}

/// What doesn't fit into one answer comes with the next ones, up to the limit.
#[test]
fn pieces_are_put_together() {
    let mut asked = Vec::new();
    let mut pieces = vec![(2, Some(7)), (0, Some(5)), (1, None)].into_iter();
    let found = gather(parsed(&["users", "--limit", "9"]).unwrap(), |search| {
        asked.push((search.before, search.limit));
        let (count, next) = pieces.next().expect("it asks for no more than there is");
        let hit = || Hit { host: None, operation: super::super::tests::operation() };
        Ok(Hits { hits: (0..count).map(|_| hit()).collect(), next, end: None })
    });
    assert_eq!(found.unwrap().len(), 3);
    assert_eq!(asked, [(None, 9), (Some(7), 7), (Some(5), 7)]);
}

#[test]
fn a_time_can_be_so_long_ago() {
    let (hour, now) = (moment("1h").unwrap(), SystemClock.now());
    assert!((3590..3610).contains(&(now.as_second() - hour.as_second())));
}
