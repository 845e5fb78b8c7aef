//! What is forgotten with a cgroup, what is looked at when a packet goes out, and what the hooks refuse besides connects.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use interceptor::bpf::adopt::Doors;
use interceptor_tests::adopted::{NUMBER, Scene, said};
use interceptor_tests::require_root;
use interceptor_tests::unit::Unit;

use super::daemon::start;

const PROBE: &str = env!("CARGO_BIN_EXE_probe");

/// The daemon's port is somebody else's between a connect and its first packet. While it is the daemon's, that arrives.
#[test]
fn a_first_packet_that_leaves_late_gets_to_the_daemon_or_to_nobody() -> Result<()> {
    require_root!(Ok(()));
    let scene = Scene::new();
    for (way, to) in [("tcp", "198.51.100.7:443"), ("udp", "198.51.100.7:53")] {
        for is_ours in [true, false] {
            let (mut tcp, mut udp) = (TcpListener::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
            let doors = Doors { tcp4: &tcp, tcp6: &tcp, dns4: &udp, dns6: &udp };
            scene.adopter.open_doors(NUMBER, scene.cookie, &doors)?;
            let mut late = scene.inside(PROBE);
            let mut late = late.args(["late", way, to]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
            let mut line = String::new();
            BufReader::new(late.stdout.take().context("its output")?).read_line(&mut line)?;
            ensure!(line == "ready\n", "{way}: {line}");
            if !is_ours {
                let (at, dns) = (tcp.local_addr()?, udp.local_addr()?);
                drop((tcp, udp));
                (tcp, udp) = (TcpListener::bind(at)?, UdpSocket::bind(dns)?);
            }
            tcp.set_nonblocking(true)?;
            udp.set_nonblocking(true)?;
            writeln!(late.stdin.take().context("its input")?, "go")?;
            let deadline = Instant::now() + Duration::from_secs(if is_ours { 20 } else { 1 });
            let mut arrived = false;
            while !arrived && Instant::now() < deadline {
                arrived = tcp.accept().is_ok() || udp.recv(&mut [0; 16]).is_ok();
                std::thread::sleep(Duration::from_millis(10));
            }
            late.kill()?;
            late.wait()?;
            ensure!(arrived == is_ours, "{way}: whether it arrived is {arrived}");
        }
    }
    Ok(())
}

#[test]
fn a_cgroup_that_is_gone_takes_no_room_also_while_no_daemon_runs() -> Result<()> {
    require_root!(Ok(()));
    let scene = Scene::new();
    let id = fs::metadata(&scene.governed)?.ino();
    ensure!(scene.adopter.governed()?.contains_key(&id), "it isn't governed");
    fs::remove_dir(&scene.governed)?;
    let deadline = Instant::now() + Duration::from_secs(30);
    while scene.adopter.governed()?.contains_key(&id) {
        ensure!(Instant::now() < deadline, "its id is there still");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// A node of a device that is gone when this is.
struct Node(PathBuf);

impl Node {
    fn new(major: u64, minor: u64) -> Result<Self> {
        use nix::sys::stat::{Mode, SFlag, makedev, mknod};

        let path = Path::new("/dev").join(format!("interceptor-test-{}", std::process::id()));
        mknod(&path, SFlag::S_IFCHR, Mode::S_IRUSR | Mode::S_IWUSR, makedev(major, minor))?;
        Ok(Self(path))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// No driver has the node, which is what others are told.
#[test]
fn devices_of_rdma_are_refused() -> Result<()> {
    require_root!(Ok(()));
    let scene = Scene::new();
    let node = Node::new(231, 223)?;
    let path = node.0.to_str().context("a path")?;
    ensure!(said(&Command::new(PROBE).args(["read", path]).output()?) == "ENXIO", "others");
    let inside = scene.attempt(PROBE, &["read", path]);
    ensure!(inside == "EPERM", "{inside}");
    Ok(())
}

/// Clients of MPTCP fall back to TCP on this.
#[test]
fn sockets_of_other_protocols_cant_be_made() -> Result<()> {
    require_root!(Ok(()));
    let scene = Scene::new();
    let number = libc::SYS_socket.to_string();
    for family in [libc::AF_INET, libc::AF_INET6] {
        for (kind, protocol) in [(libc::SOCK_STREAM, 262), (libc::SOCK_RAW, libc::IPPROTO_UDP), (libc::SOCK_RAW, 255)] {
            let words = [family, kind, protocol].map(|word| word.to_string());
            let made = scene.attempt(PROBE, &["syscall", &number, &words[0], &words[1], &words[2]]);
            ensure!(made == "EPROTONOSUPPORT", "{words:?}: {made}");
        }
    }
    Ok(())
}

/// All that lets sockets share an address is set. Nobody else is kept off, who gets nothing there.
#[test]
fn the_daemons_ports_cant_be_bound_also_while_it_is_down() -> Result<()> {
    require_root!(Ok(()));
    let scene = Scene::new();
    let bind = |way: &str, host: &str, port: u16| scene.attempt(PROBE, &["bind", way, &format!("{host}:{port}")]);
    // `Kind::Other` and `Fate::Refused` of the kernel's counts.
    let refused = || -> Result<u64> {
        let tallies = scene.adopter.tallies()?;
        Ok(tallies.iter().filter(|one| (one.kind, one.fate) == (6, 1)).map(|one| one.count).sum())
    };
    let [tcp4, tcp6] = scene.ports;
    let [dns4, dns6] = scene.dns;
    let hosts = ["127.0.0.1", "0.0.0.0", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:0.0.0.0]"];
    let mut count = 0;
    for is_down in [false, true] {
        if is_down {
            scene.acceptor.remove(scene.workload.id);
            let deadline = Instant::now() + Duration::from_secs(5);
            while TcpListener::bind(("127.0.0.1", tcp4)).is_err() || TcpListener::bind(("::1", tcp6)).is_err() {
                ensure!(Instant::now() < deadline, "its listeners are there still");
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        for (way, port) in [("tcp", tcp4), ("tcp", tcp6), ("udp", dns4), ("udp", dns6)] {
            for host in hosts {
                let said = bind(way, host, port);
                ensure!(said == "EADDRINUSE", "{way} {host}:{port}, down {is_down}: {said}");
                count += 1;
            }
        }
        ensure!(refused()? == count, "{} of {count} are counted", refused()?);
        // Other ports, other protocols, and addresses that the daemon isn't at.
        for host in hosts {
            for way in ["tcp", "udp"] {
                let said = bind(way, host, 0);
                ensure!(said == "ok", "{way} {host}, down {is_down}: {said}");
            }
        }
        for (way, host, port) in [("udp", "127.0.0.1", tcp4), ("tcp", "127.0.0.1", dns4), ("tcp", "127.0.0.2", tcp4)] {
            let said = bind(way, host, port);
            ensure!(said == "ok", "{way} {host}:{port}, down {is_down}: {said}");
        }
        ensure!(refused()? == count, "what is allowed is counted as refused");
    }
    Ok(())
}

/// As a manager of services hands one to a unit: what it accepts answers, and isn't cut.
#[test]
fn a_listener_that_was_made_outside_answers_for_longer_than_a_look() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = start("listener", "")?;
    let unit = Unit::new(&daemon)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let to = listener.local_addr()?;
    let mut server = unit.command(daemon.binary("probe"));
    let mut server = server.args(["accept"]).stdin(Stdio::from(OwnedFd::from(listener))).spawn()?;
    let judged = (|| -> Result<()> {
        // Looked at once a second.
        std::thread::sleep(Duration::from_millis(2_500));
        let mut caller = TcpStream::connect(to)?;
        caller.set_read_timeout(Some(Duration::from_secs(20)))?;
        for _ in 0..5 {
            caller.write_all(b"hello")?;
            let mut answer = [0; 5];
            caller.read_exact(&mut answer)?;
            ensure!(&answer == b"HELLO", "{answer:?}");
            std::thread::sleep(Duration::from_millis(500));
        }
        Ok(())
    })();
    server.kill()?;
    server.wait()?;
    judged?;
    unit.remove()?;
    daemon.finish()
}

/// Old ways to say where a packet goes: all that can be said with a message, kept with the socket instead.
#[test]
fn options_that_keep_a_messages_headers_are_refused() -> Result<()> {
    require_root!(Ok(()));
    let scene = Scene::new();
    // IPV6_2292PKTOPTIONS, with nothing in it.
    let number = libc::SYS_setsockopt.to_string();
    let attempt = ["syscall", &number, "0", "41", "6", "0", "0"];
    let of = |mut command: Command| -> Result<String> {
        let socket = OwnedFd::from(UdpSocket::bind("[::1]:0")?);
        Ok(said(&command.args(attempt).stdin(Stdio::from(socket)).output()?))
    };
    let (outside, inside) = (of(Command::new(PROBE))?, of(scene.inside(PROBE))?);
    ensure!((outside.as_str(), inside.as_str()) == ("ok", "EACCES"), "{outside} outside, {inside} inside");
    Ok(())
}

/// The hooks of another Interceptor are such programs.
#[test]
fn programs_of_others_that_rewrite_connects_are_told() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = start("others", "")?;
    let _others = Scene::new();
    let status = daemon.json(&["status"])?;
    let causes = status["causes"].as_array().context("a list")?;
    let told = causes.iter().find(|cause| cause["code"] == "other-programs");
    let told = told.with_context(|| format!("it isn't told: {status}"))?["message"].to_string();
    ensure!(told.contains("connect4 (id "), "{told}");
    daemon.finish()
}
