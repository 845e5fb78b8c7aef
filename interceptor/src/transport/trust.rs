//! Who is trusted: the roots that upstreams are verified against, and the merged bundle that workloads get (the same
//! roots and our own authority). Minting is `authority`'s, connecting is `dial`'s.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::hash::HashAlgorithm;
use rustls::{CertificateError, ClientConfig, ProtocolVersion, RootCertStore, SupportedCipherSuite};
use rustls_native_certs::CertificateResult;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::config::Upstream;

/// Why there is nobody to trust.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// Neither the host's store nor `extra_ca` has a root.
    #[error(
        "the host's store has no root certificate ({problems}); install `ca-certificates`, point SSL_CERT_FILE at a \
         bundle, or set `extra_ca`"
    )]
    NoRoots {
        /// What was tried, and what came of it.
        problems: String,
    },
    /// A file of `extra_ca` can't be used.
    #[error("`extra_ca` file `{}`: {problem}; give a PEM file with root certificates", path.display())]
    ExtraCa {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The bundle for the workloads couldn't be written.
    #[error("couldn't write the trust bundle `{}`", path.display())]
    Write {
        /// The bundle.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// rustls refused the configuration.
    #[error("couldn't set TLS up")]
    Tls(#[from] rustls::Error),
}

/// The roots that upstreams are verified against: the host's store and `extra_ca`.
#[derive(Debug, Clone)]
pub struct Roots {
    /// In the order of the store, each once.
    certificates: Vec<CertificateDer<'static>>,
    store: Arc<RootCertStore>,
}

impl Roots {
    /// Reads the host's store (where OpenSSL looks; SSL_CERT_FILE and SSL_CERT_DIR take its place) and `extra_ca`.
    /// Fails when there is no root at all, or when a file of `extra_ca` is unusable.
    pub fn load(upstream: &Upstream) -> Result<Roots, TrustError> {
        Roots::merge(rustls_native_certs::load_native_certs(), &upstream.extra_ca)
    }

    /// The roots of one PEM file, and no others.
    ///
    /// # Errors
    /// [`TrustError::ExtraCa`] when it is unusable.
    pub fn only(path: &Path) -> Result<Roots, TrustError> {
        let nothing = CertificateResult::default();
        Roots::merge(nothing, &[path.to_owned()])
    }

    fn merge(host: CertificateResult, extra: &[PathBuf]) -> Result<Roots, TrustError> {
        let mut store = RootCertStore::empty();
        let mut certificates = Vec::new();
        for certificate in host.certs {
            // A store may hold what webpki can't read; then nothing that chains to it is trusted.
            if store.add(certificate.clone()).is_ok() && !certificates.contains(&certificate) {
                certificates.push(certificate);
            }
        }
        for path in extra {
            for certificate in extra_ca(path)? {
                store.add(certificate.clone()).map_err(|error| bad_extra_ca(path, error))?;
                if !certificates.contains(&certificate) {
                    certificates.push(certificate);
                }
            }
        }
        let problems = host.errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        if certificates.is_empty() {
            let problems = if problems.is_empty() { "no store was found".to_owned() } else { problems };
            return Err(TrustError::NoRoots { problems });
        }
        if !problems.is_empty() {
            tracing::warn!(problems, "a part of the host's certificate store couldn't be read");
        }
        Ok(Roots { certificates, store: Arc::new(store) })
    }

    /// How many roots there are.
    pub fn count(&self) -> usize {
        self.certificates.len()
    }

    /// The client configuration for upstreams: TLS 1.2 and 1.3, verified against these roots.
    ///
    /// Sessions aren't resumed: a resumed one isn't verified again, and would tie two workloads' connections together.
    pub fn client_config(&self) -> Result<ClientConfig, TrustError> {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(self.store.clone())
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        Ok(config)
    }

    /// The merged bundle, as PEM: these roots and then `authority_pem`.
    pub fn bundle(&self, authority_pem: &str) -> String {
        let blocks: Vec<_> = self.certificates.iter().map(|root| pem::Pem::new("CERTIFICATE", root.to_vec())).collect();
        let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
        pem::encode_many_config(&blocks, config) + "\n" + authority_pem
    }

    /// Writes the merged bundle with [`write`].
    ///
    /// # Errors
    /// [`TrustError::Write`].
    pub fn write_bundle(&self, authority_pem: &str, path: &Path) -> Result<(), TrustError> {
        write(&self.bundle(authority_pem), path)
    }
}

/// Writes PEM that everyone may read (0644). Readers see the old file or the new one, never a part.
///
/// # Errors
/// [`TrustError::Write`].
pub fn write(pem: &str, path: &Path) -> Result<(), TrustError> {
    let draft = path.with_extension(format!("new.{}", std::process::id()));
    let written = fs::write(&draft, pem)
        .and_then(|()| fs::set_permissions(&draft, fs::Permissions::from_mode(0o644)))
        .and_then(|()| fs::rename(&draft, path));
    written.map_err(|source| {
        // The draft may not even be there; the error that counts is the first one.
        drop(fs::remove_file(&draft));
        TrustError::Write { path: path.to_owned(), source }
    })
}

/// The one crypto provider: AWS-LC, with X25519MLKEM768 preferred.
pub(super) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    PROVIDER.clone()
}

/// The provider for the way between workload and daemon, which doesn't leave the host: the same suites, those with SHA-256
/// first. Most processors have instructions for that hash, few for SHA-384, and every handshake derives a dozen keys by it.
pub(super) fn local_provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let mut provider = CryptoProvider::clone(&provider());
        // Stable: TLS 1.3 stays before 1.2, and what else the provider's order says.
        provider.cipher_suites.sort_by_key(|suite| {
            let hash = match suite {
                SupportedCipherSuite::Tls13(suite) => suite.common.hash_provider,
                SupportedCipherSuite::Tls12(suite) => suite.common.hash_provider,
            };
            (suite.version().version != ProtocolVersion::TLSv1_3, hash.algorithm() != HashAlgorithm::SHA256)
        });
        Arc::new(provider)
    });
    PROVIDER.clone()
}

