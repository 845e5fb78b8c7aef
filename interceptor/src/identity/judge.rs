//! Who a token names, and whether this workload may present it to this target: provenance first, then the issuer's keys
//! where the configuration wants them. Also what is made of a token that is being issued.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use super::claims::{Claims, Groups};
use super::endpoint::{Answer, Kind};
use super::keys::{Freshness, KeyAuthority, KeyError, KeySource};
use super::overage::{Directory, Overage};
use super::provenance::{Death, Digest, DigestKey, Full, Issued, Known, Provenance, Recorded};
use super::tenants::{Tenant, TenantError, Tenants};
use super::verify::{self, Cloud, Expected, Issuer};
use super::{Fetch, Token, TokenError, challenge};
use crate::clock::Clock;
use crate::config::{self, Identities, IdentitySource, Target};
use crate::fresh::Fresh;
use crate::ids::{IssuerName, PrincipalId, TenantId, WorkloadName};
use crate::policy::{Authentic, Bound};

mod groups;
mod sign_in;
mod standing;
mod token_file;

pub use groups::LookedUp;
pub use sign_in::SignedIn;

/// Device codes under way, and how long one may take: Entra's live 15 minutes.
const MOST_DEVICES: usize = 1024;
const DEVICE_LIFE: Duration = Duration::from_mins(20);

/// All that it takes to judge tokens. One for the whole daemon; it outlives reloads.
pub struct Judge {
    key: DigestKey,
    provenance: Provenance,
    fetch: Arc<dyn Fetch>,
    directory: Arc<dyn Directory>,
    clock: Arc<dyn Clock>,
    keys: Mutex<HashMap<String, Arc<KeySource>>>,
    tenants: Mutex<HashMap<String, Arc<Tenants>>>,
    overages: Mutex<HashMap<String, Arc<Overage>>>,
    /// What device codes were asked for, by workload and client: who comes with a code doesn't say it again.
    devices: Fresh<(WorkloadName, String), String>,
}

/// A token as a workload presents it.
#[derive(Clone, Copy)]
pub struct Presented<'a> {
    /// The token.
    pub token: &'a str,
    /// Who presents it.
    pub workload: &'a WorkloadName,
    /// Where that workload's tokens come from.
    pub source: &'a IdentitySource,
    /// To which target.
    pub target: &'a Target,
}

/// What a presented token turned out to be.
#[derive(Debug)]
pub enum Judged {
    /// A token of a listed tenant or issuer, which this workload may present here.
    Ours {
        /// What is known of it.
        issued: Arc<Issued>,
        /// Its digest.
        digest: Digest,
        /// Whether it is new: from the token file, to be recorded and then [`accepted`](Judge::accept) first.
        is_new: bool,
        /// Whether its issuer's keys were asked, which may say something else the next time, as may a token file. Else this
        /// holds until the configuration or what is known of tokens changes ([`Judge::watch`]), or the token ends.
        is_verified: bool,
    },
    /// Something else in a bearer's place: not a token that anybody could read, or one of an issuer that isn't Entra and
    /// isn't listed.
    Foreign,
}

