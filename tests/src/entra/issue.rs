//! What a token says: the claims that Entra gives to applications, managed identities and people, as v1 or v2.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::directory::{self, Application, Managed, Resource, Tenant, User};
use super::key::Key;
use super::token::TokenBuilder;

/// How many groups a token lists at most.
const GROUPS: usize = 200;
/// How far back a token begins.
const SLACK: i64 = 300;
const HOUR: i64 = 3_599;
const DAY: i64 = 86_399;

/// Who a token is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Subject {
    App { oid: &'static str },
    Managed(&'static Managed),
    User(&'static User),
}

/// A token that is to be issued.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) tenant: &'static Tenant,
    pub(super) subject: Subject,
    /// The client id.
    pub(super) client: &'static str,
    pub(super) resource: &'static Resource,
    /// The resource as the client named it.
    pub(super) audience: String,
    pub(super) scopes: Vec<String>,
    /// How the client proved itself: "0" not at all, "1" by a secret, "2" by an assertion.
    pub(super) proof: &'static str,
    /// What the client asked for in `claims`.
    pub(super) asked: Asked,
    /// Seconds, if it isn't what Entra would choose.
    pub(super) lifetime: Option<i64>,
}

/// What a client asked for in the `claims` parameter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// Not older than this.
    pub(super) not_before: Option<i64>,
    /// The client handles claims challenges.
    pub(super) cae: bool,
}

impl Asked {
    /// Reads the parameter; what isn't understood isn't asked for.
    pub(super) fn of(claims: Option<&str>) -> Self {
        let claims: Value = claims.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let wanted = &claims["access_token"];
        let not_before = &wanted["nbf"]["value"];
        let values = wanted["xms_cc"]["values"].as_array();
        Self {
            not_before: not_before.as_i64().or_else(|| not_before.as_str()?.parse().ok()),
            cae: values.is_some_and(|all| all.iter().any(|one| one.as_str().is_some_and(is_cp1))),
        }
    }
}

fn is_cp1(value: &str) -> bool {
    value.eq_ignore_ascii_case("cp1")
}

impl Wanted {
    /// An application's own token.
    pub(super) fn app(tenant: &'static Tenant, app: &'static Application, resource: &'static Resource) -> Option<Self> {
        let subject = Subject::App { oid: app.principal(tenant)? };
        Some(Self::new(tenant, subject, app.id, resource, "1"))
    }

    /// A person's token, issued to `app`, with all scopes that the resource has.
    pub(super) fn user(user: &'static User, app: &'static Application, resource: &'static Resource) -> Self {
        let proof = if app.secret.is_some() { "1" } else { "0" };
        let mut wanted = Self::new(user.tenant, Subject::User(user), app.id, resource, proof);
        wanted.scopes = resource.scopes.iter().map(|&scope| scope.to_owned()).collect();
        wanted
    }

    /// A managed identity's token.
    pub(super) fn managed(identity: &'static Managed, resource: &'static Resource) -> Self {
        Self::new(directory::CONTOSO, Subject::Managed(identity), identity.client, resource, "2")
    }

    fn new(
        tenant: &'static Tenant,
        subject: Subject,
        client: &'static str,
        resource: &'static Resource,
        proof: &'static str,
    ) -> Self {
        let audience = resource.uris.first().copied().unwrap_or(resource.id).to_owned();
        let (scopes, asked) = (Vec::new(), Asked::default());
        Self { tenant, subject, client, resource, audience, scopes, proof, asked, lifetime: None }
    }

    /// The principal's object id.
    pub(super) fn oid(&self) -> &'static str {
        match self.subject {
            Subject::App { oid } => oid,
            Subject::Managed(identity) => identity.id,
            Subject::User(user) => user.id,
        }
    }

    /// How long it lives, in seconds.
    pub(super) fn lifetime(&self) -> i64 {
        let long = self.asked.cae || matches!(self.subject, Subject::Managed(_));
        self.lifetime.unwrap_or(if long { DAY } else { HOUR })
    }

    /// The token, not built yet.
    pub(super) fn builder(&self, key: Arc<Key>, now: i64, uti: &str) -> TokenBuilder {
        let builder = TokenBuilder::new(key, self.claims(now, uti));
        let builder = if self.resource.version == 1 {
            let kid = builder.header.get("kid").cloned().unwrap_or_default();
            builder.header("x5t", kid)
        } else {
            builder
        };
        if self.resource.has_nonce { builder.nonce(&format!("nonce-of-{uti}")) } else { builder }
    }

    fn claims(&self, now: i64, uti: &str) -> Map<String, Value> {
        let (tid, oid) = (self.tenant.id, self.oid());
        let begin = self.asked.not_before.map_or(now - SLACK, |wanted| wanted.max(now - SLACK));
        let mut claims = Map::new();
        let mut set = |name: &str, value: Value| {
            claims.insert(name.to_owned(), value);
        };
        for name in ["iat", "nbf"] {
            set(name, json!(begin));
        }
        set("exp", json!(now + self.lifetime()));
        set("aio", json!(format!("k2-{uti}")));
        set("oid", json!(oid));
        set("tid", json!(tid));
        set("uti", json!(uti));
        set("rh", json!("1.AAAA"));
        if self.resource.version == 1 {
            set("ver", json!("1.0"));
            set("aud", json!(self.audience));
            set("iss", json!(format!("https://sts.windows.net/{tid}/")));
            set("appid", json!(self.client));
            set("appidacr", json!(self.proof));
            set("idp", json!(format!("https://sts.windows.net/{tid}/")));
        } else {
            set("ver", json!("2.0"));
            set("aud", json!(self.resource.id));
            set("iss", json!(format!("https://login.microsoftonline.com/{tid}/v2.0")));
            set("azp", json!(self.client));
            set("azpacr", json!(self.proof));
        }
        if self.asked.cae {
            set("xms_cc", json!(["CP1"]));
        }
        match self.subject {
            Subject::User(user) => {
                set("sub", json!(format!("pairwise-{}-{}", &user.id[..8], &self.resource.id[..8])));
                set("scp", json!(self.scopes.join(" ")));
                set("name", json!(user.name));
                let login = if self.resource.version == 1 { "upn" } else { "preferred_username" };
                set(login, json!(user.upn));
                if self.resource.version == 1 {
                    set("amr", json!(["pwd", "mfa"]));
                    set("acr", json!("1"));
                }
            }
            Subject::App { .. } | Subject::Managed(_) => {
                set("sub", json!(oid));
                // An optional claim: the resources of Microsoft ask for it.
                if self.resource.version == 1 {
                    set("idtyp", json!("app"));
                }
                if !self.resource.roles.is_empty() {
                    set("roles", json!(self.resource.roles));
                }
                if let Subject::Managed(identity) = self.subject {
                    set("xms_mirid", json!(identity.resource));
                }
            }
        }
        if self.resource.has_groups {
            self.groups(&mut claims);
        }
        claims
    }

    /// Too many groups aren't listed: a link to a retired service stands for them.
    fn groups(&self, claims: &mut Map<String, Value>) {
        let groups = directory::groups(self.oid());
        if groups.len() > GROUPS {
            let link = format!("https://graph.windows.net/{}/users/{}/getMemberObjects", self.tenant.id, self.oid());
            claims.insert("_claim_names".to_owned(), json!({ "groups": "src1" }));
            claims.insert("_claim_sources".to_owned(), json!({ "src1": { "endpoint": link } }));
        } else if !groups.is_empty() {
            claims.insert("groups".to_owned(), json!(groups));
        }
    }
}
