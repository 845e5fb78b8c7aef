use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::ids::{LaunchId, SessionId};
use crate::policy::{Grant, Shape, Terms};

/// What was recorded, and whether anything can be.
#[derive(Default)]
pub(super) struct Book {
    events: Mutex<Vec<What>>,
    pub(super) broken: AtomicBool,
}

impl Book {
    pub(super) fn desk(self: &Arc<Self>) -> Arc<Desk> {
        self.desk_after(Vec::new(), Vec::new())
    }

    /// A desk with what an earlier one left, begun at second 0.
    pub(super) fn desk_after(self: &Arc<Self>, granted: Vec<Granted>, glass: Vec<Broken>) -> Arc<Desk> {
        let book = Arc::clone(self);
        Desk::new(
            Box::new(move |what| {
                if book.broken.load(Ordering::Relaxed) {
                    return Err(RecordError::Unsealed);
                }
                book.events.lock().unwrap().push(what);
                Ok(())
            }),
            granted,
            glass,
            at(0),
        )
    }

    /// A desk that can't record that a question has ended.
    pub(super) fn desk_that_records_no_end(self: &Arc<Self>) -> Arc<Desk> {
        let book = Arc::clone(self);
        let record: Recorder = Box::new(move |what| {
            if matches!(what, What::ApprovalClosed { .. }) {
                return Err(RecordError::Unsealed);
            }
            book.events.lock().unwrap().push(what);
            Ok(())
        });
        Desk::new(record, Vec::new(), Vec::new(), at(0))
    }

    pub(super) fn kinds(&self) -> Vec<&'static str> {
        let kind = |what: &What| match what {
            What::ApprovalRequested(_) => "requested",
            What::ApprovalAnswered(answer) if answer.yes => "yes",
            What::ApprovalAnswered(_) => "no",
            What::ApprovalClosed { .. } => "closed",
            What::GrantIssued { .. } => "issued",
            What::GrantEnded { .. } => "ended",
            What::BreakGlassStarted { .. } => "broken",
            What::BreakGlassEnded { .. } => "mended",
            _ => "other",
        };
        self.events.lock().unwrap().iter().map(kind).collect()
    }
}

pub(super) const MOST: (usize, usize) = (3, 4);

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

pub(super) fn request(digest: u8) -> ApprovalRequest {
    ApprovalRequest {
        approval: ApprovalId::new(),
        until: at(3600),
        session: SessionId::new(),
        launch: LaunchId::new(),
        workload: "crm".parse().unwrap(),
        process: None,
        initiator: 1000,
        loginuid: None,
        callers: Vec::new(),
        identity: None,
        credential: None,
        target: "graph".parse().unwrap(),
        action: "http:POST".into(),
        summary: "POST /x".into(),
        digest: Digest::from([digest; 32]),
        shape: Shape { method: "POST".into(), path: "/x".into(), keys: Vec::new(), websocket: false },
        policies: vec!["held".into()],
        reasons: Vec::new(),
        terms: Terms {
            groups: vec!["a".into()],
            confirm: vec![],
            approvals: 1,
            within: 3600,
            grant_for: 300,
            grant_uses: 2,
            grant_scope: Width::Shape,
        },
        justification: None,
        masked: false,
    }
}

pub(super) fn person(uid: u32, groups: &[&str]) -> Answerer {
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    let person: PrincipalId = format!("issuer/{uid}").parse().unwrap();
    Answerer { uid, person: Some(person.clone()), persons: [person].into(), groups, ..Answerer::default() }
}

pub(super) const YES: (bool, Option<Width>, Option<String>) = (true, None, None);
const NO: (bool, Option<Width>, Option<String>) = (false, None, None);

