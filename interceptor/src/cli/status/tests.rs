use super::*;
use crate::control::protocol::{Cause, Exported};

#[test]
fn the_causes_stand_under_the_verdict() {
    let status = Status {
        serving: Serving::Degraded,
        causes: vec![Cause {
            code: "record-lag".into(),
            message: "the writer is 3 s behind".into(),
            next: "free the disk".into(),
        }],
        version: "0.1.0".into(),
        pid: 7,
        started: "2026-01-02T03:04:05Z".parse().unwrap(),
        generation: 2,
        policies: Some("0123456789abcdef".into()),
        workloads: 1,
        connections: 4,
        exports: vec![
            exported("siem", 40, 2, Some(1_250), None),
            exported("otel", 42, 0, None, None),
            exported("bus", 1, 41, Some(9), Some("the server answered with status \u{1b}503")),
        ],
    };
    assert_eq!(
        describe(&status),
        "serving degraded\n  record-lag: the writer is 3 s behind\n    free the disk\n\
         daemon 0.1.0 pid 7 since 2026-01-02T03:04:05Z\npolicy generation 2 digest 0123456789ab\n\
         workloads 1 connections 4\nexport siem (http) event 40, 2 behind for 1.2 s\n\
         export otel (http) event 42, 0 behind\n\
         export bus (http) event 1, 41 behind, failing: the server answered with status \\u{1b}503\n"
    );
}

fn exported(name: &str, seq: u64, behind: u64, age_ms: Option<u64>, error: Option<&str>) -> Exported {
    Exported { name: name.into(), kind: "http".into(), seq, behind, age_ms, error: error.map(Into::into) }
}
