//! Sockets of governed processes that reach past the hooks, and those that an accomplice outside shares with one.

#![expect(clippy::expect_used, reason = "what a test makes itself is as it says")]

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use interceptor::adopt::{DESCRIPTORS, Sockets, Stray};
use interceptor::bpf::adopt::Doors;
use interceptor_tests::adopted::{NUMBER, Scene};
use interceptor_tests::{port, require_root};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

const PROBE: &str = env!("CARGO_BIN_EXE_probe");

/// A process with this as its standard input, and nothing else that reaches out.
struct Holder(Child);

impl Holder {
    fn of(held: impl Into<OwnedFd>) -> Self {
        let (mut command, held): (Command, OwnedFd) = (Command::new("sleep"), held.into());
        command.arg("60").stdin(held).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("it can be started"))
    }

    fn found(&self, scene: &Scene, allowed: &[PathBuf]) -> Vec<(String, bool)> {
        let mut sockets = Sockets::at_most(DESCRIPTORS);
        let strays = sockets.cut(&scene.adopter, &[self.0.id()], allowed);
        strays.into_iter().map(|Stray { what, cut, .. }| (what, cut)).collect()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// To take away its peer changes nothing of what it can send.
#[test]
fn what_sends_without_a_connection_is_open_and_stays_so() {
    require_root!();
    // A network of this thread's own, in which anybody may ping.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network");
    interceptor::transport::namespace::configure().expect("it can be set up");
    std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 65534").expect("it can be allowed");
    let scene = Scene::new();
    let new = |family, kind, protocol| socket(family, kind, SockFlag::SOCK_CLOEXEC, protocol);
    let raw = new(AddressFamily::Inet, SockType::Raw, SockProtocol::Icmp).expect("a raw socket");
    assert_eq!(Holder::of(raw).found(&scene, &[]), [("a raw socket".to_owned(), false)]);
    let ping = new(AddressFamily::Inet, SockType::Datagram, SockProtocol::Icmp).expect("a ping socket");
    assert_eq!(Holder::of(ping).found(&scene, &[]), [("a socket of the protocol 1".to_owned(), false)]);
    let packet = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None).expect("a packet socket");
    assert_eq!(Holder::of(packet).found(&scene, &[]), [("a socket of the family 17".to_owned(), false)]);
    // It has no address of its own that one could ask for.
    match socket(AddressFamily::Alg, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None) {
        Ok(alg) => assert_eq!(Holder::of(alg).found(&scene, &[]), [("a socket of the family 38".to_owned(), false)]),
        Err(error) => println!("no AF_ALG here: {error}"),
    }
    match File::options().read(true).write(true).open("/dev/net/tun") {
        Ok(tun) => assert_eq!(Holder::of(tun).found(&scene, &[]), [("`/dev/net/tun` open".to_owned(), false)]),
        Err(error) => println!("no tunnels here: {error}"),
    }
}

