//! The groups of people who are in more than a token can list: asked of Microsoft Graph with a credential of the
//! daemon's own, one for each tenant that has one.

use std::collections::HashMap;
use std::future::Future;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use jiff::Timestamp;
use zeroize::Zeroizing;

use super::Fetcher;
use crate::clock::Clock;
use crate::config::{Settings, Tenant};
use crate::identity::endpoint::Answer;
use crate::identity::overage::{Directory, GraphRequest};
use crate::identity::{FetchError, Secret};
use crate::ids::TenantId;

/// How long before its end a token isn't used any more.
const SPARE: Duration = Duration::from_secs(120);

/// The most bytes of a secret's file.
const MOST_SECRET: u64 = 4096;

/// The daemon's own way to the directories of tenants.
pub struct Memberships {
    fetcher: Fetcher,
    settings: Box<dyn Fn() -> Arc<Settings> + Send + Sync>,
    clock: Arc<dyn Clock>,
    /// The tokens that the daemon has itself. Never given to a workload.
    tokens: Mutex<HashMap<TenantId, (Arc<Secret>, Timestamp)>>,
}

impl Memberships {
    /// Signs in as the settings of the moment say.
    pub fn new(
        fetcher: Fetcher,
        settings: impl Fn() -> Arc<Settings> + Send + Sync + 'static,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { fetcher, settings: Box::new(settings), clock, tokens: Mutex::default() }
    }

    /// The daemon's token for Graph in this tenant: the one it has, or a new one.
    async fn token(&self, tenant: &Tenant, graph: &str) -> Result<Arc<Secret>, FetchError> {
        let known = self.tokens().get(&tenant.id).cloned();
        if let Some((token, until)) = known
            && self.clock.now() < until
        {
            return Ok(token);
        }
        let refused = |why: &str| FetchError::Unreachable(why.to_owned());
        let directory = tenant.directory.as_ref().ok_or_else(|| refused("the tenant has no `directory` credential"))?;
        let secret = secret(&directory.secret_file)
            .map_err(|error| FetchError::Unreachable(format!("`{}`: {error}", directory.secret_file.display())))?;
        let form = Zeroizing::new(
            form_urlencoded::Serializer::new(String::new())
                .append_pair("grant_type", "client_credentials")
                .append_pair("client_id", &directory.client.to_string())
                .append_pair("client_secret", &secret)
                .append_pair("scope", &format!("{graph}/.default"))
                .finish(),
        );
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        let url = format!("https://{}/{}/oauth2/v2.0/token", tenant.login, tenant.id);
        let body = Bytes::copy_from_slice(form.as_bytes());
        let answer = self.fetcher.request(Method::POST, &url, headers, body).await?;
        let answer = Answer::parse(&answer).map_err(|error| refused(&error.to_string()))?;
        let now = self.clock.now();
        let until = answer.expiry(now).and_then(|expiry| expiry.checked_sub(SPARE).ok()).unwrap_or(now);
        let token = Arc::new(answer.access_token.ok_or_else(|| refused("the login host gave no token"))?);
        self.tokens().insert(tenant.id, (Arc::clone(&token), until));
        Ok(token)
    }

    async fn ask_as(&self, tenant: TenantId, request: &GraphRequest) -> Result<Bytes, FetchError> {
        let settings = (self.settings)();
        let tenant = settings.identities.tenant(tenant);
        let tenant = tenant.ok_or_else(|| FetchError::Unreachable("the tenant isn't listed any more".into()))?;
        let graph = request.url.split_at(request.url.find("/v1.0/").unwrap_or(request.url.len())).0;
        let token = self.token(tenant, graph).await?;
        let bearer = Zeroizing::new(format!("Bearer {}", token.expose()));
        let mut bearer = HeaderValue::from_str(&bearer)
            .map_err(|_invalid| FetchError::Unreachable("the login host gave no token that can be sent".into()))?;
        bearer.set_sensitive(true);
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, bearer);
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let method = if request.method == "GET" { Method::GET } else { Method::POST };
        let body = Bytes::from_static(request.body.as_bytes());
        let answer = self.fetcher.request(method, &request.url, headers, body).await;
        if answer == Err(FetchError::Status(401)) {
            self.tokens().remove(&tenant.id);
        }
        answer
    }

    fn tokens(&self) -> std::sync::MutexGuard<'_, HashMap<TenantId, (Arc<Secret>, Timestamp)>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Directory for Memberships {
    fn ask<'a>(
        &'a self,
        tenant: TenantId,
        request: &'a GraphRequest,
    ) -> Pin<Box<dyn Future<Output = Result<Bytes, FetchError>> + Send + 'a>> {
        Box::pin(self.ask_as(tenant, request))
    }
}

/// A secret from a file that is root's alone (or of the user that the daemon runs as), without white space around it.
fn secret(path: &std::path::Path) -> std::io::Result<Zeroizing<String>> {
    let file = std::fs::File::open(path)?;
    let metadata = file.metadata()?;
    let own = metadata.uid() == 0 || metadata.uid() == nix::unistd::geteuid().as_raw();
    if !own || metadata.mode() & 0o077 != 0 {
        return Err(std::io::Error::other("others could read it; let it be root's, with mode 600"));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(MOST_SECRET).read_to_string(&mut text)?;
    Ok(Zeroizing::new(text.trim().to_owned()))
}
