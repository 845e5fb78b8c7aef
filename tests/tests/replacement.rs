//! The daemon under a service manager: it is told when the daemon serves, and keeps the sockets in the workloads' namespaces, so
//! that what connects while no daemon runs waits for the next one.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use interceptor_tests::daemon::{Daemon, Order, READ_ONLY};
use interceptor_tests::graph::Graph;
use interceptor_tests::require_root;
use interceptor_tests::unit::{ADOPTED, Unit};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

/// What a service manager hears and keeps.
struct Manager {
    socket: UnixDatagram,
    is_ready: bool,
    kept: BTreeMap<String, OwnedFd>,
}

impl Manager {
    /// One at this path; daemons that this process starts find it.
    fn new(path: &std::path::Path) -> Result<Self> {
        let socket = UnixDatagram::bind(path)?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        // SAFETY: a test has its process for itself, and nothing else of it reads the environment now.
        unsafe { std::env::set_var("NOTIFY_SOCKET", path) };
        Ok(Self { socket, is_ready: false, kept: BTreeMap::new() })
    }

    /// Hears what is told, until nothing is for a moment.
    fn hear(&mut self) -> Result<()> {
        loop {
            let mut bytes = [0; 4096];
            let (count, descriptors) = {
                let mut space = nix::cmsg_space!([i32; 8]);
                let mut parts = [IoSliceMut::new(&mut bytes)];
                // Descriptors stay open for what this process starts.
                let heard = recvmsg::<()>(self.socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty());
                let heard = match heard {
                    Ok(heard) => heard,
                    Err(nix::errno::Errno::EAGAIN) => return Ok(()),
                    Err(error) => return Err(error.into()),
                };
                let mut descriptors = Vec::new();
                for message in heard.cmsgs()? {
                    if let ControlMessageOwned::ScmRights(fds) = message {
                        // SAFETY: the kernel made these for this process alone.
                        descriptors.extend(fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
                    }
                }
                (heard.bytes, descriptors)
            };
            let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
            self.is_ready |= text.lines().any(|line| line == "READY=1");
            let name = text.lines().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or_default().to_owned();
            if text.contains("FDSTORE=1") {
                self.kept.extend(descriptors.into_iter().map(|fd| (name.clone(), fd)));
            } else if text.contains("FDSTOREREMOVE=1") {
                self.kept.remove(&name);
            }
        }
    }

    /// Puts a script in the place of the daemon's binary, that passes on what is kept as a manager does.
    fn pass_on(&self, daemon: &Daemon) -> Result<()> {
        let binary = daemon.binary("interceptor");
        let real = daemon.binary("interceptor.real");
        std::fs::rename(&binary, &real)?;
        let names = self.kept.keys().cloned().collect::<Vec<_>>().join(":");
        let mut script = String::from("#!/bin/bash\nif [ \"$1\" = daemon ]; then\n");
        writeln!(script, "export LISTEN_PID=$$ LISTEN_FDS={} LISTEN_FDNAMES={names}", self.kept.len())?;
        // Out of the way first: the numbers overlap.
        for (at, fd) in self.kept.values().enumerate() {
            writeln!(script, "exec {}<&{}", 200 + at, fd.as_raw_fd())?;
        }
        for at in 0..self.kept.len() {
            writeln!(script, "exec {}<&{}", 3 + at, 200 + at)?;
        }
        writeln!(script, "fi\nexec {} \"$@\"", real.display())?;
        std::fs::write(&binary, script)?;
        Ok(std::fs::set_permissions(&binary, std::fs::Permissions::from_mode(0o755))?)
    }
}

/// Whether a process runs on for this long.
fn waits(child: &mut Child, time: Duration) -> Result<bool> {
    let start = Instant::now();
    while start.elapsed() < time {
        if child.try_wait()?.is_some() {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(true)
}

#[test]
fn connections_wait_while_a_daemon_is_replaced() -> Result<()> {
    require_root!(Ok(()));
    let folder = tempfile::tempdir()?;
    let mut manager = Manager::new(&folder.path().join("notify"))?;
    let graph = Graph::start(&[])?;
    let more = format!("[limits]\ndetect_timeout = \"300ms\"\n{ADOPTED}");
    let order = Order { bring: vec!["probe"], purpose: "manager", more, ..Order::for_graph(&graph, READ_ONLY) };
    let mut daemon = Daemon::start(&order)?;
    let unit = Unit::new(&daemon)?;
    let probe = daemon.binary("probe");
    let probe = probe.to_str().context("a path in UTF-8")?;
    // Connects when it is told to.
    let script = r#"read -r go; exec "$0" tcp plain 198.51.100.7:443"#;
    let mut launched =
        daemon.run(&["/bin/sh", "-c", script, probe]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let deadline = Instant::now() + Duration::from_secs(30);
    while manager.kept.len() < 8 {
        ensure!(Instant::now() < deadline, "{:?} are kept", manager.kept.keys());
        manager.hear()?;
    }
    ensure!(manager.is_ready, "it wasn't told that the daemon serves");
    daemon.kill9()?;
    let mut adopted = unit
        .command(daemon.binary("probe"))
        .args(["tcp", "plain", "198.51.100.7:443"])
        .stdout(Stdio::piped())
        .spawn()?;
    std::io::Write::write_all(&mut launched.stdin.take().context("its input")?, b"go\n")?;
    ensure!(waits(&mut adopted, Duration::from_millis(300))?, "the adopted one was refused");
    ensure!(waits(&mut launched, Duration::from_millis(300))?, "the launched one was refused");
    manager.pass_on(&daemon)?;
    daemon.restart()?;
    for (name, child) in [("adopted", adopted), ("launched", launched)] {
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        ensure!(said == "ECONNRESET", "the {name} one saw {said}:\n{}", daemon.log());
    }
    let sessions = daemon.json(&["sessions", "list"])?;
    let originals = sessions.as_array().context("a list")?.iter().filter(|one| one["original"] == "198.51.100.7:443");
    ensure!(originals.count() == 2, "{sessions}");
    // What has ended needs nothing kept.
    let deadline = Instant::now() + Duration::from_secs(30);
    while manager.kept.len() > 4 {
        ensure!(Instant::now() < deadline, "{:?} are kept still", manager.kept.keys());
        manager.hear()?;
    }
    // Each was answered once, and taken once: also the one that was answered before there was a daemon to take it.
    let database = daemon.database().display().to_string();
    let deadline = Instant::now() + Duration::from_secs(30);
    for (workload, arguments) in [("svc", &["ledger"][..]), ("crm", &["ledger", "--db", &database][..])] {
        let tcp = loop {
            let found = daemon.json(arguments)?;
            let one = found.as_array().context("a list")?.iter().find(|one| one["workload"] == workload).cloned();
            match one {
                Some(one) => break one["kinds"]["tcp"].clone(),
                None => ensure!(Instant::now() < deadline, "no counts of {workload}: {found}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let is_so = ["attempted", "mediated"].iter().all(|count| tcp[count] == 1) && tcp["unexplained"] == 0;
        ensure!(is_so && tcp["dropped"] == 0, "{workload}: {tcp}");
    }
    unit.remove()?;
    daemon.finish()
}
