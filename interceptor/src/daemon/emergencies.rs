//! What operators and auditors say on the control socket of the broken glass.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::json;

use super::reload::Loader;
use crate::approve::{Answerer, Desk, seconds};
use crate::control::protocol::BreakGlassStart;
use crate::control::server::{Answer, Caller};
use crate::ids::BreakGlassId;
use crate::policy::BreakGlass;
use crate::record::{QueryError, Reader, RecordError};

/// The longest that the glass may stay broken, in seconds: a day.
const LONGEST: u64 = 86_400;

/// The longest reason or note, in characters.
const WORDS: usize = 500;

/// The desk, as they see it.
pub(super) struct Emergencies<'a> {
    pub(super) desk: &'a Arc<Desk>,
    pub(super) loader: &'a Arc<Loader>,
    pub(super) now: Timestamp,
}

impl Emergencies<'_> {
    /// Breaks the glass for a workload.
    pub(super) fn start(&self, caller: &Caller, start: BreakGlassStart) -> Answer {
        let BreakGlassStart { workload, seconds: time, reason } = start;
        let wrong = |message: String| {
            Answer::refused("break-glass-malformed", message, "see `interceptor break-glass start --help`")
        };
        let snapshot = &self.loader.world().snapshot;
        if !snapshot.settings.workloads.iter().any(|known| known.name == workload) {
            return wrong(format!("no `[[workload]]` is named `{workload}`"));
        }
        if !(1..=LONGEST).contains(&time) {
            return wrong("it lasts from a second to a day".into());
        }
        if let Err(why) = sentence(&reason, "reason") {
            return wrong(why);
        }
        if snapshot.break_glass().is_empty() {
            let folder = snapshot.settings.paths.break_glass.display();
            return Answer::refused(
                "break-glass-empty",
                format!("there is no policy in `{folder}`, so there is nothing to let through"),
                "write what an emergency needs beforehand, then `interceptor policy reload`",
            );
        }
        let until = self.now.saturating_add(seconds(time)).unwrap_or(self.now);
        let broken = BreakGlass { id: BreakGlassId::new(), workload, until, reason, loginuid: caller.peer.loginuid };
        match self.desk.break_glass(broken.clone(), time, caller.peer.uid) {
            Ok(true) => Answer::done(json!(broken)),
            Ok(false) => Answer::refused(
                "break-glass-lasts",
                format!("the glass is broken for `{}` already", broken.workload),
                "`interceptor break-glass list` shows until when; `stop` it before you start another",
            ),
            Err(error) => unrecorded(&error),
        }
    }

    /// What of it is to be seen in `status`: what lasts, and what nobody has looked at.
    pub(super) fn causes(&self, reader: Option<&Reader>) -> Vec<(&'static str, String, &'static str)> {
        let open = reader.and_then(|reader| reader.broken(false, 100).ok()).unwrap_or_default();
        let told = open.into_iter().map(|one| {
            let BreakGlass { id, workload, until, .. } = one.broken;
            match one.ended_at {
                None => (
                    "break-glass",
                    format!("the glass is broken for `{workload}` until {until:.0} ({id})"),
                    "`interceptor break-glass stop ID` ends it",
                ),
                Some(_) => (
                    "break-glass-open",
                    format!("no auditor has looked at what was done under {id}"),
                    "an auditor closes it: `interceptor break-glass close ID --note TEXT`",
                ),
            }
        });
        told.collect()
    }

    /// Ends it before its time.
    pub(super) fn stop(&self, caller: &Caller, id: &str, reader: &Reader) -> Answer {
        let found = match reader.broken_of(id) {
            Ok(found) => found.broken.id,
            Err(error) => return unknown(&error),
        };
        match self.desk.mend_glass(found, caller.peer.uid) {
            Ok(true) => Answer::done(json!({ "id": found })),
            Ok(false) => Answer::refused(
                "not-live",
                format!("`{found}` has ended already"),
                "an auditor closes it: `interceptor break-glass close ID --note TEXT`",
            ),
            Err(error) => unrecorded(&error),
        }
    }

    /// An auditor has seen what was done. Never who did it.
    pub(super) fn close(&self, by: &Answerer, id: &str, note: String, reader: &Reader) -> Answer {
        let found = match reader.broken_of(id) {
            Ok(found) => found,
            Err(error) => return unknown(&error),
        };
        let refused = |code: &str, message: String, next: &str| Answer::refused(code, message, next);
        let id = found.broken.id;
        if let Err(why) = sentence(&note, "note") {
            return refused("break-glass-malformed", why, "see `interceptor break-glass close --help`");
        }
        if by.is(found.started_by) || found.broken.loginuid.is_some_and(|uid| by.is(uid)) {
            let message = format!("uid {} is who broke the glass, so somebody else looks at it", by.uid);
            return refused("own-operation", message, "ask another auditor");
        }
        if found.ended_at.is_none() {
            let next = "wait until it ends, or have an operator `stop` it";
            return refused("break-glass-lasts", format!("`{id}` still lasts"), next);
        }
        if found.closed_at.is_some() {
            let next = "`interceptor break-glass list --all` shows by whom";
            return refused("not-live", format!("`{id}` is closed already"), next);
        }
        match self.desk.close_glass(id, by.uid, note) {
            Ok(()) => Answer::done(json!({ "id": id })),
            Err(error) => unrecorded(&error),
        }
    }
}

/// Judges what people wrote.
fn sentence(text: &str, what: &str) -> Result<(), String> {
    let length = text.trim().chars().count();
    if (1..=WORDS).contains(&length) { Ok(()) } else { Err(format!("the {what} has from 1 to {WORDS} characters")) }
}

fn unknown(error: &QueryError) -> Answer {
    Answer::refused(error.code(), error.to_string(), "see `interceptor break-glass list --all`")
}

fn unrecorded(error: &RecordError) -> Answer {
    Answer::refused("record-unavailable", error.to_string(), "what can't be recorded isn't done")
}