#[tokio::test]
async fn a_yes_makes_a_grant_that_is_used_as_often_as_it_says() {
    let book = Arc::<Book>::default();
    let desk = book.desk();
    let mut one = desk.ask(request(1), Message::default(), at(0), MOST).unwrap();
    let mut same = desk.ask(request(1), Message::default(), at(1), MOST).unwrap();
    assert_eq!((one.approval(), desk.open().len()), (same.approval(), 1), "the same is asked once");
    let approval = desk.answer(one.approval(), &person(1, &["a"]), YES, at(2)).unwrap();
    assert_eq!(approval.outcome.as_deref(), Some("granted"));
    assert_eq!((one.outcome().await, same.outcome().await), (Outcome::Granted, Outcome::Granted));
    assert_eq!(book.kinds(), ["requested", "yes", "issued", "closed"]);
    let grant = *desk.state().grants.keys().next().unwrap();
    let first = desk.take(grant).unwrap();
    first.keep();
    let second = desk.take(grant).unwrap();
    assert!(desk.take(grant).is_none(), "two uses, and no third");
    drop(second);
    assert!(desk.take(grant).is_some(), "what wasn't used is given back");
    desk.expire(at(2 + 300));
    assert!(desk.take(grant).is_none());
    assert_eq!(book.kinds().last(), Some(&"ended"));
}

#[test]
fn a_thousand_takers_of_one_use_get_it_once() {
    let book = Arc::<Book>::default();
    let desk = book.desk();
    let grant = Grant { uses: Some(1), ..granted(&approval(request(1)), at(0)) };
    desk.issue(grant.clone(), 300, 0).unwrap();
    let taken: usize = std::thread::scope(|scope| {
        let takers: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| (0..125).filter(|_| desk.take(grant.id).map(Use::keep).is_some()).count()))
            .collect();
        takers.into_iter().map(|taker| taker.join().unwrap()).sum()
    });
    assert_eq!(taken, 1);
}

fn approval(request: ApprovalRequest) -> Approval {
    Approval { request, asked_at: at(0), answers: Vec::new(), closed_at: None, outcome: None }
}

#[tokio::test(start_paused = true)]
async fn a_no_lasts_as_long_as_a_yes_would() {
    let book = Arc::<Book>::default();
    let desk = book.desk();
    let mut one = desk.ask(request(1), Message::default(), at(0), MOST).unwrap();
    desk.answer(one.approval(), &person(1, &["a"]), NO, at(1)).unwrap();
    assert_eq!(one.outcome().await, Outcome::Denied);
    tokio::time::advance(Duration::from_secs(299)).await;
    let mut again = desk.ask(request(1), Message::default(), at(300), MOST).unwrap();
    assert_eq!((again.approval(), again.outcome().await), (one.approval(), Outcome::Denied));
    tokio::time::advance(Duration::from_secs(1)).await;
    let later = desk.ask(request(1), Message::default(), at(301), MOST).unwrap();
    assert_ne!(later.approval(), one.approval(), "it may be asked again");
    assert_eq!(desk.open().len(), 1);
}

/// Who sends it again is told so at once; it isn't asked about, so it needs no room.
#[tokio::test]
async fn a_no_is_told_also_where_all_seats_are_taken() {
    let book = Arc::<Book>::default();
    let desk = book.desk();
    let denied = desk.ask(request(1), Message::default(), at(0), MOST).unwrap();
    desk.answer(denied.approval(), &person(1, &["a"]), NO, at(1)).unwrap();
    let id = denied.approval();
    drop(denied);
    let seated: Vec<_> =
        (2..5).map(|digest| desk.ask(request(digest), Message::default(), at(2), MOST).unwrap()).collect();
    assert!(matches!(desk.ask(request(9), Message::default(), at(2), MOST), Err(Unasked::Full)));
    let mut again = desk.ask(request(1), Message::default(), at(2), MOST).unwrap();
    assert_eq!((again.approval(), again.outcome().await), (id, Outcome::Denied));
    drop(again);
    assert_eq!(desk.state().waiting.values().sum::<usize>(), seated.len(), "it gave back a seat that it didn't take");
}

