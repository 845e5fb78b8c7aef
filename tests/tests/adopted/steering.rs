//! The hooks without a daemon: where connects go, and what the daemon's end knows of them.

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use interceptor::bpf::adopt::{Doors, State, Watched};
use interceptor_tests::adopted::{NUMBER, Scene, said};
use interceptor_tests::require_root;

const PROBE: &str = env!("CARGO_BIN_EXE_probe");

/// What is told of a connect from inside: the original destination, and the peer as the process sees it.
fn told(scene: &Scene, address: &str) -> (String, String) {
    let said = scene.attempt(PROBE, &["told", address]);
    let Some((told, peer)) = said.split_once(" as ") else { return (said, String::new()) };
    (told.split(' ').next().unwrap_or_default().to_owned(), peer.to_owned())
}

#[test]
fn every_kind_of_destination_is_steered_and_told() {
    require_root!();
    let scene = Scene::new();
    for (address, original) in [
        ("198.51.100.7:443", "198.51.100.7:443"),
        ("[2001:db8::7]:8443", "[2001:db8::7]:8443"),
        ("[::ffff:198.51.100.8]:80", "198.51.100.8:80"),
        ("169.254.169.254:80", "169.254.169.254:80"),
        ("127.0.0.1:5432", "127.0.0.1:5432"),
        ("127.9.9.9:53", "127.9.9.9:53"),
        ("0.0.0.0:9", "127.0.0.1:9"),
        ("[::]:9", "[::1]:9"),
        ("[::1]:40342", "[::1]:40342"),
    ] {
        let (told, peer) = told(&scene, address);
        assert_eq!(told, original, "of {address}");
        let seen = if address.starts_with("0.0.0.0") || address.starts_with("[::]") { original } else { address };
        assert_eq!(peer, seen, "as the process sees it");
    }
    assert_eq!(scene.adopter.under_way().unwrap(), 0);
}

#[test]
fn every_way_to_connect_is_steered() {
    require_root!();
    let scene = Scene::new();
    for to in ["198.51.100.7:443", "[2001:db8::7]:443"] {
        for way in ["plain", "bound", "fast-open", "fast-open-connect"] {
            let before = arrived(&scene);
            let said = scene.attempt(PROBE, &["tcp", way, to]);
            // The scene answers, and closes without having read what the probe sent.
            assert!(["ok", "ECONNRESET"].contains(&said.as_str()), "{way} to {to}: {said}");
            assert_eq!(arrived(&scene), before + 1, "{way} to {to}");
        }
        assert_eq!(scene.attempt(PROBE, &["tcp", "device", to]), "EACCES");
    }
    assert_eq!(scene.adopter.under_way().unwrap(), 0);
}

/// Ways that are closed to a contained process, or that leave the socket as it was before.
#[test]
fn ways_that_take_privileges_or_a_ring_are_steered() {
    require_root!();
    let scene = Scene::new();
    for (way, connections) in [
        ("tcp SO_MARK", 1),
        ("tcp IP_TRANSPARENT", 1),
        ("io_uring, a connect", 1),
        ("tcp that doesn't wait", 1),
        ("tcp after AF_UNSPEC", 2),
        ("tcp v6 after AF_UNSPEC", 2),
        ("threads", 4),
        ("a child of a child", 1),
        ("a daemon: its parents are gone", 1),
        // Declared to be established, it has no handshake: it is to the daemon, which doesn't know of it.
        ("tcp TCP_REPAIR", 0),
    ] {
        let before = arrived(&scene);
        let said = way_of_matrix(&scene, way).expect("it runs");
        assert!(["ok", "ECONNRESET"].contains(&said.as_str()), "{way}: {said}");
        assert_eq!(arrived(&scene) - before, connections, "{way}");
    }
    assert_eq!(scene.adopter.under_way().expect("a count"), 0, "entries are left");
}

/// What a way of the escape matrix comes to from inside, as root of the host.
fn way_of_matrix(scene: &Scene, way: &str) -> std::io::Result<String> {
    use std::io::Write;

    let world = "v4=198.51.100.7 v6=2001:db8::7 port=9 device=lo folder=/nowhere name=none netlink=0 outside=0 daemon=0 \
                 run=/nowhere door=9 pins=/nowhere cgroups=/nowhere inbound=9 patience=2000";
    let mut probe = scene.inside(PROBE);
    let probe = probe.args(["matrix", "user"]).args(world.split_whitespace());
    let mut probe = probe.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    if let Some(mut ways) = probe.stdin.take() {
        writeln!(ways, "{way}")?;
    }
    Ok(said(&probe.wait_with_output()?))
}

