use std::net::{TcpListener, TcpStream};

use super::{caller_of, is_held_here, may_call};
use crate::config::Match;

#[tokio::test]
async fn a_real_caller_is_found() {
    let uid = nix::unistd::geteuid().as_raw();
    let matches = Match { uids: vec![uid], ..Match::default() };
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let listener = TcpListener::bind(address).unwrap();
        let caller = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, peer) = listener.accept().unwrap();
        let own = accepted.local_addr().unwrap();
        let found = caller_of(peer, own, &matches).await.unwrap();
        assert_eq!((found.uid, found.may), (uid, true));
        assert!(is_held_here(found.inode), "it is this process's own");
        drop(caller);
        assert!(!is_held_here(found.inode), "nobody has it any more");
        assert_eq!(caller_of(peer, own, &matches).await, None, "nobody is taken for root");
    }
}

#[test]
fn only_root_and_who_is_listed_may_call() {
    let by_uid = Match { uids: vec![1000], ..Match::default() };
    assert!(may_call(&by_uid, 1000) && may_call(&by_uid, 0) && !may_call(&by_uid, 1001));
    let by_group = Match { gids: vec![0], ..Match::default() };
    assert!(!may_call(&by_group, 1000));
    assert!(!may_call(&Match::default(), 1000) && may_call(&Match::default(), 0));
}
