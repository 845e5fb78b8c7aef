use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::*;
use crate::clock::SystemClock;
use crate::ids::{LaunchId, SessionId};
use crate::record::event::Hashed;
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

/// A new database, once the hash of the old one is in it.
fn renew(record: &Record) -> Rotated {
    let rotated = record.rotate(BY, SOON).expect("a new database");
    let digest = record.hash_of(&rotated.previous, SOON);
    assert!(digest.is_some(), "the old one is hashed");
    Rotated { digest, ..rotated }
}

/// A record that hashes nothing before the gate is open.
fn open_gated(dir: &Path, gate: &Arc<AtomicBool>) -> (Record, Journal) {
    let gate = Arc::clone(gate);
    let hasher = move |path: &Path, stop: &AtomicBool| {
        while !gate.load(Ordering::Relaxed) {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        digest(path, stop)
    };
    let settings = RecordSettings { backlog_age: Duration::from_secs(1), ..settings() };
    let record = Record::open_with(dir, &settings, clock(), Arc::new(hasher)).expect("the record opens");
    let journal = record.journal("control").expect("a journal");
    (record, journal)
}

/// What `verify` notes of a hash that isn't there.
fn unhashed(report: &Report) -> Option<&str> {
    report.notes.iter().map(String::as_str).find(|note| note.contains("isn't recorded"))
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
    let rotated = renew(&record);
    assert!(rotated.sealed && rotated.seq == Some(4), "{rotated:?}");
    // What goes on, goes on in the new one, and comes once.
    note(&journal, What::SessionClosed { session: live, reason: "client-gone".into(), policies: Vec::new() });
    stopped(&journal, "later");
    record.flush(SOON).unwrap();
    let (old, new) = (dir.path().join(&rotated.previous), dir.path().join("record.db"));
    assert_eq!(kinds(&old), ["session.opened", "session.opened", "session.closed", "record.rotated"]);
    assert_eq!(kinds(&new), ["record.begun", "session.opened", "record.hashed", "session.closed", "daemon.stopped"]);
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
    assert_eq!(kinds(&new).len(), 6, "nothing came twice");
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
    let (first, second) = (renew(&record), renew(&record));
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
    assert_eq!(kinds(&database), ["record.begun", "record.hashed", "daemon.stopped"]);
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
    assert!(rotated.sealed && rotated.digest.is_some(), "{rotated:?}");
    assert_eq!(kinds(&dir.path().join(&rotated.previous)), ["daemon.stopped", "record.rotated"]);
    assert_eq!(kinds(&dir.path().join("record.db")), ["record.begun", "record.hashed"]);
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
    let rotated = renew(&record);
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

#[test]
fn what_is_appended_does_not_wait_for_the_hash_of_the_old_database() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Arc::default();
    let (record, journal) = open_gated(dir.path(), &gate);
    stopped(&journal, "one");
    let rotated = record.rotate(BY, SOON).expect("a new database");
    assert_eq!((&rotated.digest, record.hash_of(&rotated.previous, Duration::from_millis(50))), (&None, None));
    let began = Instant::now();
    // Longer than what waits may before operations are denied.
    while began.elapsed() < Duration::from_millis(1_500) {
        stopped(&journal, "meanwhile");
        record.flush(SOON).expect("it is moved");
        record.backlog.keeps_up().expect("nothing is denied");
        std::thread::sleep(Duration::from_millis(50));
    }
    let (old, new) = (dir.path().join(&rotated.previous), dir.path().join("record.db"));
    // What is known at once proves what is in the old one already.
    let report = follows(dir.path(), &rotated.previous);
    whole(&report);
    assert!(unhashed(&report).is_some_and(|note| note.contains("(not yet)")), "{report:?}");
    let error = record.rotate(BY, Duration::from_millis(50)).expect_err("its hash belongs into this one");
    assert!(matches!(&error, RecordError::Hashing { previous } if *previous == rotated.previous), "{error}");

    gate.store(true, Ordering::Relaxed);
    let hash = record.hash_of(&rotated.previous, SOON);
    assert!(hash.is_some() && hash == digest(&old, &AtomicBool::new(false)).unwrap(), "{hash:?}");
    let told = kinds(&new);
    assert_eq!((told[0].as_str(), told.last().map(String::as_str)), ("record.begun", Some("record.hashed")));
    assert!(!told.contains(&"record.outage".to_owned()), "{told:?}");
    let report = follows(dir.path(), &rotated.previous);
    whole(&report);
    assert_eq!((unhashed(&report), report.uncovered), (None, None), "it is signed at once");
    renew(&record);
}

#[test]
fn a_hash_that_a_killed_daemon_did_not_come_to_is_made_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Arc::default();
    let (record, journal) = open_gated(dir.path(), &gate);
    stopped(&journal, "one");
    let first = record.rotate(BY, SOON).expect("a new database");
    drop(journal);
    drop(record);
    let database = dir.path().join("record.db");
    assert_eq!(kinds(&database), ["record.begun"]);
    let (record, journal) = open(dir.path());
    assert!(record.hash_of(&first.previous, SOON).is_some());
    assert_eq!(kinds(&database), ["record.begun", "record.hashed"]);
    whole(&follows(dir.path(), &first.previous));
    drop(journal);
    drop(record);
    drop(open(dir.path()));
    assert_eq!(kinds(&database).len(), 2, "it is made once");

    // Without a daemon it is made before the database is sealed that it belongs into.
    let (record, journal) = open_gated(dir.path(), &gate);
    let second = record.rotate(BY, SOON).expect("a new database");
    drop(journal);
    drop(record);
    assert_eq!(kinds(&database), ["record.begun"]);
    let third = rotate(dir.path(), &settings(), &clock(), BY).expect("a new database");
    assert_eq!(kinds(&dir.path().join(&third.previous)), ["record.begun", "record.hashed", "record.rotated"]);
    for (one, before) in [(&third.previous, &second.previous), (&"record.db".to_owned(), &third.previous)] {
        let evidence = Evidence { previous: Some(dir.path().join(before)), ..Evidence::default() };
        let report = verify_with(&dir.path().join(one), &evidence).unwrap();
        whole(&report);
        assert_eq!(unhashed(&report), None);
    }
}

