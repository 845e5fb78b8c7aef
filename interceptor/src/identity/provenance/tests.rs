use jiff::SignedDuration;

use super::*;
use crate::identity::fixture::{CLIENT, OBJECT, TENANT, now};
use crate::ids::DigestError;

fn key() -> DigestKey {
    DigestKey::open(tempfile::tempdir().unwrap().path()).unwrap()
}

fn issued(workload: &str, minutes: i64) -> Issued {
    Issued {
        workload: workload.parse().unwrap(),
        principal: format!("{TENANT}/{OBJECT}").parse().unwrap(),
        client: Some(CLIENT.parse().unwrap()),
        audiences: vec!["https://graph.microsoft.com".into()],
        kind: PrincipalKind::ServicePrincipal,
        groups: None,
        roles: Vec::new(),
        uti: None,
        expiry: now() + SignedDuration::from_mins(minutes),
        bound: Bound::IssuedHere,
        authentic: Authentic::Issuer,
    }
}

/// What is known, in one word.
fn known(store: &Provenance, digest: &Digest, workload: &str) -> &'static str {
    match store.find(digest, &workload.parse().unwrap(), now()) {
        Known::Live(_) => "live",
        Known::Dead(_, Death::Challenged) => "challenged",
        Known::Dead(_, Death::Revoked) => "revoked",
        Known::Expired(_) => "expired",
        Known::OfAnother(_) => "another's",
        Known::Unknown => "unknown",
    }
}

#[test]
fn a_token_belongs_to_whom_it_was_issued() {
    let (store, key) = (Provenance::default(), key());
    let (mine, old) = (key.digest("mine"), key.digest("old"));
    store.insert(mine, issued("crm", 60), now()).unwrap();
    store.insert(old, issued("crm", -1), now()).unwrap();
    assert_eq!(known(&store, &mine, "crm"), "live");
    assert_eq!(known(&store, &mine, "mail"), "another's");
    assert_eq!(known(&store, &old, "crm"), "expired");
    assert_eq!(known(&store, &key.digest("mine "), "crm"), "unknown");
    // A host endpoint gives the same one to a second workload.
    store.insert(mine, issued("mail", 60), now()).unwrap();
    assert_eq!(known(&store, &mine, "mail"), "live");
    assert_eq!(known(&store, &mine, "crm"), "live");
}

#[test]
fn a_challenged_token_lives_again_when_it_is_issued_again_a_revoked_one_never() {
    let (store, key) = (Provenance::default(), key());
    let token = key.digest("token");
    assert!(!store.kill(&token, Death::Challenged), "nobody has it");
    store.insert(token, issued("crm", 60), now()).unwrap();
    assert!(store.kill(&token, Death::Challenged));
    assert!(!store.kill(&token, Death::Challenged), "it is dead already");
    assert_eq!(known(&store, &token, "crm"), "challenged");
    store.insert(token, issued("crm", 60), now()).unwrap();
    assert_eq!(known(&store, &token, "crm"), "live");
    assert!(store.kill(&token, Death::Revoked));
    assert!(!store.kill(&token, Death::Challenged), "it stays revoked");
    store.insert(token, issued("crm", 60), now()).unwrap();
    assert_eq!(known(&store, &token, "crm"), "revoked");
    store.insert(token, issued("mail", 60), now()).unwrap();
    assert_eq!(known(&store, &token, "mail"), "revoked");
    assert_eq!(store.count(&"crm".parse().unwrap()), 1);
}

#[test]
fn ended_tokens_are_forgotten_first_then_the_oldest_and_of_this_workload_only() {
    let (store, key) = (Provenance::default(), key());
    let digest = |n: usize| key.digest(&n.to_string());
    let crm = "crm".parse().unwrap();
    let of_mail = key.digest("mail's");
    store.insert(of_mail, issued("mail", 60), now()).unwrap();
    for n in 0..TOKENS_PER_WORKLOAD {
        store.insert(digest(n), issued("crm", if n == 7 { -5 } else { 60 }), now()).unwrap();
    }
    let next = TOKENS_PER_WORKLOAD;
    store.insert(digest(next), issued("crm", 60), now()).unwrap();
    assert_eq!(known(&store, &digest(7), "crm"), "unknown");
    assert_eq!(known(&store, &digest(0), "crm"), "live");
    assert!(store.kill(&digest(0), Death::Revoked));
    store.insert(digest(next + 1), issued("crm", 60), now()).unwrap();
    assert_eq!(known(&store, &digest(0), "crm"), "revoked", "new tokens don't bring it back");
    assert_eq!(known(&store, &digest(1), "crm"), "unknown");
    assert_eq!(known(&store, &digest(2), "crm"), "live");
    // One that is issued again is young again, and takes no further place.
    store.insert(digest(2), issued("crm", 60), now()).unwrap();
    store.insert(digest(next + 2), issued("crm", 60), now()).unwrap();
    assert_eq!(known(&store, &digest(2), "crm"), "live");
    assert_eq!(known(&store, &digest(3), "crm"), "unknown");
    assert_eq!(store.count(&crm), TOKENS_PER_WORKLOAD);
    assert_eq!(known(&store, &of_mail, "mail"), "live");
}

