use super::*;
use crate::ids::SessionId;

fn entry(body: &str) -> Entry {
    Entry::new(body.as_bytes().to_vec()).expect("an event")
}

const STARTED: &str = r#"{"at":"2026-01-02T03:04:05Z","event":"daemon.started","version":"1","pid":7}"#;

#[test]
fn a_newer_schema_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("record.db");
    let store = Store::open(&path, Durability::Process).unwrap();
    store.db.pragma_update(None, "user_version", known_schema() + 1).unwrap();
    drop(store);
    let error = Store::open(&path, Durability::Process).unwrap_err();
    assert!(matches!(error, RecordError::Newer { found, known, .. } if found == known + 1));
    assert!(error.to_string().contains("run the newer version"), "{error}");
}

#[test]
fn a_migration_that_fails_leaves_the_old_schema_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("record.db");
    let mut db = Connection::open(&path).unwrap();
    migrate(&mut db, &path, &[&["CREATE TABLE a (x)"]]).unwrap();
    let error = migrate(&mut db, &path, &[&["CREATE TABLE a (x)"], &["CREATE TABLE b (x)", "CREATE TABLE a (x)"]]);
    assert!(error.is_err());
    assert_eq!(schema_of(&db, &path, 9).unwrap(), 1);
    let tables: i64 = db.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0)).unwrap();
    assert_eq!(tables, 1, "half of the migration stayed");
}

#[test]
fn events_can_only_be_appended() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(&folder.path().join("record.db"), Durability::Process).unwrap();
    store.append(&[entry(STARTED), entry(STARTED)], &[], &[("a".into(), 100)]).unwrap();
    for sql in [
        "UPDATE events SET body = '{}' WHERE seq = 1",
        "DELETE FROM events WHERE seq = 2",
        "INSERT OR REPLACE INTO events SELECT 2, at, kind, hash, '{}' FROM events WHERE seq = 2",
        "INSERT INTO events SELECT 9, at, kind, hash, body FROM events WHERE seq = 2",
    ] {
        assert!(store.db.execute(sql, []).is_err(), "{sql}");
    }
    assert_eq!(store.positions().unwrap(), HashMap::from([("a".into(), 100)]));
}

#[test]
fn a_batch_that_fails_leaves_nothing_and_can_come_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("record.db");
    let mut store = Store::open(&path, Durability::Process).unwrap();
    store.append(&[entry(STARTED)], &[], &[("a".into(), 100)]).unwrap();
    let before = store.head();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(store.append(&[entry(STARTED)], &[], &[("a".into(), 200)]).is_err());
    assert_eq!(store.head(), before);
    other.execute_batch("ROLLBACK").unwrap();
    store.append(&[entry(STARTED)], &[], &[("a".into(), 200)]).unwrap();
    assert_eq!(store.head().seq, 2);
    assert!(store.has(before).unwrap());
    assert!(!store.has(Head { seq: 2, ..before }).unwrap());
}

#[test]
fn an_event_of_a_later_version_is_kept_as_it_is() {
    let later = r#"{"at":"2026-01-02T03:04:05Z","event":"approval.given","by":"someone"}"#;
    let entry = entry(later);
    assert_eq!((entry.kind.as_str(), entry.event), ("approval.given", None));
    assert!(Entry::new(b"{\"at\":1}".to_vec()).is_none());
    assert!(Entry::new(b"{\"\xff\":1}".to_vec()).is_none());
}

#[test]
fn what_is_deleted_is_overwritten_in_all_pages_that_are_written_and_for_an_erasure_in_free_ones_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(&folder.path().join("record.db"), Durability::Process).unwrap();
    let overwrites =
        |store: &Store| -> i64 { store.db.query_row("PRAGMA secure_delete", [], |row| row.get(0)).unwrap() };
    let (always, written) = (1, 2);
    assert_eq!(overwrites(&store), written);
    let at = "2026-01-02T03:04:05Z".parse().unwrap();
    let erased = Event { at, what: What::SessionErased { session: SessionId::new(), uid: 0, pid: 1 } };
    store.append(&[Entry::of(&erased).unwrap()], &[], &[]).unwrap();
    assert_eq!(overwrites(&store), always);
    store.append(&[entry(STARTED)], &[], &[]).unwrap();
    assert_eq!(overwrites(&store), written);
}

#[test]
fn what_is_under_way_is_found_without_reading_all_events_or_sessions() {
    let db = empty(known_schema()).unwrap();
    let mut statement = db.prepare(&format!("EXPLAIN QUERY PLAN {UNDER_WAY}")).unwrap();
    let steps = statement.query_map(["2026-01-02T03:04:05Z"], |row| row.get::<_, String>(3)).unwrap();
    let steps: Vec<String> = steps.map(Result::unwrap).collect();
    assert!(steps.iter().all(|step| step != "SCAN events"), "{steps:#?}");
    assert!(steps.iter().any(|step| step.contains("events_answered")), "{steps:#?}");
    let of_sessions: Vec<_> = steps.iter().filter(|step| step.contains("SCAN sessions")).collect();
    assert!(!of_sessions.is_empty() && of_sessions.iter().all(|step| step.contains("sessions_open")), "{steps:#?}");
}
