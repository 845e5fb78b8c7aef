//! A whole scene for kernel tests: a steered namespace, the kernel half, and an acceptor whose workers tell what they were
//! handed. Panics where anything fails, as a test does.

#![expect(clippy::unwrap_used, reason = "a fixture fails its test")]

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use interceptor::bpf::{Kernel, Listeners};
use interceptor::config::{Home, IdentitySource, Level, Match, WorkloadSettings};
use interceptor::ids::LaunchId;
use interceptor::transport::accept::{Acceptor, Worker};
use interceptor::transport::namespace::{self, Sockets};
use interceptor::who::Workload;

use crate::netns::{Cgroup, Namespace, Pins};

/// A steered namespace with a daemon's worth of listeners, whose connections are answered with a line that says what
/// was found out about them: `original peer pid tid comm`.
pub struct Scene {
    /// The namespace.
    pub namespace: Namespace,
    /// The kernel half.
    pub kernel: Arc<Kernel>,
    /// The workload, with a cgroup of its own.
    pub workload: Arc<Workload>,
    /// What accepts its connections.
    pub acceptor: Acceptor,
    /// The namespace's cookie.
    pub cookie: u64,
    /// The parent of the workload's cgroup.
    pub cgroup: Cgroup,
    /// Where everything is pinned.
    pub pins: Pins,
}

impl Scene {
    /// Sets everything up; at most `connections` may be open at once.
    pub fn new(loopback_ports: &[u16], connections: usize) -> Self {
        let (pins, cgroup) = (Pins::default(), Cgroup::new().unwrap());
        let kernel = Arc::new(Kernel::load(&pins.path, &cgroup.path).unwrap());
        let namespace = Namespace::new().unwrap();
        let workload = workload(cgroup.below("workload").unwrap());
        let acceptor = Acceptor::start(kernel.clone(), vec![answering(), answering()]).unwrap();
        let Sockets { tcp4, tcp6, .. } = namespace::open(namespace.fd()).unwrap();
        let listeners = Listeners { v4: &tcp4, v6: &tcp6 };
        let cookie = kernel.steer(workload.id, namespace.fd(), &listeners, loopback_ports).unwrap();
        acceptor.add(workload.clone(), tcp4, tcp6, connections).unwrap();
        Self { namespace, kernel, workload, acceptor, cookie, cgroup, pins }
    }

    /// Runs the test `child` of the calling binary inside; see [`Namespace::child`].
    pub fn child(&self, role: &str) -> Output {
        self.namespace.child(&self.workload.cgroup, "child", role).unwrap()
    }
}

/// A workload with this cgroup.
pub fn workload(cgroup: PathBuf) -> Arc<Workload> {
    let settings = WorkloadSettings {
        name: "test".parse().unwrap(),
        matches: Match::default(),
        user: None,
        home: Home::Guarded,
        unix: Vec::new(),
        classes: Vec::new(),
        identity: IdentitySource::Observed,
        publish: Vec::new(),
        adopt: Vec::new(),
        containment: Level::Steered,
    };
    let settings = Arc::new(settings);
    Arc::new(Workload {
        id: LaunchId::new(),
        settings,
        initiator: 0,
        loginuid: None,
        uid: 0,
        init: 0,
        cgroup,
        folder: PathBuf::new(),
    })
}

/// A worker that answers each connection with what is known of it, and keeps it until the peer closes it.
pub fn answering() -> Worker {
    let (worker, mut queue) = Worker::new(4096);
    std::thread::spawn(move || {
        while let Some(accepted) = queue.blocking_recv() {
            let found = &accepted.attribution;
            let process = found.process.as_ref();
            let ids = process.map_or((0, 0, "-"), |process| (process.pid, process.tid, process.comm.as_str()));
            let line = format!("{} {} {} {} {}\n", found.original, found.peer, ids.0, ids.1, ids.2);
            // A client that is gone already doesn't matter.
            let _ = (&accepted.stream).write_all(line.as_bytes());
        }
    });
    worker
}

/// What the daemon's end said of a connection: original, peer, pid, tid, comm.
pub fn told(stream: &TcpStream) -> Vec<String> {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line.split_whitespace().map(Into::into).collect()
}

/// Where the daemon's end says that a connection to here wanted to go.
pub fn original(to: impl std::net::ToSocketAddrs) -> String {
    told(&TcpStream::connect(to).unwrap()).first().cloned().unwrap_or_default()
}

/// Whether a connect is refused.
pub fn refused(to: &str) -> bool {
    TcpStream::connect(to).is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
}

/// Asserts that the test ran and passed in the child.
pub fn passed(output: &Output) {
    assert!(
        output.status.success() && String::from_utf8_lossy(&output.stdout).contains("1 passed"),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A unicast address that isn't loopback, of either family, with any port.
pub fn random_address(random: &mut u64) -> SocketAddr {
    let mut next = || {
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        *random
    };
    let port = (next() % 65_535) as u16 + 1;
    if next().is_multiple_of(2) {
        loop {
            let address = Ipv4Addr::from(next() as u32);
            if !matches!(address.octets()[0], 0 | 127 | 224..) {
                return (address, port).into();
            }
        }
    }
    let bits = (u128::from(next()) << 64 | u128::from(next())) >> 3 | 1 << 125;
    (Ipv6Addr::from(bits), port).into()
}
