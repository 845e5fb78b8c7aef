use std::io::Read;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use super::*;
use crate::config::Members;

fn own_cgroup() -> PathBuf {
    let text = fs::read_to_string("/proc/self/cgroup").unwrap();
    text.lines().find_map(|line| line.strip_prefix("0::")).map(PathBuf::from).unwrap_or_default()
}

#[test]
fn the_kernel_says_who_connected() {
    let (one, _other) = UnixStream::pair().unwrap();
    let peer = Peer::of(&one).unwrap();
    assert_eq!(
        (peer.uid, peer.gid, peer.pid),
        (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw(), std::process::id())
    );
    assert!(peer.pidfd.is_some());
}

#[test]
fn inside_is_the_cgroup_or_below_by_whole_components() {
    let (one, _other) = UnixStream::pair().unwrap();
    let peer = Peer::of(&one).unwrap();
    let own = own_cgroup();
    assert!(peer.inside(&own, |_| false).unwrap());
    assert!(peer.inside(Path::new("/"), |_| false).unwrap());
    assert!(!peer.inside(&own.join("below"), |_| false).unwrap());
    let mut longer = own.into_os_string();
    longer.push("x");
    assert!(!peer.inside(Path::new(&longer), |_| false).unwrap());
}

#[test]
fn a_peer_that_has_ended_is_not_known() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let mut child = Command::new("python3")
        .args(["-c", "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.send(b'x'); sys.stdin.read()"])
        .arg(&path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut socket, _) = listener.accept().unwrap();
    socket.read_exact(&mut [0]).unwrap();
    let peer = Peer::of(&socket).unwrap();
    assert_eq!(peer.pid, child.id());
    assert!(peer.inside(Path::new("/"), |_| false).unwrap());
    drop(child.stdin.take());
    child.wait().unwrap();
    assert!(peer.inside(Path::new("/nowhere"), |_| false).is_err());
    let late = Peer::of(&socket).unwrap();
    assert!(late.inside(Path::new("/nowhere"), |_| false).is_err());
}

/// What the kernel says of a process stays what it was when somebody logged in, whatever uid it has now.
#[test]
fn who_logged_in_is_the_kernels_word() {
    let (one, other) = UnixStream::pair().unwrap();
    drop(other);
    let mut own = Peer::of(&one).unwrap();
    own.learn_loginuid().unwrap();
    let said = std::fs::read_to_string("/proc/self/loginuid").ok();
    let said = said.and_then(|text| text.trim().parse().ok()).filter(|uid: &u32| *uid != u32::MAX);
    assert_eq!(own.loginuid, said);
    let mut gone = Peer { uid: 1001, loginuid: None, gid: 1001, pid: 0, pidfd: None };
    assert!(gone.learn_loginuid().is_err(), "of whom nothing is known, nobody can be excluded");
}

#[test]
fn operators_are_root_the_listed_users_and_members_of_the_listed_groups() {
    let peer = |uid, gid| {
        let (one, other) = UnixStream::pair().unwrap();
        drop(other);
        Peer { uid, gid, ..Peer::of(&one).unwrap() }
    };
    let control = Control { operators: Members { uids: vec![1000], gids: vec![27] }, ..Control::default() };
    assert!(peer(0, 0).operates(&Control::default()).unwrap());
    assert!(peer(1000, 1000).operates(&control).unwrap());
    assert!(peer(1001, 27).operates(&control).unwrap());
    assert!(!peer(1001, 1001).operates(&control).unwrap());
    assert!(!peer(1001, 1001).operates(&Control::default()).unwrap());
    assert!(!peer(0, 0).is_among(&control.auditors).unwrap(), "root audits only where it is listed");
    let nobody = Peer { uid: 1001, loginuid: None, gid: 1001, pid: 0, pidfd: None };
    assert!(nobody.operates(&control).is_err());
}

#[test]
fn a_supplementary_group_makes_an_operator() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = folder.path().join("s");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    let script = "import os,socket,sys; os.setgroups([4321]); os.setgid(61234); os.setuid(61234); \
                  s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); sys.stdin.read()";
    let mut child =
        Command::new("python3").arg0("python3").args(["-c", script]).arg(&path).stdin(Stdio::piped()).spawn().unwrap();
    let (socket, _) = listener.accept().unwrap();
    let peer = Peer::of(&socket).unwrap();
    assert_eq!((peer.uid, peer.gid), (61234, 61234));
    assert!(peer.is_among(&Members { uids: vec![], gids: vec![4321] }).unwrap());
    assert!(!peer.is_among(&Members { uids: vec![], gids: vec![4322] }).unwrap());
    drop(child.stdin.take());
    child.wait().unwrap();
}
