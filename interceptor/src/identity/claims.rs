//! What a token says: the claims that identity and policy read, each checked for its form. Names, e-mail addresses and
//! UPNs are not among them: they can be given to somebody else.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::jwt::TokenError;
use crate::ids::{ClientId, ObjectId, TenantId};
use crate::policy::PrincipalKind;

/// The most characters of one claim that is text.
const MAX_TEXT: usize = 2048;
/// The most entries of one claim that is a list.
const MAX_LIST: usize = 1024;

/// The version of a token's form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// `1.0`: `appid`, audience an app-ID URI or GUID.
    V1,
    /// `2.0`: `azp`, audience a GUID.
    V2,
    /// What another issuer calls a version.
    Other,
}

/// What `idtyp` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// An application for itself.
    App,
    /// A person, through an application.
    User,
}

/// The groups that a token names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Groups {
    /// All of them.
    Listed(Vec<ObjectId>),
    /// There are more than fit, or only their names: unknown until they are looked up, never "none".
    Overage,
    /// The token doesn't say.
    Absent,
}

/// The claims of a token. A claim that is there has the form that it must have; a claim that isn't there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Who issued it.
    pub iss: Option<String>,
    /// Whom it is for, one or more.
    pub aud: Vec<String>,
    /// The subject; for one client only in Entra's user tokens.
    pub sub: Option<String>,
    /// The tenant.
    pub tid: Option<TenantId>,
    /// The object that it acts as.
    pub oid: Option<ObjectId>,
    /// The application that it was issued to: `azp`, in version 1 `appid`; none where that isn't a GUID.
    pub client: Option<ClientId>,
    /// The same as it is written; other issuers have names here that are no GUIDs.
    pub authorized_party: Option<String>,
    /// The version of its form.
    pub ver: Option<Version>,
    /// When it ends.
    pub exp: Option<Timestamp>,
    /// When it begins.
    pub nbf: Option<Timestamp>,
    /// When it was issued.
    pub iat: Option<Timestamp>,
    /// Application or user, where it says so.
    pub idtyp: Option<Subject>,
    /// What the user let the application do.
    pub scp: Vec<String>,
    /// App roles.
    pub roles: Vec<String>,
    /// Directory roles, by the ids of their templates.
    pub wids: Vec<ObjectId>,
    /// Groups.
    pub groups: Groups,
    /// The token's own id, for looking it up in the sign-in log.
    pub uti: Option<String>,
    /// What the client that asked for an ID token had put into it (OpenID Connect Core section 2).
    pub nonce: Option<String>,
    /// The Azure resource whose managed identity this is.
    pub managed_resource: Option<String>,
    /// The blueprint that the acting agent identity was made from (`xms_par_app_azp`): attribution, not authority.
    pub blueprint: Option<ClientId>,
    /// The facets of who acts (`xms_act_fct`).
    pub actor_facets: Vec<u32>,
    /// The facets of whom it acts for (`xms_sub_fct`).
    pub subject_facets: Vec<u32>,
}

/// An agent identity, in Entra's facet claims.
const FACET_AGENT_IDENTITY: u32 = 11;
/// A user account of an agent.
const FACET_AGENT_USER: u32 = 13;

impl Claims {
    /// The tenant and the object that the token names.
    ///
    /// # Errors
    /// [`TokenError::ClaimMissing`] if one of them isn't there: such a token names nobody.
    pub fn object(&self) -> Result<(TenantId, ObjectId), TokenError> {
        let tenant = self.tid.ok_or(TokenError::ClaimMissing("tid"))?;
        let object = self.oid.ok_or(TokenError::ClaimMissing("oid"))?;
        Ok((tenant, object))
    }

    /// What kind of principal it names. Facets come first: they are Entra's own statement. `scp` is in tokens for users
    /// only; an application's token is told by `idtyp`, or by having none.
    pub fn kind(&self) -> PrincipalKind {
        if self.subject_facets.contains(&FACET_AGENT_USER) {
            PrincipalKind::AgentUser
        } else if self.idtyp == Some(Subject::User) || (self.idtyp.is_none() && !self.scp.is_empty()) {
            PrincipalKind::User
        } else if self.subject_facets.contains(&FACET_AGENT_IDENTITY) {
            PrincipalKind::AgentIdentity
        } else if self.managed_resource.is_some() {
            PrincipalKind::ManagedIdentity
        } else {
            PrincipalKind::ServicePrincipal
        }
    }

    /// Reads the claims of a token.
    pub(super) fn read(map: Map<String, Value>) -> Result<Claims, TokenError> {
        let map = Reader(map);
        let authorized_party = match (map.text("azp")?, map.text("appid")?) {
            (Some(azp), Some(appid)) if !azp.eq_ignore_ascii_case(&appid) => {
                return Err(TokenError::ClaimMalformed("appid"));
            }
            (azp, appid) => azp.or(appid),
        };
        Ok(Claims {
            iss: map.text("iss")?,
            aud: map.one_or_many("aud")?,
            sub: map.text("sub")?,
            tid: map.guid("tid")?,
            oid: map.guid("oid")?,
            client: authorized_party.as_deref().and_then(|party| party.parse().ok()),
            authorized_party,
            ver: map.0.get("ver").map(|ver| match ver.as_str() {
                Some("1.0") => Version::V1,
                Some("2.0") => Version::V2,
                _ => Version::Other,
            }),
            exp: map.time("exp")?,
            nbf: map.time("nbf")?,
            iat: map.time("iat")?,
            idtyp: match map.text("idtyp")?.as_deref() {
                Some("app") => Some(Subject::App),
                Some("user") => Some(Subject::User),
                // `device` and what may come name nobody that we know.
                Some(_) => return Err(TokenError::ClaimMalformed("idtyp")),
                None => None,
            },
            scp: map.words("scp")?,
            roles: map.one_or_many("roles")?,
            wids: map.guids("wids")?.unwrap_or_default(),
            groups: map.groups()?,
            uti: map.text("uti")?,
            nonce: map.text("nonce")?,
            managed_resource: map.text("xms_mirid")?,
            blueprint: map.guid("xms_par_app_azp")?,
            actor_facets: map.facets("xms_act_fct")?,
            subject_facets: map.facets("xms_sub_fct")?,
        })
    }
}

