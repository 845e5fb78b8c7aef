use std::fs;

use rusqlite::Connection;

use super::*;
use crate::clock::{Clock, SystemClock};
use crate::config::RecordSettings;
use crate::record::event::{Event, What};
use crate::record::tests::{open, settings};
use crate::record::{Evidence, Record, verify, verify_with};

/// What the default of [`RecordSettings::checkpoint_age`] is, as `docs/record.md` says it.
const PATIENCE: Duration = Duration::from_secs(60);

const SOON: Duration = Duration::from_secs(10);

fn note(record: &Record, count: u64) {
    append(record, "control", count);
    record.flush(SOON).expect("it is moved");
}

fn append(record: &Record, journal: &str, count: u64) {
    let journal = record.journal(journal).expect("a journal");
    for _ in 0..count {
        let what = What::DaemonStopped { reason: "SIGTERM".into() };
        let _recorded = journal.append(&Event { at: SystemClock.now(), what }).expect("it is recorded");
    }
}

/// A closed record of `runs` daemons, each of which noted three events and left a checkpoint.
fn written(runs: u64) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a folder");
    for _ in 0..runs {
        note(&open(dir.path()), 3);
    }
    let path = dir.path().join("record.db");
    (dir, path)
}

fn lines(dir: &tempfile::TempDir) -> Vec<String> {
    fs::read_to_string(dir.path().join("checkpoints")).expect("checkpoints").lines().map(str::to_owned).collect()
}

/// The most events that lie between two checkpoints, or before the first or behind the last one of `end` events.
fn longest_gap(dir: &tempfile::TempDir, end: u64) -> u64 {
    let seq = |line: &String| serde_json::from_str::<Checkpoint>(line).expect("a checkpoint").seq;
    let seqs: Vec<u64> = [0].into_iter().chain(lines(dir).iter().map(seq)).chain([end]).collect();
    seqs.windows(2).map(|two| two[1] - two[0]).max().expect("two at least")
}

/// What `verify` finds when the file holds these lines.
fn fault_of(dir: &tempfile::TempDir, lines: &[String]) -> String {
    fs::write(dir.path().join("checkpoints"), format!("{}\n", lines.join("\n"))).expect("it is written");
    let report = verify(&dir.path().join("record.db")).expect("a report");
    assert!(!report.ok);
    report.fault.expect("a fault").what
}

#[test]
fn what_a_daemon_recorded_is_signed_when_it_stops() {
    let (_dir, path) = written(3);
    let report = verify(&path).unwrap();
    assert_eq!(report.fault, None);
    let anchored = report.checkpoints.expect("checkpoints");
    assert_eq!((anchored.count, anchored.seq, anchored.uncovered), (3, 9, None));
    assert_eq!(Some(anchored.key), public_key(&path));
}

#[test]
fn a_thousand_events_or_a_minute_make_one_due_and_none_without_events() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(RecordSettings::default().checkpoint_age, PATIENCE);
    let (mut signer, end) = Signer::open(&dir.path().join("record.db"), PATIENCE).unwrap();
    assert_eq!(end, Ok(None));
    let now = Instant::now();
    let at = |seq| Head { seq, hash: [7; 32] };
    assert_eq!(signer.due(at(0), now), None);
    assert_eq!(signer.due(at(1), now), Some((now, now + PATIENCE)));
    let later = now + Duration::from_secs(40);
    assert_eq!(signer.due(at(999), later), Some((now, now + PATIENCE)), "the oldest event counts");
    assert_eq!(signer.due(at(1_000), later), Some((now, later)));
    signer.sign(&[at(1_000)], SystemClock.now()).unwrap();
    assert_eq!(signer.due(at(1_000), later), None);
    assert_eq!(signer.due(at(1_001), later), Some((later, later + PATIENCE)));
}

/// If it didn't, this would wait for ever.
#[test]
fn the_writer_wakes_up_when_a_checkpoint_is_due() {
    let dir = tempfile::tempdir().unwrap();
    let record = open(dir.path());
    let backlog = crate::record::backlog::Backlog::new(&record.settings, dir.path().join("other.db"));
    let (now, soon) = (Instant::now(), Duration::from_millis(50));
    backlog.uncovered(Some((now, now + soon)));
    let _work = backlog.wait();
    assert!(now.elapsed() >= soon);
}

