use jiff::Timestamp;
use proptest::prelude::*;

use super::super::super::event::{Kept, Payload, Spent};
use super::super::super::store;
use super::super::{TABLES, apply};
use super::*;
use crate::ids::{GrantId, LaunchId};
use crate::policy::Basis;

/// A few ids of each kind, so that events meet.
struct Ids {
    operations: Vec<OperationId>,
    sessions: Vec<SessionId>,
    grant: GrantId,
    launch: LaunchId,
}

fn event(ids: &Ids, number: usize, (kind, one, other): (u8, usize, usize)) -> Event {
    let at = Timestamp::from_second(1_767_000_000 + 20 * number as i64).unwrap();
    let (operation, session) = (ids.operations[one], ids.sessions[other]);
    let what = match kind {
        0 => What::SessionOpened {
            session,
            launch: ids.launch,
            workload: "crm".parse().unwrap(),
            process: None,
            original: "198.18.0.1:443".parse().unwrap(),
            host: (one % 2 == 0).then(|| format!("host{number}.example").parse().unwrap()),
            target: None,
        },
        1 => What::SessionClosed { session, reason: "done".into(), policies: Vec::new() },
        2..=4 => What::OperationFinished {
            operation,
            outcome: format!("done{number}"),
            policies: Vec::new(),
            status: Some(200),
            request: Payload::default(),
            response: Payload { bytes: 7, digest: Some("ab".into()) },
            masked: BTreeMap::new(),
            spent: (other == 0).then_some(Spent { grant: ids.grant, bytes: 3, rows: 1 }),
            service_request: None,
            kept: (one % 2 == 0).then(|| Kept { bytes: 7, digest: format!("{number}") }),
        },
        5 => What::PayloadRecorded { operation, session, digest: format!("{number}"), bytes: 7 },
        6 => What::SessionHeld { session, held: true, uid: 0, pid: 1 },
        7 => What::GrantEnded { grant: ids.grant, reason: "revoked".into(), by: None },
        _ => What::OperationDecided {
            operation,
            session: (other > 0).then_some(session),
            launch: ids.launch,
            workload: "crm".parse().unwrap(),
            target: (one % 2 == 0).then(|| "graph".parse().unwrap()),
            action: if one == 0 { "connect".into() } else { "http:GET".into() },
            summary: format!("GET /{number}"),
            verdict: if number.is_multiple_of(3) { Verdict::Deny } else { Verdict::Allow },
            code: None,
            basis: Box::new(Basis {
                reasons: vec!["so it is".into(); one],
                grant: (other == 1).then_some(ids.grant),
                ..Basis::default()
            }),
            initiator: Some(7),
            credential: None,
            identity: None,
            approval: None,
        },
    };
    Event { at, what }
}

/// All rows of all tables, and the words of the index.
fn dump(db: &Connection) -> String {
    db.execute_batch("CREATE VIRTUAL TABLE temp.words USING fts5vocab(main, search, instance)").unwrap();
    let mut text = String::new();
    for table in TABLES.iter().map(|(table, _)| *table).chain(["temp.words"]) {
        let mut statement = db.prepare(&format!("SELECT * FROM {table}")).unwrap();
        let width = statement.column_count();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            text += &format!("\n{table}");
            (0..width).for_each(|column| text += &format!(" {:?}", row.get_ref(column).unwrap()));
        }
    }
    text
}

proptest! {
    #[test]
    fn batches_make_the_rows_that_single_events_make(
        kinds in prop::collection::vec((0..14_u8, 0..4_usize, 0..3_usize), 0..60),
        size in 1..20_usize,
    ) {
        let ids = Ids {
            operations: std::iter::repeat_with(OperationId::new).take(4).collect(),
            sessions: std::iter::repeat_with(SessionId::new).take(3).collect(),
            grant: GrantId::new(),
            launch: LaunchId::new(),
        };
        let events: Vec<Event> =
            kinds.into_iter().enumerate().map(|(number, kind)| event(&ids, number, kind)).collect();
        let empty = || store::empty(store::known_schema()).unwrap();
        let (single, batched) = (empty(), empty());
        for db in [&single, &batched] {
            db.execute("INSERT INTO grants (id, seq, issued, issued_at, used) VALUES (?1, 0, '', '', 0)", [ids.grant.to_string()]).unwrap();
        }
        let numbered: Vec<(u64, &Event)> = (1..).zip(&events).collect();
        for (seq, event) in &numbered {
            apply(&single, *seq, event).unwrap();
        }
        for batch in numbered.chunks(size) {
            let mut rows = Rows::new(&batched);
            for (seq, event) in batch {
                rows.apply(*seq, event).unwrap();
            }
            rows.write().unwrap();
        }
        prop_assert_eq!(dump(&batched), dump(&single));
    }
}
