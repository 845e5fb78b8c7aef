use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::ids::{LaunchId, SessionId};
use crate::record::event::Counts;
use crate::record::tests::open;
use crate::record::{Asker, Journal, Record, verify};

const SOON: Duration = Duration::from_secs(10);
const ELSEWHERE: &str = "198.18.0.1:443";

/// A record, whose times are seconds since it began.
struct Scene {
    journal: Journal,
    record: Record,
    _dir: TempDir,
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_772_000_000 + second).unwrap()
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let record = open(dir.path());
        Self { journal: record.journal("worker-0").unwrap(), record, _dir: dir }
    }

    fn note(&self, second: i64, what: What) {
        let _recorded = self.journal.append(&Event { at: at(second), what }).expect("it is recorded");
        self.record.flush(SOON).expect("it is moved");
    }

    fn begin(&self, containment: &str) -> LaunchId {
        let launch = LaunchId::new();
        self.note(
            0,
            What::WorkloadStarted {
                launch,
                workload: "crm".parse().unwrap(),
                initiator: 1000,
                loginuid: None,
                uid: 1000,
                pid: 42,
                command: "/usr/bin/crm-mcp".into(),
                containment: containment.into(),
            },
        );
        launch
    }

    fn connect(&self, launch: LaunchId, second: i64, original: &str) -> SessionId {
        let session = SessionId::new();
        let (workload, original) = ("crm".parse().unwrap(), original.parse().unwrap());
        let opened =
            What::SessionOpened { session, launch, workload, process: None, original, host: None, target: None };
        self.note(second, opened);
        session
    }

    /// Counts so many connections in this second, and records that in the tenth.
    fn count(&self, launch: LaunchId, mediated: u64, handled: Option<Handled>) {
        let counts = Counts { attempted: mediated, mediated, ..Counts::default() };
        let kinds = [("tcp".to_owned(), counts)].into();
        self.note(10, What::Ledger(Ledger { launch, workload: "crm".parse().unwrap(), kinds, handled }));
    }

    fn found(&self, launch: LaunchId) -> Reconciled {
        let all = self.record.reader().unwrap().ledger().unwrap();
        all.into_iter().find(|one| one.ledger.launch == launch).expect("its counts")
    }
}

fn handled(second: i64, last: bool) -> Handled {
    Handled { at: at(second), unrecorded: 0, unsure: 0, last }
}

#[test]
fn as_many_sessions_as_the_proxy_took_fit() {
    let scene = Scene::new();
    let launch = scene.begin("contained");
    for second in 1..=3 {
        scene.connect(launch, second, ELSEWHERE);
    }
    scene.count(launch, 3, Some(handled(9, true)));
    let found = scene.found(launch);
    assert_eq!((found.recorded, found.sessions, found.misfit()), (Some(3), 3, None));
    let value = serde_json::to_value(&found).unwrap();
    assert!(value["recorded"] == 3 && value["handled"]["last"] == true, "{value}");
}

#[test]
fn a_session_that_was_left_out_is_missed_in_the_end() {
    let scene = Scene::new();
    let launch = scene.begin("contained");
    scene.connect(launch, 1, ELSEWHERE);
    scene.connect(launch, 2, ELSEWHERE);
    scene.count(launch, 3, Some(handled(9, false)));
    let found = scene.found(launch);
    assert_eq!((found.recorded, found.misfit()), (Some(2), None), "it may be on its way");
    scene.count(launch, 3, Some(handled(9, true)));
    let found = scene.found(launch);
    assert!(found.lacks_sessions());
    let misfit = found.misfit().expect("it is missed");
    assert!(misfit.contains("3 have to be") && misfit.contains("and 2 are"), "{misfit}");
    // It came after all.
    scene.connect(launch, 3, ELSEWHERE);
    assert_eq!(scene.found(launch).misfit(), None);
}

#[test]
fn a_session_that_nobody_took_is_told_at_any_time() {
    let scene = Scene::new();
    let launch = scene.begin("contained");
    scene.connect(launch, 1, ELSEWHERE);
    // After the counts were made, but before they were recorded.
    scene.connect(launch, 5, ELSEWHERE);
    scene.count(launch, 1, Some(handled(3, false)));
    // After they were recorded, with a clock that was set back.
    scene.connect(launch, 2, ELSEWHERE);
    let found = scene.found(launch);
    assert_eq!((found.recorded, found.sessions, found.misfit()), (Some(1), 3, None));
    for last in [false, true] {
        scene.count(launch, 2, Some(handled(6, last)));
        let found = scene.found(launch);
        assert!(!found.lacks_sessions());
        let misfit = found.misfit().expect("there is one too many");
        assert!(misfit.contains(" 3 are in the record") && misfit.contains("took 2"), "{misfit}");
    }
}

