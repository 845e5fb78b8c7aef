use super::*;
use crate::identity::fixture::{CLIENT, OBJECT, TENANT, claims, jwk, now, sign, token};
use crate::ids::ApprovalId;
use crate::record::event::Way;

const REQUESTED: &str = r#"{"at":"2027-01-15T08:00:00Z","event":"approval.requested"}"#;
const YES: Said<'_> = Said { yes: true, width: Some(Width::Operation), note: None };

#[test]
fn a_nonce_is_what_the_documentation_says() {
    // printf 'interceptor approval answer v1\nsalt\nyes\noperation\n-\n{…}' | openssl dgst -sha256 -binary | base64, in URLs'
    // alphabet, without padding.
    assert_eq!(nonce(REQUESTED, "salt", YES), "D6fQfYQFVqZkNkVe8Tn6_ipUWb0Rs1fJSoWQK8pM5K0");
}

#[test]
fn each_part_of_an_answer_makes_another_nonce() {
    let other = REQUESTED.replace("08:00", "08:01");
    let nonces = [
        nonce(REQUESTED, "salt", YES),
        nonce(&other, "salt", YES),
        nonce(REQUESTED, "other", YES),
        nonce(REQUESTED, "salt", Said { width: Some(Width::Shape), ..YES }),
        nonce(REQUESTED, "salt", Said { width: None, ..YES }),
        nonce(REQUESTED, "salt", Said { yes: false, ..YES }),
        nonce(REQUESTED, "salt", Said { yes: false, width: None, ..YES }),
        nonce(REQUESTED, "salt", Said { note: Some(""), ..YES }),
        nonce(REQUESTED, "salt", Said { note: Some("-"), ..YES }),
    ];
    let different: std::collections::BTreeSet<_> = nonces.iter().collect();
    assert_eq!(different.len(), nonces.len(), "{nonces:?}");
    assert_eq!(nonces[0], nonce(REQUESTED, "salt", YES));
}

/// A question and an answer to it, as they are recorded.
struct Case {
    recorded: Recorded,
    answered: Value,
}

fn case(bound: bool, changes: Value) -> Case {
    let requested = json!({
        "at": now().to_string(), "event": "approval.requested", "approval": ApprovalId::new().to_string(),
        "until": "2027-01-15T09:00:00Z", "session": crate::ids::SessionId::new().to_string(),
        "launch": crate::ids::LaunchId::new().to_string(), "workload": "crm", "process": null, "initiator": 1000,
        "identity": null, "credential": null, "target": "graph", "action": "http:POST", "summary": "POST /x",
        "digest": "00".repeat(32), "shape": { "method": "POST", "path": "/x", "keys": [] }, "policies": ["held"],
        "reasons": [], "justification": null,
        "terms": { "groups": ["a"], "approvals": 1, "within": 3600, "grant_for": 300, "grant_uses": 1,
                   "grant_scope": "shape" },
    });
    let requested = requested.to_string();
    let said = Said { note: Some("fine"), ..YES };
    let mut id_token = json!({ "aud": CLIENT, "idtyp": null, "nonce": nonce(&requested, "salt", said) });
    if let (Some(id_token), Value::Object(changes)) = (id_token.as_object_mut(), changes) {
        id_token.extend(changes);
    }
    let evidence = Evidence {
        bound,
        way: Way::Browser,
        salt: bound.then(|| "salt".into()),
        list: Vec::new(),
        id_token: token(&claims(id_token)),
        jwk: jwk(0, "one", json!({})),
    };
    let answered = json!({
        "at": now().to_string(), "event": "approval.answered", "approval": ApprovalId::new().to_string(), "yes": true,
        "person": format!("{TENANT}/{OBJECT}"), "uid": 7, "groups": ["a"], "width": "operation", "note": "fine",
        "evidence": evidence,
    });
    Case { recorded: Recorded { requested, answered: Vec::new() }, answered }
}

impl Case {
    fn found(&self) -> Finding {
        let answered = vec![self.answered.to_string()];
        check(&Recorded { answered, ..self.recorded.clone() }, None).unwrap().remove(0)
    }
}

#[test]
fn a_signed_answer_holds_and_a_changed_one_doesnt() {
    let found = case(true, json!({})).found();
    assert_eq!((found.verdict, found.flaw, found.kid.as_deref()), (Verdict::Signed, None, Some("one")));
    for (place, value) in [
        ("/yes", json!(false)),
        ("/width", json!("shape")),
        ("/note", json!("other")),
        ("/note", Value::Null),
        ("/evidence/salt", json!("salz")),
        ("/evidence/salt", Value::Null),
        ("/person", json!(format!("{TENANT}/{TENANT}"))),
        ("/person", Value::Null),
        ("/evidence/jwk", jwk(1, "one", json!({}))),
        ("/evidence/jwk", jwk(0, "two", json!({}))),
        ("/evidence/jwk", json!({})),
        // Too late to have been said with this token.
        ("/at", json!("2027-01-15T10:00:00Z")),
    ] {
        let mut case = case(true, json!({}));
        *case.answered.pointer_mut(place).unwrap() = value.clone();
        let found = case.found();
        assert_eq!(found.verdict, Verdict::Broken, "{place} {value}");
        assert!(found.flaw.is_some());
    }
    let mut other = case(true, json!({}));
    other.recorded.requested = other.recorded.requested.replace("POST /x", "POST /y");
    assert_eq!(other.found().verdict, Verdict::Broken, "another question");
}

