//! Sinks over a whole record: what a receiver has, in which order, and what becomes of failures and restarts.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::fixture::{Answer, Receiver, dialing};
use super::*;
use crate::clock::SystemClock;
use crate::config::{Anchor, BatchFormat, Durability, RecordSettings};
use crate::record::event::What;
use crate::record::{Asker, Event, Journal, Link};

const SOON: Duration = Duration::from_secs(10);

struct Scene {
    dir: tempfile::TempDir,
    record: Arc<Record>,
    journal: Journal,
}

fn scene() -> Scene {
    let dir = tempfile::tempdir().expect("a folder");
    let (record, journal) = open(dir.path());
    Scene { dir, record, journal }
}

fn open(dir: &Path) -> (Arc<Record>, Journal) {
    open_with(dir, Anchor::None)
}

fn open_with(dir: &Path, anchor: Anchor) -> (Arc<Record>, Journal) {
    let settings = RecordSettings {
        durability: Durability::Process,
        segment_bytes: 1 << 20,
        backlog_bytes: 64 << 20,
        backlog_age: Duration::from_secs(30),
        anchor,
        reserve: 0,
        ..RecordSettings::default()
    };
    let record = Arc::new(Record::open(dir, &settings, Arc::new(SystemClock)).expect("the record opens"));
    let journal = record.journal("control").expect("a journal");
    (record, journal)
}

impl Scene {
    fn note(&self, count: usize) {
        for number in 0..count {
            let what = What::DaemonStopped { reason: format!("number {number}") };
            let _recorded = self.journal.append(&Event { at: SystemClock.now(), what }).expect("it is recorded");
        }
        self.record.flush(SOON).expect("it is moved");
    }

