use std::cell::Cell;
use std::path::Path;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::clock::{Clock, SystemClock};
use crate::ids::{LaunchId, OperationId, SessionId};
use crate::policy::{Authentic, Basis, Bound, PrincipalKind};
use crate::record::event::{Event, Identity, Verdict, What};
use crate::record::tests::open;
use crate::record::{Record, projection, verify};

const SOON: Duration = Duration::from_secs(10);

fn decided(at: Timestamp, workload: &str, action: &str, summary: &str, verdict: Verdict) -> Event {
    let what = What::OperationDecided {
        operation: OperationId::new(),
        session: None,
        launch: LaunchId::new(),
        workload: workload.parse().expect("a name"),
        target: Some("graph".parse().expect("a name")),
        action: action.into(),
        summary: summary.into(),
        verdict,
        code: (verdict == Verdict::Deny).then(|| "denied-by-policy".into()),
        basis: Box::new(Basis { reasons: vec!["only \"readers\" may".into()], ..Basis::default() }),
        initiator: None,
        credential: None,
        identity: None,
        approval: None,
    };
    Event { at, what }
}

/// Four operations of one minute each, and one before, which the clock was set back for.
fn five(dir: &Path) -> (Record, Timestamp) {
    let record = open(dir);
    let journal = record.journal("worker-0").expect("a journal");
    let begin: Timestamp = "2026-03-01T10:00:30Z".parse().expect("a time");
    let minute = Duration::from_secs(60);
    for event in [
        decided(begin, "crm", "http:GET", "GET /v1.0/users", Verdict::Allow),
        decided(begin + minute, "crm", "http:DELETE", "DELETE /v1.0/users/7", Verdict::Deny),
        decided(begin + minute * 2, "batch", "connect", "graph.microsoft.com:443", Verdict::Deny),
        decided(begin - minute, "batch", "http:GET", "GET /v1.0/groups", Verdict::Allow),
        decided(begin + minute * 3, "crm", "http:GET", "GET /v1.0/Groups/Häuser", Verdict::Allow),
    ] {
        let _recorded = journal.append(&event).expect("it is recorded");
        // One batch each: within a batch, events are ordered by time.
        record.flush(SOON).expect("it is moved");
    }
    (record, begin)
}

fn found(record: &Record, search: &Search) -> Vec<String> {
    let hits = record.reader().expect("a reader").search(search).expect("an answer");
    hits.hits.into_iter().map(|hit| hit.operation.summary).collect()
}

fn text(text: &str) -> Search {
    Search { text: Some(text.into()), limit: 50, ..Search::default() }
}

#[test]
fn words_are_found_newest_first_whatever_their_case_and_marks() {
    let dir = tempfile::tempdir().unwrap();
    let (record, _) = five(dir.path());
    assert_eq!(found(&record, &text("users")), ["DELETE /v1.0/users/7", "GET /v1.0/users"]);
    assert_eq!(found(&record, &text("GROUPS hauser")), ["GET /v1.0/Groups/Häuser"]);
    assert_eq!(found(&record, &text("/v1.0/users/7")), ["DELETE /v1.0/users/7"]);
    assert_eq!(found(&record, &text("micro*")), ["graph.microsoft.com:443"]);
    assert_eq!(found(&record, &text("users/v1.0")), Vec::<String>::new(), "a word with marks has an order");
    assert_eq!(found(&record, &text("denied-by-policy")).len(), 2, "codes are found");
    assert_eq!(found(&record, &text("\"readers\"")).len(), 5, "reasons are found");
    assert_eq!(found(&record, &Search { limit: 1, ..text("users") }), ["DELETE /v1.0/users/7"]);
    // Tags are no words.
    assert_eq!(found(&record, &text("w63726d")), Vec::<String>::new());
}

