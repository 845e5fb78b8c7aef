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
