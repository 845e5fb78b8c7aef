//! Grants: what people, or an operator, let through although policy holds it. Inputs of `decide`. Who keeps them, counts
//! their uses and ends them is `approve`.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::annotation::Approval;
use super::rules::ACTIONS;
use super::{BreakGlass, HttpRequest, Operation, Question};
use crate::ids::{ApprovalId, BreakGlassId, ClientId, Digest, GrantId, PrincipalId, TargetName, WorkloadName};

/// How long people have to answer, how long their yes lasts, and how often it can be used, where no policy says it.
const WITHIN: u64 = 3600;
const GRANT_FOR: u64 = 300;
const GRANT_USES: u64 = 1;

/// Who has to answer a held operation, and what their yes is good for at most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// The groups of which people have to say yes: each of them. Sorted.
    pub groups: Vec<String>,
    /// What the initiator has to say yes to as well: a line for each policy that wants it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub confirm: Vec<String>,
    /// How many people of each group.
    pub approvals: u64,
    /// How long they have, in seconds.
    pub within: u64,
    /// How long their yes lasts, in seconds.
    pub grant_for: u64,
    /// How often it can be used.
    pub grant_uses: u64,
    /// The widest that it may be for.
    pub grant_scope: Width,
}

/// How wide a grant is, the narrowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Width {
    /// This very operation: method, URL, headers and body.
    Operation,
    /// Operations of its shape: the same method, path but for ids, and query keys.
    Shape,
    /// Every operation of its action on the target.
    Action,
    /// Everything on the target.
    Target,
}

/// What a grant lets through. Only what policy permits as well, once people have said yes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Its id.
    pub id: GrantId,
    /// The workload that it is for.
    pub workload: WorkloadName,
    /// Whose operations it is for.
    pub whose: Whose,
    /// Who has to be behind them.
    #[serde(default, skip_serializing_if = "Behind::is_anybody")]
    pub behind: Behind,
    /// The target.
    pub target: TargetName,
    /// What of it.
    pub scope: Scope,
    /// Where it comes from.
    pub origin: Origin,
    /// Until when it lasts.
    pub until: Timestamp,
    /// How often it can be used; none: without end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u64>,
    /// How many bytes of answers it lets through; none: without end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// How many rows of them; none: without end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
}

/// Whose operations a grant is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Whose {
    /// Whoever the workload acts as, also nobody.
    Anyone,
    /// Operations without a token.
    Nobody,
    /// Operations whose token names this principal.
    Principal(PrincipalId),
}

/// Who has to be behind the operations that a grant is for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Behind {
    /// Anybody.
    #[default]
    Anybody,
    /// Who launched the workload, by uid.
    Initiator(u32),
    /// Who asked.
    Asker {
        /// The uid of who launched the workload.
        initiator: u32,
        /// As whom that person logged in; none: as far as the kernel knows, as nobody.
        loginuid: Option<u32>,
        /// The application that the token was issued to; none: to none, or there is no token.
        client: Option<ClientId>,
    },
}

/// What a grant is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "width", rename_all = "lowercase")]
pub enum Scope {
    /// One operation, known by its digest.
    Operation {
        /// The digest.
        digest: Digest,
    },
    /// HTTP requests of one shape.
    Shape {
        /// The shape.
        #[serde(flatten)]
        shape: Shape,
    },
    /// An action, or a group of actions.
    Action {
        /// `http:POST`, `http:write`.
        action: String,
        /// Only below this path, decoded.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path: Option<String>,
    },
    /// Everything.
    Target,
}

/// What requests have in common that differ in ids and values only.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Shape {
    /// The method.
    pub method: String,
    /// The path, with `{id}` for what looks like an id.
    pub path: String,
    /// The keys of the query, sorted.
    pub keys: Vec<String>,
    /// Whether they open WebSockets.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub websocket: bool,
}

/// Where a grant comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "lowercase")]
pub enum Origin {
    /// People said yes.
    Approval {
        /// To this.
        approval: ApprovalId,
        /// As members of these groups.
        groups: Vec<String>,
        /// So many of each.
        approvals: u64,
        /// And the initiator, to each of these lines. What an earlier version recorded doesn't tell them.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        confirm: Vec<String>,
        /// How long it was for, in seconds; none where an earlier version recorded it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lasts: Option<u64>,
        /// How many uses it was for; none where an earlier version recorded it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        given: Option<u64>,
    },
    /// An operator issued it: it stands for everybody's yes, and policy sees it as `context.base.granted`.
    Operator,
}

/// What is let through at a moment besides what policy permits: the live grants, and the broken glass.
#[derive(Debug, Clone, Default)]
pub struct Grants {
    grants: Vec<Arc<Grant>>,
    broken: Vec<Arc<BreakGlass>>,
}

