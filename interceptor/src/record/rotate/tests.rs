use std::time::Duration;

use super::*;
use crate::clock::SystemClock;
use crate::ids::{LaunchId, SessionId};
use crate::record::{Evidence, Journal, Record, Report, verify, verify_with};

const SOON: Duration = Duration::from_secs(20);
const BY: Asker = Asker { uid: 1000, pid: 7 };

fn settings() -> RecordSettings {
    RecordSettings { segment_bytes: 64 << 10, backlog_age: SOON, reserve: 0, ..RecordSettings::default() }
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}

fn open(dir: &Path) -> (Record, Journal) {
    let record = Record::open(dir, &settings(), clock()).expect("the record opens");
    let journal = record.journal("control").expect("a journal");
    (record, journal)
}

fn note(journal: &Journal, what: What) {
    let _recorded = journal.append(&Event { at: SystemClock.now(), what }).expect("it is recorded");
}

fn stopped(journal: &Journal, reason: &str) {
    note(journal, What::DaemonStopped { reason: reason.into() });
}

fn opened(session: SessionId) -> What {
    What::SessionOpened {
        session,
        launch: LaunchId::new(),
        workload: "crm".parse().unwrap(),
        process: None,
        original: "198.18.0.1:443".parse().unwrap(),
        host: None,
        target: None,
    }
}

fn whole(report: &Report) {
    assert!(report.ok, "{report:?}");
}

fn follows(dir: &Path, previous: &str) -> Report {
    let evidence = Evidence { previous: Some(dir.join(previous)), ..Evidence::default() };
    verify_with(&dir.join("record.db"), &evidence).expect("it can be read")
}

fn kinds(database: &Path) -> Vec<String> {
    let reader = Reader::open(database).expect("it can be read");
    let links = reader.links(0, 1_000, usize::MAX).expect("events");
    links
        .iter()
        .map(|link| {
            serde_json::from_str::<serde_json::Value>(&link.body).unwrap()["event"].as_str().unwrap().to_owned()
        })
        .collect()
}

#[test]
fn a_sealed_record_and_the_one_after_it_prove_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let (record, journal) = open(dir.path());
    let (live, over) = (SessionId::new(), SessionId::new());
    note(&journal, opened(live));
    note(&journal, opened(over));
    note(&journal, What::SessionClosed { session: over, reason: "done".into(), policies: Vec::new() });
    let rotated = record.rotate(BY, SOON).expect("a new database");
    assert!(rotated.sealed && rotated.seq == Some(4), "{rotated:?}");
    // What goes on, goes on in the new one, and comes once.
    note(&journal, What::SessionClosed { session: live, reason: "client-gone".into(), policies: Vec::new() });
    stopped(&journal, "later");
    record.flush(SOON).unwrap();
    let (old, new) = (dir.path().join(&rotated.previous), dir.path().join("record.db"));
    assert_eq!(kinds(&old), ["session.opened", "session.opened", "session.closed", "record.rotated"]);
    assert_eq!(kinds(&new), ["record.begun", "session.opened", "session.closed", "daemon.stopped"]);
    let sessions = record.reader().unwrap().sessions(10, None).unwrap();
    assert_eq!(sessions.len(), 1);
    assert_eq!((&sessions[0].session, sessions[0].reason.as_deref()), (&live.to_string(), Some("client-gone")));
    whole(&follows(dir.path(), &rotated.previous));
    let sealed = verify(&old).unwrap();
    whole(&sealed);
    assert_eq!(sealed.checkpoints.expect("its own").uncovered, None, "its end is signed");
    drop(journal);
    drop(record);
    let (record, journal) = open(dir.path());
    assert_eq!(record.health().damaged, 0);
    stopped(&journal, "again");
    record.flush(SOON).unwrap();
    assert_eq!(kinds(&new).len(), 5, "nothing came twice");
    whole(&follows(dir.path(), &rotated.previous));
}

#[test]
fn what_was_held_or_erased_of_an_open_session_stays_so() {
    let dir = tempfile::tempdir().unwrap();
    let (record, journal) = open(dir.path());
    let (held, erased) = (SessionId::new(), SessionId::new());
    for session in [held, erased] {
        note(&journal, opened(session));
    }
    note(&journal, What::SessionHeld { session: held, held: true, uid: 0, pid: 1 });
    note(&journal, What::SessionErased { session: erased, uid: 0, pid: 1 });
    record.rotate(BY, SOON).expect("a new database");
    let reader = record.reader().unwrap();
    assert_eq!(reader.hold_of(&held.to_string()).unwrap(), (held.to_string(), true));
    let key = "SELECT wrapped FROM session_keys WHERE session = ?1";
    let wrapped: Option<Vec<u8>> = reader.db.query_row(key, [erased.to_string()], |row| row.get(0)).unwrap();
    assert_eq!(wrapped, None, "its key can't come back");
    whole(&verify(record.database()).unwrap());
}

#[test]
fn the_latest_event_is_known_also_if_the_clock_was_set_back_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let (record, journal) = open(dir.path());
    let late: Timestamp = "2099-01-01T00:00:00Z".parse().unwrap();
    let what = || What::DaemonStopped { reason: "late".into() };
    let _recorded = journal.append(&Event { at: late, what: what() }).unwrap();
    stopped(&journal, "set back");
    record.flush(SOON).unwrap();
    assert_eq!(record.reader().unwrap().latest().unwrap(), Some(late));
}

