//! Steering and attribution, with real programs in the kernel, in namespaces and cgroups made for it. Every destination
//! is inside such a namespace: nothing is dialled outside.

#![expect(clippy::unwrap_used, reason = "a test file")]

use std::io::Write;
use std::net::{SocketAddr, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use interceptor::bpf::{Fate, Kernel, Kind, Listeners};
use interceptor::transport::accept::{Acceptor, Worker};
use interceptor::transport::namespace::{self, Sockets};
use interceptor_tests::netns::{self, Cgroup, Namespace, Pins};
use interceptor_tests::require_root;
use interceptor_tests::scene::{Scene, original, passed, random_address, refused, told, workload};

/// Not a test: what the processes do that other tests start inside a namespace and a cgroup.
#[test]
fn child() {
    match netns::enter().unwrap().as_deref() {
        None => {}
        Some("connect") => connect_everywhere(),
        Some("specials") => connect_specially(),
        Some("datagrams") => send_besides_tcp(),
        Some("wire") => send_over_a_wire(),
        Some(role) => panic!("no role {role}"),
    }
}

const THREADS: usize = 16;
const EACH: usize = 500;

#[test]
fn every_connection_tells_its_destination_process_and_thread() {
    require_root!();
    let scene = Scene::new(&[], 20_000);
    passed(&scene.child("connect"));
}

fn connect_everywhere() {
    let wrong = Mutex::new(Vec::new());
    // This thread is in the namespace; threads that it makes are too.
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let wrong = &wrong;
            let run = move || {
                let mut random = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(thread as u64 + 1);
                for _ in 0..EACH {
                    let to = random_address(&mut random);
                    let stream = TcpStream::connect(to).unwrap_or_else(|error| panic!("{to}: {error}"));
                    let expected = [
                        to.to_string(),
                        stream.local_addr().unwrap().to_string(),
                        std::process::id().to_string(),
                        nix::unistd::gettid().to_string(),
                        format!("client-{thread}"),
                    ];
                    let told = told(&stream);
                    if told != expected {
                        wrong.lock().unwrap().push(format!("{told:?} instead of {expected:?}"));
                    }
                }
            };
            std::thread::Builder::new().name(format!("client-{thread}")).spawn_scoped(scope, run).unwrap();
        }
    });
    assert_eq!(wrong.into_inner().unwrap(), Vec::<String>::new());
}

#[test]
fn special_destinations_go_where_they_should() {
    require_root!();
    let scene = Scene::new(&[40_342], 100);
    passed(&scene.child("specials"));
}

