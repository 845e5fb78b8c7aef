//! What the hooks and the daemon's end do where few come: below a governed cgroup, in another network, with answers, devices
//! and old sockets, and with entries that somebody else could have left.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use interceptor::bpf::Kernel;
use interceptor::bpf::adopt::{Doors, State};
use interceptor::transport::accept::{Acceptor, Adopted, Worker};
use interceptor::transport::namespace::{self, Sockets};
use interceptor_tests::adopted::{NUMBER, Scene, said};
use interceptor_tests::netns::Namespace;
use interceptor_tests::{port, require_root};

use self::entry::Flows;

#[path = "corners/entry.rs"]
mod entry;

const PROBE: &str = env!("CARGO_BIN_EXE_probe");

/// No target.
const ELSEWHERE: &str = "198.51.100.7:443";

/// How often something of this kind and fate was counted.
fn counted(scene: &Scene, kind: u32, fate: u32) -> u64 {
    let tallies = scene.adopter.tallies().unwrap_or_default();
    tallies.iter().filter(|one| (one.kind, one.fate) == (kind, fate)).map(|one| one.count).sum()
}

/// `Kind::Packet` and `Fate::Dropped` of the kernel's counts.
const PACKET_DROPPED: (u32, u32) = (4, 2);

/// A cgroup can be removed a moment after its last process has ended.
fn remove(cgroup: &Path) -> std::io::Result<()> {
    let since = Instant::now();
    loop {
        match fs::remove_dir(cgroup) {
            Err(_) if since.elapsed() < Duration::from_secs(5) => std::thread::sleep(Duration::from_millis(5)),
            other => return other,
        }
    }
}

#[test]
fn what_is_below_a_governed_cgroup_is_governed() {
    require_root!();
    let scene = Scene::new();
    let below = scene.governed.join("below");
    let deep = below.join("deep");
    fs::create_dir_all(&deep).expect("they can be made");
    let outputs = [&below, &deep].map(|cgroup| {
        ["told", "udp"].map(|way| scene.enter(cgroup, PROBE).args([way, ELSEWHERE]).output().expect("it runs"))
    });
    for cgroup in [&deep, &below] {
        remove(cgroup).expect("it is empty");
    }
    for [told, refused] in outputs.map(|outputs| outputs.map(|output| said(&output))) {
        assert!(told.starts_with(ELSEWHERE) && refused == "ECONNREFUSED", "{told}, {refused}");
    }
}

#[test]
fn devices_by_which_packets_leave_are_closed() {
    require_root!();
    let scene = Scene::new();
    for device in ["/dev/net/tun", "/dev/vhost-net", "/dev/vhost-vsock"] {
        let free = said(&Command::new(PROBE).args(["write", device]).output().expect("it runs"));
        assert!(free == "ok" || device != "/dev/net/tun", "there is no {device}: {free}");
        if free == "ok" {
            assert_eq!(scene.attempt(PROBE, &["write", device]), "EPERM", "{device}");
        }
    }
}

