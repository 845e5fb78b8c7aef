//! The daemon killed by -9 under load, again and again: new connects are refused, nothing goes anywhere, it serves again
//! within 2 s, the launched server lives on, the chain verifies, and nothing reached the upstream that isn't in the
//! record.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use interceptor::record::event::{Event, Verdict, What};
use interceptor_tests::daemon::{Daemon, Order, READ_ONLY};
use interceptor_tests::graph::Graph;
use interceptor_tests::{recorded, require_root};

/// ECONNREFUSED.
const REFUSED: &str = "111";

/// A running `load` inside a workload.
struct Load {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Load {
    fn start(daemon: &Daemon, tasks: u32) -> Result<Self> {
        let program = daemon.binary("load");
        let program = program.to_str().context("a path in UTF-8")?;
        let mut child = daemon
            .run(&[program, "graph.microsoft.com", &tasks.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take().context("its input")?;
        let output = BufReader::new(child.stdout.take().context("its output")?);
        Ok(Self { child, input, output })
    }

    fn ask(&mut self, line: &str) -> Result<String> {
        writeln!(self.input, "{line}")?;
        let mut said = String::new();
        ensure!(self.output.read_line(&mut said)? > 0, "the load ended");
        Ok(said.trim().to_owned())
    }

    fn count(&mut self) -> Result<u64> {
        Ok(self.ask("count")?.parse()?)
    }

    /// Waits until `more` further requests were answered.
    fn wait_for(&mut self, more: u64) -> Result<()> {
        let goal = self.count()? + more;
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.count()? < goal {
            ensure!(Instant::now() < deadline, "the load got no further");
            sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        drop(self.input);
        ensure!(self.child.wait()?.success(), "the load failed");
        Ok(())
    }
}

/// The sessions, and the operations of sessions, that began and have no end.
fn open_ends(events: &[(u64, Event)]) -> Vec<String> {
    let mut open = BTreeSet::new();
    for (_, event) in events {
        let _known = match &event.what {
            What::SessionOpened { session, .. } => open.insert(session.to_string()),
            What::OperationDecided { operation, session: Some(_), .. } => open.insert(operation.to_string()),
            What::SessionClosed { session, .. } => open.remove(&session.to_string()),
            What::OperationFinished { operation, .. } => open.remove(&operation.to_string()),
            _ => false,
        };
    }
    open.into_iter().collect()
}

#[test]
fn kill_9_under_load_lets_nothing_out_and_loses_nothing() -> Result<()> {
    require_root!(Ok(()));
    let rounds = if std::env::var_os("INTERCEPTOR_LONG").is_some() { 500 } else { 20 };
    let graph = Graph::start(&[])?;
    let order = Order { bring: vec!["load"], purpose: "kill9", ..Order::for_graph(&graph, READ_ONLY) };
    let mut daemon = Daemon::start(&order)?;
    let mut load = Load::start(&daemon, 8)?;
    load.wait_for(20)?;

    let (mut slowest, mut cut) = (Duration::ZERO, 0);
    for round in 0..rounds {
        // At another moment of the traffic each time.
        sleep(Duration::from_millis(20 + (round * 37) % 150));
        daemon.kill9()?;
        let before = (graph.connections(), graph.received().len());
        for target in ["host", "198.51.100.7:443", "[2001:db8::7]:443", "192.0.2.2:443", "127.0.0.1:53"] {
            let said = load.ask(&format!("connect {target}"))?;
            ensure!(said.split(' ').all(|errno| errno == REFUSED), "round {round}: {target} said {said}");
        }
        ensure!(graph.connections() == before.0, "round {round}: the upstream was reached while the daemon was dead");
        let took = daemon.restart()?;
        slowest = slowest.max(took);
        ensure!(took < Duration::from_secs(2), "round {round}: it served after {took:?}");
        load.wait_for(10)?;
    }
    load.finish()?;
    // What was under way at a kill has an end in the record all the same.
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let open = open_ends(&recorded::events(&daemon.database(), 0)?);
        if open.is_empty() {
            break;
        }
        ensure!(Instant::now() < deadline, "these have no end: {open:?}");
        sleep(Duration::from_millis(50));
    }
    for (_, event) in recorded::events(&daemon.database(), 0)? {
        cut += usize::from(matches!(event.what, What::SessionClosed { reason, .. } if reason == "daemon-killed"));
    }
    ensure!(cut as u64 >= rounds, "only {cut} sessions are recorded as ended by {rounds} kills");
    println!("{rounds} rounds; served again after {} ms at most; {cut} sessions were cut", slowest.as_millis());

    let verified = daemon.json(&["sessions", "verify"])?;
    ensure!(verified["ok"] == true, "the chain doesn't verify: {verified}");
    let mut allowed: BTreeMap<String, u64> = BTreeMap::new();
    for operation in recorded::operations(&daemon.database(), 0)? {
        if operation.verdict == Verdict::Allow {
            *allowed.entry(operation.summary).or_default() += 1;
        }
    }
    let received = graph.received();
    ensure!(received.len() as u64 > rounds * 10, "the upstream saw {} requests only", received.len());
    for request in received {
        let line = format!("{} {}", request.method, request.path);
        let left = allowed.get_mut(&line).with_context(|| format!("`{line}` reached the upstream unrecorded"))?;
        *left =
            left.checked_sub(1).with_context(|| format!("`{line}` reached the upstream more often than recorded"))?;
    }
    daemon.finish()
}
