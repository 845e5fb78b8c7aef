//! What a service under a real daemon has or gets of others: answers to its look-ups, sockets of before, descriptors that come
//! later.

use std::io::{IoSlice, Read};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use interceptor::record::event::{Change, What};
use interceptor_tests::unit::{Unit, said};
use interceptor_tests::{recorded, require_root};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, setsockopt, socket, sockopt,
};

use super::daemon::{start, until};
use super::ledger::counts;

/// No target.
const ELSEWHERE: &str = "198.51.100.7:443";

#[test]
fn answers_come_from_whom_was_asked_and_look_ups_are_counted() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = start("answers", "")?;
    let unit = Unit::new(&daemon)?;
    for (way, server, from) in [
        ("plain", "198.51.100.53:53", "198.51.100.53:53"),
        ("connected", "198.51.100.53:53", "198.51.100.53:53"),
        ("plain", "[2001:db8::53]:53", "[2001:db8::53]:53"),
        ("connected", "[2001:db8::53]:53", "[2001:db8::53]:53"),
        ("plain", "127.0.0.53:53", "127.0.0.53:53"),
        ("mapped", "198.51.100.53:53", "[::ffff:198.51.100.53]:53"),
    ] {
        let answered = unit.attempt(&["dns", way, server])?;
        ensure!(answered == format!("answered by {from}"), "{way} to {server}: {answered}\n{}", daemon.log());
    }
    ensure!(unit.attempt(&["bind-to-device", "lo"])? == "EACCES");
    let dns = counts(&daemon, "svc", "dns")?;
    ensure!(dns["mediated"] == 6 && dns["refused"] == 0, "{dns}");
    ensure!(counts(&daemon, "svc", "other")?["refused"] == 1);
    unit.remove()?;
    daemon.finish()
}

/// Somebody outside made the socket, and bound it to a device that leads away from the daemon. To let go of the device takes a
/// privilege that a contained process doesn't have, also where it is a hook that does it.
#[test]
fn a_socket_that_was_bound_to_a_device_before_gets_nowhere() -> Result<()> {
    require_root!(Ok(()));
    // A network of its own, for this thread and what it starts.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
    interceptor::transport::namespace::configure()?;
    for command in ["tuntap add dev away mode tap", "addr add 198.51.100.1/24 dev away", "link set away up"] {
        let output = Command::new("ip").args(command.split(' ')).output()?;
        ensure!(output.status.success(), "ip {command}: {output:?}");
    }
    let (_graph, daemon) = start("device", "")?;
    let unit = Unit::new(&daemon)?;
    let bound = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&bound, sockopt::BindToDevice, &"away".into())?;
    let mut inside = unit.command(daemon.binary("probe"));
    let answer = said(inside.args(["on-input", "tcp", ELSEWHERE]).stdin(Stdio::from(bound)))?;
    ensure!(answer == "ECONNREFUSED", "{answer}\n{}", daemon.log());
    unit.remove()?;
    daemon.finish()
}

/// By a socket that the process began with; it has been looked at, and found to be right, before they come.
#[test]
fn descriptors_that_come_later_are_cut() -> Result<()> {
    require_root!(Ok(()));
    let (_graph, daemon) = start("later", "")?;
    let unit = Unit::new(&daemon)?;
    let (own, other) = UnixStream::pair()?;
    let mut inside = unit.command(daemon.binary("probe"));
    let mut inside = inside.args(["keep", "received"]).stdin(Stdio::from(OwnedFd::from(other))).spawn()?;
    until(&daemon, |one| one["containment"] == "contained" && one["adopted"][0].is_object())?;
    // Longer than it takes until all are looked at again.
    std::thread::sleep(Duration::from_millis(1_500));
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let stream = TcpStream::connect(listener.local_addr()?)?;
    let (mut outside, _) = listener.accept()?;
    outside.set_read_timeout(Some(Duration::from_secs(20)))?;
    let target = UdpSocket::bind("127.0.0.1:0")?;
    let datagrams = UdpSocket::bind("127.0.0.1:0")?;
    datagrams.connect(target.local_addr()?)?;
    let passed = [stream.as_raw_fd(), datagrams.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&passed)];
    sendmsg::<()>(own.as_raw_fd(), &[IoSlice::new(b"!")], &rights, MsgFlags::empty(), None)?;
    let ended = outside.read(&mut [0; 1]);
    // The copy here is of the same socket.
    let deadline = Instant::now() + Duration::from_secs(20);
    while datagrams.peer_addr().is_ok() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    let is_dissolved = datagrams.peer_addr().is_err();
    inside.kill()?;
    inside.wait()?;
    let is_reset = ended.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset);
    ensure!(matches!(&ended, Ok(0)) || is_reset, "{ended:?}\n{}", daemon.log());
    ensure!(is_dissolved, "the datagram socket is still connected:\n{}", daemon.log());
    let mut cut = Vec::new();
    for (_, event) in recorded::events(&daemon.database(), 0)? {
        if let What::Adoption(adoption) = event.what
            && let Change::SocketCut { what, cut: true, .. } = adoption.change
        {
            cut.push(what);
        }
    }
    let has = |kind: &str| cut.iter().any(|what| what.starts_with(kind));
    ensure!(has("tcp to ") && has("udp to "), "{cut:?}");
    unit.remove()?;
    daemon.finish()
}
