use std::sync::Arc;

use super::super::fixture::{Line, MONDAY, settings, source, verdict};
use super::super::{Decision, Grants, PolicyErrors, Snapshot, Source, decide};
use super::*;

const ORDINARY: &str = r#"
@id("read") permit(principal, action in Action::"http:read", resource == Target::"graph");
@id("no-delete") forbid(principal, action == Action::"http:DELETE", resource);
@id("no-batch") @always @reason("never a batch")
forbid(principal, action, resource) when { context has http && context.http.s0 == "$batch" };
"#;

const EMERGENCY: &str = r#"
@id("mend") permit(principal, action in Action::"http", resource == Target::"graph");
@id("asked") @approval("ada") permit(principal, action in Action::"http", resource == Target::"api");
"#;

fn load(ordinary: &str, emergency: &str) -> Result<Snapshot, PolicyErrors> {
    let emergency = Source { name: "break-glass.d/mend.cedar".into(), text: emergency.into() };
    Snapshot::load_with(settings(), source(ordinary), vec![emergency], 7)
}

fn broken(workload: &str) -> Grants {
    let broken = BreakGlass {
        id: BreakGlassId::new(),
        workload: workload.parse().unwrap(),
        until: "2026-11-23T09:30:00Z".parse().unwrap(),
        reason: "the directory is down".into(),
        loginuid: None,
    };
    Grants::new(Vec::new(), vec![Arc::new(broken)])
}

fn decided(line: &str, grants: &Grants, at: &str) -> (String, bool) {
    let snapshot = load(ORDINARY, EMERGENCY).unwrap_or_else(|errors| panic!("{}", errors.render(false, 120)));
    let decision = decide(&snapshot, &Line::new(line).question(), grants, at.parse().unwrap());
    let broke = matches!(&decision, Decision::Allow(permit) if permit.basis().break_glass.is_some());
    (verdict(&decision), broke)
}

const DELETE: &str = "crm graph DELETE graph.microsoft.com:443/v1.0/users/7";

#[test]
fn what_was_written_for_an_emergency_counts_while_the_glass_is_broken() {
    let whole = Grants::default();
    assert_eq!(decided(DELETE, &whole, MONDAY), ("denied-by-policy no-delete".into(), false));
    assert_eq!(decided(DELETE, &broken("crm"), MONDAY), ("allow mend".into(), true));
    // Not for another workload, and not once it is over.
    assert_eq!(decided(DELETE, &broken("batch"), MONDAY), ("denied-by-policy no-delete".into(), false));
    assert_eq!(decided(DELETE, &broken("crm"), "2026-11-23T09:30:00Z"), ("denied-by-policy no-delete".into(), false));
}

#[test]
fn what_is_allowed_anyway_doesnt_need_it() {
    let read = "crm graph GET graph.microsoft.com:443/v1.0/users";
    assert_eq!(decided(read, &broken("crm"), MONDAY), ("allow read".into(), false));
}

#[test]
fn what_is_forbidden_always_stays_forbidden() {
    let batch = "crm graph POST graph.microsoft.com:443/$batch";
    assert_eq!(decided(batch, &broken("crm"), MONDAY), ("denied-by-policy no-batch".into(), false));
}

#[test]
fn an_emergency_may_ask_people_as_well() {
    let write = "crm api PUT a.api.example:443/notes/7";
    assert_eq!(decided(write, &Grants::default(), MONDAY), ("denied-by-default".into(), false));
    assert_eq!(decided(write, &broken("crm"), MONDAY), ("hold asked".into(), false));
}

#[test]
fn what_targets_dont_list_stays_out_of_reach() {
    let elsewhere = "crm graph GET elsewhere.example:443/";
    assert_eq!(decided(elsewhere, &broken("crm"), MONDAY).0, "denied-by-default");
}

#[test]
fn both_folders_are_judged_as_one() {
    let fault = |ordinary, emergency| load(ordinary, emergency).unwrap_err().render(false, 120);
    let twice = fault(ORDINARY, r#"@id("read") permit(principal, action, resource == Target::"graph");"#);
    assert!(twice.contains("break-glass.d/mend.cedar") && twice.contains("read"), "{twice}");
    let unknown = fault(ORDINARY, r#"permit(principal, action, resource == Target::"nowhere");"#);
    assert!(unknown.contains("nowhere"), "{unknown}");
    let permit = fault(r#"@always permit(principal, action, resource == Target::"graph");"#, EMERGENCY);
    assert!(permit.contains("`@always` is for policies that forbid"), "{permit}");
    let worded = fault(r#"@always("so") forbid(principal, action, resource);"#, EMERGENCY);
    assert!(worded.contains("nothing: it stands alone"), "{worded}");
}

#[test]
fn there_is_nothing_to_break_without_policies_for_it() {
    let snapshot = Snapshot::load(settings(), source(ORDINARY), 7).unwrap();
    assert!(snapshot.break_glass().is_empty());
    assert_eq!(load(ORDINARY, EMERGENCY).unwrap().break_glass(), ["asked", "mend"]);
    let question = Line::new(DELETE);
    let decision = decide(&snapshot, &question.question(), &broken("crm"), MONDAY.parse().unwrap());
    assert_eq!(verdict(&decision), "denied-by-policy no-delete");
}
