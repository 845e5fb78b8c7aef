//! A root who edits the database: what `verify` says of it.

use std::io::Read;

use rusqlite::Connection;
use rusqlite::types::ValueRef;

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

/// All that is recorded: every row of every table, digested. The full-text index stands for itself by its words. What `journal`
/// says of segments that are in the database and gone means nothing any more. None where SQLite can't read it.
fn dump(path: &Path) -> Option<blake3::Hash> {
    let has_log = PathBuf::from(format!("{}-wal", path.display())).exists();
    let uri = format!("file:{}?{}", path.display(), if has_log { "mode=ro" } else { "immutable=1" });
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY | rusqlite::OpenFlags::SQLITE_OPEN_URI;
    let db = Connection::open_with_flags(uri, flags).ok()?;
    db.execute_batch("CREATE VIRTUAL TABLE temp.words USING fts5vocab(main, search, instance)").ok()?;
    let mut all = blake3::Hasher::new();
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
        "approvals",
        "grants",
        "break_glass",
        "ledger",
        "payloads",
        "session_keys",
        "temp.words",
    ] {
        let mut statement = db.prepare(&format!("SELECT * FROM {table}")).ok()?;
        let width = statement.column_count();
        let mut rows = statement.query([]).ok()?;
        while let Some(row) = rows.next().ok()? {
            for column in 0..width {
                let number;
                let (kind, bytes) = match row.get_ref(column).ok()? {
                    ValueRef::Null => (b'n', &b""[..]),
                    ValueRef::Integer(value) => {
                        number = value.to_le_bytes();
                        (b'i', &number[..])
                    }
                    ValueRef::Real(value) => {
                        number = value.to_le_bytes();
                        (b'r', &number[..])
                    }
                    ValueRef::Text(bytes) => (b't', bytes),
                    ValueRef::Blob(bytes) => (b'b', bytes),
                };
                all.update(&[kind]).update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
            }
            all.update(b"row");
        }
        all.update(b"table");
    }
    Some(all.finalize())
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

/// How many frames of the write-ahead log SQLite goes by, as the log's index says: `mxFrame`, the number at byte 16 of the
/// `-shm` file in the processor's order (walformat.html, section 2.1). None where the database can't be opened.
fn frames_that_count(path: &Path) -> Option<usize> {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY | rusqlite::OpenFlags::SQLITE_OPEN_URI;
    let db = Connection::open_with_flags(format!("file:{}?mode=ro", path.display()), flags).ok()?;
    db.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).ok()?;
    let mut index = [0; 20];
    File::open(format!("{}-shm", path.display())).ok()?.read_exact(&mut index).ok()?;
    Some(u32::from_ne_bytes(*index.last_chunk()?) as usize)
}

/// Where the first `count` frames of a log end.
fn end_of_frames(log: &[u8], count: usize) -> usize {
    let page = u32::from_be_bytes(*log[8..].first_chunk().unwrap()) as usize;
    32 + count * (24 + page)
}

