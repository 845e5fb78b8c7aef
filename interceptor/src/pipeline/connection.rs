//! A connection before it is admitted: where it goes, its place in the registry, what it speaks.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::authenticate::Identified;
use super::gate::not_recorded;
use super::registry::Order;
use super::reply::Refusal;
use super::ruling::{Known, Moment, Ruling, Subject};
use super::{Worker, World};
use crate::config::{Host, Limits, is_loopback};
use crate::detect::{self, Detected as Told, Kind};
use crate::error::{Blame, Fault};
use crate::ids::{OperationId, SessionId};
use crate::policy::Operation;
use crate::record::event::{Kept, Payload, What};
use crate::record::payload::SealedPayload;
use crate::record::{Content, Event, RecordError, Recorded, SessionKey};
use crate::transport::hello::{self, HandshakeError, Hello};
use crate::transport::names::Names;
use crate::transport::taken::Ticket;
use crate::who::{Attribution, Process};

/// Why a connection ended, as the record says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ending(pub(super) &'static str);

/// A connection whose destination is known as far as it can be.
pub(super) struct Located {
    worker: Rc<Worker>,
    attribution: Attribution,
    host: Option<Host>,
}

impl Located {
    /// Finds the host behind the original destination: the name that a synthetic address stands for, or the address
    /// itself. A synthetic address that stands for no name is no host: it is refused, never dialled.
    pub(super) fn new(worker: Rc<Worker>, attribution: Attribution) -> Self {
        let address = attribution.original.ip().to_canonical();
        let host = if Names::is_synthetic(address) {
            let names = worker.pipeline.directory.of(attribution.workload.id);
            names.and_then(|lookups| lookups.names.name_of(address)).map(Host::Name)
        } else {
            Some(literal(&worker, &attribution))
        };
        Self { worker, attribution, host }
    }

    /// Enters the registry and records the opening. A connection that can't be recorded is heard out, to be told so.
    pub(super) fn register(self, stream: TcpStream, ticket: Ticket) -> Registered {
        let Located { worker, attribution, host } = self;
        let id = SessionId::new();
        let world = Arc::clone(&worker.pipeline.worlds.borrow());
        let port = attribution.original.port();
        let target = host.as_ref().and_then(|host| world.snapshot.settings.targets.find(host, port));
        let opened = What::SessionOpened {
            session: id,
            launch: attribution.workload.id,
            workload: attribution.workload.settings.name.clone(),
            process: attribution.process.clone(),
            original: attribution.original,
            host: host.clone(),
            target: target.map(|target| target.name.clone()),
        };
        let order = worker.pipeline.registry.enter(id, attribution.workload.id);
        let recorded = worker.record(opened);
        match &recorded {
            Ok(_recorded) => ticket.recorded(),
            Err(error) => tracing::error!(%error, "a connection could not be recorded, so it is refused"),
        }
        let session = Session {
            id,
            port,
            host,
            subject: Subject::of(&attribution.workload),
            process: attribution.process.clone(),
            is_recorded: recorded.is_ok(),
            opened: Instant::now(),
            order,
            worlds: worker.pipeline.worlds.clone(),
            worker,
            key: OnceCell::new(),
            cut_by: RefCell::default(),
        };
        Registered { session: Rc::new(session), stream }
    }
}

/// `localhost` where a target lists that name, else the address.
fn literal(worker: &Worker, attribution: &Attribution) -> Host {
    let address = attribution.original.ip();
    if is_loopback(address)
        && let Ok(localhost) = "localhost".parse()
    {
        let world = worker.pipeline.worlds.borrow();
        let targets = &world.snapshot.settings.targets;
        let (host, port) = (Host::Name(localhost), attribution.original.port());
        if targets.find(&address.into(), port).is_none() && targets.find(&host, port).is_some() {
            return host;
        }
    }
    address.into()
}

/// What is known of a connection for as long as it lives.
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) worker: Rc<Worker>,
    /// The host it is for; none for a synthetic address that stands for no name.
    pub(super) host: Option<Host>,
    pub(super) port: u16,
    pub(super) subject: Subject,
    /// The process that connected, if known.
    pub(super) process: Option<Process>,
    /// Whether its opening is in the record; else nothing of it may go on.
    pub(super) is_recorded: bool,
    /// When it was accepted.
    pub(super) opened: Instant,
    /// What is asked of it from outside.
    pub(super) order: watch::Receiver<Order>,
    /// The worlds that come; a copy is made for each wait.
    pub(super) worlds: watch::Receiver<Arc<World>>,
    /// What its payloads are sealed under, once there are any.
    key: OnceCell<SessionKey>,
    /// The policies that it is cut by, once it is.
    pub(super) cut_by: RefCell<Vec<String>>,
}

