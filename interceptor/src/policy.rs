//! Policy: Cedar files in, verdicts with their reasons out. Pure: no clock, no IO, no lock.
//!
//! [`Snapshot`] is everything a decision depends on; [`decide`] is one total function of it. A [`Permit`] is the only
//! way to forward something, and only this module can make one. Not here: reading the files (`config`), swapping the
//! snapshot (`daemon`), what a verdict does to a connection (`pipeline`).

use std::sync::Arc;

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::config::{Host, Hostname, Settings, Target};
use crate::ids::{ClientId, Digest, GrantId, PrincipalId, TargetName, WorkloadName};

mod annotation;
mod ask;
mod basis;
mod break_glass;
mod condition;
mod credential;
mod decide;
mod explain;
mod fault;
#[cfg(test)]
mod fixture;
mod grant;
mod lex;
mod load;
mod path;
mod reads;
mod rules;

pub use basis::{Basis, Obligations};
pub use break_glass::BreakGlass;
pub use credential::foreign;
pub use decide::decide;
pub use explain::{Asked, Cited, Explanation, explain, recall};
pub use fault::{PolicyErrors, PolicyFault, Wrong};
pub use grant::{Behind, Grant, Grants, Origin, Scope, Shape, Terms, Whose, Width};
pub use load::SCHEMA;
pub use path::{Ambiguity, AmbiguousPath, METHOD_OVERRIDE_HEADERS, check_query};

/// The state of the world that decisions are made on: settings and policies of one generation.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts up with every load.
    pub generation: u64,
    /// Targets and workloads.
    pub settings: Arc<Settings>,
    zone: TimeZone,
    sources: Vec<Source>,
    digest: String,
    state: State,
    /// What counts while the glass is broken: `break-glass.d`, and what is forbidden always; none where that is empty.
    emergency: Option<Box<rules::Rules>>,
    warnings: Vec<PolicyFault>,
}

#[derive(Debug)]
enum State {
    /// Nothing can be decided, and why; so everything is denied.
    Sealed(String),
    Open(Box<rules::Rules>),
}

/// One policy file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Its path, as errors name it.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// What is in force: how the daemon answers `policy show` and `policy reload`. Its JSON is stable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForce {
    /// The snapshot's generation.
    pub generation: u64,
    /// BLAKE3 of the files, in hex.
    pub digest: String,
    /// Why everything is denied, if it is.
    pub sealed: Option<String>,
    /// The ids of the policies, sorted.
    pub policies: Vec<String>,
    /// The ids of those that count while the glass is broken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub break_glass: Vec<String>,
    /// The files, in their order.
    pub sources: Vec<Source>,
}

/// What is asked.
#[derive(Debug, Clone)]
pub struct Question<'a> {
    /// Who asks.
    pub asker: &'a Asker,
    /// Whom its token names; none without a token.
    pub principal: Option<&'a Principal>,
    /// The target that is asked for.
    pub target: &'a Arc<Target>,
    /// What is wanted of it.
    pub operation: Operation<'a>,
    /// What a grant knows this very operation by; none where it isn't known.
    pub digest: Option<Digest>,
    /// The grant that this operation is a use of already.
    pub using: Option<GrantId>,
}

/// Who asks: the part of a question that stays the same for a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asker {
    /// The workload.
    pub workload: WorkloadName,
    /// Its classes.
    pub classes: Vec<String>,
    /// The uid of the person who launched it.
    pub initiator: u32,
    /// As whom that person logged in, where the kernel knows it. Policy doesn't see it; grants are bound to it.
    pub loginuid: Option<u32>,
}

/// Whom the operation's token names, and what is known of the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Who.
    pub id: PrincipalId,
    /// What it is.
    pub kind: PrincipalKind,
    /// The application that the token was issued to.
    pub client: Option<ClientId>,
    /// Its groups, `<tenant>/<id>`; none if they aren't known. Where a policy asks for them, that denies.
    pub groups: Option<Vec<String>>,
    /// Its app roles, `<tenant>/<audience>/<value>`.
    pub roles: Vec<String>,
    /// What makes it authentic.
    pub authentic: Authentic,
    /// What binds it to the workload.
    pub bound: Bound,
}

/// What a principal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PrincipalKind {
    /// A person, by way of an application.
    User,
    /// An application as itself.
    ServicePrincipal,
    /// An identity that Azure gave a host.
    ManagedIdentity,
    /// An agent's own identity, made from a blueprint.
    AgentIdentity,
    /// A user account that belongs to an agent.
    AgentUser,
}

/// What makes a token authentic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Authentic {
    /// Its issuer's signature.
    Signature,
    /// The issuer's answer, in TLS that we verified.
    Issuer,
    /// The answer of an endpoint of the host, which we dialled ourselves.
    HostEndpoint,
}

