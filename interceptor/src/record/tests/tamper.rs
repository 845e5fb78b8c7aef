//! A root who edits the database: what `verify` says of it.

use rusqlite::Connection;

use super::*;

/// A closed record with two sessions, 14 events.
fn written() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let record = open(dir.path());
    let journal = record.journal("worker-0").unwrap();
    a_session(&journal);
    a_session(&journal);
    drop(journal);
    drop(record);
    let path = dir.path().join("record.db");
    assert!(verify(&path).unwrap().ok);
    (dir, path)
}

/// What `verify` finds after somebody ran `sql`, with the triggers out of the way.
fn after(sql: &str) -> Fault {
    let (_dir, path) = written();
    let db = Connection::open(&path).unwrap();
    db.execute_batch("DROP TRIGGER events_append; DROP TRIGGER events_update; DROP TRIGGER events_delete").unwrap();
    db.execute_batch(sql).unwrap();
    drop(db);
    let report = verify(&path).unwrap();
    assert!(!report.ok, "{sql}");
    report.fault.expect("a fault")
}

#[test]
fn whatever_is_changed_is_found_and_named() {
    let changed = "the hash isn't that of the event and its predecessors: one of them was changed";
    let cases = [
        ("UPDATE events SET body = replace(body, 'allow', 'deny') WHERE seq = 3", 3, changed),
        ("UPDATE events SET hash = zeroblob(32) WHERE seq = 5", 5, changed),
        ("UPDATE events SET kind = 'x' WHERE seq = 4", 4, "the time or the kind isn't that of the body"),
        (
            "UPDATE events SET at = '2020-01-01T00:00:00Z' WHERE seq = 4",
            4,
            "the time or the kind isn't that of the body",
        ),
        ("DELETE FROM events WHERE seq = 6", 6, "the event is missing"),
        ("DELETE FROM events WHERE seq = 1", 1, "the event is missing"),
        ("UPDATE events SET seq = 100 - seq; UPDATE events SET seq = seq - 85", 1, changed),
        ("DELETE FROM events WHERE seq > 12", 13, "the events from here on are missing: `record.head` knows 14"),
        ("DELETE FROM events", 1, "the events from here on are missing: `record.head` knows 14"),
        ("INSERT INTO events SELECT 15, at, kind, hash, body FROM events WHERE seq = 14", 15, changed),
    ];
    for (sql, seq, what) in cases {
        assert_eq!(after(sql), Fault { seq: Some(seq), what: what.into() }, "{sql}");
    }
}

#[test]
fn what_is_derived_is_compared_with_the_events() {
    let cases = [
        (
            "DROP INDEX operations_by_session",
            None,
            "the schema isn't what this version makes: index operations_by_session",
        ),
        (
            "UPDATE operations SET verdict = 'allow' WHERE seq = 5",
            Some(5),
            "the events say something else than the row",
        ),
        ("UPDATE operations SET response_digest = NULL WHERE seq = 3", Some(3), "the events say something else"),
        ("UPDATE sessions SET reason = 'x' WHERE seq = 9", Some(9), "the events say something else than the row"),
        ("UPDATE workloads SET initiator = 0 WHERE seq = 1", Some(1), "the events say something else than the row"),
        ("DELETE FROM operations WHERE seq = 12", Some(12), "the events made a row that is missing:"),
        (
            "INSERT INTO sessions SELECT 'ses_0', 99, launch, workload, process, original, host, target, opened_at,
             closed_at, reason, 0, 0, NULL FROM sessions WHERE seq = 2",
            Some(99),
            "no event made the row `ses_0` in `sessions`",
        ),
    ];
    for (sql, seq, what) in cases {
        let fault = after(sql);
        assert_eq!(fault.seq, seq, "{sql}");
        assert!(fault.what.starts_with(what), "{sql}: {}", fault.what);
    }
}

