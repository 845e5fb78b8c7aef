//! A token request's form (RFC 6749 section 4, and Entra's extensions): how it signs in, as which client, for which
//! audience. Of secrets, assertions, codes and passwords it keeps that they were there, never what they were.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

use super::{Dialect, scope};
use crate::identity::json;
use crate::ids::ClientId;

/// The most bytes of a form.
pub const MAX_FORM: usize = 64 * 1024;
/// The most fields of a form.
const MAX_FIELDS: usize = 64;
/// The most scopes, and resources.
const MAX_SCOPES: usize = 256;

/// Fields that say who asks for what, in lower case. Servers differ in whether the query, the body or both count for them.
const DECIDING: [&str; 11] = [
    "assertion",
    "audience",
    "client_assertion",
    "client_id",
    "code",
    "device_code",
    "grant_type",
    "refresh_token",
    "requested_token_use",
    "resource",
    "scope",
];

/// How a token request signs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grant {
    /// As the application itself.
    ClientCredentials,
    /// By a refresh token.
    RefreshToken,
    /// As the person whose token it was given (`requested_token_use=on_behalf_of`).
    OnBehalfOf,
    /// By an assertion of another kind (RFC 7523).
    JwtBearer,
    /// By the code of an interactive sign-in.
    AuthorizationCode,
    /// By the code of a sign-in at another device.
    DeviceCode,
    /// By name and password.
    Password,
    /// Any other.
    Other,
}

/// How the client proves that it is the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Credential {
    /// Not at all: a public client.
    None,
    /// By a secret, in the form or as Basic credentials.
    Secret,
    /// By an assertion: a certificate, or workload federation.
    Assertion,
}

/// Why a token request isn't understood, and so is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// More bytes, fields or scopes than a form may have.
    #[error("the token request is larger than 64 KiB, or has more than 64 fields or 256 scopes")]
    TooLarge,
    /// A field is there twice.
    #[error("the token request has a field twice; send each once")]
    Duplicate,
    /// A field has something that can't be in it.
    #[error("the token request's `{0}` isn't of the form that it must have")]
    Malformed(&'static str),
    /// Fields that say the same thing say it differently.
    #[error("the token request names two clients; send one `client_id`")]
    TwoClients,
    /// Servers could read something else in it.
    #[error("servers differ in how they read the token request's `{0}`; send a form in UTF-8, all of it in the body")]
    Ambiguous(&'static str),
    /// A field that it can't do without isn't there.
    #[error("the token request has no `{0}`")]
    Missing(&'static str),
}

impl RequestError {
    /// The stable code (docs/identity.md).
    pub fn code(&self) -> &'static str {
        match self {
            RequestError::TooLarge => "token-request-too-large",
            RequestError::Duplicate => "token-request-duplicate-field",
            RequestError::Malformed(_) => "token-request-malformed",
            RequestError::TwoClients => "token-request-two-clients",
            RequestError::Ambiguous(_) => "token-request-ambiguous",
            RequestError::Missing(_) => "token-request-incomplete",
        }
    }
}

/// What a token request asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRequest {
    /// How it signs in.
    pub grant: Grant,
    /// The client, as it is written.
    pub client: Option<String>,
    /// How the client proves itself.
    pub credential: Credential,
    /// The scopes, as they are written.
    pub scopes: Vec<String>,
    /// Whom the token is to be for, without repetition; empty where the request doesn't say (the issuer then takes what
    /// was asked before).
    pub audiences: Vec<String>,
    /// Whether it carries claims that the token must fulfil (after a claims challenge).
    pub has_claims: bool,
}

impl TokenRequest {
    /// Reads a form. `authorization` is the request's header of that name.
    ///
    /// # Errors
    /// What two servers could read differently, or what is missing.
    pub fn parse(body: &[u8], authorization: Option<&str>, dialect: Dialect) -> Result<TokenRequest, RequestError> {
        let form = Form::read(body, dialect)?;
        Self::of(&form, form.grant()?, authorization, dialect)
    }

    /// Reads the form of a request for a device code, which names no grant (RFC 8628 section 3.1).
    ///
    /// # Errors
    /// As [`TokenRequest::parse`].
    pub fn parse_start(
        body: &[u8],
        authorization: Option<&str>,
        dialect: Dialect,
    ) -> Result<TokenRequest, RequestError> {
        Self::of(&Form::read(body, dialect)?, Grant::DeviceCode, authorization, dialect)
    }

