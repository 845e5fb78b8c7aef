//! What people are told of an event: plain words for a chat, fields for a program. Text that a workload chose is in here
//! in part only: no bodies, no header values, no queries; what looks like a secret is taken out, what isn't visible is
//! spelled out, and each text is bounded.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::config::{Identities, Occasion};
use crate::detect::{hidden, secrets};
use crate::ids::{ApprovalId, BreakGlassId, GrantId, MessageId, TargetName, WorkloadName};
use crate::policy::{BreakGlass, Grant, Origin, Shape};
use crate::record::event::{ApprovalAnswer, ApprovalRequest, What, as_whom};

/// The most characters of one text.
const MOST: usize = 300;

/// The most entries of a list.
const ENTRIES: usize = 16;

/// How many approvals, and how many grants, it is remembered of what they are about.
const REMEMBERED: usize = 1024;

/// A notification.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Notice {
    /// Its id, the same at each try.
    pub(super) id: MessageId,
    /// What it tells of; none for a test.
    pub(super) occasion: Option<Occasion>,
    /// When that happened.
    pub(super) at: Timestamp,
    /// The approval or the grant.
    pub(super) about: String,
    /// The groups that it concerns; none: everybody.
    pub(super) groups: Option<Vec<String>>,
    /// It all in one line.
    pub(super) title: String,
    /// What there is to know, each with its label.
    pub(super) facts: Vec<(&'static str, String)>,
    /// The same for programs.
    pub(super) data: Map<String, Value>,
}

impl Notice {
    /// A test of a channel.
    pub(super) fn test(channel: &str, host: &str, at: Timestamp) -> Self {
        let facts = vec![("host", told(host)), ("channel", told(channel))];
        Notice {
            id: MessageId::new(),
            occasion: None,
            at,
            about: channel.to_owned(),
            groups: None,
            title: "A test: nobody has to do anything".into(),
            facts,
            data: fields(json!({ "host": told(host), "channel": told(channel) })),
        }
    }

    /// What it tells of: the name of its occasion, or `test`.
    pub(super) fn kind(&self) -> &'static str {
        self.occasion.map_or("test", Occasion::as_str)
    }

    /// Whether it is of a broken glass.
    pub(super) fn is_emergency(&self) -> bool {
        self.occasion.is_some_and(Occasion::is_emergency)
    }

    /// Whether it is for a channel that is told of `on`, for `groups` (none: all). An emergency is for every channel.
    pub(super) fn is_for(&self, on: &[Occasion], groups: Option<&[String]>) -> bool {
        let concerns = match (groups, &self.groups) {
            (None, _) | (_, None) => true,
            (Some(asked), Some(own)) => own.iter().any(|group| asked.contains(group)),
        };
        concerns && self.occasion.is_none_or(|occasion| occasion.is_emergency() || on.contains(&occasion))
    }
}

/// What an approval or a grant is about: later events of it only have its id.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Subject {
    workload: WorkloadName,
    target: TargetName,
    /// `http:POST`; none for a grant.
    action: Option<String>,
    /// The summary, or what is let through.
    what: String,
    groups: Vec<String>,
}

/// What is remembered of approvals and grants, and where all this is.
#[derive(Debug, Default)]
pub(super) struct Memory {
    host: String,
    approvals: BTreeMap<ApprovalId, Subject>,
    grants: BTreeMap<GrantId, Subject>,
}

impl Memory {
    pub(super) fn new(host: String) -> Self {
        Self { host, ..Self::default() }
    }

    /// The name of this host.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Remembers what an approval is about.
    pub(super) fn approval(&mut self, request: &ApprovalRequest) {
        let subject = Subject {
            workload: request.workload.clone(),
            target: request.target.clone(),
            action: Some(told(&request.action)),
            what: summary(request),
            groups: request.terms.groups.clone(),
        };
        keep(&mut self.approvals, request.approval, subject);
    }

