use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use super::event::{Identity, Payload, TokenIssued, Verdict, What};
use super::segment::{FRAME_HEADER, SegmentId};
use super::*;
use crate::clock::SystemClock;
use crate::config::Durability;
use crate::identity::provenance::{Death, Issued, Recorded};
use crate::ids::{LaunchId, OperationId, SessionId};
use crate::policy::{Authentic, Basis, Bound, Credential, PrincipalKind};
use crate::who::Process;

mod anchor;
mod crash;
mod disk;
mod replaced;
mod tamper;
mod versions;

const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
const OBJECT: &str = "11111111-2222-4333-8444-555555555555";

const SOON: Duration = Duration::from_secs(10);

pub(super) fn settings() -> RecordSettings {
    RecordSettings {
        durability: Durability::Process,
        segment_bytes: 64 << 10,
        backlog_bytes: 64 << 20,
        backlog_age: Duration::from_secs(30),
        reserve: 0,
        ..RecordSettings::default()
    }
}

pub(super) fn open(dir: &Path) -> Record {
    Record::open(dir, &settings(), Arc::new(SystemClock)).expect("the record opens")
}

fn event(what: What) -> Event {
    Event { at: SystemClock.now(), what }
}

fn opened(session: SessionId, launch: LaunchId) -> Event {
    event(What::SessionOpened {
        session,
        launch,
        workload: "crm".parse().unwrap(),
        process: Some(Process { pid: 7, tid: 8, comm: "crm-mcp".into(), exe: Some("/usr/bin/crm-mcp".into()) }),
        original: "198.18.0.1:443".parse().unwrap(),
        host: Some("graph.microsoft.com".parse().unwrap()),
        target: Some("graph".parse().unwrap()),
    })
}

fn decided(operation: OperationId, session: Option<SessionId>, launch: LaunchId, verdict: Verdict) -> Event {
    event(What::OperationDecided {
        operation,
        session,
        launch,
        workload: "crm".parse().unwrap(),
        target: Some("graph".parse().unwrap()),
        action: "http:GET".into(),
        summary: "GET /v1.0/users".into(),
        verdict,
        code: (verdict == Verdict::Deny).then(|| "denied-by-policy".into()),
        basis: Box::new(Basis {
            generation: 3,
            policies: vec!["readers".into()],
            reasons: vec!["reading is fine".into()],
            ..Basis::default()
        }),
        initiator: Some(1000),
        credential: Some(Credential::Entra),
        identity: Some(Box::new(Identity {
            principal: format!("{TENANT}/{OBJECT}").parse().unwrap(),
            kind: PrincipalKind::ServicePrincipal,
            client: Some(OBJECT.parse().unwrap()),
            authentic: Authentic::Issuer,
            bound: Bound::IssuedHere,
            token: "ab".repeat(32).parse().unwrap(),
            uti: Some("uti-1".into()),
        })),
        approval: None,
    })
}

fn finished(operation: OperationId) -> Event {
    event(What::OperationFinished {
        operation,
        outcome: "done".into(),
        policies: Vec::new(),
        status: Some(200),
        request: Payload::default(),
        response: Payload { bytes: 5, digest: Some(blake3::hash(b"hello").to_hex().to_string()) },
        masked: BTreeMap::from([("email".to_owned(), 2)]),
        spent: None,
        service_request: None,
        kept: None,
    })
}

/// An operation of a session, with what is kept of it.
pub(super) fn keep(journal: &Journal, key: &SessionKey, session: SessionId, content: &Content) -> OperationId {
    keep_of("crm", journal, (key, session), content)
}

/// The same of this workload.
pub(super) fn keep_of(
    name: &str,
    journal: &Journal,
    (key, session): (&SessionKey, SessionId),
    content: &Content,
) -> OperationId {
    let operation = OperationId::new();
    let mut intent = decided(operation, Some(session), LaunchId::new(), Verdict::Allow);
    if let What::OperationDecided { workload, .. } = &mut intent.what {
        *workload = name.parse().unwrap();
    }
    let _recorded = journal.append(&intent).unwrap();
    let sealed = key.seal(operation, content).unwrap();
    let mut event = finished(operation);
    if let What::OperationFinished { kept, .. } = &mut event.what {
        *kept = Some(sealed.kept());
    }
    journal.append_with((key, &sealed), &event).unwrap();
    operation
}

