use std::os::unix::net::UnixStream;

use nix::unistd::{Uid, User};

use super::*;

const GROUP: u32 = 61_399;

#[test]
fn a_local_group_counts_for_its_members_who_are_known() {
    let members = Approvers { uids: [1].into(), gids: vec![27, GROUP], ..Approvers::default() };
    let in_group = |gid| gid == GROUP;
    assert!(is_local(&members, 2, true, in_group));
    assert!(!is_local(&members, 2, true, |gid| gid == 28));
    assert!(!is_local(&members, 2, false, in_group), "nobody knows who he is");
    assert!(is_local(&members, 1, false, |_| false), "listed by himself");
}

/// The process may be in it while its user isn't, as where he has left it since, or by newgrp(1).
#[test]
fn who_is_in_a_group_by_his_process_alone_does_not_answer_for_it() {
    let (one, _other) = UnixStream::pair().unwrap();
    let mut peer = Peer::of(&one).unwrap();
    let account = User::from_uid(Uid::from_raw(peer.uid)).unwrap();
    if let Some(account) = account.filter(|account| account.gid.as_raw() == peer.gid) {
        assert!(answers_for(&peer, account.gid.as_raw()));
    }
    peer.gid = GROUP;
    assert!(peer.is_in(&[GROUP]).unwrap(), "the kernel says so");
    assert!(!answers_for(&peer, GROUP));
}

fn answer(signed: Option<bool>, by_sign_in: &[&str]) -> approval::Answer {
    approval::Answer {
        at: "2026-11-25T10:00:00Z".parse().unwrap(),
        person: Some("issuer/1".into()),
        uid: 1,
        loginuid: None,
        yes: true,
        groups: vec!["crm".into()],
        by_sign_in: by_sign_in.iter().map(|group| (*group).to_owned()).collect(),
        confirms: false,
        width: None,
        note: None,
        signed,
    }
}

#[test]
fn after_his_sign_in_stays_only_who_was_in_the_group_by_it() {
    let mixed = Approvers { gids: vec![GROUP], groups: ["t/g".to_owned()].into(), ..Approvers::default() };
    let stays = |members: &Approvers, answer: &approval::Answer| still_in(("crm", members), answer, None);
    assert!(stays(&mixed, &answer(Some(true), &["crm"])));
    assert!(!stays(&mixed, &answer(Some(true), &[])), "signed, and in it by the local group");
    assert!(!stays(&mixed, &answer(Some(false), &["other"])), "in another one by it");
    assert!(!stays(&mixed, &answer(None, &[])));
    let local = Approvers { groups: BTreeSet::new(), ..mixed };
    assert!(!stays(&local, &answer(Some(true), &["crm"])), "no group of Entra's is asked any more");
    let named = Approvers { people: ["issuer/1".parse().unwrap()].into(), ..local };
    assert!(stays(&named, &answer(Some(true), &[])), "asked by his name");
}
