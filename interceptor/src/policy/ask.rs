//! A question in Cedar's words: principal, action, resource and the context that the schema describes, as far as a policy
//! of the slice looks at it. The values have the schema's types by construction (a test holds them against it), so no
//! decision pays for checking them again.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, LazyLock};

use cedar_policy::{Entities, Entity, EntityUid, RestrictedExpression};
use cedar_policy_core::ast::{Context, EntityUID, Name, PartialValue, Request, Value, ValueKind};
use cedar_policy_core::extensions::Extensions;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::condition::Condition;
use super::reads::{EVERYTHING, Reads, View};
use super::rules::{Rules, known};
use super::{Credential, HttpRequest, Operation, Principal, Question, Snapshot, TokenRequest, path};
use crate::config::{Host, Named, Target};
use crate::ids::MaskName;

/// How many segments of a path policy sees one by one.
const SEGMENTS: usize = 16;

/// A question in Cedar's words, and the policies that could answer it.
pub(super) struct Ask<'a> {
    pub(super) request: Request,
    pub(super) entities: Cow<'a, Entities>,
    pub(super) slice: &'a [Arc<Condition>],
    /// The parameters of the query, decoded.
    pub(super) query: BTreeMap<String, Vec<String>>,
    /// The masks that the target names for every answer.
    pub(super) masks: &'a [MaskName],
}

/// Why a question can't be put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unasked {
    /// The settings don't know what it is about: nothing can have permitted it.
    Unknown(String),
    /// It can't be put into words.
    Broken(String),
    /// A policy asks for the principal's groups, and they aren't known.
    GroupsUnknown,
}

impl<'a> Ask<'a> {
    /// With what the slice's policies look at.
    pub(super) fn new(
        snapshot: &Snapshot,
        rules: &'a Rules,
        question: &Question<'_>,
        granted: bool,
        at: Timestamp,
    ) -> Result<Self, Unasked> {
        Self::put(snapshot, rules, question, None, granted, at)
    }

    /// With everything, for people to see.
    pub(super) fn whole(
        snapshot: &Snapshot,
        rules: &'a Rules,
        question: &Question<'_>,
        at: Timestamp,
    ) -> Result<Self, Unasked> {
        Self::put(snapshot, rules, question, Some(&EVERYTHING), false, at)
    }

    fn put(
        snapshot: &Snapshot,
        rules: &'a Rules,
        question: &Question<'_>,
        reads: Option<&Reads>,
        granted: bool,
        at: Timestamp,
    ) -> Result<Self, Unasked> {
        let name = &question.target.name;
        let ready = rules
            .ready(name, question.operation.action())
            .ok_or_else(|| Unasked::Unknown(format!("`{name}` isn't a target in these settings")))?;
        let masks = check_target(ready.settings, question)?;
        let reads = reads.unwrap_or(ready.reads);
        let base = base(snapshot, rules, question, reads.view("base"), (granted, at))?;
        let mut special_entities = Vec::new();
        let principal = match question.principal {
            Some(principal) => {
                check_principal(snapshot, principal)?;
                if principal.groups.is_none() && ready.names_groups {
                    return Err(Unasked::GroupsUnknown);
                }
                // What it is in shows only where a policy names a group or a role; putting it in costs as much as all
                // the rest of the question.
                if ready.names_kin {
                    special_entities.push(identity(snapshot, rules, principal)?);
                }
                known(&rules.identity(principal.id.as_str()))
            }
            None => rules.nobody().clone(),
        };
        let mut query = BTreeMap::new();
        let (kind, special) = match &question.operation {
            Operation::Resolve { name } => {
                let mut dns = Record::new(reads.view("dns"));
                dns.put("name", || string(name.as_str()));
                ("dns", dns.value())
            }
            Operation::Connect { host, port } => {
                let mut connect = Record::new(reads.view("connect"));
                connect.put("host", || string(host.to_string()));
                connect.put("port", || Value::from(i64::from(*port)));
                ("connect", connect.value())
            }
            Operation::Http(request) => {
                let view = reads.view("http");
                if let Some(raw) = request.query {
                    // Read in any case: one that can't be is not forwarded.
                    query = tags(raw)?;
                    if view.has("query") {
                        special_entities.push(query_entity(rules, &query)?);
                    }
                }
                ("http", http(rules, request, view))
            }
            Operation::Token(request) => ("token", token(request, reads.view("token"))),
        };
        let entities = if special_entities.is_empty() {
            Cow::Borrowed(ready.entities)
        } else {
            let all = ready.family.iter().cloned().chain(special_entities);
            Cow::Owned(Entities::from_entities(all, None).map_err(broken)?)
        };
        let context = match Value::record([("base", base), (kind, special)], None).value {
            ValueKind::Record(fields) => Context::Value(fields),
            _ => Context::empty(),
        };
        let (action, target) = (ready.action.clone(), ready.target.clone());
        let request = Request::new_unchecked(principal, action, target, Some(context));
        Ok(Self { request, entities, slice: ready.slice, query, masks })
    }
}

