//! Ends without warning: killed daemons, torn and damaged journals, full disks; and a writer that has nothing to do.

use super::*;

#[test]
fn child_that_appends_until_it_is_killed() {
    let Some(dir) = child_dir() else { return };
    let record = open(&dir);
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let journal = record.journal(&format!("worker-{worker}")).unwrap();
            scope.spawn(move || {
                let launch = LaunchId::new();
                loop {
                    let operation = OperationId::new();
                    if journal.append(&decided(operation, None, launch, Verdict::Allow)).is_ok() {
                        let mut out = std::io::stdout().lock();
                        writeln!(out, "ok {operation}").unwrap();
                        out.flush().unwrap();
                    }
                    let _outcome = journal.append(&finished(operation));
                }
            });
        }
    });
}

/// 500 rounds with `INTERCEPTOR_LONG`.
#[test]
fn kill_9_loses_nothing_that_was_acknowledged_and_doubles_nothing() {
    /// How many kills a record lives through; all of it is looked at after each.
    const LIVES: u64 = 3;
    let rounds = if std::env::var_os("INTERCEPTOR_LONG").is_some() { 500 } else { 20 };
    let mut dir = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for round in 0..rounds {
        if round > 0 && round % LIVES == 0 {
            dir = tempfile::tempdir().unwrap();
        }
        let mut daemon = child("record::tests::crash::child_that_appends_until_it_is_killed", dir.path());
        let out = daemon.stdout.take().unwrap();
        let killer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(150 + 77 * (round % 6)));
            daemon.kill().unwrap();
            daemon.wait().unwrap();
        });
        let ids: Vec<String> = BufReader::new(out)
            .split(b'\n')
            .filter_map(|line| String::from_utf8(line.unwrap()).unwrap().strip_prefix("ok ").map(str::to_owned))
            .filter(|id| id.len() == 29)
            .collect();
        killer.join().unwrap();
        acknowledged += ids.len();

        let record = open(dir.path());
        let report = verify(record.database()).unwrap();
        assert_eq!((report.fault, report.damage), (None, vec![]), "round {round}");
        let reader = record.reader().unwrap();
        for id in ids {
            assert_eq!(reader.operation(&id).expect("an acknowledged operation").operation, id);
        }
        let db = store::open_read_only(record.database()).unwrap();
        let doubled: i64 =
            db.query_row("SELECT count(*) - count(DISTINCT body) FROM events", [], |row| row.get(0)).unwrap();
        assert_eq!(doubled, 0, "round {round}");
        assert_eq!(segments(dir.path()), 0, "round {round}");
    }
    assert!(acknowledged > 1_000, "the children did hardly anything: {acknowledged}");
}

/// A segment as a killed daemon leaves it: with these events, then zeros.
pub(super) fn left_behind(dir: &Path, index: u32, events: &[Event]) -> (PathBuf, Vec<u8>, Vec<usize>) {
    let id = SegmentId { journal: ulid::Ulid::from_bytes([9; 16]), index };
    let mut bytes = segment::header(id).to_vec();
    let mut offsets = Vec::new();
    for event in events {
        let mut frame = vec![0; FRAME_HEADER];
        serde_json::to_writer(&mut frame, event).unwrap();
        segment::seal(id, bytes.len() as u64, &mut frame);
        offsets.push(bytes.len());
        bytes.append(&mut frame);
    }
    offsets.push(bytes.len());
    bytes.resize(16 << 10, 0);
    std::fs::create_dir_all(dir.join("journal")).unwrap();
    (dir.join("journal").join(format!("worker-0-{id}.seg")), bytes, offsets)
}

pub(super) fn three() -> Vec<Event> {
    (0..3).map(|_| decided(OperationId::new(), None, LaunchId::new(), Verdict::Allow)).collect()
}

#[test]
fn a_torn_last_entry_ends_its_segment_in_silence() {
    let dir = tempfile::tempdir().unwrap();
    let (path, mut bytes, offsets) = left_behind(dir.path(), 0, &three());
    bytes[offsets[2] + 40..].fill(0);
    std::fs::write(path, bytes).unwrap();
    let record = open(dir.path());
    assert_eq!((record.health().seq, record.health().damaged), (2, 0));
    assert_eq!(segments(dir.path()), 0);
}

#[test]
fn a_segment_that_was_just_made_is_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (path, ..) = left_behind(dir.path(), 0, &[]);
    std::fs::write(&path, [0; 4096]).unwrap();
    std::fs::write(path.with_file_name("worker-1.seg"), b"").unwrap();
    let record = open(dir.path());
    assert_eq!((record.health().seq, record.health().damaged), (0, 0));
    assert_eq!(segments(dir.path()), 0);
}

