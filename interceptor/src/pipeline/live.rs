//! An admitted connection that lives: what its operations share, how long it may go on, and why it ends.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::uri;
use jiff::Timestamp;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, timeout};
use zeroize::Zeroizing;

use super::authenticate::Identified;
use super::connection::Session;
use super::membership::Again;
use super::registry::Seat;
use super::reply::Refusal;
use super::request::names;
use super::ruling::{Known, Ruling};
use crate::config::{Host, Target};
use crate::identity::provenance::Newest;
use crate::ids::TargetName;
use crate::policy::{Operation, Principal};
use crate::transport::http::{Allowance, Hop, Version};
use crate::transport::sever::Line;

/// How often a client that waits is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// How long what goes on waits, when policy asks for groups that nobody asked for before: it is cut within a second.
const FIRST_LOOK: Duration = Duration::from_millis(500);

/// An admitted connection that serves operations.
pub(super) struct Live {
    session: Rc<Session>,
    host: Host,
    tls: bool,
    version: Version,
    /// What the client may still make us do unasked, in HTTP/2.
    allowance: Option<Rc<Allowance>>,
    /// What is known of the client's stream.
    line: Arc<Line>,
    /// The connection upstream; none once it is closed. In HTTP/1.1 the operation that is under way holds it; in HTTP/2
    /// each has a share.
    pub(super) hop: Mutex<Option<Hop>>,
    /// Why the connection is ending, once it is.
    ended: watch::Sender<Option<&'static str>>,
    /// Until when it may live, if that is bounded.
    until: watch::Sender<Option<Instant>>,
    /// Whether it has become a WebSocket.
    joined: Cell<bool>,
    /// Whether only a grant or the broken glass admitted it.
    let_through: Cell<bool>,
    /// How many operations are under way.
    busy: watch::Sender<usize>,
    /// How many requests have no answer yet; they may still be decided, or wait for that.
    unanswered: Cell<usize>,
    /// When the last request or operation ended; when it was admitted, before the first.
    used: Cell<Instant>,
    /// The client's TCP connection, where only it tells that the client is gone.
    client: RefCell<Option<OwnedFd>>,
    /// Whom the token names that was judged last.
    judged: RefCell<Option<Remembered>>,
}

/// A token that was judged.
struct Remembered {
    /// In which generation.
    generation: u64,
    who: Identified,
    /// The token itself, until the connection rests: to compare it is quicker than to digest it.
    token: Option<Zeroizing<String>>,
}

/// A request that has no answer yet.
pub(super) struct Unanswered(Rc<Live>);

impl Drop for Unanswered {
    fn drop(&mut self) {
        self.0.used.set(Instant::now());
        self.0.unanswered.set(self.0.unanswered.get().saturating_sub(1));
    }
}

impl Live {
    pub(super) fn new(session: Rc<Session>, host: Host, tls: bool, hop: Hop) -> Rc<Self> {
        let version = hop.version();
        let allowance = (version == Version::Http2).then(Rc::default);
        let hop = Mutex::new(Some(hop));
        let (ended, until) = (watch::Sender::new(None), watch::Sender::new(None));
        let (line, busy) = (Arc::default(), watch::Sender::new(0));
        Rc::new(Self {
            session,
            host,
            tls,
            version,
            allowance,
            line,
            hop,
            ended,
            until,
            joined: Cell::default(),
            let_through: Cell::default(),
            busy,
            unanswered: Cell::default(),
            used: Cell::new(Instant::now()),
            client: RefCell::default(),
            judged: RefCell::default(),
        })
    }

    pub(super) fn session(&self) -> &Rc<Session> {
        &self.session
    }

    pub(super) fn host(&self) -> &Host {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.session.port
    }

    pub(super) fn tls(&self) -> bool {
        self.tls
    }

    /// The version of HTTP that is spoken on it, on both sides.
    pub(super) fn version(&self) -> Version {
        self.version
    }

    /// What the client may still make us do unasked; none in HTTP/1.1, where there is no such thing.
    pub(super) fn allowance(&self) -> Option<&Rc<Allowance>> {
        self.allowance.as_ref()
    }

    /// What is known of the client's stream, and how it is told to end.
    pub(super) fn line(&self) -> &Arc<Line> {
        &self.line
    }

    /// The name of the target, in the world of the moment.
    pub(super) fn target(&self) -> Option<TargetName> {
        let world = self.session.world();
        world.snapshot.settings.targets.find(&self.host, self.port()).map(|target| target.name.clone())
    }

    /// What the world of the moment says of the target.
    pub(super) fn target_settings(&self) -> Option<Arc<Target>> {
        let world = self.session.world();
        world.snapshot.settings.targets.find(&self.host, self.port()).map(Arc::clone)
    }

    /// Whether an authority names what this connection is for.
    pub(super) fn is(&self, authority: &uri::Authority) -> bool {
        names(authority, &self.host, self.port(), if self.tls { 443 } else { 80 })
    }

    /// Whether this is the very name that the connection is for, at the port that goes without saying.
    pub(super) fn is_called(&self, authority: &[u8]) -> bool {
        let default_port = if self.tls { 443 } else { 80 };
        matches!(&self.host, Host::Name(name) if self.port() == default_port && name.as_str().as_bytes() == authority)
    }