fn connect_specially() {
    assert_eq!(original("169.254.169.254:80"), "169.254.169.254:80");
    assert_eq!(original("192.0.2.2:8080"), "192.0.2.2:8080");
    assert_eq!(original("[fd00::2]:8080"), "[fd00::2]:8080");
    let link_local = SocketAddrV6::new("fe80::1".parse().unwrap(), 443, 0, 1);
    assert_eq!(original(link_local), "[fe80::1]:443");

    // An IPv6 socket that connects to a mapped address is IPv4 to the peer, and its process is still known.
    let mapped = TcpStream::connect("[::ffff:93.184.216.34]:443").unwrap();
    let told = told(&mapped);
    assert_eq!((told[0].as_str(), told[2].as_str()), ("93.184.216.34:443", std::process::id().to_string().as_str()));

    // Loopback is the workload's own, whichever way it is written, except DNS and what a target names.
    let own = TcpListener::bind("127.0.0.1:7000").unwrap();
    for to in ["127.0.0.1:7000", "0.0.0.0:7000", "[::ffff:127.0.0.1]:7000"] {
        let client = TcpStream::connect(to).unwrap();
        assert_eq!(own.accept().unwrap().1, canonical(client.local_addr().unwrap()), "{to}");
    }
    let own6 = TcpListener::bind("[::1]:7000").unwrap();
    for to in ["[::1]:7000", "[::]:7000"] {
        let client = TcpStream::connect(to).unwrap();
        assert_eq!(own6.accept().unwrap().1, client.local_addr().unwrap(), "{to}");
    }
    assert!(refused("127.0.0.1:7001") && refused("[::1]:7001"));
    let squatter = TcpListener::bind("127.0.0.1:40342").unwrap();
    squatter.set_nonblocking(true).unwrap();
    for to in ["127.0.0.1:40342", "127.1.2.3:40342", "[::1]:40342", "127.0.0.1:53", "[::1]:53", "8.8.8.8:53"] {
        assert_eq!(original(to), to);
    }
    assert!(squatter.accept().is_err(), "a listener on a steered loopback port gets nothing");

    // A listener of the workload's own on every address gets nothing that was meant for elsewhere.
    let squatter = TcpListener::bind("0.0.0.0:443").unwrap();
    squatter.set_nonblocking(true).unwrap();
    assert_eq!(original("20.190.128.1:443"), "20.190.128.1:443");
    assert!(squatter.accept().is_err());

    // No socket takes UDP but the resolver's: QUIC fails at once, and clients fall back.
    for to in ["1.1.1.1:443", "[2606:4700::1111]:443"] {
        let from = if to.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
        let socket = UdpSocket::bind(from).unwrap();
        socket.connect(to).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let since = Instant::now();
        socket.send(b"quic").unwrap();
        let error = socket.recv(&mut [0; 16]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{to}");
        assert!(since.elapsed() < Duration::from_secs(3), "{to}");
    }
    connect_oddly();
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Connects that aren't a socket followed by a connect.
fn connect_oddly() {
    use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, SockaddrIn, bind, connect, sendto, socket};
    use std::os::fd::AsRawFd;

    let new = || socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    let me = std::process::id().to_string();
    let address = |text: &str| SockaddrIn::from(text.parse::<std::net::SocketAddrV4>().unwrap());

    let bound = new();
    bind(bound.as_raw_fd(), &address("192.0.2.2:33333")).unwrap();
    connect(bound.as_raw_fd(), &address("10.1.2.3:80")).unwrap();
    let line = told(&TcpStream::from(bound));
    assert_eq!(line[..3], ["10.1.2.3:80", "192.0.2.2:33333", &me]);

    // Disconnect by AF_UNSPEC, then go elsewhere with the same socket.
    let again = new();
    connect(again.as_raw_fd(), &address("10.1.2.3:80")).unwrap();
    // SAFETY: a sockaddr that is all zero has the family AF_UNSPEC.
    let unspec: libc::sockaddr = unsafe { std::mem::zeroed() };
    // SAFETY: the address lives until the call returns, and has the length that is given.
    let result = unsafe { libc::connect(again.as_raw_fd(), &raw const unspec, size_of_val(&unspec) as u32) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    connect(again.as_raw_fd(), &address("10.9.9.9:99")).unwrap();
    assert_eq!(told(&TcpStream::from(again))[0], "10.9.9.9:99");

    // TCP Fast Open, both ways.
    let fast = new();
    sendto(fast.as_raw_fd(), b"hello", &address("10.4.5.6:443"), MsgFlags::from_bits_retain(libc::MSG_FASTOPEN))
        .unwrap();
    let line = told(&TcpStream::from(fast));
    assert_eq!((line[0].as_str(), &line[2]), ("10.4.5.6:443", &me));
    let lazy = new();
    nix::sys::socket::setsockopt(&lazy, nix::sys::socket::sockopt::TcpFastOpenConnect, &true).unwrap();
    connect(lazy.as_raw_fd(), &address("10.4.5.7:443")).unwrap();
    let mut lazy = TcpStream::from(lazy);
    lazy.write_all(b"hello").unwrap();
    let line = told(&lazy);
    assert_eq!((line[0].as_str(), &line[2]), ("10.4.5.7:443", &me));
}

/// As root, and without the filter on system calls that refuses raw sockets to a launched workload. There is no resolver.
#[test]
fn what_isnt_tcp_is_counted_by_what_becomes_of_it() {
    require_root!();
    let scene = Scene::new(&[], 100);
    passed(&scene.child("datagrams"));
    let counted = |kind, fate| scene.kernel.attempts(scene.workload.id, kind, fate).unwrap();
    assert_eq!(counted(Kind::Udp, Fate::Refused), 3, "to nobody");
    assert_eq!(counted(Kind::Udp, Fate::Allowed), 5, "to its own");
    assert_eq!(counted(Kind::Dns, Fate::Refused), 1, "a question");
    assert_eq!((counted(Kind::Raw, Fate::Allowed), counted(Kind::Packet, Fate::Allowed)), (2, 1), "raw ones");
    assert_eq!(counted(Kind::Tcp, Fate::Established), 0);
    for kind in [Kind::Udp, Kind::Dns, Kind::Packet] {
        assert_eq!(counted(kind, Fate::Left), 0, "{kind:?}: there is no way out");
    }
}

fn send_besides_tcp() {
    use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket};
    use std::os::fd::AsRawFd;

    let new = |at: &str| UdpSocket::bind(at).unwrap();
    let (v4, v6) = (new("0.0.0.0:0"), new("[::]:0"));
    // To nobody.
    v4.send_to(b"x", "198.51.100.7:443").unwrap();
    v6.send_to(b"x", "[2001:db8::7]:443").unwrap();
    let connected = new("0.0.0.0:0");
    connected.connect("198.51.100.7:443").unwrap();
    connected.send(b"x").unwrap();
    // To its own: on the loopback, as an answer to a socket that is connected, and at an address that is its own as all are.
    let (own, own6, everywhere) = (new("127.0.0.1:0"), new("[::1]:0"), new("0.0.0.0:7443"));
    v4.send_to(b"x", own.local_addr().unwrap()).unwrap();
    v6.send_to(b"x", own6.local_addr().unwrap()).unwrap();
    let caller = new("127.0.0.1:0");
    caller.connect(own.local_addr().unwrap()).unwrap();
    caller.send(b"x").unwrap();
    own.send_to(b"x", caller.local_addr().unwrap()).unwrap();
    v4.send_to(b"x", "198.51.100.7:7443").unwrap();
    for socket in [&own, &own6, &caller, &everywhere] {
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket.recv(&mut [0; 16]).unwrap();
    }
    v4.send_to(b"?", "198.51.100.7:53").unwrap();

    let raw = |family, protocol| socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol).unwrap();
    let _unused = raw(AddressFamily::Inet6, SockProtocol::IcmpV6);
    let one = raw(AddressFamily::Inet, SockProtocol::Icmp);
    let to = SockaddrIn::from("198.51.100.7:0".parse::<std::net::SocketAddrV4>().unwrap());
    // An echo request with its checksum (RFC 792).
    sendto(one.as_raw_fd(), &[8, 0, 0xf7, 0xff, 0, 0, 0, 0], &to, MsgFlags::empty()).unwrap();
}

