//! What a workload asks of a login host or a host endpoint. A token request is read in full, decided as `token:request`
//! for the target that the token would be for, and its answer is read before the workload gets it: what is issued is in
//! the record first.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;

use super::authenticate::{Authenticated, Wanted, admit_token, unbelieved};
use super::live::Live;
use super::operation::{Decided, busy};
use super::reply::Refusal;
use super::request::Decoded;
use super::ruling::Ruling;
use crate::config::{Host, Issues, Target, Targets};
use crate::error::{Blame, Fault};
use crate::identity::endpoint::{self, Answer, Ask, Dialect, GRAPH, Grant, Identity, Kind, MAX_FORM, ManagedIdentity};
use crate::identity::judge::{Asked, kind};
use crate::identity::tenants::Tenant;
use crate::identity::{JudgeError, MAX_DOCUMENT};
use crate::ids::{IssuerName, OperationId, TenantId};
use crate::policy::Credential;
use crate::transport::http::RequestBody;

/// How long a workload may take to send a form, and an endpoint to send what follows the head of its answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Headers by which Entra is told which tenants may be signed in to; what the process sent is replaced.
const RESTRICT_TENANTS: &str = "restrict-access-to-tenants";
const RESTRICT_CONTEXT: &str = "restrict-access-context";
const RESTRICT_POLICY: &str = "sec-restrict-tenant-access-policy";
pub(super) const RESTRICTIONS: [&str; 3] = [RESTRICT_TENANTS, RESTRICT_CONTEXT, RESTRICT_POLICY];

/// What an answer is looked through for.
#[derive(Debug, Clone)]
pub(super) struct Observing {
    kind: Kind,
    issuer: Option<IssuerName>,
    tenant: Option<Tenant>,
    audience: String,
    /// Whether the request itself said that audience, and not another one before it.
    is_said: bool,
}

/// Why something can't be asked of an endpoint.
type Refuse<T> = Result<T, Fault>;

impl Decoded {
    /// Finds out what a target that issues tokens is asked for.
    ///
    /// # Errors
    /// The decided refusal, where that can't be told, or no tenant of this host is asked.
    pub(super) async fn ask(
        mut self: Box<Self>,
        live: &Live,
        target: &Arc<Target>,
        issues: &Issues,
    ) -> Result<Authenticated, Box<Decided>> {
        match self.read_ask(live, issues).await {
            Ok(Some((wanted, observing))) => {
                // Its answer is read here, so it comes as it is.
                self.parts.headers.remove(header::ACCEPT_ENCODING);
                Ok(Authenticated { decoded: self, wanted, who: None, observing: Some(observing) })
            }
            Ok(None) => Ok(self.anonymous(Credential::None)),
            Err(fault) => {
                let wanted = Wanted::request(&self, Credential::None);
                Err(Box::new(Decided::refused(Ruling::refuse(live, target, &wanted, fault.into()))))
            }
        }
    }

    async fn read_ask(&mut self, live: &Live, issues: &Issues) -> Refuse<Option<(Wanted, Observing)>> {
        let (kind, issuer) = kind(issues);
        let segments: Vec<&str> = self.path.segments().collect();
        let query = self.parts.uri.query().unwrap_or_default();
        let ask = endpoint::recognise(kind, self.parts.method.as_str(), &segments, query)
            .map_err(|error| refused(error.code(), error.to_string()))?;
        if kind == Kind::Entra {
            restrict(live, &mut self.parts.headers);
        }
        let (segment, dialect, is_start) = match ask {
            Ask::Token { tenant, dialect } => (tenant, dialect, false),
            Ask::DeviceCode { tenant, dialect } => (tenant, dialect, true),
            Ask::ManagedIdentity(ManagedIdentity { resource: Some(resource), identity }) => {
                return Ok(Some(managed(kind, resource, &identity)));
            }
            Ask::Metadata { tenant } | Ask::Other { tenant } => {
                if let Some(segment) = tenant {
                    listed(live, &segment).await?;
                }
                return Ok(None);
            }
            // A probe: who asks for nothing gets nothing.
            Ask::ManagedIdentity(ManagedIdentity { resource: None, .. }) => return Ok(None),
        };
        let tenant = match &segment {
            Some(segment) => Some(listed(live, segment).await?),
            None => None,
        };
        let unreadable = |error: endpoint::RequestError| refused(error.code(), error.to_string());
        endpoint::check_query(self.parts.uri.query().unwrap_or_default()).map_err(unreadable)?;
        let kinds = self.parts.headers.get_all(header::CONTENT_TYPE).iter().map(HeaderValue::as_bytes);
        endpoint::check_type(kinds).map_err(unreadable)?;
        let form = self.form(live).await?;
        let authorization = self.parts.headers.get(header::AUTHORIZATION).map(HeaderValue::to_str).transpose();
        let authorization =
            authorization.map_err(|_| refused("token-request-malformed", "its Authorization isn't text"))?;
        let parse = if is_start { endpoint::TokenRequest::parse_start } else { endpoint::TokenRequest::parse };
        let request = parse(&form, authorization, dialect).map_err(unreadable)?;
        let client = request.client.clone().unwrap_or_default();
        let (judge, workload) = (&live.session().worker.pipeline.judge, &live.session().subject.workload);
        let said = audience(&request, dialect)?;
        let is_said = said.is_some();
        let audience = match said {
            Some(audience) => audience,
            // Who asks with a code has said with which scope when it asked for the code.
            None if request.grant == Grant::DeviceCode => {
                judge.device_audience(workload, &client).ok_or_else(no_audience)?
            }
            None => return Err(no_audience()),
        };
        if is_start {
            judge.note_device(workload, &client, &audience);
        }
        let named = match (tenant, &segment, issuer) {
            (Some(Tenant::One(id)), ..) => id.to_string(),
            (_, Some(segment), _) => segment.clone(),
            (_, None, issuer) => issuer.map(ToString::to_string).unwrap_or_default(),
        };
        let wanted = Wanted::Token {
            tenant: named,
            client,
            grant: grant(request.grant).into(),
            scopes: request.scopes.clone(),
            audience: audience.clone(),
        };
        Ok(Some((wanted, Observing { kind, issuer: issuer.cloned(), tenant, audience, is_said })))
    }

