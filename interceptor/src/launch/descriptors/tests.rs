use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

use super::*;

fn refusal(fd: impl Into<OwnedFd>) -> Option<String> {
    judge(fd.into().as_fd()).unwrap()
}

#[test]
fn what_carries_bytes_may_cross() {
    let (reader, writer) = std::io::pipe().unwrap();
    assert_eq!(refusal(reader), None);
    assert_eq!(refusal(writer), None);
    assert_eq!(refusal(File::open("/dev/null").unwrap()), None);
    assert_eq!(refusal(tempfile::tempfile().unwrap()), None);
    let (ours, theirs) = UnixStream::pair().unwrap();
    assert_eq!(refusal(ours), None);
    assert_eq!(refusal(theirs), None, "also when the other end is closed");
    let terminal = nix::pty::openpty(None, None).unwrap();
    assert_eq!(refusal(terminal.slave), None);
    assert!(refusal(terminal.master).unwrap().contains("master"));
}

#[test]
fn what_leads_out_may_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("service");
    let service = UnixListener::bind(&path).unwrap();
    let connected = UnixStream::connect(&path).unwrap();
    let place = nix::fcntl::open("/etc/passwd", OFlag::O_PATH | OFlag::O_CLOEXEC, nix::sys::stat::Mode::empty());
    let table: [(OwnedFd, &str); 11] = [
        (File::open("/").unwrap().into(), "a directory"),
        (place.unwrap(), "O_PATH"),
        (TcpListener::bind("127.0.0.1:0").unwrap().into(), "another family"),
        (UdpSocket::bind("127.0.0.1:0").unwrap().into(), "another family"),
        (UnixDatagram::pair().unwrap().0.into(), "isn't a stream"),
        (service.into(), "listening"),
        (connected.into(), "the service at"),
        (File::open("/proc/self/status").unwrap().into(), "filesystem"),
        (File::open("/sys/kernel/uevent_seqnum").unwrap().into(), "filesystem"),
        (File::open("/dev/zero").unwrap().into(), "a device"),
        (super::super::sys::pidfd_open(std::process::id()).unwrap(), ""),
    ];
    for (fd, expected) in table {
        let said = judge(fd.as_fd()).unwrap();
        assert!(said.as_ref().is_some_and(|said| said.contains(expected)), "{said:?}, expected `{expected}`");
    }
}

#[test]
fn the_refused_one_is_named() {
    let null = || OwnedFd::from(File::open("/dev/null").unwrap());
    let refused = check(&[null(), null(), File::open("/").unwrap().into()]);
    let Err(error @ LaunchError::Descriptor { .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(error.to_string(), "standard error is a directory, which can't be handed to a workload");
}
