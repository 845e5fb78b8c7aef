use jiff::Timestamp;

use super::*;
use crate::ids::{ApprovalId, Digest, LaunchId, SessionId};
use crate::policy::{Shape, Terms, Width};
use crate::record::event::ApprovalRequest;

/// A question of a workload whose every text is as long as a head may be.
pub(in crate::daemon) fn asked(workload: &str, length: usize) -> Approval {
    let at: Timestamp = "2026-11-25T09:00:00Z".parse().unwrap();
    let long = "x".repeat(length);
    let request = ApprovalRequest {
        approval: ApprovalId::new(),
        until: at,
        session: SessionId::new(),
        launch: LaunchId::new(),
        workload: workload.parse().unwrap(),
        process: None,
        initiator: 1000,
        loginuid: None,
        callers: Vec::new(),
        identity: None,
        credential: None,
        target: "graph".parse().unwrap(),
        action: "http:POST".into(),
        summary: format!("POST /{long}"),
        digest: Digest::from([7; 32]),
        shape: Shape {
            method: "POST".into(),
            path: format!("/{long}"),
            keys: vec!["a".into(), long.clone()],
            websocket: false,
        },
        policies: vec!["writes".into()],
        reasons: Vec::new(),
        terms: Terms {
            groups: vec!["crm-approvers".into()],
            confirm: Vec::new(),
            approvals: 1,
            within: 3600,
            grant_for: 300,
            grant_uses: 1,
            grant_scope: Width::Operation,
        },
        justification: Some("ü".repeat(length.min(1000))),
        masked: false,
    };
    Approval { request, asked_at: at, answers: Vec::new(), closed_at: None, outcome: None }
}

fn size(list: &[Approval]) -> usize {
    serde_json::to_vec(list).unwrap().len()
}

/// Nobody would see any question any more.
#[test]
fn long_paths_of_one_workload_dont_make_the_list_too_large() {
    let mut open: Vec<Approval> = (0..64).map(|_| asked("crm", 60_000)).collect();
    open.push(asked("batch", 3));
    assert!(size(&open) > FRAME);
    let list = listed(open.clone(), 1000);
    assert_eq!(list.len(), 65);
    assert!(size(&list) < FRAME / 8, "{}", size(&list));
    let request = &list.iter().find(|one| one.request.workload.as_str() == "crm").unwrap().request;
    for text in [&request.summary, &request.shape.path] {
        assert!(text.ends_with(CUT) && text.chars().count() == MOST + 1, "{text}");
    }
    assert_eq!((request.shape.keys.len(), request.shape.keys[1].as_str()), (2, "…"));
    assert!(list.contains(&open[64]), "what is short is as it is");
}

#[test]
fn a_list_that_doesnt_fit_has_something_of_every_workload() {
    let mut open: Vec<Approval> = (0..6000).map(|_| asked("crm", 300)).collect();
    open.extend((0..3).map(|_| asked("batch", 3)));
    let list = listed(open.clone(), 10_000);
    assert!(size(&list) < FRAME && list.len() > 1000, "{} of {} bytes", list.len(), size(&list));
    assert_eq!(list.iter().filter(|one| one.request.workload.as_str() == "batch").count(), 3);
    assert!(list.is_sorted_by_key(|one| one.request.approval), "the oldest come first");
    // So it is where fewer are asked for.
    let few = listed(open.clone(), 4);
    assert_eq!(few.iter().filter(|one| one.request.workload.as_str() == "batch").count(), 2);
    let has = |one: &Approval| few.iter().any(|other| other.request.approval == one.request.approval);
    assert!(few.len() == 4 && has(&open[0]) && has(&open[1]), "the oldest of each");
}
