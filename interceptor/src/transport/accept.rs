//! Accepting: one thread accepts the connections of all workloads, attributes each, and hands it to the least loaded
//! worker. What can't be handed over at once is reset, never queued without bound and never closed as if it had ended.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use crate::bpf::adopt::{Adopter, Number};
use crate::bpf::{Kernel, Origin, netns_cookie};
use crate::ids::LaunchId;
use crate::transport::diagnosis::Diagnosis;
use crate::transport::taken::{Taken, Ticket};
use crate::who::{self, Attribution, Workload};

/// How long accepting rests when the daemon is out of descriptors or memory.
const REST: Duration = Duration::from_millis(20);

/// A connection on its way to its worker.
#[derive(Debug)]
pub struct Accepted {
    /// The workload's end: non-blocking, `TCP_NODELAY` set, known to no runtime yet.
    pub stream: TcpStream,
    /// Whose it is and where it wanted to go.
    pub attribution: Attribution,
    /// Counts the connection as long as it lives; keep it with the stream.
    pub load: Load,
    /// Says of it whether it came into the record.
    pub ticket: Ticket,
}

/// Counts one live connection, for its worker and for its workload, until it is dropped.
#[derive(Debug)]
pub struct Load {
    worker: Arc<AtomicUsize>,
    workload: Arc<AtomicUsize>,
}

