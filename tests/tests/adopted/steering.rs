//! The hooks without a daemon: where connects go, and what the daemon's end knows of them.

use interceptor_tests::adopted::Scene;
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
    let arrived = || {
        let tallies = scene.adopter.tallies().unwrap();
        // `Fate::Arrived` of the kernel's counts.
        tallies.iter().filter(|one| one.fate == 4).map(|one| one.count).sum::<u64>()
    };
    for to in ["198.51.100.7:443", "[2001:db8::7]:443"] {
        for way in ["plain", "bound", "fast-open", "fast-open-connect"] {
            let before = arrived();
            let said = scene.attempt(PROBE, &["tcp", way, to]);
            // The scene answers, and closes without having read what the probe sent.
            assert!(["ok", "ECONNRESET"].contains(&said.as_str()), "{way} to {to}: {said}");
            assert_eq!(arrived(), before + 1, "{way} to {to}");
        }
        assert_eq!(scene.attempt(PROBE, &["tcp", "device", to]), "EACCES");
    }
    assert_eq!(scene.adopter.under_way().unwrap(), 0);
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
        std::net::TcpStream::connect(address).is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    };
    assert!(refused(&address));
    assert!(refused(&format!("[::ffff:127.0.0.1]:{}", scene.ports[0])));
    assert!(refused(&format!("0.0.0.0:{}", scene.ports[0])));
    assert!(refused(&format!("[::1]:{}", scene.ports[1])));
    // Who is governed gets there as one who wants to connect to that very port.
    assert_eq!(told(&scene, &address).0, address);
}

#[test]
fn the_port_of_a_daemon_that_is_down_is_nobodys() {
    require_root!();
    let mut scene = Scene::new();
    let port = scene.ports[0];
    scene.acceptor.remove(scene.workload.id);
    assert_eq!(scene.attempt(PROBE, &["told", "198.51.100.7:443"]), "ECONNREFUSED");
    // Somebody takes the port.
    let squatter = (0..200).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        std::net::TcpListener::bind(("127.0.0.1", port)).ok()
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
    // A listener that takes no more: SYNs to it get no answer.
    let full = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    nix::sys::socket::listen(&full, nix::sys::socket::Backlog::new(0).expect("a backlog")).expect("a listener");
    let own = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let doors = interceptor::bpf::adopt::Doors { tcp4: &full, tcp6: &full, dns4: &own, dns6: &own };
    scene.adopter.open_doors(interceptor_tests::adopted::NUMBER, scene.cookie, &doors).expect("they open");
    let rounds = 1_000;
    let said = scene.attempt(PROBE, &["fail", "198.51.100.7:443", &rounds.to_string()]);
    let ports: Vec<u16> = said.split(' ').map(|port| port.parse().expect("a port")).collect();
    assert!(ports.len() > rounds / 2, "{} connects failed", ports.len());
    assert!(scene.adopter.under_way().expect("a count") <= 2, "entries are left");
    let door = full.local_addr().expect("an address");
    for port in ports {
        let socket = nix::sys::socket::socket(
            nix::sys::socket::AddressFamily::Inet,
            nix::sys::socket::SockType::Stream,
            nix::sys::socket::SockFlag::SOCK_CLOEXEC,
            None,
        );
        let socket = socket.expect("a socket");
        use std::os::fd::AsRawFd;
        let bind = |port| {
            let address = std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, port);
            nix::sys::socket::bind(socket.as_raw_fd(), &nix::sys::socket::SockaddrIn::from(address))
        };
        if bind(port).is_err() {
            continue;
        }
        let std::net::SocketAddr::V4(door) = door else { unreachable!("it is one") };
        let dialled = nix::sys::socket::connect(socket.as_raw_fd(), &nix::sys::socket::SockaddrIn::from(door));
        assert_eq!(dialled, Err(nix::errno::Errno::ECONNREFUSED), "from port {port}");
    }
}

#[test]
fn a_cgroup_that_is_made_again_is_governed_before_anybody_is_in_it() {
    require_root!();
    let scene = Scene::new();
    for round in 0..200 {
        std::fs::remove_dir(&scene.governed).expect("it is empty");
        std::fs::create_dir(&scene.governed).expect("it is gone");
        let address = format!("198.51.100.7:{}", 1_000 + round);
        assert_eq!(told(&scene, &address).0, address);
    }
}

#[test]
fn short_connections_are_never_mixed_up_while_programs_are_replaced() {
    require_root!();
    let mut scene = Scene::new();
    let long = std::env::var_os("INTERCEPTOR_LONG").is_some();
    // Each load replaces eleven programs.
    let (count, loads, restarts) = if long { (50_000, 182, 100) } else { (8_000, 30, 20) };
    let mut storm = scene.inside(PROBE);
    let storm = storm.args(["storm", "64", &count.to_string()]).stdout(std::process::Stdio::piped()).spawn();
    let storm = storm.expect("it can be started");
    for load in 0..loads {
        interceptor::bpf::adopt::Adopter::load(&scene.pins.path).expect("it can be loaded again");
        if load % (loads / restarts).max(1) == 0 {
            scene.listen();
        }
    }
    let output = storm.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    println!("{said}, while {} programs were replaced", loads * 11);
    let words: Vec<u64> = said.split(' ').filter_map(|word| word.parse().ok()).collect();
    let &[right, wrong, refused] = words.as_slice() else { panic!("it said {said}") };
    assert_eq!(wrong, 0, "{said}");
    assert_eq!(right + refused, count, "{said}");
    assert!(right > count / 2, "{said}");
    assert_eq!(scene.adopter.under_way().expect("a count"), 0, "entries are left");
}
