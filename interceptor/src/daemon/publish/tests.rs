use std::net::{TcpListener, TcpStream};

use super::{find, may_call, uid_of, written};
use crate::config::Match;

#[test]
fn an_address_is_written_as_the_kernel_writes_it() {
    assert_eq!(written("127.0.0.1:8080".parse().unwrap()), "0100007F:1F90");
    assert_eq!(written("[::1]:443".parse().unwrap()), "00000000000000000000000001000000:01BB");
}

#[test]
fn the_caller_is_found_by_both_ends() {
    let list = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
        0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0\n\
        1: 0100007F:C350 0100007F:1F91 01 00000000:00000000 00:00000000 00000000  2000        0 2 1 0\n\
        2: 0100007F:C350 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 3 1 0\n";
    let (peer, own) = ("127.0.0.1:50000".parse().unwrap(), "127.0.0.1:8080".parse().unwrap());
    assert_eq!(find(list, peer, own), Some(1000));
    assert_eq!(find(list, own, peer), None);
    assert_eq!(find("", peer, own), None);
}

#[test]
fn a_real_caller_is_found() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let listener = TcpListener::bind(address).unwrap();
        let _caller = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, peer) = listener.accept().unwrap();
        let own = accepted.local_addr().unwrap();
        assert_eq!(uid_of(peer, own), Some(nix::unistd::geteuid().as_raw()));
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