/// A chain that was made anew from some point on is sound in itself; only what was kept elsewhere shows it.
#[test]
fn a_chain_that_was_made_anew_differs_from_the_head() {
    let (dir, path) = written();
    let head = std::fs::read_to_string(dir.path().join("record.head")).unwrap();
    std::fs::write(dir.path().join("record.head"), head.replace(|c: char| c.is_ascii_lowercase(), "0")).unwrap();
    let fault = verify(&path).unwrap().fault.unwrap();
    assert_eq!((fault.seq, fault.what.contains("made anew")), (Some(14), true));
    std::fs::remove_file(dir.path().join("record.head")).unwrap();
    let report = verify(&path).unwrap();
    assert!(report.ok);
    assert!(report.notes[0].contains("a cut-off end would not show"), "{:?}", report.notes);
}

#[test]
fn a_database_that_lost_its_end_says_so_when_it_is_opened() {
    let (dir, path) = written();
    let db = Connection::open(&path).unwrap();
    db.execute_batch("DROP TRIGGER events_delete; DELETE FROM events WHERE seq > 12").unwrap();
    drop(db);
    let record = open(dir.path());
    // The head and the checkpoints both know more.
    assert_eq!((record.health().seq, record.health().damaged), (14, 2));
    let report = verify(&path).unwrap();
    assert_eq!((report.damage[0].seq, report.damage[0].place.as_str()), (13, "record.head"));
}

#[test]
fn verify_writes_nothing_and_reads_a_copy_in_a_folder_of_its_own() {
    let (_dir, path) = written();
    let copy = tempfile::tempdir().unwrap();
    let there = copy.path().join("what? 100%.db");
    std::fs::copy(&path, &there).unwrap();
    let before = std::fs::read(&there).unwrap();
    assert_eq!(verify(&there).unwrap().events, 14);
    assert_eq!(std::fs::read(&there).unwrap(), before);
    assert!(matches!(verify(&copy.path().join("none.db")), Err(RecordError::File { .. })));
    assert!(!copy.path().join("none.db").exists());
}

/// The chain as `docs/record.md` defines it, computed without the code under test.
#[test]
fn an_auditor_can_compute_the_chain() {
    let (_dir, path) = written();
    let db = Connection::open(&path).unwrap();
    let mut statement = db.prepare("SELECT seq, hash, body FROM events ORDER BY seq").unwrap();
    let mut rows = statement.query([]).unwrap();
    let mut previous = vec![0; 32];
    while let Some(row) = rows.next().unwrap() {
        let (seq, hash, body): (u64, Vec<u8>, String) =
            (row.get::<_, i64>(0).unwrap().cast_unsigned(), row.get(1).unwrap(), row.get(2).unwrap());
        let input = [&previous[..], &seq.to_be_bytes(), body.as_bytes()].concat();
        assert_eq!(blake3::derive_key("interceptor record v1 event chain", &input).to_vec(), hash);
        previous = hash;
    }
}

/// All that is recorded, as text: every row of every table. The full-text index stands for itself by its words. What
/// `journal` says of segments that are in the database and gone means nothing any more.
fn dump(path: &Path) -> Option<String> {
    let has_log = PathBuf::from(format!("{}-wal", path.display())).exists();
    let uri = format!("file:{}?{}", path.display(), if has_log { "mode=ro" } else { "immutable=1" });
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY | rusqlite::OpenFlags::SQLITE_OPEN_URI;
    let db = Connection::open_with_flags(uri, flags).ok()?;
    db.execute_batch("CREATE VIRTUAL TABLE temp.words USING fts5vocab(main, search, instance)").ok()?;
    let mut text = String::new();
    for table in [
        "events",
        "workloads",
        "sessions",
        "operations",
        "tokens",
        "session_principals",
        "minutes",
        "retention",
        "prunes",
        "pruning",
        "payloads",
        "session_keys",
        "temp.words",
    ] {
        let mut statement = db.prepare(&format!("SELECT * FROM {table}")).ok()?;
        let width = statement.column_count();
        let mut rows = statement.query([]).ok()?;
        while let Some(row) = rows.next().ok()? {
            for column in 0..width {
                text += &format!("{:?} ", row.get_ref(column).ok()?);
            }
            text += "\n";
        }
    }
    Some(text)
}

