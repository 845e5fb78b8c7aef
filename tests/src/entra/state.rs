//! What all connections share: the log, the keys, and what was issued and promised.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use interceptor::clock::{Clock, SystemClock};
use serde::Serialize;
use serde_json::{Value, json};

use super::directory::{self, Resource, User};
use super::issue::Wanted;
use super::key::Keys;
use super::token::TokenBuilder;

/// Which of the endpoints a request came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Service {
    /// The login hosts, in TLS.
    Login,
    /// A virtual machine's instance metadata service.
    Imds,
    /// Azure Arc's agent.
    Arc,
    /// App Service's identity endpoint.
    AppService,
}

/// A request that arrived, with all its secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Received {
    /// Which endpoint it came to.
    pub service: Service,
    /// Its method.
    pub method: String,
    /// Its Host header.
    pub host: String,
    /// Its path with the query.
    pub path: String,
    /// Its headers; the names in lower case.
    pub headers: Vec<(String, String)>,
    /// The form in its body.
    pub form: Vec<(String, String)>,
    /// What it was answered.
    pub status: u16,
}

impl Received {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        value(&self.headers, name)
    }

    /// A form field's value.
    pub fn field(&self, name: &str) -> Option<&str> {
        value(&self.form, name)
    }
}

/// The first value of that name.
pub(super) fn value<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

/// A token that was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The token.
    pub token: String,
    /// Its tenant.
    pub tid: &'static str,
    /// Its principal.
    pub oid: &'static str,
    /// The client that it was issued to.
    pub client: &'static str,
    /// Its audience.
    pub audience: String,
    /// Its id.
    pub uti: String,
    /// When it ends, in seconds since 1970.
    pub expires: i64,
}

/// How people answer to a device code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceAnswer {
    /// This one signs in, after the client has asked so often in vain.
    Granted {
        /// Who.
        by: &'static User,
        /// How often the client is told to wait.
        after: u32,
    },
    /// Somebody says no.
    Declined,
    /// Nobody comes until it is too late.
    Expired,
}

/// A sign-in of a person that the client can refer to: by a refresh token, a code or a device code.
#[derive(Debug, Clone)]
pub(super) struct SignIn {
    pub(super) user: &'static User,
    pub(super) client: &'static str,
    /// The scopes that were asked for.
    pub(super) scope: String,
    /// For a code: where it was sent, and the PKCE challenge.
    pub(super) redirect: String,
    pub(super) challenge: Option<String>,
    /// What the ID token is to have in it.
    pub(super) nonce: Option<String>,
}

/// A device code.
#[derive(Debug, Clone)]
pub(super) struct Device {
    pub(super) client: &'static str,
    pub(super) scope: String,
    pub(super) asked: u32,
}

/// See the module's documentation.
pub(super) struct State {
    inner: Mutex<Inner>,
}

pub(super) struct Inner {
    pub(super) log: Vec<Received>,
    pub(super) issued: Vec<Issued>,
    pub(super) keys: Keys,
    pub(super) lifetime: Option<i64>,
    /// App roles that nobody has any more.
    pub(super) taken: Vec<String>,
    /// Groups that nobody is in any more.
    pub(super) taken_groups: Vec<String>,
    pub(super) refresh: HashMap<String, SignIn>,
    pub(super) codes: HashMap<String, SignIn>,
    pub(super) devices: HashMap<String, Device>,
    pub(super) device_answer: DeviceAnswer,
    /// What ID tokens have as their nonce, whatever was asked for.
    pub(super) nonce: Option<String>,
    /// The ids of tokens that a service must challenge.
    pub(super) dead: HashSet<String>,
    /// How many requests a service challenges, whatever they bring.
    pub(super) challenges: u32,
    /// What a host endpoint answers next instead of a token, by status.
    pub(super) faults: VecDeque<u16>,
    /// What IMDS gave and gives again, by client id and audience.
    pub(super) imds: HashMap<(&'static str, String), Issued>,
    /// The secrets that Arc has put into files and waits for.
    pub(super) arc: HashSet<String>,
}

impl State {
    pub(super) fn new() -> Result<Arc<Self>> {
        let inner = Inner {
            log: Vec::new(),
            issued: Vec::new(),
            keys: Keys::new()?,
            lifetime: None,
            taken: Vec::new(),
            taken_groups: Vec::new(),
            refresh: HashMap::new(),
            codes: HashMap::new(),
            devices: HashMap::new(),
            device_answer: DeviceAnswer::Granted { by: directory::ADELE, after: 1 },
            nonce: None,
            dead: HashSet::new(),
            challenges: 0,
            faults: VecDeque::new(),
            imds: HashMap::new(),
            arc: HashSet::new(),
        };
        Ok(Arc::new(Self { inner: Mutex::new(inner) }))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The token as it would be issued now.
    pub(super) fn builder(&self, wanted: &Wanted) -> TokenBuilder {
        let mut builder = wanted.builder(Arc::clone(&self.keys.signing), seconds(), &guid());
        for (name, taken) in [("roles", &self.taken), ("groups", &self.taken_groups)] {
            if let Some(Value::Array(all)) = builder.claims.get_mut(name) {
                all.retain(|one| one.as_str().is_none_or(|one| taken.iter().all(|taken| taken != one)));
            }
        }
        // Who is in none has no such claim.
        if builder.claims.get("groups") == Some(&json!([])) { builder.without("groups") } else { builder }
    }

    /// Issues the token.
    pub(super) fn issue(&mut self, mut wanted: Wanted) -> Result<Issued> {
        wanted.lifetime = wanted.lifetime.or(self.lifetime);
        let builder = self.builder(&wanted);
        let text = |name: &str| builder.claims.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let issued = Issued {
            token: builder.build()?,
            tid: wanted.tenant.id,
            oid: wanted.oid(),
            client: wanted.client,
            audience: text("aud"),
            uti: text("uti"),
            expires: builder.claims.get("exp").and_then(Value::as_i64).unwrap_or_default(),
        };
        self.issued.push(issued.clone());
        Ok(issued)
    }

    /// A token of the cluster's OpenID provider for `subject`, as a kubelet projects it into a file.
    pub(super) fn federated(subject: &str) -> Result<TokenBuilder> {
        let now = seconds();
        let claims = [
            ("iss", json!(directory::CLUSTER)),
            ("sub", json!(subject)),
            ("aud", json!([directory::FEDERATION_AUDIENCE])),
            ("iat", json!(now)),
            ("nbf", json!(now)),
            ("exp", json!(now + 3_600)),
            ("jti", json!(guid())),
        ];
        let claims = claims.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Ok(TokenBuilder::new(super::key::Key::number(super::key::CLUSTER_KEY)?, claims))
    }
}

/// The resource and the words by which `name` asks for it.
pub(super) fn audience(name: &str) -> Option<(&'static Resource, String)> {
    directory::resource(name).map(|resource| (resource, name.to_owned()))
}

/// Now.
pub(super) fn now() -> impl std::fmt::Display {
    SystemClock.now()
}

/// Now, in seconds since 1970.
pub(super) fn seconds() -> i64 {
    SystemClock.now().as_second()
}

/// A random id.
pub(super) fn guid() -> String {
    let mut bytes = [0_u8; 16];
    // Ids that aren't random only look odd in a fixture.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    let mut text = String::new();
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}
