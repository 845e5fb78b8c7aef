//! What the daemon answers on the control socket.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;

use super::emergencies::Emergencies;
use super::engage::EngageError;
use super::launches::Launches;
use super::login::Logins;
use super::payloads;
use super::people::{People, Said, unrecorded};
use super::reload::Loader;
use super::retention::Retention;
use crate::config::{Control, Named};
use crate::control::peer::Peer;
use crate::control::protocol::{Explained, Request, Response, Run, Told};
use crate::control::server::{Answer, Answering, Caller};
use crate::export::Exporter;
use crate::launch;
use crate::notify::Notifier;
use crate::pipeline::Pipeline;
use crate::policy;
use crate::record::event::What;
use crate::record::query::{Operation, Session};
use crate::record::search::Search;
use crate::record::{self, QueryError, Reader, Record};

/// Where somebody finds ids who gave none that is known.
const NOT_FOUND: &str = "`interceptor sessions list` shows what there is";

/// How long a question waits for what was just recorded to be in the database.
const FLUSH: Duration = Duration::from_secs(2);

/// How long the database may take for an answer: anybody may ask, and the next one waits for a thread.
const ANSWER: Duration = Duration::from_secs(10);

/// The daemon, as the control socket sees it. Clones share everything.
#[derive(Clone)]
pub(super) struct Host(Arc<Shared>);

pub(super) struct Shared {
    pub(super) record: Arc<Record>,
    pub(super) exporter: Arc<Exporter>,
    pub(super) notifier: Arc<Notifier>,
    pub(super) launches: Arc<Launches>,
    pub(super) loader: Arc<Loader>,
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) logins: Arc<Logins>,
    pub(super) started: Timestamp,
}

impl Host {
    pub(super) fn new(
        record: Arc<Record>,
        exporter: Arc<Exporter>,
        notifier: Arc<Notifier>,
        launches: Arc<Launches>,
        loader: Arc<Loader>,
        pipeline: Arc<Pipeline>,
        logins: Arc<Logins>,
    ) -> Self {
        let started = pipeline.clock.now();
        Self(Arc::new(Shared { record, exporter, notifier, launches, loader, pipeline, logins, started }))
    }
}

impl crate::control::server::Host for Host {
    fn answer(&self, caller: Caller, request: Request, descriptors: Vec<OwnedFd>) -> Answering<'_> {
        let shared = Arc::clone(&self.0);
        Box::pin(async move {
            // Files, namespaces and SQLite block; the control runtime doesn't.
            let answered = tokio::task::spawn_blocking(move || shared.answer_and_tell(caller, request, descriptors));
            answered.await.unwrap_or_else(|_panicked| {
                Answer::refused("internal", "the daemon failed at this", "see the daemon's log")
            })
        })
    }

    fn roles(&self) -> Control {
        self.0.pipeline.worlds.borrow().snapshot.settings.control.clone()
    }

    fn governs(&self, cgroup: &Path) -> bool {
        self.0.launches.adoptions().governs(cgroup)
    }

    fn refused(&self, peer: &Peer, request: &str, code: &str) {
        self.0.launches.journal().note(What::ControlRequest {
            uid: peer.uid,
            pid: peer.pid,
            request: request.to_owned(),
            refused: Some(code.to_owned()),
        });
    }
}

impl Shared {
    /// Answers, and takes down what of that is to be in the record.
    fn answer_and_tell(&self, caller: Caller, request: Request, descriptors: Vec<OwnedFd>) -> Answer {
        let (uid, pid, told, words) = (caller.peer.uid, caller.peer.pid, request.told(), request.in_words());
        let event = |refused| What::ControlRequest { uid, pid, request: words.clone(), refused };
        let journal = self.launches.journal();
        if told == Told::Before
            && let Err(error) = journal.record(event(None))
        {
            return unrecorded(&error);
        }
        let answer = self.answer(caller, request, descriptors);
        let refused = match &answer.response {
            Response::Done(_) => None,
            Response::Refused { code, .. } => Some(code.clone()),
        };
        match told {
            Told::No | Told::Apart => {}
            Told::Before | Told::Refused if refused.is_none() => {}
            Told::Before | Told::Refused | Told::Always => journal.note(event(refused)),
        }
        answer
    }

