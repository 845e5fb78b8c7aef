//! An issuer's keys over time: found by its discovery document (OpenID Connect Discovery section 4), refreshed, and
//! judged by their age.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{KeyError, KeySet};
use crate::clock::Clock;
use crate::identity::{Fetch, MAX_DOCUMENT, json};

/// How old keys may be before they are fetched anew.
const REFRESH_AFTER: SignedDuration = SignedDuration::from_hours(1);
/// How old keys may be before `status` reports them.
const DEGRADED_AFTER: SignedDuration = SignedDuration::from_hours(24);
/// How old keys may be before nothing is verified with them any more.
pub(super) const REFUSED_AFTER: SignedDuration = SignedDuration::from_hours(72);
/// The least time between two fetches because of an unknown key, or after one that failed: a rotation is seen in time,
/// and who sends junk causes two fetches a minute.
const UNKNOWN_AFTER: SignedDuration = SignedDuration::from_secs(30);
/// The least time between two attempts while there are no keys at all.
const FIRST_AFTER: SignedDuration = SignedDuration::from_secs(5);

/// Where an issuer's keys come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyAuthority {
    /// The issuer, exactly as its discovery document must name it.
    pub issuer: String,
    /// The address of its discovery document, https.
    pub discovery: String,
    /// Hosts (with a port unless it is 443) besides the discovery document's that keys may come from.
    pub key_hosts: Vec<String>,
}

impl KeyAuthority {
    /// The authority whose discovery document stands at its well-known place below the issuer.
    pub fn of(issuer: &str) -> Self {
        KeyAuthority {
            issuer: issuer.to_owned(),
            discovery: format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/')),
            key_hosts: Vec::new(),
        }
    }

    /// Where the discovery document says the keys are.
    fn keys_url(&self, document: &[u8]) -> Result<String, KeyError> {
        let malformed = || KeyError::Malformed(self.discovery.clone());
        if document.len() > MAX_DOCUMENT {
            return Err(malformed());
        }
        let document = json::object(document).map_err(|_| malformed())?;
        if document.get("issuer").and_then(Value::as_str) != Some(&self.issuer) {
            return Err(KeyError::OtherIssuer(self.issuer.clone()));
        }
        let url = document.get("jwks_uri").and_then(Value::as_str).ok_or_else(malformed)?;
        let host = https_host(url);
        let known = host.is_some()
            && (host == https_host(&self.discovery)
                || self.key_hosts.iter().any(|own| host == https_host(&format!("https://{own}"))));
        if known { Ok(url.to_owned()) } else { Err(KeyError::KeysElsewhere(url.to_owned())) }
    }
}

/// The host and port of an https address that has nothing odd in it.
fn https_host(url: &str) -> Option<(String, u16)> {
    let uri: http::Uri = url.parse().ok()?;
    let authority = uri.authority()?;
    if uri.scheme_str() != Some("https") || authority.as_str().contains('@') {
        return None;
    }
    // A port that doesn't parse isn't the default one.
    let port = match authority.as_str().strip_prefix(authority.host())? {
        "" => 443,
        rest => rest.strip_prefix(':')?.parse().ok()?,
    };
    Some((authority.host().to_ascii_lowercase(), port))
}

/// How old an issuer's keys are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Freshness {
    /// Refreshed within 24 hours.
    Fresh,
    /// Not refreshed for 24 hours; still used.
    Degraded,
    /// Not refreshed for 72 hours, or never fetched; not used.
    Refused,
}

struct Fetched {
    keys: Arc<KeySet>,
    at: Timestamp,
}

/// The keys of one issuer. Shared by all workers: whoever finds that keys are missing fetches them, the others wait for
/// that flight; if its worker gives up, the next one flies.
pub struct KeySource {
    authority: KeyAuthority,
    fetch: Arc<dyn Fetch>,
    clock: Arc<dyn Clock>,
    fetched: ArcSwapOption<Fetched>,
    /// When the last fetch was attempted. Locked for as long as one is in flight.
    attempted: tokio::sync::Mutex<Option<Timestamp>>,
}

impl KeySource {
    /// A source that has no keys yet.
    pub fn new(authority: KeyAuthority, fetch: Arc<dyn Fetch>, clock: Arc<dyn Clock>) -> Self {
        KeySource { authority, fetch, clock, fetched: ArcSwapOption::empty(), attempted: tokio::sync::Mutex::default() }
    }