/// Root lays a wire. What leaves by it is counted apart; segments of TCP, what the kernel itself tells neighbours and groups,
/// and what goes to an address that the namespace has at the wire aren't.
#[test]
fn what_leaves_by_a_wire_is_counted_apart() {
    require_root!();
    let scene = Scene::new(&[], 100);
    let outside = Namespace::new().unwrap();
    outside.lay_wire(&scene.namespace, "198.51.100.7/24").unwrap();
    let _listener = outside.run(|| TcpListener::bind("198.51.100.7:443")).unwrap();
    for command in [
        "link set hole up",
        "addr add 198.51.100.1/24 dev hole",
        "addr add 2001:db8:7::1/64 dev hole nodad",
        // Beside the one that makes every address of IPv6 its own.
        "-6 route add 2001:db8:7::/64 dev hole table local",
    ] {
        scene.namespace.ip(command).unwrap();
    }
    passed(&scene.child("wire"));
    let counted = |kind, fate| scene.kernel.attempts(scene.workload.id, kind, fate).unwrap();
    assert_eq!(counted(Kind::Udp, Fate::Left), 3, "datagrams");
    assert_eq!(counted(Kind::Dns, Fate::Left), 1, "a question");
    assert_eq!((counted(Kind::Raw, Fate::Allowed), counted(Kind::Packet, Fate::Left)), (2, 2), "raw ones");
    assert_eq!(counted(Kind::Udp, Fate::Refused), 2, "to nobody at its own addresses");
    assert_eq!((counted(Kind::Udp, Fate::Allowed), counted(Kind::Dns, Fate::Refused)), (0, 0));
    assert_eq!(counted(Kind::Packet, Fate::Allowed), 0);
    assert_eq!(counted(Kind::Tcp, Fate::Established), 1);
}