    fn answer(&self, caller: Caller, request: Request, descriptors: Vec<OwnedFd>) -> Answer {
        match request {
            Request::Status => value(&self.status()),
            Request::Workloads => value(&self.launches.list()),
            Request::Ledger => match self.launches.ledger(|_| true) {
                Ok(ledgers) => value(&ledgers),
                Err(error) => Answer::refused(
                    "ledger-unreadable",
                    format!("what the kernel counted can't be read: {error}"),
                    "see the daemon's log and `interceptor doctor`",
                ),
            },
            Request::PolicyReload => match self.loader.reload(Some(caller.peer.uid)) {
                Ok(loaded) => value(&loaded),
                Err(error) => Answer::refused(
                    "refused-to-load",
                    error.to_string(),
                    "the last good settings and policies stay in force; mend the file and reload again",
                ),
            },
            Request::PolicyShow => value(&self.loader.world().snapshot.in_force()),
            Request::PolicyExplain { operation } => {
                self.with_reader(|reader| Ok(json!(self.explain(reader, &operation)?)))
            }
            Request::SessionsList { limit } => self.with_reader(|reader| {
                let mut sessions = reader.sessions(limit, caller.sees_only())?;
                sessions.iter_mut().for_each(|session| self.name_session(session));
                Ok(json!(sessions))
            }),
            Request::SessionsShow { id } => self.with_reader(|reader| {
                let mut story = reader.session(&id)?;
                own(&caller, story.launch.as_ref().map(|launch| launch.initiator), &id)?;
                self.name_session(&mut story.session);
                story.operations.iter_mut().for_each(|operation| self.name_operation(operation));
                Ok(json!(story))
            }),
            Request::SessionsOperations { session, after } => self.with_reader(|reader| {
                let mut operations = reader.operations(&session, Some(&after))?;
                own(&caller, operations.first().and_then(|operation| operation.initiator), &session)?;
                operations.iter_mut().for_each(|operation| self.name_operation(operation));
                Ok(json!(operations))
            }),
            Request::OperationLink { operation } => self.with_reader(|reader| {
                own_operation(&caller, reader, &operation)?;
                Ok(json!(reader.link_of(&operation)?))
            }),
            Request::PayloadRead { operation } => {
                self.reading(|reader| match own_operation(&caller, reader, &operation) {
                    Ok(()) => payloads::read(&self.record, self.launches.journal(), &caller.peer, &operation),
                    Err(error) => Answer::refused(error.code(), error.to_string(), NOT_FOUND),
                })
            }
            Request::SessionsSearch { search } => {
                let mut search = self.by_id(*search);
                search.initiator = caller.sees_only().or(search.initiator);
                self.with_reader(|reader| {
                    let mut hits = reader.search(&search)?;
                    hits.hits.iter_mut().for_each(|hit| self.name_operation(&mut hit.operation));
                    Ok(json!(hits))
                })
            }
            Request::SessionsPrune { before } => self.retention(&caller.peer).prune(before),
            Request::SessionsErase { id } => self.retention(&caller.peer).erase(&id),
            Request::SessionsHold { id, held } => self.retention(&caller.peer).hold(&id, held),
            Request::RecordRotate => self.retention(&caller.peer).rotate(&self.loader),
            Request::SessionsVerify => match self.flush().and_then(|()| record::verify(self.record.database())) {
                Ok(report) => value(&report),
                Err(error) => {
                    Answer::refused("record-unreadable", error.to_string(), "check the state folder and its disk")
                }
            },
            Request::ApprovalsList { all: false, limit } => self.people().open(&caller, limit),
            Request::ApprovalsList { all: true, limit } => {
                self.with_reader(|reader| Ok(json!(reader.approvals(limit)?)))
            }
            Request::ApprovalsShow { id } => self.reading(|reader| self.people().show(&caller, &id, reader)),
            Request::ApprovalsAnswer { id, yes, width, note } => {
                self.people().answer(&caller, &id, Said { yes, width, note })
            }
            Request::ApprovalsEvidence { id } => self.with_reader(|reader| Ok(json!(reader.recorded(&id)?))),
            Request::LoginBegin(begin) => self.reading(|reader| self.people().begin(&caller, *begin, reader)),
            Request::LoginEnd { login, query } => self.people().end(&caller, &login, query.as_deref()),
            Request::Logout => self.people().logout(&caller),
            Request::GrantsList { all, limit } => self.with_reader(|reader| {
                let mut grants = reader.grants(all, limit)?;
                let now = self.pipeline.clock.now();
                grants.retain(|one| all || (one.ended_at.is_none() && now < one.grant.until));
                Ok(json!(grants))
            }),
            Request::GrantsIssue(issue) => self.people().issue(&caller, issue),
            Request::GrantsRevoke { id } => self.reading(|reader| self.people().revoke(&caller, &id, reader)),
            Request::SessionsKill { id } => self.people().kill(&caller, &id),
            Request::BreakGlassStart(start) => self.emergencies().start(&caller, start),
            Request::BreakGlassStop { id } => self.reading(|reader| self.emergencies().stop(&caller, &id, reader)),
            Request::BreakGlassClose { id, note } => {
                let by = self.people().answerer(&caller.peer);
                self.reading(|reader| self.emergencies().close(&by, &id, note, reader))
            }
            Request::BreakGlassList { all, limit } => self.with_reader(|reader| Ok(json!(reader.broken(all, limit)?))),
            Request::NotifyTest { channel } => self.notify_test(&channel),
            // That it is told is all.
            Request::HostCommand { .. } => Answer::done(serde_json::Value::Null),
            Request::Run(run) => self.run(caller, run, descriptors),
        }
    }