fn started(launch: LaunchId) -> Event {
    event(What::WorkloadStarted {
        launch,
        workload: "crm".parse().unwrap(),
        initiator: 1000,
        loginuid: None,
        uid: 1000,
        pid: 42,
        command: "/usr/bin/crm-mcp".into(),
        containment: "contained".into(),
    })
}

/// A session with two operations, the second denied.
fn a_session(journal: &Journal) -> (SessionId, OperationId, OperationId) {
    let (launch, session) = (LaunchId::new(), SessionId::new());
    let (read, delete) = (OperationId::new(), OperationId::new());
    for event in [
        started(launch),
        opened(session, launch),
        decided(read, Some(session), launch, Verdict::Allow),
        finished(read),
        decided(delete, Some(session), launch, Verdict::Deny),
        event(What::SessionClosed { session, reason: "done".into(), policies: Vec::new() }),
        event(What::WorkloadEnded { launch, status: "exit 0".into() }),
    ] {
        let _recorded = journal.append(&event).expect("it is recorded");
    }
    (session, read, delete)
}

/// All events that are in the database, once what waits is moved.
fn events(record: &Record) -> Vec<What> {
    record.flush(SOON).expect("it is moved");
    let links = record.reader().unwrap().links(0, u32::MAX, usize::MAX).unwrap();
    links.iter().map(|link| serde_json::from_str::<Event>(&link.body).unwrap().what).collect()
}

/// The outages that are told: the reason, and whether they are over.
fn outages(record: &Record) -> Vec<(String, bool)> {
    let told = |what| match what {
        What::RecordOutage { reason, until, .. } => Some((reason, until.is_some())),
        _ => None,
    };
    events(record).into_iter().filter_map(told).collect()
}

/// How many other events there are.
fn others(record: &Record) -> u64 {
    let others = events(record).into_iter().filter(|what| !matches!(what, What::RecordOutage { .. }));
    others.count() as u64
}