#[tokio::test(start_paused = true)]
async fn a_no_outlasts_its_desk() {
    let book = Arc::<Book>::default();
    let denied = |digest, second: i64| Approval {
        closed_at: Some(at(second)),
        outcome: Some("denied".into()),
        ..approval(request(digest))
    };
    for (since, second, left) in [(at(100), 0, 200), (at(100), 100, 300), (at(100), 500, 300), (Timestamp::MAX, 0, 300)]
    {
        let desk = book.desk();
        desk.remember_denied(vec![denied(1, second)], since);
        let id = desk.ask(request(1), Message::default(), at(0), MOST).unwrap().approval();
        assert!(desk.open().is_empty(), "{second}: it was asked about again");
        tokio::time::advance(Duration::from_secs(left - 1)).await;
        desk.expire(at(0));
        assert_eq!(desk.ask(request(1), Message::default(), at(0), MOST).unwrap().approval(), id);
        tokio::time::advance(Duration::from_secs(3)).await;
        desk.expire(at(0));
        let later = desk.ask(request(1), Message::default(), at(0), MOST).unwrap();
        assert!(later.approval() != id && desk.open().len() == 1, "{second}: it lasts longer than it says");
    }
    let desk = book.desk();
    desk.remember_denied(vec![denied(1, 0)], at(300));
    let _asked = desk.ask(request(1), Message::default(), at(0), MOST).unwrap();
    assert_eq!(desk.open().len(), 1, "it was over");
}

#[test]
fn a_yes_of_who_left_the_group_counts_no_more_when_it_is_decided() {
    let book = Arc::<Book>::default();
    let desk = book.desk();
    let asked = || ApprovalRequest { terms: Terms { approvals: 2, ..request(1).terms }, ..request(1) };
    let waiting = desk.ask(asked(), Message::default(), at(0), MOST).unwrap();
    let answer = |by: &Answerer| desk.answer(waiting.approval(), by, YES, at(1)).map(|approval| approval.outcome);
    assert_eq!(answer(&person(1, &["a"])), Ok(None));
    let lapsed = || BTreeSet::from([(1, "a".to_owned())]);
    assert_eq!(answer(&Answerer { lapsed: lapsed(), ..person(2, &["a"]) }), Ok(None), "one of the two has left");
    assert!(desk.state().grants.is_empty());
    let third = Answerer { lapsed: lapsed(), ..person(3, &["a"]) };
    assert_eq!(answer(&third), Ok(Some("granted".into())));
}

#[test]
fn which_groups_a_sign_in_put_somebody_in_is_known_of_his_answer_and_told_to_nobody() {
    let book = Arc::<Book>::default();
    let desk = book.desk();
    let asked = ApprovalRequest { terms: Terms { approvals: 2, ..request(1).terms }, ..request(1) };
    let waiting = desk.ask(asked, Message::default(), at(0), MOST).unwrap();
    let by = Answerer { by_sign_in: ["a".to_owned()].into(), ..person(1, &["a"]) };
    desk.answer(waiting.approval(), &by, YES, at(1)).unwrap();
    let (approval, _, _) = desk.find(&waiting.approval().to_string()).unwrap();
    assert_eq!(approval.answers[0].by_sign_in, by.by_sign_in);
    assert!(!serde_json::to_string(&approval).unwrap().contains("by_sign_in"), "its JSON is stable");
}

#[tokio::test(start_paused = true)]
async fn how_long_ago_it_was_asked_is_what_has_passed_whatever_the_clock_says() {
    let book = Arc::<Book>::default();
    let desk = book.desk();
    // The clock was an hour ahead then.
    let waiting = desk.ask(request(1), Message::default(), at(3600), MOST).unwrap();
    tokio::time::advance(Duration::from_secs(90)).await;
    assert_eq!(desk.age(waiting.approval()), Some(Duration::from_secs(90)));
    assert_eq!(desk.age(ApprovalId::new()), None);
}

#[test]
fn only_who_is_asked_answers_once_and_not_for_himself() {
    let book = Arc::<Book>::default();
    let desk = book.desk();
    let mut asked = request(1);
    asked.terms.groups = vec!["a".into(), "b".into()];
    asked.terms.approvals = 2;
    let waiting = desk.ask(asked, Message::default(), at(0), MOST).unwrap();
    let id = waiting.approval();
    let answer = |by: &Answerer, said: (bool, Option<Width>, Option<String>)| {
        desk.answer(id, by, said, at(1)).map(|approval| approval.outcome)
    };
    assert_eq!(answer(&person(1000, &["a", "b"]), YES), Err(NoAnswer::Own));
    assert_eq!(answer(&person(1, &["c"]), YES), Err(NoAnswer::NotAsked(vec!["a".into(), "b".into()])));
    assert_eq!(answer(&person(1, &["a"]), (true, Some(Width::Target), None)), Err(NoAnswer::TooWide(Width::Shape)));
    assert_eq!(answer(&person(1, &["a", "b"]), (true, Some(Width::Shape), None)), Ok(None));
    assert_eq!(answer(&person(1, &["a"]), YES), Err(NoAnswer::Twice));
    assert_eq!(answer(&person(2, &["a"]), YES), Ok(None));
    assert_eq!(answer(&person(3, &["b"]), (true, Some(Width::Shape), None)), Ok(Some("granted".into())));
    assert_eq!(answer(&person(4, &["b"]), YES), Err(NoAnswer::Closed(id.to_string())));
    // The narrowest of what they chose.
    let state = desk.state();
    assert_eq!(state.grants.values().next().unwrap().grant.scope.width(), Width::Operation);
}

