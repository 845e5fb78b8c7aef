//! The database is another one in the very same file: one that was restored into it, or written over it.

use std::fs;

use rusqlite::Connection;
use rusqlite::backup::Backup;

use super::*;

struct Scene {
    dir: tempfile::TempDir,
    record: Record,
    journal: Journal,
}

fn scene() -> Scene {
    let dir = tempfile::tempdir().unwrap();
    let record = open(dir.path());
    let journal = record.journal("worker-0").unwrap();
    Scene { dir, record, journal }
}

/// Makes `to` what `from` is, as SQLite's `.backup` and `.restore` do: by a transaction.
fn restore(from: &Path, to: &Path) {
    let from = Connection::open(from).unwrap();
    let mut to = Connection::open(to).unwrap();
    Backup::new(&from, &mut to).unwrap().run_to_completion(10_000, Duration::from_millis(5), None).unwrap();
}

/// Brings what is written ahead into the file, and begins the log anew.
fn fold(database: &Path) {
    let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
    let busy: i64 = Connection::open(database).unwrap().query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(busy, 0, "somebody is in the way");
}

impl Scene {
    fn note(&self, count: u32) {
        for _ in 0..count {
            let _recorded = self.journal.append(&finished(OperationId::new())).expect("it is recorded");
        }
        self.record.flush(SOON).expect("it is moved");
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Waits until what is allowed is recorded, or isn't any more.
    fn until(&self, allows: bool) {
        let begin = Instant::now();
        let allowed = || decided(OperationId::new(), None, LaunchId::new(), Verdict::Allow);
        while self.journal.append(&allowed()).is_ok() != allows {
            assert!(begin.elapsed() < SOON, "allows: {}", !allows);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// That nothing goes on, and nothing is written beside the database or into it.
    fn denies(&self, events: u64) {
        let head = || fs::read_to_string(self.file("record.head")).unwrap();
        let before = head();
        self.until(false);
        let failed = self.record.health().failed.expect("status says it");
        assert!(failed.contains("isn't the database that it was"), "{failed}");
        assert_eq!((head(), self.record.reader().unwrap().last_seq().unwrap()), (before, events));
    }

    fn goes_on(&self) {
        self.until(true);
        told(&self.record, "isn't the database that it was");
        let report = verify(self.record.database()).unwrap();
        assert!(report.ok && report.damage.is_empty(), "{report:?}");
        assert_eq!(self.record.health().failed, None);
    }
}

#[test]
fn an_older_copy_that_is_restored_denies_until_the_right_content_is_back() {
    let scene = scene();
    let (old, right) = (scene.file("old.db"), scene.file("right.db"));
    scene.note(3);
    restore(scene.record.database(), &old);
    scene.note(3);
    restore(scene.record.database(), &right);
    restore(&old, scene.record.database());
    scene.denies(3);
    restore(&right, scene.record.database());
    scene.goes_on();
}

#[test]
fn another_record_of_as_many_events_that_is_restored_denies_as_well() {
    let (scene, other) = (scene(), scene());
    let right = scene.file("right.db");
    scene.note(6);
    other.note(6);
    restore(scene.record.database(), &right);
    restore(other.record.database(), scene.record.database());
    scene.denies(6);
    restore(&right, scene.record.database());
    scene.goes_on();
}

/// As `cp` does it. The log is still there, and what is read of both together is neither of them: its end may be right.
#[test]
fn a_file_that_is_written_over_denies_until_the_right_content_is_back() {
    let scene = scene();
    let database = scene.record.database();
    scene.note(300);
    fold(database);
    let old = fs::read(database).unwrap();
    scene.note(300);
    fold(database);
    scene.note(1);
    assert_eq!(scene.record.health().failed, None, "a checkpoint of somebody else does no harm");
    let right = scene.file("right.db");
    restore(database, &right);
    fs::write(database, old).unwrap();
    let begin = Instant::now();
    scene.until(false);
    let failed = scene.record.health().failed.expect("status says it");
    assert!(failed.contains("isn't the database that it was"), "{failed}");
    println!("denied after {:?}", begin.elapsed());
    fs::write(database, fs::read(&right).unwrap()).unwrap();
    scene.goes_on();
}
