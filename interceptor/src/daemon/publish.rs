//! Published servers: a launched workload listens on its own loopback, which nobody outside can reach; the daemon listens for
//! it on the host's, and connects from inside. Each call is a session, with its caller as the initiator, and recorded before a
//! byte of it goes in.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::{Gid, Uid, User};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use super::reload::OwnJournal;
use crate::config::{Match, Publish};
use crate::ids::{OperationId, SessionId};
use crate::pipeline::{Order, Registry};
use crate::policy::Basis;
use crate::record::event::{Payload, Verdict, What, as_whom};
use crate::transport::accept;
use crate::transport::diagnosis::{Diagnosis, Owner};
use crate::transport::namespace;
use crate::who::{Call, Callers, Workload, login};

/// How long the server may take to answer the daemon's connect.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a listener rests when the daemon is out of descriptors.
const REST: Duration = Duration::from_millis(20);

/// Bytes that are passed on at once.
const PIECE: usize = 64 * 1024;

/// What is published of one workload.
pub(super) struct Published {
    pub(super) workload: Arc<Workload>,
    pub(super) netns: Arc<OwnedFd>,
    pub(super) registry: Arc<Registry>,
    pub(super) callers: Arc<Callers>,
    pub(super) journal: OwnJournal,
    /// As many calls as it may have at once.
    pub(super) calls: Arc<Semaphore>,
}

/// Opens the listener of a published port.
///
/// # Errors
/// The address isn't there, or the port is taken.
pub(super) fn listen(publish: &Publish) -> io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(publish.outside)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Accepts callers for as long as it isn't aborted.
pub(super) async fn serve(listener: std::net::TcpListener, publish: Publish, published: Arc<Published>) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "a published port can't be served"),
    };
    let mut too_many = accept::TooMany::default();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => match Arc::clone(&published.calls).try_acquire_owned() {
                Ok(permit) => {
                    let published = Arc::clone(&published);
                    tokio::spawn(async move {
                        call(stream, peer, publish, published).await;
                        drop(permit);
                    });
                }
                Err(_) => {
                    let workload = published.workload.settings.name.to_string();
                    too_many.tell(&workload);
                    metrics::counter!("interceptor_connections_reset_total", "workload" => workload, "reason" => "too-many")
                        .increment(1);
                    refuse(stream);
                }
            },
            Err(error) => {
                tracing::debug!(%error, "a caller is gone");
                tokio::time::sleep(REST).await;
            }
        }
    }
}

/// One call, from its first byte to its last.
async fn call(stream: TcpStream, peer: SocketAddr, publish: Publish, published: Arc<Published>) {
    let Published { workload, registry, journal, .. } = &*published;
    let session = SessionId::new();
    let mut order = registry.enter(session, workload.id);
    let opened = What::SessionOpened {
        session,
        launch: workload.id,
        workload: workload.settings.name.clone(),
        process: None,
        original: publish.outside,
        host: None,
        target: None,
    };
    let reason = match journal.record(opened) {
        Ok(()) => {
            let reason = through(stream, peer, publish, &published, session, &mut order).await;
            journal.note(What::SessionClosed { session, reason: reason.into(), policies: Vec::new() });
            reason
        }
        Err(error) => {
            tracing::error!(%error, "a call could not be recorded, so it is refused");
            refuse(stream);
            "record-unavailable"
        }
    };
    registry.leave(session);
    tracing::debug!(%session, reason, "a call ended");
}

/// Decides, records, connects and passes on; why it ended.
async fn through(
    mut stream: TcpStream,
    peer: SocketAddr,
    publish: Publish,
    published: &Published,
    session: SessionId,
    order: &mut watch::Receiver<Order>,
) -> &'static str {
    let Published { workload, netns, callers, journal, .. } = published;
    let caller = caller_of(peer, publish.outside, &workload.settings.matches).await;
    // What a workload asks of a target at the host's loopback comes from the daemon, and would be taken for root's.
    let caller = match caller {
        Some(found) if found.uid == nix::unistd::geteuid().as_raw() => {
            let is_own = tokio::task::spawn_blocking(move || is_held_here(found.inode)).await;
            Some(found).filter(|_| matches!(is_own, Ok(false)))
        }
        other => other,
    };
    let loginuid = caller.and_then(|caller| caller.loginuid);
    let may = caller.is_some_and(|caller| caller.may);
    let caller = caller.map(|caller| caller.uid);
    let operation = OperationId::new();
    let who =
        caller.map_or_else(|| "an unknown caller".to_owned(), |uid| format!("uid {uid}{}", as_whom(uid, loginuid)));
    let decided = What::OperationDecided {
        operation,
        session: Some(session),
        launch: workload.id,
        workload: workload.settings.name.clone(),
        target: None,
        action: "publish:connect".into(),
        summary: format!("{who} calls port {}", publish.inside),
        verdict: if may { Verdict::Allow } else { Verdict::Deny },
        code: (!may).then(|| "caller-not-listed".to_owned()),
        basis: Box::new(Basis::default()),
        initiator: caller,
        credential: None,
        identity: None,
        approval: None,
    };
    let recorded = journal.record(decided);
    let finish = |outcome: &str, request: Payload, response: Payload| {
        journal.note(What::OperationFinished {
            operation,
            outcome: outcome.into(),
            policies: Vec::new(),
            status: None,
            request,
            response,
            masked: std::collections::BTreeMap::new(),
            spent: None,
            service_request: None,
            kept: None,
        });
    };
    if !may || recorded.is_err() {
        let why = if may { "record-unavailable" } else { "caller-not-listed" };
        if recorded.is_ok() {
            finish("denied", Payload::default(), Payload::default());
        }
        refuse(stream);
        return why;
    }
    // What it asks for from now on may be what this caller has it ask for.
    let name = &workload.settings.name;
    let _calls: Vec<Call> = caller.into_iter().chain(loginuid).map(|uid| callers.enter(name, uid)).collect();
    let inside = {
        let (netns, port) = (Arc::clone(netns), publish.inside);
        tokio::task::spawn_blocking(move || dial(&netns, port)).await
    };
    let inside = inside.map_err(io::Error::other).and_then(|inside| inside).and_then(TcpStream::from_std);
    let Ok(mut inside) = inside else {
        finish("server-unreachable", Payload::default(), Payload::default());
        refuse(stream);
        return "server-unreachable";
    };
    let (mut sent, mut received) = (Counted::default(), Counted::default());
    let reason = {
        let (from_caller, to_caller) = stream.split();
        let (from_server, to_server) = inside.split();
        tokio::select! {
            both = async { tokio::join!(sent.pass(from_caller, to_server), received.pass(from_server, to_caller)) } => match both {
                (Ok(()), Ok(())) => "done",
                (Err(_), _) => "client-gone",
                (_, Err(_)) => "upstream-closed",
            },
            cut = until_cut(order) => cut,
        }
    };
    finish(reason, sent.payload(), received.payload());
    if reason != "done" {
        refuse(stream);
    }
    reason
}