#[test]
fn what_isnt_bound_is_never_said_to_be_signed() {
    assert_eq!(case(false, json!({ "nonce": null })).found().verdict, Verdict::SignedIn);
    let mut later = case(false, json!({ "nonce": null }));
    later.answered["at"] = json!("2027-01-15T12:00:00Z");
    assert_eq!(later.found().verdict, Verdict::SignedIn, "he was signed in for hours");
    let mut claimed = case(false, json!({ "nonce": null }));
    claimed.answered["evidence"]["bound"] = json!(true);
    assert_eq!(claimed.found().verdict, Verdict::Broken);
    let mut none = case(true, json!({}));
    none.answered.as_object_mut().unwrap().remove("evidence");
    assert_eq!(none.found().verdict, Verdict::None);
}

#[test]
fn tokens_of_others_dont_hold() {
    for changes in [
        json!({ "nonce": "other" }),
        json!({ "nonce": null }),
        json!({ "iss": "https://login.microsoftonline.com/0f0f0f0f-1111-2222-3333-444444444444/v2.0" }),
        json!({ "exp": null }),
    ] {
        assert_eq!(case(true, changes.clone()).found().verdict, Verdict::Broken, "{changes}");
    }
    let mut forged = case(true, json!({}));
    let text = forged.answered["evidence"]["id_token"].as_str().unwrap().to_owned();
    let claims = text.split('.').nth(1).unwrap();
    let claims = String::from_utf8(URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    forged.answered["evidence"]["id_token"] = json!(sign(1, r#"{"alg":"RS256","kid":"one"}"#, &claims));
    assert_eq!(forged.found().verdict, Verdict::Broken);
}

#[test]
fn keys_from_elsewhere_are_compared() {
    let case = case(true, json!({}));
    let recorded = Recorded { answered: vec![case.answered.to_string()], ..case.recorded };
    let set = |key: Value| KeySet::parse(json!({ "keys": [key] }).to_string().as_bytes(), "kept").unwrap();
    let found = |set: &KeySet| check(&recorded, Some(set)).unwrap().remove(0).verdict;
    assert_eq!(found(&set(jwk(0, "one", json!({})))), Verdict::Signed);
    assert_eq!(found(&set(jwk(1, "one", json!({})))), Verdict::Broken);
    assert_eq!(found(&set(jwk(0, "two", json!({})))), Verdict::Broken);
}

#[test]
fn what_is_no_answer_cant_be_read() {
    let case = case(true, json!({}));
    let swapped = Recorded { requested: case.answered.to_string(), answered: Vec::new() };
    assert!(check(&swapped, None).is_err());
    let torn = Recorded { answered: vec!["{".into()], ..case.recorded };
    assert!(check(&torn, None).is_err());
}

#[test]
fn one_token_signs_a_list_of_answers_and_no_other_list() {
    let mine = case(true, json!({})).recorded.requested;
    let list = [fingerprint("another"), fingerprint(&mine)];
    let said = Said { note: Some("fine"), ..YES };
    let listed = |nonce: String, list: &[String]| {
        let mut case = case(true, json!({ "nonce": nonce }));
        case.recorded.requested.clone_from(&mine);
        case.answered["evidence"]["list"] = json!(list);
        case.found().verdict
    };
    let nonce = nonce_of_list(&list, "salt", said);
    assert_eq!(listed(nonce.clone(), &list), Verdict::Signed);
    let [first, second] = list.clone();
    for other in [vec![second.clone(), first.clone()], vec![second.clone()], vec![first.clone()], vec![]] {
        assert_eq!(listed(nonce.clone(), &other), Verdict::Broken, "{other:?}");
    }
    // A list that it isn't on, though the token is that list's.
    let foreign = [first, fingerprint("a third")];
    assert_eq!(listed(nonce_of_list(&foreign, "salt", said), &foreign), Verdict::Broken);
    // A list of one isn't that one.
    assert_ne!(nonce_of_list(&[second], "salt", said), super::nonce(&mine, "salt", said));
    for other in [Said { yes: false, ..said }, Said { width: None, ..said }, Said { note: None, ..said }] {
        assert_eq!(listed(nonce_of_list(&list, "salt", other), &list), Verdict::Broken, "{other:?}");
    }
    assert_eq!(listed(nonce_of_list(&list, "other", said), &list), Verdict::Broken);
}