/// The target as the snapshot knows it has to cover what is asked: a connection that was opened under other settings
/// asks again under these. Answers the masks that it names.
fn check_target<'a>(target: &'a Target, question: &Question<'_>) -> Result<&'a [MaskName], Unasked> {
    let lists = |host: &Host| target.hosts.iter().any(|pattern| pattern.matches(host));
    let covered = match &question.operation {
        Operation::Resolve { name } => lists(&Host::Name((*name).clone())),
        Operation::Connect { host, port } | Operation::Http(HttpRequest { host, port, .. }) => {
            lists(host) && target.ports.contains(port)
        }
        Operation::Token(request) => target.takes(request.audience),
    };
    if covered {
        Ok(&target.masks)
    } else {
        let what = match &question.operation {
            Operation::Resolve { name } => name.to_string(),
            Operation::Connect { host, port } | Operation::Http(HttpRequest { host, port, .. }) => {
                format!("{host} port {port}")
            }
            Operation::Token(request) => format!("the audience `{}`", request.audience),
        };
        Err(Unasked::Unknown(format!("target `{}` doesn't list {what}", target.name)))
    }
}

/// A principal's tenant or issuer has to be listed: a token that was accepted under other settings may not be any more.
fn check_principal(snapshot: &Snapshot, principal: &Principal) -> Result<(), Unasked> {
    let realm = principal.id.realm();
    if snapshot.settings.identities.has_realm(realm) {
        return Ok(());
    }
    Err(Unasked::Unknown(format!("`{realm}` isn't a tenant or an issuer in these settings")))
}

fn base(
    snapshot: &Snapshot,
    rules: &Rules,
    question: &Question<'_>,
    view: View<'_>,
    (granted, at): (bool, Timestamp),
) -> Result<Value, Unasked> {
    let asker = question.asker;
    let workload = rules
        .workload(&asker.workload)
        .ok_or_else(|| Unasked::Unknown(format!("`{}` isn't a workload in these settings", asker.workload)))?;
    let credential = match &question.operation {
        Operation::Http(request) => request.credential,
        Operation::Resolve { .. } | Operation::Connect { .. } | Operation::Token(_) => Credential::None,
    };
    let principal = question.principal;
    let mut base = Record::new(view);
    base.put("workload", || entity(workload));
    base.put("classes", || set(asker.classes.iter().map(String::as_str)));
    base.put("initiator", || Value::from(i64::from(asker.initiator)));
    base.put("credential", || string(credential.as_str()));
    base.put("tenant", || string(principal.map_or("", |principal| principal.id.realm())));
    base.put("client", || {
        let client = principal.and_then(|principal| principal.client);
        string(client.map(|client| client.to_string()).unwrap_or_default())
    });
    base.put("kind", || string(principal.map_or("none", |principal| principal.kind.as_str())));
    base.put("authentic", || string(principal.map_or("none", |principal| principal.authentic.as_str())));
    base.put("bound", || string(principal.map_or("none", |principal| principal.bound.as_str())));
    base.put("granted", || Value::from(granted));
    if view.has("now") {
        let now = datetime(at)?;
        base.put("now", || now);
    }
    if view.has("minute") || view.has("weekday") {
        let local = at.to_zoned(snapshot.zone.clone());
        base.put("minute", || Value::from(i64::from(local.hour()) * 60 + i64::from(local.minute())));
        base.put("weekday", || Value::from(i64::from(local.weekday().to_monday_one_offset())));
    }
    if let Some(person) = snapshot.settings.identities.people.get(&asker.initiator) {
        base.put("person", || entity(&rules.identity(person.as_str())));
    }
    Ok(base.value())
}

/// The principal with its groups and roles, under their ids and under every name that the configuration gives them.
fn identity(snapshot: &Snapshot, rules: &Rules, principal: &Principal) -> Result<Entity, Unasked> {
    let identities = &snapshot.settings.identities;
    let mut parents = HashSet::new();
    for id in principal.groups.iter().flatten() {
        let named = Named::Group(id.clone());
        for name in identities.names_of(&named).chain([id.as_str()]) {
            parents.insert(rules.group(name));
        }
    }
    for id in &principal.roles {
        let named = Named::Role(id.clone());
        for name in identities.names_of(&named).chain([id.as_str()]) {
            parents.insert(rules.role(name));
        }
    }
    let uid = rules.identity(principal.id.as_str());
    Entity::new(uid, HashMap::new(), parents).map_err(broken)
}

