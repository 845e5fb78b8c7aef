//! An operation as an event of the Open Cybersecurity Schema Framework: a class for its protocol, the verdict as a security
//! control's, and its place in the chain as the `record_integrity` profile has it. The table of fields is in `docs/record.md`.
//! What an operation sent and got is never in here.
//!
//! As of OCSF 1.9.0, which brought that profile: `objects/attestation.json`, `objects/prev_event.json` (whose `uid` is the
//! `metadata.uid` of the event before) and `profiles/host.json` (`actor`, `device`) of github.com/ocsf/ocsf-schema.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::policy::PrincipalKind;
use crate::record::Placed;
use crate::record::event::Identity;
use crate::record::query::{Operation, Session};
use crate::who::Process;

/// The version of the schema.
const SCHEMA: &str = "1.9.0";

/// How the chain's hashes are made, in the words of a fingerprint whose algorithm the schema has no number for.
const ALGORITHM: &str = "BLAKE3 derive-key, interceptor record v1 event chain, over raw_data";

/// A class of the schema, and what of it the operation was.
struct Class {
    uid: u32,
    name: &'static str,
    category: (u32, &'static str),
    activity: (u32, String),
}

/// The event of an operation, that of a session or of none, on the host of this name.
pub(super) fn event(session: Option<&Session>, operation: &Operation, placed: &Placed, host: &str) -> Value {
    let allowed = operation.verdict == "allow";
    let mut fields = Map::new();
    let place = place(session, operation, placed, host);
    for part in [kind(operation), times(operation), verdict(operation, allowed), place] {
        if let Value::Object(part) = bare(part) {
            fields.extend(part);
        }
    }
    match operation.action.split_once(':') {
        Some(("http", _)) => http(&mut fields, session, operation),
        Some(("dns", _)) => {
            let asked = operation.summary.strip_prefix("look up ").unwrap_or(&operation.summary);
            let (name, kind) = asked.split_once(' ').map_or((asked, None), |(name, kind)| (name, Some(kind)));
            fields.insert("query".into(), bare(json!({ "hostname": name, "type": kind })));
        }
        Some(_) => {
            fields.insert("api".into(), json!({ "operation": operation.action }));
        }
        None => {}
    }
    fields.into()
}

fn kind(operation: &Operation) -> Value {
    let Class { uid, name, category, activity } = class(operation);
    json!({
        "class_uid": uid, "class_name": name,
        "category_uid": category.0, "category_name": category.1,
        "activity_id": activity.0, "activity_name": activity.1,
        "type_uid": uid * 100 + activity.0, "type_name": format!("{name}: {}", activity.1),
    })
}

fn times(operation: &Operation) -> Value {
    let began = millis(&operation.decided_at);
    let ended = operation.finished_at.as_deref().and_then(millis);
    let duration = began.zip(ended).map(|(began, ended)| (ended - began).max(0));
    json!({ "time": began, "start_time": began, "end_time": ended, "duration": duration })
}

fn verdict(operation: &Operation, allowed: bool) -> Value {
    let (status, status_name) = outcome(operation, allowed);
    json!({
        "severity_id": if allowed { 1 } else { 2 }, "severity": if allowed { "Informational" } else { "Low" },
        "status_id": status, "status": status_name,
        "status_code": operation.code.clone().or_else(|| operation.status.map(|status| status.to_string())),
        "status_detail": (!operation.basis.reasons.is_empty()).then(|| operation.basis.reasons.join("; ")),
        "message": format!("{}: {} {}", operation.verdict, operation.action, operation.summary),
        "action_id": if allowed { 1 } else { 2 }, "action": if allowed { "Allowed" } else { "Denied" },
        "disposition_id": if allowed { 1 } else { 2 }, "disposition": if allowed { "Allowed" } else { "Blocked" },
        "policy": policy(operation),
    })
}

fn place(session: Option<&Session>, operation: &Operation, placed: &Placed, host: &str) -> Value {
    json!({
        "metadata": {
            "version": SCHEMA, "uid": uid(placed, placed.link.seq), "sequence": placed.link.seq,
            "original_event_uid": operation.operation, "correlation_uid": operation.session, "log_name": "record",
            "event_code": operation.action, "original_time": operation.decided_at,
            "profiles": ["host", "security_control", "record_integrity"],
            "product": { "name": "Interceptor", "vendor_name": "Interceptor", "version": env!("CARGO_PKG_VERSION") },
        },
        "device": {
            "hostname": (!host.is_empty()).then_some(host), "type_id": 0, "type": "Unknown",
            "os": { "name": "Linux", "type_id": 200, "type": "Linux" },
        },
        "actor": actor(session, operation),
        "src_endpoint": { "name": operation.workload, "uid": operation.launch, "type_id": 99, "type": "Workload" },
        "dst_endpoint": session.map(|session| destination(session, operation)),
        "raw_data": placed.link.body,
        "attestation_list": [attestation(placed)],
        "unmapped": {
            "workload": operation.workload, "launch": operation.launch, "session": operation.session,
            "initiator_uid": operation.initiator, "target": operation.target, "summary": operation.summary,
            "outcome": operation.outcome, "credential": operation.credential,
            "identity": operation.identity, "obligations": operation.basis.obligations,
            "request_digest": operation.request.digest, "response_digest": operation.response.digest,
            "service_request_id": operation.service_request,
            "masked": operation.masked, "payload": operation.payload, "names": operation.names,
            "approval": operation.approval, "spent": operation.spent, "cut_by": operation.cut_by,
        },
    })
}

fn class(operation: &Operation) -> Class {
    let network = (4, "Network Activity");
    let class = |uid, name, activity: (u32, &str)| Class {
        uid,
        name,
        category: network,
        activity: (activity.0, activity.1.to_owned()),
    };
    match operation.action.split_once(':') {
        Some(("http", verb)) => {
            let method = operation.summary.split(' ').next().unwrap_or_default();
            let activity = match (verb, method) {
                ("websocket", _) => (99, "WebSocket"),
                (_, "CONNECT") => (1, "Connect"),
                (_, "DELETE") => (2, "Delete"),
                (_, "GET") => (3, "Get"),
                (_, "HEAD") => (4, "Head"),
                (_, "OPTIONS") => (5, "Options"),
                (_, "POST") => (6, "Post"),
                (_, "PUT") => (7, "Put"),
                (_, "TRACE") => (8, "Trace"),
                (_, "PATCH") => (9, "Patch"),
                (_, other) => (99, other),
            };
            class(4002, "HTTP Activity", activity)
        }
        Some(("dns", _)) => class(4003, "DNS Activity", (1, "Query")),
        None if operation.verdict == "allow" => class(4001, "Network Activity", (1, "Open")),
        None => class(4001, "Network Activity", (5, "Refuse")),
        // What a token is asked for isn't a log-on yet: of whom, only its answer tells.
        Some(_) => Class {
            uid: 6003,
            name: "API Activity",
            category: (6, "Application Activity"),
            activity: (99, operation.action.clone()),
        },
    }
}

/// Whether it did what was asked for; unknown while it goes on.
fn outcome(operation: &Operation, allowed: bool) -> (u32, &'static str) {
    match (allowed, operation.outcome.as_deref()) {
        (false, _) => (2, "Failure"),
        (true, None) => (0, "Unknown"),
        (true, Some("done")) if operation.status.is_none_or(|status| status < 400) => (1, "Success"),
        (true, Some(_)) => (2, "Failure"),
    }
}

/// None where nothing is known of who asked: a look-up is the workload's.
fn actor(session: Option<&Session>, operation: &Operation) -> Option<Value> {
    let opened = |session: &Session| json!({ "uid": session.session, "created_time": millis(&session.opened_at) });
    let client = operation.identity.as_ref().and_then(|identity| identity.client);
    (session.is_some() || operation.identity.is_some()).then(|| {
        json!({
            "process": session.and_then(|session| session.process.as_ref()).map(process),
            "user": operation.identity.as_ref().map(|identity| user(identity, operation)),
            "session": session.map(opened),
            "app_uid": client.map(|client| client.to_string()),
            "app_name": client.and_then(|client| operation.names.get(&client.to_string())),
        })
    })
}

/// The process is what it says it is: its name is its own choice.
fn process(process: &Process) -> Value {
    let path = process.exe.as_deref().map(|path| path.to_string_lossy());
    let name = process.exe.as_deref().and_then(|path| path.file_name()).map(|name| name.to_string_lossy());
    let file = path.map(|path| json!({ "path": path, "name": name, "type_id": 1 }));
    json!({ "pid": process.pid, "tid": process.tid, "name": process.comm, "file": file })
}

fn user(identity: &Identity, operation: &Operation) -> Value {
    let id = identity.principal.as_str();
    let (tenant, object) = id.split_once('/').unwrap_or(("", id));
    let is_person = matches!(identity.kind, PrincipalKind::User | PrincipalKind::AgentUser);
    json!({
        "uid": object, "uid_alt": id, "org": { "uid": tenant }, "name": operation.names.get(id),
        "type_id": if is_person { 1 } else { 4 }, "type": identity.kind.as_str(), "credential_uid": identity.uti,
    })
}

fn destination(session: &Session, operation: &Operation) -> Value {
    let (address, port) = session.original.rsplit_once(':').unwrap_or((&session.original, ""));
    let host = session.host.as_deref();
    let hostname = host.filter(|host| host.parse::<std::net::IpAddr>().is_err());
    json!({
        "hostname": hostname, "ip": address.trim_matches(['[', ']']), "port": port.parse::<u16>().ok(),
        "svc_name": operation.target,
    })
}

/// The determining policies, as one: the schema has room for one.
fn policy(operation: &Operation) -> Value {
    let basis = &operation.basis;
    let desc = (!basis.reasons.is_empty()).then(|| basis.reasons.join("; "));
    let name = (!basis.policies.is_empty()).then(|| basis.policies.join(", "));
    json!({ "name": name.as_deref().unwrap_or("default deny"), "uid": name, "desc": desc,
            "version": basis.generation.to_string() })
}

/// What tells an event of the chain from every other one, as `metadata.uid` has it: numbers alone are those of other hosts
/// as well.
fn uid(placed: &Placed, seq: u64) -> String {
    let chain = placed.chain.get(..16).unwrap_or(&placed.chain);
    format!("{chain}-{seq}")
}

fn attestation(placed: &Placed) -> Value {
    let Placed { link, chain } = placed;
    let print = |value: &str| json!({ "algorithm_id": 99, "algorithm": ALGORITHM, "value": value });
    let previous = link.seq.checked_sub(1).filter(|seq| *seq > 0);
    let previous = previous.map(|seq| json!({ "uid": uid(placed, seq), "fingerprint": print(&link.previous) }));
    let (own, print) = (link.seq.to_string(), print(&link.hash));
    bare(json!({ "uid": own, "chain_uid": chain, "prev_event": previous, "fingerprint": print }))
}

fn http(fields: &mut Map<String, Value>, session: Option<&Session>, operation: &Operation) {
    let (method, path) = operation.summary.split_once(' ').unwrap_or((operation.summary.as_str(), "/"));
    let original = session.map(|session| session.original.as_str());
    let port = original.and_then(|original| original.rsplit(':').next()?.parse::<u16>().ok());
    let host = session.and_then(|session| session.host.as_deref()).or(original);
    let scheme = if port == Some(80) { "http" } else { "https" };
    let place = match port {
        Some(80 | 443) | None => String::new(),
        Some(port) => format!(":{port}"),
    };
    let (bare_path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let url = json!({
        "scheme": scheme, "hostname": host, "port": port, "path": bare_path, "query_string": query,
        "url_string": host.map(|host| format!("{scheme}://{host}{place}{path}")),
    });
    let request = json!({
        "uid": operation.operation, "http_method": method, "url": url, "length": operation.request.bytes,
    });
    fields.insert("http_request".into(), bare(request));
    if let Some(status) = operation.status {
        let response = json!({ "code": status, "length": operation.response.bytes });
        fields.insert("http_response".into(), bare(response));
    }
}

/// In milliseconds since 1970.
fn millis(time: &str) -> Option<i64> {
    time.parse::<Timestamp>().ok().map(|time| time.as_millisecond())
}

/// Without what isn't known: the schema has no null.
fn bare(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let known = fields.into_iter().map(|(name, value)| (name, bare(value)));
            known.filter(|(_, value)| !value.is_null()).collect::<Map<_, _>>().into()
        }
        Value::Array(items) => items.into_iter().map(bare).collect::<Vec<_>>().into(),
        other => other,
    }
}

#[cfg(test)]
mod tests;