/// Waits until an outage that is over is told, with these words.
fn told(record: &Record, words: &str) {
    let begin = Instant::now();
    while !outages(record).iter().any(|(reason, is_over)| *is_over && reason.contains(words)) {
        assert!(begin.elapsed() < SOON, "{words} isn't told: {:?}", outages(record));
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn segments(dir: &Path) -> usize {
    std::fs::read_dir(dir.join("journal")).unwrap().count()
}

#[test]
fn what_was_appended_is_found_by_queries() {
    let dir = tempfile::tempdir().unwrap();
    let record = open(dir.path());
    let journal = record.journal("worker-0").unwrap();
    let (session, read, delete) = a_session(&journal);
    let (other, ..) = a_session(&journal);
    record.flush(SOON).unwrap();
    let reader = record.reader().unwrap();

    let list = reader.sessions(10, None).unwrap();
    assert_eq!(
        list.iter().map(|row| row.session.clone()).collect::<Vec<_>>(),
        [other.to_string(), session.to_string()]
    );
    assert_eq!(reader.sessions(1, None).unwrap().len(), 1);

    let story = reader.session(&session.to_string()).unwrap();
    assert_eq!((story.session.operations, story.session.denied, story.omitted), (2, 1, 0));
    assert_eq!(story.session.reason.as_deref(), Some("done"));
    assert_eq!(story.session.process.as_ref().unwrap().comm, "crm-mcp");
    assert_eq!(story.launch.unwrap().status.as_deref(), Some("exit 0"));
    assert_eq!(story.operations[0].operation, read.to_string());
    assert_eq!(story.operations[0].status, Some(200));
    assert_eq!(story.operations[0].response.bytes, Some(5));
    assert_eq!(story.operations[0].masked, BTreeMap::from([("email".to_owned(), 2)]));
    assert_eq!(story.operations[1].code.as_deref(), Some("denied-by-policy"));
    assert_eq!(story.operations[1].request, query::Body::default());

    let operation = reader.operation(&delete.to_string()).unwrap();
    assert_eq!(operation.basis.reasons, ["reading is fine"]);
    let value = serde_json::to_value(&operation).unwrap();
    assert_eq!(value["basis"]["policies"][0], "readers");
    assert_eq!(verify(record.database()).unwrap().fault, None);
}

#[test]
fn who_has_few_sessions_is_shown_them_without_reading_those_of_all() {
    let dir = tempfile::tempdir().unwrap();
    let record = open(dir.path());
    let reader = record.reader().unwrap();
    let sql = format!("EXPLAIN QUERY PLAN {}", query::sessions(reader.schema, Some(1000)));
    let mut statement = reader.db.prepare(&sql).unwrap();
    let steps = statement.query_map((10, 1000), |row| row.get::<_, String>(3)).unwrap();
    let steps: Vec<String> = steps.map(Result::unwrap).collect();
    let reads_all = |step: &String| step.starts_with("SCAN s") || step.starts_with("SCAN workloads");
    assert!(!steps.iter().any(reads_all), "{steps:#?}");

    // They are the latest, and of no other's.
    let journal = record.journal("worker-0").unwrap();
    let (mine, ..) = a_session(&journal);
    let (other, launch) = (SessionId::new(), LaunchId::new());
    for event in [of_another(launch), opened(other, launch)] {
        let _recorded = journal.append(&event).unwrap();
    }
    let (latest, ..) = a_session(&journal);
    record.flush(SOON).unwrap();
    let of = |limit, uid| {
        let sessions = reader.sessions(limit, Some(uid)).unwrap();
        sessions.into_iter().map(|row| row.session).collect::<Vec<_>>()
    };
    assert_eq!(of(10, 1000), [latest.to_string(), mine.to_string()]);
    assert_eq!(of(1, 1000), [latest.to_string()]);
    assert_eq!(of(10, 1001), [other.to_string()]);
    assert!(of(10, 1002).is_empty());
}

/// A launch of uid 1001's.
fn of_another(launch: LaunchId) -> Event {
    let mut event = started(launch);
    if let What::WorkloadStarted { initiator, .. } = &mut event.what {
        *initiator = 1001;
    }
    event
}

#[test]
fn a_session_larger_than_an_answer_is_read_in_pieces() {
    const COUNT: u64 = 12;
    let dir = tempfile::tempdir().unwrap();
    let record = open(dir.path());
    let journal = record.journal("worker-0").unwrap();
    let (launch, session) = (LaunchId::new(), SessionId::new());
    let _recorded = journal.append(&opened(session, launch)).unwrap();
    let mut made = Vec::new();
    for _ in 0..COUNT {
        let operation = OperationId::new();
        let mut event = decided(operation, Some(session), launch, Verdict::Allow);
        if let What::OperationDecided { summary, .. } = &mut event.what {
            *summary = format!("GET /{}", "x".repeat(query::ANSWER_BYTES / 5));
        }
        let _recorded = journal.append(&event).unwrap();
        made.push(operation.to_string());
    }
    record.flush(SOON).unwrap();
    let reader = record.reader().unwrap();
    let id = session.to_string();
    let mut story = reader.session(&id).unwrap();
    assert_eq!(story.omitted, COUNT - story.operations.len() as u64);
    assert!((1..COUNT).contains(&story.omitted), "{} are left out", story.omitted);
    let mut answers = 1;
    loop {
        let after = story.operations.last().map(|last| last.operation.clone());
        let more = reader.operations(&id, after.as_deref()).unwrap();
        if more.is_empty() {
            break;
        }
        assert!(serde_json::to_vec(&more).unwrap().len() < query::ANSWER_BYTES + 1024, "an answer is too large");
        answers += 1;
        story.operations.extend(more);
    }
    let read: Vec<_> = story.operations.into_iter().map(|operation| operation.operation).collect();
    assert_eq!(read, made, "each once, in order");
    assert!(answers > 2, "{answers} answers");
}

#[test]
fn the_beginning_of_an_id_is_enough_if_only_one_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let record = open(dir.path());
    let journal = record.journal("worker-0").unwrap();
    let (session, ..) = a_session(&journal);
    record.flush(SOON).unwrap();
    let reader = record.reader().unwrap();
    let id = session.to_string();
    assert_eq!(reader.session(&id[..20]).unwrap().session.session, id);
    assert_eq!(reader.session(&id.to_uppercase()).unwrap().session.session, id);
    a_session(&journal);
    record.flush(SOON).unwrap();
    assert!(matches!(reader.session("ses_"), Err(QueryError::Ambiguous(_))));
    assert!(matches!(reader.session("ses_zzz"), Err(QueryError::Unknown(_))));
    for wrong in ["op_01", "ses", "ses_%", "ses_~", ""] {
        assert!(matches!(reader.session(wrong), Err(QueryError::Malformed { prefix: "ses", .. })), "{wrong}");
    }
}

#[test]
fn evidence_names_the_operation_whose_verdict_was_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let record = open(dir.path());
    let journal = record.journal("worker-0").unwrap();
    let (operation, launch) = (OperationId::new(), LaunchId::new());
    let evidence = journal.append(&decided(operation, None, launch, Verdict::Allow)).unwrap();
    assert_eq!(evidence.operation(), Some(operation));
    assert_eq!(journal.append(&finished(operation)).unwrap().operation(), None);
}

