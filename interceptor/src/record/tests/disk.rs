//! A full disk with a reserve: what is recorded meanwhile, and how it ends. And that outages are told.

use super::crash::Disk;
use super::*;

const RESERVE: u64 = 512 << 10;

fn with_reserve(dir: &Path, reserve: u64) -> Record {
    let settings = RecordSettings { reserve, ..settings() };
    Record::open(dir, &settings, Arc::new(SystemClock)).expect("the record opens")
}

fn decide(journal: &Journal, verdict: Verdict) -> Result<(), RecordError> {
    journal.append(&decided(OperationId::new(), None, LaunchId::new(), verdict)).map(|_recorded| ())
}

#[test]
fn on_a_full_disk_denials_and_the_outage_are_recorded_and_it_ends_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_disk) = Disk::mount(dir.path()) else {
        println!("left out: mounting a small file system takes root");
        return;
    };
    let record = with_reserve(dir.path(), RESERVE);
    let journal = record.journal("worker-0").unwrap();
    let reserve = dir.path().join("reserve");
    assert_eq!(std::fs::metadata(&reserve).unwrap().len(), RESERVE);
    let mut filler = std::fs::File::create(dir.path().join("filler")).unwrap();
    while filler.write(&[1; 4096]).is_ok_and(|written| written > 0) {}
    let mut allowed = 0_u64;
    let error = loop {
        match decide(&journal, Verdict::Allow) {
            Ok(()) => allowed += 1,
            Err(error) => break error,
        }
        assert!(allowed < 10_000, "a full disk must deny");
    };
    assert!(matches!(error, RecordError::NoRoom) && error.leaves_denials(), "{error}");
    assert!(!reserve.exists(), "it is given up");
    for _ in 0..20 {
        decide(&journal, Verdict::Deny).expect("a denial is recorded");
    }
    assert_eq!(outages(&record), [("the disk is full".to_owned(), false)]);
    assert!(record.health().failed.is_some_and(|why| why.contains("full")), "status says it");
    assert!(matches!(decide(&journal, Verdict::Allow), Err(RecordError::NoRoom)), "room for denials is no room");

    drop(filler);
    std::fs::remove_file(dir.path().join("filler")).unwrap();
    let began = Instant::now();
    while decide(&journal, Verdict::Allow).is_err() {
        assert!(began.elapsed() < Duration::from_secs(5), "it doesn't go on");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(std::fs::metadata(&reserve).unwrap().len(), RESERVE, "there is one again");
    let told = outages(&record);
    assert_eq!(told.iter().map(|(_, over)| *over).collect::<Vec<_>>(), [false, true], "{told:?}");
    assert_eq!(record.health().failed, None);
    let report = verify(record.database()).unwrap();
    assert_eq!((report.fault, report.events), (None, allowed + 20 + 1 + 2));
}

#[test]
fn a_disk_without_room_for_a_reserve_has_none() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_disk) = Disk::mount(dir.path()) else { return };
    let record = with_reserve(dir.path(), 64 << 20);
    decide(&record.journal("worker-0").unwrap(), Verdict::Allow).expect("it goes without");
    assert!(!dir.path().join("reserve").exists());
    assert!(outages(&record).is_empty());
    assert!(record.lacks_reserve(), "and says so");
}

#[test]
fn where_nothing_else_is_said_64_mib_are_kept() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let settings = crate::config::Settings::parse("/etc/interceptor/config.toml", "").unwrap().record;
    assert_eq!((settings.reserve, RecordSettings::default().reserve), (64 << 20, 64 << 20));
    let record = Record::open(dir.path(), &settings, Arc::new(SystemClock)).unwrap();
    let reserve = std::fs::metadata(dir.path().join("reserve")).unwrap();
    assert_eq!(reserve.len(), 64 << 20);
    assert!(reserve.blocks() * 512 >= 64 << 20, "it is taken, not only promised");
    assert!(!record.lacks_reserve());
}

#[test]
fn a_reserve_that_is_not_wanted_any_more_goes() {
    let dir = tempfile::tempdir().unwrap();
    drop(with_reserve(dir.path(), RESERVE));
    let reserve = dir.path().join("reserve");
    assert!(reserve.exists(), "it outlives the daemon");
    drop(with_reserve(dir.path(), 2 * RESERVE));
    assert_eq!(std::fs::metadata(&reserve).unwrap().len(), 2 * RESERVE);
    let none = with_reserve(dir.path(), 0);
    assert!(!reserve.exists() && !none.lacks_reserve(), "none is wanted");
}

#[test]
fn an_outage_is_told_when_it_is_over_unless_it_was_a_moment() {
    let dir = tempfile::tempdir().unwrap();
    let record = open(dir.path());
    let journal = record.journal("worker-0").unwrap();
    let database = rusqlite::Connection::open(record.database()).unwrap();
    let lock = |time: Duration| {
        database.execute_batch("BEGIN IMMEDIATE").unwrap();
        decide(&journal, Verdict::Allow).unwrap();
        let began = Instant::now();
        while record.health().failed.is_none() {
            assert!(began.elapsed() < SOON, "the writer doesn't fail");
            std::thread::sleep(Duration::from_millis(10));
        }
        std::thread::sleep(time);
        database.execute_batch("COMMIT").unwrap();
    };
    lock(Duration::from_millis(1_100));
    let told = outages(&record);
    assert!(told.len() == 1 && told[0].0.contains("locked") && told[0].1, "{told:?}");
    assert!(verify(record.database()).unwrap().ok);
}

/// Writing at the address 0 of a process fails with EIO, as on a disk that is broken.
#[test]
fn a_disk_that_answers_with_an_error_of_its_own_denies_until_it_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let settings = RecordSettings { checkpoint_age: Duration::from_millis(50), ..settings() };
    let record = Record::open(dir.path(), &settings, Arc::new(SystemClock)).unwrap();
    let journal = record.journal("worker-0").unwrap();
    let checkpoints = dir.path().join("checkpoints");
    std::os::unix::fs::symlink("/proc/self/mem", &checkpoints).unwrap();
    decide(&journal, Verdict::Allow).unwrap();
    let began = Instant::now();
    let error = loop {
        if let Err(error) = decide(&journal, Verdict::Allow) {
            break error;
        }
        assert!(began.elapsed() < SOON, "what is recorded may be lost, and operations go on");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(matches!(error, RecordError::Lagging { .. }) && error.leaves_denials(), "{error}");
    assert!(record.health().failed.is_some_and(|why| why.contains("checkpoints")), "status says it");
    decide(&journal, Verdict::Deny).expect("a denial is recorded");

    std::fs::remove_file(&checkpoints).unwrap();
    record.flush(SOON).unwrap();
    assert_eq!(record.health().failed, None);
    decide(&journal, Verdict::Allow).expect("it goes on");
    let told = outages(&record);
    assert!(told.len() == 1 && told[0].0.contains("checkpoints") && told[0].1, "{told:?}");
    drop(record);
    let report = verify(&dir.path().join("record.db")).unwrap();
    assert_eq!((report.fault, report.checkpoints.map(|signed| signed.uncovered)), (None, Some(None)));
}