#[test]
fn what_is_changed_in_a_sealed_database_before_its_hash_is_known_is_found_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Arc::default();
    let (record, journal) = open_gated(dir.path(), &gate);
    stopped(&journal, "one");
    let rotated = record.rotate(BY, SOON).expect("a new database");
    let old = rusqlite::Connection::open(dir.path().join(&rotated.previous)).unwrap();
    let change = "DROP TRIGGER events_update; UPDATE events SET body = replace(body, 'one', 'two') WHERE seq = 1";
    old.execute_batch(change).unwrap();
    drop(old);
    let found = || follows(dir.path(), &rotated.previous).fault.is_some_and(|fault| fault.what.contains("lead to it"));
    assert!(found(), "its chain says something else");
    gate.store(true, Ordering::Relaxed);
    assert!(record.hash_of(&rotated.previous, SOON).is_some());
    assert!(found(), "and the hash is that of the changed file");
}

#[test]
fn a_file_that_can_not_be_hashed_is_told_and_is_in_nobodys_way() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Arc::default();
    let (record, journal) = open_gated(dir.path(), &gate);
    stopped(&journal, "one");
    let rotated = record.rotate(BY, SOON).expect("a new database");
    fs::remove_file(dir.path().join(&rotated.previous)).unwrap();
    gate.store(true, Ordering::Relaxed);
    assert_eq!(record.hash_of(&rotated.previous, SOON), None);
    assert_eq!(kinds(record.database()), ["record.begun", "record.hashed"]);
    let report = verify(record.database()).unwrap();
    whole(&report);
    assert!(unhashed(&report).is_some_and(|note| note.contains("can't be read")), "{report:?}");
    renew(&record);
}

/// What came of hashing a file that isn't the one before.
fn of_another() -> Hashed {
    Hashed { previous: "record-another.db".into(), digest: Some("ab".repeat(32)), failed: None }
}

#[test]
fn what_came_of_another_file_is_not_entered() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let backlog = Arc::new(Backlog::new(&settings(), dir.path().join("record.db")));
    let journals = dir.path().join("journal");
    let mut writer = Writer::recover(dir.path(), &journals, &settings(), Arc::clone(&backlog), clock()).unwrap();
    backlog.hashing(Some(of_another().previous));
    backlog.hashed(of_another());
    assert_eq!(backlog.hash_to_enter(), Some(of_another()));
    writer.hash_before();
    assert_eq!(backlog.hash_to_enter(), None);
}

#[test]
fn the_hash_of_another_file_does_not_stand_for_that_of_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Arc::default();
    let (record, journal) = open_gated(dir.path(), &gate);
    stopped(&journal, "one");
    let rotated = record.rotate(BY, SOON).expect("a new database");
    drop(journal);
    drop(record);
    let database = dir.path().join("record.db");
    let stale = Event { at: SystemClock.now(), what: What::RecordHashed(of_another()) };
    let mut store = Store::open(&database, Durability::Process).unwrap();
    store.append(&[Entry::of(&stale).unwrap()], &[], &[]).unwrap();
    drop(store);
    let report = follows(dir.path(), &rotated.previous);
    whole(&report);
    assert!(unhashed(&report).is_some_and(|note| note.contains(&rotated.previous)), "{report:?}");
    let (record, journal) = open(dir.path());
    assert!(record.hash_of(&rotated.previous, SOON).is_some());
    assert_eq!(kinds(&database), ["record.begun", "record.hashed", "record.hashed"]);
    drop(journal);
    drop(record);
    let report = follows(dir.path(), &rotated.previous);
    whole(&report);
    assert_eq!(unhashed(&report), None);
}