#[test]
fn four_journals_at_once_keep_their_own_order_and_lose_nothing() {
    const EACH: i64 = 2_000;
    let dir = tempfile::tempdir().unwrap();
    let record = open(dir.path());
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let journal = record.journal(&format!("worker-{worker}")).unwrap();
            scope.spawn(move || {
                let launch = LaunchId::new();
                for _ in 0..EACH {
                    let operation = OperationId::new();
                    let _recorded = journal.append(&decided(operation, None, launch, Verdict::Allow)).unwrap();
                    let _recorded = journal.append(&finished(operation)).unwrap();
                }
            });
        }
    });
    record.flush(SOON).unwrap();
    let db = store::open_read_only(record.database()).unwrap();
    let count = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count("SELECT count(*) FROM events"), 8 * EACH);
    // A `finished` that came before its `decided` would have changed no row.
    assert_eq!(count("SELECT count(*) FROM operations WHERE finished_at IS NOT NULL"), 4 * EACH);
    assert!(verify(record.database()).unwrap().ok);
    assert_eq!(record.health().backlog, 0);
    assert_eq!(record.health().lag_ms, 0);
    drop(record);
    assert_eq!(segments(dir.path()), 0, "what is moved is deleted");
}

#[test]
fn entries_reach_the_database_by_themselves_within_a_tenth_of_a_second() {
    let dir = tempfile::tempdir().unwrap();
    let record = open(dir.path());
    let journal = record.journal("worker-0").unwrap();
    let mut medians = Vec::new();
    // The median, because other tests share the processors; of more of them where those take most.
    for tens in 0..10 {
        let mut waits = Vec::new();
        for round in 1..=10 {
            let _recorded = journal.append(&finished(OperationId::new())).unwrap();
            let begin = Instant::now();
            while record.health().seq < tens * 10 + round {
                assert!(begin.elapsed() < SOON);
                std::thread::yield_now();
            }
            waits.push(begin.elapsed());
        }
        waits.sort();
        medians.push(waits[5]);
        if waits[5] < Duration::from_millis(100) {
            return;
        }
    }
    panic!("{medians:?}");
}

