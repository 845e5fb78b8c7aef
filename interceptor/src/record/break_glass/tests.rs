use std::time::Duration;

use crate::clock::{Clock, SystemClock};
use crate::ids::BreakGlassId;
use crate::policy::BreakGlass;
use crate::record::event::{Event, What};
use crate::record::tests::open;
use crate::record::verify;

#[test]
fn what_lasts_comes_first_and_what_is_closed_only_with_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let record = open(dir.path());
    let journal = record.journal("control").unwrap();
    let note = |what| {
        let _recorded = journal.append(&Event { at: SystemClock.now(), what }).unwrap();
    };
    let ids: Vec<BreakGlassId> = (0..3).map(|_| BreakGlassId::new()).collect();
    for id in &ids {
        let (workload, until, reason) = ("crm".parse().unwrap(), SystemClock.now(), "so".to_owned());
        note(What::BreakGlassStarted {
            broken: Box::new(BreakGlass { id: *id, workload, until, reason, loginuid: None }),
            by: 0,
        });
    }
    for id in &ids[1..] {
        note(What::BreakGlassEnded { id: *id, reason: "stopped".into(), by: Some(0) });
    }
    note(What::BreakGlassClosed { id: ids[2], by: 7, note: "fine".into() });
    record.flush(Duration::from_secs(10)).unwrap();
    let reader = record.reader().unwrap();
    let list = |all, limit| reader.broken(all, limit).unwrap().iter().map(|one| one.broken.id).collect::<Vec<_>>();
    assert_eq!(list(false, 10), [ids[0], ids[1]]);
    assert_eq!(list(true, 10), [ids[0], ids[2], ids[1]]);
    assert_eq!(list(false, 1), [ids[0]], "what lasts is never hidden");
    let closed = reader.broken_of(&ids[2].to_string()).unwrap();
    assert_eq!((closed.closed_by, closed.note.as_deref()), (Some(7), Some("fine")));
    assert!(verify(record.database()).unwrap().ok);
}