fn token(request: &TokenRequest<'_>, view: View<'_>) -> Value {
    let mut token = Record::new(view);
    token.put("tenant", || string(request.tenant));
    token.put("client", || string(request.client));
    token.put("grant", || string(request.grant));
    token.put("scopes", || set(request.scopes.iter().map(String::as_str)));
    token.put("audience", || string(request.audience));
    token.value()
}

fn http(rules: &Rules, request: &HttpRequest<'_>, view: View<'_>) -> Value {
    const NAMES: [&str; SEGMENTS] =
        ["s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "s12", "s13", "s14", "s15"];
    let mut http = Record::new(view);
    http.put("method", || string(request.method));
    http.put("host", || string(request.host.to_string()));
    http.put("port", || Value::from(i64::from(request.port)));
    http.put("tls", || Value::from(request.tls));
    http.put("path", || string(request.path.decoded()));
    http.put("raw", || string(request.path.raw()));
    http.put("segments", || Value::from(i64::try_from(request.path.segments().count()).unwrap_or(i64::MAX)));
    http.put("query", || entity(rules.query()));
    let mut segments = request.path.segments();
    for name in NAMES {
        let segment = segments.next().unwrap_or_default();
        http.put(name, || string(segment));
    }
    http.value()
}

fn query_entity(rules: &Rules, query: &BTreeMap<String, Vec<String>>) -> Result<Entity, Unasked> {
    let literal = |value: &String| RestrictedExpression::new_string(value.clone());
    let tags =
        query.iter().map(|(key, values)| (key.clone(), RestrictedExpression::new_set(values.iter().map(literal))));
    Entity::new_with_tags(rules.query().clone(), [], [], tags).map_err(broken)
}

/// A record of the context in the making: what nobody looks at isn't made.
struct Record<'a> {
    view: View<'a>,
    fields: Vec<(&'static str, Value)>,
}

impl<'a> Record<'a> {
    fn new(view: View<'a>) -> Self {
        Self { view, fields: Vec::new() }
    }

    fn put(&mut self, name: &'static str, value: impl FnOnce() -> Value) {
        if self.view.has(name) {
            self.fields.push((name, value()));
        }
    }

    fn value(self) -> Value {
        Value::record(self.fields, None)
    }
}

/// The parameters by key; a key without `=` has the value "".
fn tags(raw: &str) -> Result<BTreeMap<String, Vec<String>>, Unasked> {
    let mut tags: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, value) in path::parameters(raw).map_err(|error| Unasked::Broken(error.to_string()))? {
        tags.entry(key.into_owned()).or_default().push(value.into_owned());
    }
    Ok(tags)
}

/// Cedar's value of a moment, to the millisecond, as Cedar's are. Each thread keeps its last one: many questions are put
/// within one.
fn datetime(at: Timestamp) -> Result<Value, Unasked> {
    thread_local! {
        static LAST: RefCell<Option<(i128, Value)>> = const { RefCell::new(None) };
    }
    let moment = at.as_nanosecond().div_euclid(1_000_000);
    LAST.with_borrow_mut(|last| match last {
        Some((then, value)) if *then == moment => Ok(value.clone()),
        last => {
            let value = made_of_text(at)?;
            *last = Some((moment, value.clone()));
            Ok(value)
        }
    })
}

/// Cedar makes a moment of text only: `2026-11-23T09:15:40.000Z`.
fn made_of_text(at: Timestamp) -> Result<Value, Unasked> {
    static MAKER: LazyLock<Option<Name>> = LazyLock::new(|| "datetime".parse().ok());
    let utc = at.to_zoned(TimeZone::UTC);
    let (date, time) = (utc.date(), utc.time());
    let text = format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        date.year(),
        date.month(),
        date.day(),
        time.hour(),
        time.minute(),
        time.second(),
        time.millisecond()
    );
    let maker = MAKER.as_ref().ok_or_else(|| broken("Cedar has no moments"))?;
    let made = Extensions::all_available().func(maker).map_err(broken)?.call(&[Value::from(text)]).map_err(broken)?;
    match made {
        PartialValue::Value(value) => Ok(value),
        PartialValue::Residual(rest) => Err(broken(rest)),
    }
}

fn string(text: impl AsRef<str>) -> Value {
    Value::from(text.as_ref())
}

fn set<'a>(texts: impl Iterator<Item = &'a str>) -> Value {
    Value::set(texts.map(Value::from), None)
}

fn entity(uid: &EntityUid) -> Value {
    Value::from(EntityUID::clone(uid.as_ref()))
}

fn broken(error: impl std::fmt::Display) -> Unasked {
    Unasked::Broken(error.to_string())
}
