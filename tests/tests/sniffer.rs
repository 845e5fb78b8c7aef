//! A sniffer on every interface of the host sees nothing of what a workload sends past the proxy.

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use interceptor_tests::daemon::{Daemon, Order, READ_ONLY};
use interceptor_tests::graph::Graph;
use interceptor_tests::require_root;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

/// What no other traffic on the host has in it.
const MARKER: &str = "stray-6b1f0c7e";

/// ECONNREFUSED, ENETUNREACH.
const NOWHERE: [&str; 2] = ["111", "101"];

#[test]
fn nothing_of_a_workload_is_seen_outside() -> Result<()> {
    require_root!(Ok(()));
    let graph = Graph::start(&[])?;
    let order = Order { bring: vec!["stray"], purpose: "stray", ..Order::for_graph(&graph, READ_ONLY) };
    let daemon = Daemon::start(&order)?;
    let program = daemon.binary("stray");
    let program = program.to_str().context("a path in UTF-8")?.to_owned();

    let sniffer = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)?;
    setsockopt(&sniffer, sockopt::ReceiveTimeout, &TimeVal::milliseconds(300))?;
    setsockopt(&sniffer, sockopt::RcvBufForce, &(16 << 20))?;
    // It does see what is sent outside: a look at itself first.
    let own = std::net::UdpSocket::bind("127.0.0.1:0")?;
    own.send_to(b"own-6b1f0c7e", own.local_addr()?)?;

    let ran = daemon.run(&[&program, MARKER]).output()?;
    let said = String::from_utf8(ran.stdout)?;
    ensure!(ran.status.success(), "stray failed: {said}{}", String::from_utf8_lossy(&ran.stderr));
    let (mut seen_own, mut seen_stray) = (false, 0);
    let mut packet = vec![0; 1 << 16];
    while let Ok(length) = recv(sniffer.as_raw_fd(), &mut packet, MsgFlags::empty()) {
        let packet = &packet[..length];
        let has = |what: &[u8]| packet.windows(what.len()).any(|window| window == what);
        seen_own |= has(b"own-6b1f0c7e");
        seen_stray += usize::from(has(MARKER.as_bytes()) || has(&[198, 51, 100, 77]));
    }
    ensure!(seen_own, "the sniffer sees nothing at all");
    ensure!(seen_stray == 0, "the sniffer saw {seen_stray} stray packets");

    // What has a destination of its own is refused at once; a multicast or broadcast stays where it is sent.
    for line in said.lines() {
        let (way, result) = line.split_once(' ').context("a way and a result")?;
        let stays = ["broadcast", "multicast", "multicast6"].contains(&way) && result == "sent";
        // TCP is accepted by the proxy, which then refuses it.
        let proxied = way.starts_with("smtp");
        ensure!(stays || proxied || NOWHERE.contains(&result), "{way}: {result}");
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let sessions = daemon.json(&["sessions", "list"])?;
        let all = sessions.as_array().context("a list")?;
        if all.iter().filter(|one| one["reason"] == "not-a-target").count() == 2 {
            break;
        }
        ensure!(Instant::now() < deadline, "the two TCP connections aren't recorded as refused: {sessions}");
        std::thread::sleep(Duration::from_millis(20));
    }
    daemon.finish()
}