/// What a sign-in leaves behind.
fn evidence(bound: bool) -> Option<Box<Evidence>> {
    let (salt, jwk) = (bound.then(|| "salt".into()), serde_json::json!({}));
    let (way, id_token) = (crate::record::event::Way::Browser, "a.b.c".into());
    Some(Box::new(Evidence { bound, way, salt, list: Vec::new(), id_token, jwk }))
}

#[test]
fn nobody_answers_for_himself_by_another_uid_of_his() {
    let book = Arc::<Book>::default();
    let desk = book.desk();
    let waiting = desk.ask(request(1), Message::default(), at(0), MOST).unwrap();
    let answer = |by: &Answerer| desk.answer(waiting.approval(), by, YES, at(1)).map(|approval| approval.outcome);
    let alias = Answerer { others: [1000].into(), ..person(1, &["a"]) };
    assert_eq!(answer(&alias), Err(NoAnswer::Own));
    let unrelated = Answerer { others: [1001].into(), ..person(1, &["a"]) };
    assert_eq!(answer(&unrelated), Ok(Some("granted".into())));

    // As whom an operation's token names, nobody answers, however he is known.
    let mut asked = request(2);
    asked.identity = Some(Box::new(crate::record::event::Identity {
        principal: "issuer/7".parse().unwrap(),
        kind: crate::policy::PrincipalKind::User,
        client: None,
        authentic: crate::policy::Authentic::Issuer,
        bound: crate::policy::Bound::IssuedHere,
        token: crate::identity::provenance::Digest::from([0; 32]),
        uti: None,
    }));
    let waiting = desk.ask(asked, Message::default(), at(0), MOST).unwrap();
    let named = Answerer { uid: 9, evidence: evidence(true), ..person(7, &["a"]) };
    assert_eq!(desk.answer(waiting.approval(), &named, YES, at(1)), Err(NoAnswer::Own));
}

#[test]
fn an_answer_needs_what_the_configuration_says() {
    use Required::{Bound, Login, None as Nothing};
    for (required, signed, counts) in [
        (Nothing, None, true),
        (Nothing, Some(false), true),
        (Login, None, false),
        (Login, Some(false), true),
        (Login, Some(true), true),
        (Bound, None, false),
        (Bound, Some(false), false),
        (Bound, Some(true), true),
    ] {
        let book = Arc::<Book>::default();
        let desk = book.desk();
        let waiting = desk.ask(request(1), Message::default(), at(0), MOST).unwrap();
        let by = Answerer { required, evidence: signed.and_then(evidence), ..person(1, &["a"]) };
        let answered = desk.answer(waiting.approval(), &by, YES, at(1));
        assert_eq!(answered.is_ok(), counts, "{required:?} {signed:?}: {answered:?}");
        let Ok(approval) = answered else {
            assert!(matches!(answered, Err(NoAnswer::Unsigned(_))), "{answered:?}");
            continue;
        };
        assert_eq!(approval.answers[0].signed, signed);
        let events = book.events.lock().unwrap();
        let What::ApprovalAnswered(answer) = &events[1] else { panic!("{events:?}") };
        assert_eq!(answer.evidence.as_ref().map(|one| one.bound), signed, "it is in the chain");
    }

    // The initiator's own word is that of his uid.
    let book = Arc::<Book>::default();
    let desk = book.desk();
    let mut asked = request(1);
    asked.terms = Terms { groups: vec![], confirm: vec!["send it?".into()], ..asked.terms };
    let waiting = desk.ask(asked, Message::default(), at(0), MOST).unwrap();
    let own = Answerer { required: Bound, ..person(1000, &[]) };
    assert!(desk.answer(waiting.approval(), &own, YES, at(1)).is_ok());
}

