//! Authentication: whom a request's token names, whether it may carry what it authenticates with, and whether it is what
//! its target's pin demands. What a login host or a host endpoint is asked is in [`super::token`].

use std::sync::Arc;

use http::{HeaderMap, Method, header};
use jiff::Timestamp;

use super::gate::not_recorded;
use super::live::Live;
use super::membership::Membership;
use super::operation::Decided;
use super::reply::Refusal;
use super::request::Decoded;
use super::ruling::Ruling;
use super::token::Observing;
use crate::config::Target;
use crate::error::{Blame, Fault};
use crate::identity::keys::KeyError;
use crate::identity::provenance::{Digest, Issued};
use crate::identity::{JudgeError, Judged, Presented};
use crate::ids::OperationId;
use crate::policy::{CanonicalPath, Credential, HttpRequest, Operation, Principal, TokenRequest, foreign};
use crate::record::event::{Identity, Named, TokenIssued, What};

/// Whom a request's token names, and what the record says of the token.
#[derive(Debug, Clone)]
pub(super) struct Identified {
    pub(super) principal: Arc<Principal>,
    /// The token's keyed digest.
    pub(super) token: Digest,
    /// The token's `uti`.
    pub(super) uti: Option<Arc<str>>,
    /// Until when the token is accepted.
    pub(super) until: Timestamp,
    /// What was known of tokens then: how often that had changed.
    pub(super) seen: u64,
    /// What is known of its groups where they were looked up; none where its token tells them, or nobody asked.
    pub(super) membership: Option<Membership>,
}

/// What policy is asked, kept so that it can be asked again.
#[derive(Debug, Clone)]
pub(super) enum Wanted {
    /// To send a request.
    Http { method: Method, path: CanonicalPath, query: Option<String>, credential: Credential, websocket: bool },
    /// To be issued a token.
    Token { tenant: String, client: String, grant: String, scopes: Vec<String>, audience: String },
}

/// A request whose sender is known, as far as it says.
pub(super) struct Authenticated {
    pub(super) decoded: Box<Decoded>,
    pub(super) wanted: Wanted,
    pub(super) who: Option<Identified>,
    /// What its answer is looked through for; none where that holds no token.
    pub(super) observing: Option<Observing>,
}

impl Identified {
    /// What an operation's record says of it.
    pub(super) fn recorded(&self) -> Identity {
        let Principal { id, kind, client, authentic, bound, .. } = &*self.principal;
        Identity {
            principal: id.clone(),
            kind: *kind,
            client: *client,
            authentic: *authentic,
            bound: *bound,
            token: self.token,
            uti: self.uti.as_deref().map(str::to_owned),
        }
    }

    /// The same, borrowed.
    pub(super) fn named(&self) -> Named<'_> {
        let Principal { id, kind, client, authentic, bound, .. } = &*self.principal;
        Named {
            principal: id,
            kind: *kind,
            client: *client,
            authentic: *authentic,
            bound: *bound,
            token: self.token,
            uti: self.uti.as_deref(),
        }
    }
}

impl Wanted {
    /// To send this request, with what it authenticates with.
    pub(super) fn request(decoded: &Decoded, credential: Credential) -> Self {
        Wanted::Http {
            method: decoded.parts.method.clone(),
            path: decoded.path.clone(),
            query: decoded.parts.uri.query().map(str::to_owned),
            credential,
            websocket: decoded.websocket,
        }
    }

    /// The question that policy is asked.
    pub(super) fn operation<'a>(&'a self, live: &'a Live) -> Operation<'a> {
        match self {
            Wanted::Http { method, path, query, credential, websocket } => Operation::Http(HttpRequest {
                method: method.as_str(),
                host: live.host(),
                port: live.port(),
                tls: live.tls(),
                path,
                query: query.as_deref(),
                credential: *credential,
                websocket: *websocket,
            }),
            Wanted::Token { tenant, client, grant, scopes, audience } => {
                Operation::Token(TokenRequest { tenant, client, grant, scopes, audience })
            }
        }
    }
}

