//! Reading an event back from its JSON. What comes with every operation is read straight into its fields; serde reads
//! what is tagged and flattened, as [`Event`] is, by way of copies of all of it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use jiff::Timestamp;
use serde::Deserialize;

use super::{Event, Identity, Kept, Payload, Spent, Verdict, What};
use crate::config::Host;
use crate::ids::{ApprovalId, LaunchId, OperationId, SessionId, TargetName, WorkloadName};
use crate::policy::{Basis, Credential};
use crate::who::Process;

/// A reader for each of these kinds, which takes nothing that [`Event`] wouldn't take, and makes of it what that would.
/// A variant's field that is missing here doesn't compile.
macro_rules! straight {
    ($($kind:literal => $what:ident { $($(#[$attribute:meta])* $field:ident: $type:ty,)* })*) => {
        fn straight(kind: &str, body: &str) -> Option<Event> {
            match kind {
                $($kind => {
                    #[derive(Deserialize)]
                    struct $what<'a> {
                        at: Timestamp,
                        #[serde(borrow)]
                        event: Cow<'a, str>,
                        $($(#[$attribute])* $field: $type,)*
                    }
                    let $what { at, event, $($field),* } = serde_json::from_str(body).ok()?;
                    (event == $kind).then(|| Event { at, what: What::$what { $($field),* } })
                })*
                _ => None,
            }
        }
    };
}

straight! {
    "session.opened" => SessionOpened {
        session: SessionId,
        launch: LaunchId,
        workload: WorkloadName,
        process: Option<Process>,
        original: SocketAddr,
        host: Option<Host>,
        target: Option<TargetName>,
    }
    "operation.decided" => OperationDecided {
        operation: OperationId,
        session: Option<SessionId>,
        launch: LaunchId,
        workload: WorkloadName,
        target: Option<TargetName>,
        action: String,
        summary: String,
        verdict: Verdict,
        code: Option<String>,
        basis: Box<Basis>,
        initiator: Option<u32>,
        credential: Option<Credential>,
        identity: Option<Box<Identity>>,
        approval: Option<ApprovalId>,
    }
    "operation.finished" => OperationFinished {
        operation: OperationId,
        outcome: String,
        #[serde(default)]
        policies: Vec<String>,
        status: Option<u16>,
        request: Payload,
        response: Payload,
        #[serde(default)]
        masked: BTreeMap<String, u64>,
        spent: Option<Spent>,
        service_request: Option<String>,
        kept: Option<Kept>,
    }
    "payload.recorded" => PayloadRecorded {
        operation: OperationId,
        session: SessionId,
        digest: String,
        bytes: u64,
    }
    "session.closed" => SessionClosed {
        session: SessionId,
        reason: String,
        #[serde(default)]
        policies: Vec<String>,
    }
}

/// What every event has, whichever version wrote it.
#[derive(Deserialize)]
pub(in crate::record) struct Stamp {
    pub(in crate::record) at: Timestamp,
    #[serde(rename = "event")]
    pub(in crate::record) kind: String,
}

/// Reads an event: its time and kind, and itself, if this version knows it. None if no version can have written it.
pub(in crate::record) fn read(body: &str) -> Option<(Stamp, Option<Event>)> {
    let hint = hint(body).unwrap_or_default();
    if let Some(event) = straight(hint, body) {
        return Some((Stamp { at: event.at, kind: hint.to_owned() }, Some(event)));
    }
    Some((serde_json::from_str(body).ok()?, serde_json::from_str(body).ok()))
}

/// Of which kind an event seems to be, as this program writes them: the second field says it.
fn hint(body: &str) -> Option<&str> {
    let (_at, rest) = body.strip_prefix("{\"at\":\"")?.split_once('"')?;
    Some(rest.strip_prefix(",\"event\":\"")?.split_once('"')?.0)
}

#[cfg(test)]
mod tests;
