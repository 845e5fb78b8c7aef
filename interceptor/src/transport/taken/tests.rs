use super::Taken;

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
fn where_nothing_was_left_nothing_is_found() {
    let folder = tempfile::tempdir().unwrap();
    assert!(Taken::left(folder.path()).is_err());
    assert_eq!(Taken::open(folder.path()).taken(), 0);
    std::fs::write(folder.path().join("taken"), [1, 0, 0]).unwrap();
    assert_eq!(Taken::open(folder.path()).taken(), 1);
}
