use ulid::Ulid;

use super::super::event::What;
use super::super::segment::HEADER;
use super::*;

const AGE: Duration = Duration::from_secs(2);

fn backlog() -> Backlog {
    let settings = RecordSettings { backlog_bytes: 1_000, backlog_age: AGE, reserve: 0, ..RecordSettings::default() };
    Backlog::new(&settings, std::env::temp_dir().join("nowhere/record.db"))
}

fn segment() -> Segment {
    Segment {
        id: SegmentId { journal: Ulid::generate(), index: 0 },
        path: PathBuf::new(),
        committed: AtomicU64::new(HEADER),
        closed: AtomicBool::new(false),
        left: false,
    }
}

#[test]
fn the_writer_hurries_from_half_of_what_denies_until_a_quarter_is_left() {
    let (backlog, segment) = (backlog(), segment());
    let appended = |bytes| backlog.appended(&segment, HEADER + bytes, bytes);
    assert_eq!(backlog.urgency(), Urgency::Later, "nothing waits");
    appended(400);
    assert_eq!(backlog.urgency(), Urgency::Later);
    std::thread::sleep(AGE * 6 / 10);
    assert_eq!(backlog.urgency(), Urgency::Late, "it waits for long");
    backlog.moved(400, 1, 0);
    backlog.passed(&backlog.begin());
    assert_eq!(backlog.urgency(), Urgency::Later);
    appended(501);
    assert_eq!(backlog.urgency(), Urgency::Late, "much waits");
    backlog.moved(240, 2, 0);
    assert_eq!(backlog.urgency(), Urgency::Late, "a quarter is left, and more");
    backlog.moved(12, 3, 0);
    assert_eq!(backlog.urgency(), Urgency::Later, "it has caught up");
    appended(240);
    assert_eq!(backlog.urgency(), Urgency::Later, "that isn't much again");
}

#[test]
fn the_writer_hurries_for_who_waits_for_it() {
    let backlog = backlog();
    let failed = backlog.flush(Duration::from_millis(1));
    assert!(failed.is_err());
    assert_eq!(backlog.urgency(), Urgency::Awaited, "it was asked to move all, and hasn't");
    let work = backlog.begin();
    backlog.passed(&work);
    assert_eq!(backlog.urgency(), Urgency::Later);
    backlog.stop();
    assert_eq!(backlog.urgency(), Urgency::Awaited, "the record is being closed");
}

/// What is told of outages, and whether they are over.
fn told(backlog: &Backlog) -> Vec<(String, bool)> {
    let now = "2026-03-01T10:00:00Z".parse().unwrap();
    let mut told = Vec::new();
    while let Some(what) = backlog.outage(now) {
        let What::RecordOutage { reason, until, .. } = what else { panic!("{what:?}") };
        told.push((reason, until.is_some()));
        backlog.outage_told();
    }
    told
}

#[test]
fn a_slow_writer_is_an_outage_that_is_told_once_it_has_caught_up() {
    let (backlog, segment) = (backlog(), segment());
    let now = "2026-03-01T10:00:00Z".parse().unwrap();
    backlog.appended(&segment, HEADER + 10, 10);
    assert!(backlog.lets_go_on(now).is_ok() && told(&backlog).is_empty());
    std::thread::sleep(AGE + Duration::from_millis(10));
    assert!(told(&backlog).is_empty(), "nobody was denied anything");
    assert!(matches!(backlog.lets_go_on(now), Err(RecordError::Lagging { .. })));
    assert!(matches!(backlog.keeps_up(), Err(RecordError::Lagging { .. })));
    assert!(std::mem::take(&mut backlog.state().tidy), "the writer is to look");
    let work = backlog.begin();
    backlog.moved(10, 1, 0);
    assert!(told(&backlog).is_empty(), "the pass isn't over");
    backlog.passed(&work);
    assert!(backlog.state().tidy, "it is looked at once more");
    assert_eq!(told(&backlog), [("the database was more than 2s behind the journal".to_owned(), true)]);
}

#[test]
fn a_backlog_that_is_full_is_an_outage_also_if_it_is_for_a_moment() {
    let (backlog, segment) = (backlog(), segment());
    let full = || ("as much journal waited for the database as may: 1000 bytes".to_owned(), true);
    backlog.appended(&segment, HEADER + 900, 900);
    assert!(backlog.has_room_for_ends().is_err() && backlog.admit(101).is_err());
    assert!(told(&backlog).is_empty(), "it is full");
    backlog.moved(900, 1, 0);
    assert_eq!(told(&backlog).len(), 1);
    // It comes again, and is told with the next one, or at the end.
    assert!(backlog.admit(1_001).is_err());
    assert!(told(&backlog).is_empty());
    backlog.stop();
    assert_eq!(told(&backlog), [full()]);
}

