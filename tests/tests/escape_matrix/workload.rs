//! The host with its daemon, and the processes that try: launched, adopted, and free.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use interceptor_tests::daemon::{Daemon, Order, READ_ONLY, UID};
use interceptor_tests::graph::Graph;
use interceptor_tests::unit::{ADOPTED, Unit};

use super::outside::{DEVICE, INBOUND, Outside, PORT};

/// Who tries: an unprivileged process; root of a user namespace of its own; the same with a network namespace.
pub(crate) const MODES: [&str; 3] = ["user", "root", "root+net"];

/// Whether, and how, it is governed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Not at all: the control.
    Free,
    Launched,
    Adopted,
}

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// What the process saw.
    pub(crate) said: String,
    /// What arrived outside.
    pub(crate) arrived: Vec<String>,
}

/// The host.
pub(crate) struct Host {
    daemon: Daemon,
    graph: Graph,
    unit: Unit,
    other: Child,
}

impl Host {
    /// A daemon with one target, a unit that it adopts and what it launches, each with these keys besides, and a process of
    /// the unprivileged user outside.
    pub(crate) fn start(outside: &mut Outside, adopted: &str, launched: &str) -> Result<Self> {
        let graph = Graph::start(&[])?;
        let more = format!("[limits]\ndetect_timeout = \"100ms\"\n{ADOPTED}{adopted}");
        let workload = launched.to_owned();
        let order =
            Order { bring: vec!["probe"], purpose: "matrix", more, workload, ..Order::for_graph(&graph, READ_ONLY) };
        let daemon = Daemon::start(&order)?;
        let unit = Unit::new(&daemon)?;
        let other = Command::new("sleep").arg("600").uid(UID).gid(UID).current_dir("/").spawn()?;
        let open = daemon.room().join("open");
        fs::create_dir(&open)?;
        fs::set_permissions(&open, fs::Permissions::from_mode(0o755))?;
        // Where a launched workload sees it, and where an adopted one does.
        for folder in [daemon.home(), open] {
            outside.open_paths(&folder)?;
        }
        chown(daemon.home().join("sinks"), Some(UID), Some(UID))?;
        Ok(Self { daemon, graph, unit, other })
    }

    /// The names of all ways.
    pub(crate) fn names(&self) -> Result<Vec<String>> {
        let output = Command::new(self.daemon.binary("probe")).args(["matrix", "names"]).output()?;
        ensure!(output.status.success(), "{output:?}");
        Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
    }

    /// Tries all ways, one after the other, each with what arrived because of it.
    pub(crate) fn tries(
        &self,
        kind: Kind,
        mode: &str,
        names: &[String],
        outside: &mut Outside,
    ) -> Result<Vec<Outcome>> {
        let command = self.command(kind, mode, outside)?;
        self.ask(command, &format!("{kind:?}-{mode}"), names, outside)
    }

    /// The same by an unprivileged process of the unit's that has one thing more than it should; see the program `probe`.
    pub(crate) fn tries_but(&self, without: &str, names: &[String], outside: &mut Outside) -> Result<Vec<Outcome>> {
        let mut command = self.unit.command_but(without, self.daemon.binary("probe"));
        command.args(["matrix", "user"]).args(self.world(Kind::Adopted, outside)?);
        self.ask(command, without, names, outside)
    }

    /// A process of the unit's that does nothing, and has one thing more than it should.
    pub(crate) fn stays_but(&self, without: &str) -> Result<Child> {
        Ok(self.unit.command_but(without, "sleep").arg("600").spawn()?)
    }

    /// A launched process that does nothing. It ends with this one.
    pub(crate) fn stays_launched(&self) -> Result<Child> {
        Ok(self.daemon.run(&["sleep", "600"]).stdin(Stdio::null()).spawn()?)
    }

    /// What `interceptor doctor` says.
    pub(crate) fn doctor(&self) -> Result<String> {
        // It fails where something essential is missing, and prints all the same.
        let mut doctor = self.daemon.interceptor(&["doctor"]);
        let output = doctor.arg("--config").arg(self.daemon.config()).stdin(Stdio::null()).output()?;
        Ok(String::from_utf8(output.stdout)?)
    }