    /// Tells one channel that this is a test.
    fn notify_test(&self, channel: &str) -> Answer {
        match self.notifier.test(channel) {
            None => {
                let names = self.notifier.states().into_iter().map(|channel| format!("`{}`", channel.name));
                let names = names.collect::<Vec<_>>().join(", ");
                let next = if names.is_empty() {
                    "there is none: add one and reload".into()
                } else {
                    format!("there is {names}")
                };
                Answer::refused("no-channel", format!("no `[[notify]]` is named `{channel}`"), next)
            }
            Some(Ok(said)) => Answer::done(json!({ "channel": channel, "answer": said })),
            Some(Err(error)) => {
                let next = "mend the receiver or its `[[notify]]`, reload, and try again";
                Answer::refused("notify-failed", error.in_full(), next)
            }
        }
    }

    /// Why a recorded operation was decided as it was, and by which token it was asked.
    fn explain(&self, reader: &Reader, operation: &str) -> Result<Explained, QueryError> {
        let recorded = reader.operation(operation)?;
        let world = self.loader.world();
        let explanation = policy::recall(&world.snapshot, recorded.code.as_deref(), &recorded.basis);
        let identity = recorded.identity.as_ref();
        let token = identity.map(|identity| reader.token(&identity.token, &recorded.workload)).transpose()?.flatten();
        let ids = token.iter().flat_map(|token| {
            let client = token.issued.client.map(|client| client.to_string());
            let memberships = token.issued.groups.iter().flatten().chain(&token.issued.roles).cloned();
            memberships.chain(client).chain([token.issued.principal.to_string()]).collect::<Vec<_>>()
        });
        let ids: Vec<String> = ids.collect();
        let names = world.snapshot.settings.identities.names_for(ids.iter().map(String::as_str));
        Ok(Explained { explanation, token, names })
    }

    fn retention<'a>(&'a self, peer: &'a Peer) -> Retention<'a> {
        Retention { record: &self.record, journal: self.launches.journal(), peer }
    }

    /// The search with the principal's id, where the configuration has a name for it.
    fn by_id(&self, mut search: Search) -> Search {
        let world = self.loader.world();
        let named = search.principal.as_ref().and_then(|name| world.snapshot.settings.identities.names.get(name));
        if let Some(Named::Identity(id)) = named {
            search.principal = Some(id.to_string());
        }
        search
    }

    /// Adds what the configuration calls a session's ids.
    fn name_session(&self, session: &mut Session) {
        let world = self.loader.world();
        let identities = &world.snapshot.settings.identities;
        session.names = identities.names_for(session.principals.iter().map(String::as_str));
    }

    /// Adds what the configuration calls an operation's ids.
    fn name_operation(&self, operation: &mut Operation) {
        let Some(identity) = &operation.identity else { return };
        let world = self.loader.world();
        let client = identity.client.map(|client| client.to_string());
        let ids = [Some(identity.principal.as_str()), client.as_deref()];
        operation.names = world.snapshot.settings.identities.names_for(ids.into_iter().flatten());
    }

