//! What becomes of operations while the record can't be kept: denied within two seconds, served again within five, the
//! outage told, and nothing forwarded that isn't recorded.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use interceptor::record::event::{Verdict, What};
use interceptor_tests::daemon::{Daemon, Order, READ_ONLY};
use interceptor_tests::graph::Graph;
use interceptor_tests::wire::Wire;
use interceptor_tests::{recorded, require_root};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

const DENIED: Duration = Duration::from_secs(2);
const RESUMED: Duration = Duration::from_secs(5);

/// How long an outage lasts that has to be long: the disk of a host that is out of order for half a minute.
const LONG: Duration = Duration::from_secs(30);

/// How long the others last.
fn short() -> Duration {
    if std::env::var_os("INTERCEPTOR_LONG").is_some() { LONG } else { Duration::from_secs(3) }
}

fn order(graph: &Graph, record: &str) -> Order {
    let more = format!("[record]\n{record}\n");
    Order { purpose: "outage", bring: vec!["wire"], more, ..Order::for_graph(graph, READ_ONLY) }
}

/// A request on the connection, or on a new one where that is gone; whether it was served.
fn served(wire: &mut Option<Wire>, daemon: &Daemon) -> Result<bool> {
    let mut at_hand = match wire.take() {
        Some(wire) => wire,
        None => match Wire::tls(daemon) {
            Ok(wire) => wire,
            Err(_refused) => return Ok(false),
        },
    };
    match at_hand.ask("GET", "/v1.0/users") {
        Ok(answer) if answer.status == 200 => {
            *wire = Some(at_hand);
            Ok(true)
        }
        Ok(answer) => {
            ensure!(answer.status == 503 && answer.code() == "record-unavailable", "{answer:?}");
            Ok(false)
        }
        // A connection that can't be recorded isn't served.
        Err(_ended) => Ok(false),
    }
}

/// Waits until requests are served, or aren't any more, and gives the time that it took.
fn until(is_served: bool, within: Duration, wire: &mut Option<Wire>, daemon: &Daemon) -> Result<Duration> {
    let start = Instant::now();
    while served(wire, daemon)? != is_served {
        let not = if is_served { "not " } else { "" };
        ensure!(start.elapsed() < within, "after {within:?} requests are {not}served:\n{}", daemon.log());
        sleep(Duration::from_millis(20));
    }
    // The last request may have hung for long, and then turned out as it should.
    let took = start.elapsed();
    ensure!(took <= within, "it took {took:?}, and {within:?} are allowed:\n{}", daemon.log());
    Ok(took)
}

/// The first request that reached the upstream and isn't recorded as allowed as often, if there is one.
fn unrecorded(graph: &Graph, daemon: &Daemon) -> Result<Option<String>> {
    let mut allowed: BTreeMap<String, u64> = BTreeMap::new();
    for operation in recorded::operations(&daemon.database(), 0)? {
        if operation.verdict == Verdict::Allow {
            *allowed.entry(operation.summary).or_default() += 1;
        }
    }
    let mut received = graph.received().into_iter().map(|request| format!("{} {}", request.method, request.path));
    Ok(received.find(|line| match allowed.get_mut(line) {
        Some(left) if *left > 0 => {
            *left -= 1;
            false
        }
        _ => true,
    }))
}

/// The outage: `begin` is to make requests fail, for so long, `end` to let them through again. Gives how long both took.
fn outage(
    graph: &Graph,
    daemon: &Daemon,
    lasts: Duration,
    begin: impl FnOnce() -> Result<()>,
    end: impl FnOnce() -> Result<()>,
) -> Result<String> {
    let mut wire = Some(Wire::tls(daemon)?);
    ensure!(served(&mut wire, daemon)?, "it isn't served before");
    let before = recorded::last(&daemon.database())?;
    begin()?;
    let denied = until(false, DENIED, &mut wire, daemon)?;
    let forwarded = graph.received().len();
    let over = Instant::now() + lasts;
    while Instant::now() < over {
        ensure!(!served(&mut wire, daemon)?, "it is served in the middle of it");
        sleep(Duration::from_millis(100));
    }
    ensure!(graph.received().len() == forwarded, "something was forwarded that wasn't recorded");
    let status = daemon.interceptor(&["status"]).output()?;
    ensure!(String::from_utf8_lossy(&status.stdout).contains("serving no"), "{status:?}");
    end()?;
    let resumed = until(true, RESUMED, &mut wire, daemon)?;

    // What was served a moment ago is on its way into the database.
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        // This outage, not one before; and that it is over.
        let events = recorded::events(&daemon.database(), before)?;
        let told = events.iter().filter(|(_, event)| matches!(event.what, What::RecordOutage { until: Some(_), .. }));
        let (told, unrecorded) = (told.count(), unrecorded(graph, daemon)?);
        if told > 0 && unrecorded.is_none() {
            break;
        }
        ensure!(Instant::now() < deadline, "{told} outages are told; {unrecorded:?} was forwarded unrecorded");
        sleep(Duration::from_millis(50));
    }
    ensure!(daemon.json(&["sessions", "verify"])?["ok"] == true, "the chain doesn't verify");
    Ok(format!("denied after {} ms, served again after {} ms", denied.as_millis(), resumed.as_millis()))
}

#[test]
fn a_locked_database() -> Result<()> {
    require_root!(Ok(()));
    let graph = Graph::start(&[])?;
    let daemon = Daemon::start(&order(&graph, "reserve = \"0B\""))?;
    let other = Connection::open(daemon.database())?;
    println!(
        "{}",
        outage(
            &graph,
            &daemon,
            LONG,
            || Ok(other.execute_batch("BEGIN IMMEDIATE")?),
            || Ok(other.execute_batch("COMMIT")?)
        )?
    );
    daemon.finish()
}