    fn of(
        form: &Form,
        grant: Grant,
        authorization: Option<&str>,
        dialect: Dialect,
    ) -> Result<TokenRequest, RequestError> {
        let credential = form.credential(authorization);
        let scopes = form.words("scope")?;
        let mut audiences: Vec<String> = Vec::new();
        // What the issuer doesn't go by would be decided, and something else issued.
        let said: Vec<String> = match dialect {
            Dialect::V2 => scopes.iter().filter_map(|scope| scope::audience(scope)).map(str::to_owned).collect(),
            // Elsewhere a scope is what the provider makes of it, and the resource is said by itself.
            Dialect::V1 => form.texts("resource")?,
            Dialect::Oidc => [form.texts("resource")?, form.texts("audience")?].concat(),
        };
        for audience in said {
            if !audiences.contains(&audience) {
                audiences.push(audience);
            }
        }
        Ok(TokenRequest {
            grant,
            client: form.client(authorization)?,
            credential,
            scopes,
            audiences,
            has_claims: form.has("claims"),
        })
    }

    /// The client as Entra names clients.
    pub fn client_id(&self) -> Option<ClientId> {
        self.client.as_deref().and_then(|client| client.parse().ok())
    }
}

/// Checks that a body is a form, by its `Content-Type` fields, and one that every server reads alike.
///
/// # Errors
/// It isn't a form, or could be read in another charset or as something else.
pub fn check_type<'a>(fields: impl IntoIterator<Item = &'a [u8]>) -> Result<(), RequestError> {
    const NAME: &str = "Content-Type";
    let mut fields = fields.into_iter();
    let field = fields.next().ok_or(RequestError::Malformed(NAME))?;
    let text = std::str::from_utf8(field).map_err(|_| RequestError::Malformed(NAME))?;
    // A comma joins what came in two fields.
    if fields.next().is_some() || text.contains(',') {
        return Err(RequestError::Ambiguous(NAME));
    }
    let mut parts = text.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    if !essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Err(RequestError::Malformed(NAME));
    }
    for (name, value) in parts.filter_map(|parameter| parameter.split_once('=')) {
        let value = value.trim().trim_matches('"');
        // In the others the names of all fields, and whatever is ASCII, are the same; some libraries always say one of them.
        let is_alike =
            ["utf-8", "utf8", "iso-8859-1", "us-ascii"].iter().any(|known| value.eq_ignore_ascii_case(known));
        if name.trim().eq_ignore_ascii_case("charset") && !is_alike {
            return Err(RequestError::Ambiguous(NAME));
        }
    }
    Ok(())
}

/// Checks that a token request's query says nothing that its form is to say. What SDKs add for their own ends
/// (`client-request-id`, `haschrome`, `api-version`) and B2C's policy (`p`) go on.
///
/// # Errors
/// Which field is in the query.
pub fn check_query(query: &str) -> Result<(), RequestError> {
    for (key, _) in form_urlencoded::parse(query.as_bytes()) {
        if let Some(field) = DECIDING.into_iter().find(|field| key.trim().eq_ignore_ascii_case(field)) {
            return Err(RequestError::Ambiguous(field));
        }
    }
    Ok(())
}

/// The fields of a form, wiped when it is dropped.
struct Form(Vec<(String, Zeroizing<String>)>);

impl Form {
    fn read(body: &[u8], dialect: Dialect) -> Result<Form, RequestError> {
        if body.len() > MAX_FORM {
            return Err(RequestError::TooLarge);
        }
        let mut fields: Vec<(String, Zeroizing<String>)> = Vec::new();
        for (name, value) in form_urlencoded::parse(body) {
            if fields.len() == MAX_FIELDS {
                return Err(RequestError::TooLarge);
            }
            // What wasn't UTF-8 has become U+FFFD, which no field has.
            if name.chars().chain(value.chars()).any(|c| c == char::REPLACEMENT_CHARACTER) {
                return Err(RequestError::Malformed("body"));
            }
            // Servers that overlook the case of names would take the second one. RFC 8707 lets `resource` repeat.
            let name = name.to_ascii_lowercase();
            let may_repeat = dialect == Dialect::Oidc && name == "resource";
            if !may_repeat && fields.iter().any(|(own, _)| *own == name) {
                return Err(RequestError::Duplicate);
            }
            fields.push((name, Zeroizing::new(value.into_owned())));
        }
        Ok(Form(fields))
    }

