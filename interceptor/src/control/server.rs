//! The daemon's side of the control socket. Each connection is one walk: peer, request, right, answer. The answers are
//! the daemon's ([`Host`]); everything runs on the control runtime, apart from the proxy's workers.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::peer::Peer;
use super::protocol::{Request, Response, Right};
use super::wire::{self, REQUEST_DESCRIPTORS};
use crate::config::Control;

/// Who asks, judged: not from inside a workload, and in which roles.
#[derive(Debug)]
pub struct Caller {
    /// The process.
    pub peer: Peer,
    /// Whether it is root or an operator.
    pub operator: bool,
    /// Whether it is an auditor.
    pub auditor: bool,
}

impl Caller {
    /// The one initiator whose sessions it may see; none if it may see all.
    pub fn sees_only(&self) -> Option<u32> {
        (!self.operator && !self.auditor).then_some(self.peer.uid)
    }
}

/// What the daemon answers: a response, and with a done [`Request::Run`] the channel to process 1.
#[derive(Debug)]
pub struct Answer {
    /// The response.
    pub response: Response,
    /// The descriptor that goes along.
    pub descriptor: Option<OwnedFd>,
}

/// An answer in the making.
pub type Answering<'a> = Pin<Box<dyn Future<Output = Answer> + Send + 'a>>;

/// The daemon, as the control socket sees it.
pub trait Host: Send + Sync + 'static {
    /// Answers a request that `caller` may make. `descriptors` are three for [`Request::Run`], else none.
    fn answer(&self, caller: Caller, request: Request, descriptors: Vec<OwnedFd>) -> Answering<'_>;

    /// Who has which role at the moment.
    fn roles(&self) -> Control;

    /// Whether this cgroup, as /proc/PID/cgroup shows it, is an adopted workload's.
    fn governs(&self, cgroup: &Path) -> bool;

    /// Takes note that `request` of `peer` was refused, and with which code. Called before the peer is told.
    fn refused(&self, peer: &Peer, request: &str, code: &str);
}

impl Answer {
    /// Done, with this value and no descriptor.
    pub fn done(value: serde_json::Value) -> Self {
        Self { response: Response::Done(value), descriptor: None }
    }

    /// Refused: a stable code, what stood in the way, and what to do next.
    pub fn refused(code: &str, message: impl Into<String>, next: impl Into<String>) -> Self {
        let response = Response::Refused { code: code.into(), message: message.into(), next: next.into() };
        Self { response, descriptor: None }
    }
}

