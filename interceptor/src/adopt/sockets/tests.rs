use std::fs::File;
use std::net::TcpListener;
use std::sync::mpsc;

use super::sockets_of;

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
    let found = sockets_of(std::process::id(), &mut left).unwrap();
    let looked_at = 5_000 - left;
    // Other tests of this process open some as well.
    assert!((200..2_000).contains(&looked_at), "{looked_at} descriptors were looked at");
    let inode =
        std::os::unix::fs::MetadataExt::ino(&File::from(std::os::fd::OwnedFd::from(listener)).metadata().unwrap());
    assert!(found.iter().any(|held| held.inode == inode));
    for (keep, thread) in threads {
        drop(keep);
        let _ = thread.join().unwrap();
    }
    drop(files);
}

#[test]
fn no_more_are_looked_at_than_may_be() {
    let mut left = 2;
    let found = sockets_of(std::process::id(), &mut left).unwrap();
    assert!(left == 0 && found.is_empty(), "it has three at least");
}
