//! The daemon killed by -9 and started again, again and again, while an adopted and a launched workload connect without end.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, TcpListener};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use interceptor::record::event::What;
use interceptor_tests::unit::Unit;
use interceptor_tests::{recorded, require_root};

use super::daemon::start;
use super::ledger::counts;

/// How many connections each of the two makes at least.
const COUNT: u64 = 4_000;

/// Connections from 32 threads that go on until its input is closed.
struct Storm {
    child: Child,
    goes_on: ChildStdin,
}

impl Storm {
    fn start(command: &mut Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let goes_on = child.stdin.take().context("its input")?;
        Ok(Self { child, goes_on })
    }

    /// Ends it; how many the daemon reset, and how many were refused. There are no others.
    fn end(self) -> Result<(u64, u64)> {
        drop(self.goes_on);
        let output = self.child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
        let numbers = said.split(':').next().unwrap_or_default().split(' ');
        let numbers: Vec<u64> = numbers.filter_map(|number| number.parse().ok()).collect();
        let [right, wrong, refused] = numbers[..] else { bail!("it said `{said}` and ended with {}", output.status) };
        ensure!(wrong == 0, "{said}");
        Ok((right, refused))
    }
}

#[test]
fn what_a_daemon_gets_that_is_killed_and_started_again_is_right_or_refused() -> Result<()> {
    require_root!(Ok(()));
    let rounds = if std::env::var_os("INTERCEPTOR_LONG").is_some() { 100 } else { 20 };
    let (graph, mut daemon) = start("restarts", "")?;
    let unit = Unit::new(&daemon)?;
    // Who is adopted would get here without us. A launched one has no way to here, and another network to tell it by.
    let outside = TcpListener::bind("0.0.0.0:0")?;
    outside.set_nonblocking(true)?;
    let port = outside.local_addr()?.port();
    let probe = daemon.binary("probe");
    let probe = probe.to_str().context("a path in UTF-8")?;
    let (count, door) = (COUNT.to_string(), port.to_string());
    let storm = |network| ["storm", "reset", "32", count.as_str(), network, door.as_str(), "100"];
    let adopted = Storm::start(unit.command(probe).args(storm("127")))?;
    let launched = Storm::start(&mut daemon.run(&[&[probe][..], &storm("198")].concat()))?;
    for round in 0..rounds {
        sleep(Duration::from_millis(300 + (round * 37) % 150));
        daemon.kill9()?;
        sleep(Duration::from_millis((round * 13) % 50));
        daemon.restart()?;
    }
    let ended = BTreeMap::from([("svc", adopted.end()?), ("crm", launched.end()?)]);
    ensure!(outside.accept().is_err() && graph.connections() == 0, "one got past us");

    // Each is recorded once, as whose it is and with where it was to go.
    let mut sessions: BTreeMap<String, BTreeSet<IpAddr>> = BTreeMap::new();
    for (_, event) in recorded::events(&daemon.database(), 0)? {
        if let What::SessionOpened { workload, original, .. } = event.what {
            let network = if workload.to_string() == "svc" { 127 } else { 198 };
            let is_its = matches!(original.ip(), IpAddr::V4(ip) if ip.octets()[0] == network);
            ensure!(is_its && original.port() == port, "{workload} to {original}");
            let is_new = sessions.entry(workload.to_string()).or_default().insert(original.ip());
            ensure!(is_new, "{workload} to {original} twice");
        }
    }
    for (workload, (right, refused)) in ended {
        let recorded = sessions.get(workload).map_or(0, |sessions| sessions.len() as u64);
        ensure!(right + refused >= COUNT && right >= rounds * 32, "{workload}: {right} and {refused} refused");
        // A kill resets what waits for the daemon as well.
        ensure!(recorded >= right / 2 && recorded <= right + refused, "{workload}: {recorded} sessions of {right}");
    }
    let tcp = counts(&daemon, "svc", "tcp")?;
    ensure!(tcp["unexplained"] == 0, "{tcp}");
    unit.remove()?;
    daemon.finish()
}
