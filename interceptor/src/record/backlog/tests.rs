use super::*;

const AGE: Duration = Duration::from_millis(400);

fn backlog() -> Backlog {
    let settings = RecordSettings { backlog_bytes: 1_000, backlog_age: AGE, reserve: 0, ..RecordSettings::default() };
    Backlog::new(&settings, std::env::temp_dir().join("nowhere/record.db"))
}

#[test]
fn the_writer_hurries_from_half_of_what_denies_until_a_quarter_is_left() {
    let backlog = backlog();
    assert_eq!(backlog.urgency(), Urgency::Later, "nothing waits");
    backlog.appended(400);
    assert_eq!(backlog.urgency(), Urgency::Later);
    std::thread::sleep(AGE * 6 / 10);
    assert_eq!(backlog.urgency(), Urgency::Late, "it waits for long");
    backlog.moved(400, 1, 0);
    backlog.passed(&backlog.begin());
    assert_eq!(backlog.urgency(), Urgency::Later);
    backlog.appended(501);
    assert_eq!(backlog.urgency(), Urgency::Late, "much waits");
    backlog.moved(240, 2, 0);
    assert_eq!(backlog.urgency(), Urgency::Late, "a quarter is left, and more");
    backlog.moved(12, 3, 0);
    assert_eq!(backlog.urgency(), Urgency::Later, "it has caught up");
    backlog.appended(240);
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
