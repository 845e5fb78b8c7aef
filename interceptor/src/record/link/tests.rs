use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::clock::{Clock, SystemClock};
use crate::config::{Durability, RecordSettings};
use crate::ids::{LaunchId, OperationId};
use crate::policy::Basis;
use crate::record::event::{Event, Verdict, What};
use crate::record::{Journal, Record};

fn open(dir: &std::path::Path) -> (Record, Journal) {
    let settings = RecordSettings {
        durability: Durability::Process,
        segment_bytes: 1 << 20,
        backlog_bytes: 64 << 20,
        backlog_age: Duration::from_secs(30),
        reserve: 0,
        ..RecordSettings::default()
    };
    let record = Record::open(dir, &settings, Arc::new(SystemClock)).expect("the record opens");
    let journal = record.journal("control").expect("a journal");
    (record, journal)
}

fn decide(journal: &Journal, summary: &str) -> OperationId {
    let operation = OperationId::new();
    let what = What::OperationDecided {
        operation,
        session: None,
        launch: LaunchId::new(),
        workload: "crm".parse().expect("a name"),
        target: None,
        action: "dns:resolve".into(),
        summary: summary.into(),
        verdict: Verdict::Deny,
        code: Some("not-a-target".into()),
        basis: Box::new(Basis::default()),
        initiator: None,
        credential: None,
        identity: None,
        approval: None,
    };
    let _recorded = journal.append(&Event { at: SystemClock.now(), what }).expect("it is recorded");
    operation
}

#[test]
fn an_operation_s_event_proves_its_place_in_the_chain() {
    let dir = tempfile::tempdir().expect("a folder");
    let (record, journal) = open(dir.path());
    let (first, second) = (decide(&journal, "look up a.example A"), decide(&journal, "look up b.example A"));
    record.flush(Duration::from_secs(10)).expect("it is moved");
    let reader = record.reader().expect("a reader");
    let Placed { link: one, chain } = reader.link_of(&first.to_string()).expect("a link");
    assert_eq!(chain, one.hash, "a chain is known by its first event");
    let Placed { link: other, chain } = reader.link_of(&second.to_string()).expect("a link");
    assert_eq!(chain, one.hash);
    assert_eq!((one.seq, one.previous.as_str()), (1, "0".repeat(64).as_str()));
    assert!(one.body.contains("a.example") && one.holds());
    assert_eq!((other.seq, &other.previous), (2, &one.hash));
    assert!(other.holds());
    assert!(!Link { body: other.body.replace("b.example", "c.example"), ..other.clone() }.holds());
    assert!(!Link { seq: 3, ..other.clone() }.holds());
    assert!(!Link { previous: other.hash.clone(), ..other }.holds());
    assert!(matches!(reader.link_of("op_01kgz0000000000000000000cc"), Err(QueryError::Unknown(_))));
}
