use super::*;
use crate::control::protocol::Cause;

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
    };
    assert_eq!(
        describe(&status),
        "serving degraded\n  record-lag: the writer is 3 s behind\n    free the disk\n\
         daemon 0.1.0 pid 7 since 2026-01-02T03:04:05Z\npolicy generation 2 digest 0123456789ab\n\
         workloads 1 connections 4\n"
    );
}