/// Until it is asked to end.
async fn until_cut(order: &mut watch::Receiver<Order>) -> &'static str {
    loop {
        let now = *order.borrow_and_update();
        if let Order::Cut(why) = now {
            return why;
        }
        if order.changed().await.is_err() {
            return "daemon-stopped";
        }
    }
}

/// What went one way.
#[derive(Default)]
struct Counted {
    bytes: u64,
    hasher: blake3::Hasher,
}

impl Counted {
    /// Passes on what comes until that ends, and then that it has ended.
    async fn pass(&mut self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
        let mut piece = vec![0; PIECE];
        loop {
            let count = from.read(&mut piece).await?;
            if count == 0 {
                return to.shutdown().await;
            }
            self.bytes += count as u64;
            self.hasher.update(&piece[..count]);
            to.write_all(&piece[..count]).await?;
        }
    }

    fn payload(&self) -> Payload {
        let digest = (self.bytes > 0).then(|| self.hasher.finalize().to_hex().to_string());
        Payload { bytes: self.bytes, digest }
    }
}

/// Connects to the workload's own loopback.
fn dial(netns: &OwnedFd, port: u16) -> io::Result<std::net::TcpStream> {
    let own = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
    let own = own.map(|address| SocketAddr::new(address, port));
    let stream = namespace::dial(netns.as_fd(), &own, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// Ends a connection by RST: nothing was said on it.
fn refuse(stream: TcpStream) {
    if let Ok(stream) = stream.into_std() {
        accept::reset(stream);
    }
}

/// Whether somebody may call: root, and whom `match` lists by uid or group. Without either it is for root alone.
fn may_call(matches: &Match, uid: u32) -> bool {
    let Match { uids, gids, .. } = matches;
    let is_listed = || {
        let by_uid = uids.is_empty() || uids.contains(&uid);
        let by_group = gids.is_empty() || gids.iter().any(|gid| is_in_group(uid, *gid));
        !(uids.is_empty() && gids.is_empty()) && by_uid && by_group
    };
    uid == 0 || is_listed()
}

/// Whether a user is in a group, as the host's databases have it.
pub(super) fn is_in_group(uid: u32, gid: u32) -> bool {
    let Ok(Some(user)) = User::from_uid(Uid::from_raw(uid)) else { return false };
    let Ok(name) = std::ffi::CString::new(user.name) else { return false };
    nix::unistd::getgrouplist(&name, user.gid).is_ok_and(|groups| groups.contains(&Gid::from_raw(gid)))
}

/// Who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Caller {
    uid: u32,
    /// Whether he may.
    may: bool,
    /// As whom he logged in, where the kernel knows it; not asked of who may not call.
    loginuid: Option<u32>,
    /// What his socket is known by in `/proc/PID/fd`.
    inode: u32,
}

/// Whether the socket of this inode is the daemon's own. One that can't be looked for could be.
fn is_held_here(inode: u32) -> bool {
    let socket = format!("socket:[{inode}]");
    let is_it = |entry: std::fs::DirEntry| {
        std::fs::read_link(entry.path()).is_ok_and(|link| link.as_os_str() == socket.as_str())
    };
    std::fs::read_dir("/proc/self/fd").map_or(true, |mut open| open.any(|entry| entry.map_or(true, is_it)))
}

/// Looking who has a socket takes some time on a host with many processes: so many do at once.
static LOOKING: Semaphore = Semaphore::const_new(2);

/// Who is at the other end of an accepted connection; none if it is closed, or no process has it any more, so that nobody can
/// be asked about.
async fn caller_of(peer: SocketAddr, own: SocketAddr, matches: &Match) -> Option<Caller> {
    let unsaid =
        |error: io::Error| tracing::error!(%error, "the kernel doesn't say whose a socket is, so a call is refused");
    let owner = Diagnosis::open().and_then(|diagnosis| diagnosis.owner(peer, own));
    let Owner { uid, inode } = owner.map_err(unsaid).ok()??;
    let may = may_call(matches, uid);
    if !may || !login::is_known() {
        return Some(Caller { uid, may, loginuid: None, inode });
    }
    let _turn = LOOKING.acquire().await.ok()?;
    let found = tokio::task::spawn_blocking(move || login::of_socket(inode, uid)).await.map_err(io::Error::other);
    let loginuid = found.and_then(|found| found).map_err(unsaid).ok()??;
    Some(Caller { uid, may, loginuid, inode })
}

#[cfg(test)]
mod tests;
