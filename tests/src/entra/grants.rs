//! The token endpoints: which grant gets which token. Who asks is found out in [`super::client`], for what in
//! [`super::scope`]; codes are made in [`super::signin`].

use serde_json::{Map, Value, json};

use super::client::{authenticate, client, no_tenant, unknown};
use super::directory::{self, Application};
use super::guard::verify;
use super::issue::{Asked, Subject, Wanted};
use super::refusal::Refusal;
use super::scope::{by_scope, consented, target};
use super::signin;
use super::state::{Inner, SignIn, guid, seconds, value};
use super::token::encode;

/// A form that a client sent.
pub(super) struct Form<'a>(pub(super) &'a [(String, String)]);

impl<'a> Form<'a> {
    pub(super) fn field(&self, name: &str) -> Option<&'a str> {
        value(self.0, name)
    }

    pub(super) fn need(&self, name: &str) -> Result<&'a str, Refusal> {
        self.field(name).ok_or_else(|| {
            let text = format!("The request body must contain the following parameter: '{name}'.");
            Refusal::new("invalid_request", 900_144, text)
        })
    }
}

/// Which endpoint was asked: the first segment of its path, and 1 or 2.
#[derive(Clone, Copy)]
pub(super) struct Endpoint<'a> {
    pub(super) tenant: &'a str,
    pub(super) version: u8,
}

/// Answers a request for a token.
pub(super) fn token(state: &mut Inner, endpoint: Endpoint<'_>, form: &Form<'_>) -> Result<Value, Refusal> {
    let client = client(form.need("client_id")?, endpoint)?;
    match form.need("grant_type")? {
        "client_credentials" => {
            let tenant = directory::tenant(endpoint.tenant).ok_or_else(|| no_tenant(endpoint))?;
            let proof = authenticate(client, form)?;
            let target = target(form, endpoint.version)?;
            if !target.is_default {
                let text = "The provided value for scope is not valid. Client credential flows must have a scope \
                            value with /.default suffixed to the resource identifier.";
                return Err(Refusal::new("invalid_scope", 1_002_012, text));
            }
            let wanted = Wanted::app(tenant, client, target.resource).ok_or_else(|| unknown(client.id, tenant))?;
            answer(state, Wanted { audience: target.audience, proof, ..wanted }, endpoint, form, None)
        }
        "refresh_token" => {
            let known = state.refresh.get(form.need("refresh_token")?).cloned();
            let sign_in = known.filter(|one| one.client == client.id).ok_or_else(|| {
                Refusal::new(
                    "invalid_grant",
                    9_002_313,
                    "Invalid request. The refresh token is malformed or not valid.",
                )
            })?;
            signed_in(state, endpoint, form, client, sign_in)
        }
        "authorization_code" => {
            let sign_in = signin::redeem(state, form, client)?;
            signed_in(state, endpoint, form, client, sign_in)
        }
        "device_code" | "urn:ietf:params:oauth:grant-type:device_code" => {
            let sign_in = signin::poll(state, form, client)?;
            signed_in(state, endpoint, form, client, sign_in)
        }
        "urn:ietf:params:oauth:grant-type:jwt-bearer" => on_behalf_of(state, endpoint, form, client),
        "password" => {
            let text = "Due to a configuration change made by your administrator, or because you moved to a new \
                        location, you must use multi-factor authentication.";
            Err(Refusal::new("invalid_grant", 50_076, text))
        }
        other => Err(Refusal::new(
            "unsupported_grant_type",
            70_003,
            format!("The app requested an unsupported grant type '{other}'."),
        )),
    }
}

/// A token for the person who signed in.
fn signed_in(
    state: &mut Inner,
    endpoint: Endpoint<'_>,
    form: &Form<'_>,
    client: &'static Application,
    sign_in: SignIn,
) -> Result<Value, Refusal> {
    let proof = if client.secret.is_some() { authenticate(client, form)? } else { "0" };
    if directory::tenant(endpoint.tenant).is_some_and(|tenant| tenant != sign_in.user.tenant) {
        let text = format!("User account '{}' does not exist in tenant '{}'.", sign_in.user.upn, endpoint.tenant);
        return Err(Refusal::new("invalid_grant", 50_020, text));
    }
    let scope = form.field("scope").unwrap_or(&sign_in.scope).to_owned();
    let target = match form.field("resource") {
        Some(_) if endpoint.version == 1 => target(form, 1)?,
        _ => by_scope(&scope)?,
    };
    let wanted = Wanted::user(sign_in.user, client, target.resource);
    let scopes = consented(&target)?;
    let wanted = Wanted { audience: target.audience, scopes, proof, ..wanted };
    answer(state, wanted, endpoint, form, Some(SignIn { scope, ..sign_in }))
}