    /// A field's value; an empty one is as good as none (RFC 6749 section 3.2).
    fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(own, value)| own == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    fn texts(&self, name: &'static str) -> Result<Vec<String>, RequestError> {
        let values = self.0.iter().filter(|(own, value)| own == name && !value.is_empty());
        let texts: Vec<String> = values.map(|(_, value)| plain(value, name)).collect::<Result<_, _>>()?;
        if texts.len() > MAX_SCOPES { Err(RequestError::TooLarge) } else { Ok(texts) }
    }

    fn words(&self, name: &'static str) -> Result<Vec<String>, RequestError> {
        let words = self.value(name).unwrap_or_default().split_ascii_whitespace();
        let words: Vec<String> = words.map(|word| plain(word, name)).collect::<Result<_, _>>()?;
        if words.len() > MAX_SCOPES { Err(RequestError::TooLarge) } else { Ok(words) }
    }

    fn grant(&self) -> Result<Grant, RequestError> {
        let grant = self.value("grant_type").ok_or(RequestError::Missing("grant_type"))?;
        Ok(match grant {
            "client_credentials" => Grant::ClientCredentials,
            "refresh_token" => Grant::RefreshToken,
            "authorization_code" => Grant::AuthorizationCode,
            "password" => Grant::Password,
            // Entra's first version has a name of its own.
            "urn:ietf:params:oauth:grant-type:device_code" | "device_code" => Grant::DeviceCode,
            "urn:ietf:params:oauth:grant-type:jwt-bearer" => match self.value("requested_token_use") {
                Some("on_behalf_of") => Grant::OnBehalfOf,
                _ => Grant::JwtBearer,
            },
            _ => Grant::Other,
        })
    }

    fn credential(&self, authorization: Option<&str>) -> Credential {
        if self.has("client_assertion") {
            Credential::Assertion
        } else if self.has("client_secret") || authorization.is_some() {
            Credential::Secret
        } else {
            Credential::None
        }
    }

    /// The client: the field, the Basic credentials' name (RFC 6749 section 2.3.1), or whom the assertion names (RFC
    /// 7521 section 4.2). The first two must agree; an assertion of a federated workload names the workload instead.
    fn client(&self, authorization: Option<&str>) -> Result<Option<String>, RequestError> {
        let field = self.value("client_id").map(|client| plain(client, "client_id")).transpose()?;
        let basic = authorization.map(basic_client).transpose()?;
        match (field, basic) {
            (Some(field), Some(basic)) if !field.eq_ignore_ascii_case(&basic) => Err(RequestError::TwoClients),
            (None, None) => self.value("client_assertion").map(assertion_subject).transpose(),
            (field, basic) => Ok(field.or(basic)),
        }
    }
}

/// A text that can be shown and recorded.
fn plain(text: &str, name: &'static str) -> Result<String, RequestError> {
    if text.len() > 2048 || text.chars().any(char::is_control) {
        return Err(RequestError::Malformed(name));
    }
    Ok(text.to_owned())
}

/// The name in Basic credentials, which is form-encoded in them.
fn basic_client(authorization: &str) -> Result<String, RequestError> {
    const NAME: &str = "authorization";
    let malformed = RequestError::Malformed(NAME);
    let (scheme, credentials) = authorization.split_once(' ').ok_or(malformed.clone())?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(malformed);
    }
    let decoded = Zeroizing::new(STANDARD.decode(credentials.trim()).map_err(|_| malformed.clone())?);
    let colon = decoded.iter().position(|byte| *byte == b':').ok_or(malformed)?;
    // The name alone is decoded: a lone key of a form.
    let name = form_urlencoded::parse(&decoded[..colon]).next().map(|(name, _)| name.into_owned());
    plain(&name.unwrap_or_default(), NAME)
}

/// Whom a client assertion names, without believing it: the issuer will.
fn assertion_subject(assertion: &str) -> Result<String, RequestError> {
    const NAME: &str = "client_assertion";
    let payload = assertion.split('.').nth(1).ok_or(RequestError::Malformed(NAME))?;
    let payload = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).map(Zeroizing::new);
    let claims = payload.ok().and_then(|payload| json::object(&payload).ok()).ok_or(RequestError::Malformed(NAME))?;
    let subject = claims.get("sub").and_then(Value::as_str).ok_or(RequestError::Missing("client_id"))?;
    plain(subject, NAME)
}