#[test]
fn the_old_database_is_hashed_also_where_a_rotation_fails_behind_the_beginning_of_the_new_one() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let (record, journal) = open(dir.path());
    stopped(&journal, "one");
    let key = dir.path().join("checkpoint.key");
    let mode = |mode| fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o644);
    let error = record.rotate(BY, SOON).expect_err("others can read the key");
    mode(0o600);
    let begun = record.reader().unwrap().begun().unwrap().unwrap_or_else(|| panic!("it was begun: {error}"));
    record.flush(SOON).unwrap();
    let hash = record.hash_of(&begun.previous, SOON);
    let old = dir.path().join(&begun.previous);
    assert!(hash.is_some() && hash == digest(&old, &AtomicBool::new(false)).unwrap(), "{hash:?}");
    assert_eq!(kinds(record.database()), ["record.begun", "record.hashed"]);
}

#[test]
fn a_thread_that_panics_while_it_hashes_is_told_and_is_in_nobodys_way() {
    let dir = tempfile::tempdir().unwrap();
    let hasher = |_: &Path, _: &AtomicBool| -> io::Result<Option<String>> { panic!("for this test") };
    let record = Record::open_with(dir.path(), &settings(), clock(), Arc::new(hasher)).expect("the record opens");
    let rotated = record.rotate(BY, SOON).expect("a new database");
    assert_eq!(record.hash_of(&rotated.previous, SOON), None);
    let report = verify(record.database()).unwrap();
    assert!(unhashed(&report).is_some_and(|note| note.contains("panicked")), "{report:?}");
    record.rotate(BY, SOON).expect("another one");
}

#[test]
fn other_checkpoints_than_the_old_database_had_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let (record, journal) = open(dir.path());
    stopped(&journal, "one");
    let rotated = renew(&record);
    let file = dir.path().join(&rotated.previous).with_extension("checkpoints");
    let lines = fs::read_to_string(&file).unwrap();
    fs::write(&file, lines.replacen("\"seq\":", "\"seq\":1", 9)).unwrap();
    let fault = follows(dir.path(), &rotated.previous).fault.expect("they are others");
    assert!(fault.what.contains("checkpoints"), "{fault:?}");
    fs::remove_file(&file).unwrap();
    let report = follows(dir.path(), &rotated.previous);
    whole(&report);
    assert!(report.notes.iter().any(|note| note.contains("aren't beside it")), "{report:?}");
}

#[test]
fn a_database_that_an_earlier_version_began_has_the_hash_in_its_first_event() {
    let body = r#"{"at":"2026-01-02T03:04:05Z","event":"record.begun","previous":"record-20260102T030405Z.db","seq":7,"hash":"ab","digest":"cd","sealed":true,"uid":0,"pid":1}"#;
    let event: Event = serde_json::from_str(body).expect("it is read");
    assert!(matches!(&event.what, What::RecordBegun(begun) if begun.digest.as_deref() == Some("cd")));
    assert_eq!(serde_json::to_string(&event).unwrap(), body);

    let dir = tempfile::tempdir().unwrap();
    let (record, journal) = open(dir.path());
    stopped(&journal, "one");
    let rotated = renew(&record);
    let begun = record.reader().unwrap().begun().unwrap().expect("it names the one before");
    drop(journal);
    drop(record);
    let then = tempfile::tempdir().unwrap();
    for extension in ["db", "head", "checkpoints"] {
        let name = Path::new(&rotated.previous).with_extension(extension);
        fs::copy(dir.path().join(&name), then.path().join(&name)).unwrap();
    }
    let begun = Begun { digest: rotated.digest.clone(), checkpoint: None, ..begun };
    let event = Event { at: SystemClock.now(), what: What::RecordBegun(begun) };
    let mut store = Store::open(&then.path().join("record.db"), Durability::Process).unwrap();
    store.append(&[Entry::of(&event).unwrap()], &[], &[]).unwrap();
    drop(store);

    let (record, journal) = open(then.path());
    stopped(&journal, "two");
    record.flush(SOON).unwrap();
    assert_eq!(kinds(record.database()), ["record.begun", "daemon.stopped"], "nothing is left to hash");
    let report = follows(then.path(), &rotated.previous);
    whole(&report);
    assert_eq!(unhashed(&report), None);
    let old = then.path().join(&rotated.previous);
    let mut bytes = fs::read(&old).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&old, bytes).unwrap();
    assert!(follows(then.path(), &rotated.previous).fault.is_some(), "a byte was changed");
}