#[test]
fn filters_hold_together_and_without_words() {
    let dir = tempfile::tempdir().unwrap();
    let (record, begin) = five(dir.path());
    let some = |text: &str| Some(text.to_owned());
    let search = Search { limit: 50, ..Search::default() };
    assert_eq!(found(&record, &Search { workload: some("batch"), ..search.clone() }).len(), 2);
    assert_eq!(found(&record, &Search { workload: some("bat"), ..search.clone() }).len(), 0);
    assert_eq!(found(&record, &Search { verdict: some("deny"), workload: some("crm"), ..search.clone() }).len(), 1);
    assert_eq!(found(&record, &Search { action: some("http"), ..search.clone() }).len(), 4);
    assert_eq!(found(&record, &Search { action: some("http:GET"), target: some("graph"), ..search.clone() }).len(), 3);
    let (minute, after) = (Duration::from_secs(60), begin + Duration::from_millis(1));
    let since = |since, until| found(&record, &Search { since, until, ..search.clone() });
    assert_eq!(since(Some(begin), None).len(), 4);
    assert_eq!(since(Some(after), None).len(), 3);
    assert_eq!(since(None, Some(begin)), ["GET /v1.0/groups"], "the clock was set back for it");
    assert_eq!(since(Some(begin), Some(after)), ["GET /v1.0/users"]);
    assert_eq!(since(Some(begin + minute * 99), None).len(), 0);
    assert_eq!(found(&record, &Search { since: Some(after), ..text("users") }), ["DELETE /v1.0/users/7"]);
}

#[test]
fn a_principal_is_found_by_its_whole_id_and_by_the_object_alone() {
    const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
    const OBJECT: &str = "11111111-2222-4333-8444-555555555555";
    let dir = tempfile::tempdir().unwrap();
    let (record, begin) = five(dir.path());
    let journal = record.journal("worker-1").unwrap();
    let mut event = decided(begin, "crm", "http:GET", "GET /v1.0/me", Verdict::Allow);
    if let What::OperationDecided { identity, .. } = &mut event.what {
        *identity = Some(Box::new(Identity {
            principal: format!("{TENANT}/{OBJECT}").parse().unwrap(),
            kind: PrincipalKind::ServicePrincipal,
            client: None,
            authentic: Authentic::Issuer,
            bound: Bound::IssuedHere,
            token: "ab".repeat(32).parse().unwrap(),
            uti: None,
        }));
    }
    let _recorded = journal.append(&event).unwrap();
    record.flush(SOON).unwrap();
    let of = |principal: &str| Search { principal: Some(principal.into()), limit: 50, ..Search::default() };
    let whole = format!("{TENANT}/{OBJECT}");
    for principal in [whole.as_str(), OBJECT] {
        assert_eq!(found(&record, &of(principal)), ["GET /v1.0/me"], "{principal}");
        assert_eq!(found(&record, &Search { text: Some("users".into()), ..of(principal) }), Vec::<String>::new());
    }
    // Neither the tenant nor another object is it, nor a part of the id.
    let other = format!("{TENANT}/{TENANT}");
    for principal in [TENANT, other.as_str(), &OBJECT[..8]] {
        assert_eq!(found(&record, &of(principal)), Vec::<String>::new(), "{principal}");
    }
}

#[test]
fn what_begins_a_session_or_belongs_to_none_is_gone_through_oldest_first() {
    let dir = tempfile::tempdir().unwrap();
    let record = open(dir.path());
    let journal = record.journal("worker-0").unwrap();
    let tell = |what| drop(journal.append(&Event { at: SystemClock.now(), what }).expect("it is recorded"));
    let (own, other) = (LaunchId::new(), LaunchId::new());
    for (launch, initiator) in [(own, 1000), (other, 1001)] {
        let (command, containment) = ("/usr/bin/crm-mcp".into(), "contained".into());
        let workload = "crm".parse().unwrap();
        let (loginuid, uid, pid) = (None, 1000, 42);
        tell(What::WorkloadStarted { launch, workload, initiator, loginuid, uid, pid, command, containment });
    }
    let (one, two) = (SessionId::new(), SessionId::new());
    let all = [(None, own), (Some(one), own), (Some(two), other), (Some(one), own), (None, other), (Some(two), other)];
    let decide = |number: usize, (session, launch)| {
        let summary = format!("GET /{number}");
        let mut event = decided(SystemClock.now(), "crm", "http:GET", &summary, Verdict::Allow);
        if let What::OperationDecided { session: of, launch: by, .. } = &mut event.what {
            (*of, *by) = (session, launch);
        }
        tell(event.what);
    };
    for (number, place) in all.into_iter().enumerate() {
        decide(number, place);
    }
    record.flush(SOON).unwrap();
    let ask = |search: Search| {
        let hits = record.reader().unwrap().search(&search).unwrap();
        let summaries: Vec<String> = hits.hits.iter().map(|hit| hit.operation.summary.clone()).collect();
        (summaries, hits.next, hits.end.expect("an end"))
    };
    let from = |begins| Search { begins: Some(begins), limit: 50, ..Search::default() };
    let (found, next, end) = ask(from(0));
    assert_eq!((found, next), (["GET /0", "GET /1", "GET /2", "GET /4"].map(str::to_owned).to_vec(), None));
    // In pieces, and without what comes meanwhile.
    let (found, next, _) = ask(Search { limit: 3, ..from(0) });
    assert_eq!(found, ["GET /0", "GET /1", "GET /2"]);
    decide(6, (None, own));
    record.flush(SOON).unwrap();
    let rest = Search { before: Some(end), ..from(next.expect("there is more")) };
    assert_eq!(ask(rest).0, ["GET /4"]);
    assert_eq!(ask(from(next.unwrap())).0, ["GET /4", "GET /6"]);
    // Of the workloads that somebody launched, and with all the other filters.
    assert_eq!(ask(Search { initiator: Some(1001), ..from(0) }).0, ["GET /2", "GET /4"]);
    assert_eq!(ask(Search { text: Some("4".into()), ..from(0) }).0, ["GET /4"]);
}