impl Session {
    /// The world of the moment.
    pub(super) fn world(&self) -> Arc<World> {
        Arc::clone(&self.worker.pipeline.worlds.borrow())
    }

    /// The limits of the moment.
    pub(super) fn limits(&self) -> Limits {
        self.worker.limits()
    }

    /// Decides an operation, whose token names `who`, in the world of the moment.
    pub(super) fn rule(&self, who: Option<&Identified>, operation: Operation<'_>, known: Known) -> Ruling {
        let (world, grants) = (self.world(), self.worker.pipeline.desk.grants());
        let moment = Moment { world: &world, grants: &grants, at: self.worker.now() };
        Ruling::make(&moment, &self.subject, who, operation, known).concealed(&world, &self.worker.pipeline.mask_key)
    }

    /// Decides whether the connection itself may be, in the world of the moment: policy, then whether its target is
    /// served in clear, if it is in clear.
    pub(super) fn rule_connect(&self, host: &Host, tls: bool) -> Ruling {
        let world = self.world();
        let ruling = self.rule(None, Operation::Connect { host, port: self.port }, Known::default());
        let cleartext = || world.snapshot.settings.targets.find(host, self.port).is_some_and(|target| target.cleartext);
        if ruling.verdict.is_err() || tls || cleartext() {
            return ruling;
        }
        Ruling::refused(ruling.action, ruling.summary, ruling.target, cleartext_refused())
    }

    /// Records a ruling as an operation of this session.
    ///
    /// # Errors
    /// When it can't be stored: then it is denied, whatever was decided.
    pub(super) fn record(&self, ruling: &Ruling) -> Result<(OperationId, Recorded), Refusal> {
        self.worker.counted.operation(ruling);
        let operation = OperationId::new();
        let intent = (self.worker.now(), operation, Some(self.id));
        let recorded = self.worker.record_intent(&ruling.intent(intent, &self.subject));
        recorded.map(|recorded| (operation, recorded)).map_err(|error| {
            let refusal = Refusal::from(not_recorded(&error));
            if error.leaves_denials() {
                let denied = (self.worker.now(), operation, Some(self.id));
                if let Err(error) = self.worker.record_intent(&ruling.denied(&refusal, denied, &self.subject)) {
                    tracing::error!(%error, "an outcome could not be recorded");
                }
                self.finish(operation, "denied", None);
            } else {
                tracing::error!(%error, "an operation could not be recorded, so it is denied");
            }
            refusal
        })
    }

    /// Does something with the key of its payloads, which is made when it is first needed.
    ///
    /// # Errors
    /// When there can't be one, and what `with` says.
    pub(super) fn with_key<T>(
        &self,
        with: impl FnOnce(&SessionKey) -> Result<T, RecordError>,
    ) -> Result<T, RecordError> {
        let key = match self.key.get() {
            Some(key) => key,
            None => {
                let key = self.worker.pipeline.keys.new_session(self.id)?;
                self.key.get_or_init(|| key)
            }
        };
        with(key)
    }

    /// Records how an operation ended, with what is to be kept of it. What can't be kept doesn't keep the outcome out.
    pub(super) fn end(
        &self,
        operation: OperationId,
        content: Option<Content>,
        ended: impl FnOnce(Option<Kept>) -> What,
    ) {
        let Some(content) = content else { return self.worker.record_end(ended(None)) };
        let sealed = self.with_key(|key| key.seal(operation, &content));
        let what = ended(sealed.as_ref().ok().map(SealedPayload::kept));
        let mut event = Event { at: self.worker.now(), what };
        let stored = sealed.and_then(|sealed| self.with_key(|key| self.worker.record_with((key, &sealed), &event)));
        if let Err(error) = stored {
            tracing::error!(%error, %operation, "what an operation sent and got could not be kept");
            if let What::OperationFinished { kept, .. } = &mut event.what {
                *kept = None;
            }
            self.worker.record_end(event.what);
        }
    }

