use std::sync::Arc;

use super::super::tests::{Book, MOST, YES, at, person, request};
use super::super::{Answerer, NoAnswer, lets_through};
use crate::ids::Digest;
use crate::policy::{Authentic, Bound, PrincipalKind, Terms, Width};
use crate::record::event::{ApprovalRequest, Identity};
use crate::record::payload::Message;

#[test]
fn nobody_behind_an_operation_answers_for_it() {
    let ask = |digest, loginuid, callers: &[u32]| {
        let book = Arc::<Book>::default();
        let desk = book.desk();
        let asked = ApprovalRequest { loginuid, callers: callers.to_vec(), ..request(digest) };
        let waiting = desk.ask(asked, Message::default(), at(0), MOST).unwrap();
        (desk, waiting)
    };
    let by = |uid, others: &[u32]| Answerer { others: others.iter().copied().collect(), ..person(uid, &["a"]) };
    for (loginuid, callers, who, counts) in [
        (None, &[][..], by(1, &[]), true),
        (Some(1), &[], by(1, &[]), false),
        (Some(1), &[], by(2, &[1]), false),
        (Some(3), &[], by(2, &[1]), true),
        (None, &[7, 1], by(1, &[]), false),
        (None, &[7, 1], by(2, &[1]), false),
        (None, &[7], by(2, &[1]), true),
    ] {
        let (desk, waiting) = ask(1, loginuid, callers);
        let answered = desk.answer(waiting.approval(), &who, YES, at(1));
        let expected = if counts { Ok(()) } else { Err(NoAnswer::Own) };
        assert_eq!(answered.map(drop), expected, "{loginuid:?} {callers:?} {who:?}");
    }
}

#[test]
fn whom_the_token_names_doesnt_answer_as_whom_he_became() {
    let book = Arc::<Book>::default();
    let desk = book.desk();
    let named: crate::ids::PrincipalId = "issuer/9".parse().unwrap();
    let identity = Identity {
        principal: named.clone(),
        kind: PrincipalKind::User,
        client: None,
        authentic: Authentic::Signature,
        bound: Bound::IssuedHere,
        token: Digest::from([7; 32]),
        uti: None,
    };
    let asked = ApprovalRequest { identity: Some(Box::new(identity)), ..request(1) };
    let waiting = desk.ask(asked, Message::default(), at(0), MOST).unwrap();
    let mut by = person(2, &["a"]);
    by.persons.insert(named);
    assert_eq!(desk.answer(waiting.approval(), &by, YES, at(1)).map(drop), Err(NoAnswer::Own));
    assert_eq!(desk.answer(waiting.approval(), &person(2, &["a"]), YES, at(1)).map(drop), Ok(()));
}

/// Several people are root by `sudo`: what one launched another doesn't confirm.
#[test]
fn a_confirmation_is_of_who_logged_in_as_the_launcher() {
    for (launched, answers, counts) in [
        (None, None, true),
        (Some(5), Some(5), true),
        (Some(5), None, true),
        (None, Some(5), true),
        (Some(5), Some(6), false),
    ] {
        let book = Arc::<Book>::default();
        let desk = book.desk();
        let mut asked = ApprovalRequest { loginuid: launched, ..request(1) };
        asked.terms = Terms { groups: vec![], confirm: vec!["send it?".into()], ..asked.terms };
        let waiting = desk.ask(asked, Message::default(), at(0), MOST).unwrap();
        let by = Answerer { loginuid: answers, ..person(1000, &[]) };
        let expected = if counts { Ok(()) } else { Err(NoAnswer::Own) };
        assert_eq!(desk.answer(waiting.approval(), &by, YES, at(1)).map(drop), expected, "{launched:?} {answers:?}");
    }
}

#[test]
fn who_logged_in_as_one_who_has_answered_doesnt_answer_again() {
    let book = Arc::<Book>::default();
    let desk = book.desk();
    let mut asked = request(1);
    asked.terms.approvals = 3;
    let waiting = desk.ask(asked, Message::default(), at(0), MOST).unwrap();
    let answer = |by: &Answerer| desk.answer(waiting.approval(), by, YES, at(1)).map(drop);
    let login = |uid, login| Answerer { loginuid: Some(login), others: [login].into(), ..person(uid, &["a"]) };
    assert_eq!(answer(&login(1, 9)), Ok(()));
    assert_eq!(answer(&login(2, 1)), Err(NoAnswer::Twice), "as the first one's user");
    assert_eq!(answer(&login(2, 9)), Err(NoAnswer::Twice), "by the same login");
    assert_eq!(answer(&person(9, &["a"])), Err(NoAnswer::Twice), "as whom the first one logged in");
    assert_eq!(answer(&login(2, 8)), Ok(()));
}

/// Whatever they choose: what is said over a WebSocket is let through as well, and seen by nobody.
#[test]
fn of_a_websocket_every_width_says_that_all_of_it_is_let_through() {
    let mut asked = request(1);
    let told = |asked: &ApprovalRequest| {
        let widths = [Width::Operation, Width::Shape, Width::Action, Width::Target];
        widths.map(|width| lets_through(asked, width))
    };
    let is_said = |told: &String| told.contains("WebSocket") && told.contains("whatever is said over");
    let plain = told(&asked);
    assert!(!plain[..3].iter().any(is_said) && is_said(&plain[3]), "{plain:?}");
    (asked.shape.websocket, asked.action) = (true, "http:websocket".into());
    let opens = told(&asked);
    assert!([0, 1, 3].into_iter().all(|at| is_said(&opens[at])), "{opens:?}");
    assert!(opens[2].contains("http:websocket") && opens[2].contains("whatever is said over it"), "{opens:?}");
}
