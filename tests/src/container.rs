//! Containers as Docker and Podman leave them: their cgroups where those put them, with a network namespace of their own, and
//! the files that say whose they are in the folders of a daemon under test.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, anyhow, ensure};
use nix::fcntl::{Flock, FlockArg};
use nix::sched::{CloneFlags, setns, unshare};

use crate::daemon::Daemon;
use crate::remains::cgroup2;
use crate::unit::Unit;

/// The table of a workload `svc` that adopts the containers of [`Host::start`] with [`LABEL`]; for
/// [`crate::daemon::Order::more`].
pub const LABELLED: &str = "[[workload]]\nname = \"svc\"\nmatch = { container_label = \"interceptor=svc\" }\n";

/// The label, as the engines write it: key and value.
pub const LABEL: (&str, &str) = ("interceptor", "svc");

/// The digest of every container's image.
pub const IMAGE: &str = "5a1f0c3e5a1f0c3e5a1f0c3e5a1f0c3e5a1f0c3e5a1f0c3e5a1f0c3e5a1f0c3e";

/// The interface of a container that leads to nobody.
const DEVICE: &str = "eth0";

/// How all ids of our containers begin. The pid follows.
pub const OURS: &str = "1057e57c0de";

/// Who starts a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// Docker with the cgroupfs driver.
    Docker,
    /// Podman with systemd's.
    Podman,
}

impl Engine {
    /// Where its containers are, from the root of cgroup2.
    fn parent(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "machine.slice",
        }
    }
}

/// A container's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// An interface with a default route; at its other end is nobody.
    Bridge,
    /// Loopback alone.
    None,
    /// Loopback alone, and of IPv4, as where `net.ipv6.conf.all.disable_ipv6` is set.
    WithoutIpv6,
}

/// The host as far as containers go. The engines' cgroups are at fixed places, and daemons refuse a container until they know
/// that it isn't theirs: one test at a time has them.
pub struct Host {
    _alone: Flock<File>,
    /// The folders that we made.
    made: Vec<PathBuf>,
}

impl Host {
    /// Waits until no other test has it. To be made before the daemon is.
    ///
    /// # Errors
    /// There is no cgroup2.
    pub fn new() -> Result<Self> {
        let root = cgroup2()?;
        let alone = Flock::lock(File::open(&root)?, FlockArg::LockExclusive).map_err(|(_, error)| error)?;
        let mut made = Vec::new();
        for parent in [Engine::Docker, Engine::Podman].map(|engine| root.join(engine.parent())) {
            if fs::create_dir(&parent).is_ok() {
                made.push(parent);
            } else {
                sweep(&parent);
            }
        }
        Ok(Self { _alone: alone, made })
    }

    /// Starts a container for `daemon` to find: its files first, then its network and its cgroup.
    ///
    /// # Errors
    /// Something can't be made.
    pub fn start(&self, daemon: &Daemon, engine: Engine, labels: &[(&str, &str)]) -> Result<Container> {
        self.start_in(daemon, engine, labels, Network::Bridge)
    }

    /// The same with this network.
    ///
    /// # Errors
    /// As [`Host::start`].
    pub fn start_in(
        &self,
        daemon: &Daemon,
        engine: Engine,
        labels: &[(&str, &str)],
        network: Network,
    ) -> Result<Container> {
        let id = Self::id();
        engine.write_down(daemon.room(), &id, labels)?;
        Self::make(daemon, engine, network, id)
    }

    /// One of Docker's whose file is broken until [`Container::write_down`].
    ///
    /// # Errors
    /// As [`Host::start`].
    pub fn start_broken(&self, daemon: &Daemon) -> Result<Container> {
        let id = Self::id();
        let folder = daemon.room().join("docker/containers").join(&id);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("config.v2.json"), "{")?;
        Self::make(daemon, Engine::Docker, Network::Bridge, id)
    }

    fn id() -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        format!("{OURS}{:010x}{count:043x}", std::process::id())
    }

    fn make(daemon: &Daemon, engine: Engine, network: Network, id: String) -> Result<Container> {
        let parent = cgroup2()?.join(engine.parent());
        let (own, of_processes) = match engine {
            Engine::Docker => (parent.join(&id), parent.join(&id)),
            Engine::Podman => {
                let scope = parent.join(format!("libpod-{id}.scope"));
                (scope.clone(), scope.join("container"))
            }
        };
        let unit = Unit::at(daemon, of_processes, Some(network.make()?));
        fs::create_dir(&own)?;
        if unit.cgroup != own {
            unit.make()?;
        }
        Ok(Container { unit, own, id })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for folder in &self.made {
            // Somebody else may have come to use it.
            let _ = fs::remove_dir(folder);
        }
    }
}