#[test]
fn a_locked_database_denies_when_the_oldest_entry_is_too_old_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let settings = RecordSettings { backlog_age: Duration::from_millis(100), ..settings() };
    let record = Record::open(dir.path(), &settings, Arc::new(SystemClock)).unwrap();
    let journal = record.journal("worker-0").unwrap();
    let other = rusqlite::Connection::open(record.database()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let begin = Instant::now();
    let mut recorded = 0;
    let decided = |verdict| decided(OperationId::new(), None, LaunchId::new(), verdict);
    let error = loop {
        match journal.append(&decided(Verdict::Allow)) {
            Ok(_) => recorded += 1,
            Err(error) => break error,
        }
        assert!(begin.elapsed() < SOON);
        std::thread::sleep(Duration::from_millis(1));
    };
    assert!(matches!(error, RecordError::Lagging { .. }) && error.leaves_denials(), "{error}");
    assert!(begin.elapsed() >= settings.backlog_age);
    while record.health().failed.is_none() {
        assert!(begin.elapsed() < SOON, "a locked database must show in the status");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(record.health().failed.unwrap().contains("locked"));
    let error = journal.append(&started(LaunchId::new())).expect_err("a workload would begin");
    assert!(matches!(error, RecordError::Lagging { .. }), "{error}");
    for event in [decided(Verdict::Deny), finished(OperationId::new())] {
        let _recorded = journal.append(&event).expect("a denial is recorded, and how something ended");
        recorded += 1;
    }
    assert!(matches!(record.flush(Duration::from_millis(50)), Err(RecordError::Lagging { .. })));
    other.execute_batch("ROLLBACK").unwrap();
    told(&record, "locked");
    assert_eq!((record.health().failed, others(&record)), (None, recorded));
    let _recorded = journal.append(&finished(OperationId::new())).unwrap();
    assert_eq!(others(&record), recorded + 1);
    assert!(verify(record.database()).unwrap().ok);
}

#[test]
fn a_full_backlog_denies_until_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let settings = RecordSettings { backlog_bytes: 4096, ..settings() };
    let record = Record::open(dir.path(), &settings, Arc::new(SystemClock)).unwrap();
    let journal = record.journal("worker-0").unwrap();
    let other = rusqlite::Connection::open(record.database()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let recorded = (0..100).take_while(|_| journal.append(&finished(OperationId::new())).is_ok()).count() as u64;
    assert!((5..40).contains(&recorded), "{recorded}");
    let error = journal.append(&finished(OperationId::new())).unwrap_err();
    assert!(matches!(error, RecordError::Full { limit: 4096, .. }), "{error}");
    assert!(record.health().backlog <= 4096);
    other.execute_batch("ROLLBACK").unwrap();
    record.flush(SOON).unwrap();
    told(&record, "as much journal waited for the database as may: 4096 bytes");
    let _recorded = journal.append(&finished(OperationId::new())).unwrap();
    assert_eq!(others(&record), recorded + 1, "what was refused isn't in the record, what wasn't is");
}

/// What is denied without end leaves room for how what goes on ends.
#[test]
fn denials_leave_room_for_ends() {
    let dir = tempfile::tempdir().unwrap();
    let settings = RecordSettings { backlog_bytes: 16 << 10, ..settings() };
    let record = Record::open(dir.path(), &settings, Arc::new(SystemClock)).unwrap();
    let journal = record.journal("worker-0").unwrap();
    let other = rusqlite::Connection::open(record.database()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let denied = || decided(OperationId::new(), None, LaunchId::new(), Verdict::Deny);
    assert!((0..1000).take_while(|_| journal.append(&denied()).is_ok()).count() < 1000);
    let error = journal.append(&denied()).unwrap_err();
    assert!(matches!(error, RecordError::Full { .. }), "{error}");
    for _ in 0..3 {
        let _recorded = journal.append(&finished(OperationId::new())).expect("how something ended");
    }
    other.execute_batch("ROLLBACK").unwrap();
    record.flush(SOON).unwrap();
}

#[test]
fn an_event_longer_than_a_segment_gets_one_of_its_own_and_a_monstrous_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let record = open(dir.path());
    let journal = record.journal("worker-0").unwrap();
    let rejected = |length| event(What::SnapshotRejected { error: "x".repeat(length), by: None });
    let _recorded = journal.append(&rejected(1 << 20)).unwrap();
    let _recorded = journal.append(&rejected(3)).unwrap();
    let error = journal.append(&rejected(segment::MAX_BODY)).unwrap_err();
    assert!(matches!(error, RecordError::TooLong { .. }));
    record.flush(SOON).unwrap();
    assert_eq!(verify(record.database()).unwrap().events, 2);
}

#[test]
fn a_record_has_one_daemon_and_journals_have_plain_names() {
    let dir = tempfile::tempdir().unwrap();
    let record = open(dir.path());
    let again = Record::open(dir.path(), &settings(), Arc::new(SystemClock));
    assert!(matches!(again, Err(RecordError::InUse { .. })));
    for name in ["", "../x", "a/b", "a b", &"x".repeat(33)] {
        assert!(record.journal(name).is_err(), "{name}");
    }
}

#[test]
fn an_executable_whose_name_is_not_utf8_is_recorded() {
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir().unwrap();
    let record = open(dir.path());
    let (session, launch) = (SessionId::new(), LaunchId::new());
    let mut event = opened(session, launch);
    if let What::SessionOpened { process: Some(process), .. } = &mut event.what {
        process.exe = Some(std::ffi::OsStr::from_bytes(b"/tmp/\xff").into());
    }
    let _recorded = record.journal("worker-0").unwrap().append(&event).unwrap();
    record.flush(SOON).unwrap();
    let story = record.reader().unwrap().session(&session.to_string()).unwrap();
    assert_eq!(story.session.process.unwrap().exe, Some("/tmp/\u{fffd}".into()));
}

#[test]
fn an_event_is_entered_where_no_daemon_has_the_record() {
    let dir = tempfile::tempdir().unwrap();
    let enter = || {
        let what = What::ControlRequest { uid: 0, pid: 7, request: "release crm.service".into(), refused: None };
        enter(dir.path(), &settings(), Arc::new(SystemClock), what, SOON)
    };
    assert!(matches!(enter(), Err(RecordError::File { .. })), "there is no record");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing was made");
    let record = open(dir.path());
    a_session(&record.journal("worker-0").unwrap());
    assert!(matches!(enter(), Err(RecordError::InUse { .. })));
    drop(record);
    enter().expect("it is entered");
    let record = open(dir.path());
    let events = events(&record);
    assert!(events.len() == 8 && matches!(events.last(), Some(What::ControlRequest { pid: 7, .. })), "{events:?}");
    assert!(verify(record.database()).unwrap().ok);
}

#[test]
fn a_journal_that_outlives_its_record_takes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let record = open(dir.path());
    let journal = record.journal("worker-0").unwrap();
    drop(record);
    assert!(matches!(journal.append(&finished(OperationId::new())), Err(RecordError::Failed(_))));
}

