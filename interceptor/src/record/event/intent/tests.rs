use super::super::{Event, Identity, What};
use super::*;
use crate::policy::Obligations;

/// What the chain hashes and the writer reads is the same, whichever of the two it was written from.
#[test]
fn an_intent_is_written_as_the_event_that_it_is() {
    let at: Timestamp = "2026-11-23T09:15:40.123456789Z".parse().unwrap();
    let (operation, session, launch) = (OperationId::new(), SessionId::new(), LaunchId::new());
    let workload: WorkloadName = "crm".parse().unwrap();
    let target: TargetName = "graph".parse().unwrap();
    let identity = Identity {
        principal: "7c3e5b1a-0d64-4f2e-9a18-5be0c1d2f301/3a9b7c10-52de-4f81-a6c4-7e08d1f3b522".parse().unwrap(),
        kind: PrincipalKind::ServicePrincipal,
        client: Some("3a9b7c10-52de-4f81-a6c4-7e08d1f3b522".parse().unwrap()),
        authentic: Authentic::Issuer,
        bound: Bound::IssuedHere,
        token: "ab".repeat(32).parse().unwrap(),
        uti: Some("uti-\"1\"".into()),
    };
    let obligations = Obligations { masks: vec!["people".parse().unwrap()], ..Obligations::default() };
    let policies = vec!["users".to_owned(), "more".to_owned()];
    let full = Basis { generation: 7, policies, reasons: vec!["é".into()], obligations, ..Basis::default() };
    let summary = "GET /v1.0/\\users";
    for is_full in [true, false] {
        let (session, approval) = (is_full.then_some(session), is_full.then(ApprovalId::new));
        let (basis, who) = if is_full { (full.clone(), Some(identity.clone())) } else { (Basis::default(), None) };
        let (verdict, code) = if is_full { (Verdict::Hold, Some("approval-pending")) } else { (Verdict::Allow, None) };
        let (initiator, credential) = (is_full.then_some(1000), is_full.then_some(Credential::Entra));
        let intent = Intent {
            at,
            event: Decided::Operation,
            operation,
            session,
            launch,
            workload: &workload,
            target: is_full.then_some(&target),
            action: "http:GET",
            summary,
            verdict,
            code,
            basis: &basis,
            initiator,
            credential,
            identity: who.as_ref().map(|who| Named {
                principal: &who.principal,
                kind: who.kind,
                client: who.client,
                authentic: who.authentic,
                bound: who.bound,
                token: who.token,
                uti: who.uti.as_deref(),
            }),
            approval,
        };
        let what = What::OperationDecided {
            operation,
            session,
            launch,
            workload: workload.clone(),
            target: is_full.then(|| target.clone()),
            action: "http:GET".into(),
            summary: summary.into(),
            verdict,
            code: code.map(str::to_owned),
            basis: Box::new(basis.clone()),
            initiator,
            credential,
            identity: who.clone().map(Box::new),
            approval,
        };
        let event = Event { at, what };
        let text = serde_json::to_string(&intent).unwrap();
        assert_eq!(text, serde_json::to_string(&event).unwrap());
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
    }
}
