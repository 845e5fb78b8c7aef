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

#[test]
fn a_time_can_be_so_long_ago() {
    let (hour, now) = (moment("1h").unwrap(), SystemClock.now());
    assert!((3590..3610).contains(&(now.as_second() - hour.as_second())));
}