#[tokio::test]
async fn what_nobody_answers_in_time_expires_and_is_answered_no_more() {
    let book = Arc::<Book>::default();
    let desk = book.desk();
    let mut waiting = desk.ask(request(1), Message::default(), at(0), MOST).unwrap();
    desk.expire(at(3599));
    assert_eq!(desk.open().len(), 1);
    // Also before the clock of the desk has ticked.
    let late = desk.answer(waiting.approval(), &person(1, &["a"]), YES, at(3600));
    assert!(matches!(late, Err(NoAnswer::Closed(_))), "{late:?}");
    desk.expire(at(3600));
    assert_eq!((waiting.outcome().await, desk.open().len()), (Outcome::Expired, 0));
    // A clock that is set back reopens nothing.
    let back = desk.answer(waiting.approval(), &person(1, &["a"]), YES, at(-90_000));
    assert!(matches!(back, Err(NoAnswer::Closed(_))), "{back:?}");
}

#[tokio::test]
async fn who_waits_knows_that_it_is_over() {
    let book = Arc::<Book>::default();
    let desk = book.desk();
    let mut waiting = desk.ask(request(1), Message::default(), at(0), MOST).unwrap();
    assert!(!waiting.is_over());
    desk.answer(waiting.approval(), &person(1, &["a"]), YES, at(1)).unwrap();
    assert!(waiting.is_over() && waiting.outcome().await == Outcome::Granted);
    let anew = desk.ask(request(1), Message::default(), at(1), MOST).unwrap();
    assert!(anew.approval() != waiting.approval() && !anew.is_over(), "what was answered is joined again");
}

