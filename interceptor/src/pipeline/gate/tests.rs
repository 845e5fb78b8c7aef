//! What a look-up is told while the record can't take it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::StatusCode;
use jiff::SignedDuration;

use super::*;
use crate::clock::ManualClock;
use crate::config::{Anchor, RecordSettings, Settings};
use crate::ids::LaunchId;
use crate::pipeline::{Masking, reply};
use crate::policy::{Snapshot, Source};
use crate::record::Record;
use crate::record::search::Search;
use crate::transport::dial::Dialer;
use crate::vault::Vault;

const CONFIG: &str = r#"
[[workload]]
name = "crm"
match = { uid = 1000 }

[[target]]
name = "graph"
hosts = ["graph.microsoft.com"]
"#;

const POLICY: &str = "@id(\"reach\") permit (principal, action in Action::\"reach\", resource);";

const SOON: Duration = Duration::from_secs(10);

/// A record that a sink outside the host has to know, and the gate and a workload of it.
fn scene(dir: &Path, clock: &Arc<ManualClock>) -> (Record, RecordingGate, Arc<Workload>) {
    let settings = Arc::new(Settings::parse("/etc/interceptor/config.toml", CONFIG).unwrap());
    let policy = Source { name: "crm.cedar".into(), text: POLICY.into() };
    let world = World {
        snapshot: Arc::new(Snapshot::load(Arc::clone(&settings), vec![policy], 1).unwrap()),
        dialer: Arc::new(Dialer::new(&settings.upstream).unwrap()),
        vault: Arc::new(Vault::new(&settings.targets)),
        masking: Arc::new(Masking::new(&settings).unwrap()),
    };
    let (anchor, segment_bytes, reserve) = (Anchor::Required, 1 << 20, 0);
    let kept = RecordSettings { anchor, segment_bytes, reserve, ..RecordSettings::default() };
    let record = Record::open(dir, &kept, clock.clone()).unwrap();
    let desk = Desk::new(Box::new(|_| Ok(())), Vec::new(), Vec::new(), clock.now());
    let (_sender, worlds) = watch::channel(Arc::new(world));
    let gate = RecordingGate::new(clock.clone(), worlds, desk, record.journal("resolver").unwrap());
    let workload = Arc::new(Workload {
        id: LaunchId::new(),
        settings: Arc::clone(&settings.workloads[0]),
        initiator: 1000,
        loginuid: None,
        uid: 1000,
        init: 42,
        cgroup: PathBuf::new(),
        folder: PathBuf::new(),
    });
    (record, gate, workload)
}

#[test]
fn what_no_sink_outside_the_host_knows_denies_with_a_code_of_its_own_until_one_does() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at("2026-03-01T10:00:00Z".parse().unwrap()));
    let (record, gate, workload) = scene(dir.path(), &clock);
    let name: Hostname = "graph.microsoft.com".parse().unwrap();
    let ask = || gate.admit(&workload, &name, "A");
    ask().expect("it is permitted");
    record.flush(SOON).unwrap();
    clock.set(clock.now() + SignedDuration::from_secs(601));
    let fault = ask().expect_err("nobody outside knows of the first");
    assert_eq!((fault.code, fault.blame), ("record-unanchored", Blame::Interceptor));
    assert_eq!(reply::status(&fault), StatusCode::SERVICE_UNAVAILABLE);

    // The denial is recorded, with that code.
    record.flush(SOON).unwrap();
    let search = Search { verdict: Some("deny".into()), limit: 9, ..Search::default() };
    let denied = record.reader().unwrap().search(&search).unwrap().hits;
    let denied: Vec<_> = denied.iter().map(|hit| hit.operation.code.as_deref()).collect();
    assert_eq!(denied, [Some("record-unanchored")]);

    let health = record.health();
    record.anchored(health.seq, health.renewals).unwrap();
    ask().expect("a sink knows of all");
}

#[test]
fn whatever_else_keeps_the_record_from_taking_it_is_told_as_one() {
    let (waiting, limit) = (2, 1);
    for error in [
        RecordError::NoRoom,
        RecordError::Full { waiting, limit },
        RecordError::Lagging { behind: SOON, limit: Duration::ZERO },
        RecordError::Failed(io::ErrorKind::NotFound.into()),
    ] {
        let fault = not_recorded(&error);
        let told = (fault.code, reply::status(&fault));
        assert_eq!(told, ("record-unavailable", StatusCode::SERVICE_UNAVAILABLE), "{error}");
    }
}