/// The hooks decide by who calls, not by who made the socket.
#[test]
fn sockets_that_were_made_outside_are_steered_or_refused() {
    require_root!();
    use std::os::fd::OwnedFd;

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

    let scene = Scene::new();
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    tcp.set_nonblocking(true).expect("it can be");
    udp.set_nonblocking(true).expect("it can be");
    let by = |way: &str, socket: OwnedFd, to: std::net::SocketAddr| {
        let mut probe = scene.inside(PROBE);
        let output = probe.args(["on-input", way, &to.to_string()]).stdin(Stdio::from(socket)).output();
        said(&output.expect("it can be started"))
    };
    let new = |kind| socket(AddressFamily::Inet, kind, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
    let before = arrived(&scene);
    let answered = by("tcp", new(SockType::Stream), tcp.local_addr().expect("an address"));
    assert!(["ok", "ECONNRESET"].contains(&answered.as_str()), "{answered}");
    assert_eq!(arrived(&scene) - before, 1);
    for way in ["udp", "udp-connected"] {
        let refused = by(way, new(SockType::Datagram), udp.local_addr().expect("an address"));
        assert_eq!(refused, "ECONNREFUSED", "{way}");
    }
    assert!(tcp.accept().is_err() && udp.recv(&mut [0; 16]).is_err(), "something got past us");
}

/// How many connections the daemon's end has accepted.
fn arrived(scene: &Scene) -> u64 {
    let tallies = scene.adopter.tallies().unwrap_or_default();
    // `Fate::Arrived` of the kernel's counts.
    tallies.iter().filter(|one| one.fate == 4).map(|one| one.count).sum()
}

#[test]
fn the_process_is_told() {
    require_root!();
    let scene = Scene::new();
    let said = scene.attempt(PROBE, &["told", "198.51.100.7:443"]);
    let words: Vec<&str> = said.split(' ').collect();
    assert_eq!((words[2] == words[3], words[4]), (true, "probe"), "{said}");
}

#[test]
fn nobody_else_gets_to_the_daemons_listener() {
    require_root!();
    let scene = Scene::new();
    let address = format!("127.0.0.1:{}", scene.ports[0]);
    let refused = |address: &str| {
        TcpStream::connect(address).is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    };
    assert!(refused(&address));
    assert!(refused(&format!("[::ffff:127.0.0.1]:{}", scene.ports[0])));
    assert!(refused(&format!("0.0.0.0:{}", scene.ports[0])));
    assert!(refused(&format!("[::1]:{}", scene.ports[1])));
    // Who is governed gets there as one who wants to connect to that very port.
    assert_eq!(told(&scene, &address).0, address);
}

/// The kernel gives out ports of IPv4 and IPv6 apart, and those of a daemon that has ended again.
#[test]
fn a_port_that_two_workloads_have_stays_guarded_when_one_is_let_go() {
    require_root!();
    let scene = Scene::new();
    let port = scene.ports[0];
    let (tcp4, tcp6) = (TcpListener::bind("127.0.0.1:0"), TcpListener::bind(("::1", port)));
    let (dns4, dns6) = (UdpSocket::bind("127.0.0.1:0"), UdpSocket::bind("[::1]:0"));
    let (tcp4, tcp6) = (tcp4.expect("a port"), tcp6.expect("the same port"));
    let (dns4, dns6) = (dns4.expect("a port"), dns6.expect("a port"));
    let doors = Doors { tcp4: &tcp4, tcp6: &tcp6, dns4: &dns4, dns6: &dns6 };
    let other = NUMBER + 1;
    scene.adopter.open_doors(other, scene.cookie, &doors).expect("they open");
    scene.adopter.close_doors(other, scene.cookie).expect("they close");
    let reached = TcpStream::connect(("127.0.0.1", port));
    assert!(reached.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused), "anybody gets there");
    assert!(TcpStream::connect(tcp4.local_addr().expect("an address")).is_ok(), "the other's is nobody's now");
}

