use std::net::{TcpListener, TcpStream};

use super::{Diagnosis, read};

#[test]
fn a_socket_is_found_by_its_addresses_and_its_cookie() {
    let diagnosis = Diagnosis::open().unwrap();
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let listener = TcpListener::bind(address).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (own, peer) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        let cookie = rustix::net::sockopt::socket_cookie(&stream).unwrap();
        assert!(diagnosis.has(own, peer, cookie).unwrap());
        assert!(!diagnosis.has(own, peer, cookie + 1).unwrap(), "another socket's cookie");
        let (accepted, _) = listener.accept().unwrap();
        assert!(!diagnosis.has(peer, own, cookie).unwrap(), "the other end");
        drop((stream, accepted, listener));
        assert!(!diagnosis.has(peer, own, cookie).unwrap());
    }
}

#[test]
fn a_socket_is_of_who_made_it_until_it_is_closed() {
    let diagnosis = Diagnosis::open().unwrap();
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let listener = TcpListener::bind(address).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (own, peer) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        assert_eq!(diagnosis.owner(own, peer).unwrap().map(|one| one.uid), Some(nix::unistd::geteuid().as_raw()));
        let (accepted, _) = listener.accept().unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(diagnosis.owner(own, peer).unwrap().is_some(), "it may read still");
        drop(stream);
        assert_eq!(diagnosis.owner(own, peer).unwrap(), None);
        drop(accepted);
    }
}

#[test]
fn an_answer_that_is_none_is_an_error() {
    for answer in [&[][..], &[0; 16], &[0; 20]] {
        assert!(read(answer).is_err());
    }
}