/// Why a token is refused.
#[derive(Debug, thiserror::Error)]
pub enum JudgeError {
    /// It is of a tenant that isn't listed.
    #[error("the token is of tenant `{0}`, which isn't one of this host's")]
    TenantNotListed(TenantId),
    /// It was issued to another workload only.
    #[error("the token was issued to another workload")]
    OfAnother,
    /// Nobody saw it issued.
    #[error("the token wasn't seen issued to this workload; sign in again, through this host's Interceptor")]
    NotSeen,
    /// A service asked for a newer one, an operator revoked it, or it is in the token file no longer.
    #[error("the token is accepted no longer; sign in again")]
    Ended,
    /// It has expired.
    #[error("the token has expired; sign in again")]
    Expired,
    /// It is for another target.
    #[error("the token is for `{0}`, which isn't this target")]
    ForAnother(String),
    /// The answer of a token endpoint is for a tenant that wasn't asked.
    #[error("the token is of another tenant than the one that was asked")]
    OtherTenant,
    /// It isn't one that can be believed.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Its issuer's keys can't be had.
    #[error("{0}")]
    Keys(#[from] KeyError),
    /// There is no room to remember it.
    #[error(transparent)]
    Full(#[from] Full),
}

impl JudgeError {
    /// The stable code (docs/identity.md).
    pub fn code(&self) -> &'static str {
        match self {
            JudgeError::TenantNotListed(_) => "tenant-not-listed",
            JudgeError::OfAnother => "token-of-another-workload",
            JudgeError::NotSeen => "token-not-seen",
            JudgeError::Ended => "token-ended",
            JudgeError::Expired => "token-expired",
            JudgeError::ForAnother(_) => "token-audience",
            JudgeError::OtherTenant => "token-tenant",
            JudgeError::Token(error) => error.code(),
            JudgeError::Keys(error) => error.code(),
            JudgeError::Full(_) => "too-many-tokens",
        }
    }

    /// Whether signing in again helps: the client is then told so in the protocol's own way.
    pub fn wants_a_new_token(&self) -> bool {
        matches!(
            self,
            JudgeError::NotSeen | JudgeError::Ended | JudgeError::Expired | JudgeError::Token(TokenError::Expired)
        )
    }
}

/// Whose a token says it is.
enum Realm<'a> {
    Tenant(&'a config::Tenant),
    Issuer(&'a config::Issuer),
}

impl Judge {
    /// A judge that knows what was recorded.
    pub fn new(
        key: DigestKey,
        recorded: impl IntoIterator<Item = Recorded>,
        fetch: Arc<dyn Fetch>,
        directory: Arc<dyn Directory>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let provenance = Provenance::restore(recorded, clock.now());
        let (keys, tenants, overages) = Default::default();
        let devices = Fresh::new(MOST_DEVICES, DEVICE_LIFE);
        Self { key, provenance, fetch, directory, clock, keys, tenants, overages, devices }
    }

    /// What a token is known by.
    pub fn digest(&self, token: &str) -> Digest {
        self.key.digest(token)
    }

    /// Judges a token that a workload presents.
    ///
    /// # Errors
    /// Why it may not.
    pub async fn judge(&self, identities: &Identities, presented: Presented<'_>) -> Result<Judged, JudgeError> {
        let token = match Token::parse(presented.token) {
            Ok(token) => token,
            Err(TokenError::NotCompact | TokenError::Encrypted | TokenError::Algorithm) => return Ok(Judged::Foreign),
            Err(error) => return Err(error.into()),
        };
        let Some(realm) = realm(identities, token.claims())? else { return Ok(Judged::Foreign) };
        let digest = self.key.digest(presented.token);
        let now = self.clock.now();
        let is_in_file = || token_file::holds(presented.source, presented.token);
        let (issued, is_new) = match self.provenance.find(&digest, presented.workload, now) {
            // What binds such a token is that it is there: one that was replaced is over, once its clients can know that.
            Known::Live(issued)
                if issued.bound == Bound::TokenFile
                    && !is_in_file()
                    && !token_file::was_just_replaced(presented.source) =>
            {
                return Err(JudgeError::Ended);
            }
            Known::Live(issued) => (issued, false),
            Known::Dead(..) => return Err(JudgeError::Ended),
            Known::Expired(_) => return Err(JudgeError::Expired),
            Known::OfAnother(_) => return Err(JudgeError::OfAnother),
            Known::Unknown if is_in_file() => {
                let bound = (Bound::TokenFile, Authentic::Signature);
                (Arc::new(self.read(&token, &realm, presented.workload, Vec::new(), bound, None)?), true)
            }
            Known::Unknown => return Err(JudgeError::NotSeen),
        };
        if !issued.audiences.iter().any(|audience| presented.target.takes(audience)) {
            return Err(JudgeError::ForAnother(issued.audiences.first().cloned().unwrap_or_default()));
        }
        let is_verified = issued.bound == Bound::TokenFile || realm.verifies(token.claims());
        if is_verified {
            self.verify(&token, &realm).await?;
        }
        // What it is in is what the issuer said last.
        let issued = if is_new { issued } else { self.provenance.latest(&issued).in_the_words_of(issued) };
        Ok(Judged::Ours { issued, digest, is_new, is_verified })
    }

    /// Remembers a token, once it is recorded.
    ///
    /// # Errors
    /// [`Full`]: then the workload mustn't get it.
    pub fn accept(&self, digest: Digest, issued: Issued) -> Result<(), Full> {
        self.provenance.insert(digest, issued, self.clock.now())
    }

    /// What an issuer's answer gives to `workload`, which asked `tenant` for `audiences`; none if there is no access token
    /// in it.
    ///
    /// # Errors
    /// Why the token can't be one of the workload's: then it mustn't be released.
    pub fn issue(
        &self,
        identities: &Identities,
        answer: &Answer,
        asked: Asked<'_>,
    ) -> Result<Option<(Digest, Issued)>, JudgeError> {
        let Some(secret) = &answer.access_token else { return Ok(None) };
        let token = Token::parse(secret.expose())?;
        verify::is_current(token.claims(), self.clock.now())?;
        let realm = realm(identities, token.claims())?.ok_or(TokenError::Issuer)?;
        // An endpoint speaks for its own issuer and for nobody else's.
        match (&realm, asked.tenant) {
            (Realm::Tenant(_), _) if asked.kind == Kind::Oidc => return Err(TokenError::Issuer.into()),
            (Realm::Tenant(found), Some(Tenant::One(asked))) if found.id != asked => {
                return Err(JudgeError::OtherTenant);
            }
            (Realm::Issuer(found), _) if asked.kind != Kind::Oidc || asked.issuer != Some(&found.name) => {
                return Err(TokenError::Issuer.into());
            }
            _ => {}
        }
        let authentic = match asked.kind {
            Kind::Entra | Kind::Oidc => Authentic::Issuer,
            Kind::Imds | Kind::Arc | Kind::AppService => Authentic::HostEndpoint,
        };
        let (audiences, bound) = (asked.audiences.to_vec(), (Bound::IssuedHere, authentic));
        let expiry = answer.expiry(self.clock.now());
        let issued = self.read(&token, &realm, asked.workload, audiences, bound, expiry)?;
        Ok(Some((self.key.digest(secret.expose()), issued)))
    }

    /// Notes for which audience a workload's client asked for a device code.
    pub fn note_device(&self, workload: &WorkloadName, client: &str, audience: &str) {
        self.devices.put((workload.clone(), client.to_owned()), audience.to_owned());
    }

    /// For which audience a workload's client asked for a device code last.
    pub fn device_audience(&self, workload: &WorkloadName, client: &str) -> Option<String> {
        self.devices.get(&(workload.clone(), client.to_owned()))
    }

    /// Marks a token dead because a service asked for a newer one. False if it already was, or isn't known.
    pub fn challenged(&self, digest: &Digest) -> bool {
        self.provenance.kill(digest, Death::Challenged)
    }

    /// The value of `WWW-Authenticate` that makes a client sign in again in the cloud of a target's tenants.
    pub fn challenge(&self, identities: &Identities) -> String {
        let cloud = identities.tenants.first().map(cloud).unwrap_or_default();
        challenge::value(&cloud, self.clock.now())
    }

    /// Which tenant the first segment of a path at `login` stands for.
    ///
    /// # Errors
    /// Why that isn't known.
    pub async fn tenant(&self, identities: &Identities, login: &str, segment: &str) -> Result<Tenant, TenantError> {
        let lower = segment.to_ascii_lowercase();
        let configured = identities.tenants.iter().find(|tenant| tenant.domains.iter().any(|d| d.as_str() == lower));
        if let Some(tenant) = configured {
            return Ok(Tenant::One(tenant.id));
        }
        let tenants = {
            let mut all = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
            let make = || {
                let cloud = Cloud { login: format!("https://{login}"), ..Cloud::default() };
                Arc::new(Tenants::new(cloud, Arc::clone(&self.fetch), Arc::clone(&self.clock)))
            };
            Arc::clone(all.entry(login.to_owned()).or_insert_with(make))
        };
        tenants.resolve(segment).await
    }

    /// How old the keys of issuers are, whose keys were needed so far.
    pub fn freshness(&self) -> Vec<(String, Freshness)> {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = keys.iter().map(|(issuer, source)| (issuer.clone(), source.freshness())).collect();
        all.sort();
        all
    }

    /// Keeps the keys that are in use fresh, for as long as it is polled.
    pub async fn keep_fresh(&self) {
        loop {
            let sources: Vec<_> =
                self.keys.lock().unwrap_or_else(PoisonError::into_inner).values().map(Arc::clone).collect();
            for source in sources {
                if let Err(error) = source.refresh().await {
                    tracing::warn!(%error, issuer = source.authority().issuer, "an issuer's keys can't be refreshed");
                }
            }
            tokio::time::sleep(Duration::from_secs(30)).await;
        }
    }

    /// What a token says, as provenance keeps it.
    fn read(
        &self,
        token: &Token,
        realm: &Realm<'_>,
        workload: &WorkloadName,
        mut audiences: Vec<String>,
        (bound, authentic): (Bound, Authentic),
        expiry: Option<Timestamp>,
    ) -> Result<Issued, JudgeError> {
        let claims = token.claims();
        let missing = |name| TokenError::ClaimMissing(name);
        let (principal, prefix) = match realm {
            Realm::Tenant(tenant) => {
                let (tid, oid) = claims.object()?;
                if tid != tenant.id {
                    return Err(TokenError::Tenant.into());
                }
                (PrincipalId::entra(tid, oid), tid.to_string())
            }
            Realm::Issuer(issuer) => {
                let subject = claims.sub.as_deref().ok_or(missing("sub"))?;
                let malformed = |_| TokenError::ClaimMalformed("sub");
                (PrincipalId::subject(&issuer.name, subject).map_err(malformed)?, issuer.name.to_string())
            }
        };
        let exp = claims.exp.ok_or(missing("exp"))?;
        audiences.extend(claims.aud.iter().filter(|aud| !audiences.contains(aud)).cloned().collect::<Vec<_>>());
        let groups = match &claims.groups {
            Groups::Listed(groups) => Some(groups.iter().map(|group| format!("{prefix}/{group}")).collect()),
            Groups::Overage | Groups::Absent => None,
        };
        let of = |aud: &String| claims.roles.iter().map(|role| format!("{prefix}/{aud}/{role}")).collect::<Vec<_>>();
        Ok(Issued {
            workload: workload.clone(),
            principal,
            client: claims.client,
            roles: claims.aud.iter().flat_map(of).collect(),
            audiences,
            kind: claims.kind(),
            groups,
            uti: claims.uti.clone(),
            // The sooner of what the token and the answer say.
            expiry: expiry.map_or(exp, |expiry| expiry.min(exp)),
            bound,
            authentic,
        })
    }

    async fn verify(&self, token: &Token, realm: &Realm<'_>) -> Result<(), JudgeError> {
        let (issuer, audiences, authority) = match realm {
            Realm::Tenant(tenant) => {
                let cloud = cloud(tenant);
                let [_, v2] = cloud.issuers(tenant.id);
                (Issuer::Entra { cloud, tenant: tenant.id }, &tenant.audiences, KeyAuthority::of(&v2))
            }
            Realm::Issuer(issuer) => {
                let mut authority = KeyAuthority::of(&issuer.url);
                let elsewhere = issuer.jwks_uri.as_deref().and_then(|uri| uri.strip_prefix("https://"));
                authority.key_hosts.extend(elsewhere.and_then(|rest| rest.split('/').next()).map(str::to_owned));
                (Issuer::Oidc(issuer.url.clone()), &issuer.audiences, authority)
            }
        };
        let keys = self.source(authority).keys(token.kid().ok_or(TokenError::KeyMissing)?).await?;
        let expected = Expected { issuer: &issuer, audiences, ps256: true };
        Ok(verify::verify(token, &keys, &expected, self.clock.now())?)
    }

    fn source(&self, authority: KeyAuthority) -> Arc<KeySource> {
        let mut all = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || Arc::new(KeySource::new(authority.clone(), Arc::clone(&self.fetch), Arc::clone(&self.clock)));
        Arc::clone(all.entry(authority.issuer.clone()).or_insert_with(make))
    }
}

/// A request whose answer may hold a token.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// Which kind of endpoint was asked.
    pub kind: Kind,
    /// Whose it is, if it is no endpoint of Entra's.
    pub issuer: Option<&'a IssuerName>,
    /// Who asked.
    pub workload: &'a WorkloadName,
    /// Which tenant was asked; none where the endpoint belongs to no tenant.
    pub tenant: Option<Tenant>,
    /// What the token is to be for.
    pub audiences: &'a [String],
}

impl Realm<'_> {
    /// Whether tokens with these claims are verified in full, besides having been seen issued.
    fn verifies(&self, claims: &Claims) -> bool {
        match self {
            Realm::Tenant(tenant) => claims.aud.iter().any(|aud| tenant.audiences.contains(aud)),
            Realm::Issuer(_) => true,
        }
    }
}

