//! What the daemon answers on the control socket.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde::Serialize;
use serde_json::json;

use super::launches::{EngageError, Launches};
use super::payloads;
use super::people::{People, Said};
use super::reload::Loader;
use super::retention::Retention;
use crate::config::{Control, Named};
use crate::control::peer::Peer;
use crate::control::protocol::{Cause, Explained, Exported, Request, Response, Run, Serving, Status};
use crate::control::server::{Answer, Answering, Caller};
use crate::export::{Exporter, SinkState};
use crate::identity::keys::Freshness;
use crate::launch;
use crate::pipeline::Pipeline;
use crate::policy;
use crate::record::event::What;
use crate::record::query::{Operation, Session};
use crate::record::search::Search;
use crate::record::{self, QueryError, Reader, Record};

/// How long a question waits for what was just recorded to be in the database.
const FLUSH: Duration = Duration::from_secs(2);

/// How far behind the database may be before `status` says so.
const LAG_MS: u64 = 1_000;

/// How long events may wait for a sink before `status` says so.
const EXPORT_MS: u64 = 5 * 60 * 1_000;

/// How long events may wait for a checkpoint before `status` says so.
const CHECKPOINT_MS: u64 = 10 * 60 * 1_000;

/// The daemon, as the control socket sees it. Clones share everything.
#[derive(Clone)]
pub(super) struct Host(Arc<Shared>);

struct Shared {
    record: Arc<Record>,
    exporter: Arc<Exporter>,
    launches: Arc<Launches>,
    loader: Arc<Loader>,
    pipeline: Arc<Pipeline>,
    started: Timestamp,
}

/// Installs the recorder of the process's metrics.
pub(super) fn install_metrics() -> std::io::Result<PrometheusHandle> {
    PrometheusBuilder::new().install_recorder().map_err(std::io::Error::other)
}

/// What is measured when somebody asks for the metrics.
#[derive(Clone)]
pub(super) struct Gauges {
    record: Arc<Record>,
    pipeline: Arc<Pipeline>,
    exporter: Arc<Exporter>,
}

impl Gauges {
    pub(super) fn new(record: &Arc<Record>, pipeline: &Arc<Pipeline>, exporter: &Arc<Exporter>) -> Self {
        Self { record: Arc::clone(record), pipeline: Arc::clone(pipeline), exporter: Arc::clone(exporter) }
    }

    /// Sets the gauges to what is.
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    pub(super) fn look(&self) {
        let health = self.record.health();
        let generation = self.pipeline.worlds.borrow().snapshot.generation;
        metrics::gauge!("interceptor_sessions").set(self.pipeline.registry.len() as f64);
        metrics::gauge!("interceptor_record_lag_seconds").set(health.lag_ms as f64 / 1_000.0);
        metrics::gauge!("interceptor_record_backlog_bytes").set(health.backlog as f64);
        metrics::gauge!("interceptor_record_events").set(health.seq as f64);
        metrics::gauge!("interceptor_record_writable").set(if health.failed.is_none() { 1.0 } else { 0.0 });
        metrics::gauge!("interceptor_policy_generation").set(generation as f64);
        let now = self.pipeline.clock.now();
        if let Some(since) = health.unanchored_since {
            let age = now.as_millisecond() - since.as_millisecond();
            metrics::gauge!("interceptor_record_unanchored_seconds").set(age.max(0) as f64 / 1_000.0);
        }
        for sink in self.exporter.states() {
            let Exported { name, behind, age_ms, .. } = exported(sink, health.seq, now);
            metrics::gauge!("interceptor_export_lag_events", "sink" => name.clone()).set(behind as f64);
            metrics::gauge!("interceptor_export_lag_seconds", "sink" => name).set(age_ms.unwrap_or(0) as f64 / 1_000.0);
        }
    }
}

impl Host {
    pub(super) fn new(
        record: Arc<Record>,
        exporter: Arc<Exporter>,
        launches: Arc<Launches>,
        loader: Arc<Loader>,
        pipeline: Arc<Pipeline>,
    ) -> Self {
        let started = pipeline.clock.now();
        Self(Arc::new(Shared { record, exporter, launches, loader, pipeline, started }))
    }
}

