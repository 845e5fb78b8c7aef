//! A unit of a real systemd, with the units of `packaging/` and the drop-in that `interceptor adopt` writes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use interceptor::adopt::DropIn;
use interceptor::record::event::What;
use interceptor_tests::daemon::Daemon;
use interceptor_tests::systemd::{Systemd, is_there};
use interceptor_tests::{recorded, require_root};

use super::daemon::{listed, start_with, until};

/// The unit is where our slice is, below the systemd of the test.
const UNIT: &str = "[[workload]]\nname = \"svc\"\nmatch = { cgroup = \"/{name}/sd/interceptor.slice/crm.service\" }\n";

/// How long systemd waits here for a sign of life of the daemon's.
const WATCHDOG: Duration = Duration::from_secs(5);

/// Connects before anything else, then asks Graph, then connects without end.
const SERVER: &str = r#"#!/bin/sh
cd "$(dirname "$0")"
./probe tcp plain "$1"
(printf 'GET /v1.0/users HTTP/1.1\r\nHost: graph.microsoft.com\r\nConnection: close\r\n\r\n'; sleep 4) | ./wire graph.microsoft.com 443 tls 2>/dev/null | head -1
while :; do ./probe tcp plain "$1"; done
"#;

/// The units of `packaging/` for this daemon, and a unit that is adopted.
fn units(daemon: &Daemon, server: &Path, to: &str, said: &Path) -> Result<Vec<(&'static str, String)>> {
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/systemd");
    let packaged = |name: &str| fs::read_to_string(packaging.join(name)).with_context(|| name.to_owned());
    let start =
        format!("ExecStart={} daemon --config {}", daemon.binary("interceptor").display(), daemon.config().display());
    let service = packaged("interceptor.service")?.replace("ExecStart=/usr/local/bin/interceptor daemon", &start);
    ensure!(service.contains(&start), "the service starts something else");
    let patience = format!("WatchdogSec={}s", WATCHDOG.as_secs());
    let hasty = service.replace("WatchdogSec=10s", &patience);
    ensure!(hasty.contains(&patience) && hasty != service, "the service has no watchdog");
    // The manager of a user is asked by `--user`.
    let anchor = packaged("interceptor-anchor.service")?.replace("ExecStart=systemctl", "ExecStart=systemctl --user");
    let run = daemon.room().join("run");
    let drop_in = DropIn::new("/".as_ref(), "crm.service", &run.join("trust.pem"), &run.join("authority.pem"))?;
    let crm = format!(
        "[Service]\nUser=crm\nExecStart={} {to}\nStandardOutput=append:{}\nStandardError=inherit\n",
        server.display(),
        said.display()
    );
    Ok(vec![
        ("interceptor.service", hasty),
        ("interceptor-anchor.service", anchor),
        ("interceptor.slice", packaged("interceptor.slice")?),
        ("crm.service", crm),
        ("crm.service.d/zzz-interceptor.conf", drop_in.text),
    ])
}