/// One byte after the other of the file `name` is changed in a copy, each `step`th, in two ways: `verify` finds it, or can't
/// read it, or what is recorded is the same. Gives how often it was found because that was another, and how often it wasn't.
fn flip(dir: &Path, name: &str, step: usize) -> (usize, usize) {
    use std::os::unix::fs::FileExt;
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::Relaxed;
    let untouched = copy_of(dir);
    let database = untouched.path().join("record.db");
    assert!(verify(&database).unwrap().ok);
    let (whole, dumped) = (std::fs::read(dir.join(name)).unwrap(), dump(&database).unwrap());
    let is_log = name.ends_with("-wal");
    // Most bytes are of no page's content: `verify`, which takes ten times as long, is asked about the others only.
    let is_other = |copy: &Path, at: usize, flip: u8| {
        let is_other = dump(copy) != Some(dumped);
        let is_found = is_other && !verify(copy).is_ok_and(|report| report.ok);
        assert_eq!(is_found, is_other, "{name}: byte {at} ^ {flip:#x}");
        is_other
    };
    let (next, found, same) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    // What lies in a log behind the frames that count is as if it weren't there: each number of them is looked at once.
    let cut_to = Mutex::new(BTreeMap::<usize, bool>::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                let folder = copy_of(dir);
                let copy = folder.path().join("record.db");
                let file = OpenOptions::new().write(true).open(folder.path().join(name)).unwrap();
                loop {
                    let at = next.fetch_add(step, Relaxed);
                    let Some(&byte) = whole.get(at) else { break };
                    for flip in [1_u8 << (at % 8), 0xff] {
                        file.write_all_at(&[byte ^ flip], at as u64).unwrap();
                        let counting = if is_log { frames_that_count(&copy) } else { None };
                        let cut = counting.filter(|&count| at >= end_of_frames(&whole, count));
                        let known = cut.and_then(|count| cut_to.lock().unwrap().get(&count).copied());
                        let is_other = known.unwrap_or_else(|| is_other(&copy, at, flip));
                        if let Some(count) = cut {
                            cut_to.lock().unwrap().insert(count, is_other);
                        }
                        let count = if is_other { &found } else { &same };
                        count.fetch_add(1, Relaxed);
                    }
                    file.write_all_at(&[byte], at as u64).unwrap();
                }
            });
        }
    });
    let (found, same) = (found.into_inner(), same.into_inner());
    println!("{name}: {} bytes; {found} flips changed something and were found, {same} changed nothing", whole.len());
    (found, same)
}

/// Each byte of the database's file and of its write-ahead log with `INTERCEPTOR_LONG`; else a part of them, at other places in
/// each page.
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
    let (of_database, of_log) = if std::env::var_os("INTERCEPTOR_LONG").is_some() { (1, 1) } else { (31, 127) };
    let (found, same) = flip(dir.path(), "record.db", of_database);
    assert!(found > 100, "{found}, and {same} that changed nothing: most bytes are of empty pages, but not all");
    let (found, same) = flip(running.path(), "record.db-wal", of_log);
    assert!(found > 100, "{found}, and {same} that changed nothing: each page of the log has a checksum");
}

/// What a killed daemon left in its journal: all of it is read, or it is said that something can't be.
#[test]
fn every_byte_of_a_journal_that_is_flipped_is_damage_or_changes_nothing() {
    use super::super::backlog::Segment;
    use super::super::source::{Piece, Source};
    let dir = tempfile::tempdir().unwrap();
    let (path, whole, offsets) = super::crash::left_behind(dir.path(), 0, &super::crash::three());
    let header = segment::HEADER as usize;
    let id = segment::read_header(whole.first_chunk().unwrap()).unwrap();
    let read = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let end = bytes.len() as u64;
        let (committed, closed) = (end.into(), true.into());
        let segment = Segment { id, path: path.clone(), committed, closed, left: true };
        let mut source = Source::open(Arc::new(segment), None).unwrap();
        let mut pieces = Vec::new();
        while source.offset < end {
            source.offset = source.read(end, &mut pieces).unwrap();
        }
        let (bodies, damage): (Vec<_>, Vec<_>) = pieces.into_iter().partition(|piece| matches!(piece, Piece::Body(_)));
        (bodies, damage.len())
    };
    let (events, damage) = read(&whole);
    assert_eq!((events.len(), damage), (3, 0));
    // All of the entries, and a part of the zeros behind them.
    for at in (header..offsets[3]).chain((offsets[3]..whole.len()).step_by(61)) {
        for flip in [1_u8 << (at % 8), 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            let (read, damage) = read(&bytes);
            assert!(read == events || damage > 0, "byte {at} ^ {flip:#x}: {} events, and no damage", read.len());
            assert!(read.iter().all(|body| events.contains(body)), "byte {at} ^ {flip:#x}: an event that wasn't there");
        }
    }
}
