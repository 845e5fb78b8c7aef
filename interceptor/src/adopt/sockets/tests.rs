use std::fs::File;
use std::net::TcpListener;
use std::sync::mpsc;

use rustix::io::Errno;

use super::{descriptors_of, is_journal, reaches_out, unread, unseen};

#[test]
fn a_table_that_threads_share_is_read_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let files: Vec<File> = (0..200).map(|_| File::open("/dev/null").unwrap()).collect();
    let threads: Vec<_> = (0..50)
        .map(|_| {
            let (keep, wait) = mpsc::sync_channel::<()>(1);
            (keep, std::thread::spawn(move || wait.recv()))
        })
        .collect();
    let mut left = 5_000;
    let found = descriptors_of(std::process::id(), &mut left).unwrap();
    let looked_at = 5_000 - left;
    // Other tests of this process open some as well.
    assert!((200..2_000).contains(&looked_at), "{looked_at} descriptors were looked at");
    let inode =
        std::os::unix::fs::MetadataExt::ino(&File::from(std::os::fd::OwnedFd::from(listener)).metadata().unwrap());
    assert!(found.sockets.contains_key(&inode));
    for (keep, thread) in threads {
        drop(keep);
        let _ = thread.join().unwrap();
    }
    drop(files);
}

#[test]
fn no_more_are_looked_at_than_may_be() {
    let mut left = 2;
    let found = descriptors_of(std::process::id(), &mut left).unwrap();
    assert!(left == 0 && found.sockets.is_empty(), "it has three at least");
}

/// What is gone has nothing; of what can't be looked at nobody knows what it has.
#[test]
fn what_cant_be_looked_at_is_told_and_what_is_gone_is_not() {
    for gone in [Errno::SRCH, Errno::BADF] {
        assert_eq!(unseen(gone), None, "{gone:?}");
    }
    for error in [Errno::PERM, Errno::ACCESS, Errno::INVAL, Errno::NOSYS] {
        assert!(unseen(error).is_some(), "{error:?}");
    }
    let error = std::io::Error::from_raw_os_error;
    for gone in [libc::ENOENT, libc::ESRCH, libc::EMFILE] {
        assert_eq!(unread(&error(gone)), None, "{gone}");
    }
    assert!(unread(&error(libc::EACCES)).is_some());
}

#[test]
fn only_the_journals_own_socket_is_a_services_output() {
    for path in ["/run/systemd/journal/stdout", "/run/systemd/journal.crm/stdout"] {
        assert!(is_journal(path.as_ref()), "{path}");
    }
    for path in [
        "/run/docker.sock",
        "/run/systemd/journal/socket",
        "/run/systemd/private/stdout",
        "/run/systemd/journal.d/other/stdout",
        "/tmp/run/systemd/journal/stdout",
        "/run/systemd/journal/../x/stdout",
    ] {
        assert!(!is_journal(path.as_ref()), "{path}");
    }
}

#[test]
fn what_sends_without_a_socket_is_known_by_its_link() {
    for link in ["/dev/net/tun", "/dev/vhost-net", "/dev/vhost-vsock", "/dev/tap4", "anon_inode:[io_uring]"] {
        assert!(reaches_out(link), "{link}");
    }
    for link in ["/dev/null", "/dev/pts/3", "pipe:[17]", "anon_inode:[eventpoll]", "/home/a/dev/tap"] {
        assert!(!reaches_out(link), "{link}");
    }
}