impl Decoded {
    /// Finds out who sends it.
    ///
    /// # Errors
    /// The decided refusal: of a token, of another credential, or by the target's pin.
    pub(super) async fn authenticate(mut self: Box<Self>, live: &Live) -> Result<Authenticated, Box<Decided>> {
        // A target that is gone is refused when the request is decided.
        let Some(target) = live.target_settings() else { return Ok(self.anonymous(Credential::None)) };
        let refused = |decoded: &Self, credential, refusal| {
            let wanted = Wanted::request(decoded, credential);
            Box::new(Decided::refused(Ruling::refuse(live, &target, &wanted, refusal)))
        };
        if let Err(fault) = pin(&target, &mut self) {
            return Err(refused(&self, Credential::None, fault.into()));
        }
        if let Some(issues) = &target.issues {
            return self.ask(live, &target, issues).await;
        }
        let own = target.credential.as_ref();
        if let Some(own) = own
            && let Err(fault) = super::credential::strip(&mut self.parts, own)
        {
            return Err(refused(&self, Credential::Foreign, fault.into()));
        }
        let headers = self.parts.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        let mut others = foreign(headers, self.parts.uri.query());
        let token = bearer(&self.parts.headers).map_err(|fault| refused(&self, Credential::Foreign, fault.into()))?;
        let mut who = None;
        if let Some(token) = token {
            match identify(live, &target, token, self.action()).await {
                Ok(Some(identified)) => who = Some(identified),
                Ok(None) => others.push("bearer".into()),
                Err(refusal) => return Err(refused(&self, Credential::Entra, refusal)),
            }
        }
        if let Some(name) = others.iter().find(|name| !target.accept_foreign.contains(name)) {
            return Err(refused(&self, Credential::Foreign, foreign_credential(name).into()));
        }
        let credential = match (others.is_empty(), &who) {
            (false, _) => Credential::Foreign,
            (true, Some(_)) => Credential::Entra,
            (true, None) if own.is_some() => Credential::Injected,
            (true, None) => Credential::None,
        };
        Ok(Authenticated { who, ..self.anonymous(credential) })
    }

    /// A request that names nobody.
    pub(super) fn anonymous(self: Box<Self>, credential: Credential) -> Authenticated {
        let wanted = Wanted::request(&self, credential);
        Authenticated { decoded: self, wanted, who: None, observing: None }
    }
}

/// Whom a bearer token names; none if it is one that this host knows nothing of.
async fn identify(live: &Live, target: &Arc<Target>, token: &str, action: &str) -> Result<Option<Identified>, Refusal> {
    let session = live.session();
    let world = session.world();
    let (generation, seen) = (world.snapshot.generation, *session.worker.pipeline.judge.watch().borrow());
    // Most connections send one token over and over.
    let known = live.recall(token, (generation, seen));
    let Some(mut who) = (match known {
        Some(who) => Some(who),
        None => judged(live, target, token, (generation, seen)).await?,
    }) else {
        return Ok(None);
    };
    if who.principal.groups.is_none() && world.snapshot.needs_groups(&target.name, action) {
        live.refresh(&mut who, action).await;
    }
    Ok(Some(who))
}

/// Has a token judged. What lasts is remembered for the connection, as of this generation and what was `seen` of tokens.
async fn judged(
    live: &Live,
    target: &Arc<Target>,
    token: &str,
    (generation, seen): (u64, u64),
) -> Result<Option<Identified>, Refusal> {
    let session = live.session();
    let world = session.world();
    let (judge, identities) = (&session.worker.pipeline.judge, &world.snapshot.settings.identities);
    let (workload, source) = (&session.subject.workload, &session.subject.source);
    let presented = Presented { token, workload, source, target };
    let (issued, digest, lasts) = match judge.judge(identities, presented).await {
        Ok(Judged::Foreign) => return Ok(None),
        Ok(Judged::Ours { issued, digest, is_new, is_verified }) => {
            if is_new {
                admit_token(live, digest, None, issued.as_ref().clone())?;
            }
            (issued, digest, !is_verified)
        }
        Err(error) => {
            let challenge = error.wants_a_new_token().then(|| judge.challenge(identities));
            return Err(Refusal { challenge, ..Refusal::from(unbelieved(&error)) });
        }
    };
    let principal = Principal {
        id: issued.principal.clone(),
        kind: issued.kind,
        client: issued.client,
        groups: issued.groups.clone(),
        roles: issued.roles.clone(),
        authentic: issued.authentic,
        bound: issued.bound,
    };
    let until = judge.accepted_until(issued.expiry);
    let (principal, uti) = (Arc::new(principal), issued.uti.as_deref().map(Arc::from));
    let who = Identified { principal, token: digest, uti, until, seen, membership: None };
    if lasts {
        live.remember(generation, who.clone());
    }
    Ok(Some(who))
}

