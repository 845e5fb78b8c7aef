//! Databases of earlier schemas.

use rusqlite::Connection;

use super::super::event::Spent;
use super::super::payload::Message;
use super::super::search::{Hits, Search};
use super::*;
use crate::ids::GrantId;

/// Makes of a closed record what an earlier version would have: the same events, and what it derived from them.
fn earlier(path: &Path, version: usize) {
    let new = path.with_extension("new");
    std::fs::rename(path, &new).unwrap();
    let mut db = Connection::open(path).unwrap();
    // What the search index is filled from was in the table of operations up to schema 6.
    store::older(&mut db, version.min(6)).unwrap();
    db.execute("ATTACH ?1 AS new", [new.to_str().unwrap()]).unwrap();
    let columns = |schema: &str, table: &str| -> Vec<String> {
        let sql = format!("SELECT name FROM pragma_table_info('{table}', '{schema}')");
        db.prepare(&sql).unwrap().query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    let list = "SELECT name FROM main.sqlite_master WHERE type = 'table' AND name NOT LIKE 'search%'";
    let tables: Vec<String> =
        db.prepare(list).unwrap().query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    for table in tables {
        // Earlier versions told what was kept of an operation in a table of its own.
        let source = if table == "contents" { "operations" } else { &table };
        let there = columns("new", source);
        let from_event = |column: &str| match column {
            "digest" | "bytes" => format!("t.kept_{column}"),
            "basis" | "identity" => format!("body -> '$.{column}'"),
            "principal" => "body ->> '$.identity.principal'".into(),
            _ => "body ->> '$.identity.client'".into(),
        };
        let columns = columns("main", &table);
        let values = columns
            .iter()
            .map(|column| if there.contains(column) { format!("t.{column}") } else { from_event(column) });
        let events = match table.as_str() {
            "operations" => "JOIN new.events e ON e.seq = t.seq",
            "contents" => "WHERE kept_digest IS NOT NULL",
            _ => "",
        };
        let values = values.collect::<Vec<_>>().join(", ");
        let columns = columns.join(", ");
        db.execute_batch(&format!("INSERT INTO main.{table} ({columns}) SELECT {values} FROM new.{source} t {events}"))
            .unwrap();
    }
    if version >= 4 {
        db.execute(search::FILL, []).unwrap();
    }
    db.execute("DETACH new", []).unwrap();
    store::older(&mut db, version).unwrap();
    drop(db);
    std::fs::remove_file(new).unwrap();
}

/// The end of an operation under a grant of bytes, by a change of policy.
fn cut_off(operation: OperationId, id: GrantId) -> Event {
    let mut event = finished(operation);
    if let What::OperationFinished { outcome, policies, spent, .. } = &mut event.what {
        *outcome = "policy-changed".into();
        *policies = vec!["no-more".into()];
        *spent = Some(Spent { grant: id, bytes: 7, rows: 2 });
    }
    event
}

#[test]
fn a_record_of_an_earlier_version_is_brought_up_to_date() {
    for version in [3, 4, 5, 6, 7, 8, 9] {
        let dir = tempfile::tempdir().unwrap();
        let record = open(dir.path());
        let journal = record.journal("worker-0").unwrap();
        let (session, ..) = a_session(&journal);
        let (_, read, _) = a_session(&journal);
        let (cut, grant) = (OperationId::new(), GrantId::new());
        let _recorded = journal.append(&decided(cut, Some(session), LaunchId::new(), Verdict::Allow)).unwrap();
        let _recorded = journal.append(&cut_off(cut, grant)).unwrap();
        let key = record.keys().new_session(session).unwrap();
        let content =
            Content { request: Message { start: "GET / HTTP/1.1".into(), ..Message::default() }, response: None };
        keep(&journal, &key, session, &content);
        let shut = SessionId::new();
        let policies = vec!["no-more".to_owned(), "a\"b".to_owned()];
        let closed = What::SessionClosed { session: shut, reason: "policy-changed".into(), policies: policies.clone() };
        for event in [opened(shut, LaunchId::new()), event(closed)] {
            let _recorded = journal.append(&event).unwrap();
        }
        record.flush(SOON).unwrap();
        let all = |record: &Record| {
            let reader = record.reader().unwrap();
            let search = Search { text: Some("users readers".into()), limit: 9, ..Search::default() };
            let Hits { hits, .. } = reader.search(&search).unwrap();
            (hits, reader.sessions(9, None).unwrap())
        };
        let before = all(&record);
        assert_eq!(before.0.len(), 6);
        let spent = |operation: OperationId| {
            let found = before.0.iter().find(|hit| hit.operation.operation == operation.to_string()).unwrap();
            (found.operation.spent, found.operation.cut_by.len())
        };
        assert_eq!(spent(cut), (Some(Spent { grant, bytes: 7, rows: 2 }), 1));
        assert_eq!(spent(read), (None, 0));
        assert!(before.0.iter().any(|hit| hit.operation.payload.is_some()));
        let cut_by = |session: SessionId| {
            let found = before.1.iter().find(|one| one.session == session.to_string()).unwrap();
            found.cut_by.clone()
        };
        assert_eq!((cut_by(shut), cut_by(session)), (policies, Vec::new()));
        let path = record.database().to_owned();
        drop(journal);
        drop(record);
        earlier(&path, version);
        if version == 9 {
            let report = verify(&path).unwrap();
            assert!(report.ok, "as it is: {:?}", report.fault);
            assert!(report.notes.iter().any(|note| note.contains("schema 9")), "{:?}", report.notes);
        }
        let record = open(dir.path());
        assert_eq!(all(&record), before, "version {version}");
        let report = verify(&path).unwrap();
        assert!(report.ok, "version {version}: {:?}", report.fault);
    }
}

#[test]
fn tables_that_no_version_makes_are_found_whatever_the_schema() {
    // A column that is computed isn't among those that are compared with the events.
    let hidden = "ALTER TABLE operations DROP COLUMN outcome;
                  ALTER TABLE operations ADD COLUMN outcome TEXT AS ('done') VIRTUAL;";
    let lowered = format!("{hidden} PRAGMA user_version = 9;");
    let newest = usize::try_from(store::known_schema()).unwrap();
    let cases = [
        (8, hidden, "table operations"),
        (9, hidden, "table operations"),
        (9, "DROP INDEX operations_by_session", "index operations_by_session"),
        (9, "CREATE VIEW more AS SELECT * FROM sessions", "view more"),
        (newest, lowered.as_str(), "table operations"),
        (newest, "PRAGMA user_version = 9", "table sessions"),
        (newest, "PRAGMA user_version = -1", "index "),
    ];
    for (version, sql, what) in cases {
        let dir = tempfile::tempdir().unwrap();
        let record = open(dir.path());
        let journal = record.journal("worker-0").unwrap();
        a_session(&journal);
        let path = record.database().to_owned();
        drop(journal);
        drop(record);
        if version < newest {
            earlier(&path, version);
        }
        let report = verify(&path).unwrap();
        assert!(report.ok, "version {version} as it is: {:?}", report.fault);
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        let fault = verify(&path).unwrap().fault.expect("it is found");
        let named = format!("the schema isn't what this version makes: {what}");
        assert!(fault.what.starts_with(&named), "version {version}, {sql}: {fault:?}");
    }
}

#[test]
fn a_record_of_an_earlier_version_is_listed_and_shown_as_it_is() {
    for version in 1..=9 {
        let dir = tempfile::tempdir().unwrap();
        let record = open(dir.path());
        let journal = record.journal("worker-0").unwrap();
        a_session(&journal);
        let (launch, session, cut) = (LaunchId::new(), SessionId::new(), OperationId::new());
        let mut end = cut_off(cut, GrantId::new());
        if let What::OperationFinished { service_request, .. } = &mut end.what {
            *service_request = Some("req-1".into());
        }
        let allowed = decided(cut, Some(session), launch, Verdict::Allow);
        for event in [started(launch), opened(session, launch), allowed, end] {
            let _recorded = journal.append(&event).unwrap();
        }
        let key = record.keys().new_session(session).unwrap();
        let content =
            Content { request: Message { start: "GET / HTTP/1.1".into(), ..Message::default() }, response: None };
        keep(&journal, &key, session, &content);
        let reason = "policy-changed".to_owned();
        let closed = What::SessionClosed { session, reason, policies: vec!["no-more".into()] };
        let _recorded = journal.append(&event(closed)).unwrap();
        record.flush(SOON).unwrap();
        let reader = record.reader().unwrap();
        let mut listed = reader.sessions(9, None).unwrap();
        let mut story = reader.session(&session.to_string()).unwrap();
        assert!(story.launch.is_some() && !story.session.cut_by.is_empty() && !story.session.principals.is_empty());
        assert!(story.operations.len() == 2 && story.operations.iter().any(|one| one.payload.is_some()));
        let path = record.database().to_owned();
        drop(reader);
        drop(journal);
        drop(record);
        earlier(&path, version);

        // What a schema doesn't have is left out, and nothing else.
        for session in listed.iter_mut().chain([&mut story.session]) {
            session.cut_by.clear();
            if version < 2 {
                session.principals.clear();
            }
        }
        for operation in &mut story.operations {
            if version < 9 {
                (operation.spent, operation.cut_by) = (None, Vec::new());
            }
            if version < 5 {
                operation.service_request = None;
            }
            if version < 3 {
                operation.masked.clear();
            }
            if version < 2 {
                (operation.initiator, operation.credential, operation.payload) = (None, None, None);
            }
        }
        let reader = query::Reader::open(&path).unwrap();
        assert_eq!(reader.sessions(9, None).unwrap(), listed, "version {version}");
        assert_eq!(reader.sessions(9, Some(1000)).unwrap(), listed, "version {version}");
        assert_eq!(reader.session(&session.to_string()).unwrap(), story, "version {version}");
        let operation = reader.operation(&cut.to_string()).unwrap();
        assert_eq!(operation, story.operations[0], "version {version}");
        if version >= 4 {
            let search = Search { text: Some("users readers".into()), limit: 9, ..Search::default() };
            assert_eq!(reader.search(&search).unwrap().hits.len(), 4, "version {version}");
        }
    }
}
