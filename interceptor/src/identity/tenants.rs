//! Tenants as a path names them: by id, by an alias that stands for several, or by one of their domain names, which is
//! resolved through discovery.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::verify::Cloud;
use super::{Fetch, FetchError, json};
use crate::clock::Clock;
use crate::fresh::Fresh;
use crate::ids::TenantId;

/// The tenant of personal Microsoft accounts, which `consumers` stands for.
pub const CONSUMERS: TenantId = TenantId::from_bits(0x9188040d_6c67_4c5b_b112_36a304b66dad);

/// Domain names that are kept.
const MOST_DOMAINS: usize = 1024;
/// How long the tenant of a domain name is believed.
const DOMAIN_LIFE: Duration = Duration::from_hours(24);
/// How long a domain name that has no tenant is believed to have none.
const UNKNOWN_LIFE: Duration = Duration::from_secs(60);
/// Look-ups of domain names in a minute; who sends made-up names gets no more.
const LOOKUPS_PER_MINUTE: usize = 30;

/// How a path names a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TenantName {
    /// By its id.
    Id(TenantId),
    /// `common`: work accounts and personal ones of any tenant.
    Common,
    /// `organizations`: work accounts of any tenant.
    Organizations,
    /// By a domain name, in lower case.
    Domain(String),
}

/// Which tenant a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tenant {
    /// This one.
    One(TenantId),
    /// Whichever the account belongs to: the answer's token tells.
    Any,
}

/// Why a name stands for no tenant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TenantError {
    /// It can't be a tenant's name.
    #[error("`{0}` isn't a tenant: give its id or one of its domain names")]
    Malformed(String),
    /// No tenant has this domain name.
    #[error("no tenant has the domain name `{0}`; give the tenant's id")]
    Unknown(String),
    /// Too many names were looked up.
    #[error("too many domain names were looked up in this minute; give the tenant's id instead of `{0}`")]
    TooMany(String),
    /// The login host couldn't be asked.
    #[error("couldn't look up the tenant of `{name}`; give the tenant's id, or try again")]
    Fetch {
        /// The domain name.
        name: String,
        /// Why not.
        source: FetchError,
    },
}

impl TenantError {
    /// The stable code (docs/identity.md).
    pub fn code(&self) -> &'static str {
        match self {
            TenantError::Malformed(_) => "tenant-malformed",
            TenantError::Unknown(_) => "tenant-unknown",
            TenantError::TooMany(_) => "tenant-lookups",
            TenantError::Fetch { .. } => "tenant-unresolved",
        }
    }
}

impl TenantName {
    /// Reads a path's first segment.
    ///
    /// # Errors
    /// [`TenantError::Malformed`].
    pub fn parse(segment: &str) -> Result<TenantName, TenantError> {
        let name = segment.to_ascii_lowercase();
        match name.as_str() {
            "common" => return Ok(TenantName::Common),
            "organizations" => return Ok(TenantName::Organizations),
            "consumers" => return Ok(TenantName::Id(CONSUMERS)),
            _ => {}
        }
        if let Ok(id) = name.parse() {
            return Ok(TenantName::Id(id));
        }
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        if name.len() > 253 || !name.contains('.') || !name.split('.').all(label) {
            return Err(TenantError::Malformed(segment.chars().take(64).collect()));
        }
        Ok(TenantName::Domain(name))
    }
}

/// The tenants of domain names, as discovery tells them.
pub struct Tenants {
    cloud: Cloud,
    fetch: Arc<dyn Fetch>,
    clock: Arc<dyn Clock>,
    known: Fresh<String, TenantId>,
    unknown: Fresh<String, ()>,
    lookups: Mutex<VecDeque<Timestamp>>,
}

impl Tenants {
    /// Tenants of this cloud, none known yet.
    pub fn new(cloud: Cloud, fetch: Arc<dyn Fetch>, clock: Arc<dyn Clock>) -> Self {
        let known = Fresh::new(MOST_DOMAINS, DOMAIN_LIFE);
        let unknown = Fresh::new(MOST_DOMAINS, UNKNOWN_LIFE);
        Tenants { cloud, fetch, clock, known, unknown, lookups: Mutex::default() }
    }

    /// Which tenant a path's first segment stands for.
    ///
    /// # Errors
    /// Why it stands for none, or why that isn't known; such a request is refused.
    pub async fn resolve(&self, segment: &str) -> Result<Tenant, TenantError> {
        match TenantName::parse(segment)? {
            TenantName::Id(id) => Ok(Tenant::One(id)),
            TenantName::Common | TenantName::Organizations => Ok(Tenant::Any),
            TenantName::Domain(name) => self.domain(name).await.map(Tenant::One),
        }
    }

    async fn domain(&self, name: String) -> Result<TenantId, TenantError> {
        if let Some(id) = self.known.get(&name) {
            return Ok(id);
        }
        if self.unknown.get(&name).is_some() {
            return Err(TenantError::Unknown(name));
        }
        if !self.may_look_up() {
            return Err(TenantError::TooMany(name));
        }
        let url = format!("{}/{name}/v2.0/.well-known/openid-configuration", self.cloud.login);
        let document = match self.fetch.get(&url).await {
            Ok(document) => document,
            // What Entra answers for a name that no tenant has.
            Err(FetchError::Status(400 | 404)) => {
                self.unknown.put(name.clone(), ());
                return Err(TenantError::Unknown(name));
            }
            Err(source) => return Err(TenantError::Fetch { name, source }),
        };
        match self.named_by(&document) {
            Some(id) => {
                self.known.put(name, id);
                Ok(id)
            }
            None => {
                self.unknown.put(name.clone(), ());
                Err(TenantError::Unknown(name))
            }
        }
    }

    /// The tenant whose issuer a discovery document names.
    fn named_by(&self, document: &[u8]) -> Option<TenantId> {
        let document = json::object(document).ok()?;
        let issuer = document.get("issuer").and_then(Value::as_str)?;
        let id = issuer.strip_prefix(&self.cloud.login)?.strip_prefix('/')?.strip_suffix("/v2.0")?;
        id.parse().ok()
    }

    fn may_look_up(&self) -> bool {
        let now = self.clock.now();
        let mut lookups = self.lookups.lock().unwrap_or_else(PoisonError::into_inner);
        lookups.retain(|at| now.duration_since(*at).abs() < SignedDuration::from_mins(1));
        let may = lookups.len() < LOOKUPS_PER_MINUTE;
        if may {
            lookups.push_back(now);
        }
        may
    }
}

#[cfg(test)]
mod tests;