#[tokio::test(start_paused = true)]
async fn it_is_known_what_ends_next() {
    let book = Arc::<Book>::default();
    let desk = book.desk();
    let seconds = |count| Some(Instant::now() + std::time::Duration::from_secs(count));
    assert_eq!(desk.expire(at(0)), None);
    let _asked = desk.ask(request(2), Message::default(), at(0), MOST).unwrap();
    assert_eq!(desk.expire(at(0)), seconds(3600), "a question");
    let grant = granted(&approval(request(1)), at(0));
    desk.issue(grant.clone(), 300, 0).unwrap();
    assert_eq!(desk.expire(at(0)), seconds(300), "a grant");
    let glass = crate::policy::BreakGlass {
        id: crate::ids::BreakGlassId::new(),
        workload: "crm".parse().unwrap(),
        until: at(200),
        reason: "down".into(),
        loginuid: None,
    };
    desk.break_glass(glass, 200, 0).unwrap();
    assert_eq!(desk.expire(at(0)), seconds(200), "the broken glass");
    tokio::time::advance(std::time::Duration::from_secs(200)).await;
    assert_eq!(desk.expire(at(200)), seconds(100), "what is over isn't waited for");
    // Also where its end can't be recorded, which is tried at the next tick.
    tokio::time::advance(std::time::Duration::from_secs(100)).await;
    book.broken.store(true, Ordering::Relaxed);
    assert_eq!(desk.expire(at(300)), seconds(3300));
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_prolongs_nothing() {
    let book = Arc::<Book>::default();
    let desk = book.desk();
    let back = |second: i64| at(second - 25 * 3600);
    let grant = granted(&approval(request(1)), at(0));
    desk.issue(grant.clone(), 300, 0).unwrap();
    let asked = desk.ask(request(2), Message::default(), at(0), MOST).unwrap();
    tokio::time::advance(Duration::from_secs(299)).await;
    desk.expire(back(299));
    assert!(desk.take(grant.id).is_some(), "it lasts as long as it says");
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(desk.take(grant.id).is_none(), "its time has passed, whatever the clock says");
    desk.expire(back(300));
    assert_eq!(book.kinds().last(), Some(&"ended"));
    tokio::time::advance(Duration::from_secs(3300)).await;
    let late = desk.answer(asked.approval(), &person(1, &["a"]), YES, back(3600));
    assert_eq!(late, Err(NoAnswer::Closed(asked.approval().to_string())));

    // A daemon that begins after the clock was set back knows no more than the record: what was issued later is over.
    let issued = |second: i64| Granted {
        grant: Grant { id: GrantId::new(), until: at(second + 300), ..grant.clone() },
        issued_at: at(second),
        issuer: Some(0),
        used: 0,
        spent_bytes: 0,
        spent_rows: 0,
        ended_at: None,
        reason: None,
    };
    let [earlier, later] = [issued(-1), issued(25 * 3600)];
    let ids = (earlier.grant.id, later.grant.id);
    let desk = book.desk_after(vec![earlier, later], Vec::new());
    assert!(desk.take(ids.0).is_some() && desk.take(ids.1).is_none());
    tokio::time::advance(Duration::from_secs(299)).await;
    assert!(desk.take(ids.0).is_none(), "it goes on for what is left of it");
}

#[test]
fn the_initiators_yes_is_that_and_nothing_more() {
    let book = Arc::<Book>::default();
    let desk = book.desk();
    let mut asked = request(1);
    asked.terms.confirm = vec!["send it?".into()];
    let waiting = desk.ask(asked, Message::default(), at(0), MOST).unwrap();
    // He is in the group as well: it doesn't count for it.
    let own = desk.answer(waiting.approval(), &person(1000, &["a"]), YES, at(1)).unwrap();
    assert_eq!((own.outcome, own.answers[0].confirms, own.answers[0].groups.len()), (None, true, 0));
    assert_eq!(desk.answer(waiting.approval(), &person(1000, &["a"]), YES, at(1)), Err(NoAnswer::Twice));
    let both = desk.answer(waiting.approval(), &person(1, &["a"]), YES, at(2)).unwrap();
    assert_eq!(both.outcome.as_deref(), Some("granted"));

    // Where only he is asked, nobody else answers, and he needs no other name than his uid.
    let mut asked = request(2);
    asked.terms = Terms { groups: vec![], confirm: vec!["send it?".into()], ..asked.terms };
    let waiting = desk.ask(asked, Message::default(), at(0), MOST).unwrap();
    let others = desk.answer(waiting.approval(), &person(1, &["a"]), YES, at(1));
    assert_eq!(others, Err(NoAnswer::NotAsked(vec!["its initiator".into()])));
    let initiator = Answerer { person: None, ..person(1000, &[]) };
    let done = desk.answer(waiting.approval(), &initiator, YES, at(1)).unwrap();
    assert_eq!(done.outcome.as_deref(), Some("granted"));
}

#[test]
fn as_many_wait_as_may_of_one_workload_and_in_all() {
    let book = Arc::<Book>::default();
    let desk = book.desk();
    let ask = |digest, workload: &str| {
        let asked = ApprovalRequest { workload: workload.parse().unwrap(), ..request(digest) };
        desk.ask(asked, Message::default(), at(0), MOST)
    };
    let own: Vec<_> = (0..3).map(|digest| ask(digest, "crm").unwrap()).collect();
    assert!(matches!(ask(9, "crm"), Err(Unasked::Full)));
    let _other = ask(1, "batch").unwrap();
    assert!(matches!(ask(2, "batch"), Err(Unasked::Full)), "four in all");
    drop(own);
    assert!(ask(2, "batch").is_ok());
    assert_eq!(desk.open().len(), 5, "what is asked stays, also when nobody waits");
}

#[test]
fn what_cant_be_recorded_isnt_done() {
    let book = Arc::<Book>::default();
    let desk = book.desk();
    let waiting = desk.ask(request(1), Message::default(), at(0), MOST).unwrap();
    book.broken.store(true, Ordering::Relaxed);
    assert!(matches!(desk.ask(request(2), Message::default(), at(0), MOST), Err(Unasked::Record(_))));
    assert!(matches!(desk.answer(waiting.approval(), &person(1, &["a"]), YES, at(1)), Err(NoAnswer::Record(_))));
    assert!(desk.issue(granted(&approval(request(3)), at(0)), 300, 0).is_err());
    assert!(desk.state().grants.is_empty() && desk.open().len() == 1);
    assert_eq!(desk.state().waiting.values().sum::<usize>(), 1, "who isn't asked about doesn't wait");
}

#[test]
fn what_ends_has_ended_also_where_it_cant_be_recorded() {
    let book = Arc::<Book>::default();
    let desk = book.desk();
    let grant = granted(&approval(request(1)), at(0));
    desk.issue(grant.clone(), 300, 0).unwrap();
    book.broken.store(true, Ordering::Relaxed);
    assert!(desk.revoke(grant.id, 7).is_err());
    assert!(desk.take(grant.id).is_none(), "it lets nothing through");
    desk.expire(at(1));
    book.broken.store(false, Ordering::Relaxed);
    desk.expire(at(2));
    desk.expire(at(3));
    let ended = |what: &What| matches!(what, What::GrantEnded { reason, by: Some(7), .. } if reason == "revoked");
    assert_eq!(book.events.lock().unwrap().iter().filter(|what| ended(what)).count(), 1);
    assert!(desk.state().grants.is_empty());
}

#[test]
fn a_no_holds_and_a_grant_is_issued_once_also_where_the_end_cant_be_recorded() {
    let book = Arc::<Book>::default();
    let desk = book.desk_that_records_no_end();
    let two = || ApprovalRequest { terms: Terms { approvals: 2, ..request(1).terms }, ..request(1) };
    let asked = desk.ask(two(), Message::default(), at(0), MOST).unwrap();
    assert!(desk.answer(asked.approval(), &person(1, &["a"]), YES, at(1)).is_ok());
    assert!(desk.answer(asked.approval(), &person(2, &["a"]), NO, at(2)).is_err());
    let _ = desk.answer(asked.approval(), &person(3, &["a"]), YES, at(3));
    assert!(desk.state().grants.is_empty(), "somebody said no");
    let asked = desk.ask(request(2), Message::default(), at(4), MOST).unwrap();
    assert!(desk.answer(asked.approval(), &person(1, &["a"]), YES, at(5)).is_ok());
    assert!(desk.answer(asked.approval(), &person(2, &["a"]), YES, at(6)).is_err(), "it is closed");
    assert_eq!(book.kinds().iter().filter(|kind| **kind == "issued").count(), 1);
}

#[test]
fn who_hangs_up_doesnt_ask_without_end() {
    let book = Arc::<Book>::default();
    let desk = book.desk();
    let ask = |digest: u8, bytes: usize| {
        let shown = Message { body: vec![0; bytes], ..Message::default() };
        desk.ask(request(digest), shown, at(0), MOST).map(drop)
    };
    assert!(ask(0, 20 << 20).is_ok() && matches!(ask(1, 20 << 20), Err(Unasked::Full)), "bytes are bounded");
    assert_eq!((2..100).filter(|digest| ask(*digest, 0).is_ok()).count(), MOST.0 * OPEN_FOR_EACH - 1);
    assert!(ask(0, 0).is_ok(), "the same is no other question");
}

#[test]
fn the_bodies_that_are_kept_are_bounded_over_all_workloads() {
    let book = Arc::<Book>::default();
    let desk = book.desk();
    let ask = |workload: usize, bytes: usize| {
        let asked = ApprovalRequest { workload: format!("w{workload}").parse().unwrap(), ..request(1) };
        let shown = Message { body: vec![0; bytes], ..Message::default() };
        desk.ask(asked, shown, at(0), (100, 100)).map(drop)
    };
    let most = MOST_SHOWN_IN_ALL / MOST_SHOWN;
    assert!((0..most).all(|workload| ask(workload, MOST_SHOWN).is_ok()));
    assert!(matches!(ask(most, 1), Err(Unasked::Full)));
    assert!(ask(most, 0).is_ok());
}

#[test]
fn a_revoked_grant_is_gone_at_once() {
    let book = Arc::<Book>::default();
    let desk = book.desk();
    let grant = granted(&approval(request(1)), at(0));
    desk.issue(grant.clone(), 300, 0).unwrap();
    let mut watch = desk.watch();
    watch.mark_unchanged();
    assert!(desk.revoke(grant.id, 0).unwrap() && watch.has_changed().unwrap());
    assert!(desk.take(grant.id).is_none() && !desk.revoke(grant.id, 0).unwrap());
}
