use std::time::Duration;

use super::super::segment::{FRAME_HEADER, SegmentId};
use super::*;
use crate::clock::{Clock, SystemClock};
use crate::record::Event;
use crate::record::event::What;
use crate::record::tests::open;

/// A segment with an event, as a killed daemon leaves it.
fn leave(folder: &Path) -> PathBuf {
    let id = SegmentId { journal: ulid::Ulid::generate(), index: 0 };
    let what = What::RecordDamaged { place: "nowhere".into(), detail: "a test".into() };
    let mut frame = vec![0; FRAME_HEADER];
    serde_json::to_writer(&mut frame, &Event { at: SystemClock.now(), what }).unwrap();
    segment::seal(id, HEADER, &mut frame);
    let path = folder.join("journal").join(format!("worker-1-{id}.seg"));
    fs::write(&path, [&segment::header(id)[..], &frame[..], &[0; 4096][..]].concat()).unwrap();
    path
}

fn is_in(waiting: &Waiting, database: &Path) -> bool {
    waiting.is_in(&Reader::open(database).unwrap()).unwrap()
}

#[test]
fn what_a_killed_daemon_left_waits_for_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let record = open(dir.path());
    let database = record.database().to_owned();
    let journal = record.journal("worker-0").unwrap();
    let what = What::RecordDamaged { place: "nowhere".into(), detail: "a test".into() };
    let _recorded = journal.append(&Event { at: SystemClock.now(), what }).unwrap();
    let own = Waiting::beside(&database).unwrap();
    record.flush(Duration::from_secs(10)).unwrap();
    assert!(is_in(&own, &database), "its own writer has moved it");
    assert!(is_in(&Waiting::beside(&database).unwrap(), &database), "room that is taken and empty is no event");

    let path = leave(dir.path());
    let left = Waiting::beside(&database).unwrap();
    assert!(!is_in(&left, &database));
    // What was recorded later isn't waited for.
    assert!(is_in(&own, &database));
    // Of another database it says nothing.
    let aside = dir.path().join("record-2026.db");
    fs::copy(&database, &aside).unwrap();
    assert!(is_in(&Waiting::beside(&aside).unwrap(), &database));

    drop(journal);
    drop(record);
    assert!(!is_in(&Waiting::beside(&database).unwrap(), &database), "nobody has read it yet");
    drop(open(dir.path()));
    assert!(!path.exists() && is_in(&left, &database));
}

#[test]
fn what_is_no_segment_holds_nothing_up() {
    let dir = tempfile::tempdir().unwrap();
    let record = open(dir.path());
    let folder = dir.path().join("journal");
    fs::write(folder.join("a.seg"), b"short").unwrap();
    fs::write(folder.join("b.seg"), [7; 4096]).unwrap();
    fs::write(folder.join("c.damaged"), [7; 4096]).unwrap();
    assert!(is_in(&Waiting::beside(record.database()).unwrap(), record.database()));
    let nowhere = Waiting::beside(&dir.path().join("elsewhere/record.db")).unwrap();
    assert!(is_in(&nowhere, record.database()));
}