#[test]
fn power_loss_durability_works_alike() {
    let dir = tempfile::tempdir().unwrap();
    let settings = RecordSettings { durability: Durability::PowerLoss, ..settings() };
    let record = Record::open(dir.path(), &settings, Arc::new(SystemClock)).unwrap();
    a_session(&record.journal("worker-0").unwrap());
    drop(record);
    assert_eq!(verify(&dir.path().join("record.db")).unwrap().events, 7);
}

#[test]
fn files_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let record = open(&dir.path().join("state"));
    let _journal = record.journal("worker-0").unwrap();
    let mut folders = vec![dir.path().join("state")];
    while let Some(folder) = folders.pop() {
        for item in std::fs::read_dir(folder).unwrap() {
            let path = item.unwrap().path();
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o077, 0, "{}", path.display());
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
}

#[test]
fn the_cost_of_an_append_is_printed() {
    let dir = tempfile::tempdir().unwrap();
    let settings = RecordSettings { segment_bytes: 8 << 20, ..settings() };
    let record = Record::open(dir.path(), &settings, Arc::new(SystemClock)).unwrap();
    let journal = record.journal("worker-0").unwrap();
    let event = decided(OperationId::new(), Some(SessionId::new()), LaunchId::new(), Verdict::Allow);
    let begin = Instant::now();
    for _ in 0..5_000 {
        let _recorded = journal.append(&event).unwrap();
    }
    let cost = begin.elapsed() / 5_000;
    record.flush(SOON).unwrap();
    println!(
        "an append: {} ns; until all is in the database: {} ns each",
        cost.as_nanos(),
        begin.elapsed().as_nanos() / 5_000
    );
    assert!(cost < Duration::from_millis(1));
}