#[test]
fn a_running_daemon_signs_every_thousand_events() {
    let dir = tempfile::tempdir().unwrap();
    let record = open(dir.path());
    // All of them wait until the writer can move them, so that it takes thousands at once.
    let other = Connection::open(record.database()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    for worker in 0..4 {
        append(&record, &format!("worker-{worker}"), 2_500);
    }
    other.execute_batch("ROLLBACK").unwrap();
    record.flush(SOON).unwrap();
    assert!(longest_gap(&dir, 10_000) <= EVENTS, "{:?}", lines(&dir));
    assert!(record.health().checkpoint_age_ms < 60_000);
    drop(record);
    let report = verify(&dir.path().join("record.db")).unwrap();
    assert_eq!((report.fault, report.checkpoints.unwrap().seq), (None, 10_000));
}

/// A daemon that was killed before it signed what it had moved, or whose checkpoints are gone.
#[test]
fn what_an_earlier_daemon_left_unsigned_is_signed_every_thousand_events() {
    let dir = tempfile::tempdir().unwrap();
    note(&open(dir.path()), 2_500);
    std::fs::remove_file(dir.path().join("checkpoints")).unwrap();
    drop(open(dir.path()));
    assert!(longest_gap(&dir, 2_500) <= EVENTS, "{:?}", lines(&dir));
    let report = verify(&dir.path().join("record.db")).unwrap();
    assert_eq!((report.fault, report.checkpoints.unwrap().seq), (None, 2_500));
}

#[test]
fn a_single_event_of_a_running_daemon_is_signed_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoint_age = Duration::from_millis(300);
    let settings = RecordSettings { checkpoint_age, ..settings() };
    let record = Record::open(dir.path(), &settings, std::sync::Arc::new(SystemClock)).unwrap();
    let begin = Instant::now();
    note(&record, 1);
    let file = dir.path().join("checkpoints");
    while !fs::read_to_string(&file).is_ok_and(|text| text.ends_with('\n')) {
        assert!(begin.elapsed() < SOON, "nothing is signed while nothing else happens");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(begin.elapsed() >= checkpoint_age, "what comes meanwhile has the same one");
    assert!(begin.elapsed() < checkpoint_age + Duration::from_secs(8), "{:?}", begin.elapsed());
    let anchored = verify(record.database()).unwrap().checkpoints.expect("a checkpoint");
    assert_eq!((anchored.count, anchored.seq, anchored.uncovered), (1, 1, None));
}

#[test]
fn whatever_is_done_to_the_checkpoints_is_found() {
    let (dir, _) = written(3);
    let whole = lines(&dir);
    let changed = |index: usize, from: &str, to: &str| {
        let mut lines = whole.clone();
        lines[index] = lines[index].replacen(from, to, 1);
        lines
    };
    let [one, two, three] = whole.clone().try_into().unwrap();
    let cases = [
        (changed(1, "\"seq\":6", "\"seq\":7"), "in line 2 isn't signed"),
        (changed(1, "20", "21"), "in line 2 "),
        (vec![one.clone(), three.clone()], "in line 2 doesn't follow the line before"),
        (vec![two.clone(), three.clone()], "in line 1 doesn't follow"),
        (vec![one.clone(), three.clone(), two.clone()], "in line 2 doesn't follow"),
        (vec![one.clone(), one.clone(), two.clone()], "in line 2 doesn't follow"),
        (vec![one.clone(), "x".into(), two], "in line 2 isn't one"),
    ];
    for (lines, what) in cases {
        let fault = fault_of(&dir, &lines);
        assert!(fault.contains(what), "{fault}");
    }
}

/// A root who makes the whole chain anew, with `record.head`, can't sign it with a key that he doesn't have. On this host
/// he has it, so the copy that an auditor kept is what shows it.
#[test]
fn a_chain_that_was_made_anew_differs_from_the_kept_checkpoints() {
    let (kept, _) = written(2);
    let key = public_key(&kept.path().join("record.db"));
    let (_forged, path) = written(4);
    assert_eq!(verify(&path).unwrap().fault, None, "it is sound in itself");
    let evidence = Evidence { checkpoints: Some(kept.path().join("checkpoints")), key, previous: None };
    let fault = verify_with(&path, &evidence).unwrap().fault.unwrap();
    assert_eq!(fault.seq, Some(3));
    assert!(fault.what.contains("the chain was made anew"), "{fault:?}");
    let fault = verify_with(&path, &Evidence { checkpoints: None, key, previous: None }).unwrap().fault.unwrap();
    assert!(fault.what.contains("is signed with another key"), "{fault:?}");
}

/// Events, head and all rolled back to an earlier copy: the checkpoints know more.
#[test]
fn a_record_that_was_rolled_back_is_found_and_reported_at_the_next_start() {
    let (dir, path) = written(1);
    let (old, old_head) = (fs::read(&path).unwrap(), fs::read(dir.path().join("record.head")).unwrap());
    note(&open(dir.path()), 3);
    fs::write(&path, old).unwrap();
    fs::write(dir.path().join("record.head"), old_head).unwrap();
    let fault = verify(&path).unwrap().fault.unwrap();
    assert_eq!(fault.seq, Some(4));
    assert!(fault.what.contains("the events from here on are missing: 6 was signed"), "{fault:?}");
    let record = open(dir.path());
    assert_eq!(record.health().damaged, 1);
    drop(record);
    assert!(!verify(&path).unwrap().ok, "what is recorded afterwards doesn't heal it");
}

/// The file grows for ever; what a start takes doesn't.
#[test]
fn a_start_reads_the_end_of_the_checkpoints_only() {
    let (dir, path) = written(1);
    let file = dir.path().join("checkpoints");
    let (mut signer, _) = Signer::open(&path, PATIENCE).unwrap();
    for seq in 4..40 {
        signer.sign(&[Head { seq, hash: [7; 32] }], SystemClock.now()).unwrap();
    }
    let mut text = fs::read(&file).unwrap();
    text[0] = b'x';
    fs::write(&file, text).unwrap();
    let (mut signer, end) = Signer::open(&path, PATIENCE).unwrap();
    assert_eq!(end, Ok(Some(Head { seq: 39, hash: [7; 32] })));
    signer.sign(&[Head { seq: 40, hash: [7; 32] }], SystemClock.now()).unwrap();
    let text = fs::read_to_string(&file).unwrap();
    assert!(Checkpoints::read(text.as_bytes(), None).unwrap_err().contains("in line 1 isn't one"));

    // A last line that was changed is told, and so is a file without lines.
    fs::write(&file, text.replace("\"seq\":40", "\"seq\":41")).unwrap();
    assert!(Signer::open(&path, PATIENCE).unwrap().1.unwrap_err().contains("the last checkpoint isn't signed"));
    fs::write(&file, vec![b'x'; 10_000]).unwrap();
    assert!(Signer::open(&path, PATIENCE).unwrap().1.unwrap_err().contains("too long"));
}

#[test]
fn half_a_line_is_cut_off_and_the_next_one_follows() {
    let (dir, path) = written(1);
    let file = dir.path().join("checkpoints");
    let mut text = fs::read(&file).unwrap();
    text.extend_from_slice(b"{\"seq\":9");
    fs::write(&file, text).unwrap();
    let report = verify(&path).unwrap();
    assert_eq!(report.fault, None);
    assert!(report.notes.iter().any(|note| note.contains("was cut off")), "{:?}", report.notes);
    note(&open(dir.path()), 3);
    let report = verify(&path).unwrap();
    assert_eq!((report.fault, report.checkpoints.unwrap().count), (None, 2));
}

#[test]
fn a_copy_says_what_it_can_not_prove() {
    let (dir, path) = written(1);
    let copy = tempfile::tempdir().unwrap();
    let there = copy.path().join("record.db");
    fs::copy(&path, &there).unwrap();
    let notes = verify(&there).unwrap().notes.join("; ");
    assert!(notes.contains("there are no checkpoints"), "{notes}");
    let evidence = Evidence { checkpoints: Some(dir.path().join("checkpoints")), key: None, previous: None };
    let notes = verify_with(&there, &evidence).unwrap().notes.join("; ");
    assert!(notes.contains("`--key`"), "{notes}");
    let missing = Evidence { checkpoints: Some(copy.path().join("none")), key: None, previous: None };
    assert!(verify_with(&there, &missing).is_err());
}

#[test]
fn what_no_checkpoint_covers_is_named() {
    let (dir, path) = written(1);
    let kept = tempfile::tempdir().unwrap();
    let old = kept.path().join("kept-checkpoints");
    fs::copy(dir.path().join("checkpoints"), &old).unwrap();
    note(&open(dir.path()), 4);
    assert_eq!(verify(&path).unwrap().uncovered, None, "all are signed by then");
    // A copy of the database, with checkpoints that were kept earlier, and without any.
    let copy = kept.path().join("record.db");
    fs::copy(&path, &copy).unwrap();
    let key = public_key(&path);
    let report = verify_with(&copy, &Evidence { checkpoints: Some(old), key, previous: None }).unwrap();
    assert!(report.ok, "{report:?}");
    assert_eq!(report.uncovered, Some((4, 7)));
    assert_eq!(report.checkpoints.map(|anchored| (anchored.seq, anchored.uncovered)), Some((3, Some((4, 7)))));
    let report = verify(&copy).unwrap();
    assert_eq!((report.checkpoints, report.uncovered), (None, Some((1, 7))));
}

/// What is signed, as `docs/record.md` defines it, checked without the code under test.
#[test]
fn an_auditor_can_check_a_signature() {
    let (dir, path) = written(1);
    let line: serde_json::Value = serde_json::from_str(&lines(&dir)[0]).unwrap();
    let text = |name: &str| line[name].as_str().unwrap().to_owned();
    let signed = format!(
        "interceptor record v1 checkpoint\n{}\n{}\n{}\n{}\n{}\n",
        line["seq"],
        text("hash"),
        text("at"),
        text("previous"),
        text("key")
    );
    let bytes = |text: String| -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    };
    let key = UnparsedPublicKey::new(&ED25519, bytes(text("key")));
    key.verify(signed.as_bytes(), &bytes(text("signature"))).unwrap();
    let db = Connection::open(&path).unwrap();
    let hash: String = db.query_row("SELECT lower(hex(hash)) FROM events WHERE seq = 3", [], |row| row.get(0)).unwrap();
    assert_eq!(hash, text("hash"));
}