#[test]
fn a_database_that_is_replaced_by_another() -> Result<()> {
    require_root!(Ok(()));
    let graph = Graph::start(&[])?;
    let daemon = Daemon::start(&order(&graph, "reserve = \"0B\""))?;
    let (database, aside) = (daemon.database(), daemon.room().join("aside.db"));
    let replace = || {
        fs::rename(&database, &aside)?;
        Connection::open(&database)?.execute_batch("CREATE TABLE other (one)")?;
        Ok(())
    };
    println!("{}", outage(&graph, &daemon, short(), replace, || Ok(fs::rename(&aside, &database)?))?);

    // One that is only gone isn't made anew.
    let (gone, back) = (|| Ok(fs::rename(&database, &aside)?), || Ok(fs::rename(&aside, &database)?));
    println!("{}", outage(&graph, &daemon, short(), gone, back)?);
    daemon.finish()
}

/// Makes `to` what `from` is, as SQLite's `.backup` and `.restore` do. False where somebody writes there at the moment.
fn restored(from: &Path, to: &Path) -> Result<bool> {
    let (from, mut to) = (Connection::open(from)?, Connection::open(to)?);
    to.busy_timeout(Duration::from_millis(500))?;
    let step = Backup::new(&from, &mut to)?.step(-1)?;
    Ok(step == StepResult::Done)
}

#[test]
fn a_database_that_an_older_copy_is_restored_into() -> Result<()> {
    require_root!(Ok(()));
    let graph = Graph::start(&[])?;
    let daemon = Daemon::start(&order(&graph, "reserve = \"0B\""))?;
    let database = daemon.database();
    let (old, right) = (daemon.room().join("old.db"), daemon.room().join("right.db"));
    ensure!(restored(&database, &old)?, "it can't be copied");
    let pid = Pid::from_raw(daemon.pid()?.cast_signed());
    let replace = || {
        // What was served a moment ago is in the database by then, so the copy is older.
        recorded::last(&database)?;
        loop {
            // Nothing is recorded between the two.
            kill(pid, Signal::SIGSTOP)?;
            let replaced = restored(&database, &right).and_then(|_copied| restored(&old, &database));
            kill(pid, Signal::SIGCONT)?;
            if replaced? {
                return Ok(());
            }
            sleep(Duration::from_millis(20));
        }
    };
    let mend = || {
        ensure!(restored(&right, &database)?, "it can't be restored");
        Ok(())
    };
    println!("{}", outage(&graph, &daemon, short(), replace, mend)?);
    daemon.finish()
}

#[test]
fn a_disk_that_doesnt_take_what_is_written() -> Result<()> {
    require_root!(Ok(()));
    let graph = Graph::start(&[])?;
    let daemon = Daemon::start(&order(&graph, "reserve = \"0B\"\ndurability = \"power-loss\""))?;
    let pid = daemon.pid()?.to_string();
    let injector = RefCell::new(None);
    let begin = || {
        let fails = ["-f", "-q", "-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO"];
        let mut strace = Command::new("strace");
        strace.args(fails).args(["-o", "/dev/null", "-p", &pid]).stderr(Stdio::null());
        let child = strace.spawn().context("strace is missing; `cargo xtask setup --tests` installs it")?;
        injector.replace(Some(Injector(child)));
        // From then on it fails.
        let deadline = Instant::now() + Duration::from_secs(20);
        while !is_traced(&pid)? {
            ensure!(Instant::now() < deadline, "strace doesn't begin");
            sleep(Duration::from_millis(1));
        }
        Ok(())
    };
    let end = || {
        injector.take();
        Ok(())
    };
    println!("{}", outage(&graph, &daemon, short(), begin, end)?);
    daemon.finish()
}

/// Whether all threads of a process are traced.
fn is_traced(pid: &str) -> Result<bool> {
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // One may have ended meanwhile.
        let Ok(status) = fs::read_to_string(task?.path().join("status")) else { continue };
        if status.lines().any(|line| line.split_whitespace().eq(["TracerPid:", "0"])) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes a process's calls fail for as long as it is there.
struct Injector(Child);

impl Drop for Injector {
    fn drop(&mut self) {
        // It lets go of the process before it ends.
        let _ = kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGINT);
        let _ = self.0.wait();
    }
}

/// A small file system, gone when this is.
struct Disk(PathBuf);

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_full_disk() -> Result<()> {
    require_root!(Ok(()));
    let graph = Graph::start(&[])?;
    let record = "reserve = \"2MiB\"\nsegment = \"1MiB\"\nbacklog = \"2MiB\"";
    let mut daemon = Daemon::start(&order(&graph, record))?;
    daemon.stop()?;
    let state = daemon.room().join("state");
    mount(Some("none"), &state, Some("tmpfs"), MsFlags::empty(), Some("size=24m,mode=700"))?;
    let disk = Disk(state.clone());
    daemon.restart()?;
    let filler = state.join("filler");
    let fill = || {
        let mut file = File::create(&filler)?;
        while file.write(&[1; 4096]).is_ok_and(|written| written > 0) {}
        Ok(())
    };
    println!("{}", outage(&graph, &daemon, short(), fill, || Ok(fs::remove_file(&filler)?))?);
    daemon.stop()?;
    drop(disk);
    daemon.finish()
}