    fn export(&self, sink: &ExportSettings) -> Exporter {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        Exporter::start(std::slice::from_ref(sink), self.dir.path(), &self.record, &dialing(), &clock)
            .expect("it starts")
    }
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The messages of the posts that came, in their order.
fn messages(receiver: &Receiver) -> Vec<Value> {
    let bodies: Vec<u8> = receiver.got().into_iter().flat_map(|got| got.body).collect();
    String::from_utf8(bodies).unwrap().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn seqs(messages: &[Value]) -> Vec<u64> {
    messages.iter().filter(|one| one.get("body").is_some()).map(|one| one["seq"].as_u64().unwrap()).collect()
}

/// Computes the chain from what a receiver has, and gives its length and last hash.
fn chain(messages: &[Value]) -> (u64, String) {
    let by_seq: BTreeMap<u64, &Value> = messages
        .iter()
        .filter(|message| message.get("body").is_some())
        .map(|message| (message["seq"].as_u64().unwrap(), message))
        .collect();
    let mut previous = "0".repeat(64);
    for (number, (seq, message)) in (1..).zip(by_seq) {
        let text = |field: &str| message[field].as_str().expect("text").to_owned();
        let link = Link { seq, previous, hash: text("hash"), body: text("body") };
        assert!(seq == number && link.holds(), "event {number} doesn't follow: {link:?}");
        previous = link.hash;
    }
    (messages.iter().filter_map(|message| message["seq"].as_u64()).max().unwrap_or(0), previous)
}

#[test]
fn without_a_sink_nothing_is_started() {
    let scene = scene();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let exporter = Exporter::start(&[], scene.dir.path(), &scene.record, &dialing(), &clock).expect("it starts");
    assert!(exporter.thread.is_none() && exporter.states().is_empty());
    assert!(!scene.dir.path().join("export").exists());
}

#[test]
fn every_event_comes_in_order_and_what_was_not_acknowledged_comes_again() {
    let scene = scene();
    scene.note(1_200);
    let receiver =
        Receiver::start(&[Answer::Http(200, ""), Answer::Gone, Answer::Http(500, ""), Answer::Http(200, "")]);
    let exporter = scene.export(&receiver.http(BatchFormat::Lines));
    until("all is sent", || exporter.states()[0].seq == 1_200);
    let messages = messages(&receiver);
    let seqs = seqs(&messages);
    assert!(seqs.len() > 1_200, "the batch that was answered with 500 came again: {}", seqs.len());
    assert!(seqs.windows(2).all(|two| two[1] == two[0] + 1 || two[1] <= two[0]), "out of order");
    assert_eq!(chain(&messages).1, scene.record.reader().unwrap().links(1_199, 1, 1).unwrap()[0].hash);
    let state = exporter.states().remove(0);
    assert_eq!((state.failing, state.waiting_since), (None, None));
    // More events than a checkpoint may wait for: it is a message as well, behind its event.
    until("a checkpoint is sent", || messages_of_checkpoints(&receiver) > 0);
}

fn messages_of_checkpoints(receiver: &Receiver) -> usize {
    messages(receiver).iter().filter(|message| message.get("checkpoint").is_some()).count()
}

#[test]
fn a_failing_sink_is_told_and_caught_up_with() {
    let scene = scene();
    scene.note(3);
    let receiver = Receiver::start(&[Answer::Http(503, "")]);
    let exporter = scene.export(&receiver.http(BatchFormat::Lines));
    until("the failure is told", || exporter.states()[0].failing.is_some());
    let state = exporter.states().remove(0);
    assert_eq!((state.name.as_str(), state.kind, state.seq), ("siem", "http", 0));
    assert!(state.failing.unwrap().contains("503") && state.waiting_since.is_some());
    scene.note(3);
    receiver.answer(Answer::Http(200, ""));
    until("it is caught up with", || exporter.states()[0].seq == 6);
    until("nothing is told any more", || exporter.states()[0].failing.is_none());
}

#[test]
fn an_acknowledged_checkpoint_is_an_anchor_also_for_the_next_daemon() {
    let dir = tempfile::tempdir().expect("a folder");
    let (record, journal) = open_with(dir.path(), Anchor::Required);
    let scene = Scene { dir, record, journal };
    scene.note(1_100);
    let since = || scene.record.health().unanchored_since;
    let first = since().expect("nobody knows of them");
    let receiver = Receiver::start(&[Answer::Http(200, "")]);
    let exporter = scene.export(&receiver.http(BatchFormat::Lines));
    until("all is acknowledged", || exporter.states()[0].seq == 1_100);
    assert!(exporter.states()[0].anchored >= 1_000, "with the checkpoints of it");
    until("it is an anchor", || since().is_none_or(|now| now > first));
    let anchored = exporter.states()[0].anchored;
    drop(exporter);
    let Scene { dir, record, journal } = scene;
    drop(journal);
    drop(record);
    let (record, journal) = open_with(dir.path(), Anchor::Required);
    let scene = Scene { dir, record, journal };
    receiver.answer(Answer::Http(503, ""));
    let exporter = scene.export(&receiver.http(BatchFormat::Lines));
    assert_eq!(exporter.states()[0].anchored, anchored);
    let next = scene.record.reader().unwrap().links(anchored, 1, 1).unwrap();
    let at = |link: &Link| serde_json::from_str::<Event>(&link.body).unwrap().at;
    assert_eq!(scene.record.health().unanchored_since, next.first().map(at), "the age is that of the event");
}

#[test]
fn a_receiver_that_takes_less_gets_less_at_once() {
    let scene = scene();
    scene.note(40);
    let receiver = Receiver::start(&[Answer::Http(413, ""), Answer::Http(413, ""), Answer::Http(200, "")]);
    let exporter = scene.export(&receiver.http(BatchFormat::Lines));
    until("all is sent", || exporter.states()[0].seq == 40);
    chain(&messages(&receiver));
}

#[test]
fn a_cursor_outlives_the_daemon_and_the_name_and_kind_are_its_key() {
    let scene = scene();
    scene.note(5);
    let receiver = Receiver::start(&[Answer::Http(200, "")]);
    let sink = receiver.http(BatchFormat::Lines);
    let exporter = scene.export(&sink);
    until("all is sent", || exporter.states()[0].seq == 5);
    drop(exporter);
    scene.note(2);
    let again = scene.export(&sink);
    assert_eq!(again.states()[0].seq, 5, "it goes on where it was");
    until("the rest is sent", || again.states()[0].seq == 7);
    let events = seqs(&messages(&receiver));
    assert_eq!(events, [1, 2, 3, 4, 5, 6, 7], "nothing came twice");
    drop(again);
    let renamed = ExportSettings { name: "other".parse().unwrap(), ..sink };
    let other = scene.export(&renamed);
    until("another sink gets all", || other.states()[0].seq == 7);
    assert_eq!(seqs(&messages(&receiver)).len(), 14);
    for name in ["siem.http", "other.http"] {
        assert!(scene.dir.path().join("export").join(name).exists(), "{name}");
    }
}

#[test]
fn a_record_that_is_another_one_is_sent_from_its_beginning() {
    let scene = scene();
    scene.note(5);
    let receiver = Receiver::start(&[Answer::Http(200, "")]);
    let sink = receiver.http(BatchFormat::Lines);
    let exporter = scene.export(&sink);
    until("all is sent", || exporter.states()[0].seq == 5);
    drop(exporter);
    let Scene { dir, record, journal } = scene;
    drop(journal);
    drop(record);
    for file in ["record.db", "record.head", "checkpoints"] {
        std::fs::remove_file(dir.path().join(file)).expect("it was there");
    }
    let (record, journal) = open(dir.path());
    let scene = Scene { dir, record, journal };
    scene.note(2);
    let exporter = scene.export(&sink);
    until("the new one is sent", || exporter.states()[0].seq == 2);
    assert_eq!(seqs(&messages(&receiver)), [1, 2, 3, 4, 5, 1, 2]);
}

#[test]
fn a_database_that_was_moved_aside_is_sent_to_its_end_first() {
    let scene = scene();
    scene.note(3);
    let receiver = Receiver::start(&[Answer::Http(200, "")]);
    let sink = receiver.http(BatchFormat::Lines);
    let exporter = scene.export(&sink);
    until("all is sent", || exporter.states()[0].seq == 3);
    drop(exporter);
    scene.note(2);
    for _ in 0..2 {
        let rotated = scene.record.rotate(Asker { uid: 0, pid: 1 }, SOON).expect("a new database");
        scene.record.hash_of(&rotated.previous, SOON).expect("the hash of the old one");
    }
    scene.note(1);
    let exporter = scene.export(&sink);
    until("the new one is sent", || {
        let came = messages(&receiver);
        let begun = came.iter().filter(|one| one["event"] == "record.begun").count();
        begun == 2 && came.last().is_some_and(|last| last["event"] == "daemon.stopped")
    });
    let events: Vec<_> = messages(&receiver).iter().filter(|one| one.get("body").is_some()).cloned().collect();
    let told: Vec<_> =
        events.iter().map(|one| (one["seq"].as_u64().unwrap(), one["event"].as_str().unwrap())).collect();
    let stopped = "daemon.stopped";
    let first = [(1, stopped), (2, stopped), (3, stopped), (4, stopped), (5, stopped), (6, "record.rotated")];
    let begun = [(1, "record.begun"), (2, "record.hashed")];
    assert_eq!(told, [&first[..], &begun[..], &[(3, "record.rotated")], &begun[..], &[(3, stopped)]].concat());
    assert!(exporter.states()[0].failing.is_none());
}

#[test]
fn what_a_sink_has_of_a_database_that_was_moved_aside_is_no_anchor_in_the_new_one() {
    let dir = tempfile::tempdir().expect("a folder");
    let (record, journal) = open_with(dir.path(), Anchor::Required);
    let scene = Scene { dir, record, journal };
    scene.note(5);
    let receiver = Receiver::start(&[Answer::Http(200, "")]);
    let exporter = scene.export(&receiver.http(BatchFormat::Lines));
    until("all is sent", || exporter.states()[0].seq == 5);
    drop(exporter);
    scene.note(5);
    let rotated = scene.record.rotate(Asker { uid: 0, pid: 1 }, SOON).expect("a new database");
    let since = || scene.record.health().unanchored_since;
    assert!(since().is_some(), "nobody knows of the new one");
    // It takes the rest of the old one with its last checkpoint, and nothing more.
    let receiver = Receiver::start(&[Answer::Http(200, ""), Answer::Http(503, "")]);
    let exporter = scene.export(&receiver.http(BatchFormat::Lines));
    assert!(since().is_some(), "where it was at the start is in the old one");
    until("it takes no more", || exporter.states()[0].failing.is_some());
    assert_eq!(Some(exporter.states()[0].anchored), rotated.seq);
    assert!(since().is_some(), "it knows only of the old one");
    // So it is at the next start, when it was at the end of the old one.
    drop(exporter);
    let exporter = scene.export(&receiver.http(BatchFormat::Lines));
    assert!(since().is_some(), "the last event of the old one isn't in the new one");
    receiver.answer(Answer::Http(200, ""));
    until("it knows of the new one", || since().is_none());
    drop(exporter);
}

#[test]
fn a_cursor_that_cannot_be_read_is_an_error_and_not_a_beginning() {
    let scene = scene();
    std::fs::create_dir(scene.dir.path().join("export")).unwrap();
    std::fs::write(scene.dir.path().join("export/siem.http"), "{").unwrap();
    let receiver = Receiver::start(&[Answer::Http(200, "")]);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let sink = receiver.http(BatchFormat::Lines);
    let error =
        Exporter::start(&[sink], scene.dir.path(), &scene.record, &dialing(), &clock).expect_err("it is garbled");
    assert!(error.to_string().contains("siem.http"), "{error}");
}