#[test]
fn who_asks_for_nothing_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let (record, _) = five(dir.path());
    for nothing in [Search::default(), text(""), text(" \" * ( ")] {
        let refused = record.reader().unwrap().search(&nothing).unwrap_err();
        assert!(matches!(refused, QueryError::Nothing), "{refused}");
    }
}

#[test]
fn a_text_of_everything_at_once_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (record, _) = five(dir.path());
    let reader = record.reader().unwrap();
    let many = |word: &str, count: usize| vec![word; count].join(" ");
    let path = "/a1".repeat(PARTS);
    for taken in [many("users", WORDS), many("use*", OPEN), path.clone(), "x".repeat(TEXT), "/v1.0/us*".into()] {
        assert!(reader.search(&text(&taken)).is_ok(), "{taken}");
    }
    let long = [many("h*", 20_000), "a.".repeat(1_000_000), "x".repeat(TEXT + 1)];
    let short = [many("users", WORDS + 1), many("use*", OPEN + 1), path + "/b", "u*".into(), "users/u*".into()];
    for refused in long.into_iter().chain(short) {
        let error = reader.search(&text(&refused)).unwrap_err();
        assert!(matches!(error, QueryError::TooBroad), "{} bytes: {error}", refused.len());
        assert_eq!(error.code(), "search-too-broad");
    }
}

#[test]
fn an_answer_that_takes_too_long_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let (record, _) = five(dir.path());
    let count = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT ?1) SELECT count(*) FROM n";
    let ask = |within, limit: i64| {
        let reader = record.reader().unwrap().within(within).unwrap();
        reader.db.query_row(count, [limit], |row| row.get::<_, i64>(0)).map_err(QueryError::from)
    };
    assert_eq!(ask(SOON, 1_000).unwrap(), 1_000);
    let error = ask(Duration::ZERO, 1_000_000).unwrap_err();
    assert!(matches!(error, QueryError::TooSlow), "{error}");
}

#[test]
fn a_long_answer_comes_in_pieces() {
    let dir = tempfile::tempdir().unwrap();
    let record = open(dir.path());
    let journal = record.journal("worker-0").unwrap();
    let long = "x".repeat(100_000);
    for number in 0..50 {
        let summary = format!("GET /{number}/{long}");
        let _recorded =
            journal.append(&decided(SystemClock.now(), "crm", "http:GET", &summary, Verdict::Allow)).unwrap();
    }
    record.flush(SOON).unwrap();
    let reader = record.reader().unwrap();
    let (mut search, mut pieces, mut all) = (text("get"), 0, Vec::new());
    loop {
        let piece = reader.search(&search).unwrap();
        pieces += 1;
        all.extend(piece.hits.into_iter().map(|hit| hit.operation.operation));
        search.before = piece.next;
        if piece.next.is_none() {
            break;
        }
    }
    assert!(pieces > 2, "{pieces}");
    let count = all.len();
    all.dedup();
    assert_eq!((count, all.len()), (50, 50));
}