/// What the unit has said, once that is so many lines.
fn lines(said: &Path, count: usize, daemon: &Daemon) -> Result<Vec<String>> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let text = fs::read_to_string(said).unwrap_or_default();
        let lines: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
        if lines.len() >= count {
            return Ok(lines);
        }
        ensure!(Instant::now() < deadline, "it said only {lines:?}\n{}", daemon.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_unit_of_systemds_is_governed_from_its_first_connect_and_waits_for_a_daemon_that_restarts() -> Result<()> {
    require_root!(Ok(()));
    if !is_there()? {
        println!("skipped: needs systemd");
        return Ok(());
    }
    let (graph, mut daemon) = start_with("systemd", UNIT)?;
    // From here on it is systemd that starts it.
    daemon.stop()?;
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let to = listener.local_addr()?.to_string();
    let (server, said) = (daemon.room().join("bin/server"), daemon.room().join("said"));
    fs::write(&server, SERVER)?;
    fs::set_permissions(&server, fs::Permissions::from_mode(0o755))?;
    let systemd = Systemd::start(
        daemon.cgroup(),
        daemon.room(),
        63_500 + std::process::id() % 1_000,
        &units(&daemon, &server, &to, &said)?,
    )?;
    // The unit alone is asked for: the daemon comes with it, and before it.
    systemd.ctl(&["start", "crm.service"])?;
    let started = Instant::now();
    let first = lines(&said, 4, &daemon)?;
    ensure!(first[0] == "ECONNRESET" && first[1].starts_with("HTTP/1.1 200"), "{first:?}");
    systemd.ctl(&["is-active", "interceptor.service", "interceptor-anchor.service"])?;
    let found = listed(&daemon)?;
    ensure!(found["containment"] == "contained" && found["adopted"][0].is_object(), "{found}");
    ensure!(graph.connections() == 1, "{}", graph.connections());
    for _ in 0..3 {
        systemd.ctl(&["stop", "crm.service"])?;
        fs::write(&said, "")?;
        systemd.ctl(&["start", "crm.service"])?;
        let again = lines(&said, 2, &daemon)?;
        ensure!(again[0] == "ECONNRESET" && again[1].starts_with("HTTP/1.1 200"), "{again:?}");
    }
    // It gives signs of life in time: one that doesn't is killed, and started again.
    std::thread::sleep((WATCHDOG * 2).saturating_sub(started.elapsed()));
    let restarted = systemd.ctl(&["show", "--property=NRestarts", "interceptor.service"])?;
    ensure!(restarted.trim() == "NRestarts=0", "{restarted}\n{}", daemon.log());
    // systemd keeps the daemon's listeners meanwhile: not one connect is refused, and the unit isn't touched.
    let before = systemd.ctl(&["show", "--property=MainPID", "crm.service"])?;
    fs::write(&said, "")?;
    for _ in 0..3 {
        systemd.ctl(&["restart", "interceptor.service"])?;
        let so_far = lines(&said, 1, &daemon)?.len();
        lines(&said, so_far + 3, &daemon)?;
    }
    let all = lines(&said, 1, &daemon)?;
    ensure!(systemd.ctl(&["show", "--property=MainPID", "crm.service"])? == before, "it was restarted");
    println!("{} connects over three restarts", all.len());
    ensure!(all.iter().all(|line| line == "ECONNRESET"), "{all:?}");
    let ledger = daemon.json(&["ledger"])?;
    ensure!(ledger[0]["kinds"]["tcp"]["unexplained"] == 0, "{ledger}");
    ensure!(listener.accept().is_err(), "it got past us");
    systemd.ctl(&["stop", "crm.service", "interceptor.service"])?;
    drop(systemd);
    daemon.finish()
}

/// `interceptor ARG… --unit crm.service --restart` where this is the host's systemd: whether it succeeded, and what it said.
fn change(daemon: &Daemon, systemd: &Systemd, verb: &str) -> Result<(bool, String)> {
    let mut command = systemd.beside(&daemon.binary("interceptor"));
    command.args([verb, "--unit", "crm.service", "--restart", "--config"]).arg(daemon.config());
    let output = command.env("INTERCEPTOR_SOCKET", daemon.socket()).output()?;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Ok((output.status.success(), said))
}

#[test]
fn a_unit_is_adopted_and_released_by_what_the_command_does_to_systemd() -> Result<()> {
    require_root!(Ok(()));
    if !is_there()? {
        println!("skipped: needs systemd");
        return Ok(());
    }
    let (_graph, mut daemon) = start_with("systemd-adopt", UNIT)?;
    daemon.stop()?;
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let to = listener.local_addr()?.to_string();
    let came = Arc::new(AtomicU64::new(0));
    std::thread::spawn({
        let came = Arc::clone(&came);
        move || {
            for _ in listener.incoming() {
                came.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    let (server, said) = (daemon.room().join("bin/server"), daemon.room().join("said"));
    fs::write(&server, "#!/bin/sh\ncd \"$(dirname \"$0\")\"\n./probe tcp plain \"$1\"\nexec sleep 1000\n")?;
    fs::set_permissions(&server, fs::Permissions::from_mode(0o755))?;
    let mut units = units(&daemon, &server, &to, &said)?;
    units.retain(|(name, _)| !name.ends_with(".conf"));
    let systemd = Systemd::start(daemon.cgroup(), daemon.room(), 64_500 + std::process::id() % 1_000, &units)?;
    let shown = |property: &str| systemd.ctl(&["show", "--value", "--property", property, "crm.service"]);

    systemd.ctl(&["start", "interceptor.service", "crm.service"])?;
    lines(&said, 1, &daemon)?;
    ensure!(came.load(Ordering::SeqCst) == 1 && shown("Slice")?.trim() != "interceptor.slice", "it is free at first");

    fs::write(&said, "")?;
    let (done, told) = change(&daemon, &systemd, "adopt")?;
    ensure!(done && told.contains("systemctl restart crm.service: done"), "{told}");
    let first = lines(&said, 1, &daemon)?;
    ensure!(first[0] == "ECONNRESET" && came.load(Ordering::SeqCst) == 1, "{first:?}");
    ensure!(shown("Slice")?.trim() == "interceptor.slice" && shown("NoNewPrivileges")?.trim() == "yes");
    // The kernel governs a cgroup from when it is made; the list follows by the daemon's next look.
    until(&daemon, |found| found["containment"] == "contained" && found["adopted"][0].is_object())?;

    // What an administrator wrote comes behind ours, by its name.
    let other = daemon.room().join("sd/units/crm.service.d/zzzz.conf");
    fs::write(&other, "[Service]\nSlice=elsewhere.slice\n")?;
    let (done, told) = change(&daemon, &systemd, "adopt")?;
    ensure!(!done && told.contains("elsewhere.slice") && told.contains("systemctl cat"), "{told}");
    fs::remove_file(other)?;

    fs::write(&said, "")?;
    let (done, told) = change(&daemon, &systemd, "release")?;
    ensure!(done && told.contains("removed /etc/systemd/system/crm.service.d/"), "{told}");
    lines(&said, 1, &daemon)?;
    ensure!(shown("Slice")?.trim() != "interceptor.slice" && shown("NoNewPrivileges")?.trim() == "no");
    ensure!(!daemon.room().join("sd/units/crm.service.d").exists(), "the drop-in's folder is left");

    // A unit that isn't there, and what it says of that.
    systemd.ctl(&["stop", "crm.service"])?;
    fs::remove_file(daemon.room().join("sd/units/crm.service"))?;
    let (done, told) = change(&daemon, &systemd, "adopt")?;
    ensure!(!done && told.contains("`systemctl restart crm.service` failed"), "{told}");
    let (done, told) = change(&daemon, &systemd, "release")?;
    ensure!(!done && told.contains("removed /etc/systemd/system"), "{told}");

    let asked = recorded::events(&daemon.database(), 0)?.into_iter().filter_map(|(_, event)| match event.what {
        What::ControlRequest { request, refused: None, .. } if request.contains("crm.service") => Some(request),
        _ => None,
    });
    let asked: Vec<String> = asked.collect();
    let verbs = asked.iter().map(|request| request.split(' ').next().unwrap_or_default());
    ensure!(verbs.eq(["adopt", "adopt", "release", "adopt", "release"]), "{asked:?}");
    systemd.ctl(&["stop", "interceptor.service"])?;
    drop(systemd);
    daemon.finish()
}
