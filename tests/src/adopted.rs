//! A scene for kernel tests of adopted workloads: a cgroup that is watched, the hooks, an acceptor whose workers tell what
//! they were handed, and processes of the workload's and of others. Panics where anything fails, as a test does.

#![expect(clippy::unwrap_used, reason = "a fixture fails its test")]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use interceptor::bpf::adopt::{Adopter, Doors, Number, State, Watched};
use interceptor::bpf::{Kernel, netns_cookie};
use interceptor::transport::accept::{Acceptor, Adopted};
use interceptor::transport::namespace::{self, Sockets};
use interceptor::who::Workload;

use crate::netns::{Cgroup, Pins};
use crate::scene::{answering, workload};

/// What the kernel calls the workload.
pub const NUMBER: Number = 7;

/// A governed cgroup in the test's own network namespace, whose connections are answered as [`crate::scene::Scene`]'s.
pub struct Scene {
    /// The hooks.
    pub adopter: Arc<Adopter>,
    /// The workload.
    pub workload: Arc<Workload>,
    /// What accepts its connections.
    pub acceptor: Acceptor,
    /// The cookie of the network namespace.
    pub cookie: u64,
    /// The daemon's ports: TCP over IPv4 and IPv6.
    pub ports: [u16; 2],
    /// Those for DNS, of which the sockets are closed.
    pub dns: [u16; 2],
    /// The workload's cgroup; removed and made again, it is governed again.
    pub governed: PathBuf,
    /// The parent of all cgroups here.
    pub cgroup: Cgroup,
    /// Where everything is pinned.
    pub pins: Pins,
}

impl Scene {
    /// Sets everything up. The governed cgroup is made last, so that it is the tracepoint that sees it.
    pub fn new() -> Self {
        let (pins, cgroup) = (Pins::default(), Cgroup::new().unwrap());
        let outside = cgroup.below("outside").unwrap();
        let kernel = Arc::new(Kernel::load(&pins.path, &outside).unwrap());
        let adopter = Arc::new(Adopter::load(&pins.path).unwrap());
        let governed = cgroup.path.join("governed");
        let workload = workload(governed.clone());
        let acceptor = Acceptor::start(kernel, vec![answering(), answering()]).unwrap();
        let mut scene = Self {
            adopter,
            workload,
            acceptor,
            cookie: 0,
            ports: [0; 2],
            dns: [0; 2],
            governed: governed.clone(),
            cgroup,
            pins,
        };
        scene.listen();
        scene.adopter.watch(&[scene.watched(State::Steered)]).unwrap();
        fs::create_dir(&governed).unwrap();
        scene
    }

    /// The cgroup, as the tracepoint is told of it.
    pub fn watched(&self, state: State) -> Watched {
        let path = format!("/{}/governed", self.cgroup.path.file_name().unwrap().to_str().unwrap());
        Watched { path, level: None, workload: NUMBER, state }
    }

    /// Opens the daemon's sockets, as after a restart.
    pub fn listen(&mut self) {
        let netns = File::open("/proc/self/ns/net").unwrap();
        let (Sockets { tcp4, tcp6, dns4, dns6 }, diagnosis) = namespace::open_beside(netns.as_fd()).unwrap();
        self.cookie = netns_cookie(tcp4.as_fd()).unwrap();
        self.ports = [tcp4.local_addr().unwrap().port(), tcp6.local_addr().unwrap().port()];
        self.dns = [dns4.local_addr().unwrap().port(), dns6.local_addr().unwrap().port()];
        let doors = Doors { tcp4: &tcp4, tcp6: &tcp6, dns4: &dns4, dns6: &dns6 };
        self.adopter.open_doors(NUMBER, self.cookie, &doors).unwrap();
        let adopted = Adopted {
            adopter: self.adopter.clone(),
            number: NUMBER,
            live: Arc::default(),
            diagnosis: Arc::new(diagnosis),
            admits: Arc::new(|_, _| true),
        };
        self.acceptor.add_adopted(self.workload.clone(), adopted, tcp4, tcp6, 10_000).unwrap();
    }

    /// A command whose process is in the governed cgroup before it is the command.
    pub fn inside(&self, program: impl AsRef<OsStr>) -> Command {
        self.enter(&self.governed, program)
    }

    /// The same in another cgroup.
    pub fn enter(&self, cgroup: &Path, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("/bin/sh");
        let script = r#"echo 0 > "$0/cgroup.procs" && exec "$@""#;
        command.args(["-c", script]).arg(cgroup).arg(program).stdin(Stdio::null());
        command
    }

    /// What the probe says of an attempt from inside.
    pub fn attempt(&self, probe: &str, attempt: &[&str]) -> String {
        said(&self.inside(probe).args(attempt).output().unwrap())
    }
}

impl Default for Scene {
    fn default() -> Self {
        Self::new()
    }
}

/// The one line that a probe printed.
pub fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}