/// Runs the test `name` of this binary in a process of its own, where it finds `dir` in `RECORD_TEST_DIR`.
fn child(name: &str, dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env("RECORD_TEST_DIR", dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The folder that [`child`] gave; none in the process that runs the tests.
fn child_dir() -> Option<PathBuf> {
    std::env::var_os("RECORD_TEST_DIR").map(PathBuf::from)
}

#[test]
fn the_last_generation_is_known_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    for generation in 1..=3 {
        let record = open(dir.path());
        assert_eq!(record.reader().unwrap().last_generation().unwrap(), generation - 1);
        let journal = record.journal("control").unwrap();
        let (digest, sources) = ("00".repeat(32), Vec::new());
        let loaded = What::SnapshotLoaded { generation, digest, sources, by: None };
        let _recorded = journal.append(&event(loaded)).unwrap();
        record.flush(SOON).unwrap();
        assert_eq!(record.reader().unwrap().last_generation().unwrap(), generation);
    }
}

/// One token for two workloads, as a host's managed identity is: each issue is known, until the token ends for both.
#[test]
fn issued_tokens_are_found_again_with_their_end() {
    let dir = tempfile::tempdir().expect("a folder");
    let record = open(dir.path());
    let journal = record.journal("test").expect("a journal");
    let now = SystemClock.now();
    let issued = |token: &str, workload: &str, expiry: jiff::Timestamp| TokenIssued {
        token: token.repeat(32).parse().expect("a digest"),
        operation: Some(OperationId::new()),
        launch: LaunchId::new(),
        issued: Issued {
            workload: workload.parse().expect("a name"),
            principal: format!("{TENANT}/{OBJECT}").parse().expect("a principal"),
            client: None,
            audiences: vec!["https://graph.microsoft.com".into()],
            kind: PrincipalKind::ManagedIdentity,
            groups: None,
            roles: vec![format!("{TENANT}/aud/Reader")],
            uti: None,
            expiry,
            bound: Bound::IssuedHere,
            authentic: Authentic::HostEndpoint,
        },
    };
    let later = now + Duration::from_secs(3600);
    let (one, two) = (issued("cd", "crm", later), issued("cd", "batch", later));
    let over = issued("ef", "crm", now - Duration::from_secs(1));
    for token in [&one, &two, &over] {
        drop(journal.append(&event(What::TokenIssued(Box::new(token.clone())))).expect("it is stored"));
    }
    record.flush(SOON).expect("it is moved");
    let reader = record.reader().expect("a reader");
    let entry = |token: &TokenIssued| Recorded::Issued { digest: token.token, issued: token.issued.clone() };
    assert_eq!(reader.provenance(now).expect("tokens"), [entry(&one), entry(&two)]);
    assert_eq!(reader.token(&one.token, "batch").expect("a token"), Some(two.clone()));
    assert_eq!(reader.token(&one.token, "other").expect("an answer"), None);
    let ended = What::TokenEnded { token: one.token, reason: Death::Challenged };
    drop(journal.append(&event(ended)).expect("it is stored"));
    record.flush(SOON).expect("it is moved");
    let dead = || Recorded::Dead { digest: one.token, death: Death::Challenged };
    assert_eq!(reader.provenance(now).expect("tokens"), [entry(&one), entry(&two), dead(), dead()]);
    let report = verify(record.database()).expect("a report");
    assert!(report.ok, "{report:?}");
}

#[test]
fn what_a_killed_daemon_had_under_way_is_known_to_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let (launch, session, operation) = (LaunchId::new(), SessionId::new(), OperationId::new());
    {
        let record = open(dir.path());
        let journal = record.journal("worker-0").unwrap();
        a_session(&journal);
        let (look_up, done) = (OperationId::new(), OperationId::new());
        for event in [
            opened(session, launch),
            decided(done, Some(session), launch, Verdict::Allow),
            finished(done),
            decided(operation, Some(session), launch, Verdict::Allow),
            // A look-up belongs to no session, and has no end of its own.
            decided(look_up, None, launch, Verdict::Allow),
        ] {
            let _recorded = journal.append(&event).unwrap();
        }
    }
    let record = open(dir.path());
    let left = record.reader().unwrap().unfinished().unwrap();
    assert_eq!((left.sessions, left.operations), (vec![session], vec![operation]));
    let journal = record.journal("control").unwrap();
    let killed = What::SessionClosed { session, reason: "daemon-killed".into(), policies: Vec::new() };
    for event in [finished(operation), event(killed)] {
        let _recorded = journal.append(&event).unwrap();
    }
    record.flush(SOON).unwrap();
    assert_eq!(record.reader().unwrap().unfinished().unwrap(), Unfinished::default());
}