#[test]
fn an_index_that_was_changed_is_found_by_verify() {
    let dir = tempfile::tempdir().unwrap();
    let (record, _) = five(dir.path());
    let path = record.database().to_owned();
    drop(record);
    assert_eq!(verify(&path).unwrap().fault, None);
    let db = Connection::open(&path).unwrap();
    db.execute(
        "INSERT INTO search (search, rowid, text, tags) SELECT 'delete', seq, summary, '' FROM operations LIMIT 1",
        [],
    )
    .unwrap();
    drop(db);
    let fault = verify(&path).unwrap().fault.expect("it shows");
    assert!(fault.what.contains("the full-text index"), "{fault:?}");
}

proptest! {
    /// No text can be more than words to look for.
    #[test]
    fn no_text_breaks_the_question(words in "[\"'*():^+\\-{}a-z0-9\\x00 \\pM\\pN]{0,12}(AND|OR|NOT|NEAR|text|tags)?[\"*:({]{0,3}") {
        thread_local! {
            static RECORD: (tempfile::TempDir, Record) = {
                let dir = tempfile::tempdir().unwrap();
                let record = five(dir.path()).0;
                (dir, record)
            };
        }
        RECORD.with(|(_, record)| {
            let answer = record.reader().unwrap().search(&text(&words));
            prop_assert!(matches!(answer, Ok(_) | Err(QueryError::Nothing | QueryError::TooBroad)), "{words:?}: {answer:?}");
            Ok(())
        })?;
    }
}

/// Lists and searches stay under 100 ms at a million operations. `INTERCEPTOR_LONG` makes the million; else it is 20,000.
#[test]
fn lists_and_searches_are_quick() {
    let count = if std::env::var_os("INTERCEPTOR_LONG").is_some() { 1_000_000 } else { 20_000 };
    let dir = tempfile::tempdir().unwrap();
    let record = open(dir.path());
    crowd(&record, count);
    let reader = record.reader().unwrap();
    let some = |text: &str| Some(text.to_owned());
    let limit = 50;
    let middle: Timestamp = "2026-03-01T00:00:00Z".parse().unwrap();
    let middle = middle + Duration::from_millis(500 * count);
    let searches = [
        ("a word that all have", text("users")),
        ("a word that one has", text("user77")),
        ("a word that none has", text("nobody")),
        ("two words that all have", text("get users")),
        ("a path", text("/v1.0/users/user77")),
        ("the beginning of a word", text("user1*")),
        ("a principal that a tenth has", Search { principal: Some(object(3)), limit, ..Search::default() }),
        ("a principal that none is", Search { principal: Some(object(10)), limit, ..Search::default() }),
        ("a principal and a word", Search { principal: Some(object(4)), ..text("even") }),
        ("an initiator that all have", Search { initiator: Some(MUCH), limit, ..Search::default() }),
        ("an initiator that none is", Search { initiator: Some(LITTLE), limit, ..Search::default() }),
        ("an initiator and a word that one has", Search { initiator: Some(MUCH), ..text("user77") }),
        ("a denial, of which there are few", Search { verdict: some("deny"), limit, ..Search::default() }),
        ("words that exclude each other", Search { verdict: some("deny"), ..text("even") }),
        (
            "a workload and a target",
            Search { workload: some("crm-0"), target: some("graph-1"), limit, ..Search::default() },
        ),
        (
            "an hour in the middle",
            Search { since: Some(middle), until: Some(middle + Duration::from_secs(3600)), limit, ..Search::default() },
        ),
        ("a word before the middle", Search { until: Some(middle), ..text("users") }),
        (
            "a denial since the middle",
            Search { since: Some(middle), verdict: some("deny"), limit, ..Search::default() },
        ),
        (
            "all parts",
            Search { action: some("http:GET"), verdict: some("allow"), workload: some("crm-1"), ..text("users") },
        ),
    ];
    let mut slow = Vec::new();
    let mut time = |what: &str, ask: &dyn Fn() -> usize| {
        let mut times = [(); 3].map(|()| {
            let begin = Instant::now();
            let found = ask();
            (begin.elapsed(), found)
        });
        times.sort();
        // The median: other tests share the processors.
        let [_, (median, found), _] = times;
        println!("{count} operations: {what}: {:.1} ms, {found} found", median.as_secs_f64() * 1000.0);
        if median > Duration::from_millis(100) {
            slow.push(what.to_owned());
        }
    };
    for (what, search) in &searches {
        time(what, &|| reader.search(search).unwrap().hits.len());
    }
    time("the list of sessions", &|| reader.sessions(50, None).unwrap().len());
    time("the longest list of sessions", &|| reader.sessions(1_000, None).unwrap().len());
    time("the list of who has nearly all", &|| reader.sessions(50, Some(MUCH)).unwrap().len());
    let few = Cell::new(0);
    time("the list of who has few", &|| {
        few.set(reader.sessions(50, Some(LITTLE)).unwrap().len());
        few.get()
    });
    let last = reader.sessions(1, None).unwrap()[0].session.clone();
    time("a session", &|| reader.session(&last).unwrap().operations.len());
    assert_eq!((slow, few.get()), (Vec::<String>::new(), 3));
}