    /// The body of a request, in full; it is sent on as it was read.
    async fn form(&mut self, live: &Live) -> Refuse<Bytes> {
        if self.parts.headers.contains_key(header::CONTENT_ENCODING) {
            return Err(refused("token-request-malformed", "a token request is a form, in no content coding"));
        }
        let RequestBody::Streaming(body) = std::mem::take(&mut self.body) else {
            return Err(refused("token-request-malformed", "the token request has no body"));
        };
        let _seat = live.seat().ok_or_else(busy)?;
        let read = tokio::time::timeout(PATIENCE, Limited::new(body, MAX_FORM).collect()).await;
        let read = read.map_err(|_elapsed| refused("token-request-malformed", "the token request took too long"))?;
        let form =
            read.map_err(|_error| refused("token-request-too-large", "the form has more than 64 KiB, or ended early"))?;
        let form = form.to_bytes();
        self.body = RequestBody::Whole(form.clone());
        Ok(form)
    }
}

/// What a host endpoint is asked.
fn managed(kind: Kind, resource: String, identity: &Identity) -> (Wanted, Observing) {
    let client = match identity {
        Identity::System => String::new(),
        Identity::Client(id) => id.to_string(),
        Identity::Object(id) => id.to_string(),
        Identity::Resource(path) => path.clone(),
    };
    let wanted = Wanted::Token {
        tenant: String::new(),
        client,
        grant: "managed_identity".into(),
        scopes: vec![format!("{}/.default", resource.trim_end_matches('/'))],
        audience: resource.clone(),
    };
    (wanted, Observing { kind, issuer: None, tenant: None, audience: resource, is_said: true })
}

/// What a request is for, if it says so; a sign-in alone gets a token for Graph.
fn audience(request: &endpoint::TokenRequest, dialect: Dialect) -> Refuse<Option<String>> {
    match request.audiences.as_slice() {
        [one] => Ok(Some(one.clone())),
        [] if dialect == Dialect::V2 && !request.scopes.is_empty() => Ok(Some(GRAPH.into())),
        [] => Ok(None),
        _ => Err(refused(
            "token-request-two-audiences",
            "it asks for two audiences at once; ask for one after the other",
        )),
    }
}

fn no_audience() -> Fault {
    refused("token-request-incomplete", "it doesn't say what the token is for; send `scope` or `resource`")
}

fn grant(grant: Grant) -> &'static str {
    match grant {
        Grant::ClientCredentials => "client_credentials",
        Grant::RefreshToken => "refresh_token",
        Grant::OnBehalfOf => "on_behalf_of",
        Grant::JwtBearer => "jwt_bearer",
        Grant::AuthorizationCode => "authorization_code",
        Grant::DeviceCode => "device_code",
        Grant::Password => "password",
        Grant::Other => "other",
    }
}