impl Terms {
    /// What several `@approval`s and `@confirm`s demand together; none where there is none. Of numbers the stricter counts.
    pub(super) fn of<'a>(approvals: impl Iterator<Item = &'a Approval>) -> Option<Self> {
        let all: Vec<&Approval> = approvals.collect();
        let sorted = |text: fn(&Approval) -> Option<&String>| {
            let texts: BTreeSet<&String> = all.iter().filter_map(|one| text(one)).collect();
            texts.into_iter().cloned().collect::<Vec<_>>()
        };
        let (groups, confirm) = (sorted(|one| one.group.as_ref()), sorted(|one| one.confirm.as_ref()));
        let least = |number: fn(&Approval) -> Option<u64>, otherwise| {
            all.iter().map(|one| number(one).unwrap_or(otherwise)).min().unwrap_or(otherwise)
        };
        (!all.is_empty()).then(|| Self {
            approvals: all.iter().filter_map(|one| one.approvals).max().unwrap_or(1),
            within: least(|one| one.within, WITHIN),
            grant_for: least(|one| one.grant_for, GRANT_FOR),
            grant_uses: least(|one| one.grant_uses, GRANT_USES),
            grant_scope: all
                .iter()
                .map(|one| one.grant_scope.unwrap_or(Width::Operation))
                .min()
                .unwrap_or(Width::Operation),
            groups,
            confirm,
        })
    }
}

impl Width {
    /// Reads `operation`, `shape`, `action` or `target`.
    pub fn of(text: &str) -> Option<Self> {
        Some(match text {
            "operation" => Width::Operation,
            "shape" => Width::Shape,
            "action" => Width::Action,
            "target" => Width::Target,
            _ => return None,
        })
    }
}

impl fmt::Display for Width {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Width::Operation => "operation",
            Width::Shape => "shape",
            Width::Action => "action",
            Width::Target => "target",
        })
    }
}

impl Shape {
    /// The shape of a request.
    pub fn of(request: &HttpRequest<'_>) -> Self {
        let segments = request.path.segments().map(|segment| if is_id(segment) { "{id}" } else { segment });
        let path = segments.fold(String::new(), |path, segment| path + "/" + segment);
        let mut keys: Vec<String> = request
            .query
            .map(|query| form_urlencoded::parse(query.as_bytes()).map(|(key, _)| key.into_owned()).collect())
            .unwrap_or_default();
        keys.sort_unstable();
        keys.dedup();
        Self { method: request.method.to_owned(), path, keys, websocket: request.websocket }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, if self.path.is_empty() { "/" } else { &self.path })?;
        if !self.keys.is_empty() {
            write!(f, "?{}", self.keys.join("&"))?;
        }
        f.write_str(if self.websocket { " as a WebSocket" } else { "" })
    }
}

/// Whether a segment of a path names one thing of many: a number, hexadecimal digits, a GUID, an address, or what is long
/// and has digits in it.
fn is_id(segment: &str) -> bool {
    let digits = segment.bytes().filter(u8::is_ascii_digit).count();
    let hexadecimal = segment.len() >= 8 && segment.bytes().all(|c| c.is_ascii_hexdigit() || c == b'-');
    digits == segment.len() || (digits > 0 && (hexadecimal || segment.len() >= 20)) || segment.contains('@')
}

impl Scope {
    /// Whether the schema has an action, or a group of actions, of this name: a grant of another lets nothing through.
    pub fn has_action(name: &str) -> bool {
        GROUPS.contains(&name) || ACTIONS.contains(&name)
    }

    /// How wide it is.
    pub fn width(&self) -> Width {
        match self {
            Scope::Operation { .. } => Width::Operation,
            Scope::Shape { .. } => Width::Shape,
            Scope::Action { .. } => Width::Action,
            Scope::Target => Width::Target,
        }
    }

    /// What it lets through, in plain words.
    pub fn told(&self, target: &TargetName) -> String {
        match self {
            Scope::Operation { .. } => "this operation, exactly: the same method, URL, headers and body".into(),
            Scope::Shape { shape } => {
                let what = if shape.path.contains("{id}") { " with any ids," } else { "" };
                let any = "any values in its query, any header fields";
                format!("every `{shape}` on `{target}`,{what} with {any} and {}", body(shape.websocket))
            }
            Scope::Action { action, path } => {
                let body = body(action == "http:websocket");
                let (below, any) = match path {
                    None => (String::new(), "any path, query"),
                    Some(path) => (format!(" below `{path}`"), "any query"),
                };
                format!("every `{action}`{below} on `{target}`: {any}, header fields and {body}")
            }
            Scope::Target => format!("everything on `{target}`"),
        }
    }