    fn run(&self, caller: Caller, run: Run, descriptors: Vec<OwnedFd>) -> Answer {
        let Caller { peer, operator, .. } = caller;
        let Ok(stdio) = <[OwnedFd; 3]>::try_from(descriptors) else {
            return Answer::refused("descriptors-missing", "a launch needs three descriptors", "use `interceptor run`");
        };
        let launched = (|| {
            let pidfd = peer.pidfd.map_or_else(|| launch::hold(peer.pid), Ok)?;
            let mut caller = launch::Caller::read(peer.pid, pidfd, peer.uid, peer.gid)?;
            caller.operator |= operator;
            caller.loginuid = peer.loginuid;
            self.launches.launch(caller, run, stdio)
        })();
        match launched {
            Ok((id, channel)) => Answer { descriptor: Some(channel), ..Answer::done(json!({ "launch": id })) },
            Err(error) => {
                let (code, message, next) = match &error {
                    EngageError::Launch(error) => (error.code(), error.in_full(), error.next()),
                    EngageError::NotContained(_) => {
                        let next = "close them, or accept them with `containment = \"steered\"` in its `[[workload]]`";
                        ("not-contained", error.to_string(), next.into())
                    }
                    other => {
                        ("launch-failed", other.to_string(), "see `interceptor doctor` and the daemon's log".into())
                    }
                };
                self.launches.journal().note(What::ControlRequest {
                    uid: peer.uid,
                    pid: peer.pid,
                    request: "run".into(),
                    refused: Some(format!("{code}: {message}")),
                });
                Answer::refused(code, message, next)
            }
        }
    }

    pub(super) fn emergencies(&self) -> Emergencies<'_> {
        let Shared { loader, pipeline, .. } = self;
        Emergencies { desk: &pipeline.desk, loader, now: pipeline.clock.now() }
    }

    fn people(&self) -> People<'_> {
        let Shared { launches, loader, pipeline, logins, .. } = self;
        People { desk: &pipeline.desk, launches, loader, pipeline, logins }
    }

    /// Answers with the database at hand, and what was just recorded in it.
    fn reading(&self, answer: impl FnOnce(&Reader) -> Answer) -> Answer {
        if let Err(error) = self.flush() {
            tracing::warn!(%error, "a question is answered without the latest events");
        }
        match self.reader() {
            Ok(reader) => answer(&reader),
            Err(error) => Answer::refused(error.code(), error.to_string(), "check the state folder and its disk"),
        }
    }

    /// Answers from the database, with what was just recorded in it.
    fn with_reader(&self, ask: impl FnOnce(&Reader) -> Result<serde_json::Value, QueryError>) -> Answer {
        if let Err(error) = self.flush() {
            tracing::warn!(%error, "a question is answered without the latest events");
        }
        match self.reader().and_then(|reader| ask(&reader)) {
            Ok(value) => Answer::done(value),
            Err(error) => Answer::refused(error.code(), error.to_string(), NOT_FOUND),
        }
    }

    fn reader(&self) -> Result<Reader, QueryError> {
        self.record.reader()?.within(ANSWER)
    }

    fn flush(&self) -> Result<(), record::RecordError> {
        self.record.flush(FLUSH)
    }
}

/// Whether a caller may see what belongs to a workload that `initiator` launched. What he may not see isn't there.
fn own(caller: &Caller, initiator: Option<u32>, id: &str) -> Result<(), QueryError> {
    let may = caller.sees_only().is_none_or(|uid| initiator == Some(uid));
    if may { Ok(()) } else { Err(QueryError::Unknown(id.to_owned())) }
}

fn own_operation(caller: &Caller, reader: &Reader, operation: &str) -> Result<(), QueryError> {
    match caller.sees_only() {
        None => Ok(()),
        Some(_) => own(caller, reader.operation(operation)?.initiator, operation),
    }
}

fn value<T: Serialize>(value: &T) -> Answer {
    match serde_json::to_value(value) {
        Ok(value) => Answer::done(value),
        Err(error) => Answer::refused("internal", error.to_string(), "see the daemon's log"),
    }
}