fn send_over_a_wire() {
    use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket};
    use std::os::fd::AsRawFd;

    let (v4, v6) = (UdpSocket::bind("0.0.0.0:0").unwrap(), UdpSocket::bind("[::]:0").unwrap());
    v4.send_to(b"x", "198.51.100.7:4500").unwrap();
    v6.send_to(b"x", "[2001:db8:7::7]:4500").unwrap();
    v6.send_to(b"x", "[::ffff:198.51.100.7]:4500").unwrap();
    v4.send_to(b"?", "198.51.100.7:53").unwrap();
    // Its own.
    v4.send_to(b"x", "198.51.100.1:4500").unwrap();
    v6.send_to(b"x", "[2001:db8:7::1]:4500").unwrap();
    // An echo request with its checksum (RFC 792), and a segment of TCP that no connection has.
    let to = SockaddrIn::from("198.51.100.7:0".parse::<std::net::SocketAddrV4>().unwrap());
    let echo: [u8; 8] = [8, 0, 0xf7, 0xff, 0, 0, 0, 0];
    let segment: [u8; 20] = [0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 4, 0, 0, 0, 0, 0, 0];
    for (protocol, bytes) in [(SockProtocol::Icmp, &echo[..]), (SockProtocol::Tcp, &segment[..])] {
        let one = socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol).unwrap();
        sendto(one.as_raw_fd(), bytes, &to, MsgFlags::empty()).unwrap();
    }
    let mut connection = TcpStream::connect("198.51.100.7:443").unwrap();
    connection.write_all(b"segments").unwrap();
}

#[test]
fn more_connections_than_a_workload_may_have_are_reset() {
    require_root!();
    let (pins, cgroup, namespace) = (Pins::default(), Cgroup::new().unwrap(), Namespace::new().unwrap());
    let workload = workload(cgroup.below("workload").unwrap());
    let kernel = Arc::new(Kernel::load(&pins.path, &cgroup.path).unwrap());
    let Sockets { tcp4, tcp6, .. } = namespace::open(namespace.fd()).unwrap();
    kernel.steer(workload.id, namespace.fd(), &Listeners { v4: &tcp4, v6: &tcp6 }, &[]).unwrap();
    let (worker, mut queue) = Worker::new(10);
    let acceptor = Acceptor::start(kernel, vec![worker.clone()]).unwrap();
    acceptor.add(workload, tcp4, tcp6, 3).unwrap();
    namespace.run(|| {
        let connect = || TcpStream::connect("10.0.0.1:80").unwrap();
        let held: Vec<_> = (0..3).map(|_| (connect(), queue.blocking_recv().unwrap())).collect();
        assert_eq!(worker.live(), 3);
        let error = std::io::Read::read(&mut connect(), &mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        // A test process outside the workloads' cgroup: the process isn't known, the destination is.
        assert_eq!(held[0].1.attribution.process, None);
        assert_eq!(held[0].1.attribution.original, "10.0.0.1:80".parse().unwrap());
        assert!(held[0].1.stream.nodelay().unwrap());
        drop(held);
        assert_eq!(worker.live(), 0);
        let _one_more = (connect(), queue.blocking_recv().unwrap());
    });
}