impl Drop for Load {
    fn drop(&mut self) {
        self.worker.fetch_sub(1, Ordering::Relaxed);
        self.workload.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The acceptor's end of a worker.
#[derive(Debug, Clone)]
pub struct Worker {
    queue: mpsc::Sender<Accepted>,
    live: Arc<AtomicUsize>,
}

impl Worker {
    /// A worker's two ends: one for [`Acceptor::start`], one for the worker to receive from. At most `queue`
    /// connections wait in between.
    pub fn new(queue: usize) -> (Self, mpsc::Receiver<Accepted>) {
        let (sender, receiver) = mpsc::channel(queue);
        (Self { queue: sender, live: Arc::default() }, receiver)
    }

    /// How many connections it has, the waiting ones included.
    pub fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }
}

/// The thread that accepts. Dropping it closes all listeners and waits for the thread.
#[derive(Debug)]
pub struct Acceptor {
    runtime: Handle,
    kernel: Arc<Kernel>,
    workers: Arc<[Worker]>,
    /// By launch and network namespace.
    accepting: Mutex<HashMap<(LaunchId, u64), [AbortHandle; 2]>>,
    /// How many connections of each launch were taken.
    taken: Mutex<HashMap<LaunchId, Arc<Taken>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Acceptor {
    /// Starts the thread. Without workers every connection is reset.
    pub fn start(kernel: Arc<Kernel>, workers: Vec<Worker>) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("accept".into()).spawn(move || {
            // Either way it is the end: told to stop, or the acceptor is gone.
            let _ = runtime.block_on(stopped);
        })?;
        Ok(Self {
            runtime: handle,
            kernel,
            workers: workers.into(),
            accepting: Mutex::default(),
            taken: Mutex::default(),
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Accepts what comes to the two listeners of a launched workload, which were opened in its namespace, non-blocking; at
    /// most `connections` of it are open at once. Listeners that were added for this launch before are closed.
    pub fn add(
        &self,
        workload: Arc<Workload>,
        tcp4: TcpListener,
        tcp6: TcpListener,
        connections: usize,
    ) -> io::Result<()> {
        let tables = Tables::Launched(self.kernel.clone());
        self.sit_down(workload, tables, Arc::default(), tcp4, tcp6, connections)
    }

    /// As [`add`](Self::add) for a network namespace that an adopted workload is in, of which there may be several; `live`
    /// counts the connections of all of them.
    pub fn add_adopted(
        &self,
        workload: Arc<Workload>,
        adopted: Adopted,
        tcp4: TcpListener,
        tcp6: TcpListener,
        connections: usize,
    ) -> io::Result<()> {
        let live = adopted.live.clone();
        self.sit_down(workload, Tables::Adopted(adopted), live, tcp4, tcp6, connections)
    }

    fn sit_down(
        &self,
        workload: Arc<Workload>,
        tables: Tables,
        live: Arc<AtomicUsize>,
        tcp4: TcpListener,
        tcp6: TcpListener,
        connections: usize,
    ) -> io::Result<()> {
        let netns_cookie = netns_cookie(tcp4.as_fd())?;
        let key = (workload.id, netns_cookie);
        let taken = self.taken(&workload);
        let seat = Seat { taken, tables, workers: self.workers.clone(), workload, netns_cookie, live, connections };
        let tasks = {
            let _inside = self.runtime.enter();
            let (v4, v6) = (tokio::net::TcpListener::from_std(tcp4)?, tokio::net::TcpListener::from_std(tcp6)?);
            [self.runtime.spawn(accept(v4, seat.clone())), self.runtime.spawn(accept(v6, seat))]
        };
        let tasks = tasks.map(|task| task.abort_handle());
        let before = self.accepting.lock().unwrap_or_else(PoisonError::into_inner).insert(key, tasks);
        before.into_iter().flatten().for_each(|task| task.abort());
        Ok(())
    }

    /// Closes the listeners of a launch. Its open connections go on; new ones are refused.
    pub fn remove(&self, launch: LaunchId) {
        self.close(|(of, _)| *of == launch);
    }

    /// How many connections of a workload were taken, also by earlier daemons; those to loopback, which only a few ports of a
    /// launched workload's lead here, aren't counted.
    pub fn taken(&self, workload: &Workload) -> Arc<Taken> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(taken.entry(workload.id).or_insert_with(|| Arc::new(Taken::open(&workload.folder))))
    }

    /// Forgets the count of a launch that has ended.
    pub fn forget(&self, launch: LaunchId) {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(&launch);
    }

    /// Closes those that it has in the network namespace with this cookie.
    pub fn remove_in(&self, launch: LaunchId, netns: u64) {
        self.close(|key| *key == (launch, netns));
    }

    fn close(&self, which: impl Fn(&(LaunchId, u64)) -> bool) {
        let mut accepting = self.accepting.lock().unwrap_or_else(PoisonError::into_inner);
        let closed = accepting.extract_if(|key, _| which(key));
        closed.flat_map(|(_, tasks)| tasks).for_each(|task| task.abort());
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What the accepting of an adopted workload's connections needs besides.
#[derive(Clone)]
pub struct Adopted {
    /// Knows where each was to go.
    pub adopter: Arc<Adopter>,
    /// What the kernel calls the workload.
    pub number: Number,
    /// The connections of the workload, in all network namespaces.
    pub live: Arc<AtomicUsize>,
    /// Knows which sockets there are where the listeners are.
    pub diagnosis: Arc<Diagnosis>,
    /// Whether a process of the workload is contained as it has to be.
    pub admits: Admits,
}

/// Says of a workload and the pid of one of its processes whether its connections may be.
pub type Admits = Arc<dyn Fn(Number, u32) -> bool + Send + Sync>;

/// Who knows where a connection was to go, and who made it.
#[derive(Clone)]
enum Tables {
    Launched(Arc<Kernel>),
    Adopted(Adopted),
}

impl Tables {
    /// The process, if it is known, and the original destination of a connection that was accepted at `own`. Or why it can't
    /// be: nobody was steered here by this connection, or somebody who isn't contained.
    fn find(
        &self,
        stream: &TcpStream,
        netns: u64,
        peer: SocketAddr,
        own: SocketAddr,
    ) -> Result<(Option<Origin>, SocketAddr), &'static str> {
        match self {
            Tables::Launched(kernel) => Ok((kernel.origin(netns, peer, own), own)),
            Tables::Adopted(Adopted { adopter, number, diagnosis, admits, .. }) => {
                let flow = adopter.flow(stream, netns, peer, own).filter(|flow| flow.workload == *number);
                let flow = flow.ok_or("not-steered")?;
                // Who connects from this address now has to be who was steered.
                if !diagnosis.has(peer, own, flow.cookie).unwrap_or(false) {
                    return Err("gone");
                }
                if !admits(*number, flow.origin.pid) {
                    return Err("not-contained");
                }
                Ok((Some(flow.origin), flow.original))
            }
        }
    }
}

/// What the accepting of one workload's connections needs.
#[derive(Clone)]
struct Seat {
    taken: Arc<Taken>,
    tables: Tables,
    workers: Arc<[Worker]>,
    workload: Arc<Workload>,
    netns_cookie: u64,
    live: Arc<AtomicUsize>,
    connections: usize,
}

/// Tells the operator that a workload's connections are reset for their number: once a minute, whatever the workload does.
#[derive(Debug, Default)]
pub(crate) struct TooMany(Option<Instant>);

impl TooMany {
    const PAUSE: Duration = Duration::from_secs(60);

    /// One more was reset.
    pub(crate) fn tell(&mut self, workload: &str) {
        if self.0.is_none_or(|last| last.elapsed() >= Self::PAUSE) {
            self.0 = Some(Instant::now());
            tracing::warn!(workload, "it has as many connections as `limits.connections` lets it, so more are reset");
        }
    }
}

async fn accept(listener: tokio::net::TcpListener, seat: Seat) {
    let mut too_many = TooMany::default();
    loop {
        match listener.accept().await.and_then(|(stream, _)| stream.into_std()) {
            Ok(stream) => {
                let is_counted = seat.counts(&stream);
                if is_counted {
                    seat.taken.take();
                }
                if let Err((stream, reason)) = seat.hand_over(stream, is_counted) {
                    if is_counted {
                        seat.taken.turn_away();
                    }
                    let workload = seat.workload.settings.name.to_string();
                    if reason == "too-many" {
                        too_many.tell(&workload);
                    }
                    metrics::counter!("interceptor_connections_reset_total", "workload" => workload, "reason" => reason)
                        .increment(1);
                    reset(stream);
                }
                // One workload that connects without end mustn't keep the others waiting.
                tokio::task::yield_now().await;
            }
            // Out of descriptors or memory; others (a connection that was reset while it waited) concern nobody.
            Err(error) if is_shortage(&error) => {
                tracing::warn!(%error, "accepting a workload's connections rests");
                tokio::time::sleep(REST).await;
            }
            Err(_) => {}
        }
    }
}

impl Seat {
    /// Whether a connection is one of the ledger's.
    fn counts(&self, stream: &TcpStream) -> bool {
        match self.tables {
            // Of what a launched workload dials on its loopback only a few ports lead here.
            Tables::Launched(_) => stream.local_addr().is_ok_and(|own| !own.ip().to_canonical().is_loopback()),
            // All of them come to the loopback of their namespace.
            Tables::Adopted(_) => true,
        }
    }

    /// Gives the connection to the least loaded worker, or back with the reason.
    fn hand_over(&self, stream: TcpStream, is_counted: bool) -> Result<(), (TcpStream, &'static str)> {
        let Some(worker) = self.workers.iter().min_by_key(|worker| worker.live()) else {
            return Err((stream, "no-worker"));
        };
        if self.live.load(Ordering::Relaxed) >= self.connections {
            return Err((stream, "too-many"));
        }
        let Ok(permit) = worker.queue.try_reserve() else {
            return Err((stream, "workers-busy"));
        };
        let (Ok(own), Ok(peer)) = (stream.local_addr(), stream.peer_addr()) else {
            return Err((stream, "gone"));
        };
        let (origin, original) = match self.tables.find(&stream, self.netns_cookie, peer, own) {
            Ok(found) => found,
            Err(reason) => return Err((stream, reason)),
        };
        if stream.set_nodelay(true).is_err() {
            return Err((stream, "gone"));
        }
        self.live.fetch_add(1, Ordering::Relaxed);
        worker.live.fetch_add(1, Ordering::Relaxed);
        let load = Load { worker: worker.live.clone(), workload: self.live.clone() };
        let attribution = who::attribute(&self.workload, origin, original, peer);
        let ticket = Ticket::new(is_counted.then(|| self.taken.clone()));
        permit.send(Accepted { stream, attribution, load, ticket });
        Ok(())
    }
}

/// Closes a connection with RST.
pub(crate) fn reset(stream: TcpStream) {
    // If this fails there is nothing better to do than to close it.
    let _ = setsockopt(&stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 });
}

fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}
