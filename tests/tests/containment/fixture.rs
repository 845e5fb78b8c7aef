//! A launcher without a daemon: a cgroup, a home and an unprivileged user of its own, and what a launch came to.

use std::fs::{self, File, Permissions};
use std::io::{PipeReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use interceptor::config::{Home, IdentitySource, Level, Match, WorkloadSettings};
use interceptor::ids::LaunchId;
use interceptor::launch::channel::{self, Received, ToClient};
use interceptor::launch::{self, Caller, LaunchError, Order, Program, Running, Trust};

/// A uid that no user has.
pub(crate) const UID: u32 = 61_234;

static COUNT: AtomicU32 = AtomicU32::new(0);

/// Everything that launches need. Dropping it removes it.
pub(crate) struct Launcher {
    /// World-readable, and below no place that is private inside.
    pub folder: PathBuf,
    pub home: PathBuf,
    pub probe: PathBuf,
    cgroup: PathBuf,
    caller: Child,
}

/// What a launch came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub end: Option<ToClient>,
    pub output: String,
    pub errors: String,
}

/// A launch that goes on.
pub(crate) struct Launched {
    pub running: Running,
    pub channel: OwnedFd,
    output: JoinHandle<String>,
    errors: JoinHandle<String>,
}

impl Launcher {
    pub(crate) fn new() -> Self {
        let name = format!("interceptor-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = Path::new("/var/lib").join(&name);
        let home = folder.join("home");
        fs::create_dir_all(&home).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
        chown(&home, Some(UID), Some(UID)).unwrap();
        for file in ["bundle.pem", "authority.pem"] {
            fs::write(folder.join(file), format!("the {file} of {name}\n")).unwrap();
            fs::set_permissions(folder.join(file), Permissions::from_mode(0o644)).unwrap();
        }
        let probe = folder.join("probe");
        // A link, where the file may be one; the build's folder may be closed to other users.
        fs::hard_link(env!("CARGO_BIN_EXE_probe"), &probe)
            .or_else(|_| fs::copy(env!("CARGO_BIN_EXE_probe"), &probe).map(drop))
            .unwrap();
        fs::set_permissions(&probe, Permissions::from_mode(0o755)).unwrap();
        let cgroup = cgroup2().join(&name);
        fs::create_dir(&cgroup).unwrap();
        let caller = caller(&home);
        Self { folder, home, probe, cgroup, caller }
    }

    /// The pid of a process outside, of the workload's own uid.
    pub(crate) fn outside(&self) -> String {
        self.caller.id().to_string()
    }

    /// Another process of the unprivileged user, in another directory.
    pub(crate) fn caller_in(&self, directory: &str) -> Outside {
        Outside(caller(Path::new(directory)))
    }

    pub(crate) fn settings(home: Home, unix: &[&Path]) -> Arc<WorkloadSettings> {
        Arc::new(WorkloadSettings {
            name: "test".parse().unwrap(),
            matches: Match::default(),
            user: None,
            home,
            unix: unix.iter().map(|path| path.to_path_buf()).collect(),
            classes: Vec::new(),
            identity: IdentitySource::Observed,
            publish: Vec::new(),
            adopt: Vec::new(),
            containment: Level::Steered,
        })
    }

    /// An order for a command, with null as input and nothing to write to.
    pub(crate) fn order(&self, command: &[&str]) -> (Order, OwnedFd) {
        let (inner, outer) = channel::pair().unwrap();
        let null = || OwnedFd::from(File::options().read(true).write(true).open("/dev/null").unwrap());
        let pid = self.caller.id();
        let id = LaunchId::new();
        let order = Order {
            id,
            settings: Self::settings(Home::Guarded, &[]),
            caller: Caller::read(pid, launch::hold(pid).unwrap(), UID, UID).unwrap(),
            argv: command.iter().map(|word| word.as_bytes().to_vec()).collect(),
            env: vec![b"PATH=/usr/bin:/bin".to_vec(), format!("HOME={}", self.home.display()).into_bytes()],
            tty: None,
            stdio: [null(), null(), null()],
            channel: inner,
            workloads: self.cgroup.clone(),
            folder: self.folder.join(id.to_string()),
            trust: Trust { bundle: self.folder.join("bundle.pem"), authority: self.folder.join("authority.pem") },
            hidden: Vec::new(),
            program: Program::File(self.probe.clone()),
        };
        (order, outer)
    }

    pub(crate) fn start(&self, command: &[&str], change: impl FnOnce(&mut Order)) -> Result<Launched, LaunchError> {
        let (mut order, channel) = self.order(command);
        let (output, writer) = std::io::pipe().unwrap();
        let (errors, error_writer) = std::io::pipe().unwrap();
        order.stdio[1] = writer.into();
        order.stdio[2] = error_writer.into();
        change(&mut order);
        let running = launch::prepare(order)?.go()?;
        Ok(Launched { running, channel, output: collect(output), errors: collect(errors) })
    }

    /// Runs a command to its end.
    pub(crate) fn run_with(&self, command: &[&str], change: impl FnOnce(&mut Order)) -> Outcome {
        self.start(command, change).unwrap_or_else(|e| panic!("{}", e.in_full())).finish()
    }

    pub(crate) fn run(&self, command: &[&str]) -> Outcome {
        self.run_with(command, |_| {})
    }

    /// What the probe says of an attempt.
    pub(crate) fn attempt(&self, attempt: &[&str]) -> String {
        self.attempt_with(attempt, |_| {})
    }

    pub(crate) fn attempt_with(&self, attempt: &[&str], change: impl FnOnce(&mut Order)) -> String {
        let probe = self.probe.to_str().unwrap();
        let outcome = self.run_with(&[&[probe], attempt].concat(), change);
        assert_eq!(outcome.end, Some(ToClient::Exited(0)), "{outcome:?}");
        outcome.output.trim_end().to_owned()
    }

    /// What the probe says of a system call with numbers as arguments.
    pub(crate) fn syscall(&self, number: i64, arguments: &[i64]) -> String {
        let words: Vec<String> = [number].iter().chain(arguments).map(ToString::to_string).collect();
        let words: Vec<&str> = ["syscall"].into_iter().chain(words.iter().map(String::as_str)).collect();
        self.attempt(&words)
    }
}

/// A process outside; dropping it ends it.
pub(crate) struct Outside(Child);

impl Outside {
    /// It, as who asks for a launch.
    pub(crate) fn read(&self) -> Caller {
        Caller::read(self.0.id(), launch::hold(self.0.id()).unwrap(), UID, UID).unwrap()
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Launched {
    /// Waits for the command's end, and removes what is left.
    pub(crate) fn finish(self) -> Outcome {
        let mut end = None;
        loop {
            match channel::receive::<ToClient>(&self.channel).unwrap() {
                Received::Message(ToClient::Started | ToClient::Pty, _) | Received::Nonsense => {}
                Received::Message(message, _) => end = Some(message),
                Received::End => break,
            }
        }
        self.running.clean_up();
        Outcome { end, output: self.output.join().unwrap(), errors: self.errors.join().unwrap() }
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        let _ = self.caller.kill();
        let _ = self.caller.wait();
        let left: Vec<_> =
            fs::read_dir(&self.cgroup).unwrap().flatten().filter(|entry| entry.path().is_dir()).collect();
        if !std::thread::panicking() {
            assert!(left.is_empty(), "cgroups were left: {left:?}");
        }
        for entry in left {
            let _ = fs::write(entry.path().join("cgroup.kill"), "1");
            std::thread::sleep(std::time::Duration::from_millis(100));
            let _ = fs::remove_dir(entry.path());
        }
        let _ = fs::remove_dir(&self.cgroup);
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A process of the unprivileged user, to be the caller.
fn caller(home: &Path) -> Child {
    let mut command = Command::new("sleep");
    command.arg("600").uid(UID).gid(UID).current_dir(home).stdin(Stdio::null());
    command.spawn().unwrap()
}

fn cgroup2() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 ")).expect("cgroup2 is mounted");
    mount.split(' ').nth(4).unwrap().into()
}

fn collect(mut from: PipeReader) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
