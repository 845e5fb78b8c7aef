//! An identity provider in the manner of Microsoft Entra ID, on loopback: the login hosts in TLS under a CA of its own,
//! and in clear what a host offers its processes (IMDS, Azure Arc, App Service). Who exists is in [`directory`]. It keeps
//! a log of every request and of every token that it issued, so that a test can compare them with what Interceptor
//! recorded; [`TokenBuilder`] makes tokens that it would never issue. A service asks a [`Guard`] whether a token will do.

use std::fs::Permissions;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use crate::authority::Authority;

use self::directory::{Application, Managed, Resource, Tenant, User};
use self::issue::Wanted;
use self::server::Endpoint;
use self::state::{Inner, State};

pub use self::guard::{Caller, Challenge, Guard};
pub use self::host::{ARC_TOKENS, IDENTITY_HEADER};
pub use self::key::Key;
pub use self::state::{DeviceAnswer, Issued, Received, Service};
pub use self::token::{Algorithm, TokenBuilder};

mod client;
pub mod directory;
pub mod flow;
mod grants;
mod guard;
mod host;
mod issue;
mod key;
mod login;
mod refusal;
mod scope;
mod server;
mod signin;
mod state;
mod token;

/// Where the endpoints listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Places {
    /// The login hosts.
    pub login: SocketAddr,
    /// IMDS.
    pub imds: SocketAddr,
    /// Arc.
    pub arc: SocketAddr,
    /// App Service.
    pub app_service: SocketAddr,
}

impl Default for Places {
    /// Free ports of 127.0.0.1.
    fn default() -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self { login: any, imds: any, arc: any, app_service: any }
    }
}