#[test]
fn another_file_or_a_changed_one_is_not_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let (record, journal) = open(dir.path());
    stopped(&journal, "one");
    let first = record.rotate(BY, SOON).unwrap();
    let second = record.rotate(BY, SOON).unwrap();
    assert_ne!(first.previous, second.previous);
    whole(&follows(dir.path(), &second.previous));
    let fault = follows(dir.path(), &first.previous).fault.expect("it isn't that one");
    assert!(fault.seq == Some(1) && fault.what.contains(&second.previous), "{fault:?}");
    let old = dir.path().join(&second.previous);
    let mut bytes = fs::read(&old).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&old, bytes).unwrap();
    assert!(follows(dir.path(), &second.previous).fault.is_some(), "a byte was changed");
    let own = tempfile::tempdir().unwrap();
    let (record, journal) = open(own.path());
    stopped(&journal, "one");
    record.flush(SOON).unwrap();
    let fault = follows(own.path(), "record.db").fault.expect("it is the first");
    assert!(fault.what.contains("no earlier record"), "{fault:?}");
}

#[test]
fn a_damaged_record_is_moved_aside_as_it_is_and_the_daemon_starts_again() {
    let dir = tempfile::tempdir().unwrap();
    let (record, journal) = open(dir.path());
    stopped(&journal, "one");
    record.flush(SOON).unwrap();
    let error = rotate(dir.path(), &settings(), &clock(), BY).expect_err("a daemon has it");
    assert!(matches!(error, RecordError::InUse { .. }), "{error}");
    drop(journal);
    drop(record);
    let database = dir.path().join("record.db");
    let mut bytes = fs::read(&database).unwrap();
    bytes[..4096].fill(0x5a);
    fs::write(&database, &bytes).unwrap();
    let refused = Record::open(dir.path(), &settings(), clock()).expect_err("it is damaged");
    assert!(is_damage(&refused), "{refused}");

    let rotated = rotate(dir.path(), &settings(), &clock(), BY).expect("a new database");
    assert!(!rotated.sealed && rotated.seq == Some(1), "record.head knows the end: {rotated:?}");
    assert_eq!(fs::read(dir.path().join(&rotated.previous)).unwrap(), bytes, "as it was");
    let (record, journal) = open(dir.path());
    stopped(&journal, "two");
    record.flush(SOON).unwrap();
    assert_eq!(kinds(&database), ["record.begun", "daemon.stopped"]);
    let report = follows(dir.path(), &rotated.previous);
    whole(&report);
    assert!(report.notes.iter().any(|note| note.contains("can't be read")), "{report:?}");
}

#[test]
fn a_whole_record_is_sealed_without_the_daemon_too() {
    let dir = tempfile::tempdir().unwrap();
    let (record, journal) = open(dir.path());
    stopped(&journal, "one");
    drop(journal);
    drop(record);
    let rotated = rotate(dir.path(), &settings(), &clock(), BY).expect("a new database");
    assert!(rotated.sealed);
    assert_eq!(kinds(&dir.path().join(&rotated.previous)), ["daemon.stopped", "record.rotated"]);
    whole(&follows(dir.path(), &rotated.previous));
    let empty = tempfile::tempdir().unwrap();
    assert!(rotate(empty.path(), &settings(), &clock(), BY).is_err(), "there is nothing to rotate");
    assert!(!empty.path().join("record.db").exists());
}

#[test]
fn a_crash_between_two_steps_loses_neither() {
    let dir = tempfile::tempdir().unwrap();
    let (record, journal) = open(dir.path());
    stopped(&journal, "one");
    let rotated = record.rotate(BY, SOON).unwrap();
    drop(journal);
    drop(record);
    let database = dir.path().join("record.db");
    // The old one is moved, the new one isn't yet.
    fs::rename(&database, draft(&database)).unwrap();
    drop(open(dir.path()));
    whole(&follows(dir.path(), &rotated.previous));
    // The new one was made, and the old one is still there.
    fs::write(draft(&database), "half").unwrap();
    drop(open(dir.path()));
    assert!(!draft(&database).exists());
    whole(&follows(dir.path(), &rotated.previous));
}

#[test]
fn a_reader_that_does_not_end_keeps_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let (record, journal) = open(dir.path());
    stopped(&journal, "one");
    record.flush(SOON).unwrap();
    let reader = record.reader().unwrap();
    reader.db.execute_batch("BEGIN; SELECT count(*) FROM events").unwrap();
    let error = record.rotate(BY, SOON).expect_err("somebody reads");
    assert!(matches!(error, RecordError::InTheWay), "{error}");
    reader.db.execute_batch("COMMIT").unwrap();
    // Also if he does nothing: when he is done he would remove the write-ahead log of the new one, by its name.
    let error = record.rotate(BY, SOON).expect_err("somebody has it open");
    assert!(matches!(error, RecordError::InTheWay), "{error}");
    stopped(&journal, "two");
    record.flush(SOON).expect("it goes on");
    drop(reader);
    record.rotate(BY, SOON).expect("nobody is there any more");
    stopped(&journal, "three");
    record.flush(SOON).unwrap();
    whole(&verify(record.database()).unwrap());
}