impl crate::control::server::Host for Host {
    fn answer(&self, caller: Caller, request: Request, descriptors: Vec<OwnedFd>) -> Answering<'_> {
        let shared = Arc::clone(&self.0);
        Box::pin(async move {
            // Files, namespaces and SQLite block; the control runtime doesn't.
            let answered = tokio::task::spawn_blocking(move || {
                let (uid, pid, name, changes) = (caller.peer.uid, caller.peer.pid, request.name(), request.changes());
                let answer = shared.answer(caller, request, descriptors);
                if changes {
                    shared.note_change(uid, pid, name, &answer);
                }
                answer
            });
            answered.await.unwrap_or_else(|_panicked| {
                Answer::refused("internal", "the daemon failed at this", "see the daemon's log")
            })
        })
    }

    fn operators(&self) -> Control {
        self.0.pipeline.worlds.borrow().snapshot.settings.control.clone()
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
    fn answer(&self, caller: Caller, request: Request, descriptors: Vec<OwnedFd>) -> Answer {
        match request {
            Request::Status => value(&self.status()),
            Request::Workloads => value(&self.launches.list()),
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
                let mut sessions = reader.sessions(limit)?;
                sessions.iter_mut().for_each(|session| self.name_session(session));
                Ok(json!(sessions))
            }),
            Request::SessionsShow { id } => self.with_reader(|reader| {
                let mut story = reader.session(&id)?;
                self.name_session(&mut story.session);
                story.operations.iter_mut().for_each(|operation| self.name_operation(operation));
                Ok(json!(story))
            }),
            Request::SessionsOperations { session, after } => self.with_reader(|reader| {
                let mut operations = reader.operations(&session, Some(&after))?;
                operations.iter_mut().for_each(|operation| self.name_operation(operation));
                Ok(json!(operations))
            }),
            Request::OperationLink { operation } => self.with_reader(|reader| Ok(json!(reader.link_of(&operation)?))),
            Request::PayloadRead { operation } => {
                if let Err(error) = self.flush() {
                    tracing::warn!(%error, "a payload is looked for without the latest ones");
                }
                payloads::read(&self.record, self.launches.journal(), &caller.peer, &operation)
            }
            Request::SessionsSearch { search } => {
                let search = self.by_id(*search);
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
            Request::ApprovalsList { all: false, .. } => self.people().open(&caller),
            Request::ApprovalsList { all: true, limit } => {
                self.with_reader(|reader| Ok(json!(reader.approvals(limit)?)))
            }
            Request::ApprovalsShow { id } => self.reading(|reader| self.people().show(&caller, &id, reader)),
            Request::ApprovalsAnswer { id, yes, width, note } => {
                self.people().answer(&caller, &id, Said { yes, width, note })
            }
            Request::GrantsList { all, limit } => self.with_reader(|reader| {
                let mut grants = reader.grants(limit)?;
                let now = self.pipeline.clock.now();
                grants.retain(|one| all || (one.ended_at.is_none() && now < one.grant.until));
                Ok(json!(grants))
            }),
            Request::GrantsIssue(issue) => self.people().issue(&caller, issue),
            Request::GrantsRevoke { id } => self.reading(|reader| self.people().revoke(&caller, &id, reader)),
            Request::SessionsKill { id } => self.people().kill(&caller, &id),
            Request::Run(run) => self.run(caller, run, descriptors),
        }
    }

    /// Records a request that changed something, or was to.
    fn note_change(&self, uid: u32, pid: u32, request: &str, answer: &Answer) {
        let refused = match &answer.response {
            Response::Done(_) => None,
            Response::Refused { code, .. } => Some(code.clone()),
        };
        self.launches.journal().note(What::ControlRequest { uid, pid, request: request.to_owned(), refused });
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
        let Caller { peer, operator } = caller;
        let Ok(stdio) = <[OwnedFd; 3]>::try_from(descriptors) else {
            return Answer::refused("descriptors-missing", "a launch needs three descriptors", "use `interceptor run`");
        };
        let launched = (|| {
            let pidfd = peer.pidfd.map_or_else(|| launch::hold(peer.pid), Ok)?;
            let mut caller = launch::Caller::read(peer.pid, pidfd, peer.uid, peer.gid)?;
            caller.operator |= operator;
            self.launches.launch(caller, run, stdio)
        })();
        match launched {
            Ok((id, channel)) => Answer { descriptor: Some(channel), ..Answer::done(json!({ "launch": id })) },
            Err(error) => {
                let (code, message, next) = match &error {
                    EngageError::Launch(error) => (error.code(), error.in_full(), error.next()),
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

    fn status(&self) -> Status {
        let world = self.loader.world();
        let mut causes = Vec::new();
        let mut cause = |code: &str, message: String, next: &str| {
            causes.push(Cause { code: code.into(), message, next: next.into() });
        };
        let health = self.record.health();
        let sealed = world.snapshot.why_sealed();
        if let Some(why) = sealed {
            cause(
                "policy-sealed",
                format!("no policy is in force, so everything is denied: {why}"),
                "mend the policies, then `interceptor policy reload`",
            );
        }
        if let Some(why) = &health.failed {
            cause(
                "record-unavailable",
                format!("the record can't be written: {why}"),
                "check the state folder and its disk",
            );
        }
        for (issuer, freshness) in self.pipeline.judge.freshness() {
            let age = match freshness {
                Freshness::Fresh => continue,
                Freshness::Degraded => "weren't refreshed for a day",
                Freshness::Refused => "can't be had, so its tokens are refused",
            };
            cause(
                "issuer-keys-old",
                format!("the keys of `{issuer}` {age}"),
                "see that this host reaches the issuer; the daemon's log says what fails",
            );
        }
        let refused = self.loader.refused();
        if let Some(why) = &refused {
            cause(
                "reload-refused",
                format!("the last load was refused, the one before is in force: {why}"),
                "mend it, then `interceptor policy reload`",
            );
        }
        let bounds = &world.snapshot.settings.record;
        let is_denying =
            u128::from(health.lag_ms) > bounds.backlog_age.as_millis() || health.backlog >= health.backlog_limit;
        if is_denying && health.failed.is_none() {
            cause(
                "record-unavailable",
                format!(
                    "the database is {} ms and {} bytes behind the journals, more than `[record]` allows, so everything \
                     is denied",
                    health.lag_ms, health.backlog
                ),
                "check the state folder's disk, and what else has the database open",
            );
        } else if health.lag_ms > LAG_MS {
            cause(
                "record-lagging",
                format!("the database is {} ms behind the journals", health.lag_ms),
                "check the disk's load",
            );
        }
        let now = self.pipeline.clock.now();
        let unanchored = health.is_unanchored(now);
        if let Some(since) = health.unanchored_since.filter(|_| unanchored) {
            cause(
                "record-unanchored",
                format!(
                    "no sink outside the host has a checkpoint of what was recorded since {since:.0}, so everything is denied"
                ),
                "see that this host reaches a sink of `[[export]]`",
            );
        }
        if health.damaged > 0 {
            cause(
                "record-damaged",
                format!("{} damaged places were found in the journals", health.damaged),
                "run `interceptor sessions verify`",
            );
        }
        if health.checkpoint_age_ms > CHECKPOINT_MS {
            cause(
                "checkpoint-late",
                format!("events wait for a signed checkpoint since {} minutes", health.checkpoint_age_ms / 60_000),
                "check the state folder and its disk; the daemon's log says what fails",
            );
        }
        let exports: Vec<Exported> =
            self.exporter.states().into_iter().map(|sink| exported(sink, health.seq, now)).collect();
        for Exported { name, behind, error, age_ms, .. } in &exports {
            let told = match (error, age_ms) {
                (Some(error), _) => format!("the record can't be sent to `{name}`: {error}"),
                (None, Some(age)) if *age > EXPORT_MS => format!("`{name}` is {} s behind the record", age / 1_000),
                _ => continue,
            };
            let next =
                "see that this host reaches the sink, and the sink's log; what it doesn't have waits in the record";
            cause("export-failing", format!("{told}; {behind} events wait"), next);
        }
        for hole in self.launches.kernel_holes() {
            cause("containment", hole.to_owned(), "see `interceptor doctor`");
        }
        let serving = match (sealed.is_some() || health.failed.is_some() || is_denying || unanchored, causes.is_empty())
        {
            (true, _) => Serving::No,
            (false, false) => Serving::Degraded,
            (false, true) => Serving::Yes,
        };
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Status {
            serving,
            causes,
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            started: self.started,
            generation: world.snapshot.generation,
            policies: sealed.is_none().then(|| world.snapshot.digest().to_owned()),
            workloads: count(self.launches.list().len()),
            connections: count(self.pipeline.registry.len()),
            exports,
        }
    }

    fn people(&self) -> People<'_> {
        let Shared { launches, loader, pipeline, .. } = self;
        People { desk: &pipeline.desk, launches, loader, pipeline }
    }

    /// Answers with the database at hand, and what was just recorded in it.
    fn reading(&self, answer: impl FnOnce(&Reader) -> Answer) -> Answer {
        if let Err(error) = self.flush() {
            tracing::warn!(%error, "a question is answered without the latest events");
        }
        match self.record.reader() {
            Ok(reader) => answer(&reader),
            Err(error) => Answer::refused(error.code(), error.to_string(), "check the state folder and its disk"),
        }
    }

    /// Answers from the database, with what was just recorded in it.
    fn with_reader(&self, ask: impl FnOnce(&Reader) -> Result<serde_json::Value, QueryError>) -> Answer {
        if let Err(error) = self.flush() {
            tracing::warn!(%error, "a question is answered without the latest events");
        }
        match self.record.reader().and_then(|reader| ask(&reader)) {
            Ok(value) => Answer::done(value),
            Err(error) => {
                Answer::refused(error.code(), error.to_string(), "`interceptor sessions list` shows what there is")
            }
        }
    }

    fn flush(&self) -> Result<(), record::RecordError> {
        self.record.flush(FLUSH)
    }
}

/// How far a sink is behind a record whose last event is `last`.
fn exported(sink: SinkState, last: u64, now: Timestamp) -> Exported {
    let age = sink.waiting_since.map(|since| now.as_millisecond() - since.as_millisecond());
    Exported {
        name: sink.name,
        kind: sink.kind.into(),
        seq: sink.seq,
        behind: last.saturating_sub(sink.seq),
        age_ms: age.map(|age| age.max(0).unsigned_abs()),
        error: sink.failing,
    }
}

fn value<T: Serialize>(value: &T) -> Answer {
    match serde_json::to_value(value) {
        Ok(value) => Answer::done(value),
        Err(error) => Answer::refused("internal", error.to_string(), "see the daemon's log"),
    }
}