#[test]
fn the_port_of_a_daemon_that_is_down_is_nobodys() {
    require_root!();
    let mut scene = Scene::new();
    let port = scene.ports[0];
    scene.acceptor.remove(scene.workload.id);
    assert_eq!(scene.attempt(PROBE, &["told", "198.51.100.7:443"]), "ECONNREFUSED");
    // Somebody takes the port.
    let squatter = (0..2_000).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        TcpListener::bind(("127.0.0.1", port)).ok()
    });
    let squatter = squatter.expect("the port is free");
    squatter.set_nonblocking(true).expect("it can be");
    assert_eq!(scene.attempt(PROBE, &["told", "198.51.100.7:443"]), "ECONNREFUSED");
    assert!(squatter.accept().is_err(), "the squatter got it");
    scene.listen();
    assert_eq!(told(&scene, "198.51.100.7:443").0, "198.51.100.7:443");
}

/// An unmanaged process that takes the source port of a governed connect that failed, and dials the daemon, would be
/// taken for the workload.
#[test]
fn what_a_failed_connect_left_is_nobodys() {
    require_root!();
    let scene = Scene::new();
    // Listeners that take no more: SYNs to them get no answer. The one that each has room for comes before they are doors.
    let full = ["127.0.0.1:0", "[::1]:0"].map(|address| TcpListener::bind(address).expect("a port"));
    let doors = full.each_ref().map(|listener| listener.local_addr().expect("an address"));
    for listener in &full {
        nix::sys::socket::listen(listener, nix::sys::socket::Backlog::new(0).expect("a backlog")).expect("a listener");
    }
    let _waiting = doors.map(|door| TcpStream::connect(door).expect("it has room"));
    let own = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let [tcp4, tcp6] = &full;
    scene.adopter.open_doors(NUMBER, scene.cookie, &Doors { tcp4, tcp6, dns4: &own, dns6: &own }).expect("they open");
    for (to, door) in ["198.51.100.7:443", "[2001:db8::7]:443"].into_iter().zip(doors) {
        let mut dialled = 0;
        // Somebody else may have taken some of the ports; a closed connection keeps one for a minute.
        for _ in 0..200 {
            let left = 1_000 - dialled;
            if left == 0 {
                break;
            }
            let said = scene.attempt(PROBE, &["fail", to, &left.to_string()]);
            assert_nothing_is_under_way(&scene);
            let ports: Vec<u16> = said.split(' ').map(|port| port.parse().expect("a port")).collect();
            assert_eq!(ports.len(), left, "connects to {to} that got no answer");
            for port in ports {
                let Some(dial) = dial_from(port, door) else { continue };
                assert_eq!(dial, Err(nix::errno::Errno::ECONNREFUSED), "from port {port}");
                dialled += 1;
            }
        }
        assert_eq!(dialled, 1_000, "after connects to {to}");
    }
}

/// What becomes of a connect from this port of the loopback; none if the port is taken.
fn dial_from(port: u16, to: SocketAddr) -> Option<nix::Result<()>> {
    use std::os::fd::AsRawFd;

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};

    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).ok()?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(to.ip(), port))).ok()?;
    Some(connect(socket.as_raw_fd(), &SockaddrStorage::from(to)))
}

/// Two hundred times, while others connect, make cgroups and take all the time of the processors that they get. Each new
/// process connects before it does anything else, to where somebody listens who would hear of it if it weren't steered.
#[test]
fn a_cgroup_that_is_made_again_is_governed_before_anybody_is_in_it() {
    require_root!();
    let scene = Scene::new();
    let watched = scene.watched(State::Steered);
    let beside = Watched { path: watched.path.replace("governed", "busy"), ..watched.clone() };
    scene.adopter.watch(&[watched, beside]).expect("they can be watched");
    let busy = scene.cgroup.below("busy").expect("it can be made");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("it can be");
    let to = listener.local_addr().expect("an address");
    let storm = ["storm", "told", "16", "500", "127", &to.port().to_string(), "0"].map(str::to_owned);
    let is_over = AtomicBool::new(false);
    let (storms, cgroups) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let said = said(&scene.enter(&busy, PROBE).args(&storm).output().expect("it runs"));
                assert!(said.ends_with(" 0 0"), "right, wrong and refused beside it: {said}");
                storms.fetch_add(1, Ordering::Relaxed);
            }
        });
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let other = scene.cgroup.below("other").expect("it can be made");
                std::fs::remove_dir(other).expect("it is empty");
                cgroups.fetch_add(1, Ordering::Relaxed);
            }
        });
        let cgroup = scene.governed.display().to_string();
        let born = std::process::Command::new(PROBE).args(["born", &cgroup, &to.to_string(), "200"]).output();
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(said(&born.expect("it runs")), "200 0 0", "right, wrong and refused");
    });
    let (storms, cgroups) = (storms.into_inner(), cgroups.into_inner());
    println!("meanwhile {} connections of others, {cgroups} cgroups made and removed", storms * 500);
    assert!(storms > 0 && cgroups > 0, "there was no load");
    assert!(listener.accept().is_err(), "one got past us");
    assert_eq!(scene.adopter.under_way().expect("a count"), 0, "entries are left");
}