/// Claims as they are written, read by type. `null` isn't the same as absent: it is malformed.
struct Reader(Map<String, Value>);

type Read<T> = Result<T, TokenError>;

impl Reader {
    fn text(&self, name: &'static str) -> Read<Option<String>> {
        self.0.get(name).map(|value| text(value, name)).transpose()
    }

    fn guid<T: std::str::FromStr>(&self, name: &'static str) -> Read<Option<T>> {
        self.0.get(name).map(|value| guid(value, name)).transpose()
    }

    fn list<T>(&self, name: &'static str, item: impl Fn(&Value, &'static str) -> Read<T>) -> Read<Option<Vec<T>>> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Value::Array(values)) if values.len() <= MAX_LIST => {
                values.iter().map(|value| item(value, name)).collect::<Read<Vec<T>>>().map(Some)
            }
            Some(_) => Err(TokenError::ClaimMalformed(name)),
        }
    }

    fn guids(&self, name: &'static str) -> Read<Option<Vec<ObjectId>>> {
        self.list(name, guid)
    }

    fn one_or_many(&self, name: &'static str) -> Read<Vec<String>> {
        match self.0.get(name) {
            Some(value @ Value::String(_)) => Ok(vec![text(value, name)?]),
            _ => Ok(self.list(name, text)?.unwrap_or_default()),
        }
    }

    /// A list of words with spaces between them (RFC 8693 section 4.2); some issuers write an array. A text may be
    /// longer than others may: a client that is entitled to all of Graph has hundreds of scopes.
    fn words(&self, name: &'static str) -> Read<Vec<String>> {
        let Some(Value::String(text)) = self.0.get(name) else {
            return Ok(self.list(name, text)?.unwrap_or_default());
        };
        let words: Vec<String> = text.split_ascii_whitespace().map(str::to_owned).collect();
        if words.len() > MAX_LIST { Err(TokenError::ClaimMalformed(name)) } else { Ok(words) }
    }

    /// Numbers with spaces between them. An unknown number is nothing; what isn't a number is malformed.
    fn facets(&self, name: &'static str) -> Read<Vec<u32>> {
        self.words(name)?.iter().map(|word| word.parse().map_err(|_| TokenError::ClaimMalformed(name))).collect()
    }

    /// Seconds since 1970 (NumericDate, RFC 7519 section 2; it may have a fraction, which is cut off).
    fn time(&self, name: &'static str) -> Read<Option<Timestamp>> {
        let Some(value) = self.0.get(name) else { return Ok(None) };
        #[expect(clippy::cast_possible_truncation, reason = "a cast saturates, and the time is checked for its range")]
        let seconds = value.as_i64().or_else(|| value.as_f64().map(|seconds| seconds.floor() as i64));
        seconds
            .filter(|seconds| *seconds >= 0)
            .and_then(|seconds| Timestamp::from_second(seconds).ok())
            .map(Some)
            .ok_or(TokenError::ClaimMalformed(name))
    }

    /// `hasgroups` is what the implicit flow's tokens have instead of `_claim_names`. Any sign of overage makes the
    /// groups unknown, whatever else is listed.
    fn groups(&self) -> Read<Groups> {
        let named_elsewhere = match self.0.get("_claim_names") {
            None => false,
            Some(Value::Object(names)) => names.contains_key("groups"),
            Some(_) => return Err(TokenError::ClaimMalformed("_claim_names")),
        };
        let has_groups = match self.0.get("hasgroups") {
            None | Some(Value::Bool(false)) => false,
            Some(Value::Bool(true)) => true,
            Some(Value::String(text)) if text == "false" => false,
            Some(Value::String(text)) if text == "true" => true,
            Some(_) => return Err(TokenError::ClaimMalformed("hasgroups")),
        };
        match self.0.get("groups") {
            _ if named_elsewhere || has_groups => Ok(Groups::Overage),
            None => Ok(Groups::Absent),
            // A tenant can have names of groups put in instead of ids. A name is no identity: they are unknown.
            Some(_) => {
                let names = self.list("groups", text)?.unwrap_or_default();
                let ids: Option<Vec<ObjectId>> = names.iter().map(|name| name.parse().ok()).collect();
                Ok(ids.map_or(Groups::Overage, Groups::Listed))
            }
        }
    }
}

fn text(value: &Value, name: &'static str) -> Read<String> {
    match value {
        Value::String(text) if !text.is_empty() && text.len() <= MAX_TEXT && !text.chars().any(char::is_control) => {
            Ok(text.clone())
        }
        _ => Err(TokenError::ClaimMalformed(name)),
    }
}

fn guid<T: std::str::FromStr>(value: &Value, name: &'static str) -> Read<T> {
    value.as_str().and_then(|text| text.parse().ok()).ok_or(TokenError::ClaimMalformed(name))
}