/// What binds a token to a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bound {
    /// We saw it issued to this workload.
    IssuedHere,
    /// It is in the file that the configuration gives this workload.
    TokenFile,
}

/// What is wanted of a target.
#[derive(Debug, Clone)]
pub enum Operation<'a> {
    /// `dns:resolve`: to look a name up.
    Resolve {
        /// The name.
        name: &'a Hostname,
    },
    /// `connect`: to open a connection.
    Connect {
        /// The name or listed address that is connected to.
        host: &'a Host,
        /// The port.
        port: u16,
    },
    /// `http:…`: to send a request.
    Http(HttpRequest<'a>),
    /// `token:request`: to be issued a token, which would be for the target.
    Token(TokenRequest<'a>),
}

/// What policy sees of a request to a token endpoint.
#[derive(Debug, Clone)]
pub struct TokenRequest<'a> {
    /// The tenant: its id, `common`, `organizations`, the name of an issuer, or nothing for a managed identity.
    pub tenant: &'a str,
    /// The application that asks; empty where the host decides it.
    pub client: &'a str,
    /// The grant, as in `client_credentials`.
    pub grant: &'a str,
    /// The scopes.
    pub scopes: &'a [String],
    /// The audience.
    pub audience: &'a str,
}

/// What policy sees of an HTTP request.
#[derive(Debug, Clone)]
pub struct HttpRequest<'a> {
    /// The method, in upper case as it was sent.
    pub method: &'a str,
    /// The host that Host, SNI and the looked-up name agree on.
    pub host: &'a Host,
    /// The port.
    pub port: u16,
    /// Whether it came in TLS.
    pub tls: bool,
    /// The path.
    pub path: &'a CanonicalPath,
    /// The query, without its `?`; one that [`check_query`] refuses is denied.
    pub query: Option<&'a str>,
    /// What it authenticates with.
    pub credential: Credential,
    /// Whether it asks to go on as a WebSocket.
    pub websocket: bool,
}

/// What a request authenticates with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Credential {
    /// Nothing that is known to authenticate.
    #[default]
    None,
    /// A token that was seen issued to the workload.
    Entra,
    /// The target's own credential, which Interceptor puts in; the process has nothing that authenticates.
    Injected,
    /// Something that Interceptor neither issued nor verified: any scheme, a cookie, a key, a signature in the query.
    Foreign,
}

/// A path that every server reads alike: what policy saw is what is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanonicalPath {
    raw: Arc<str>,
    /// With its segments decoded, where that is something else.
    decoded: Option<Arc<str>>,
}

/// A verdict with what determined it.
#[derive(Debug)]
pub enum Decision {
    /// It may go on, with this permit.
    Allow(Permit),
    /// It may not.
    Deny(Denial),
    /// It may, once people have said yes.
    Hold(Hold),
}

/// The right to do one thing, once. Only [`decide`] makes one.
///
/// The basis of a verdict is anybody's to make:
///
/// ```
/// let basis = interceptor::policy::Basis::default();
/// ```
///
/// A permit isn't:
///
/// ```compile_fail,E0451
/// let basis = interceptor::policy::Basis::default();
/// let permit = interceptor::policy::Permit { basis };
/// ```
#[derive(Debug)]
pub struct Permit {
    basis: Basis,
}

/// An allow that waits for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// What determined it; its obligations have the terms.
    pub basis: Basis,
    /// Who has to answer, and what their yes is good for.
    pub terms: Terms,
}

/// A refusal by policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// The stable code: `denied-by-default`, `denied-by-policy`, `policy-error`, `policy-sealed`,
    /// `groups-unknown`.
    pub code: &'static str,
    /// What determined it.
    pub basis: Basis,
}

impl Snapshot {
    /// A snapshot that denies everything with the code `policy-sealed`: what is in force when there is no good one.
    /// `why` is one line for operators.
    pub fn sealed(settings: Arc<Settings>, why: impl Into<String>, generation: u64) -> Self {
        Self {
            generation,
            settings,
            zone: TimeZone::UTC,
            sources: Vec::new(),
            digest: load::digest(&[]),
            state: State::Sealed(why.into()),
            emergency: None,
            warnings: Vec::new(),
        }
    }

    /// The same, with `context.base.minute` and `weekday` in this time zone. Without it they are in UTC.
    #[must_use]
    pub fn in_zone(mut self, zone: TimeZone) -> Self {
        self.zone = zone;
        self
    }

    /// Why it denies everything, if it does.
    pub fn why_sealed(&self) -> Option<&str> {
        match &self.state {
            State::Sealed(why) => Some(why),
            State::Open(_) => None,
        }
    }