#[test]
fn a_server_that_is_governed_answers_who_calls() {
    require_root!();
    let scene = Scene::new();
    let port = port::free().expect("a port");
    let mut server = scene.inside(PROBE).args(["serve", &port.to_string()]).spawn().expect("it can be started");
    let since = Instant::now();
    let mut stream = loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => break stream,
            Err(error) => assert!(since.elapsed() < Duration::from_secs(10), "{error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("it can be");
    let mut answer = [0; 5];
    let answered = stream.write_all(b"hello").and_then(|()| stream.read_exact(&mut answer));
    server.kill().expect("it runs");
    server.wait().expect("it was ours");
    assert!(answered.is_ok() && answer == *b"HELLO", "{answered:?}");
    let (kind, fate) = PACKET_DROPPED;
    assert_eq!(counted(&scene, kind, fate), 0, "packets were dropped");
}

/// The kernel hooks on calls don't see it used; the last gate does.
#[test]
fn a_packet_of_a_socket_from_before_is_dropped_and_counted() {
    require_root!();
    let scene = Scene::new();
    let outside = UdpSocket::bind("127.0.0.1:0").expect("a port");
    outside.set_nonblocking(true).expect("it can be");
    let to = outside.local_addr().expect("an address").to_string();
    let watched = scene.watched(State::Steered);
    let id = fs::metadata(&scene.governed).expect("it is there").ino();
    scene.adopter.forget(id).expect("it is governed");
    let mut probe = scene.inside(PROBE);
    let probe = probe.args(["later", &to]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut probe = probe.expect("it can be started");
    let mut lines = BufReader::new(probe.stdout.take().expect("its output")).lines();
    assert_eq!(lines.next().and_then(Result::ok).as_deref(), Some("ready"));
    scene.adopter.govern(&watched.path, id, NUMBER, State::Steered).expect("it can be governed");
    probe.stdin.take().expect("its input").write_all(b"\n").expect("it reads");
    let answer = lines.next().and_then(Result::ok);
    probe.wait().expect("it was ours");
    assert_eq!(answer.as_deref(), Some("EPERM"));
    assert!(outside.recv(&mut [0; 16]).is_err(), "it arrived");
    let (kind, fate) = PACKET_DROPPED;
    assert_eq!(counted(&scene, kind, fate), 1);
}

/// Its doors are those of its own network, whatever listens in another one.
#[test]
fn each_network_has_its_own_doors() {
    require_root!();
    let scene = Scene::new();
    let network = Namespace::new().expect("it can be made");
    let path = {
        use std::os::fd::AsRawFd;
        format!("/proc/{}/fd/{}", std::process::id(), network.fd().as_raw_fd())
    };
    let told = || scene.attempt(PROBE, &["in-network", &path, PROBE, "told", ELSEWHERE]);
    assert_eq!(told(), "ECONNREFUSED", "before the daemon is there");
    let (Sockets { tcp4, tcp6, dns4, dns6 }, diagnosis) = namespace::open_beside(network.fd()).expect("they open");
    let netns = interceptor::bpf::netns_cookie(tcp4.as_fd()).expect("a cookie");
    assert_ne!(netns, scene.cookie);
    let doors = Doors { tcp4: &tcp4, tcp6: &tcp6, dns4: &dns4, dns6: &dns6 };
    scene.adopter.open_doors(NUMBER, netns, &doors).expect("they open");
    let adopted = Adopted {
        adopter: scene.adopter.clone(),
        number: NUMBER,
        live: Arc::default(),
        diagnosis: Arc::new(diagnosis),
        admits: Arc::new(|_, _| true),
    };
    scene.acceptor.add_adopted(scene.workload.clone(), adopted, tcp4, tcp6, 100).expect("it listens");
    assert!(told().starts_with(ELSEWHERE), "{}", told());
    let here = scene.attempt(PROBE, &["told", ELSEWHERE]);
    assert!(here.starts_with(ELSEWHERE), "{here}");
    scene.adopter.close_doors(NUMBER, netns).expect("they close");
    assert_eq!(told(), "ECONNREFUSED", "when they are closed");
    let here = scene.attempt(PROBE, &["told", ELSEWHERE]);
    assert!(here.starts_with(ELSEWHERE), "{here}");
}

/// To a listener that the hooks don't guard, with an entry, or without, that says where the connection was to go.
#[test]
fn nothing_is_handed_over_that_wasnt_steered_by_this_very_socket() {
    require_root!();
    let scene = Scene::new();
    let kernel = Kernel::load(&scene.pins.path, &scene.cgroup.path.join("outside")).expect("it can be taken over");
    let (worker, mut queue) = Worker::new(8);
    let acceptor = Acceptor::start(Arc::new(kernel), vec![worker]).expect("it starts");
    let netns = File::open("/proc/self/ns/net").expect("it is there");
    let (Sockets { tcp4, tcp6, .. }, diagnosis) = namespace::open_beside(netns.as_fd()).expect("they open");
    let own = tcp4.local_addr().expect("an address");
    let adopted = Adopted {
        adopter: scene.adopter.clone(),
        number: NUMBER,
        live: Arc::default(),
        diagnosis: Arc::new(diagnosis),
        admits: Arc::new(|_, _| true),
    };
    acceptor.add_adopted(scene.workload.clone(), adopted, tcp4, tcp6, 100).expect("it listens");
    let flows = Flows::open(&scene.pins.path.join("v1/adopt/flows")).expect("it is pinned");
    // No entry; one of another socket's; one of another workload's; one of the same addresses in another network; and the
    // right one, so that it is seen what those lack.
    let right = Some((0, NUMBER, 0));
    for entry in [None, Some((1, NUMBER, 0)), Some((0, NUMBER + 1, 0)), Some((0, NUMBER, 1)), right] {
        let dialled = entry::dial(own, |local, cookie| {
            let Some((off, workload, away)) = entry else { return Ok(()) };
            flows.insert(scene.cookie + away, local, own, workload, cookie + off)
        });
        if entry == right {
            let accepted = queue.blocking_recv().expect("it goes on");
            assert_eq!(accepted.attribution.original.to_string(), entry::ORIGINAL);
            continue;
        }
        // It may be reset before the connect has returned.
        let ended = dialled.and_then(|mut stream| {
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            stream.read(&mut [0; 1])
        });
        let is_reset = ended.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset);
        assert!(is_reset, "{entry:?}: {ended:?}");
        assert!(queue.try_recv().is_err(), "{entry:?}: it was handed over");
    }
}