/// Whose a token says it is; none if that is neither Entra nor a listed issuer.
///
/// # Errors
/// It is of an Entra tenant that isn't listed: no target may get such a token.
fn realm<'a>(identities: &'a Identities, claims: &Claims) -> Result<Option<Realm<'a>>, JudgeError> {
    let Some(iss) = claims.iss.as_deref() else { return Ok(None) };
    let plain = iss.strip_suffix('/').unwrap_or(iss);
    if let Some(issuer) = identities.issuers.iter().find(|issuer| issuer.url == plain) {
        return Ok(Some(Realm::Issuer(issuer)));
    }
    // Entra's issuers end in the tenant, in version 2 followed by a word.
    let tenant = plain.strip_suffix("/v2.0").unwrap_or(plain).rsplit('/').next().and_then(|id| id.parse().ok());
    let Some(tenant): Option<TenantId> = tenant else { return Ok(None) };
    let listed = identities.tenant(tenant);
    let clouds = listed.map(cloud).into_iter().chain(identities.tenants.iter().map(cloud)).chain([Cloud::default()]);
    let is_entra = clouds.into_iter().any(|cloud| cloud.issuers(tenant).iter().any(|own| own == iss));
    match listed {
        Some(tenant) if is_entra => Ok(Some(Realm::Tenant(tenant))),
        None if is_entra => Err(JudgeError::TenantNotListed(tenant)),
        _ => Ok(None),
    }
}

/// The hosts of a tenant's cloud.
fn cloud(tenant: &config::Tenant) -> Cloud {
    let login = format!("https://{}", tenant.login);
    match tenant.login.as_str() {
        "login.microsoftonline.us" => Cloud { login, graph: "https://graph.microsoft.us".into(), ..Cloud::default() },
        "login.partner.microsoftonline.cn" | "login.chinacloudapi.cn" => Cloud {
            login,
            sts: "https://sts.chinacloudapi.cn".into(),
            graph: "https://microsoftgraph.chinacloudapi.cn".into(),
        },
        _ => Cloud { login, ..Cloud::default() },
    }
}

/// The kind of endpoint that a target is.
pub fn kind(issues: &config::Issues) -> (Kind, Option<&IssuerName>) {
    match issues {
        config::Issues::Entra => (Kind::Entra, None),
        config::Issues::Imds => (Kind::Imds, None),
        config::Issues::Arc => (Kind::Arc, None),
        config::Issues::AppService => (Kind::AppService, None),
        config::Issues::Oidc(name) => (Kind::Oidc, Some(name)),
    }
}

#[cfg(test)]
mod tests;