    /// Remembers what a grant is about.
    pub(super) fn grant(&mut self, grant: &Grant) {
        let groups = match &grant.origin {
            Origin::Approval { groups, .. } => groups.clone(),
            Origin::Operator => Vec::new(),
        };
        let (workload, target) = (grant.workload.clone(), grant.target.clone());
        let what = told(&grant.scope.told(&grant.target));
        keep(&mut self.grants, grant.id, Subject { workload, target, action: None, what, groups });
    }

    /// What is told of an event; none where nobody is told. `identities` has names for ids.
    pub(super) fn notice(&mut self, at: Timestamp, what: &What, identities: &Identities) -> Option<Notice> {
        match what {
            What::ApprovalRequested(request) => {
                self.approval(request);
                Some(self.requested(at, request, identities))
            }
            What::ApprovalAnswered(answer) => {
                let ApprovalAnswer { approval, yes, person, uid, groups, confirms, width, note, evidence, .. } =
                    &**answer;
                let person = person.as_ref().map(|person| named(person.as_str(), identities));
                let uid_told = format!("uid {uid}{}", as_whom(*uid, answer.loginuid));
                let by = person.clone().map_or(uid_told.clone(), |person| format!("{person} ({uid_told})"));
                let said = if *yes { "yes" } else { "no" };
                let whose = if *confirms { "as its initiator".into() } else { format!("for {}", list(groups)) };
                let mut notice =
                    self.of_approval(at, Occasion::ApprovalAnswered, *approval, &format!("answered, {said}"));
                notice.facts.push(("answer", told(&format!("{said}, by {by}, {whose}"))));
                notice.facts.extend(note.as_ref().map(|note| ("note", told(note))));
                notice.data.extend(fields(json!({
                    "yes": yes, "person": person, "uid": uid, "loginuid": answer.loginuid, "answered_for": groups, "confirms": confirms,
                    "width": width, "note": note.as_deref().map(told),
                    "signed": evidence.as_ref().is_some_and(|evidence| evidence.bound),
                })));
                Some(notice)
            }
            What::ApprovalClosed { approval, outcome } => {
                let mut notice = self.of_approval(at, Occasion::ApprovalClosed, *approval, outcome);
                notice.facts.push(("outcome", told(outcome)));
                notice.data.insert("outcome".into(), told(outcome).into());
                self.approvals.remove(approval);
                Some(notice)
            }
            What::GrantIssued { grant, by } => {
                self.grant(grant);
                let mut notice = self.of_grant(at, Occasion::GrantIssued, grant.id, "issued");
                let (from, approval) = match (&grant.origin, by) {
                    (Origin::Approval { approval, .. }, _) => (approval.to_string(), Some(approval)),
                    (Origin::Operator, Some(uid)) => (format!("uid {uid}"), None),
                    (Origin::Operator, None) => ("an operator".into(), None),
                };
                let mut uses = grant.uses.map_or("any number of uses".into(), |uses| format!("uses: {uses}"));
                for (most, what) in [(grant.bytes, "bytes"), (grant.rows, "rows")] {
                    uses += &most.map_or_else(String::new, |most| format!(", {most} {what}"));
                }
                notice.facts.push(("until", format!("{:.0}; {uses}", grant.until)));
                notice.facts.push(("from", from));
                notice.data.extend(fields(json!({
                    "until": grant.until, "uses": grant.uses, "bytes": grant.bytes, "rows": grant.rows,
                    "approval": approval, "issuer": by,
                })));
                Some(notice)
            }
            What::GrantEnded { grant, reason, by } => {
                let mut notice = self.of_grant(at, Occasion::GrantEnded, *grant, reason);
                let who = by.map_or_else(String::new, |uid| format!(" by uid {uid}"));
                notice.facts.push(("ended", told(&format!("{reason}{who}"))));
                notice.data.extend(fields(json!({ "reason": told(reason), "by": by })));
                self.grants.remove(grant);
                Some(notice)
            }
            What::BreakGlassStarted { broken, by } => {
                let BreakGlass { id, workload, until, reason, .. } = &**broken;
                let mut notice = self.emergency(at, Occasion::BreakGlassStarted, *id, Some(*by));
                notice.title = format!("The glass is broken for {workload}");
                notice.facts.push(("who", told(&format!("workload {workload}, until {until:.0}"))));
                notice.facts.push(("because", told(reason)));
                notice.data.extend(fields(json!({ "workload": workload, "until": until, "reason": told(reason) })));
                Some(notice)
            }
            What::BreakGlassEnded { id, reason, by } => {
                let mut notice = self.emergency(at, Occasion::BreakGlassEnded, *id, *by);
                notice.title = "An emergency is over".into();
                notice.facts.push(("ended", told(reason)));
                notice
                    .facts
                    .push(("to close", told(&format!("interceptor break-glass close {id} (on {})", self.host))));
                notice.data.extend(fields(json!({ "reason": told(reason) })));
                Some(notice)
            }
            What::BreakGlassClosed { id, by, note } => {
                let mut notice = self.emergency(at, Occasion::BreakGlassClosed, *id, Some(*by));
                notice.title = "An emergency was looked at".into();
                notice.facts.push(("note", told(note)));
                notice.data.extend(fields(json!({ "note": told(note) })));
                Some(notice)
            }
            _ => None,
        }
    }

