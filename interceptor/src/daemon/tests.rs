use super::*;
use crate::ids::ApprovalId;
use crate::policy::{Behind, Grant, Scope, Whose};
use crate::record::approval::Answer;

#[test]
fn the_daemon_leaves_no_core_and_shows_its_memory_to_nobody() {
    let (_soft, before) = getrlimit(Resource::RLIMIT_CORE).unwrap();
    keep_memory_to_itself().unwrap();
    assert!(!nix::sys::prctl::get_dumpable().unwrap());
    assert_eq!(getrlimit(Resource::RLIMIT_CORE).unwrap(), (0, before));
}

#[test]
fn behind_a_clock_that_was_set_back_all_grants_are_over() {
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let now = at("2026-11-25T10:00:00Z");
    assert_eq!(since(None, now), now);
    assert_eq!(since(Some(at("2026-11-25T09:00:00Z")), now), now);
    assert_eq!(since(Some(at("2026-11-25T10:00:02Z")), now), now, "a clock is set right now and then");
    assert_eq!(since(Some(at("2026-11-25T10:00:03Z")), now), Timestamp::MAX);
}

/// It may have been killed between what came of an answer and saying that the question is closed.
#[test]
fn what_a_killed_daemon_left_open_ended_as_it_was_answered() {
    let answered = |yes: &[bool]| {
        let mut approval = listed::tests::asked("crm", 3);
        let at = approval.asked_at;
        approval.answers = yes
            .iter()
            .zip(1..)
            .map(|(yes, uid)| Answer {
                at,
                person: None,
                uid,
                loginuid: None,
                yes: *yes,
                groups: vec!["crm-approvers".into()],
                by_sign_in: BTreeSet::new(),
                confirms: false,
                width: None,
                note: None,
                signed: None,
            })
            .collect();
        approval
    };
    let granted = |approval: ApprovalId| {
        let (groups, confirm) = (vec!["crm-approvers".to_owned()], Vec::new());
        let at: Timestamp = "2026-11-25T10:00:00Z".parse().unwrap();
        let grant = Grant {
            id: GrantId::new(),
            workload: "crm".parse().unwrap(),
            whose: Whose::Nobody,
            behind: Behind::Anybody,
            target: "graph".parse().unwrap(),
            scope: Scope::Target,
            origin: Origin::Approval { approval, groups, approvals: 1, confirm, lasts: None, given: None },
            until: at,
            uses: Some(1),
            bytes: None,
            rows: None,
        };
        let (issuer, ended_at, reason) = (None, None, None);
        Granted { grant, issued_at: at, issuer, used: 0, spent_bytes: 0, spent_rows: 0, ended_at, reason }
    };
    let own = answered(&[true]);
    let grants = [granted(ApprovalId::new()), granted(own.request.approval)];
    assert_eq!(outcome(&own, &grants), "granted");
    assert_eq!(outcome(&own, &grants[..1]), "daemon-restarted", "the grant is another's");
    assert_eq!(outcome(&answered(&[]), &grants), "daemon-restarted");
    assert_eq!(outcome(&answered(&[true, false]), &grants), "denied");
}