#[test]
fn damage_in_the_middle_is_recorded_and_what_follows_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let events = three();
    let (path, mut bytes, offsets) = left_behind(dir.path(), 0, &events);
    bytes[offsets[1] + 50] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let (other, ..) = left_behind(dir.path(), 1, &[]);
    std::fs::write(other, [7; 4096]).unwrap();
    let record = open(dir.path());
    assert_eq!((record.health().seq, record.health().damaged), (4, 2));
    let report = verify(record.database()).unwrap();
    assert!(report.ok);
    let details: Vec<&str> = report.damage.iter().map(|damage| damage.detail.as_str()).collect();
    assert_eq!(details[0], "it doesn't begin as a journal segment does");
    assert_eq!(
        details[1],
        format!("the {} bytes from {} on aren't journal entries", offsets[2] - offsets[1], offsets[1])
    );
    for (index, event) in events.iter().enumerate() {
        let What::OperationDecided { operation, .. } = event.what else { unreachable!() };
        assert_eq!(record.reader().unwrap().operation(&operation.to_string()).is_ok(), index != 1);
    }
    drop(record);
    assert!(path.with_extension("damaged").exists(), "the damaged file is kept");
    assert_eq!(open(dir.path()).health().damaged, 0, "damage is reported once");
}

#[test]
fn a_segment_that_was_moved_in_part_or_came_back_is_not_moved_twice() {
    let dir = tempfile::tempdir().unwrap();
    let (path, bytes, offsets) = left_behind(dir.path(), 0, &three());
    let mut part = bytes.clone();
    part[offsets[2]..].fill(0);
    std::fs::write(&path, &part[..offsets[2]]).unwrap();
    assert_eq!(open(dir.path()).health().seq, 2);
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(open(dir.path()).health().seq, 3);
    std::fs::write(&path, &bytes).unwrap();
    let record = open(dir.path());
    assert_eq!((record.health().seq, record.health().damaged), (3, 0));
}

#[test]
fn a_journal_folder_that_is_gone_denies_and_works_again_when_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let record = open(dir.path());
    let journal = record.journal("worker-0").unwrap();
    let (folder, away) = (dir.path().join("journal"), dir.path().join("away"));
    std::fs::rename(&folder, &away).unwrap();
    let mut recorded = 0;
    let error = loop {
        match journal.append(&finished(OperationId::new())) {
            Ok(_) => recorded += 1,
            Err(error) => break error,
        }
        assert!(recorded < 1_000, "the first segment is full by then");
    };
    assert!(matches!(error, RecordError::File { .. }), "{error}");
    assert!(record.health().failed.is_some());
    std::fs::rename(&away, &folder).unwrap();
    let _recorded = journal.append(&finished(OperationId::new())).unwrap();
    assert_eq!((others(&record), record.health().failed), (recorded + 1, None));
    // However short it was: something was denied.
    told(&record, "can't");
}

/// A small file system of its own, gone when this is.
pub(super) struct Disk(PathBuf);

impl Disk {
    pub(super) fn mount(at: &Path) -> Option<Self> {
        let none = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("none"), at, Some("tmpfs"), none, Some("size=2m")).ok().map(|()| Self(at.into()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
}

#[test]
fn a_full_disk_denies_and_loses_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_disk) = Disk::mount(dir.path()) else {
        println!("left out: mounting a small file system takes root");
        return;
    };
    let record = open(dir.path());
    let journal = record.journal("worker-0").unwrap();
    let mut filler = File::create(dir.path().join("filler")).unwrap();
    while filler.write(&[1; 4096]).is_ok_and(|written| written > 0) {}
    let mut recorded = 0;
    let error = loop {
        match journal.append(&finished(OperationId::new())) {
            Ok(_) => recorded += 1,
            Err(error) => break error,
        }
        assert!(recorded < 10_000, "a full disk must deny");
    };
    assert!(matches!(error, RecordError::File { .. } | RecordError::Failed(_)), "{error}");
    drop(filler);
    std::fs::remove_file(dir.path().join("filler")).unwrap();
    let _recorded = journal.append(&finished(OperationId::new())).unwrap();
    record.flush(SOON).unwrap();
    assert_eq!(record.health().failed, None);
    assert_eq!((verify(record.database()).unwrap().fault, others(&record)), (None, recorded + 1));
}

#[test]
fn child_that_is_idle() {
    let Some(dir) = child_dir() else { return };
    let record = open(&dir);
    let journal = record.journal("worker-0").unwrap();
    let _recorded = journal.append(&finished(OperationId::new())).unwrap();
    record.flush(SOON).unwrap();
    // What it does behind a flush takes a moment, and it has a low priority.
    let deadline = Instant::now() + SOON;
    let mut before = writer_switches();
    loop {
        std::thread::sleep(Duration::from_millis(200));
        let now = writer_switches();
        if now == before {
            break;
        }
        assert!(Instant::now() < deadline, "the writer doesn't come to rest");
        before = now;
    }
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(writer_switches(), before, "the writer woke up");
    writeln!(std::io::stdout(), "ok idle").unwrap();
}

/// How often the writer's thread was scheduled out, of its own accord or not.
fn writer_switches() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let status = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("status")).unwrap();
    let writer = tasks.map(|task| status(task.unwrap())).find(|status| status.starts_with("Name:\trecord\n")).unwrap();
    writer.lines().filter(|line| line.contains("ctxt_switches")).map(str::to_owned).collect()
}

#[test]
fn an_idle_writer_sleeps() {
    let dir = tempfile::tempdir().unwrap();
    let output = child("record::tests::crash::child_that_is_idle", dir.path()).wait_with_output().unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("ok idle"));
}