    /// What is told of the broken glass, to everybody.
    fn emergency(&self, at: Timestamp, occasion: Occasion, id: BreakGlassId, by: Option<u32>) -> Notice {
        let mut facts = vec![("emergency", id.to_string())];
        facts.extend(by.map(|uid| ("by", format!("uid {uid}"))));
        let data = fields(json!({ "host": told(&self.host), "break_glass": id, "by": by }));
        let (id, about, title) = (MessageId::new(), id.to_string(), String::new());
        Notice { id, occasion: Some(occasion), at, about, groups: None, title, facts, data }
    }

    fn requested(&self, at: Timestamp, request: &ApprovalRequest, identities: &Identities) -> Notice {
        let ApprovalRequest { approval, until, workload, target, terms, .. } = request;
        let (action, summary) = (told(&request.action), summary(request));
        let justification = justification(request);
        let process = request.process.as_ref().map(|process| (told(&process.comm), process.pid));
        let identity = request.identity.as_ref();
        let principal = identity.map(|who| named(who.principal.as_str(), identities));
        let client = identity.and_then(|who| who.client).map(|client| named(&client.to_string(), identities));
        let confirm = (!terms.confirm.is_empty()).then(|| "its initiator".to_owned());
        let asked: Vec<String> = terms.groups.iter().cloned().chain(confirm.clone()).collect();
        let answer = format!("interceptor approvals show {approval}");

        let running = process.as_ref().map_or_else(String::new, |(comm, pid)| format!(", process {comm} ({pid})"));
        let mut facts = vec![
            ("approval", format!("{approval}, open until {until:.0}")),
            ("who", told(&format!("workload {workload}{running}, {}", request.behind()))),
        ];
        if let Some(principal) = &principal {
            let by = client.as_ref().map_or_else(String::new, |client| format!(", by application {client}"));
            facts.push(("as", told(&format!("{principal}{by}"))));
        }
        facts.push(("what", told(&format!("{summary} on {target}"))));
        let reasons = list(&request.reasons);
        let because = if reasons.is_empty() { String::new() } else { format!(": {reasons}") };
        facts.push(("because", told(&format!("policy {}{because}", list(&request.policies)))));
        facts.extend(justification.as_ref().map(|why| ("they say", why.clone())));
        facts.push(("asked of", list(&asked)));
        facts.push(("to answer", told(&format!("{answer} (on {})", self.host))));
        Notice {
            id: MessageId::new(),
            occasion: Some(Occasion::ApprovalRequested),
            at,
            about: approval.to_string(),
            groups: Some(terms.groups.clone()),
            title: format!("Approval wanted: {action} on {target} for {workload}"),
            facts,
            data: fields(json!({
                "host": told(&self.host), "approval": approval, "until": until, "workload": workload, "target": target,
                "action": action, "summary": summary,
                "who": {
                    "process": process.as_ref().map(|(comm, _)| comm), "pid": process.as_ref().map(|(_, pid)| pid),
                    "initiator": request.initiator, "loginuid": request.loginuid, "callers": request.callers,
                    "principal": principal, "client": client,
                },
                "policies": each(&request.policies), "reasons": each(&request.reasons),
                "justification": justification,
                "groups": each(&terms.groups), "confirm": confirm.is_some(), "approvals": terms.approvals,
                "answer": answer,
            })),
        }
    }