/// The running provider; ends when it is dropped.
pub struct Entra {
    places: Places,
    authority: Authority,
    state: Arc<State>,
    tokens: TempDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Entra {
    /// Starts it on free ports of 127.0.0.1, with a certificate for Entra's login hosts, the cluster's provider,
    /// localhost, 127.0.0.1 and `names`.
    ///
    /// # Errors
    /// No port, key, certificate or thread could be had.
    pub fn start(names: &[&str]) -> Result<Self> {
        Self::start_at(names, Places::default())
    }

    /// As [`Entra::start`], at these addresses.
    ///
    /// # Errors
    /// As [`Entra::start`].
    pub fn start_at(names: &[&str], mut places: Places) -> Result<Self> {
        let authority = Authority::new()?;
        let own = [directory::CLUSTER_HOST, "localhost", "127.0.0.1"];
        let tls = TlsAcceptor::from(authority.server(&[&login::HOSTS, &own[..], names].concat())?);
        let tokens = tempfile::Builder::new().prefix("arc-tokens-").tempdir()?;
        // Clients that may read the secrets run as other users.
        std::fs::set_permissions(tokens.path(), Permissions::from_mode(0o755))?;
        let state = State::new()?;
        let mut endpoints = Vec::new();
        let folder = Arc::new(tokens.path().to_owned());
        for (service, place, tls) in [
            (Service::Login, &mut places.login, Some(tls)),
            (Service::Imds, &mut places.imds, None),
            (Service::Arc, &mut places.arc, None),
            (Service::AppService, &mut places.app_service, None),
        ] {
            let listener = TcpListener::bind(*place).with_context(|| format!("can't listen at {place}"))?;
            listener.set_nonblocking(true)?;
            *place = listener.local_addr()?;
            let (state, tokens) = (Arc::clone(&state), Arc::clone(&folder));
            endpoints.push((listener, Endpoint { service, tls, state, tokens }));
        }
        let (stop, stopped) = oneshot::channel::<()>();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("entra".into()).spawn(move || {
            runtime.block_on(async move {
                for (listener, endpoint) in endpoints {
                    tokio::spawn(server::accept(listener, endpoint));
                }
                // Its sender is dropped, never used.
                let _ = stopped.await;
            });
        });
        let thread = thread.context("can't start a thread for Entra")?;
        Ok(Self { places, authority, state, tokens, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    pub fn places(&self) -> Places {
        self.places
    }

    /// The certificate of the CA that the login hosts' own comes from, PEM.
    pub fn ca_pem(&self) -> String {
        self.authority.pem()
    }

    /// The folder of Arc's secrets, to be shown to clients as [`ARC_TOKENS`].
    pub fn arc_tokens(&self) -> &Path {
        self.tokens.path()
    }

    /// Every request that was answered so far, in order.
    pub fn received(&self) -> Vec<Received> {
        self.state.lock().log.clone()
    }

    /// Every token that was issued so far, in order.
    pub fn issued(&self) -> Vec<Issued> {
        self.state.lock().issued.clone()
    }

    /// A service's check of tokens of this Entra for one of `audiences`.
    pub fn guard(&self, audiences: &[&str]) -> Guard {
        Guard::new(Arc::clone(&self.state), audiences)
    }

    /// Signs by a new key from now on, which isn't published until [`Entra::publish_keys`]: tokens have an unknown kid.
    ///
    /// # Errors
    /// No key could be made.
    pub fn renew_key(&self) -> Result<()> {
        self.state.lock().keys.renew()
    }

    /// Publishes the key that signs; the former ones stay published if `keep`.
    pub fn publish_keys(&self, keep: bool) {
        self.state.lock().keys.publish(keep);
    }

    /// The key that signs.
    pub fn key(&self) -> Arc<Key> {
        Arc::clone(&self.state.lock().keys.signing)
    }

    /// Gives all tokens this life, in seconds; `None`: what Entra would choose.
    pub fn set_lifetime(&self, seconds: Option<i64>) {
        self.state.lock().lifetime = seconds;
    }

    /// Takes an app role from everybody: no token that is issued from now on has it.
    pub fn take_role(&self, role: &str) {
        self.state.lock().taken.push(role.to_owned());
    }

    /// Takes everybody out of a group: no token that is issued from now on lists it. Graph is told by
    /// [`Graph::take_group`](crate::graph::Graph::take_group).
    pub fn take_group(&self, group: &str) {
        self.state.lock().taken_groups.push(group.to_owned());
    }

    /// How people answer to device codes from now on.
    pub fn set_device_answer(&self, answer: DeviceAnswer) {
        self.state.lock().device_answer = answer;
    }

    /// What a person does whose browser opens `url`: signs in as `user`. Gives the address that the browser is sent to.
    ///
    /// # Errors
    /// It isn't the address of the page to sign in on, or Entra refuses what is in it.
    pub fn browse(&self, url: &str, user: &User) -> Result<String> {
        let (place, query) = url.split_once('?').context("the address asks for nothing")?;
        let path = place.strip_prefix("https://login.microsoftonline.com/").context("not a login host")?;
        let tenant = path.strip_suffix("/oauth2/v2.0/authorize").context("not the page to sign in on")?;
        let mut query: Vec<_> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        query.push(("login_hint".to_owned(), user.upn.to_owned()));
        let endpoint = grants::Endpoint { tenant, version: 2 };
        let back = signin::authorize(&mut self.state.lock(), endpoint, &grants::Form(&query));
        back.map_err(|refusal| anyhow::anyhow!("{}", refusal.body(None)))
    }

    /// Has ID tokens say this nonce from now on, whatever was asked for; `None`: what was asked for.
    pub fn set_nonce(&self, nonce: Option<&str>) {
        self.state.lock().nonce = nonce.map(str::to_owned);
    }

    /// Has services challenge the tokens that `oid` has now, if their clients handle challenges.
    pub fn revoke(&self, oid: &str) {
        let mut state = self.state.lock();
        let dead: Vec<String> = state.issued.iter().filter(|one| one.oid == oid).map(|one| one.uti.clone()).collect();
        state.dead.extend(dead);
    }

    /// Has services challenge the next `count` requests, whatever token they bring.
    pub fn challenge(&self, count: u32) {
        self.state.lock().challenges = count;
    }

    /// Has IMDS give out this token as the host's own for `resource` from now on.
    pub fn set_managed(&self, resource: &'static Resource, token: &str) {
        let (identity, audience) = (directory::SYSTEM_ASSIGNED, resource.id.to_owned());
        let issued = Issued {
            token: token.to_owned(),
            tid: directory::CONTOSO.id,
            oid: identity.id,
            client: identity.client,
            audience: audience.clone(),
            uti: String::new(),
            expires: state::seconds() + 3_600,
        };
        self.state.lock().imds.insert((identity.client, audience), issued);
    }

    /// Has the host's endpoints answer these statuses first.
    pub fn fail_host(&self, statuses: &[u16]) {
        self.state.lock().faults = statuses.iter().copied().collect();
    }

    /// An application's own token as it would be issued now, to be changed and built.
    ///
    /// # Errors
    /// The application has no service principal there.
    pub fn app_token(
        &self,
        tenant: &'static Tenant,
        app: &'static Application,
        resource: &'static Resource,
    ) -> Result<TokenBuilder> {
        let wanted = Wanted::app(tenant, app, resource).context("no service principal in that tenant")?;
        Ok(self.state.lock().builder(&wanted))
    }

    /// A person's token as it would be issued to `app` now.
    pub fn user_token(
        &self,
        user: &'static User,
        app: &'static Application,
        resource: &'static Resource,
    ) -> TokenBuilder {
        self.state.lock().builder(&Wanted::user(user, app, resource))
    }

    /// A managed identity's token as it would be issued now.
    pub fn managed_token(&self, identity: &'static Managed, resource: &'static Resource) -> TokenBuilder {
        self.state.lock().builder(&Wanted::managed(identity, resource))
    }

    /// A token of the cluster's provider for the service account `subject`: what a projected token file holds.
    ///
    /// # Errors
    /// No key could be made.
    pub fn federated_token(&self, subject: &str) -> Result<TokenBuilder> {
        Inner::federated(subject)
    }

    /// Writes a projected token for `subject` to `path`.
    ///
    /// # Errors
    /// It can't be written.
    pub fn project(&self, subject: &str, path: &Path) -> Result<PathBuf> {
        let token = self.federated_token(subject)?.build()?;
        std::fs::write(path, token).with_context(|| format!("can't write `{}`", path.display()))?;
        Ok(path.to_owned())
    }
}

impl Drop for Entra {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic on its thread has been printed there.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
