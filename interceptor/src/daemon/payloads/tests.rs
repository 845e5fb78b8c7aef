use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::clock::SystemClock;
use crate::config::RecordSettings;
use crate::control::protocol::Response;
use crate::ids::ApprovalId;

#[test]
fn who_cant_be_recorded_reads_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let settings = RecordSettings { reserve: 0, ..RecordSettings::default() };
    let record = Record::open(dir.path(), &settings, Arc::new(SystemClock)).unwrap();
    let journal = OwnJournal::new(record.journal("control").unwrap(), Arc::new(SystemClock));
    let reading = What::ApprovalRead { approval: ApprovalId::new(), uid: 1000, pid: 7 };
    assert!(note(&journal, reading.clone()).is_ok());
    record.flush(Duration::from_secs(10)).unwrap();
    assert_eq!(record.health().seq, 1, "it is recorded");
    drop(record);
    let refused = note(&journal, reading).unwrap_err();
    assert!(matches!(refused.response, Response::Refused { code, .. } if code == "record-unavailable"));
}