/// Serves the control socket until `stop` is done, then lets answers in the making finish for a second.
/// `workloads` is the cgroup of the workloads as /proc/PID/cgroup shows it.
///
/// # Errors
///
/// The listener can't be handed to the runtime.
pub async fn serve(
    listener: UnixListener,
    workloads: PathBuf,
    host: Arc<dyn Host>,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let workloads: Arc<Path> = workloads.into();
    let seats = Arc::new(Seats::default());
    let mut connections = JoinSet::new();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((socket, _)) => {
                    connections.spawn(converse(socket, workloads.clone(), host.clone(), seats.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "the control socket can't accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    drop(listener);
    let _ = timeout(Duration::from_secs(1), async { while connections.join_next().await.is_some() {} }).await;
    Ok(())
}

/// Connections at once; more wait in the backlog.
const CONNECTIONS: usize = 256;

/// Connections at once of one user, root and operators apart.
const PER_USER: usize = 16;

/// Connections at once of all users, root and operators apart: one user may have many uids (user_namespaces(7)).
const ALL_USERS: usize = 192;

/// How long a peer may take to send its request, and to take its answer.
const PATIENCE: Duration = Duration::from_secs(5);

async fn converse(socket: UnixStream, workloads: Arc<Path>, host: Arc<dyn Host>, seats: Arc<Seats>) {
    let answer = walk(&socket, &workloads, &*host, seats).await;
    let Some(answer) = answer else { return };
    let payload = match serde_json::to_vec(&answer.response) {
        Ok(payload) if payload.len() <= wire::FRAME => payload,
        _ => {
            let next = "ask for less, with `--limit`";
            let small = Answer::refused("answer-too-large", "the answer is larger than 4 MiB", next);
            serde_json::to_vec(&small.response).unwrap_or_default()
        }
    };
    let descriptors: Vec<_> = answer.descriptor.iter().map(AsFd::as_fd).collect();
    let sent = timeout(PATIENCE, wire::send_async(&socket, &payload, &descriptors)).await;
    if !matches!(sent, Ok(Ok(()))) {
        tracing::debug!("a control client went away before its answer");
    }
}

/// The walk of a connection; none where there is nobody to answer.
async fn walk(socket: &UnixStream, workloads: &Path, host: &dyn Host, seats: Arc<Seats>) -> Option<Answer> {
    let mut peer = Peer::of(socket).inspect_err(|error| tracing::warn!(%error, "a control client was dropped")).ok()?;
    let inside = peer.inside(workloads, |cgroup| host.governs(cgroup));
    if !matches!(inside, Ok(false)) {
        return Some(stranger(&peer, inside.err(), host));
    }
    if let Err(error) = peer.learn_loginuid() {
        return Some(stranger(&peer, Some(error), host));
    }
    let roles = host.roles();
    let (operator, auditor) = match (peer.operates(&roles), peer.is_among(&roles.auditors)) {
        (Ok(operator), Ok(auditor)) => (operator, auditor),
        (Err(error), _) | (_, Err(error)) => return Some(stranger(&peer, Some(error), host)),
    };
    let seat = if operator { None } else { Some(seats.take(peer.uid)) };
    if let Some(None) = seat {
        return Some(Answer::refused("busy", "too many requests of yours at once", "try again in a moment"));
    }
    let (payload, descriptors) = match timeout(PATIENCE, wire::receive_async(socket, REQUEST_DESCRIPTORS)).await {
        Ok(Ok(frame)) => frame,
        Ok(Err(wire::WireError::Closed)) => return None,
        Ok(Err(error)) => return Some(malformed(error.to_string())),
        Err(_) => return Some(malformed(format!("no request within {PATIENCE:?}"))),
    };
    let request: Request = match serde_json::from_slice(&payload) {
        Ok(request) => request,
        Err(error) => return Some(malformed(error.to_string())),
    };
    let (is_for, code) = match request.right() {
        Right::Anyone => (true, ""),
        Right::Reader => (operator || auditor, "not-an-operator"),
        Right::Operator => (operator, "not-an-operator"),
        Right::Auditor => (auditor, "not-an-auditor"),
    };
    if !is_for {
        host.refused(&peer, &request.in_words(), code);
        let message = format!("uid {} may not ask for `{}`", peer.uid, request.name());
        let next = match code {
            "not-an-auditor" => "be listed in `[control] auditors` of the configuration",
            _ => "be root, or be listed in `[control] operators` of the configuration",
        };
        return Some(Answer::refused(code, message, next));
    }
    let expected = if matches!(request, Request::Run(_)) { REQUEST_DESCRIPTORS } else { 0 };
    if descriptors.len() != expected {
        return Some(malformed(format!("{} descriptors came along instead of {expected}", descriptors.len())));
    }
    Some(host.answer(Caller { peer, operator, auditor }, request, descriptors).await)
}

/// Refuses a peer inside a workload, or one of which that can't be ruled out, before its request is read.
fn stranger(peer: &Peer, unknown: Option<super::peer::PeerError>, host: &dyn Host) -> Answer {
    match unknown {
        None => {
            host.refused(peer, "any", "inside-workload");
            let message = "a governed process may not use the control socket";
            Answer::refused("inside-workload", message, "ask from outside of the workload")
        }
        Some(error) => {
            host.refused(peer, "any", "unknown-peer");
            Answer::refused("unknown-peer", error.to_string(), "ask from a process that lives until it is answered")
        }
    }
}

fn malformed(message: String) -> Answer {
    Answer::refused("bad-request", message, "use an `interceptor` of the same version as the daemon")
}

/// How many connections each unprivileged user has open.
#[derive(Default)]
struct Seats(Mutex<HashMap<u32, usize>>);

struct Seat {
    seats: Arc<Seats>,
    uid: u32,
}

impl Seats {
    fn take(self: &Arc<Self>, uid: u32) -> Option<Seat> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let in_all: usize = taken.values().sum();
        let own = taken.get(&uid).copied().unwrap_or_default();
        if own >= PER_USER || in_all >= ALL_USERS {
            return None;
        }
        let count = taken.entry(uid).or_default();
        *count += 1;
        Some(Seat { seats: self.clone(), uid })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests;