/// All go to where somebody listens who would hear of one that isn't steered, and go on until the last program was replaced.
#[test]
fn short_connections_are_never_mixed_up_while_programs_are_replaced() {
    require_root!();
    let mut scene = Scene::new();
    let long = std::env::var_os("INTERCEPTOR_LONG").is_some();
    // Each load puts another program behind each of these links; those on tracepoints come besides.
    let links = if scene.pins.path.join("v1/adopt/unix_connect").exists() { 17 } else { 15 };
    let (count, loads, restarts) = (8_000, 2_000_usize.div_ceil(links), if long { 100 } else { 20 });
    let outside = TcpListener::bind("0.0.0.0:0").expect("a port");
    outside.set_nonblocking(true).expect("it can be");
    let port = outside.local_addr().expect("an address").port().to_string();
    let mut storm = scene.inside(PROBE);
    // With pauses, so that the loads get the processors as well.
    let storm = storm.args(["storm", "told", "64", &count.to_string(), "127", &port, "100"]);
    let storm = storm.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut storm = storm.expect("it can be started");
    let mut goes_on = storm.stdin.take();
    let (mut loaded, mut listened) = (0, 0);
    while storm.try_wait().expect("it is ours").is_none() {
        interceptor::bpf::adopt::Adopter::load(&scene.pins.path).expect("it can be loaded again");
        loaded += 1;
        if listened * loads < loaded * restarts {
            scene.listen();
            listened += 1;
        }
        if loaded >= loads {
            drop(goes_on.take());
        }
    }
    let output = storm.wait_with_output().expect("it ends");
    let said = said(&output);
    println!("{said}, while {} programs were replaced and the daemon's sockets {listened} times", loaded * links);
    assert!(loaded >= loads && listened >= restarts, "it ended at {loaded} loads");
    let [right, wrong, refused] = counts(&said);
    assert_eq!(wrong, 0, "{said}");
    assert!(right + refused >= count && right > refused, "{said}");
    assert!(outside.accept().is_err(), "one got past us");
    assert_nothing_is_under_way(&scene);
}

#[test]
fn short_connections_at_once_are_all_told_right() {
    require_root!();
    let scene = Scene::new();
    let count = if std::env::var_os("INTERCEPTOR_LONG").is_some() { 50_000 } else { 5_000 };
    let outside = TcpListener::bind("0.0.0.0:0").expect("a port");
    outside.set_nonblocking(true).expect("it can be");
    let port = outside.local_addr().expect("an address").port().to_string();
    let said = scene.attempt(PROBE, &["storm", "told", "64", &count.to_string(), "127", &port, "0"]);
    println!("{said}");
    let [right, wrong, refused] = counts(&said);
    assert!(right >= count && (wrong, refused) == (0, 0), "{said}");
    assert!(outside.accept().is_err(), "one got past us");
    assert_nothing_is_under_way(&scene);
}

/// What a storm said: right, wrong and refused.
fn counts(said: &str) -> [u64; 3] {
    let counts = said.split(':').next().unwrap_or_default();
    let counts: Vec<u64> = counts.split(' ').filter_map(|word| word.parse().ok()).collect();
    counts.try_into().unwrap_or_else(|_| panic!("it said `{said}`"))
}

/// No entry is left of connects that are over, and none is counted.
fn assert_nothing_is_under_way(scene: &Scene) {
    let left = scene.adopter.under_way().map_err(|error| error.to_string());
    assert_eq!(left, Ok(0), "entries are left");
    assert_eq!(scene.adopter.waiting(NUMBER), 0, "connects are counted that are over");
}