impl Engine {
    /// Writes down what the engine knows of a container where it does.
    fn write_down(self, room: &Path, id: &str, labels: &[(&str, &str)]) -> Result<()> {
        let labels: serde_json::Map<_, _> =
            labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
        match self {
            Self::Docker => {
                let folder = room.join("docker/containers").join(id);
                fs::create_dir_all(&folder)?;
                let config = serde_json::json!({
                    "StreamConfig": {}, "State": {"Running": true}, "ID": id, "Image": format!("sha256:{IMAGE}"),
                    "Config": {"Hostname": &id[..12], "Image": "svc:1", "Labels": labels},
                });
                fs::write(folder.join("config.v2.json"), config.to_string())?;
            }
            Self::Podman => {
                let folder = room.join("podman");
                fs::create_dir_all(&folder)?;
                let database = rusqlite::Connection::open(folder.join("db.sql"))?;
                database.execute_batch(
                    "CREATE TABLE IF NOT EXISTS ContainerConfig(ID TEXT PRIMARY KEY NOT NULL, Name TEXT UNIQUE NOT NULL, \
                     PodID TEXT, JSON TEXT NOT NULL)",
                )?;
                let config = serde_json::json!({
                    "spec": {}, "id": id, "name": &id[54..], "rootfsImageID": IMAGE, "rootfsImageName": "svc:1",
                    "labels": labels,
                });
                let row = "INSERT INTO ContainerConfig VALUES (?1, ?2, NULL, ?3)";
                database.execute(row, [id, &id[54..], &config.to_string()])?;
            }
        }
        Ok(())
    }
}

/// A container. Dropping it ends it.
pub struct Container {
    /// Where its processes are.
    pub unit: Unit,
    /// The cgroup that is named after it.
    own: PathBuf,
    /// Its id.
    pub id: String,
}

impl Container {
    /// The path of the cgroup that is named after it, from the root of cgroup2.
    ///
    /// # Errors
    /// There is no cgroup2.
    pub fn path(&self) -> Result<String> {
        let path = self.own.strip_prefix(cgroup2()?)?;
        Ok(format!("/{}", path.to_str().context("a path")?))
    }

    /// Runs `inside` in its network, on a thread of its own.
    ///
    /// # Errors
    /// The network can't be entered, or `inside` failed.
    pub fn inside<T: Send>(&self, inside: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(self.unit.network().context("it has a network")?, CloneFlags::CLONE_NEWNET)?;
                inside()
            });
            thread.join().map_err(|_| anyhow!("the thread panicked"))?
        })
    }

    /// How many packets have left it, questions for a neighbour's address too.
    ///
    /// # Errors
    /// It has no interface that leads anywhere.
    pub fn packets(&self) -> Result<u64> {
        let devices = self.inside(|| Ok(fs::read_to_string("/proc/thread-self/net/dev")?))?;
        let line = devices.lines().find_map(|line| line.trim().strip_prefix(DEVICE)?.strip_prefix(':'));
        // The tenth of the numbers is what was sent (proc_pid_net(5)).
        Ok(line.and_then(|line| line.split_whitespace().nth(9)).context("an interface")?.parse()?)
    }

    /// Has its engine know it by these labels.
    ///
    /// # Errors
    /// What the engine knows can't be written.
    pub fn write_down(&self, daemon: &Daemon, engine: Engine, labels: &[(&str, &str)]) -> Result<()> {
        engine.write_down(daemon.room(), &self.id, labels)
    }

    /// Ends it, as `docker stop` and `rm` do.
    ///
    /// # Errors
    /// Its processes don't end.
    pub fn stop(self) -> Result<()> {
        self.end()
    }

    fn end(&self) -> Result<()> {
        if self.unit.cgroup.exists() {
            self.unit.remove()?;
        }
        if self.own.exists() {
            fs::remove_dir(&self.own)?;
        }
        Ok(())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // After `stop` nothing is there, and what can't be ended is swept by the next test.
        let _ = self.end();
    }
}

impl Network {
    /// Makes one.
    fn make(self) -> Result<File> {
        let made = std::thread::spawn(move || -> Result<File> {
            unshare(CloneFlags::CLONE_NEWNET).context("unshare")?;
            ip("link set lo up")?;
            if self == Self::WithoutIpv6 {
                fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1")?;
            }
            if self == Self::Bridge {
                ip("link add eth0 type veth peer name nobody")?;
                // The kernel speaks by itself where IPv6 is.
                for device in [DEVICE, "nobody"] {
                    fs::write(format!("/proc/sys/net/ipv6/conf/{device}/disable_ipv6"), "1")?;
                }
                for command in [
                    "link set nobody up",
                    "link set eth0 up",
                    "addr add 172.17.0.2/16 dev eth0",
                    "route add default via 172.17.0.1 dev eth0",
                ] {
                    ip(command)?;
                }
            }
            Ok(File::open("/proc/thread-self/ns/net")?)
        });
        made.join().map_err(|_| anyhow!("the thread panicked"))?
    }
}

fn ip(command: &str) -> Result<()> {
    let output = Command::new("ip").args(command.split(' ')).output().context("ip")?;
    ensure!(output.status.success(), "ip {command}: {output:?}");
    Ok(())
}

/// Removes what containers of tests left that were killed.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.split_once(OURS).and_then(|(_, rest)| u32::from_str_radix(rest.get(..10)?, 16).ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = fs::write(entry.path().join("cgroup.kill"), "1");
            let _ = fs::remove_dir(entry.path().join("container"));
            let _ = fs::remove_dir(entry.path());
        }
    }
}