    fn of_approval(&self, at: Timestamp, occasion: Occasion, id: ApprovalId, said: &str) -> Notice {
        self.later(at, occasion, ("approval", id.to_string()), self.approvals.get(&id), &format!("Approval {said}"))
    }

    fn of_grant(&self, at: Timestamp, occasion: Occasion, id: GrantId, said: &str) -> Notice {
        self.later(at, occasion, ("grant", id.to_string()), self.grants.get(&id), &format!("Grant {said}"))
    }

    /// What is told of an approval or a grant after its first event.
    fn later(
        &self,
        at: Timestamp,
        occasion: Occasion,
        (label, id): (&'static str, String),
        subject: Option<&Subject>,
        said: &str,
    ) -> Notice {
        let mut facts = vec![(label, id.clone())];
        let mut data = fields(json!({ "host": told(&self.host), label: id }));
        let mut title = told(said);
        if let Some(Subject { workload, target, action, what, groups }) = subject {
            let doing = action.as_ref().map_or_else(String::new, |action| format!("{action} on "));
            title = told(&format!("{said}: {doing}{target} for {workload}"));
            facts.push(("who", format!("workload {workload}")));
            facts.push(("what", if action.is_some() { told(&format!("{what} on {target}")) } else { what.clone() }));
            let key = if action.is_some() { "summary" } else { "lets_through" };
            data.extend(fields(json!({ "workload": workload, "target": target, key: what, "groups": each(groups) })));
            data.extend(action.as_ref().map(|action| ("action".to_owned(), json!(action))));
        }
        let groups = Some(subject.map(|subject| subject.groups.clone()).unwrap_or_default());
        Notice { id: MessageId::new(), occasion: Some(occasion), at, about: id, groups, title, facts, data }
    }
}

/// What is asked for, in one line. Where answers are masked, a chat isn't told whom it is about either: what looks like an id
/// is left out of the path.
fn summary(request: &ApprovalRequest) -> String {
    if request.masked {
        let Shape { method, path, .. } = &request.shape;
        told(&format!("{method} {}", if path.is_empty() { "/" } else { path }))
    } else {
        told(&request.summary)
    }
}

/// Why its sender says it is wanted; not told where answers are masked, because nobody knows what is in it.
fn justification(request: &ApprovalRequest) -> Option<String> {
    request.justification.as_deref().filter(|_| !request.masked).map(told)
}

/// Keeps the latest: ids sort by time.
fn keep<K: Ord>(of: &mut BTreeMap<K, Subject>, id: K, subject: Subject) {
    of.insert(id, subject);
    if of.len() > REMEMBERED {
        of.pop_first();
    }
}

/// A text as people may see it: without what looks like a secret, with what is hidden spelled out, and bounded.
pub(super) fn told(text: &str) -> String {
    let kept = secrets::path(text);
    let shown = hidden::escape(&kept);
    let mut chars = shown.chars();
    let mut told: String = chars.by_ref().take(MOST).collect();
    if chars.next().is_some() {
        told.push('…');
    }
    told
}

fn each(texts: &[String]) -> Vec<String> {
    texts.iter().take(ENTRIES).map(|text| told(text)).collect()
}

fn list(texts: &[String]) -> String {
    told(&each(texts).join(", "))
}

/// An id with the name that the configuration has for it.
fn named(id: &str, identities: &Identities) -> String {
    match identities.names_for([id]).into_values().next() {
        Some(name) => told(&format!("{name} ({id})")),
        None => told(id),
    }
}

fn fields(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

#[cfg(test)]
pub(super) mod tests;
