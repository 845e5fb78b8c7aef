use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::{Taken, Ticket, WHOLE, miss};

#[test]
fn a_daemon_that_comes_after_goes_on_counting() {
    let folder = tempfile::tempdir().unwrap();
    let taken = Taken::open(folder.path());
    taken.note_netns(7);
    for _ in 0..300 {
        taken.take();
    }
    taken.turn_away();
    taken.ask();
    drop(taken);
    let taken = Taken::open(folder.path());
    taken.take();
    taken.ask();
    assert_eq!((taken.taken(), taken.reset(), taken.netns(), taken.asked()), (301, 1, 7, 2));
    let left = Taken::left(folder.path()).unwrap();
    assert_eq!((left.taken(), left.reset(), left.lost(), left.netns()), (301, 1, 0, 7));
}

#[test]
fn what_was_unexplained_before_is_not_lost_after() {
    let folder = tempfile::tempdir().unwrap();
    let taken = Taken::open(folder.path());
    for _ in 0..5 {
        taken.take();
    }
    taken.note_unexplained(2);
    drop(taken);
    // Of ten that got an answer five were taken, two were known to be nobody's, and one waits to be taken.
    let taken = Taken::open(folder.path());
    taken.resume(10, 1);
    assert_eq!(taken.lost(), 2);
    // Nothing more happened before the next one.
    taken.take();
    drop(taken);
    let taken = Taken::open(folder.path());
    taken.resume(10, 0);
    assert_eq!(taken.lost(), 2);
    taken.resume(3, 0);
    assert_eq!(taken.lost(), 0, "less than was taken can't be lost");
}

#[test]
fn what_came_into_the_record_is_told_from_what_never_will_and_from_what_a_killed_daemon_had() {
    let folder = tempfile::tempdir().unwrap();
    let taken = Arc::new(Taken::open(folder.path()));
    let take = || {
        taken.take();
        Ticket::new(Some(Arc::clone(&taken)))
    };
    let (first, second, third, fourth) = (take(), take(), take(), take());
    // One that isn't counted counts nowhere.
    Ticket::new(None).recorded();
    drop(Ticket::new(None));
    first.recorded();
    second.recorded();
    drop(third);
    let numbers = |taken: &Taken| (taken.recorded(), taken.unrecorded(), taken.under_way());
    assert_eq!(numbers(&taken), (2, 1, 1));
    // Killed before it came to the fourth, it leaves what is in the file.
    let after = Arc::new(Taken::open(folder.path()));
    assert_eq!(numbers(&after), (2, 1, 0), "nobody has the fourth any more");
    after.take();
    let fifth = Ticket::new(Some(Arc::clone(&after)));
    assert_eq!(numbers(&after), (2, 1, 1));
    fifth.recorded();
    assert_eq!(numbers(&after), (3, 1, 0));
    drop(fourth);
}

#[test]
fn workers_at_once_lose_none() {
    let folder = tempfile::tempdir().unwrap();
    let taken = Arc::new(Taken::open(folder.path()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..200).for_each(|_| Ticket::new(Some(Arc::clone(&taken))).recorded()));
        }
    });
    assert_eq!(taken.recorded(), 800);
    assert_eq!(Taken::open(folder.path()).recorded(), 800, "what is in the file");
}

#[test]
fn where_nothing_was_left_nothing_is_found() {
    let folder = tempfile::tempdir().unwrap();
    assert!(Taken::left(folder.path()).is_err());
    assert_eq!(Taken::open(folder.path()).taken(), 0);
    std::fs::write(folder.path().join("taken"), [1, 0, 0]).unwrap();
    assert_eq!(Taken::open(folder.path()).taken(), 1);
}

#[test]
fn only_what_began_with_its_workload_is_known_to_be_all() {
    let folder = tempfile::tempdir().unwrap();
    Taken::begin(folder.path());
    let taken = Taken::open(folder.path());
    taken.take();
    assert!(taken.is_whole());
    drop(taken);
    let after = Taken::open(folder.path());
    assert_eq!((after.taken(), after.is_whole()), (1, true), "a restart leaves it so");
    assert!(Taken::left(folder.path()).unwrap().is_whole());
    // Another workload of that name.
    Taken::begin(folder.path());
    let taken = Taken::open(folder.path());
    assert_eq!((taken.taken(), taken.is_whole()), (0, true));
    // Somebody couldn't read it, and counted something meanwhile.
    miss(folder.path());
    assert!(!Taken::open(folder.path()).is_whole());
    // An earlier daemon had no file.
    std::fs::remove_file(folder.path().join("taken")).unwrap();
    for _ in 0..2 {
        let taken = Taken::open(folder.path());
        taken.take();
        assert!(!taken.is_whole());
    }
    assert!(!Taken::default().is_whole());
}

#[test]
fn what_could_not_be_written_down_is_missing_for_who_reads_it_later() {
    let file = File::from(memfd_create(c"taken", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).unwrap());
    file.set_len(9 * 8).unwrap();
    fcntl(file.as_fd(), FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE)).unwrap();
    let taken = Taken { file: Some(file.try_clone().unwrap()), ..Taken::default() };
    taken.numbers[WHOLE].store(1, Ordering::Release);
    assert!(taken.is_whole());
    taken.take();
    assert_eq!((taken.taken(), taken.is_whole()), (1, false));
    assert_eq!(file.metadata().unwrap().len(), WHOLE as u64 * 8, "the mark is cut off");
}