/// That it is a standard stream says nothing: its process, or who started it, has put it there.
#[test]
fn what_is_connected_past_us_is_cut_whichever_number_it_has() {
    require_root!();
    let scene = Scene::new();
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
    udp.connect("127.0.0.1:9").expect("it can be");
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
    let connected = TcpStream::connect(tcp.local_addr().expect("an address")).expect("it connects");
    let to = connected.peer_addr().expect("a peer");
    assert_eq!(Holder::of(udp).found(&scene, &[]), [("udp to 127.0.0.1:9".to_owned(), true)]);
    assert_eq!(Holder::of(connected).found(&scene, &[]), [(format!("tcp to {to}"), true)]);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("engine.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    let connect = || UnixStream::connect(&path).expect("it connects");
    let told = format!("unix to `{}`", path.display());
    assert_eq!(Holder::of(connect()).found(&scene, &[]), [(told, true)]);
    assert!(Holder::of(connect()).found(&scene, std::slice::from_ref(&path)).is_empty(), "it is allowed");
    let (one, _other) = UnixStream::pair().expect("a pair");
    assert!(Holder::of(one).found(&scene, &[]).is_empty(), "a pair reaches nobody else");
    drop(listener);
}

/// What is in no table is not looked at: a process could keep there what it has from before.
#[test]
fn descriptors_that_nobody_takes_out_of_a_socket_are_found() {
    require_root!();
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

    let scene = Scene::new();
    let (near, far) = UnixStream::pair().expect("a pair");
    let hidden = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let inside = Holder::of(near);
    let mut sockets = Sockets::at_most(DESCRIPTORS);
    let mut look = || sockets.cut(&scene.adopter, &[inside.0.id()], &[]);
    assert!(look().is_empty(), "there is nothing in it");
    let message = [std::io::IoSlice::new(b"x")];
    let rights = [hidden.as_raw_fd()];
    let sent = sendmsg::<()>(far.as_raw_fd(), &message, &[ControlMessage::ScmRights(&rights)], MsgFlags::empty(), None);
    assert_eq!(sent.expect("it can be sent"), 1);
    assert!(look().is_empty(), "it may be on its way");
    std::thread::sleep(Duration::from_secs(1));
    let found = look();
    let [Stray { what, cut: false, passes: true, .. }] = found.as_slice() else { panic!("{found:?}") };
    assert!(what.contains("descriptors in a socket"), "{what}");
}

/// The kernel's storage outlives what a socket was connected to, and the accomplice can connect it elsewhere.
#[test]
fn what_was_steered_and_is_connected_anew_is_found() {
    require_root!();
    let scene = Scene::new();
    let (tcp, dns) =
        (TcpListener::bind("127.0.0.1:0").expect("a port"), UdpSocket::bind("127.0.0.1:0").expect("a port"));
    let doors = Doors { tcp4: &tcp, tcp6: &tcp, dns4: &dns, dns6: &dns };
    scene.adopter.open_doors(NUMBER, scene.cookie, &doors).expect("they open");
    let shared = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let script = r#""$0" on-input udp-connected 198.51.100.7:53; exec sleep 60 >/dev/null"#;
    let mut inside = scene.inside("/bin/sh");
    let inside = inside.args(["-c", script, PROBE]).stdin(OwnedFd::from(shared.try_clone().expect("a copy")));
    let mut inside = Holder(inside.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it can be started"));
    let mut said = String::new();
    let output = inside.0.stdout.take().expect("a pipe");
    BufReader::new(output).read_line(&mut said).expect("it says something");
    assert_eq!(said.trim(), "ok");
    let mut sockets = Sockets::at_most(DESCRIPTORS);
    assert!(sockets.cut(&scene.adopter, &[inside.0.id()], &[]).is_empty(), "it is steered");
    let elsewhere = UdpSocket::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    shared.connect(elsewhere).expect("it can be");
    let found = sockets.cut(&scene.adopter, &[inside.0.id()], &[]);
    let [Stray { what, cut: true, .. }] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(*what, format!("udp to {elsewhere}"));
}

/// A copy of the connected socket of a process.
fn shared_with(pid: u32) -> OwnedFd {
    let deadline = Instant::now() + Duration::from_secs(10);
    let process = Pid::from_raw(pid.cast_signed()).expect("a pid");
    let process = pidfd_open(process, PidfdFlags::empty()).expect("it is there");
    while Instant::now() < deadline {
        for number in 0..16 {
            let Ok(copy) = pidfd_getfd(&process, number, PidfdGetfdFlags::empty()) else { continue };
            if nix::sys::socket::getpeername::<nix::sys::socket::SockaddrIn>(copy.as_raw_fd()).is_ok() {
                return copy;
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("process {pid} has no connection");
}

/// Takes away what a shared socket is connected to, and connects it to somebody outside, who mustn't hear of it.
fn goes_nowhere_else(shared: OwnedFd) {
    let outside = TcpListener::bind("127.0.0.1:0").expect("a port");
    outside.set_nonblocking(true).expect("it can be");
    let SocketAddr::V4(to) = outside.local_addr().expect("an address") else { unreachable!("it is one") };
    rustix::net::connect_unspec(&shared).expect("it can be");
    let shared = TcpStream::from(shared);
    shared.set_nonblocking(true).expect("it can be");
    let _ = nix::sys::socket::connect(shared.as_raw_fd(), &nix::sys::socket::SockaddrIn::from(to));
    for _ in 0..50 {
        assert!(outside.accept().is_err(), "it got past us");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn an_accomplice_connects_what_was_steered_to_nobody_else() {
    require_root!();
    let scene = Scene::new();
    let mut inside = scene.inside(PROBE);
    let inside = inside.args(["hold", "198.51.100.7:443"]).stdout(Stdio::null()).spawn().expect("it can be started");
    let inside = Holder(inside);
    let shared = shared_with(inside.0.id());
    assert!(scene.adopter.is_steered(&shared));
    goes_nowhere_else(shared);
}

#[test]
fn an_accomplice_connects_what_was_accepted_to_nobody_else() {
    require_root!();
    let scene = Scene::new();
    let port = port::free().expect("a port");
    let mut inside = scene.inside(PROBE);
    let inside = inside.args(["serve", &port.to_string()]).stdout(Stdio::null()).spawn().expect("it can be started");
    let inside = Holder(inside);
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut client = loop {
        match TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), Duration::from_secs(5)) {
            Ok(client) => break client,
            Err(error) => assert!(Instant::now() < deadline, "it doesn't answer: {error}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    client.set_read_timeout(Some(Duration::from_secs(20))).expect("it can be");
    client.write_all(b"a").expect("it is connected");
    let mut answer = [0];
    client.read_exact(&mut answer).expect("it answers");
    assert_eq!(answer, *b"A");
    let shared = shared_with(inside.0.id());
    assert!(scene.adopter.is_inbound(&shared));
    goes_nowhere_else(shared);
}