/// A middle tier exchanges the token that it was called with (MS-OAPXBC; "on-behalf-of").
fn on_behalf_of(
    state: &mut Inner,
    endpoint: Endpoint<'_>,
    form: &Form<'_>,
    client: &'static Application,
) -> Result<Value, Refusal> {
    let proof = authenticate(client, form)?;
    if form.need("requested_token_use")? != "on_behalf_of" {
        return Err(Refusal::new("invalid_request", 900_144, "The 'requested_token_use' must be 'on_behalf_of'."));
    }
    let refused =
        |text: &str| Refusal::new("invalid_grant", 50_013, format!("Assertion failed signature validation. {text}"));
    let claims = verify(&state.keys.published, form.need("assertion")?).map_err(refused)?;
    let text = |name: &str| claims.get(name).and_then(Value::as_str).unwrap_or_default();
    let own =
        directory::resource(client.id).is_some_and(|own| text("aud") == own.id || own.uris.contains(&text("aud")));
    if !own {
        return Err(refused("The audience of the assertion isn't the client."));
    }
    let user = directory::USERS.iter().copied().find(|user| user.id == text("oid") && user.tenant.id == text("tid"));
    let Some(user) = user.filter(|_| claims.contains_key("scp")) else {
        return Err(refused("The assertion isn't a person's."));
    };
    if directory::tenant(endpoint.tenant).is_none_or(|tenant| tenant != user.tenant) {
        return Err(no_tenant(endpoint));
    }
    let target = target(form, endpoint.version)?;
    let scopes = consented(&target)?;
    let wanted = Wanted { audience: target.audience, scopes, proof, ..Wanted::user(user, client, target.resource) };
    let scope = form.field("scope").unwrap_or_default().to_owned();
    let sign_in = SignIn { user, client: client.id, scope, redirect: String::new(), challenge: None, nonce: None };
    answer(state, wanted, endpoint, form, Some(sign_in))
}

/// Issues the token and words the answer.
fn answer(
    state: &mut Inner,
    mut wanted: Wanted,
    endpoint: Endpoint<'_>,
    form: &Form<'_>,
    sign_in: Option<SignIn>,
) -> Result<Value, Refusal> {
    wanted.asked = Asked::of(form.field("claims"));
    // Clients look their tokens up by the scopes that they asked for.
    let asked = form.field("scope").unwrap_or_default().split_whitespace().find(|scope| scope.ends_with("/.default"));
    let scopes = wanted.scopes.iter().map(|scope| format!("{}/{scope}", wanted.audience));
    let scopes: Vec<String> = scopes.chain(asked.map(str::to_owned)).collect();
    let (client, subject) = (wanted.client, wanted.subject);
    let audience = wanted.audience.clone();
    let issued = state.issue(wanted).map_err(|error| Refusal::broken(&error))?;
    // What has ended already is still told to last, as by a host whose clock is late.
    let lifetime = (issued.expires - seconds()).max(1);
    let mut answer = Map::new();
    let mut set = |name: &str, value: Value| {
        answer.insert(name.to_owned(), value);
    };
    set("token_type", json!("Bearer"));
    set("access_token", json!(issued.token));
    if endpoint.version == 1 {
        // All of v1 are strings.
        set("expires_in", json!(lifetime.to_string()));
        set("ext_expires_in", json!(lifetime.to_string()));
        set("expires_on", json!(issued.expires.to_string()));
        set("not_before", json!((seconds() - 300).to_string()));
        set("resource", json!(audience));
    } else {
        set("expires_in", json!(lifetime));
        set("ext_expires_in", json!(lifetime));
    }
    if let (Some(sign_in), Subject::User(user)) = (sign_in, subject) {
        set("scope", json!(scopes.join(" ")));
        let asked = |scope: &str| sign_in.scope.split_whitespace().any(|word| word == scope);
        if asked("openid") {
            set("id_token", json!(id_token(state, user, client, sign_in.nonce.as_deref())?));
        }
        if form.field("client_info") == Some("1") {
            set("client_info", json!(encode(&json!({ "uid": user.id, "utid": user.tenant.id }).to_string())));
        }
        if asked("offline_access") || endpoint.version == 1 {
            let refresh = format!("1.{}{}", guid(), guid()).replace('-', "");
            set("refresh_token", json!(refresh));
            state.refresh.insert(refresh, sign_in);
        }
    }
    Ok(Value::Object(answer))
}

/// Tells the client who signed in (OpenID Connect Core 1.0, section 2). Its application has the groups put in, as far as
/// they fit.
fn id_token(
    state: &Inner,
    user: &'static directory::User,
    client: &'static str,
    nonce: Option<&str>,
) -> Result<String, Refusal> {
    let now = seconds();
    let groups: Vec<String> =
        directory::groups(user.id).into_iter().filter(|group| !state.taken_groups.contains(group)).collect();
    let groups = match groups.len() {
        0..=200 => ("groups", json!(groups)),
        _ => ("_claim_names", json!({ "groups": "src1" })),
    };
    let nonce = state.nonce.as_deref().or(nonce).map(|nonce| ("nonce", json!(nonce)));
    let claims = [
        ("iss", json!(format!("https://login.microsoftonline.com/{}/v2.0", user.tenant.id))),
        ("aud", json!(client)),
        ("iat", json!(now)),
        ("nbf", json!(now)),
        ("exp", json!(now + 3_600)),
        ("name", json!(user.name)),
        ("oid", json!(user.id)),
        ("preferred_username", json!(user.upn)),
        ("sub", json!(format!("pairwise-{}-{}", &user.id[..8], &client[..8]))),
        ("tid", json!(user.tenant.id)),
        ("uti", json!(guid())),
        ("ver", json!("2.0")),
        groups,
    ];
    let claims = claims.into_iter().chain(nonce).map(|(name, value)| (name.to_owned(), value)).collect();
    let token = super::token::TokenBuilder::new(std::sync::Arc::clone(&state.keys.signing), claims);
    token.build().map_err(|error| Refusal::broken(&error))
}