/// Somebody who launched much, and somebody who launched little.
const MUCH: u32 = 1_000;
const LITTLE: u32 = 1_001;

/// `count` operations of a second each, a thousand a session, past the journal. Before them come sessions without any: three of
/// somebody who has no others, and a tenth of `count` of who has all the others.
fn crowd(record: &Record, count: u64) {
    let mut db = Connection::open(record.database()).unwrap();
    let begin: Timestamp = "2026-03-01T00:00:00Z".parse().unwrap();
    let (launch, little) = (LaunchId::new(), LaunchId::new());
    let mut seq = 0;
    let mut put = |db: &Connection, event: &Event| {
        seq += 1;
        // What of a verdict only its event has is read from there.
        let body = serde_json::to_string(event).unwrap();
        db.prepare_cached("INSERT INTO events (seq, at, kind, hash, body) VALUES (?1, ?2, '', zeroblob(32), ?3)")
            .unwrap()
            .execute(params![projection::integer(seq), event.at.to_string(), body])
            .unwrap();
        projection::apply(db, seq, event).unwrap();
    };
    let transaction = db.transaction().unwrap();
    for (launch, initiator) in [(launch, MUCH), (little, LITTLE)] {
        put(&transaction, &started(begin, launch, initiator));
    }
    for number in 0..count / 10 {
        let launch = if number < 3 { little } else { launch };
        put(&transaction, &opened(begin, SessionId::new(), launch, 0));
    }
    transaction.commit().unwrap();
    for part in 0..count.div_ceil(1_000) {
        let transaction = db.transaction().unwrap();
        let session = SessionId::new();
        put(&transaction, &opened(begin + Duration::from_secs(part * 1_000), session, launch, part));
        for number in part * 1_000..((part + 1) * 1_000).min(count) {
            let at = begin + Duration::from_secs(number);
            let verdict = if number % 2 == 1 { Verdict::Deny } else { Verdict::Allow };
            let parity = if number % 2 == 1 { "odd" } else { "even" };
            let summary = format!("GET /v1.0/users/user{number}/{parity}");
            let mut event = decided(at, &format!("crm-{}", part % 7), "http:GET", &summary, verdict);
            if let What::OperationDecided { session: of, target, initiator, identity, .. } = &mut event.what {
                *of = Some(session);
                *target = Some(format!("graph-{}", number % 3).parse().unwrap());
                *initiator = Some(MUCH);
                *identity = Some(Box::new(who(number % 10)));
            }
            put(&transaction, &event);
        }
        transaction.commit().unwrap();
    }
}

fn started(at: Timestamp, launch: LaunchId, initiator: u32) -> Event {
    let what = What::WorkloadStarted {
        launch,
        workload: "crm-0".parse().unwrap(),
        initiator,
        loginuid: None,
        uid: initiator,
        pid: 7,
        command: "/usr/bin/crm-mcp".into(),
        containment: "contained".into(),
    };
    Event { at, what }
}

fn opened(at: Timestamp, session: SessionId, launch: LaunchId, part: u64) -> Event {
    let what = What::SessionOpened {
        session,
        launch,
        workload: format!("crm-{}", part % 7).parse().unwrap(),
        process: None,
        original: "198.18.0.1:443".parse().unwrap(),
        host: Some("graph.microsoft.com".parse().unwrap()),
        target: None,
    };
    Event { at, what }
}

fn object(number: u64) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

fn who(number: u64) -> Identity {
    Identity {
        principal: format!("72f988bf-86f1-41af-91ab-2d7cd011db47/{}", object(number)).parse().unwrap(),
        kind: PrincipalKind::ServicePrincipal,
        client: None,
        authentic: Authentic::Issuer,
        bound: Bound::IssuedHere,
        token: "ab".repeat(32).parse().unwrap(),
        uti: None,
    }
}