/// The tenant that a path's segment stands for, if it is one of this host's.
async fn listed(live: &Live, segment: &str) -> Refuse<Tenant> {
    let session = live.session();
    let world = session.world();
    let identities = &world.snapshot.settings.identities;
    let Host::Name(login) = live.host() else { return Err(refused("tenant-malformed", "an address is no login host")) };
    let found = session.worker.pipeline.judge.tenant(identities, login.as_str(), segment).await;
    match found.map_err(|error| refused(error.code(), error.to_string()))? {
        Tenant::One(id) if identities.tenant(id).is_none() => Err(unbelieved(&JudgeError::TenantNotListed(id))),
        tenant => Ok(tenant),
    }
}

/// Tells Entra which tenants may be signed in to from here, also interactively.
fn restrict(live: &Live, headers: &mut HeaderMap) {
    let world = live.session().world();
    let ids: Vec<TenantId> = world.snapshot.settings.identities.tenants.iter().map(|tenant| tenant.id).collect();
    for name in RESTRICTIONS {
        headers.remove(name);
    }
    let list = ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let first = ids.first().map(ToString::to_string).unwrap_or_default();
    // GUIDs and commas are visible ASCII, so both are values.
    for (name, value) in [(RESTRICT_TENANTS, list), (RESTRICT_CONTEXT, first)] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
}

impl Observing {
    /// Reads an answer in full, and records the token in it before anybody gets it.
    ///
    /// # Errors
    /// Why the workload mustn't get it.
    pub(super) async fn observe(
        &self,
        live: &Live,
        operation: OperationId,
        response: Response<Incoming>,
    ) -> Result<Response<Bytes>, Refusal> {
        let (parts, body) = response.into_parts();
        if parts.headers.contains_key(header::CONTENT_ENCODING) {
            return Err(unread("token-answer-not-json", "the answer is encoded, and nobody asked for that").into());
        }
        let read = tokio::time::timeout(PATIENCE, Limited::new(body, MAX_DOCUMENT).collect()).await;
        let late = |_elapsed| unread("upstream-timeout", "the token endpoint took too long");
        let body = read
            .map_err(late)?
            .map_err(|_| unread("token-answer-too-large", "the answer broke off, or has over 1 MiB"))?;
        let body = body.to_bytes();
        let answer = match Answer::parse(&body) {
            Ok(answer) => answer,
            // Whatever that is, nobody saw a token in it, so none will be accepted.
            Err(_unreadable) if parts.status != StatusCode::OK => return Ok(Response::from_parts(parts, body)),
            Err(error) => return Err(unread(error.code(), error.to_string()).into()),
        };
        let session = live.session();
        let world = session.world();
        let (judge, identities) = (&session.worker.pipeline.judge, &world.snapshot.settings.identities);
        let targets = &world.snapshot.settings.targets;
        // What the request didn't say itself isn't taken for the token's: the token must say it.
        let audiences = if self.is_said { std::slice::from_ref(&self.audience) } else { &[] };
        let (workload, issuer) = (&session.subject.workload, self.issuer.as_ref());
        let asked = Asked { kind: self.kind, issuer, workload, tenant: self.tenant, audiences };
        if let Some((token, issued)) = judge.issue(identities, &answer, asked).map_err(|error| unbelieved(&error))? {
            if let Some(other) = stray(targets, &self.audience, &issued.audiences) {
                return Err(unbelieved(&JudgeError::ForAnother(other)).into());
            }
            admit_token(live, token, Some(operation), issued)?;
        }
        Ok(Response::from_parts(parts, body))
    }
}

/// The audience by which a token isn't what was decided for `asked`: one of another target's, or any where none is of the
/// target that was decided. One that no target lists is none of anybody's: Entra writes the GUID of an application into
/// tokens that were asked for by its URI. What issues tokens itself accepts none, though some providers name themselves.
fn stray(targets: &Targets, asked: &str, audiences: &[String]) -> Option<String> {
    let decided = targets.by_audience(asked);
    let is_its_own = |audience: &str| decided.is_some_and(|target| target.takes(audience));
    let is_of_another = |audience: &str| targets.iter().any(|target| target.issues.is_none() && target.takes(audience));
    let other = audiences.iter().find(|audience| !is_its_own(audience) && is_of_another(audience));
    if other.is_some() || audiences.iter().any(|audience| is_its_own(audience)) {
        return other.cloned();
    }
    Some(audiences.first().cloned().unwrap_or_default())
}

fn refused(code: &'static str, told: impl Into<String>) -> Fault {
    let blame = if code.starts_with("tenant") { Blame::Policy } else { Blame::Client };
    Fault { code, blame, told: told.into(), next: "mend the request; sending it again as it is will not help" }
}

fn unread(code: &'static str, told: impl Into<String>) -> Fault {
    Fault { code, blame: Blame::Upstream, told: told.into(), next: "try again later, or ask the operator of this host" }
}

#[cfg(test)]
mod tests;