#[test]
fn what_the_proxy_knows_never_comes_is_not_missed_and_what_it_cant_know_may_be_there_or_not() {
    for (sessions, fits) in [(1, false), (2, true), (3, true), (4, true), (5, false)] {
        let scene = Scene::new();
        let launch = scene.begin("contained");
        for second in 1..=sessions {
            scene.connect(launch, second, ELSEWHERE);
        }
        scene.count(launch, 5, Some(Handled { unrecorded: 1, unsure: 2, ..handled(9, true) }));
        let misfit = scene.found(launch).misfit();
        assert_eq!(misfit.is_none(), fits, "{sessions}: {misfit:?}");
    }
}

#[test]
fn loopback_counts_as_the_workload_is() {
    let addresses = ["127.0.0.1:5432", "[::1]:5432", "[::ffff:127.9.9.9]:5432", ELSEWHERE];
    // A launched workload's own, and the calls of what it publishes, aren't counted; what an adopted one connects to is.
    for (containment, taken) in [("steered: its home", 1), ("adopted", 4)] {
        let scene = Scene::new();
        let launch = scene.begin(containment);
        for address in addresses {
            scene.connect(launch, 1, address);
        }
        scene.count(launch, taken, Some(handled(9, true)));
        let found = scene.found(launch);
        assert_eq!((found.recorded, found.sessions, found.misfit()), (Some(taken), 4, None), "{containment}");
    }
}

#[test]
fn what_was_pruned_or_erased_was_recorded() {
    let scene = Scene::new();
    let launch = scene.begin("contained");
    let session = scene.connect(launch, 1, ELSEWHERE);
    scene.note(2, What::SessionClosed { session, reason: "done".into(), policies: Vec::new() });
    let (uid, pid) = (Some(0), Some(1));
    scene.note(3, What::RecordPruned { before: at(3), workloads: Vec::new(), others: false, uid, pid });
    scene.note(4, What::SessionErased { session, uid: 0, pid: 1 });
    scene.count(launch, 1, Some(handled(9, true)));
    let found = scene.found(launch);
    assert_eq!((found.recorded, found.misfit()), (Some(1), None));
}

#[test]
fn of_what_an_earlier_database_has_the_beginning_nothing_is_told() {
    let scene = Scene::new();
    let (before, idle) = (scene.begin("contained"), scene.begin("adopted"));
    let over = scene.connect(before, 1, ELSEWHERE);
    scene.note(2, What::SessionClosed { session: over, reason: "done".into(), policies: Vec::new() });
    scene.connect(before, 3, ELSEWHERE);
    scene.record.rotate(Asker { uid: 0, pid: 1 }, SOON).expect("a new database");
    scene.connect(before, 4, ELSEWHERE);
    for (launch, mediated) in [(before, 3), (idle, 7)] {
        scene.count(launch, mediated, Some(handled(9, true)));
        let found = scene.found(launch);
        assert_eq!((found.recorded, found.misfit()), (None, None));
        assert!(serde_json::to_value(&found).unwrap()["recorded"].is_null());
    }
    // What began since is compared, whatever the clock says.
    let after = scene.begin("contained");
    scene.connect(after, 1, ELSEWHERE);
    scene.count(after, 1, Some(handled(9, true)));
    assert_eq!(scene.found(after).recorded, Some(1));
    assert_eq!(scene.found(after).misfit(), None);
    let other = scene.begin("contained");
    scene.count(other, 1, Some(handled(9, true)));
    assert!(scene.found(other).misfit().is_some());
}

#[test]
fn counts_of_an_earlier_version_are_not_compared() {
    let scene = Scene::new();
    let launch = scene.begin("contained");
    let ledger = format!(r#"{{"launch":"{launch}","workload":"crm","kinds":{{}}}}"#);
    assert_eq!(serde_json::from_str::<Ledger>(&ledger).unwrap().handled, None);
    scene.count(launch, 3, None);
    let found = scene.found(launch);
    assert_eq!((found.recorded, found.misfit()), (None, None));
    let value = serde_json::to_value(&found.ledger).unwrap();
    assert!(value.get("handled").is_none(), "{value}");
}

#[test]
fn the_last_counts_stay_the_last() {
    let scene = Scene::new();
    let launch = scene.begin("contained");
    scene.count(launch, 1, Some(handled(1, false)));
    scene.count(launch, 2, Some(handled(3, true)));
    // Made before, and late.
    scene.count(launch, 1, Some(handled(2, false)));
    assert_eq!(scene.found(launch).ledger.mediated(), 2);
    assert_eq!(verify(scene.record.database()).unwrap().fault, None);
}