#[test]
fn what_the_database_denies_while_it_cant_be_written_is_told_with_the_cause() {
    let (backlog, segment) = (backlog(), segment());
    backlog.appended(&segment, HEADER + 10, 10);
    backlog.failed("it is locked".into(), Duration::ZERO);
    std::thread::sleep(AGE + Duration::from_millis(10));
    assert!(backlog.keeps_up().is_err());
    backlog.moved(10, 1, 0);
    assert_eq!(told(&backlog), [("it is locked".to_owned(), true)]);
}

#[test]
fn what_the_writer_can_see_is_counted_already() {
    let (backlog, segment) = (backlog(), segment());
    let seen = || segment.committed.load(Ordering::Acquire);
    std::thread::scope(|scope| {
        let counting = backlog.state();
        let appending = scope.spawn(|| backlog.appended(&segment, HEADER + 100, 100));
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(seen(), HEADER, "it can't be counted yet");
        drop(counting);
        appending.join().unwrap();
    });
    assert_eq!((seen(), backlog.health().backlog), (HEADER + 100, 100));
    backlog.moved(100, 1, 0);
    assert_eq!(backlog.health().backlog, 0);
}

#[test]
fn a_clock_that_is_set_back_makes_nothing_younger() {
    let (at, begin): (Timestamp, _) = ("2026-03-01T10:00:00Z".parse().unwrap(), Instant::now());
    let minutes = |count: u64| Duration::from_secs(60 * count);
    let (back, age) = (at - minutes(300), |count| Some(SignedDuration::from_mins(count)));
    let mut unanchored = Unanchored::default();
    assert_eq!(unanchored.age(at, begin), None);
    unanchored.came(10, at, begin);
    assert_eq!(unanchored.age(back, begin + minutes(11)), age(11));
    assert_eq!(unanchored.age(at + minutes(12), begin + minutes(1)), age(12), "one that was set on makes it older");
    // Each has its own age.
    unanchored.came(20, back, begin + minutes(5));
    unanchored.known(10, 20, Some(back), begin + minutes(7));
    assert_eq!(unanchored.age(back, begin + minutes(8)), age(3));
    unanchored.known(9, 20, Some(at), begin + minutes(8));
    assert_eq!(unanchored.age(back, begin + minutes(8)), age(3), "an older one says nothing");
    unanchored.known(20, 20, None, begin + minutes(9));
    assert_eq!(unanchored.age(at + minutes(99), begin + minutes(99)), None);
    // What an earlier daemon left is as old as the clock says at the start.
    let mut left = Unanchored::default();
    left.known(0, 5, Some(at), begin);
    assert_eq!(left.age(at + minutes(2), begin), age(2));
    assert_eq!(left.age(back, begin + minutes(11)), age(11));
}

#[test]
fn of_a_long_time_only_the_oldest_events_are_told_apart_less() {
    let (at, begin): (Timestamp, _) = ("2026-03-01T10:00:00Z".parse().unwrap(), Instant::now());
    let mut unanchored = Unanchored::default();
    let passed = |count: u64| Duration::from_secs(6 * count);
    for count in 0..1_000 {
        unanchored.came(count + 1, at, begin + passed(count));
    }
    let now = begin + passed(1_000);
    unanchored.known(10, 1_000, Some(at), now);
    assert_eq!(unanchored.waits(now), passed(1_000), "at least as old as it is");
    unanchored.known(990, 1_000, Some(at), now);
    assert_eq!(unanchored.waits(now), passed(10));
}

#[test]
fn what_is_known_of_an_earlier_database_says_nothing_of_the_newest() {
    let settings = RecordSettings { anchor: Anchor::Required, reserve: 0, ..RecordSettings::default() };
    let backlog = Backlog::new(&settings, std::env::temp_dir().join("nowhere/record.db"));
    let now: Timestamp = "2026-03-01T10:00:00Z".parse().unwrap();
    let since = || backlog.health().unanchored_since;
    backlog.moved(0, 100, 0);
    backlog.unanchored(now);
    backlog.renewed(1, now);
    backlog.anchored(100, 0, None);
    assert_eq!(since(), Some(now), "event 100 was the last one of the old one");
    backlog.anchored(1, 1, None);
    assert_eq!(since(), None);
}
