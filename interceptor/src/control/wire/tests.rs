use std::fs::File;
use std::io::{Read, Seek, Write};
use std::time::Duration;

use super::*;

fn pair() -> (UnixStream, UnixStream) {
    let (one, other) = UnixStream::pair().unwrap();
    for end in [&one, &other] {
        end.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    }
    (one, other)
}

/// Sends bytes with descriptors as no sound client would.
fn raw(socket: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(CARRIED))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(descriptors.is_empty() || control.push(SendAncillaryMessage::ScmRights(descriptors)));
    assert_eq!(sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::empty()).unwrap(), bytes.len());
}

/// Whether every descriptor that went over was closed: then the pipe's reader sees its end.
fn ends(mut reader: impl Read) -> bool {
    reader.read(&mut [0]).unwrap() == 0
}

#[test]
fn a_frame_arrives_whole_with_its_descriptors_close_on_exec() {
    let (one, other) = pair();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"content").unwrap();
    file.rewind().unwrap();
    send(&one, b"{}", &[file.as_fd(), one.as_fd()]).unwrap();
    let (payload, descriptors) = receive(&other, 3).unwrap();
    assert_eq!(payload, b"{}");
    assert_eq!(descriptors.len(), 2);
    for descriptor in &descriptors {
        let flags = nix::fcntl::fcntl(descriptor, nix::fcntl::FcntlArg::F_GETFD).unwrap();
        assert_eq!(flags & nix::libc::FD_CLOEXEC, nix::libc::FD_CLOEXEC);
    }
    let mut text = String::new();
    File::from(descriptors.into_iter().next().unwrap()).read_to_string(&mut text).unwrap();
    assert_eq!(text, "content");
}

#[test]
fn the_longest_frame_passes_and_a_longer_one_does_not() {
    let (one, other) = pair();
    let sender = std::thread::spawn(move || send(&one, &vec![b'x'; FRAME], &[]).map(|()| one));
    assert_eq!(receive(&other, 0).unwrap().0.len(), FRAME);
    let one = sender.join().unwrap().unwrap();
    assert!(matches!(send(&one, &vec![0; FRAME + 1], &[]), Err(WireError::TooLong(_))));
    raw(&one, &(u32::try_from(FRAME).unwrap() + 1).to_be_bytes(), &[]);
    assert!(matches!(receive(&other, 0), Err(WireError::TooLong(length)) if length == FRAME + 1));
}

#[test]
fn a_frame_that_is_cut_off_anywhere_is_closed() {
    let frame = [0, 0, 0, 3, b'a', b'b', b'c'];
    for length in 0..frame.len() {
        let (one, other) = pair();
        raw_if(&one, &frame[..length]);
        drop(one);
        assert!(matches!(receive(&other, 0), Err(WireError::Closed)), "{length}");
    }
    let (one, other) = pair();
    for byte in frame {
        raw(&one, &[byte], &[]);
    }
    assert_eq!(receive(&other, 0).unwrap().0, b"abc");
    raw(&one, &[0, 0, 0, 0], &[]);
    assert_eq!(receive(&other, 0).unwrap().0, b"");
}

fn raw_if(socket: &UnixStream, bytes: &[u8]) {
    if !bytes.is_empty() {
        raw(socket, bytes, &[]);
    }
}

#[test]
fn too_many_descriptors_are_refused_and_closed() {
    let (reader, writer) = std::io::pipe().unwrap();
    for (count, at_once) in [(4, true), (253, true), (4, false)] {
        let (one, other) = pair();
        if at_once {
            raw(&one, &[0, 0, 0, 1], &vec![writer.as_fd(); count]);
        } else {
            raw(&one, &[0, 0, 0, 9], &[writer.as_fd()]);
            for _ in 1..count {
                raw(&one, b"x", &[writer.as_fd()]);
            }
        }
        assert!(matches!(receive(&other, 3), Err(WireError::Descriptors(3))), "{count}");
    }
    drop(writer);
    assert!(ends(reader));
}

#[test]
fn descriptors_of_a_frame_that_fails_are_closed() {
    let (reader, writer) = std::io::pipe().unwrap();
    let (one, other) = pair();
    raw(&one, &[0xff; 4], &[writer.as_fd()]);
    assert!(matches!(receive(&other, 3), Err(WireError::TooLong(_))));
    drop(writer);
    assert!(ends(reader));
}

#[tokio::test]
async fn both_ends_speak_the_same_on_the_runtime() {
    let (one, other) = tokio::net::UnixStream::pair().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    let payload = vec![b'y'; 1 << 20];
    let along = [writer.as_fd()];
    let sent = send_async(&one, &payload, &along);
    let (sent, received) = tokio::join!(sent, receive_async(&other, 1));
    sent.unwrap();
    let (bytes, descriptors) = received.unwrap();
    assert_eq!((bytes.len(), descriptors.len()), (1 << 20, 1));
    drop((writer, descriptors));
    assert!(ends(reader));
    drop(one);
    assert!(matches!(receive_async(&other, 1).await, Err(WireError::Closed)));
}