/// The files of a record, as they are in `dir` at the moment, in a folder of their own.
fn copy_of(dir: &Path) -> tempfile::TempDir {
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    for name in ["record.db", "record.db-wal", "record.head", "checkpoints", "checkpoint.key", "payload.key"] {
        if dir.join(name).exists() {
            std::fs::copy(dir.join(name), folder.path().join(name)).unwrap();
        }
    }
    folder
}

/// One byte after the other of the file `name` is changed in a copy, each `step`th, in so many ways: `verify` finds it, or can't
/// read it, or what is recorded is the same. Gives how many were found, and how many changed nothing.
fn flip(dir: &Path, name: &str, step: usize, ways: usize) -> (usize, usize) {
    use std::os::unix::fs::FileExt;
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::Relaxed;
    let untouched = copy_of(dir);
    let database = untouched.path().join("record.db");
    assert!(verify(&database).unwrap().ok);
    let (whole, dumped) = (std::fs::read(dir.join(name)).unwrap(), dump(&database).unwrap());
    let (next, found, same) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                let folder = copy_of(dir);
                let copy = folder.path().join("record.db");
                let file = std::fs::OpenOptions::new().write(true).open(folder.path().join(name)).unwrap();
                loop {
                    let at = next.fetch_add(step, Relaxed);
                    let Some(&byte) = whole.get(at) else { break };
                    let flips = [1_u8 << (at % 8), 0xff];
                    for flip in flips.into_iter().take(ways) {
                        file.write_all_at(&[byte ^ flip], at as u64).unwrap();
                        if verify(&copy).is_ok_and(|report| report.ok) {
                            assert_eq!(dump(&copy).as_deref(), Some(dumped.as_str()), "{name}: byte {at} ^ {flip:#x}");
                            same.fetch_add(1, Relaxed);
                        } else {
                            found.fetch_add(1, Relaxed);
                        }
                    }
                    file.write_all_at(&[byte], at as u64).unwrap();
                }
            });
        }
    });
    let (found, same) = (found.into_inner(), same.into_inner());
    println!("{name}: {} bytes; of the flips {found} were found, {same} changed nothing recorded", whole.len());
    (found, same)
}

/// Each byte of the database's file, and a part of those of its write-ahead log, with `INTERCEPTOR_LONG`.
#[test]
fn every_byte_that_is_flipped_is_found_or_changes_nothing() {
    use super::super::payload::{Content, Message};
    let (dir, path) = written();
    let record = open(dir.path());
    let journal = record.journal("worker-0").unwrap();
    let session = SessionId::new();
    let key = record.keys().new_session(session).unwrap();
    let content = Content { request: Message { start: "GET / HTTP/1.1".into(), ..Message::default() }, response: None };
    keep(&journal, &key, session, &content);
    record.flush(SOON).unwrap();
    // What was just recorded is in the log only.
    let running = copy_of(dir.path());
    drop(journal);
    drop(record);
    assert!(verify(&path).unwrap().ok);
    let long = std::env::var_os("INTERCEPTOR_LONG").is_some();
    // All of them take minutes; else a part, at another place of each page.
    let (found, same) = if long { flip(dir.path(), "record.db", 1, 1) } else { flip(dir.path(), "record.db", 61, 2) };
    assert!(found > 100, "{found} of {same}: most bytes are of empty pages, but not all");
    let log = "record.db-wal";
    let (found, same) = if long { flip(running.path(), log, 7, 1) } else { flip(running.path(), log, 509, 2) };
    assert!(found > 100, "{found} of {same}: each page of the log has a checksum");
}