    fn covers(&self, question: &Question<'_>) -> bool {
        match self {
            Scope::Operation { digest } => question.digest.as_ref() == Some(digest),
            Scope::Shape { shape } => match &question.operation {
                Operation::Http(request) => Shape::of(request) == *shape,
                _ => false,
            },
            Scope::Action { action, path } => {
                let asked = question.operation.action();
                let below = |path: &String| match &question.operation {
                    Operation::Http(request) => is_below(request.path.decoded(), path),
                    _ => false,
                };
                is_action(asked, action) && path.as_ref().is_none_or(below)
            }
            Scope::Target => true,
        }
    }
}

/// What follows the head of a request, of whatever kind it is let through.
fn body(websocket: bool) -> &'static str {
    if websocket { "whatever is said over it afterwards" } else { "any body" }
}

/// The groups of actions that the schema has.
const GROUPS: [&str; 4] = ["reach", "http", "http:read", "http:write"];

/// Whether an action is this one, or in this group. The groups are those of the schema.
fn is_action(asked: &str, named: &str) -> bool {
    let read = matches!(asked, "http:GET" | "http:HEAD" | "http:OPTIONS");
    match named {
        "http" => asked.starts_with("http:") && asked != "http:websocket",
        "http:read" => read,
        "http:write" => asked.starts_with("http:") && asked != "http:websocket" && !read,
        "reach" => matches!(asked, "connect" | "dns:resolve"),
        named => asked == named,
    }
}

/// Whether a path is this one or below it.
fn is_below(path: &str, prefix: &str) -> bool {
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Behind {
    fn is_anybody(&self) -> bool {
        *self == Behind::Anybody
    }

    /// Whether they are behind what is asked.
    fn is_so(&self, question: &Question<'_>) -> bool {
        let asker = &question.asker;
        match self {
            Behind::Anybody => true,
            Behind::Initiator(uid) => *uid == asker.initiator,
            Behind::Asker { initiator, loginuid, client } => {
                let by = question.principal.and_then(|principal| principal.client);
                (*initiator, *loginuid, *client) == (asker.initiator, asker.loginuid, by)
            }
        }
    }
}

impl Grant {
    /// Whether it lets through what is asked at `at`, as far as its uses go.
    fn covers(&self, question: &Question<'_>, at: Timestamp) -> bool {
        let whose = match (&self.whose, question.principal) {
            (Whose::Anyone, _) | (Whose::Nobody, None) => true,
            (Whose::Principal(id), Some(principal)) => *id == principal.id,
            (Whose::Nobody, Some(_)) | (Whose::Principal(_), None) => false,
        };
        let is_left = self.uses != Some(0) && self.bytes != Some(0) && self.rows != Some(0);
        let lives = at < self.until && (is_left || question.using == Some(self.id));
        lives
            && self.workload == question.asker.workload
            && self.target == question.target.name
            && whose
            && self.behind.is_so(question)
            && self.scope.covers(question)
    }

    /// Whether it stands for the yes that these terms demand. People's yes was given on the terms of their question: it
    /// isn't one to what may be let through in narrower ways only, for a shorter time, or less often.
    pub(super) fn discharges(&self, terms: &Terms) -> bool {
        match &self.origin {
            Origin::Operator => true,
            Origin::Approval { groups, approvals, confirm, lasts, given, .. } => {
                let has_enough = terms.groups.is_empty() || *approvals >= terms.approvals;
                has_enough
                    && terms.groups.iter().all(|group| groups.contains(group))
                    && terms.confirm.iter().all(|text| confirm.contains(text))
                    && self.scope.width() <= terms.grant_scope
                    && lasts.is_none_or(|seconds| seconds <= terms.grant_for)
                    && given.is_none_or(|uses| uses <= terms.grant_uses)
            }
        }
    }

    /// Whether an operator issued it.
    pub fn is_issued(&self) -> bool {
        self.origin == Origin::Operator
    }
}

impl Grants {
    /// These.
    pub fn new(grants: Vec<Arc<Grant>>, broken: Vec<Arc<BreakGlass>>) -> Self {
        Self { grants, broken }
    }

    /// The glass that is broken for a workload.
    pub(super) fn broken(&self, workload: &WorkloadName, at: Timestamp) -> Option<BreakGlassId> {
        self.broken.iter().find(|broken| broken.covers(workload, at)).map(|broken| broken.id)
    }

    /// Those that let through what is asked, the one that is in use already first, then the narrowest.
    pub(super) fn covering(&self, question: &Question<'_>, at: Timestamp) -> Vec<&Grant> {
        let mut found: Vec<&Grant> =
            self.grants.iter().map(AsRef::as_ref).filter(|grant| grant.covers(question, at)).collect();
        found.sort_by_key(|grant| (question.using != Some(grant.id), grant.scope.width(), grant.id));
        found
    }
}

#[cfg(test)]
mod tests;