    fn ask(&self, mut command: Command, who: &str, names: &[String], outside: &mut Outside) -> Result<Vec<Outcome>> {
        let errors = File::create(self.daemon.room().join(format!("errors-{who}")))?;
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors).spawn()?;
        let mut asking = child.stdin.take().context("stdin")?;
        let mut answers = BufReader::new(child.stdout.take().context("stdout")?);
        let mut outcomes = Vec::new();
        outside.arrived();
        for name in names {
            writeln!(asking, "{name}")?;
            let mut said = String::new();
            answers.read_line(&mut said)?;
            ensure!(!said.is_empty(), "{who} ended at `{name}`:\n{}", self.daemon.log());
            if name.starts_with("joining") {
                // That it left the group is told a moment after its end.
                std::thread::sleep(Duration::from_millis(50));
            }
            outcomes.push(Outcome { said: said.trim_end().to_owned(), arrived: outside.arrived() });
        }
        drop(asking);
        let status = child.wait()?;
        ensure!(status.success(), "{who} ended with {status}");
        Ok(outcomes)
    }

    /// How many connections the proxy refused.
    pub(crate) fn refused(&self) -> Result<usize> {
        let sessions = self.daemon.json(&["sessions", "list", "--limit", "10000"])?;
        let sessions = sessions.as_array().context("a list")?;
        Ok(sessions.iter().filter(|one| one["reason"] == "not-a-target").count())
    }

    /// Ends all of it.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.other.kill()?;
        self.other.wait()?;
        self.unit.remove()?;
        ensure!(self.graph.connections() == 0, "the upstream was reached");
        self.daemon.finish()
    }

    fn command(&self, kind: Kind, mode: &str, outside: &Outside) -> Result<Command> {
        let probe = self.daemon.binary("probe");
        let probe = probe.to_str().context("a path in UTF-8")?;
        let world = self.world(kind, outside)?;
        let words: Vec<&str> = ["matrix", mode].into_iter().chain(world.iter().map(String::as_str)).collect();
        Ok(match kind {
            Kind::Launched => self.daemon.run(&[&[probe], words.as_slice()].concat()),
            Kind::Adopted => {
                let mut command = self.unit.command(probe);
                command.args(words);
                command
            }
            Kind::Free => {
                let mut command = Command::new(probe);
                command.args(words).env_clear().env("PATH", "/usr/bin:/bin").current_dir("/").uid(UID + 1).gid(UID + 1);
                command
            }
        })
    }

    /// What the probe is told of the outside.
    fn world(&self, kind: Kind, outside: &Outside) -> Result<Vec<String>> {
        let folder = if kind == Kind::Launched { self.daemon.home() } else { self.daemon.room().join("open") };
        let patience = if kind == Kind::Free { 60 } else { 1_500 };
        Ok(vec![
            "v4=198.51.100.7".into(),
            "v6=2001:db8::7".into(),
            format!("port={PORT}"),
            format!("inbound={INBOUND}"),
            format!("device={DEVICE}"),
            format!("folder={}", folder.join("sinks").display()),
            format!("name={}", outside.name),
            format!("netlink={}", outside.netlink()?),
            format!("outside={}", self.other.id()),
            format!("daemon={}", self.daemon.pid()?),
            format!("run={}", self.daemon.room().join("run").display()),
            format!("door={}", self.door()?),
            format!("pins={}", self.daemon.pins().display()),
            format!("cgroups={}", interceptor::bpf::cgroup2()?.display()),
            format!("patience={patience}"),
        ])
    }

    /// A port that the daemon listens at, from its own table of sockets.
    fn door(&self) -> Result<u16> {
        let pid = self.daemon.pid()?;
        let mut inodes = Vec::new();
        for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
            let link = fs::read_link(entry?.path()).unwrap_or_default();
            inodes.extend(
                link.to_str().and_then(|link| Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())),
            );
        }
        let table = fs::read_to_string(format!("/proc/{pid}/net/tcp"))?;
        let listening = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).find(|words| {
            words.get(3) == Some(&"0A") && words.get(9).is_some_and(|inode| inodes.iter().any(|one| one == inode))
        });
        let listening = listening.context("the daemon listens nowhere")?;
        let (_, port) = listening[1].split_once(':').context("a port")?;
        Ok(u16::from_str_radix(port, 16)?)
    }
}