    /// Whose keys these are.
    pub fn authority(&self) -> &KeyAuthority {
        &self.authority
    }

    /// How old the keys are.
    pub fn freshness(&self) -> Freshness {
        match self.age() {
            Some(age) if age < DEGRADED_AFTER => Freshness::Fresh,
            Some(age) if age < REFUSED_AFTER => Freshness::Degraded,
            _ => Freshness::Refused,
        }
    }

    /// The keys with which a token that names this key is verified: fetched if there are none, or none of that name, or
    /// if they are too old. The key may be missing all the same; then the token names no key of the issuer. Who names a
    /// known key never waits: refreshing is [`KeySource::keep_fresh`]'s.
    ///
    /// # Errors
    /// That there are no keys, with the reason, or only ones that are too old.
    pub async fn keys(&self, kid: &str) -> Result<Arc<KeySet>, KeyError> {
        let serves = |fetched: &Fetched, age: SignedDuration| age < REFUSED_AFTER && fetched.keys.find(kid).is_some();
        let mut failed = None;
        if !self.current().is_some_and(|(fetched, age)| serves(&fetched, age)) {
            let mut attempted = self.attempted.lock().await;
            // Another flight may have brought them while this one waited.
            let current = self.current();
            let pause = if current.is_some() { UNKNOWN_AFTER } else { FIRST_AFTER };
            let due = attempted.is_none_or(|at| elapsed(at, self.clock.now()) >= pause);
            if due && !current.is_some_and(|(fetched, age)| serves(&fetched, age)) {
                failed = self.fly(&mut attempted).await.err();
            }
        }
        match self.current() {
            Some((fetched, age)) if age < REFUSED_AFTER => Ok(fetched.keys.clone()),
            Some(_) => Err(failed.unwrap_or(KeyError::TooOld)),
            None => Err(failed.unwrap_or(KeyError::Waiting)),
        }
    }

    /// Fetches the keys anew if they are due for it: an hour after they were fetched, half a minute after a failure.
    ///
    /// # Errors
    /// Why they couldn't be fetched; the last good ones stay.
    pub async fn refresh(&self) -> Result<(), KeyError> {
        let mut attempted = self.attempted.lock().await;
        let now = self.clock.now();
        let old = self.age().is_none_or(|age| age >= REFRESH_AFTER);
        if old && attempted.is_none_or(|at| elapsed(at, now) >= UNKNOWN_AFTER) {
            return self.fly(&mut attempted).await;
        }
        Ok(())
    }

    /// Keeps the keys fresh, for as long as it is polled.
    pub async fn keep_fresh(&self) {
        loop {
            if let Err(error) = self.refresh().await {
                tracing::warn!(
                    issuer = %self.authority.issuer,
                    error = &error as &dyn std::error::Error,
                    "couldn't refresh the issuer's keys",
                );
            }
            // Looks often and fetches rarely, so that a clock that was set doesn't matter.
            tokio::time::sleep(Duration::from_secs(30)).await;
        }
    }

    async fn fly(&self, attempted: &mut Option<Timestamp>) -> Result<(), KeyError> {
        // Noted before, so that a flight that is given up counts as well.
        *attempted = Some(self.clock.now());
        let discovery = self.document(&self.authority.discovery).await?;
        let url = self.authority.keys_url(&discovery)?;
        let keys = Arc::new(KeySet::parse(&self.document(&url).await?, &url)?);
        self.fetched.store(Some(Arc::new(Fetched { keys, at: self.clock.now() })));
        Ok(())
    }

    async fn document(&self, url: &str) -> Result<bytes::Bytes, KeyError> {
        self.fetch.get(url).await.map_err(|source| KeyError::Fetch { url: url.to_owned(), source })
    }

    fn age(&self) -> Option<SignedDuration> {
        self.current().map(|(_, age)| age)
    }

    fn current(&self) -> Option<(Arc<Fetched>, SignedDuration)> {
        let fetched = self.fetched.load_full()?;
        let age = elapsed(fetched.at, self.clock.now());
        Some((fetched, age))
    }
}

/// How long ago. A clock that was set back makes things look older than they are: they are fetched again at once, not
/// kept until the clock has caught up.
fn elapsed(at: Timestamp, now: Timestamp) -> SignedDuration {
    now.duration_since(at).abs()
}

#[cfg(test)]
mod tests;