    /// The files it was loaded from, in their order.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// What its policies can't do although they say so, by file and place. It is no error.
    pub fn warnings(&self) -> &[PolicyFault] {
        &self.warnings
    }

    /// BLAKE3 of the names and texts of the files, in hex: 64 characters.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// What is in force while this snapshot is.
    pub fn in_force(&self) -> InForce {
        InForce {
            generation: self.generation,
            digest: self.digest.clone(),
            sealed: self.why_sealed().map(str::to_owned),
            policies: self.policies().into_iter().map(str::to_owned).collect(),
            break_glass: self.break_glass().into_iter().map(str::to_owned).collect(),
            sources: self.sources.clone(),
        }
    }

    /// Whether a policy that could decide this action on this target names a group: then groups have to be known.
    pub fn needs_groups(&self, target: &TargetName, action: &str) -> bool {
        match &self.state {
            State::Sealed(_) => false,
            State::Open(rules) => {
                let needs = |rules: &rules::Rules| rules.ready(target, action).is_some_and(|ready| ready.names_groups);
                needs(rules) || self.emergency.as_deref().is_some_and(needs)
            }
        }
    }

    /// The ids of the policies that count only while the glass is broken, sorted. Empty where there is nothing to break.
    pub fn break_glass(&self) -> Vec<&str> {
        self.emergency.as_ref().map(|rules| rules.of_emergencies()).unwrap_or_default()
    }

    /// The ids of its policies, sorted.
    pub fn policies(&self) -> Vec<&str> {
        match &self.state {
            State::Sealed(_) => Vec::new(),
            State::Open(rules) => rules.ids(),
        }
    }
}

impl Operation<'_> {
    /// The name of its action: `connect`, `dns:resolve`, `token:request`, `http:GET`, `http:other` for a method without an
    /// action of its own, or `http:websocket`.
    pub fn action(&self) -> &'static str {
        match self {
            Operation::Resolve { .. } => "dns:resolve",
            Operation::Connect { .. } => "connect",
            Operation::Http(request) => action(request.method, request.websocket),
            Operation::Token(_) => "token:request",
        }
    }
}

/// The action that a request with this method is, or one that opens a WebSocket.
pub fn action(method: &str, websocket: bool) -> &'static str {
    match method {
        _ if websocket => "http:websocket",
        "GET" => "http:GET",
        "HEAD" => "http:HEAD",
        "OPTIONS" => "http:OPTIONS",
        "POST" => "http:POST",
        "PUT" => "http:PUT",
        "PATCH" => "http:PATCH",
        "DELETE" => "http:DELETE",
        _ => "http:other",
    }
}

impl PrincipalKind {
    /// Its name, as policies compare it.
    pub fn as_str(self) -> &'static str {
        match self {
            PrincipalKind::User => "user",
            PrincipalKind::ServicePrincipal => "service-principal",
            PrincipalKind::ManagedIdentity => "managed-identity",
            PrincipalKind::AgentIdentity => "agent-identity",
            PrincipalKind::AgentUser => "agent-user",
        }
    }
}

impl Authentic {
    /// Its name, as policies compare it.
    pub fn as_str(self) -> &'static str {
        match self {
            Authentic::Signature => "signature",
            Authentic::Issuer => "issuer",
            Authentic::HostEndpoint => "host-endpoint",
        }
    }
}

impl Bound {
    /// Its name, as policies compare it.
    pub fn as_str(self) -> &'static str {
        match self {
            Bound::IssuedHere => "issued-here",
            Bound::TokenFile => "token-file",
        }
    }
}

impl Permit {
    /// What determined the allow.
    pub fn basis(&self) -> &Basis {
        &self.basis
    }
}

impl Denial {
    /// What the client may be told: the policies' own `@reason`s, nothing of what operators wrote for themselves.
    pub fn told(&self) -> String {
        match self.code {
            "denied-by-policy" if self.basis.reasons.is_empty() => "a policy forbids it".into(),
            "denied-by-policy" => self.basis.reasons.join("; "),
            "denied-by-default" => "no policy permits it".into(),
            "groups-unknown" => "a policy asks for the groups of who asks, and they can't be known".into(),
            "policy-sealed" => "there is no valid policy, so everything is denied".into(),
            _ => "policy could not be evaluated, so it is denied".into(),
        }
    }

    /// What the client should do next, in one sentence.
    pub fn next(&self) -> &'static str {
        match self.code {
            "denied-by-policy" => "don't retry: do without it, or ask the operator for an exemption from the policy",
            "denied-by-default" => "don't retry: do without it, or ask the operator to permit it",
            _ => "don't retry: ask the operator to mend the policy",
        }
    }
}
