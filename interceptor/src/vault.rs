//! Credentials of targets: held for them, never by the processes that use them. A secret is read from a root-only file
//! or a command when it is needed, kept for a while, wiped when it is dropped, and shown by nothing. Not here: when a
//! credential may be used (`enforce` takes a permit for that), and which target has which (`config`).

mod echo;
mod identity;
mod inject;
mod secret;
mod sharedkey;
mod source;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rustls::sign::CertifiedKey;
use tokio::sync::Mutex;
use tokio::time::Instant;

pub use echo::{Echo, EchoMask};
pub use inject::Credential;
pub use secret::Secret;

use crate::config::{ConfigError, CredentialKind, CredentialSettings, Host, SecretSource, Targets};
use crate::ids::TargetName;

/// How long a failure to get a secret is remembered, so that nobody makes the daemon run commands without end.
const REMEMBERED: Duration = Duration::from_secs(5);

/// Why a credential can't be had. The texts are for operators: they name files and programs, never what is in them.
#[derive(Debug, Clone, thiserror::Error)]
pub enum VaultError {
    /// A file can't be read, or others could read or write it.
    #[error("{0}")]
    File(Arc<ConfigError>),
    /// The command failed, took too long, or printed too much.
    #[error("the command `{program}` {problem}")]
    Command {
        /// The program.
        program: String,
        /// What went wrong.
        problem: String,
    },
    /// What was read can't be such a credential.
    #[error("what {place} holds can't be used: {problem}")]
    Unusable {
        /// The file or the command.
        place: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl From<ConfigError> for VaultError {
    fn from(error: ConfigError) -> Self {
        VaultError::File(Arc::new(error))
    }
}

/// The credentials of all targets.
#[derive(Default)]
pub struct Vault {
    targets: Targets,
    keepers: HashMap<TargetName, Arc<Keeper>>,
}

struct Keeper {
    settings: Arc<CredentialSettings>,
    held: Mutex<Option<Held>>,
}

/// What was read, and when.
struct Held {
    since: Instant,
    result: Result<Material, VaultError>,
}

#[derive(Clone)]
enum Material {
    Secret(Arc<Secret>),
    Identity(Arc<CertifiedKey>),
}

impl Vault {
    /// The credentials that `targets` name. Nothing is read yet.
    pub fn new(targets: &Targets) -> Self {
        let keepers = targets.iter().filter_map(|target| {
            let settings = Arc::new(target.credential.clone()?);
            Some((target.name.clone(), Arc::new(Keeper { settings, held: Mutex::new(None) })))
        });
        Self { keepers: keepers.collect(), targets: targets.clone() }
    }

    /// What requests to `target` are to carry; none where the target has no credential, or one that belongs to the
    /// connection (a client certificate).
    ///
    /// # Errors
    /// When the secret can't be had. Then nothing is to be sent.
    pub async fn credential(&self, target: &TargetName) -> Result<Option<Credential>, VaultError> {
        let Some(keeper) = self.keepers.get(target) else { return Ok(None) };
        match keeper.material().await? {
            Material::Secret(secret) => Ok(Some(Credential::new(Arc::clone(&keeper.settings), secret))),
            Material::Identity(_) => Ok(None),
        }
    }

    /// The client certificate for connections to `host` and `port`; none where their target has none.
    ///
    /// # Errors
    /// When it can't be had. Then no connection is to be made.
    pub async fn identity(&self, host: &Host, port: u16) -> Result<Option<Arc<CertifiedKey>>, VaultError> {
        let Some(keeper) = self.targets.find(host, port).and_then(|target| self.keepers.get(&target.name)) else {
            return Ok(None);
        };
        if !matches!(keeper.settings.kind, CredentialKind::ClientCertificate { .. }) {
            return Ok(None);
        }
        match keeper.material().await? {
            Material::Identity(identity) => Ok(Some(identity)),
            Material::Secret(_) => Ok(None),
        }
    }
}

impl Keeper {
    /// What is held, read anew when it is too old. One reads, the others wait for it; also when who asked first has gone: a
    /// command that was started isn't forgotten, or one more would be for each who comes and goes.
    async fn material(self: &Arc<Self>) -> Result<Material, VaultError> {
        if let Some(fresh) = self.fresh(self.held.lock().await.as_ref()) {
            return fresh;
        }
        let keeper = Arc::clone(self);
        let reading = tokio::spawn(async move {
            let mut held = keeper.held.lock().await;
            if let Some(fresh) = keeper.fresh(held.as_ref()) {
                return fresh;
            }
            let result = keeper.read().await;
            if let Err(error) = &result {
                tracing::error!(%error, "a credential can't be had, so what needs it is refused");
            }
            // What was held before is wiped here, once the last request that uses it has ended.
            let since = Instant::now();
            *held = Some(Held { since, result: result.clone() });
            drop(held);
            keeper.wipe_later(since);
            result
        });
        reading.await.unwrap_or_else(|_ended| Err(unread()))
    }

    /// Lets go of what was read at `since` when its time is over, also if nobody asks again.
    fn wipe_later(self: &Arc<Self>, since: Instant) {
        let (keeper, ttl) = (Arc::downgrade(self), self.settings.ttl);
        tokio::spawn(async move {
            tokio::time::sleep(ttl).await;
            if let Some(keeper) = keeper.upgrade() {
                let _old = keeper.held.lock().await.take_if(|held| held.since == since);
            }
        });
    }

    fn fresh(&self, held: Option<&Held>) -> Option<Result<Material, VaultError>> {
        let held = held?;
        let good_for = if held.result.is_ok() { self.settings.ttl } else { REMEMBERED };
        (held.since.elapsed() < good_for).then(|| held.result.clone())
    }

    async fn read(&self) -> Result<Material, VaultError> {
        match &self.settings.kind {
            CredentialKind::ClientCertificate { certificate, key } => {
                let (certificate, key) = (certificate.clone(), key.clone());
                blocking(move || identity::read(&certificate, &key)).await.map(Material::Identity)
            }
            CredentialKind::Header { source, .. }
            | CredentialKind::Basic { source, .. }
            | CredentialKind::Query { source, .. }
            | CredentialKind::SharedKey { source, .. } => {
                let source: SecretSource = source.clone();
                let secret = blocking(move || source::read(&source)).await?;
                inject::check(&self.settings, &secret)?;
                Ok(Material::Secret(Arc::new(secret)))
            }
        }
    }
}

async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, VaultError> + Send + 'static,
) -> Result<T, VaultError> {
    tokio::task::spawn_blocking(read).await.unwrap_or_else(|_ended| Err(unread()))
}

fn unread() -> VaultError {
    VaultError::Unusable { place: "the credential's source".into(), problem: "reading it failed".into() }
}

#[cfg(test)]
mod tests;