    /// Records how an operation without bodies ended.
    pub(super) fn finish(&self, operation: OperationId, outcome: &str, status: Option<u16>) {
        self.worker.record_end(What::OperationFinished {
            operation,
            outcome: outcome.to_owned(),
            policies: Vec::new(),
            status,
            request: Payload::default(),
            response: Payload::default(),
            masked: BTreeMap::new(),
            spent: None,
            service_request: None,
            kept: None,
        });
    }

    /// Records the end and leaves the registry.
    pub(super) fn close(&self, ending: Ending) {
        metrics::counter!("interceptor_sessions_closed_total", "reason" => ending.0).increment(1);
        if self.is_recorded {
            let (session, reason, policies) = (self.id, ending.0.to_owned(), self.cut_by.take());
            self.worker.record_end(What::SessionClosed { session, reason, policies });
        }
        self.worker.pipeline.registry.leave(self.id);
    }
}

/// A connection that is in the registry.
pub(super) struct Registered {
    session: Rc<Session>,
    stream: TcpStream,
}

/// What the client speaks.
pub(super) enum Spoken {
    /// TLS, with its ClientHello read.
    Tls(Box<Hello>),
    /// HTTP/1.1 in clear.
    Http(TcpStream),
    /// HTTP/2 in clear, by prior knowledge.
    Http2(TcpStream),
    /// Neither, or nothing within the time for it.
    Unknown(TcpStream),
}

/// A connection whose protocol is known.
pub(super) struct Detected {
    pub(super) session: Rc<Session>,
    pub(super) spoken: Spoken,
}

impl Registered {
    /// The session.
    pub(super) fn session(&self) -> Rc<Session> {
        Rc::clone(&self.session)
    }

    /// Looks at the first bytes, without taking them.
    ///
    /// # Errors
    /// The ending, when the client is gone or sent a ClientHello that can't be read.
    pub(super) async fn detect(self) -> Result<Detected, Ending> {
        let Registered { session, stream } = self;
        let limit = session.limits().detect_timeout;
        let deadline = Instant::now() + limit;
        let kind = match timeout(limit, first_bytes(&stream)).await {
            Ok(Ok(kind)) => kind,
            Ok(Err(_gone)) => return Err(Ending("client-gone")),
            Err(_elapsed) => Kind::Unknown,
        };
        let spoken = match kind {
            Kind::Tls => {
                let hello = hello::read(stream, deadline.saturating_duration_since(Instant::now())).await;
                Spoken::Tls(Box::new(hello.map_err(|error| refused_handshake(&session, &error))?))
            }
            Kind::Http => Spoken::Http(stream),
            Kind::Http2 => Spoken::Http2(stream),
            Kind::Unknown => Spoken::Unknown(stream),
        };
        Ok(Detected { session, spoken })
    }
}

/// How the record says that a client and we didn't come to terms over TLS.
pub(super) fn refused_handshake(session: &Session, error: &HandshakeError) -> Ending {
    tracing::debug!(%error, session = %session.id, "no TLS with a client");
    Ending(match error {
        HandshakeError::Timeout => "handshake-timeout",
        HandshakeError::ClientRefusedCertificate(_) => "certificate-refused",
        HandshakeError::Gone(_) => "client-gone",
        _ => "handshake-failed",
    })
}

fn cleartext_refused() -> Fault {
    Fault {
        code: "cleartext-refused",
        blame: Blame::Policy,
        told: "this target is not served without TLS".into(),
        next: "use https; or the operator sets `cleartext = true` on the target",
    }
}

/// What the first bytes are. They arrive in pieces; each look sees all that came so far.
async fn first_bytes(stream: &TcpStream) -> std::io::Result<Kind> {
    let mut bytes = [0; detect::ENOUGH];
    let mut seen = 0;
    let mut rest = Duration::from_millis(1);
    loop {
        let length = stream.peek(&mut bytes).await?;
        if length == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if let Told::Is(kind) = detect::detect(&bytes[..length]) {
            return Ok(kind);
        }
        if length == seen {
            // Readable without news: more is not there yet. Looked at less and less often, until the time is out.
            sleep(rest).await;
            rest = (rest * 2).min(Duration::from_millis(50));
        }
        seen = length;
    }
}