/// SHA-256, from the provider.
pub(super) fn sha256(data: &[u8]) -> Vec<u8> {
    use rustls::SupportedCipherSuite::{Tls12, Tls13};
    let hash = match rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256 {
        Tls13(suite) => suite.common.hash_provider,
        Tls12(suite) => suite.common.hash_provider,
    };
    hash.hash(data).as_ref().to_vec()
}

/// Verifies a leaf for `name` as a client that trusts `root` alone would, at `now` (seconds since 1970).
pub(super) fn verify(
    root: &CertificateDer<'_>,
    leaf: &CertificateDer<'_>,
    name: &'static str,
    now: i64,
) -> Result<(), rustls::Error> {
    let mut store = RootCertStore::empty();
    store.add(root.clone().into_owned())?;
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider())
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    let name = ServerName::try_from(name).map_err(|error| rustls::Error::General(error.to_string()))?;
    let now = UnixTime::since_unix_epoch(Duration::from_secs(now.max(0).unsigned_abs()));
    let judge = |certificate| verifier.verify_server_cert(certificate, &[], &name, &[], now);
    // webpki doesn't ask whether a root is still valid, but clients do. Taken for a leaf it is refused, for its dates
    // first of all.
    match judge(root) {
        Err(rustls::Error::InvalidCertificate(error)) if is_of_time(&error) => {
            return Err(rustls::Error::InvalidCertificate(error));
        }
        _ => {}
    }
    judge(leaf).map(|_| ())
}

fn is_of_time(error: &CertificateError) -> bool {
    use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    matches!(error, Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. })
}

fn extra_ca(path: &Path) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let certificates: Vec<_> =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|error| bad_extra_ca(path, error))?;
    if certificates.is_empty() {
        return Err(bad_extra_ca(path, "it has no certificate"));
    }
    Ok(certificates)
}

fn bad_extra_ca(path: &Path, problem: impl std::fmt::Display) -> TrustError {
    TrustError::ExtraCa { path: path.to_owned(), problem: problem.to_string() }
}

#[cfg(test)]
mod tests;