    /// Decides an operation, whose token names `who`, in the world of the moment.
    pub(super) fn rule(&self, who: Option<&Identified>, operation: Operation<'_>, known: Known) -> Ruling {
        self.session.rule(who, operation, known)
    }

    /// Decides the connection again.
    pub(super) fn rule_connect(&self) -> Ruling {
        self.session.rule_connect(&self.host, self.tls)
    }

    /// Whether the connection may go on in the world of the moment, and for how long.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn may_go_on(&self) -> Result<(), Refusal> {
        let permit = self.rule_connect().verdict?;
        self.allow_for(permit.basis().obligations.max_session);
        Ok(())
    }

    /// Bounds the connection's life, in seconds from its opening: the least of what all its permits say.
    pub(super) fn allow_for(&self, max_session: Option<u64>) {
        let Some(until) = max_session.and_then(|time| self.session.opened.checked_add(Duration::from_secs(time)))
        else {
            return;
        };
        self.until.send_if_modified(|current| {
            let sooner = current.is_none_or(|current| until < current);
            if sooner {
                *current = Some(until);
            }
            sooner
        });
    }

    /// Remembers whom a token names, as of the configuration's generation.
    pub(super) fn remember(&self, generation: u64, who: Identified) {
        self.judged.replace(Some(Remembered { generation, who, token: None }));
    }

    /// Whom a token names, if it is the one that was judged last: in this generation, with nothing else known of tokens
    /// since, and not at its end.
    pub(super) fn recall(&self, token: &str, (generation, seen): (u64, u64)) -> Option<Identified> {
        let mut judged = self.judged.borrow_mut();
        let last = judged.as_mut()?;
        let worker = &self.session.worker;
        if last.generation != generation || last.who.seen != seen || worker.now() >= last.who.until {
            return None;
        }
        match &last.token {
            Some(known) if known.as_str() == token => {}
            _ if last.who.token == worker.pipeline.judge.digest(token) => {
                last.token = Some(Zeroizing::new(token.to_owned()));
            }
            _ => return None,
        }
        Some(last.who.clone())
    }

    /// Waits until a token that is accepted `until` then isn't any more; for ever without one.
    pub(super) async fn token_expired(&self, until: Option<Timestamp>) {
        let Some(until) = until else { return std::future::pending().await };
        let left = until.duration_since(self.session.worker.now());
        tokio::time::sleep(left.try_into().unwrap_or_default()).await;
    }

    /// Brings what is known of a principal up to what its issuer said last. Gives whether that is something else. What no
    /// token tells has to be [looked up again](Live::groups_lost) then.
    ///
    /// # Errors
    /// The code of why its token isn't good any more.
    pub(super) fn renew(&self, who: &mut Identified) -> Result<bool, &'static str> {
        Ok(self.newest(who)?.is_some_and(|newest| who.renew(&newest)))
    }

    fn newest(&self, who: &Identified) -> Result<Option<Newest>, &'static str> {
        self.session.worker.pipeline.judge.standing(&who.token, &self.session.subject.workload)
    }

    /// Brings all that is known of who sends an operation up to now: what the issuer said last, groups that have to be looked
    /// up again, and those that policy asks for and nobody looked up; these as of the newest token, too. What can't be had
    /// is unknown. Who sends a token that isn't good any more stays as he was: that is found before anything is sent.
    pub(super) async fn refresh(&self, who: &mut Identified, action: &str) {
        let Ok(newest) = self.newest(who) else { return };
        if let Some(newest) = &newest {
            who.renew(newest);
        }
        let (worker, world) = (&self.session.worker, self.session.world());
        let needs = |target: TargetName| world.snapshot.needs_groups(&target, action);
        let first = || {
            let is_asked = who.principal.groups.is_none() && self.target().is_some_and(needs);
            is_asked.then(|| newest.as_ref().map_or(0, |newest| newest.place + 1))
        };
        let Some(wanted) = who.due(worker.now()).or_else(first) else { return };
        let (judge, identities) = (&worker.pipeline.judge, &world.snapshot.settings.identities);
        // On the heap: hardly any operation comes here.
        let found = Box::pin(judge.groups(identities, &who.principal, wanted)).await;
        who.regroup(found);
    }

    /// Looks up groups that policy didn't ask for before it changed, unless the connection is ending. For half a second at
    /// most: what goes on meanwhile may be permitted no longer, whatever they are.
    pub(super) async fn look_first(&self, who: Option<&mut Identified>, action: &str) {
        let Some(who) = who.filter(|who| who.principal.groups.is_none()) else { return };
        let mut ended = self.endings();
        tokio::select! {
            _ended = ended.wait_for(Option::is_some) => {}
            _in_time = timeout(FIRST_LOOK, self.refresh(who, action)) => {}
        }
    }

    /// Waits until groups that no token tells were looked up again, and aren't what they were; gives the code of what ends
    /// for that. For ever where there are none. It goes on where it was if it is waited for anew with the same `again`.
    pub(super) async fn groups_lost(&self, again: &mut Again, who: Option<&mut Identified>) -> &'static str {
        let worker = &self.session.worker;
        let ask = |principal: Arc<Principal>, wanted| {
            let (pipeline, world) = (Arc::clone(&worker.pipeline), self.session.world());
            async move { pipeline.judge.groups(&world.snapshot.settings.identities, &principal, wanted).await }
        };
        again.look(who, || worker.now(), ask).await
    }

    /// Waits until the longest time that policy allows the connection is over.
    pub(super) async fn time_is_up(&self) {
        let mut until = self.until.subscribe();
        loop {
            let at = *until.borrow_and_update();
            let over = async {
                match at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = over => return,
                Ok(()) = until.changed() => {}
            }
        }
    }

    /// Ends what is under way, with the reason that the record gives.
    pub(super) fn end(&self, why: &'static str) {
        self.ended.send_replace(Some(why));
    }

    /// Why the connection is ending, if it is.
    pub(super) fn ended(&self) -> Option<&'static str> {
        *self.ended.borrow()
    }

    /// Why the connection is ending, to be watched.
    pub(super) fn endings(&self) -> watch::Receiver<Option<&'static str>> {
        self.ended.subscribe()
    }

    /// A place among the operations of the workload that are under way; none where there are too many.
    pub(super) fn seat(&self) -> Option<Seat> {
        let most = self.session.limits().operations;
        self.session.worker.pipeline.registry.seat(self.session.subject.launch, most)
    }

    /// An operation begins.
    pub(super) fn begin(&self) {
        self.busy.send_modify(|count| *count += 1);
    }

    /// An operation has ended.
    pub(super) fn finish(&self) {
        self.used.set(Instant::now());
        self.busy.send_modify(|count| *count = count.saturating_sub(1));
    }

    /// Whether an operation is under way.
    pub(super) fn is_busy(&self) -> bool {
        *self.busy.borrow() > 0
    }

    /// A request has come. It waits for its answer until what this gives is dropped, also where its stream is reset.
    pub(super) fn asked(self: &Rc<Self>) -> Unanswered {
        self.unanswered.set(self.unanswered.get() + 1);
        Unanswered(Rc::clone(self))
    }

    /// Since when nothing was asked and no operation is under way; none while something is.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        (!self.is_busy() && self.unanswered.get() == 0).then(|| self.used.get())
    }

    /// The connection rests, and so does the one upstream.
    pub(super) fn rest(&self) {
        self.client.take();
        self.session.worker.pipeline.registry.free();
        if let Some(last) = self.judged.borrow_mut().as_mut() {
            last.token = None;
        }
        if let Ok(mut hop) = self.hop.try_lock()
            && let Some(hop) = hop.as_mut()
        {
            hop.rest();
        }
    }

    /// The connection becomes a WebSocket. It ends with a reset, unless it is found to have ended in order.
    pub(super) fn join(&self) {
        self.joined.set(true);
        self.line.sever(true);
    }

    /// Whether only a grant or the broken glass admits it.
    pub(super) fn let_through(&self, let_through: bool) {
        self.let_through.set(let_through);
    }

    /// As [`Live::let_through`] said.
    pub(super) fn is_let_through(&self) -> bool {
        self.let_through.get()
    }

    /// Whether it has become a WebSocket.
    pub(super) fn is_joined(&self) -> bool {
        self.joined.get()
    }

    /// Watches the client's TCP connection until the connection rests: in HTTP/1.1 hyper doesn't, while a request is being
    /// answered.
    pub(super) fn watch_client(&self, tcp: &impl AsFd) {
        match tcp.as_fd().try_clone_to_owned() {
            Ok(client) => drop(self.client.replace(Some(client))),
            Err(error) => tracing::warn!(%error, "a client can't be watched"),
        }
    }

    /// Whether the client is gone, as far as its connection tells. Who closes TLS is; in clear a closed end may be a half
    /// close (RFC 9112 section 9.6).
    pub(super) fn is_client_gone(&self) -> bool {
        let client = self.client.borrow();
        let Some(client) = client.as_ref() else { return false };
        let closed = if self.tls { PollFlags::from_bits_retain(libc::POLLRDHUP) } else { PollFlags::empty() };
        let mut polled = [PollFd::new(client.as_fd(), closed)];
        // Errors and hang-ups are told unasked.
        poll(&mut polled, PollTimeout::ZERO).is_ok_and(|count| count > 0)
    }

    /// Waits until the client is gone.
    pub(super) async fn client_gone(&self) {
        while !self.is_client_gone() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Waits until no operation is under way.
    pub(super) async fn done(&self) {
        let mut busy = self.busy.subscribe();
        // Whoever counts lives as long as this.
        let _counted = busy.wait_for(|count| *count == 0).await;
    }

    /// Waits until nothing was asked and no operation was under way for this long. Looks at the end of such a time instead of
    /// watching each request.
    pub(super) async fn idle(&self, time: Duration) {
        loop {
            let since = self.idle_since();
            let until = since.unwrap_or_else(Instant::now) + time;
            if since.is_some() && until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}
