//! Unix sockets from inside a workload's cgroup: pathname ones are denied but for those that are allowed, abstract ones
//! and pairs are the workload's own.

#![expect(clippy::unwrap_used, reason = "a test file")]

use std::io::{BufRead, BufReader, Write};

use interceptor_tests::netns::enter;
use interceptor_tests::require_root;
use interceptor_tests::scene::{Scene, passed};

/// Not a test: what the process does that the others start inside.
#[test]
fn child() {
    if let Some(folder) = enter().unwrap() {
        connect_unix(folder.as_ref());
    }
}

#[test]
fn only_allowed_pathname_sockets_can_be_reached_from_inside() {
    require_root!();
    let scene = Scene::new(&[], 100);
    let folder = tempfile::tempdir().unwrap();
    let sockets = UnixSocketsOutside::listen(folder.path());
    let allowed = vec![folder.path().join("allowed.sock"), folder.path().join("allowed.dgram")];
    scene.kernel.allow_unix(scene.cookie, &allowed).unwrap();
    scene.kernel.allow_unix(scene.cookie + 1, &[folder.path().join("stream.sock")]).unwrap();
    // Outside, nothing is in the way.
    std::os::unix::net::UnixStream::connect(folder.path().join("stream.sock")).unwrap();
    passed(&scene.child(&folder.path().display().to_string()));
    scene.kernel.allow_unix(scene.cookie, &[]).unwrap();
    let output = scene.child(&folder.path().display().to_string());
    assert!(!output.status.success(), "what was allowed no longer is");
    drop(sockets);
}

/// The sockets of other programs of the host, that a workload may or may not reach.
struct UnixSocketsOutside {
    _streams: [std::os::unix::net::UnixListener; 2],
    _datagrams: [std::os::unix::net::UnixDatagram; 2],
}

impl UnixSocketsOutside {
    fn listen(folder: &std::path::Path) -> Self {
        Self {
            _streams: ["stream.sock", "allowed.sock"]
                .map(|name| std::os::unix::net::UnixListener::bind(folder.join(name)).unwrap()),
            _datagrams: ["log.dgram", "allowed.dgram"]
                .map(|name| std::os::unix::net::UnixDatagram::bind(folder.join(name)).unwrap()),
        }
    }
}

fn connect_unix(folder: &std::path::Path) {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram, UnixListener, UnixStream};

    let denied = |result: std::io::Result<()>, what: &str| {
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EACCES), "{what}");
    };
    let stream = |name: &str| UnixStream::connect(folder.join(name)).map(drop);
    denied(stream("stream.sock"), "a stream socket of the host");
    denied(stream("missing.sock"), "one that isn't there, which mustn't be told from one that is");
    denied(stream("../etc/../allowed.sock"), "a path that isn't written as it is allowed");
    stream("allowed.sock").unwrap();
    // A relative path says nothing, so that it never matches.
    std::env::set_current_dir(folder).unwrap();
    denied(UnixStream::connect("allowed.sock").map(drop), "a relative path");

    let datagram = UnixDatagram::unbound().unwrap();
    denied(datagram.send_to(b"x", folder.join("log.dgram")).map(drop), "a datagram sent");
    denied(datagram.connect(folder.join("log.dgram")), "a datagram socket connected");
    datagram.send_to(b"x", folder.join("allowed.dgram")).unwrap();
    datagram.connect(folder.join("allowed.dgram")).unwrap();
    datagram.send(b"x").unwrap();

    // What another process or program left behind the path's NUL isn't part of it, with or without a NUL.
    for (tail, reached) in [(&b""[..], true), (b"\0", true), (b"\0garbage", true), (b"garbage", false)] {
        let path = [folder.join("allowed.sock").as_os_str().as_encoded_bytes(), tail].concat();
        assert_eq!(connect_raw(&path).is_ok(), reached, "{tail:?}");
    }
    let longest = [b'x'; 108];
    denied(connect_raw(&longest), "a path without a NUL that fills the address");

    let (mut a, b) = UnixStream::pair().unwrap();
    a.write_all(b"pair\n").unwrap();
    let mut line = String::new();
    BufReader::new(b).read_line(&mut line).unwrap();
    assert_eq!(line, "pair\n");
    let name = UnixAddress::from_abstract_name(b"interceptor-test").unwrap();
    let own = UnixListener::bind_addr(&name).unwrap();
    let _client = UnixStream::connect_addr(&name).unwrap();
    own.accept().unwrap();
    let name = UnixAddress::from_abstract_name(b"interceptor-test-datagram").unwrap();
    let _own = UnixDatagram::bind_addr(&name).unwrap();
    UnixDatagram::unbound().unwrap().send_to_addr(b"x", &name).unwrap();
}

/// Connects a stream socket to exactly these bytes of `sun_path`.
fn connect_raw(path: &[u8]) -> std::io::Result<()> {
    use std::os::fd::AsRawFd;

    let family = nix::sys::socket::AddressFamily::Unix;
    let flags = nix::sys::socket::SockFlag::SOCK_CLOEXEC;
    let socket = nix::sys::socket::socket(family, nix::sys::socket::SockType::Stream, flags, None)?;
    let address = [&(libc::AF_UNIX as u16).to_ne_bytes()[..], path].concat();
    // SAFETY: the address lives until the call returns, and has the length that is given.
    let result = unsafe { libc::connect(socket.as_raw_fd(), address.as_ptr().cast(), address.len() as u32) };
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}
