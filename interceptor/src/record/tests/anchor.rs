//! What is denied while no sink outside the host knows what was recorded, and when that ends.

use super::*;
use crate::clock::ManualClock;
use crate::config::Anchor;

struct Scene {
    _dir: tempfile::TempDir,
    clock: Arc<ManualClock>,
    record: Record,
    journal: Journal,
}

fn scene(anchor: Anchor) -> Scene {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at("2026-03-01T10:00:00Z".parse().unwrap()));
    let settings = RecordSettings { anchor, ..settings() };
    let record = Record::open(dir.path(), &settings, clock.clone()).expect("the record opens");
    let journal = record.journal("worker-0").expect("a journal");
    Scene { _dir: dir, clock, record, journal }
}

impl Scene {
    fn later(&self, seconds: i64) {
        self.clock.set(self.clock.now() + jiff::SignedDuration::from_secs(seconds));
    }

    fn decide(&self, verdict: Verdict) -> Result<(), RecordError> {
        let event = decided(OperationId::new(), None, LaunchId::new(), verdict);
        let _recorded = self.journal.append(&Event { at: self.clock.now(), ..event })?;
        self.record.flush(SOON)
    }

    fn anchored(&self, seq: u64) {
        self.record.anchored(seq, self.record.health().renewals).expect("the database is read");
    }

    fn is_denying(&self) -> bool {
        self.record.health().is_unanchored(self.clock.now())
    }
}

#[test]
fn what_nobody_outside_knows_for_ten_minutes_denies_until_somebody_does() {
    let scene = scene(Anchor::Required);
    scene.decide(Verdict::Allow).expect("nothing waits yet");
    scene.later(600);
    scene.decide(Verdict::Allow).expect("ten minutes may pass");
    assert!(!scene.is_denying());
    scene.later(1);
    let error = scene.decide(Verdict::Allow).expect_err("too old");
    assert!(matches!(error, RecordError::Unanchored { minutes: 10 }) && error.leaves_denials(), "{error}");
    assert!(scene.is_denying());
    scene.decide(Verdict::Deny).expect("a denial is recorded");
    let stopped = What::DaemonStopped { reason: "SIGTERM".into() };
    let _recorded = scene.journal.append(&Event { at: scene.clock.now(), what: stopped }).expect("and all else");
    let reasons = || outages(&scene.record).into_iter();
    assert!(reasons().all(|(reason, _)| reason.contains("no sink outside the host")), "{:?}", outages(&scene.record));
    assert_eq!(reasons().map(|(_, is_over)| is_over).collect::<Vec<_>>(), [false], "it is told at once");

    scene.anchored(1);
    scene.decide(Verdict::Allow).expect("the next one is a second old");
    assert_eq!(reasons().map(|(_, is_over)| is_over).collect::<Vec<_>>(), [false, true], "and that it is over");
    scene.later(600);
    scene.anchored(0);
    assert!(scene.decide(Verdict::Allow).is_err(), "an older one says nothing");
    let last = scene.record.health().seq;
    scene.anchored(last);
    scene.decide(Verdict::Allow).expect("all is known");
}

#[test]
fn a_host_on_which_nothing_happens_is_not_cut_off() {
    let scene = scene(Anchor::Required);
    scene.decide(Verdict::Allow).unwrap();
    scene.anchored(1);
    scene.later(24 * 60 * 60);
    assert!(!scene.is_denying());
    scene.decide(Verdict::Allow).expect("what is recorded is known");
    scene.decide(Verdict::Allow).expect("and this is new");
}

#[test]
fn without_the_requirement_nothing_is_denied() {
    let scene = scene(Anchor::None);
    scene.decide(Verdict::Allow).unwrap();
    scene.later(24 * 60 * 60);
    scene.decide(Verdict::Allow).expect("nobody has to know");
    assert_eq!(scene.record.health().unanchored_since, None);
}
