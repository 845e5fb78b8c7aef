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