/// Records where a token comes from; only then is it one that the workload may have.
pub(super) fn admit_token(
    live: &Live,
    token: Digest,
    operation: Option<OperationId>,
    issued: Issued,
) -> Result<(), Fault> {
    let session = live.session();
    let event = TokenIssued { token, operation, launch: session.subject.launch, issued: issued.clone() };
    match session.worker.record(What::TokenIssued(Box::new(event))) {
        Ok(_recorded) => session.worker.pipeline.judge.accept(token, issued).map_err(|full| unbelieved(&full.into())),
        Err(error) => {
            tracing::error!(%error, "a token could not be recorded, so it is withheld");
            Err(not_recorded(&error))
        }
    }
}

/// The bearer token of a request. Another scheme is no business of this.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Fault> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => value,
        (Some(_), Some(_)) => return Err(twice()),
    };
    let scheme = value.as_bytes().get(..7).unwrap_or_default();
    if !scheme.eq_ignore_ascii_case(b"bearer ") {
        return Ok(None);
    }
    match value.to_str() {
        Ok(text) => Ok(Some(text[7..].trim())),
        Err(_) => Err(twice()),
    }
}

/// Holds a request to its target's pin: adds what is missing.
///
/// # Errors
/// What contradicts it.
fn pin(target: &Target, decoded: &mut Decoded) -> Result<(), Fault> {
    let outside = |code, told| Fault {
        code,
        blame: Blame::Policy,
        told,
        next: "send it as the target demands; retrying will not help",
    };
    if let Some(prefix) = &target.pin.path_prefix {
        let path = decoded.path.decoded();
        if !path.starts_with(prefix.as_str()) {
            return Err(outside("outside-pin", format!("`{}` is served below `{prefix}` only", target.name)));
        }
    }
    for (name, pinned) in &target.pin.headers {
        let mut values = decoded.parts.headers.get_all(name).iter();
        if values.any(|value| value != pinned) {
            return Err(outside("pinned-header", format!("`{}` has another value for `{name}`", target.name)));
        }
        decoded.parts.headers.insert(name, pinned.clone());
    }
    Ok(())
}

/// What the client is told of a token that isn't believed.
pub(super) fn unbelieved(error: &JudgeError) -> Fault {
    let (blame, next) = match error {
        JudgeError::Keys(KeyError::TooOld | KeyError::Waiting | KeyError::Fetch { .. }) => {
            (Blame::Upstream, "try again later, or ask the operator of this host")
        }
        JudgeError::Full(_) => (Blame::Interceptor, "use the tokens that there are; ask the operator of this host"),
        error if error.wants_a_new_token() => (Blame::Client, "get a new token, without a cache, and try again"),
        JudgeError::TenantNotListed(_) => (Blame::Policy, "use an account of a tenant that this host serves"),
        _ => (Blame::Policy, "sign in as this workload, for this target; retrying will not help"),
    };
    Fault { code: error.code(), blame, told: error.to_string(), next }
}

fn foreign_credential(name: &str) -> Fault {
    Fault {
        code: "foreign-credential",
        blame: Blame::Policy,
        told: format!("the request authenticates with `{name}`, which this target does not accept"),
        next: "use a token of this workload's own; or the operator names it in the target's `accept_foreign`",
    }
}

fn twice() -> Fault {
    Fault {
        code: "authorization-malformed",
        blame: Blame::Client,
        told: "the request has two Authorization headers, or one that isn't text".into(),
        next: "send one",
    }
}

#[cfg(test)]
mod tests;