#[test]
fn a_workload_whose_tokens_are_all_revoked_gets_no_more() {
    let (store, key) = (Provenance::default(), key());
    for n in 0..TOKENS_PER_WORKLOAD {
        let digest = key.digest(&n.to_string());
        store.insert(digest, issued("crm", 60), now()).unwrap();
        store.kill(&digest, Death::Revoked);
    }
    let next = key.digest("next");
    assert_eq!(store.insert(next, issued("crm", 60), now()), Err(Full("crm".parse().unwrap())));
    assert_eq!(known(&store, &next, "crm"), "unknown");
    let later = now() + SignedDuration::from_mins(62);
    store.insert(next, issued("crm", 120), later).unwrap();
    assert_eq!(known(&store, &next, "crm"), "live");
}

#[test]
fn what_was_recorded_is_restored() {
    let key = key();
    let (live, dead, again, ended) = (key.digest("live"), key.digest("dead"), key.digest("again"), key.digest("ended"));
    let issue = |digest, minutes| Recorded::Issued { digest, issued: issued("crm", minutes) };
    let recorded = [
        issue(live, 60),
        issue(ended, -2),
        issue(dead, 60),
        issue(again, 60),
        Recorded::Dead { digest: dead, death: Death::Revoked },
        Recorded::Dead { digest: again, death: Death::Challenged },
        issue(again, 60),
    ];
    // As the record stores and gives them back.
    let text = serde_json::to_string(&recorded).unwrap();
    let read: Vec<Recorded> = serde_json::from_str(&text).unwrap();
    assert_eq!(read, recorded);
    let store = Provenance::restore(read, now());
    let states = [live, dead, again, ended].map(|digest| known(&store, &digest, "crm"));
    assert_eq!(states, ["live", "revoked", "live", "unknown"]);
}

#[test]
fn the_key_is_that_of_the_state_folder() {
    let dir = tempfile::tempdir().unwrap();
    let first = DigestKey::open(dir.path()).unwrap().digest("t");
    assert_eq!(DigestKey::open(dir.path()).unwrap().digest("t"), first);
    assert_ne!(key().digest("t"), first, "another state folder has another key");
}

#[test]
fn a_digest_reads_back_as_it_is_printed() {
    let digest = key().digest("t");
    assert_eq!(digest.to_string().parse(), Ok(digest));
    assert_eq!("abc".parse::<Digest>(), Err(DigestError));
}

#[test]
fn the_newest_token_of_its_kind_says_what_its_principal_is_in() {
    let (store, key) = (Provenance::default(), key());
    let with = |workload: &str, roles: &[&str]| {
        let roles = roles.iter().map(|role| (*role).to_owned()).collect();
        Issued { roles, ..issued(workload, 60) }
    };
    let put = |name: &str, issued: Issued| {
        store.insert(key.digest(name), issued, now()).unwrap();
        match store.find(&key.digest(name), &"crm".parse().unwrap(), now()) {
            Known::Live(issued) => issued,
            _ => Arc::new(with("crm", &["nobody"])),
        }
    };
    let mut changes = store.watch();
    let first = put("first", with("crm", &["reads", "writes"]));
    assert!(changes.has_changed().unwrap());
    assert_eq!(store.latest(&first).roles, ["reads", "writes"]);
    put("other's", with("mail", &["none"]));
    put("for another", Issued { audiences: vec!["https://vault.azure.net".into()], ..with("crm", &["none"]) });
    put("by another", Issued { client: None, ..with("crm", &["none"]) });
    assert_eq!(store.latest(&first).roles, ["reads", "writes"], "these say nothing of it");
    let second = put("second", with("crm", &["reads"]));
    assert_eq!(store.latest(&first).roles, ["reads"]);
    let told = store.latest(&first).in_the_words_of(Arc::clone(&first));
    assert_eq!((&told.roles, &told.uti), (&second.roles, &first.uti));
    changes.mark_unchanged();
    store.kill(&key.digest("second"), Death::Challenged);
    assert!(changes.has_changed().unwrap());
    assert_eq!(store.latest(&first).roles, ["reads", "writes"], "one that ended says nothing any more");
}

#[test]
fn a_token_that_is_given_out_again_keeps_its_place_and_one_that_was_challenged_gives_way_to_newer_ones_only() {
    let (store, key) = (Provenance::default(), key());
    let put = |name: &str, role: &str| {
        store.insert(key.digest(name), Issued { roles: vec![role.into()], ..issued("crm", 60) }, now()).unwrap();
        let known = store.find(&key.digest(name), &"crm".parse().unwrap(), now());
        let Known::Live(issued) = known else { panic!("{known:?}") };
        issued
    };
    let said = |issued: &Arc<Issued>| {
        let Newest { issued, place } = store.newest(issued);
        (issued.roles[0].clone(), place)
    };
    put("older", "old");
    let first = put("first", "reads");
    assert_eq!((said(&first), store.issued()), (("reads".into(), 1), 2));
    let second = put("second", "writes");
    assert_eq!((said(&first), said(&second), store.issued()), (("writes".into(), 2), ("writes".into(), 2), 3));
    // It is the one that the issuer gave out last, but no newer than it was.
    let first = put("first", "reads");
    assert_eq!((said(&first), said(&second), store.issued()), (("reads".into(), 1), ("reads".into(), 1), 4));
    store.kill(&key.digest("first"), Death::Challenged);
    assert_eq!(said(&first), ("reads".into(), 1), "what came before it says nothing of it");
    put("third", "nothing");
    assert_eq!(said(&first), ("nothing".into(), 4));
}
