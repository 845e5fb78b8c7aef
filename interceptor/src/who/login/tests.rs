use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use super::*;

#[test]
fn who_no_login_began_has_none() {
    assert_eq!(parse_loginuid("1000\n"), Some(1000));
    assert_eq!(parse_loginuid("0"), Some(0));
    for none in ["4294967295", "", "x", "-1"] {
        assert_eq!(parse_loginuid(none), None, "{none}");
    }
}

/// Whoever a socket was said to be of: by the process that has it.
#[test]
fn a_socket_is_found_by_who_has_it() {
    if !is_known() {
        return;
    }
    let own = parse_loginuid(&fs::read_to_string("/proc/self/loginuid").unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let inode = fs::metadata(format!("/proc/self/fd/{}", stream.as_raw_fd())).unwrap().ino();
    let inode = u32::try_from(inode).unwrap();
    let uid = nix::unistd::geteuid().as_raw();
    assert_eq!(of_socket(inode, uid).unwrap(), Some(own));
    assert_eq!(of_socket(inode, uid + 1).unwrap(), Some(own), "it was somebody else's once");
    drop(stream);
    assert_eq!(of_socket(inode, uid).unwrap(), None, "nobody has it any more");
}
